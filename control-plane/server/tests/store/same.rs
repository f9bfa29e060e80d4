// SPDX-License-Identifier: EUPL-1.2
//! Random operations, done to the store in memory and to the one in Redis side by side, are answered alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use control_core::ids::{Epoch, NodeId, RoomKey, TenantName, Uid};
use control_core::lease::{NodeLease, RoomLease};
use control_core::placement::Strategy as Layout;
use control_core::quota::Usage;
use control_core::record::{Capacity, RecordKind, TenantLimits};
use control_core::time::Moment;
use control_plane::store::memory::MemoryStore;
use control_plane::store::{
    Choice, EventQueue, FailureScope, HoldCommand, PlaceCommand, RequestId, RoomReport, Store,
    StoredRecord,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::conformance::{choice, command, event, lease, node, policy, report};
use crate::redis_store::{options, ready};
use crate::servers::{Server, Setup};

#[derive(Clone, Debug)]
enum Step {
    Place {
        room: u8,
        request: u128,
        nodes: Vec<u8>,
        pack: bool,
        limited: bool,
        people: u32,
        replaces: Option<u64>,
    },
    Undo(u8, u64, Option<u8>),
    Reserve {
        room: u8,
        request: u128,
        node: u8,
        limited: bool,
        people: u32,
        publishers: u32,
    },
    Release(u8, u128),
    Hold {
        room: u8,
        nodes: Vec<u8>,
        people: u32,
        seconds: u64,
    },
    DropHold(u8),
    Room(u8),
    Reports(Vec<(u8, u8, u64, u32, u32, bool)>),
    Close(u8, u8, u64, bool),
    Usage,
    Refresh(u8, u64),
    Mark(u8, bool),
    Node(u8),
    Count,
    Failures,
    Put(u8, u64),
    Forget(u8, u64),
    Records,
    Claim(u8, u64),
    Push(u8),
    Events(usize),
    Done(u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let nodes = || prop::collection::vec(0_u8..4, 0..4);
    let request = || 0_u128..12;
    let room = || 0_u8..4;
    let epoch = || 1_u64..5;
    let told = (room(), 0_u8..4, epoch(), 0_u32..5, 0_u32..3, any::<bool>());
    prop_oneof![
        6 => (room(), request(), nodes(), any::<bool>(), any::<bool>(), 0_u32..3, prop::option::of(epoch()))
            .prop_map(|(room, request, nodes, pack, limited, people, replaces)| Step::Place {
                room, request, nodes, pack, limited, people, replaces,
            }),
        1 => (room(), epoch(), prop::option::of(0_u8..4)).prop_map(|(room, epoch, to)| Step::Undo(room, epoch, to)),
        6 => (room(), request(), 0_u8..4, any::<bool>(), 0_u32..3, 0_u32..2)
            .prop_map(|(room, request, node, limited, people, publishers)| Step::Reserve {
                room, request, node, limited, people, publishers,
            }),
        2 => (room(), request()).prop_map(|(room, request)| Step::Release(room, request)),
        3 => (room(), nodes(), 0_u32..6, 1_u64..40)
            .prop_map(|(room, nodes, people, seconds)| Step::Hold { room, nodes, people, seconds }),
        1 => room().prop_map(Step::DropHold),
        2 => room().prop_map(Step::Room),
        5 => prop::collection::vec(told, 1..4).prop_map(Step::Reports),
        2 => (room(), 0_u8..4, epoch(), any::<bool>()).prop_map(|(room, on, epoch, keep)| Step::Close(room, on, epoch, keep)),
        4 => Just(Step::Usage),
        2 => (0_u8..4, epoch()).prop_map(|(on, epoch)| Step::Refresh(on, epoch)),
        1 => (0_u8..4, any::<bool>()).prop_map(|(on, accepting)| Step::Mark(on, accepting)),
        1 => (0_u8..4).prop_map(Step::Node),
        1 => Just(Step::Count),
        1 => Just(Step::Failures),
        1 => (0_u8..3, epoch()).prop_map(|(uid, epoch)| Step::Put(uid, epoch)),
        1 => (0_u8..3, epoch()).prop_map(|(uid, epoch)| Step::Forget(uid, epoch)),
        1 => Just(Step::Records),
        1 => (0_u8..2, 0_u64..9).prop_map(|(holder, seconds)| Step::Claim(holder, seconds)),
        1 => (0_u8..4).prop_map(Step::Push),
        1 => (0_usize..4).prop_map(Step::Events),
        1 => (0_u8..4).prop_map(Step::Done),
        4 => prop_oneof![0_u64..100, 0_u64..20_000, 0_u64..400_000].prop_map(Step::Wait),
    ]
}

fn key(room: u8) -> RoomKey {
    let tenant = ["t", "u"][usize::from(room % 2)];
    RoomKey::parse(tenant, &format!("r{room}")).expect("key")
}

fn id(number: u8) -> NodeId {
    node(&format!("n{number}"))
}

const LIMITS: TenantLimits = TenantLimits {
    rooms: Some(2),
    participants: Some(5),
    participants_per_room: None,
    publishers_per_room: None,
    publishers: Some(2),
    egress_mbps: Some(9),
};

fn limits(limited: bool) -> TenantLimits {
    if limited {
        LIMITS
    } else {
        TenantLimits::default()
    }
}

/// Each node another ceiling.
fn capacity(number: u8) -> Capacity {
    Capacity {
        rooms: u32::from(number),
        participants: 2 + u32::from(number) * 2,
        egress_mbps: 12,
    }
}

fn offered(nodes: &[u8]) -> Vec<Choice> {
    nodes
        .iter()
        .map(|number| Choice {
            capacity: capacity(*number),
            ..choice(&format!("n{number}"))
        })
        .collect()
}

fn held(number: u8, epoch: u64) -> RoomLease {
    lease(&format!("n{number}"), epoch)
}

fn uid(number: u8) -> Uid {
    Uid::parse(&format!("u{number}")).expect("uid")
}

fn waiting() -> EventQueue {
    crate::conformance::queue("x")
}

/// Does it, and says what was answered.
async fn does(store: &dyn Store, step: Step) -> String {
    let scope = || FailureScope::Conference(uid(0));
    match step {
        Step::Place {
            room,
            request,
            nodes,
            pack,
            limited,
            people,
            replaces,
        } => {
            let command = PlaceCommand {
                request: RequestId(request),
                key: key(room),
                choices: offered(&nodes),
                strategy: if pack { Layout::Pack } else { Layout::Spread },
                limits: limits(limited),
                amount: Usage::of_join(true, people),
                replaces: replaces.map(Epoch),
                ..command("r", "n1")
            };
            format!("{:?}", store.place(command).await)
        }
        Step::Undo(room, epoch, to) => {
            let former = to.map(|to| held(to, epoch.saturating_sub(1)));
            format!(
                "{:?}",
                store.undo_place(key(room), Epoch(epoch), former).await
            )
        }
        Step::Reserve {
            room,
            request,
            node,
            limited,
            people,
            publishers,
        } => {
            let amount = Usage {
                publishers,
                ..Usage::of_join(false, people)
            };
            let by = RequestId(request);
            let (limits, capacity) = (limits(limited), capacity(node));
            let reserved = store.reserve(by, key(room), id(node), amount, limits, capacity);
            format!("{:?}", reserved.await)
        }
        Step::Release(room, request) => {
            let id = RequestId(request).reservation();
            format!("{:?}", store.release(key(room), id).await)
        }
        Step::Hold {
            room,
            nodes,
            people,
            seconds,
        } => {
            let command = HoldCommand {
                key: key(room),
                choices: offered(&nodes),
                strategy: Layout::Spread,
                amount: Usage::of_join(true, people),
                limits: LIMITS,
                lifetime: Duration::from_secs(seconds),
            };
            format!("{:?}", store.hold(command).await)
        }
        Step::DropHold(room) => format!("{:?}", store.drop_hold(key(room)).await),
        Step::Room(room) => format!("{:?}", store.room(key(room)).await),
        Step::Reports(told) => {
            let reports = told
                .into_iter()
                .map(
                    |(room, on, epoch, participants, publishers, known)| RoomReport {
                        key: key(room),
                        publishers,
                        policy: known.then(policy),
                        ..report("r", held(on, epoch), participants)
                    },
                )
                .collect();
            format!("{:?}", store.report_rooms(reports).await)
        }
        Step::Close(room, on, epoch, keep) => {
            let closed = store.close_room(key(room), held(on, epoch), keep).await;
            format!("{closed:?}")
        }
        Step::Usage => {
            let nodes = store.usage((0..4).map(id).collect()).await;
            let tenant = |name| TenantName::parse(name).expect("tenant");
            let (t, u) = (
                store.tenant_usage(tenant("t")).await,
                store.tenant_usage(tenant("u")).await,
            );
            format!("{nodes:?} {t:?} {u:?}")
        }
        Step::Refresh(on, epoch) => {
            let lease = held(on, epoch);
            let lease = NodeLease {
                site: lease.site,
                node: lease.node,
                epoch: lease.epoch,
                accepting: epoch % 2 == 0,
            };
            format!("{:?}", store.refresh_node(lease).await)
        }
        Step::Mark(on, accepting) => format!("{:?}", store.mark_accepting(id(on), accepting).await),
        Step::Node(on) => format!("{:?}", store.node(id(on)).await),
        Step::Count => format!("{:?}", store.count_failure(scope()).await),
        Step::Failures => format!("{:?}", store.failures(scope()).await),
        Step::Put(number, epoch) => {
            let record = StoredRecord {
                kind: RecordKind::Node,
                uid: uid(number),
                revision: "r".into(),
                epoch,
                value: vec![number; usize::from(number)],
            };
            format!("{:?}", store.put_record(record).await)
        }
        Step::Forget(number, epoch) => {
            let gone = store.drop_record(RecordKind::Node, uid(number), epoch);
            format!("{:?}", gone.await)
        }
        Step::Records => format!("{:?}", store.records().await),
        Step::Claim(holder, seconds) => {
            let lifetime = Duration::from_secs(seconds);
            let claim = store.claim("a".into(), holder.to_string(), lifetime);
            format!("{:?}", claim.await)
        }
        Step::Push(number) => {
            let event = event(&number.to_string(), &[number]);
            format!("{:?}", store.push_event(waiting(), event).await)
        }
        Step::Events(max) => format!("{:?}", store.events(waiting(), max).await),
        Step::Done(number) => {
            format!(
                "{:?}",
                store.event_done(waiting(), number.to_string()).await
            )
        }
        Step::Wait(_) => String::new(),
    }
}

#[test]
fn memory_and_redis_answer_alike() {
    static CASE: AtomicU32 = AtomicU32::new(0);
    let server = Server::with(Setup {
        clock: true,
        ..Setup::default()
    });
    let clock = server.clock.as_ref().expect("a clock");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut runner = TestRunner::new(Config {
        cases: 60,
        failure_persistence: None,
        ..Config::default()
    });
    let steps = prop::collection::vec(step(), 1..60);
    // A failure prints the steps that bring it about, cut to the shortest.
    let outcome = runner.run(&steps, |steps| {
        let namespace = format!("c{}", CASE.fetch_add(1, Ordering::Relaxed));
        let redis = runtime.block_on(ready(options(&server.url(), &namespace)));
        let millis = Arc::new(AtomicU64::new(1_000));
        let now = Arc::clone(&millis);
        let memory = MemoryStore::new(Arc::new(move || {
            Moment::from_millis(now.load(Ordering::Relaxed))
        }));
        for step in steps {
            if let Step::Wait(span) = step {
                millis.fetch_add(span, Ordering::Relaxed);
                clock.advance(Duration::from_millis(span));
                continue;
            }
            let (wanted, got) = runtime.block_on(async {
                (
                    does(&memory, step.clone()).await,
                    does(&redis, step.clone()).await,
                )
            });
            prop_assert_eq!(got, wanted, "{:?}", step);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! What every store must do, against the trait alone. A backend runs it with `suite!` and a harness that can let time pass.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use control_core::ids::{Epoch, NodeId, RoomKey, Site, Uid};
use control_core::lease::{NodeLease, RoomLease};
use control_core::limits;
use control_core::quota::{Limit, QuotaRefusal, Usage};
use control_core::record::{Capacity, LobbyRule, RoomFacts, RoomPolicy, TenantLimits};

use control_core::placement::Strategy;
use control_plane::store::{
    Choice, FailureScope, PlaceCommand, PlaceOutcome, REPORT_AGAIN, ROOM_RECORD_MIN, ReportOutcome,
    RequestId, RoomRecord, RoomReport, Store,
};

/// A fresh store and its time.
pub(crate) struct Harness {
    /// The store.
    pub(crate) store: Arc<dyn Store>,
    /// Lets its time pass.
    pub(crate) advance: Box<dyn Fn(Duration) + Send + Sync>,
}

/// Runs all claims as tests of the calling module.
macro_rules! suite {
    ($harness:ident) => {
        $crate::conformance::suite! { $harness =>
            a_room_has_one_owner_whoever_asks
            a_lease_is_replaced_only_by_who_knows_it
            epochs_rise_above_store_reports_and_floor
            facts_survive_their_node
            a_report_of_an_old_lease_is_fenced
            a_report_of_a_higher_lease_takes_over
            a_report_writes_back_what_the_store_lost
            a_placement_that_never_lived_is_taken_back
            only_the_holder_closes_a_room
            records_run_out_when_nobody_reports
            a_node_never_gets_more_than_its_ceiling
            a_tenant_never_gets_more_than_its_ceiling
            reservations_expire
            reservations_are_settled_by_reports
            a_refused_placement_leaves_nothing_behind
            node_leases_run_out
            an_earlier_life_does_not_refresh_the_present_one
            a_closed_node_gets_no_room
            failures_are_counted_and_forgotten
        }
    };
    ($harness:ident => $($claim:ident)*) => {
        $(
            #[tokio::test]
            async fn $claim() {
                $crate::conformance::$claim($harness()).await;
            }
        )*
    };
}
pub(crate) use suite;

fn key(name: &str) -> RoomKey {
    RoomKey::parse("t", name).expect("key")
}

fn node(name: &str) -> NodeId {
    NodeId::parse(name).expect("node id")
}

fn site() -> Site {
    Site::parse("local").expect("site")
}

fn lease(name: &str, epoch: u64) -> RoomLease {
    RoomLease {
        site: site(),
        node: node(name),
        epoch: Epoch(epoch),
    }
}

fn policy() -> RoomPolicy {
    RoomPolicy {
        declared: true,
        lobby: LobbyRule::Guests,
        guests_allowed: true,
        permissions: Default::default(),
        max_participants: 100,
        max_publishers: 10,
        empty_timeout: Duration::from_secs(300),
        departure_timeout: Duration::from_secs(20),
        max_duration: Duration::ZERO,
        max_bitrate_kbps: 0,
        screen_share: true,
        e2ee_required: false,
        codecs: vec!["vp8".into()],
        revision: "r1".into(),
    }
}

fn request() -> RequestId {
    RequestId::random().expect("random numbers")
}

fn choice(on: &str) -> Choice {
    Choice {
        site: site(),
        node: node(on),
        capacity: CAPACITY,
    }
}

const CAPACITY: Capacity = Capacity {
    rooms: 3,
    participants: 5,
    egress_mbps: 1_000,
};

fn command(room: &str, on: &str) -> PlaceCommand {
    PlaceCommand {
        request: request(),
        key: key(room),
        choices: vec![choice(on)],
        strategy: Strategy::Spread,
        limits: TenantLimits::default(),
        amount: Usage::of_join(true, 1),
        replaces: None,
        reported: None,
        floor: Epoch(0),
        policy: policy(),
        pool: None,
        facts: RoomFacts::default(),
    }
}

fn report(room: &str, lease: RoomLease, participants: u32) -> RoomReport {
    let facts = RoomFacts {
        room_sid: "RM_1".into(),
        opened: true,
        ..Default::default()
    };
    RoomReport {
        key: key(room),
        lease,
        participants,
        publishers: 0,
        facts,
        policy: None,
    }
}

async fn placed(store: &dyn Store, command: PlaceCommand) -> RoomRecord {
    match store.place(command).await.expect("the store answers") {
        PlaceOutcome::Placed(record, _) => record,
        other => panic!("not placed: {other:?}"),
    }
}

async fn used(store: &dyn Store, on: &str) -> Usage {
    store
        .usage(vec![node(on)])
        .await
        .expect("the store answers")[0]
}

/// Two replicas ask at once: one node gets it, the other replica learns which.
pub(crate) async fn a_room_has_one_owner_whoever_asks(harness: Harness) {
    let (a, b) = tokio::join!(
        harness.store.place(command("r", "n1")),
        harness.store.place(command("r", "n2"))
    );
    let outcomes = [a.expect("answer"), b.expect("answer")];
    let placed: Vec<_> = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, PlaceOutcome::Placed(..)))
        .collect();
    assert_eq!(placed.len(), 1, "{outcomes:?}");
    let held = outcomes.iter().find_map(|outcome| match outcome {
        PlaceOutcome::Held(record) => Some(record.lease.clone()),
        _ => None,
    });
    let PlaceOutcome::Placed(record, _) = placed[0] else {
        unreachable!("filtered")
    };
    assert_eq!(held, Some(record.lease.clone()));
    assert_eq!(
        harness
            .store
            .room(key("r"))
            .await
            .expect("answer")
            .expect("kept")
            .lease,
        record.lease
    );
}

/// Compare and set.
pub(crate) async fn a_lease_is_replaced_only_by_who_knows_it(harness: Harness) {
    let store = &*harness.store;
    let first = placed(store, command("r", "n1")).await;
    let stale = PlaceCommand {
        replaces: Some(Epoch(first.lease.epoch.0 + 1)),
        ..command("r", "n2")
    };
    assert!(matches!(
        store.place(stale).await.expect("answer"),
        PlaceOutcome::Held(_)
    ));
    let knowing = PlaceCommand {
        replaces: Some(first.lease.epoch),
        ..command("r", "n2")
    };
    let second = placed(store, knowing).await;
    assert_eq!(second.lease.node, node("n2"));
    assert!(second.lease.epoch > first.lease.epoch);
}

/// `max(store, reported, floor) + 1`.
pub(crate) async fn epochs_rise_above_store_reports_and_floor(harness: Harness) {
    let store = &*harness.store;
    let first = placed(
        store,
        PlaceCommand {
            floor: Epoch(7),
            ..command("r", "n1")
        },
    )
    .await;
    assert_eq!(first.lease.epoch, Epoch(8));
    let reported = PlaceCommand {
        replaces: Some(Epoch(8)),
        reported: Some(Epoch(20)),
        ..command("r", "n2")
    };
    assert_eq!(placed(store, reported).await.lease.epoch, Epoch(21));
    let again = PlaceCommand {
        replaces: Some(Epoch(21)),
        ..command("r", "n2")
    };
    assert_eq!(placed(store, again).await.lease.epoch, Epoch(22));
    let used_up = PlaceCommand {
        replaces: Some(Epoch(22)),
        floor: Epoch(u64::MAX),
        ..command("r", "n2")
    };
    assert_eq!(
        store.place(used_up).await.expect("answer"),
        PlaceOutcome::EpochsExhausted
    );
}

/// Opened stays opened.
pub(crate) async fn facts_survive_their_node(harness: Harness) {
    let store = &*harness.store;
    let first = placed(store, command("r", "n1")).await;
    let reported = report("r", first.lease.clone(), 2);
    let facts = reported.facts.clone();
    assert_eq!(
        store.report_room(reported).await.expect("answer"),
        ReportOutcome::Taken
    );
    store
        .close_room(key("r"), first.lease.clone(), true)
        .await
        .expect("answer");
    let kept = store.room(key("r")).await.expect("answer").expect("kept");
    assert_eq!((kept.facts.clone(), kept.policy), (facts.clone(), policy()));
    let again = PlaceCommand {
        replaces: Some(first.lease.epoch),
        ..command("r", "n2")
    };
    assert_eq!(placed(store, again).await.facts, facts);
}

/// A node that comes back must drop what was placed elsewhere.
pub(crate) async fn a_report_of_an_old_lease_is_fenced(harness: Harness) {
    let store = &*harness.store;
    let first = placed(store, command("r", "n1")).await;
    let second = placed(
        store,
        PlaceCommand {
            replaces: Some(first.lease.epoch),
            ..command("r", "n2")
        },
    )
    .await;
    let before = used(store, "n1").await;
    let outcome = store
        .report_room(report("r", first.lease, 3))
        .await
        .expect("answer");
    assert_eq!(outcome, ReportOutcome::Fenced(second.lease.epoch));
    assert_eq!(
        used(store, "n1").await,
        before,
        "a fenced room is not counted"
    );
    assert_eq!(
        store
            .room(key("r"))
            .await
            .expect("answer")
            .expect("kept")
            .lease,
        second.lease
    );
}

/// Leases given while the store was away are written back.
pub(crate) async fn a_report_of_a_higher_lease_takes_over(harness: Harness) {
    let store = &*harness.store;
    placed(store, command("r", "n1")).await;
    assert_eq!(
        store
            .report_room(report("r", lease("n2", 9), 1))
            .await
            .expect("answer"),
        ReportOutcome::Taken
    );
    assert_eq!(
        store
            .room(key("r"))
            .await
            .expect("answer")
            .expect("kept")
            .lease,
        lease("n2", 9)
    );
}

/// So that the room is placed anew as it was.
pub(crate) async fn a_report_writes_back_what_the_store_lost(harness: Harness) {
    let store = &*harness.store;
    let lost = RoomReport {
        policy: Some(policy()),
        ..report("r", lease("n1", 4), 1)
    };
    assert_eq!(
        store.report_room(lost.clone()).await.expect("answer"),
        ReportOutcome::Taken
    );
    let record = store.room(key("r")).await.expect("answer").expect("kept");
    assert_eq!(
        (record.lease, record.policy, record.facts),
        (lease("n1", 4), policy(), lost.facts)
    );
}

/// The former holder goes on; a later lease is left alone.
pub(crate) async fn a_placement_that_never_lived_is_taken_back(harness: Harness) {
    let store = &*harness.store;
    let first = placed(store, command("r", "n1")).await;
    let second = placed(
        store,
        PlaceCommand {
            replaces: Some(first.lease.epoch),
            ..command("r", "n2")
        },
    )
    .await;
    store
        .undo_place(key("r"), first.lease.epoch, None)
        .await
        .expect("answer");
    assert_eq!(
        store
            .room(key("r"))
            .await
            .expect("answer")
            .expect("kept")
            .lease,
        second.lease
    );
    store
        .undo_place(key("r"), second.lease.epoch, Some(first.lease.clone()))
        .await
        .expect("answer");
    assert_eq!(
        store
            .room(key("r"))
            .await
            .expect("answer")
            .expect("kept")
            .lease,
        first.lease
    );
    let reported = store
        .report_room(report("r", first.lease.clone(), 1))
        .await
        .expect("answer");
    assert_eq!(reported, ReportOutcome::Taken);
    store
        .undo_place(key("r"), first.lease.epoch, None)
        .await
        .expect("answer");
    assert_eq!(store.room(key("r")).await.expect("answer"), None);
}

/// The end of an old lease says nothing about a later one.
pub(crate) async fn only_the_holder_closes_a_room(harness: Harness) {
    let store = &*harness.store;
    let first = placed(store, command("r", "n1")).await;
    let second = placed(
        store,
        PlaceCommand {
            replaces: Some(first.lease.epoch),
            ..command("r", "n2")
        },
    )
    .await;
    store
        .close_room(key("r"), first.lease, false)
        .await
        .expect("answer");
    assert!(store.room(key("r")).await.expect("answer").is_some());
    store
        .close_room(key("r"), second.lease, false)
        .await
        .expect("answer");
    assert_eq!(store.room(key("r")).await.expect("answer"), None);
}

/// Nothing is kept for ever.
pub(crate) async fn records_run_out_when_nobody_reports(harness: Harness) {
    let store = &*harness.store;
    let record = placed(store, command("r", "n1")).await;
    (harness.advance)(ROOM_RECORD_MIN.max(policy().empty_timeout));
    assert!(
        store.room(key("r")).await.expect("answer").is_some(),
        "it outlives the empty timeout"
    );
    store
        .report_room(report("r", record.lease, 0))
        .await
        .expect("answer");
    (harness.advance)(ROOM_RECORD_MIN.max(policy().empty_timeout));
    assert!(
        store.room(key("r")).await.expect("answer").is_some(),
        "a report renews it"
    );
    (harness.advance)(ROOM_RECORD_MIN.max(policy().empty_timeout) + REPORT_AGAIN * 2);
    assert_eq!(store.room(key("r")).await.expect("answer"), None);
}

fn reached(refusal: QuotaRefusal) -> Limit {
    match refusal {
        QuotaRefusal::Reached { limit, .. } => limit,
        QuotaRefusal::TooManyReservations(_) => panic!("{refusal}"),
    }
}

/// Rooms and participants, placed or reserved.
pub(crate) async fn a_node_never_gets_more_than_its_ceiling(harness: Harness) {
    let store = &*harness.store;
    for room in ["a", "b", "c"] {
        placed(store, command(room, "n1")).await;
    }
    match store.place(command("d", "n1")).await.expect("answer") {
        PlaceOutcome::Refused(refusal) => assert_eq!(reached(refusal), Limit::NodeRooms),
        other => panic!("{other:?}"),
    }
    let reserve = || {
        store.reserve(
            request(),
            key("a"),
            node("n1"),
            Usage::of_join(false, 1),
            TenantLimits::default(),
            CAPACITY,
        )
    };
    reserve().await.expect("answer").expect("the fourth");
    reserve().await.expect("answer").expect("the fifth");
    assert_eq!(
        reached(reserve().await.expect("answer").expect_err("the sixth")),
        Limit::NodeParticipants
    );
}

/// Over all nodes.
pub(crate) async fn a_tenant_never_gets_more_than_its_ceiling(harness: Harness) {
    let store = &*harness.store;
    let limits = TenantLimits {
        rooms: Some(2),
        participants: Some(2),
        ..Default::default()
    };
    for (room, on) in [("a", "n1"), ("b", "n2")] {
        placed(
            store,
            PlaceCommand {
                limits,
                ..command(room, on)
            },
        )
        .await;
    }
    match store
        .place(PlaceCommand {
            limits,
            ..command("c", "n3")
        })
        .await
        .expect("answer")
    {
        PlaceOutcome::Refused(refusal) => assert_eq!(reached(refusal), Limit::TenantRooms),
        other => panic!("{other:?}"),
    }
    let refused = store
        .reserve(
            request(),
            key("a"),
            node("n1"),
            Usage::of_join(false, 1),
            limits,
            CAPACITY,
        )
        .await
        .expect("answer")
        .expect_err("the third person");
    assert_eq!(reached(refused), Limit::TenantParticipants);
    let other = RoomKey::parse("u", "a").expect("key");
    store
        .reserve(
            request(),
            other,
            node("n1"),
            Usage::of_join(false, 1),
            limits,
            CAPACITY,
        )
        .await
        .expect("answer")
        .expect("another tenant has its own");
}

/// After 15 s.
pub(crate) async fn reservations_expire(harness: Harness) {
    let store = &*harness.store;
    placed(store, command("r", "n1")).await;
    assert_eq!(used(store, "n1").await, Usage::of_join(true, 1));
    (harness.advance)(limits::RESERVATION);
    assert_eq!(used(store, "n1").await, Usage::default());
}

/// Nobody is counted twice.
pub(crate) async fn reservations_are_settled_by_reports(harness: Harness) {
    let store = &*harness.store;
    let record = placed(store, command("r", "n1")).await;
    store
        .report_room(report("r", record.lease.clone(), 0))
        .await
        .expect("answer");
    assert_eq!(
        used(store, "n1").await,
        Usage::of_join(true, 1),
        "the room is settled, the person is awaited"
    );
    store
        .report_room(report("r", record.lease.clone(), 1))
        .await
        .expect("answer");
    assert_eq!(used(store, "n1").await, Usage::of_join(true, 1));
    store
        .report_room(report("r", record.lease.clone(), 4))
        .await
        .expect("answer");
    assert_eq!(
        used(store, "n1").await.participants,
        4,
        "a report overwrites"
    );
    store
        .close_room(key("r"), record.lease, false)
        .await
        .expect("answer");
    assert_eq!(used(store, "n1").await, Usage::default());
}

/// All or nothing.
pub(crate) async fn a_refused_placement_leaves_nothing_behind(harness: Harness) {
    let store = &*harness.store;
    let full = PlaceCommand {
        choices: vec![Choice {
            capacity: Capacity::default(),
            ..choice("n1")
        }],
        ..command("r", "n1")
    };
    assert!(matches!(
        store.place(full).await.expect("answer"),
        PlaceOutcome::Refused(_)
    ));
    assert_eq!(store.room(key("r")).await.expect("answer"), None);
    assert_eq!(used(store, "n1").await, Usage::default());
}

fn node_lease(epoch: u64) -> NodeLease {
    NodeLease {
        site: site(),
        node: node("n1"),
        epoch: Epoch(epoch),
        accepting: true,
    }
}

/// A witness of death.
pub(crate) async fn node_leases_run_out(harness: Harness) {
    let store = &*harness.store;
    assert_eq!(store.node(node("n1")).await.expect("answer"), None);
    store.refresh_node(node_lease(1)).await.expect("answer");
    (harness.advance)(limits::LEASE - Duration::from_millis(1));
    assert_eq!(
        store.node(node("n1")).await.expect("answer"),
        Some(node_lease(1))
    );
    (harness.advance)(Duration::from_millis(1));
    assert_eq!(store.node(node("n1")).await.expect("answer"), None);
}

/// A late word.
pub(crate) async fn an_earlier_life_does_not_refresh_the_present_one(harness: Harness) {
    let store = &*harness.store;
    store.refresh_node(node_lease(2)).await.expect("answer");
    (harness.advance)(limits::LEASE / 2);
    store.refresh_node(node_lease(1)).await.expect("answer");
    assert_eq!(
        store.node(node("n1")).await.expect("answer"),
        Some(node_lease(2))
    );
    (harness.advance)(limits::LEASE / 2);
    assert_eq!(store.node(node("n1")).await.expect("answer"), None);
}

/// A drain marks the store first.
pub(crate) async fn a_closed_node_gets_no_room(harness: Harness) {
    let store = &*harness.store;
    assert!(
        !store
            .mark_accepting(node("n1"), false)
            .await
            .expect("answer")
    );
    assert_eq!(
        store.place(command("r", "n1")).await.expect("answer"),
        PlaceOutcome::NotAccepting
    );
    assert!(
        store
            .mark_accepting(node("n1"), true)
            .await
            .expect("answer")
    );
    placed(store, command("r", "n1")).await;
}

/// Per scope, until they expire.
pub(crate) async fn failures_are_counted_and_forgotten(harness: Harness) {
    let store = &*harness.store;
    let conference = Uid::parse("c").expect("uid");
    let scope = |last| {
        FailureScope::Address(
            conference.clone(),
            IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)),
        )
    };
    store.count_failure(scope(1)).await.expect("answer");
    (harness.advance)(Duration::from_secs(3));
    store.count_failure(scope(1)).await.expect("answer");
    (harness.advance)(Duration::from_secs(2));
    let failures = store.failures(scope(1)).await.expect("answer");
    assert_eq!(
        (failures.count, failures.since_last),
        (2, Duration::from_secs(2))
    );
    assert_eq!(store.failures(scope(2)).await.expect("answer").count, 0);
    assert_eq!(
        store
            .failures(FailureScope::Conference(conference.clone()))
            .await
            .expect("answer")
            .count,
        0
    );
    (harness.advance)(limits::FAILURES_EXPIRY);
    assert_eq!(store.failures(scope(1)).await.expect("answer").count, 0);
    store.count_failure(scope(1)).await.expect("answer");
    assert_eq!(store.failures(scope(1)).await.expect("answer").count, 1);
}

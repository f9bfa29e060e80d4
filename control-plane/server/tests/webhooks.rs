// SPDX-License-Identifier: EUPL-1.2
//! Webhooks from a node's stream to real receivers behind TLS: what arrives, in which order, how often, and what a receiver that fails
//! costs the others.

#[path = "webhooks/receiver.rs"]
mod receiver;
mod redis;
#[path = "webhooks/teller.rs"]
mod teller;
#[allow(
    dead_code,
    reason = "shared by several tests, each of which takes what it needs"
)]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use control_plane::clock::Clock;
use control_plane::store::Store;
use control_plane::store::memory::MemoryStore;
use control_plane::store::redis::RedisStore;
use control_plane::store::redis::address::Address;
use control_plane::store::redis::keys::Namespace;
use plenum_proto::v1::publication::Item;
use plenum_proto::v1::{ApiKey, RecordKind, TenantRecord, Webhook};

use receiver::{Got, Manner, Receiver};
use teller::Teller;
use world::flaky::Flaky;
use world::operator::{self, Publisher};
use world::pki::Ca;
use world::{LIVENESS, Replica};

/// A replica that delivers webhooks.
struct Delivering {
    replica: Replica,
    publisher: Publisher,
}

fn webhook(name: &str, receiver: &Receiver) -> Webhook {
    Webhook {
        name: name.into(),
        url: receiver.url(),
        events: Vec::new(),
        signing_key: "key".into(),
        ca_pem: receiver.ca_pem.clone(),
    }
}

fn tenant(webhooks: Vec<Webhook>) -> TenantRecord {
    TenantRecord {
        webhooks,
        ..operator::tenant()
    }
}

fn memory() -> Arc<dyn Store> {
    let clock = Clock::start();
    Arc::new(MemoryStore::new(Arc::new(move || clock.now())))
}

impl Delivering {
    async fn start(webhooks: Vec<Webhook>) -> Self {
        Self::start_on(&Arc::new(Ca::new()), memory(), webhooks, "127.0.0.0/8").await
    }

    async fn start_on(
        ca: &Arc<Ca>,
        store: Arc<dyn Store>,
        webhooks: Vec<Webhook>,
        network: &str,
    ) -> Self {
        let networks = vec![network.parse().expect("a network")];
        let replica = Replica::start_calling(Arc::clone(ca), store, networks).await;
        let mut publisher = Publisher::connect(&replica, 1).await;
        publisher
            .snapshot(vec![
                Item::Tenant(tenant(webhooks)),
                Item::Node(operator::node("n1")),
                Item::Node(operator::node("n2")),
            ])
            .await;
        Self { replica, publisher }
    }

    /// The value of a metric's line that begins so; 0 where there is none.
    fn metric(&self, line: &str) -> u64 {
        self.replica
            .plane
            .metrics()
            .encode()
            .lines()
            .find_map(|other| other.strip_prefix(line))
            .map_or(0, |value| value.trim().parse().expect("a number"))
    }

    async fn until_metric(&self, line: &str, value: u64) {
        let reached = async {
            while self.metric(line) < value {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(
            tokio::time::timeout(LIVENESS, reached).await.is_ok(),
            "never: {line} {value}\n{}",
            self.replica.plane.metrics().encode()
        );
    }

    /// Ends at once, with whatever it has under way.
    fn kill(self) {
        drop(self.replica);
    }

    /// Ends in good order.
    async fn stop(self) {
        self.replica.stop().await;
    }
}

/// The numbers of each room's events, in the order in which they came first.
fn by_room(got: &[Got]) -> BTreeMap<String, Vec<u64>> {
    let mut seen = BTreeSet::new();
    let mut rooms: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for event in got {
        if seen.insert(event.id.clone()) {
            let seq = event.body["createdAt"].as_str().expect("a time");
            rooms
                .entry(event.room.clone())
                .or_default()
                .push(seq.parse().expect("a number"));
        }
    }
    rooms
}

fn distinct(got: &[Got]) -> usize {
    got.iter().map(|got| &got.id).collect::<BTreeSet<_>>().len()
}

#[tokio::test]
async fn events_arrive_signed_once_in_order_and_only_where_they_are_wanted() {
    let (all, some) = (Receiver::start().await, Receiver::start().await);
    let wanted = Webhook {
        events: vec!["room_started".into(), "room_finished".into()],
        ..webhook("some", &some)
    };
    let replica = Delivering::start(vec![webhook("all", &all), wanted]).await;
    let teller = Teller::attach(&replica.replica, "n1").await;
    let names = [
        "room_started",
        "participant_joined",
        "track_published",
        "track_unpublished",
        "participant_left",
        "room_finished",
    ];
    for room in ["a", "b"] {
        for (seq, name) in (1..).zip(names) {
            teller.tell(room, &format!("RM_{room}"), seq, name);
        }
    }
    let got = all.until("all arrive", |got, _| got.len() >= 12).await;
    assert_eq!(distinct(&got), 12, "each once");
    for numbers in by_room(&got).values() {
        assert_eq!(*numbers, [1, 2, 3, 4, 5, 6]);
    }
    assert!(
        got.iter()
            .all(|got| got.id.starts_with("EV_") && got.key == "key")
    );
    let filtered = some.until("four arrive", |got, _| got.len() >= 4).await;
    assert!(
        filtered.iter().all(|got| got.event.starts_with("room_")),
        "{filtered:?}"
    );
    // One event has one id, whoever gets it.
    let ids: BTreeSet<_> = got.iter().map(|got| &got.id).collect();
    assert!(filtered.iter().all(|got| ids.contains(&got.id)));
    teller.until_acknowledged().await;
    let delivered = "plenum_control_webhook_delivered_total{tenant=\"school\",receiver=\"all\"}";
    replica.until_metric(delivered, 12).await;
    replica.stop().await;
    assert_eq!((all.got().len(), some.got().len()), (12, 4));
}

#[tokio::test]
async fn a_receiver_that_is_down_costs_only_its_own_events_and_gets_them_when_it_is_back() {
    let (up, mut down) = (Receiver::start().await, Receiver::away());
    let replica = Delivering::start(vec![webhook("down", &down), webhook("up", &up)]).await;
    let teller = Teller::attach(&replica.replica, "n1").await;
    for seq in 1..=50 {
        teller.tell("a", "RM_a", seq, "participant_joined");
    }
    up.until("the other has all", |got, _| got.len() >= 50)
        .await;
    teller.until_acknowledged().await;
    let failed = "plenum_control_webhook_failed_total{tenant=\"school\",receiver=\"down\",reason=\"Connect\"}";
    replica.until_metric(failed, 2).await;
    down.come_back().await;
    let got = down
        .until("all arrive late", |got, _| got.len() >= 50)
        .await;
    assert_eq!(by_room(&got)["RM_a"], (1..=50).collect::<Vec<_>>());
    replica.stop().await;
}

#[tokio::test]
async fn whatever_a_receiver_answers_the_event_comes_again_until_it_is_taken() {
    let elsewhere = Receiver::start().await;
    let manners = [
        Manner::Status(500),
        Manner::Status(404),
        Manner::Status(503),
        Manner::Redirect(elsewhere.url()),
        Manner::Garbage,
        Manner::Hang,
    ];
    let mut receivers = Vec::new();
    let mut webhooks = Vec::new();
    for (index, manner) in manners.iter().enumerate() {
        let receiver = Receiver::start().await;
        receiver.manner(manner.clone());
        webhooks.push(webhook(&format!("r{index}"), &receiver));
        receivers.push(receiver);
    }
    let replica = Delivering::start(webhooks).await;
    let teller = Teller::attach(&replica.replica, "n1").await;
    teller.tell("a", "RM_a", 1, "room_started");
    teller.tell("a", "RM_a", 2, "room_finished");
    // The second one waits for the first, and a redirect leads nowhere.
    for receiver in &receivers {
        let got = receiver.until("it is asked", |_, asked| asked >= 1).await;
        assert!(got.is_empty(), "{got:?}");
    }
    for (receiver, manner) in receivers.iter().zip(&manners) {
        if !matches!(manner, Manner::Hang) {
            receiver
                .until("it is asked again", |_, asked| asked >= 2)
                .await;
        }
        receiver.manner(Manner::Take(Duration::ZERO));
    }
    for receiver in &receivers {
        let got = receiver
            .until("both are taken", |got, _| got.len() >= 2)
            .await;
        assert_eq!(by_room(&got)["RM_a"], [1, 2]);
    }
    assert_eq!(elsewhere.asked(), 0, "a redirect is not followed");
    for (index, reason) in [
        "ServerError",
        "ClientError",
        "ServerError",
        "Redirect",
        "Broken",
        "Timeout",
    ]
    .iter()
    .enumerate()
    {
        let line = format!(
            "plenum_control_webhook_failed_total{{tenant=\"school\",receiver=\"r{index}\",reason=\"{reason}\"}}"
        );
        assert!(
            replica.metric(&line) >= 1,
            "{line}\n{}",
            replica.replica.plane.metrics().encode()
        );
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_replica_that_dies_in_the_middle_loses_nothing_and_mixes_nothing_up() {
    let store = memory();
    dies_in_the_middle([Arc::clone(&store), store]).await;
}

#[tokio::test]
async fn a_replica_that_dies_in_the_middle_leaves_everything_in_redis() {
    let server = redis::Server::start();
    dies_in_the_middle([in_redis(&server).await, in_redis(&server).await]).await;
}

/// A store of its own on the server, as each replica has one.
async fn in_redis(server: &redis::Server) -> Arc<dyn Store> {
    let options = control_plane::store::redis::Options {
        address: Address::parse(&server.url()).expect("a URL"),
        ca: None,
        namespace: Namespace::parse("webhooks").expect("a name"),
        deadline: Duration::from_secs(2),
    };
    let store = RedisStore::start(options).expect("a client");
    let answers = async {
        while store.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIVENESS, answers)
        .await
        .expect("Redis answers");
    Arc::new(store)
}

#[tokio::test]
async fn a_redis_that_stands_still_for_a_while_delays_events_and_loses_none() {
    let receiver = Receiver::start().await;
    let server = redis::Server::start();
    let (ca, store) = (Arc::new(Ca::new()), in_redis(&server).await);
    let webhooks = vec![webhook("all", &receiver)];
    let replica = Delivering::start_on(&ca, store, webhooks, "127.0.0.0/8").await;
    let teller = Teller::attach(&replica.replica, "n1").await;
    for seq in 1..=20 {
        teller.tell("a", "RM_a", seq, "participant_joined");
    }
    receiver
        .until("deliveries have begun", |got, _| got.len() >= 5)
        .await;
    server.pause();
    for seq in 21..=60 {
        teller.tell("a", "RM_a", seq, "participant_joined");
    }
    replica
        .until_metric("plenum_control_webhook_waiting", 40)
        .await;
    // Longer than a claim is trusted.
    tokio::time::sleep(Duration::from_secs(9)).await;
    server.resume();
    let got = receiver
        .until("all arrive", |got, _| distinct(got) >= 60)
        .await;
    assert_eq!(by_room(&got)["RM_a"], (1..=60).collect::<Vec<_>>());
    teller.until_acknowledged().await;
    assert_eq!(receiver.got().len(), 60, "none twice");
    replica.stop().await;
}

async fn dies_in_the_middle([one, other]: [Arc<dyn Store>; 2]) {
    let receiver = Receiver::start().await;
    receiver.manner(Manner::Take(Duration::from_millis(15)));
    let ca = Arc::new(Ca::new());
    let webhooks = vec![webhook("all", &receiver)];
    let first = Delivering::start_on(&ca, one, webhooks.clone(), "127.0.0.0/8").await;
    let second = Delivering::start_on(&ca, other, webhooks, "127.0.0.0/8").await;
    let mut teller = Teller::attach(&first.replica, "n1").await;
    let others = Teller::attach(&second.replica, "n2").await;
    let tell = |numbers: std::ops::RangeInclusive<u64>, teller: &Teller, others: &Teller| {
        for seq in numbers {
            for room in ["a", "b", "c"] {
                teller.tell(room, &format!("RM_{room}"), seq, "participant_joined");
            }
            others.tell("d", "RM_d", seq, "participant_joined");
        }
    };
    tell(1..=60, &teller, &others);
    receiver
        .until("the first replica is at work", |got, _| got.len() >= 20)
        .await;
    first.kill();
    tell(61..=70, &teller, &others);
    teller.move_to(&second.replica).await;
    let got = receiver
        .until("everything arrives", |got, _| distinct(got) >= 4 * 70)
        .await;
    for (room, numbers) in by_room(&got) {
        assert_eq!(numbers, (1..=70).collect::<Vec<_>>(), "{room}");
    }
    // At least once, and hardly ever more: what was under way, or queued and not yet acknowledged, when the replica died.
    assert!(got.len() <= 4 * 70 + 8 + 32, "{}", got.len());
    teller.until_acknowledged().await;
    others.until_acknowledged().await;
    second.stop().await;
}

#[tokio::test]
async fn a_replaced_signing_key_signs_from_the_next_request_on() {
    let receiver = Receiver::start().await;
    let mut replica = Delivering::start(vec![webhook("all", &receiver)]).await;
    let teller = Teller::attach(&replica.replica, "n1").await;
    teller.tell("a", "RM_a", 1, "room_started");
    receiver
        .until("the first arrives", |got, _| got.len() == 1)
        .await;
    receiver.knows("key-2", &[9; 32]);
    let rotated = Webhook {
        signing_key: "key-2".into(),
        ..webhook("all", &receiver)
    };
    replica
        .publisher
        .publish(Item::Tenant(TenantRecord {
            revision: "2".into(),
            api_keys: vec![ApiKey {
                key: "key-2".into(),
                secret: vec![9; 32],
            }],
            ..tenant(vec![rotated])
        }))
        .await;
    teller.tell("a", "RM_a", 2, "room_finished");
    let got = receiver
        .until("the second arrives", |got, _| got.len() == 2)
        .await;
    assert_eq!((got[0].key.as_str(), got[1].key.as_str()), ("key", "key-2"));
    replica.stop().await;
}

#[tokio::test]
async fn the_queue_of_a_suspended_tenant_and_of_a_removed_receiver_is_dropped() {
    for suspended in [true, false] {
        let mut down = Receiver::away();
        let mut replica = Delivering::start(vec![webhook("down", &down)]).await;
        let teller = Teller::attach(&replica.replica, "n1").await;
        for seq in 1..=5 {
            teller.tell("a", "RM_a", seq, "participant_joined");
        }
        teller.until_acknowledged().await;
        let after = if suspended {
            Item::Tenant(TenantRecord {
                suspended: true,
                revision: "2".into(),
                ..tenant(vec![webhook("down", &down)])
            })
        } else {
            operator::retract(RecordKind::Tenant, "t-school")
        };
        replica.publisher.publish(after).await;
        let reason = if suspended { "Suspended" } else { "Removed" };
        let line = format!(
            "plenum_control_webhook_dropped_total{{tenant=\"school\",receiver=\"down\",reason=\"{reason}\"}}"
        );
        replica.until_metric(&line, 5).await;
        // Declared again, it gets what happens from now on.
        down.come_back().await;
        replica
            .publisher
            .publish(Item::Tenant(TenantRecord {
                revision: "3".into(),
                ..tenant(vec![webhook("down", &down)])
            }))
            .await;
        teller.tell("a", "RM_a", 6, "room_finished");
        let got = down
            .until("the later one arrives", |got, _| !got.is_empty())
            .await;
        assert_eq!(by_room(&got)["RM_a"], [6]);
        replica.stop().await;
    }
}

#[tokio::test]
async fn a_full_queue_loses_the_oldest_counts_them_and_tells_the_receiver() {
    let mut down = Receiver::away();
    let replica = Delivering::start(vec![webhook("down", &down)]).await;
    let teller = Teller::attach(&replica.replica, "n1").await;
    // As many of them as a queue has bytes for, and 30 more.
    let long = "x".repeat(60_000);
    let most = control_plane::store::EVENTS_BYTES_MAX as u64 / 60_000 + 30;
    for seq in 1..=most {
        teller.tell_with("a", "RM_a", seq, "participant_joined", &long);
    }
    teller.until_acknowledged().await;
    let line = "plenum_control_webhook_dropped_total{tenant=\"school\",receiver=\"down\",reason=\"QueueFull\"}";
    let (lost, newest) = (replica.metric(line), most.to_string());
    assert!(lost >= 30, "{lost}");
    down.come_back().await;
    let got = down
        .until("the newer ones arrive", |got, _| {
            got.last()
                .is_some_and(|got| got.body["createdAt"] == newest.as_str())
        })
        .await;
    assert_eq!(by_room(&got)["RM_a"], (lost + 1..=most).collect::<Vec<_>>());
    // The receiver hears of them, but for what was told by events that were pushed out themselves.
    assert!(
        got.iter()
            .any(|got| got.body["numDropped"].as_u64() >= Some(1))
    );
    replica.stop().await;
}

#[tokio::test]
async fn a_host_that_turns_out_to_be_inside_is_not_called_without_permission() {
    let receiver = Receiver::start().await;
    let (ca, store) = (Arc::new(Ca::new()), memory());
    let webhooks = vec![webhook("inside", &receiver)];
    let replica = Delivering::start_on(&ca, store, webhooks, "10.0.0.0/8").await;
    let teller = Teller::attach(&replica.replica, "n1").await;
    teller.tell("a", "RM_a", 1, "room_started");
    let line = "plenum_control_webhook_failed_total{tenant=\"school\",receiver=\"inside\",reason=\"AddressNotAllowed\"}";
    replica.until_metric(line, 1).await;
    assert_eq!(receiver.asked(), 0);
    replica.stop().await;
}

#[tokio::test]
async fn a_receiver_with_another_certificate_gets_nothing() {
    let (receiver, stranger) = (Receiver::start().await, Receiver::start().await);
    let declared = Webhook {
        ca_pem: stranger.ca_pem.clone(),
        ..webhook("forged", &receiver)
    };
    // Without a CA of its own, the system's are asked, which do not know it either.
    let system = Webhook {
        ca_pem: String::new(),
        ..webhook("system", &receiver)
    };
    let replica = Delivering::start(vec![declared, system]).await;
    let teller = Teller::attach(&replica.replica, "n1").await;
    teller.tell("a", "RM_a", 1, "room_started");
    for name in ["forged", "system"] {
        let line = format!(
            "plenum_control_webhook_failed_total{{tenant=\"school\",receiver=\"{name}\",reason=\"Tls\"}}"
        );
        replica.until_metric(&line, 1).await;
    }
    assert_eq!(receiver.asked(), 0);
    replica.stop().await;
}

#[tokio::test]
async fn while_the_store_is_away_events_wait_and_stay_with_their_node() {
    let receiver = Receiver::start().await;
    let away = Arc::new(AtomicBool::new(false));
    let store = Flaky::over(memory(), Arc::clone(&away));
    let webhooks = vec![webhook("all", &receiver)];
    let replica = Delivering::start_on(&Arc::new(Ca::new()), store, webhooks, "127.0.0.0/8").await;
    let teller = Teller::attach(&replica.replica, "n1").await;
    teller.tell("a", "RM_a", 1, "room_started");
    receiver
        .until("the first arrives", |got, _| got.len() == 1)
        .await;
    teller.until_acknowledged().await;
    away.store(true, Ordering::SeqCst);
    for seq in 2..=40 {
        teller.tell("a", "RM_a", seq, "participant_joined");
    }
    replica
        .until_metric("plenum_control_webhook_waiting", 39)
        .await;
    assert_eq!((teller.kept(), receiver.got().len()), (39, 1));
    away.store(false, Ordering::SeqCst);
    let got = receiver.until("all arrive", |got, _| got.len() >= 40).await;
    assert_eq!(by_room(&got)["RM_a"], (1..=40).collect::<Vec<_>>());
    teller.until_acknowledged().await;
    assert_eq!(receiver.got().len(), 40, "none twice");
    replica.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_here_stays_with_its_node_and_comes_later_in_order() {
    let receiver = Receiver::start().await;
    let away = Arc::new(AtomicBool::new(false));
    let store = Flaky::over(memory(), Arc::clone(&away));
    let webhooks = vec![Webhook {
        // Of the long ones none is wanted: what is tried is the way to the store.
        events: vec!["room_finished".into()],
        ..webhook("few", &receiver)
    }];
    let replica = Delivering::start_on(&Arc::new(Ca::new()), store, webhooks, "127.0.0.0/8").await;
    let teller = Teller::attach(&replica.replica, "n1").await;
    away.store(true, Ordering::SeqCst);
    // An event at the head waits for the store, and with it everything behind it.
    teller.tell("a", "RM_a", 1, "room_finished");
    let long = "x".repeat(60_000);
    for seq in 2..=1_200 {
        teller.tell_with("a", "RM_a", seq, "participant_joined", &long);
    }
    teller.tell("a", "RM_a", 1_201, "room_finished");
    replica
        .until_metric("plenum_control_webhook_refused_total", 1)
        .await;
    away.store(false, Ordering::SeqCst);
    let got = receiver.until("both arrive", |got, _| got.len() >= 2).await;
    assert_eq!(by_room(&got)["RM_a"], [1, 1_201]);
    teller.until_acknowledged().await;
    assert!(teller.asked_again() >= 1);
    replica.stop().await;
}

// SPDX-License-Identifier: EUPL-1.2
//! What stands in Redis and how long; what a call costs; what many callers at once bring about.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use control_core::ids::{TenantName, Uid};
use control_core::limits;
use control_core::quota::Usage;
use control_core::record::{Capacity, RecordKind, TenantLimits};
use control_plane::store::redis::keys::{Family, Namespace};
use control_plane::store::redis::{RedisStore, scripts};
use control_plane::store::{
    Choice, EVENT_AGE_MAX, FailureScope, MARK, PlaceCommand, PlaceOutcome, Store, room_lifetime,
};

use crate::conformance::{
    CAPACITY, choice, choices, command, event, hold, key, lease, node, node_lease, policy, queue,
    record, report, request,
};
use crate::redis_store::{options, ready};
use crate::servers::{Server, Setup};

async fn timed() -> (Server, RedisStore) {
    let server = Server::with(Setup {
        clock: true,
        ..Setup::default()
    });
    let store = ready(options(&server.url(), "local")).await;
    (server, store)
}

/// Something of every family.
async fn fill(store: &RedisStore) {
    for number in 0..20 {
        let room = format!("r{number}");
        let on = PlaceCommand {
            choices: vec![Choice {
                capacity: WIDE,
                ..choice("n1")
            }],
            ..command(&room, "n1")
        };
        let PlaceOutcome::Placed(placed, _) = store.place(on).await.expect("answer") else {
            panic!("refused")
        };
        if number % 2 == 0 {
            store
                .report_room(report(&room, placed.lease, number))
                .await
                .expect("answer");
        }
    }
    store
        .hold(hold("planned", &["n2"], 4))
        .await
        .expect("answer");
    let by = request();
    store
        .reserve(
            by,
            key("r1"),
            node("n1"),
            Usage::of_join(false, 1),
            TenantLimits::default(),
            WIDE,
        )
        .await
        .expect("answer")
        .expect("free");
    store.refresh_node(node_lease(1)).await.expect("answer");
    store
        .mark_accepting(node("n2"), false)
        .await
        .expect("answer");
    let scope = FailureScope::Conference(Uid::parse("c").expect("uid"));
    store.count_failure(scope).await.expect("answer");
    let lifetime = Duration::from_secs(30);
    store
        .claim("a".into(), "b".into(), lifetime)
        .await
        .expect("answer");
    store
        .push_event(queue("x"), event("a", b"1"))
        .await
        .expect("answer");
    let kept = record(RecordKind::Tenant, "a", 1, b"1");
    store.put_record(kept).await.expect("answer");
}

const WIDE: Capacity = Capacity {
    rooms: 10_000,
    participants: 100_000,
    egress_mbps: 1_000_000,
};

fn shape_of(key: &str) -> String {
    let tenant = key.replacen("{local:t}", "{NAME:TENANT}", 1);
    let named = tenant.replacen("{local", "{NAME", 1);
    let parts: Vec<&str> = named.splitn(4, ':').collect();
    match named.rsplit_once(':') {
        Some((head, _)) if named.contains("{NAME:TENANT}") => format!("{head}:RECEIVER"),
        _ if parts.len() == 4 && !named.contains("{NAME:records}") => {
            let word = match parts[2] {
                "room" => "TENANT/ROOM",
                "node" | "closed" => "NODE",
                "failures" => "UID[/ADDRESS]",
                "claim" => "ROLE",
                other => other,
            };
            format!("{}:{}:{}:{word}", parts[0], parts[1], parts[2])
        }
        _ => named,
    }
}

#[tokio::test]
async fn every_key_is_documented_and_has_a_lifetime_or_is_a_published_record() {
    let (server, store) = timed().await;
    fill(&store).await;
    let keys = server.keys();
    let known: BTreeSet<&str> = Family::ALL
        .into_iter()
        .flat_map(Family::shape)
        .map(|shape| shape.key)
        .collect();
    let found: BTreeSet<String> = keys.iter().map(|key| shape_of(key)).collect();
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, known);
    let lasting = |key: &str| key.ends_with(":values") || key.ends_with(":index");
    for key in keys {
        let left = server.run(&["PTTL", &key]);
        let runs_out = matches!(left, redis::Value::Int(left) if left > 0);
        assert_eq!(runs_out, !lasting(&key), "{key}: {left:?}");
    }
}

#[tokio::test]
async fn with_the_lifetimes_the_key_space_empties_but_for_published_records() {
    let (server, store) = timed().await;
    fill(&store).await;
    let clock = server.clock.as_ref().expect("a clock");
    clock.advance(EVENT_AGE_MAX.max(MARK).max(room_lifetime(&policy())));
    clock.advance(Duration::from_secs(60));
    drop(store);
    // Nobody sweeps: keys run out by themselves. Asking for one makes the server drop it at once.
    for key in server.keys() {
        server.run(&["EXISTS", &key]);
    }
    let records = [
        "plenum:{local:records}:index",
        "plenum:{local:records}:values",
    ];
    assert_eq!(server.keys(), records);
}

#[tokio::test]
async fn when_all_rooms_have_ended_nothing_is_left_of_them() {
    let (server, store) = timed().await;
    for number in 0..50 {
        let room = format!("r{number}");
        let placed = PlaceCommand {
            choices: vec![Choice {
                capacity: WIDE,
                ..choice("n1")
            }],
            ..command(&room, "n1")
        };
        let PlaceOutcome::Placed(record, _) = store.place(placed).await.expect("answer") else {
            panic!("refused")
        };
        let report = report(&room, record.lease.clone(), 1);
        store.report_room(report).await.expect("answer");
        store
            .close_room(key(&room), record.lease, false)
            .await
            .expect("answer");
    }
    let used = store.usage(vec![node("n1")]).await.expect("answer");
    assert_eq!(used, [Usage::default()]);
    let clock = server.clock.as_ref().expect("a clock");
    clock.advance(limits::RESERVATION);
    // Each call sweeps a share of what has run out.
    for _ in 0..4 {
        store.usage(Vec::new()).await.expect("answer");
    }
    assert_eq!(server.keys(), Vec::<String>::new());
}

fn round_trips(server: &Server) -> u64 {
    let stats: String =
        redis::from_redis_value(server.run(&["INFO", "commandstats"])).expect("text");
    let count = |name: &str| -> u64 {
        let line = stats.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once("calls=")?.1.split_once(','))
            .map_or(0, |(calls, _)| calls.parse().expect("a number"))
    };
    count("cmdstat_evalsha:") + count("cmdstat_eval:")
}

#[tokio::test]
async fn a_call_is_one_round_trip_once_the_server_knows_its_script() {
    let (server, store) = timed().await;
    for warm in [true, false] {
        let room = if warm { "a" } else { "b" };
        let mut before = round_trips(&server);
        let mut costs = |what: &str, most: u64| {
            let now = round_trips(&server);
            assert!(warm || now - before <= most, "{what}: {}", now - before);
            before = now;
        };
        let offered = PlaceCommand {
            choices: choices(&["n1", "n2", "n3"]),
            ..command(room, "n1")
        };
        store.place(offered).await.expect("answer");
        costs("place", 1);
        let join = Usage::of_join(false, 1);
        let limits = TenantLimits::default();
        store
            .reserve(request(), key(room), node("n1"), join, limits, CAPACITY)
            .await
            .expect("answer")
            .expect("free");
        costs("reserve", 1);
        let reports = (0..64).map(|number| report(&format!("{room}{number}"), lease("n9", 1), 1));
        store.report_rooms(reports.collect()).await.expect("answer");
        costs("reports of 64 rooms", 1);
        store
            .refresh_nodes((0..64).map(|_| node_lease(1)).collect())
            .await
            .expect("answer");
        costs("leases of 64 nodes", 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_together_never_exceed_a_ceiling_and_use_all_of_it() {
    let server = Server::start();
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Arc::new(ready(options(&server.url(), "local")).await));
    }
    let limits = TenantLimits {
        rooms: Some(40),
        participants: Some(100),
        ..TenantLimits::default()
    };
    let capacity = Capacity {
        rooms: 15,
        participants: 60,
        egress_mbps: 1_000_000,
    };
    let offered: Vec<Choice> = choices(&["n1", "n2", "n3"])
        .into_iter()
        .map(|choice| Choice { capacity, ..choice })
        .collect();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..120_usize {
        let store = Arc::clone(&replicas[number % 3]);
        // Each room is asked for by two replicas.
        let placed = PlaceCommand {
            choices: offered.clone(),
            limits,
            ..command(&format!("r{}", number / 2), "n1")
        };
        tasks.spawn(async move {
            matches!(
                store.place(placed).await.expect("answer"),
                PlaceOutcome::Placed(..)
            )
        });
    }
    let placed = tasks.join_all().await.into_iter().filter(|is| *is).count();
    assert_eq!(placed, 40);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..120_usize {
        let store = Arc::clone(&replicas[number % 3]);
        let on = node(["n1", "n2", "n3"][number % 3]);
        tasks.spawn(async move {
            let join = Usage::of_join(false, 1);
            store
                .reserve(request(), key("r0"), on, join, limits, capacity)
                .await
                .expect("answer")
                .is_ok()
        });
    }
    let joined = tasks.join_all().await.into_iter().filter(|is| *is).count();
    assert_eq!(joined, 60);
    let used = replicas[0]
        .tenant_usage(TenantName::parse("t").expect("tenant"))
        .await
        .expect("answer");
    assert_eq!((used.rooms, used.participants), (40, 100));
    let nodes = vec![node("n1"), node("n2"), node("n3")];
    let on_nodes = replicas[1].usage(nodes).await.expect("answer");
    assert!(on_nodes.iter().all(|used| used.rooms <= 15), "{on_nodes:?}");
    let sum = on_nodes
        .into_iter()
        .fold(Usage::default(), |sum, used| sum.plus(used));
    assert_eq!(sum, used);
}

#[test]
fn the_documentation_shows_the_keys_as_they_are() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/store.md");
    let text = std::fs::read_to_string(path).expect("docs/store.md");
    let mut table =
        String::from("| family | key | value, version 1 | lifetime |\n|---|---|---|---|\n");
    for family in Family::ALL {
        for shape in family.shape() {
            let (name, key) = (family.as_str(), shape.key);
            let row = format!(
                "| {name} | `{key}` | {} | {} |\n",
                shape.value, shape.lifetime
            );
            table.push_str(&row);
        }
    }
    assert!(
        text.contains(&table),
        "docs/store.md lacks this table:\n{table}"
    );
    let namespace = Namespace::parse("local").expect("a name");
    let rule = control_plane::store::redis::acl::rule(&namespace);
    assert!(
        text.contains(&rule),
        "docs/store.md lacks this rule:\n{rule}"
    );
}

#[test]
fn scripts_call_nothing_that_lists_or_changes_the_server() {
    let commands = scripts::commands();
    assert!(commands.contains("time") && commands.contains("hget"));
    for dangerous in ["keys", "scan", "flushall", "config", "script", "publish"] {
        assert!(!commands.contains(dangerous), "{dangerous}");
    }
}

#[tokio::test]
async fn a_room_takes_few_bytes() {
    let server = Server::start();
    let store = ready(options(&server.url(), "local")).await;
    let bytes = || -> u64 {
        let info: String = redis::from_redis_value(server.run(&["INFO", "memory"])).expect("text");
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"));
        line.expect("a figure").parse().expect("a number")
    };
    const ROOMS: u64 = 5_000;
    let before = bytes();
    for chunk in 0..ROOMS / 250 {
        let reports = (0..250).map(|number| {
            let room = format!("mathematics-{chunk}-{number}");
            control_plane::store::RoomReport {
                policy: Some(policy()),
                ..report(&room, lease("n1", 1), 20)
            }
        });
        store.report_rooms(reports.collect()).await.expect("answer");
    }
    let each = (bytes() - before) / ROOMS;
    println!("a reported room takes {each} bytes");
    assert!(each < 2_048, "{each} bytes");
}

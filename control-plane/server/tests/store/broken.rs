// SPDX-License-Identifier: EUPL-1.2
//! Whatever somebody else, or a later version, wrote under Plenum's keys: it is refused by the name of its family and nothing else fails.

use std::time::Duration;

use control_core::ids::{NodeId, RoomKey, TenantName, Uid};
use control_core::record::RecordKind;
use control_plane::store::redis::RedisStore;
use control_plane::store::{
    FailureScope, PlaceOutcome, ReportOutcome, RoomReport, Store, StoreError,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::conformance::{
    CAPACITY, command, event, hold, key, lease, node, node_lease, queue, record, report, request,
};
use crate::redis_store::{answers, options, ready};
use crate::servers::Server;

fn broken<T>(key_family: &'static str) -> Result<T, StoreError> {
    Err(StoreError::Broken { key_family })
}

const ROOM: &str = "plenum:{local}:room:t/r";
const SEATS: &str = "plenum:{local}:seats";
const DUE: &str = "plenum:{local}:due";
const USE: &str = "plenum:{local}:use";

async fn fresh() -> (Server, RedisStore) {
    let server = Server::start();
    let store = ready(options(&server.url(), "local")).await;
    (server, store)
}

#[tokio::test]
async fn a_broken_room_is_refused_and_another_one_is_not() {
    let (server, store) = fresh().await;
    let good = "1 00000000000000000001 local n1 1 150000 - -";
    let spoilt: [&[&str]; 7] = [
        &["SET", ROOM, "x"],
        &["LPUSH", ROOM, "x"],
        &["HSET", ROOM, "head", "x", "policy", "x", "facts", "x"],
        &["HSET", ROOM, "head", &good.replacen('1', "2", 1)],
        &["HSET", ROOM, "policy", "x"],
        &[
            "HSET",
            ROOM,
            "head",
            good,
            "policy",
            "\u{1}\u{7f}",
            "facts",
            "\u{1}",
        ],
        &[
            "HSET", ROOM, "head", good, "policy", "\u{2}", "facts", "\u{2}",
        ],
    ];
    for words in spoilt {
        server.flush();
        server.run(words);
        assert_eq!(store.room(key("r")).await, broken("room"), "{words:?}");
        assert_eq!(store.place(command("r", "n1")).await, broken("room"));
        assert!(matches!(
            store.place(command("s", "n1")).await,
            Ok(PlaceOutcome::Placed(..))
        ));
    }
    server.flush();
    server.run(&["SET", ROOM, "x"]);
    let reports = vec![
        report("r", lease("n1", 2), 1),
        report("s", lease("n1", 2), 1),
    ];
    let outcomes = store.report_rooms(reports).await.expect("answer");
    assert_eq!(outcomes, [broken("room"), Ok(ReportOutcome::Taken)]);
    let closed = store.close_room(key("r"), lease("n1", 2), false).await;
    assert_eq!(closed, broken("room"));
    assert_eq!(
        store.undo_place(key("r"), lease("n1", 2).epoch, None).await,
        broken("room")
    );
}

#[tokio::test]
async fn broken_counts_are_refused_by_their_family() {
    let (server, store) = fresh().await;
    let reserve = || {
        store.reserve(
            request(),
            key("r"),
            node("n1"),
            command("r", "n1").amount,
            Default::default(),
            CAPACITY,
        )
    };
    let field = |name: &str, value: &[u8]| Garbage::Field(name.into(), value.into());
    let text = |value: &str| Garbage::Text(value.into());
    let spoilt = [
        (SEATS, text("x"), "seats"),
        (SEATS, field("t/r", b"x"), "seats"),
        (SEATS, field("t/r", b""), "seats"),
        // MessagePack of a later version, of a map, of one that is cut, and of parts of another shape.
        (SEATS, field("t/r", &[0x94, 2, 0x90, 0x90, 0x90]), "seats"),
        (SEATS, field("t/r", &[0x81, 1, 1]), "seats"),
        (SEATS, field("t/r", &[0x94, 1, 0x90]), "seats"),
        (
            SEATS,
            field("t/r", &[0x94, 1, 0x91, 0x91, 1, 0x90, 0x90]),
            "seats",
        ),
        (SEATS, field("t/r", &[0x94, 1, 1, 1, 1]), "seats"),
        (DUE, text("x"), "due"),
        (USE, text("x"), "use"),
        (USE, field("t:t", b"2 1 1 1 1"), "use"),
        (USE, field("t:t", b"x"), "use"),
    ];
    for (at, garbage, family) in spoilt {
        server.flush();
        write(&server, at, &garbage);
        assert_eq!(reserve().await, broken(family), "{garbage:?}");
        assert_eq!(store.place(command("r", "n1")).await, broken(family));
        assert_eq!(store.hold(hold("r", &["n1"], 1)).await, broken(family));
        assert_eq!(store.room(key("r")).await, Ok(None), "nothing half done");
    }
    // What is due and cannot be read is swept away; it keeps nobody from anything.
    server.flush();
    server.run(&["HSET", SEATS, "t/x", "x"]);
    server.run(&["ZADD", DUE, "1", "t/x"]);
    reserve().await.expect("answer").expect("free");
    assert_eq!(server.run(&["HEXISTS", SEATS, "t/x"]), redis::Value::Int(0));
}

#[tokio::test]
async fn broken_leases_counters_and_roles_are_refused_by_their_family() {
    let (server, store) = fresh().await;
    let scope = || FailureScope::Conference(Uid::parse("c").expect("uid"));
    for words in [
        &["SET"][..],
        &["SET", "2 00000000000000000001 local 1"],
        &["SET", ""],
        &["LPUSH", "x"],
    ] {
        server.flush();
        for name in ["node:n1", "failures:c", "claim:a"] {
            let key = format!("plenum:{{local}}:{name}");
            let value = words.get(1).copied().unwrap_or("x");
            server.run(&[words[0], &key, value]);
        }
        assert_eq!(store.node(node("n1")).await, broken("node"), "{words:?}");
        assert_eq!(store.refresh_node(node_lease(1)).await, broken("node"));
        assert_eq!(store.failures(scope()).await, broken("failures"));
        assert_eq!(store.count_failure(scope()).await, broken("failures"));
        let claim = store.claim("a".into(), "b".into(), Duration::from_secs(1));
        assert_eq!(claim.await, broken("claim"));
    }
}

#[tokio::test]
async fn a_broken_record_is_left_out_and_keeps_back_no_other() {
    let (server, store) = fresh().await;
    let good = record(RecordKind::Tenant, "good", 1, b"1");
    store.put_record(good.clone()).await.expect("answer");
    store
        .put_record(record(RecordKind::Tenant, "bad", 1, b"2"))
        .await
        .expect("answer");
    let values = "plenum:{local:records}:values";
    for value in [&b"x"[..], b"", &[0x94, 2, 0xa0, 0xa0, 0xa0]] {
        let garbage = Garbage::Field(b"tenant/bad".to_vec(), value.to_vec());
        write(&server, values, &garbage);
        server.run(&["ZADD", "plenum:{local:records}:index", "0", "nothing"]);
        let left = store.records().await.expect("answer");
        assert_eq!(left, std::slice::from_ref(&good));
        let bad = Uid::parse("bad").expect("uid");
        assert_eq!(
            store.record(RecordKind::Tenant, bad).await,
            broken("records")
        );
    }
    for part in ["fence", "index", "values"] {
        server.flush();
        let key = format!("plenum:{{local:records}}:{part}");
        server.run(&["LPUSH", &key, "x"]);
        assert_eq!(store.put_record(good.clone()).await, broken("records"));
    }
}

#[tokio::test]
async fn broken_events_are_refused_and_another_queue_is_not() {
    let (server, store) = fresh().await;
    let events = "plenum:{local:t}:events:x";
    for value in [&b"x"[..], b"", &[0x95, 2, 0xa0, 0xa0, 0xa0, 1]] {
        server.flush();
        store
            .push_event(queue("x"), event("a", b"1"))
            .await
            .expect("answer");
        write(
            &server,
            events,
            &Garbage::Field(b"=a".to_vec(), value.to_vec()),
        );
        assert_eq!(store.events(queue("x"), 9).await, broken("events"));
        let done = store.event_done(queue("x"), "a".into()).await;
        assert_eq!(done, broken("events"));
    }
    for part in ["events", "order"] {
        server.flush();
        server.run(&["SET", &format!("plenum:{{local:t}}:{part}:x"), "x"]);
        let pushed = store.push_event(queue("x"), event("a", b"1")).await;
        assert_eq!(pushed, broken("events"));
        store
            .push_event(queue("y"), event("a", b"1"))
            .await
            .expect("another queue");
    }
}

/// Values that a key or a field of it is given.
#[derive(Clone, Debug)]
enum Garbage {
    Text(Vec<u8>),
    Field(Vec<u8>, Vec<u8>),
    Member(Vec<u8>, i32),
    Element(Vec<u8>),
}

fn garbage() -> impl Strategy<Value = Garbage> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..24);
    let packed = prop::collection::vec(0x80_u8..0xa8, 0..12);
    let text = prop::sample::select(vec![
        "1",
        "1 0 0 0 0",
        "1 x",
        "1 00000000000000000009 local n1 1",
        "-1",
        "1e400",
    ]);
    let value = prop_oneof![bytes(), packed, text.prop_map(|text| text.into())];
    let name = prop::sample::select(vec![
        "t/r",
        "head",
        "facts",
        "policy",
        "n:n1",
        "t:t",
        "reservations",
        "",
        "=a",
        "tenant/a",
    ])
    .prop_map(|name| name.as_bytes().to_vec());
    prop_oneof![
        value.clone().prop_map(Garbage::Text),
        (name.clone(), value.clone()).prop_map(|(name, value)| Garbage::Field(name, value)),
        (name, any::<i32>()).prop_map(|(name, score)| Garbage::Member(name, score)),
        value.prop_map(Garbage::Element),
    ]
}

fn write(server: &Server, key: &str, garbage: &Garbage) {
    let mut command = match garbage {
        Garbage::Text(_) => redis::cmd("SET"),
        Garbage::Field(..) => redis::cmd("HSET"),
        Garbage::Member(..) => redis::cmd("ZADD"),
        Garbage::Element(_) => redis::cmd("LPUSH"),
    };
    command.arg(key);
    match garbage {
        Garbage::Text(value) | Garbage::Element(value) => command.arg(value),
        Garbage::Field(name, value) => command.arg(name).arg(value),
        Garbage::Member(name, score) => command.arg(*score).arg(name),
    };
    let client = redis::Client::open(server.url()).expect("a URL");
    let mut connection = client.get_connection().expect("a connection");
    // A key that has another type already keeps it.
    let _: redis::RedisResult<redis::Value> = command.query(&mut connection);
}

/// Every operation, with answers that are given or refused by name, and never by silence.
async fn touch_everything(store: &RedisStore) {
    fn fine<T: std::fmt::Debug>(what: &str, answer: Result<T, StoreError>) {
        assert!(
            !matches!(answer, Err(StoreError::Away)),
            "{what}: {answer:?}"
        );
    }
    let scope = || FailureScope::Conference(Uid::parse("c").expect("uid"));
    let uid = || Uid::parse("a").expect("uid");
    let tenant = || TenantName::parse("t").expect("tenant");
    let amount = command("r", "n1").amount;
    let id = request();
    fine("place", store.place(command("r", "n1")).await);
    let limits = Default::default();
    let reserved = store.reserve(id, key("r"), node("n1"), amount, limits, CAPACITY);
    fine("reserve", reserved.await);
    fine("hold", store.hold(hold("r", &["n1", "n2"], 2)).await);
    let told: RoomReport = report("r", lease("n1", 4), 1);
    fine("report", store.report_room(told).await);
    fine("room", store.room(key("r")).await);
    fine("release", store.release(key("r"), id.reservation()).await);
    fine("drop_hold", store.drop_hold(key("r")).await);
    fine("usage", store.usage(vec![node("n1"), node("n2")]).await);
    fine("tenant", store.tenant_usage(tenant()).await);
    let end: RoomKey = key("r");
    fine("close", store.close_room(end, lease("n1", 4), false).await);
    let epoch = lease("n1", 4).epoch;
    fine("undo", store.undo_place(key("r"), epoch, None).await);
    let n1: NodeId = node("n1");
    fine("refresh", store.refresh_node(node_lease(3)).await);
    fine("mark", store.mark_accepting(n1.clone(), false).await);
    fine("node", store.node(n1).await);
    fine("count", store.count_failure(scope()).await);
    fine("failures", store.failures(scope()).await);
    let kept = record(RecordKind::Tenant, "a", 1, b"1");
    fine("put", store.put_record(kept).await);
    fine("record", store.record(RecordKind::Tenant, uid()).await);
    fine("records", store.records().await);
    let gone = store.drop_record(RecordKind::Tenant, uid(), 1).await;
    fine("drop", gone);
    let claim = store.claim("a".into(), "b".into(), Duration::from_secs(1));
    fine("claim", claim.await);
    let pushed = store.push_event(queue("x"), event("a", b"1")).await;
    fine("push", pushed);
    fine("events", store.events(queue("x"), 9).await);
    let done = store.event_done(queue("x"), "a".into()).await;
    fine("done", done);
    fine("ping", store.ping().await);
}

#[test]
fn no_garbage_under_any_key_is_more_than_a_refusal() {
    let server = Server::start();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store = runtime.block_on(ready(options(&server.url(), "local")));
    let keys = [
        ROOM,
        SEATS,
        DUE,
        USE,
        "plenum:{local}:node:n1",
        "plenum:{local}:closed:n1",
        "plenum:{local}:failures:c",
        "plenum:{local}:claim:a",
        "plenum:{local:records}:fence",
        "plenum:{local:records}:index",
        "plenum:{local:records}:values",
        "plenum:{local:t}:order:x",
        "plenum:{local:t}:events:x",
    ];
    let spoilt = prop::collection::vec((prop::sample::select(keys.to_vec()), garbage()), 1..4);
    let mut runner = TestRunner::new(Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&spoilt, |spoilt| {
            runtime.block_on(answers(&store));
            server.flush();
            for (key, garbage) in &spoilt {
                write(&server, key, garbage);
            }
            runtime.block_on(touch_everything(&store));
            Ok(())
        })
        .expect("a refusal by name");
}

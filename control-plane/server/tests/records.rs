// SPDX-License-Identifier: EUPL-1.2
//! Published records in the store: what a replica knows that no operator has spoken to, and how soon all replicas know of a change.

#[allow(dead_code)]
#[path = "gateway/http.rs"]
mod http;
#[allow(dead_code)]
#[path = "gateway/node.rs"]
mod node;
#[allow(dead_code, unused_imports)]
#[path = "gateway/rtc/client.rs"]
mod rtc;
#[path = "redis/mod.rs"]
mod servers;
#[allow(dead_code)]
#[path = "gateway/world.rs"]
mod world;

use std::sync::Arc;
use std::time::Duration;

use control_core::record::RecordKind;
use control_plane::store::redis::address::Address;
use control_plane::store::redis::keys::Namespace;
use control_plane::store::redis::{Options, RedisStore};
use control_plane::store::{Store, StoredRecord};
use plenum_proto::v1::publication::Item;
use plenum_proto::v1::session_down::Item as Down;
use plenum_proto::v1::{
    ApiKey, Grants, LobbyRule, RecordKind as WireKind, Retraction, Schedule, TokenFacts,
};
use serde_json::json;

use http::Request;
use rtc::{Signal, connect};
use servers::Server;
use world::{
    Around, COUNCIL, LAB_SECRET, OPENER_KEY, PASSWORD, TOWN_SECRET, World, conference, eventually,
    lab, lab_join, now, token,
};

const SOON: &str = "ffffffffffffffffffffffffff";
const SEAL: [u8; 32] = [5; 32];
/// Long enough for a loaded machine, and shorter than what a client waits for.
const DEADLINE: Duration = Duration::from_secs(1);

/// A conference whose only window opens in so many seconds.
fn soon(seconds: i64) -> Item {
    let start = jiff::Timestamp::from_second(now() + seconds).expect("a moment");
    let start = start.to_zoned(jiff::tz::TimeZone::UTC).datetime();
    let mut soon = conference("soon", SOON, LobbyRule::LobbyOff, true);
    soon.schedule = Some(Schedule {
        start: start.to_string(),
        time_zone: "Etc/UTC".into(),
        duration_ms: 3_600_000,
        ..Schedule::default()
    });
    Item::Conference(soon)
}

async fn state_of(world: &World, room_id: &str) -> (u16, String) {
    let answer = Request::new(world.http, "GET", &format!("/api/v1/c/{room_id}"))
        .send()
        .await;
    let state = answer.json()["state"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (answer.status, state)
}

/// What the door says in the end.
async fn admitted(door: &mut http::Stream) -> serde_json::Value {
    loop {
        let (event, data) = door.event().await.expect("the door stays open");
        match event.as_str() {
            "waiting" => {}
            "admitted" => return data,
            other => panic!("{other}: {data}"),
        }
    }
}

/// Records of a kind in the store.
async fn kept(store: &dyn Store, kind: RecordKind) -> Vec<String> {
    let records = store.records().await.expect("the store answers");
    records
        .into_iter()
        .filter(|record| record.kind == kind)
        .map(|record| record.uid.to_string())
        .collect()
}

/// Whether the replica that writes has written everything.
async fn complete(store: &dyn Store) -> bool {
    let mark = |record: &StoredRecord| record.uid.as_str() == "plenum.snapshot";
    store
        .records()
        .await
        .is_ok_and(|records| records.iter().any(mark))
}

async fn flush(store: &dyn Store) {
    for record in store.records().await.expect("the store answers") {
        // With the publisher's own epoch: it is not held off by a later one.
        store
            .drop_record(record.kind, record.uid, 1)
            .await
            .expect("dropped");
    }
}

/// A replica that was told everything, and wrote it into the store.
async fn written(around: &Around, name: &str, more: Vec<Item>) -> World {
    let world = World::replica(around, name).await;
    world.publish_all(more).await;
    eventually("the records are in the store", async || {
        complete(&*around.store).await
    })
    .await;
    world
}

/// A connection of its own to a server.
fn connected(server: &Server) -> Arc<dyn Store> {
    let store = RedisStore::start(Options {
        address: Address::parse(&server.url()).expect("a URL"),
        ca: None,
        namespace: Namespace::parse("local").expect("a name"),
        deadline: DEADLINE,
    });
    Arc::new(store.expect("a client"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conference_opens_on_time_with_neither_operator_nor_first_replica_alive() {
    let around = Around::new().sealed(&SEAL);
    opens_on_time(&around, &around).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conference_opens_on_time_from_a_real_redis() {
    let server = Server::start();
    let first = Around::over(connected(&server)).sealed(&SEAL);
    let second = first.with(connected(&server));
    opens_on_time(&first, &second).await;
}

async fn opens_on_time(around: &Around, later: &Around) {
    let first = written(around, "first", vec![soon(12)]).await;
    assert_eq!(state_of(&first, SOON).await, (200, "scheduled".to_owned()));
    for record in around.store.records().await.expect("the store answers") {
        for secret in [TOWN_SECRET, LAB_SECRET, "argon2id", "Conference soon"] {
            let found = record
                .value
                .windows(secret.len())
                .any(|part| part == secret.as_bytes());
            assert!(!found, "{secret} stands in {record:?}");
        }
    }
    // With the replica goes the operator's stream.
    drop(first);
    let mut second = World::replica(later, "second").await;
    eventually("the store's records hold", async || {
        state_of(&second, SOON).await.0 == 200
    })
    .await;
    assert!(second.plane.is_loaded() && !second.plane.is_certain());
    // The node is known from the store as well.
    second.attach().await;
    let mut door = second
        .enter(SOON, &json!({"name": "Vorsitz", "openerKey": OPENER_KEY}))
        .await;
    let admitted = admitted(&mut door).await;
    let bearer = admitted["token"].as_str().expect("a token");
    let mut opener = connect(second.http, &format!("access_token={bearer}"))
        .await
        .expect("the opener joins");
    opener.next().await;
    let mut guest = second
        .enter(
            SOON,
            &json!({"name": "Gast", "password": PASSWORD, "acknowledged": []}),
        )
        .await;
    let admitted = guest.expect("admitted").await;
    let bearer = admitted["token"].as_str().expect("a token");
    let mut guest = connect(second.http, &format!("access_token={bearer}"))
        .await
        .expect("the guest joins");
    guest.next().await;
    // An unknown key may be one that the store lacks: nobody is sent away for good.
    let stranger = token(
        "stranger",
        LAB_SECRET,
        json!({"sub": "a", "video": {"roomJoin": true, "room": "x"}}),
    );
    let no = connect(second.http, &format!("access_token={stranger}"))
        .await
        .err()
        .expect("refused");
    assert_eq!(no.status, 503);
    // The operator's word makes it certain.
    second.publish_all(vec![soon(-60)]).await;
    eventually("the publication holds", async || second.plane.is_certain()).await;
    let no = connect(second.http, &format!("access_token={stranger}"))
        .await
        .err()
        .expect("refused");
    assert_eq!(no.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_published_any_more_goes_from_the_store() {
    let around = Around::new().sealed(&SEAL);
    let world = written(&around, "first", vec![soon(3_600)]).await;
    let has = async |uid: &str| {
        kept(&*around.store, RecordKind::Conference)
            .await
            .iter()
            .any(|kept| kept == uid)
    };
    assert!(has("conference-soon").await && has("conference-council").await);
    world
        .publish(Item::Retract(Retraction {
            kind: WireKind::Conference.into(),
            uid: "conference-council".into(),
        }))
        .await;
    eventually("a retracted record goes", async || {
        !has("conference-council").await
    })
    .await;
    // The next snapshot omits the other one.
    let second = World::replica(&around, "second").await;
    drop(world);
    second.publish_all(Vec::new()).await;
    eventually("an omitted record goes", async || {
        !has("conference-soon").await
    })
    .await;
    assert!(has("conference-council").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_another_seal_key_are_refused_by_name_and_replaced_by_a_publication() {
    let around = Around::new().sealed(&SEAL);
    drop(written(&around, "first", Vec::new()).await);
    let stranger = around.clone().sealed(&[6; 32]);
    let second = World::replica(&stranger, "second").await;
    let counted = |world: &World| {
        world
            .plane
            .metrics()
            .encode()
            .contains("store_records_refused_total{reason=\"UnknownSealKey\"} 1")
    };
    eventually("the refusal is counted", async || counted(&second)).await;
    assert!(!second.plane.is_loaded(), "nothing that could be read");
    second.publish_all(Vec::new()).await;
    // Whoever has the new key now reads them, and with the old one beside it the old ones would have been read as well.
    let third = World::replica(&stranger, "third").await;
    eventually("the records are sealed again", async || {
        state_of(&third, COUNCIL).await.0 == 200
    })
    .await;
    let mut both = vec![9; 32];
    both.extend([6; 32]);
    let fourth = World::replica(&around.clone().sealed(&both), "fourth").await;
    eventually("the previous key still opens them", async || {
        state_of(&fourth, COUNCIL).await.0 == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_store_gets_its_records_back() {
    let around = Around::new().sealed(&SEAL);
    let world = written(&around, "first", Vec::new()).await;
    flush(&*around.store).await;
    eventually("the publisher's replica writes again", async || {
        complete(&*around.store).await
    })
    .await;
    // Without a publisher, whoever holds the records does.
    drop(world);
    let second = World::replica(&around, "second").await;
    eventually("the store's records hold", async || {
        second.plane.is_loaded()
    })
    .await;
    flush(&*around.store).await;
    eventually("the last who knows writes them", async || {
        complete(&*around.store).await
    })
    .await;
    assert!(
        kept(&*around.store, RecordKind::Conference)
            .await
            .contains(&"conference-council".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_starts_while_redis_is_away_learns_all_from_operator_and_nodes() {
    let mut server = Server::start();
    server.kill();
    let around = Around::over(connected(&server)).sealed(&SEAL);
    let mut world = World::replica(&around, "first").await;
    world.publish_all(Vec::new()).await;
    world.attach().await;
    assert!(around.store.ping().await.is_err(), "Redis is away");
    let mut door = world
        .enter(
            COUNCIL,
            &json!({"name": "Vorsitz", "openerKey": OPENER_KEY}),
        )
        .await;
    let admitted = admitted(&mut door).await;
    let bearer = admitted["token"].as_str().expect("a token");
    let mut opener = connect(world.http, &format!("access_token={bearer}"))
        .await
        .expect("the opener joins");
    opener.next().await;
    assert!(around.store.ping().await.is_err(), "Redis is still away");
    // Back, and empty: what the replica knows goes into it, the room too.
    server.restart();
    eventually("the records are in the store", async || {
        complete(&*around.store).await
    })
    .await;
    let key = control_core::ids::RoomKey::parse("musterstadt", "council").expect("a key");
    eventually("the room is in the store", async || {
        matches!(around.store.room(key.clone()).await, Ok(Some(_)))
    })
    .await;
    // And a flush is no different.
    server.flush();
    eventually("the records are in the store again", async || {
        complete(&*around.store).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_replicas_one_writes_and_another_one_follows_it() {
    let server = Server::start();
    let first = Around::over(connected(&server)).sealed(&SEAL);
    let second = first.with(connected(&server));
    let one = written(&first, "first", Vec::new()).await;
    let other = World::replica(&second, "second").await;
    other.publish_all(Vec::new()).await;
    let writes = |world: &World| {
        let text = world.plane.metrics().encode();
        let line = text
            .lines()
            .find(|line| line.starts_with("plenum_control_store_records_written_total "));
        let count = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        count.expect("the counter is served")
    };
    let all = kept(&*first.store, RecordKind::Tenant).await.len()
        + kept(&*first.store, RecordKind::Conference).await.len()
        + kept(&*first.store, RecordKind::Node).await.len();
    // The mark is no record.
    assert_eq!(writes(&one), all as u64 - 1);
    let mut changed = lab();
    changed.revision = "2".into();
    changed.display_name = "Labor".into();
    for world in [&one, &other] {
        world.publish(Item::Tenant(changed.clone())).await;
    }
    eventually("the change is written", async || writes(&one) == all as u64).await;
    assert_eq!(writes(&other), 0);
    // Killed, its claim runs out; then the other one writes what changes.
    drop(one);
    changed.revision = "3".into();
    other.publish(Item::Tenant(changed)).await;
    eventually("the other one writes", async || writes(&other) > 0).await;
}

/// Name of the lab as a replica shows it.
fn lab_name(world: &World) -> String {
    let view = world.plane.view();
    let lab = view.tenant_of_key("lab-key").expect("the lab is known");
    lab.display_name.clone()
}

fn renamed(revision: &str, name: &str) -> Item {
    let mut record = lab();
    record.revision = revision.into();
    record.display_name = name.into();
    Item::Tenant(record)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_its_operator_follows_those_that_have_one() {
    let around = Around::new().sealed(&SEAL);
    let first = written(&around, "first", Vec::new()).await;
    let second = World::replica(&around, "second").await;
    second.publish_all(vec![renamed("9", "second's own")]).await;
    // What it knows last stays, though the store says otherwise: that was written before.
    second.lose_operator();
    eventually("the first one's publication holds there", async || {
        first.publish(renamed("2", "Labor")).await;
        lab_name(&second) == "Labor"
    })
    .await;
    assert!(!second.plane.is_certain());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_later_publisher_writes_whoever_has_the_claim() {
    let around = Around::new().sealed(&SEAL);
    let first = written(&around, "first", Vec::new()).await;
    // The new leader reaches the second replica alone.
    let second = World::replica(&around, "second").await;
    second
        .publish_all_as(2, vec![renamed("2", "of the later leader")])
        .await;
    let third = World::replica(&around, "third").await;
    eventually("the later leader's word is in the store", async || {
        third.plane.is_loaded() && lab_name(&third) == "of the later leader"
    })
    .await;
    // The older one goes on, and changes nothing there.
    let fenced = |world: &World| {
        let text = world.plane.metrics().encode();
        !text.contains("plenum_control_store_records_fenced_total 0")
    };
    first.publish(renamed("3", "of the older leader")).await;
    eventually("the older one's writes are fenced", async || fenced(&first)).await;
    second.publish_as(2, renamed("4", "the last word")).await;
    eventually("the later leader's word is in the store", async || {
        lab_name(&third) == "the last word"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_removed_ends_joins_and_refreshes_everywhere_and_a_new_one_works_at_once() {
    let around = Around::new().sealed(&SEAL);
    let mut first = written(&around, "first", Vec::new()).await;
    first.attach().await;
    let second = World::replica(&around, "second").await;
    second.publish_all(Vec::new()).await;
    // A replica that no operator reaches goes by the store.
    let apart = World::replica(&around, "apart").await;
    eventually("the store's records hold", async || apart.plane.is_loaded()).await;

    let old = format!("access_token={}", lab_join("room", "anna"));
    let mut running = connect(first.http, &old).await.expect("joined");
    running.next().await;
    let facts = TokenFacts {
        identity: "anna".into(),
        grants: Some(Grants {
            room_join: true,
            ..Grants::default()
        }),
        ..TokenFacts::default()
    };
    first
        .node()
        .send_down(Down::TokenFacts(facts.clone()))
        .await;
    let Signal::RefreshToken(refreshed) = running.signal().await else {
        panic!("no token")
    };
    let refreshed = format!("access_token={refreshed}");
    drop(
        connect(first.http, &refreshed)
            .await
            .expect("joined with the refreshed token"),
    );

    // A rotation: both keys hold for a while, then the old one goes.
    const NEW_SECRET: &str = "the-secret-after-the-rotation-32-bytes";
    let new = ApiKey {
        key: "lab-key-2".into(),
        secret: NEW_SECRET.into(),
    };
    let fresh = format!(
        "access_token={}",
        token(
            "lab-key-2",
            NEW_SECRET,
            json!({"sub": "bert", "video": {"roomJoin": true, "room": "room"}}),
        )
    );
    let mut both = lab();
    both.revision = "2".into();
    both.api_keys.push(new.clone());
    let mut only = lab();
    only.revision = "3".into();
    only.api_keys = vec![new];
    for record in [both, only] {
        for world in [&first, &second] {
            world.publish(Item::Tenant(record.clone())).await;
        }
        let removed = record.api_keys.len() == 1;
        for world in [&first, &second, &apart] {
            let certain = world.plane.is_certain();
            for (bearer, good) in [(&old, !removed), (&refreshed, !removed), (&fresh, true)] {
                eventually("the keys are those that were published last", async || {
                    match connect(world.http, bearer).await {
                        Ok(_) => good,
                        // Only the first replica has a node; another one has to know the key, and no place.
                        Err(no) if good => no.status == 503 && !no.text.contains("starting"),
                        Err(no) if certain => no.status == 401,
                        Err(no) => no.status == 503 && no.text.contains("starting"),
                    }
                })
                .await;
            }
        }
    }
    // Another secret under the same key ends what stems from the old one, though the key's name is back.
    let mut again = lab();
    again.revision = "4".into();
    again.api_keys[0].secret = NEW_SECRET.into();
    for world in [&first, &second] {
        world.publish(Item::Tenant(again.clone())).await;
    }
    for world in [&first, &second] {
        eventually("the key is back with another secret", async || {
            let fresh = token("lab-key", NEW_SECRET, json!({"sub": "carl"}));
            matches!(connect(world.http, &format!("access_token={fresh}")).await, Err(no) if no.status == 403)
        })
        .await;
        for bearer in [&old, &refreshed] {
            let no = connect(world.http, bearer).await.err().expect("refused");
            assert_eq!(no.status, 401);
        }
    }

    // Whoever is in stays in, and gets no token that could outlive the key.
    running
        .send(tokio_tungstenite::tungstenite::Message::Text("{}".into()))
        .await;
    running.next().await;
    first.node().send_down(Down::TokenFacts(facts)).await;
    running
        .send(tokio_tungstenite::tungstenite::Message::Text(
            "{\"ping\":\"1\"}".into(),
        ))
        .await;
    let next = running.next().await;
    assert!(!next.to_string().contains("refreshToken"), "{next}");
}

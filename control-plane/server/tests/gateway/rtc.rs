// SPDX-License-Identifier: EUPL-1.2
//! `/rtc`: statuses before the upgrade, frames after it.

use livekit_protocol::leave_request::Action;
use livekit_protocol::{ClientInfo, DisconnectReason};
use plenum_proto::v1::publication::Item;
use plenum_proto::v1::session_down::Item as Down;
use plenum_proto::v1::{Grants, Role, SessionClose, TokenFacts, tenant_record::AdHoc};
use prost::Message as _;
use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::http::{LIVE, Request};
use crate::node::{FIRST, NODE_ID, SITE, Script};
use crate::world::{
    COUNCIL, LAB_SECRET, TOWN_SECRET, World, eventually, lab_join, now, token, town, town_join,
};

#[path = "rtc/client.rs"]
mod client;

use client::connect_with;
pub(crate) use client::{Client, Refused, Signal, connect};

async fn refused(world: &World, query: &str) -> Refused {
    match connect(world.http, query).await {
        Ok(_) => panic!("{query} was taken"),
        Err(refused) => refused,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_travel_both_ways_unchanged_and_with_their_kind() {
    let world = World::start().await;
    let mut client = connect(
        world.http,
        &format!(
            "access_token={}&sdk=js&protocol=17&auto_subscribe=0",
            lab_join("room", "anna")
        ),
    )
    .await
    .expect("joined");
    assert_eq!(client.next().await, Message::Binary(FIRST.into()));
    let binary = Message::Binary((0..=255_u8).collect::<Vec<_>>().into());
    let text = Message::Text("{\"ping\":\"1\"}".into());
    for message in [binary, text] {
        client.send(message.clone()).await;
        assert_eq!(client.next().await, message);
    }
    let start = world.node().last_start();
    assert_eq!(
        (start.identity.as_str(), start.role(), start.kind.as_str()),
        ("anna", Role::Unspecified, "standard")
    );
    assert!(
        start.opener && start.epoch > 0,
        "an ad-hoc room is opened by whoever comes first"
    );
    let parameters = start.client.expect("parameters");
    assert!(!parameters.auto_subscribe);
    assert_eq!(
        ClientInfo::decode(parameters.client_info.as_slice())
            .expect("info")
            .protocol,
        17
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_may_come_in_the_header_and_with_two_slashes() {
    let world = World::start().await;
    let token = lab_join("room", "go");
    let mut client = connect_with(world.http, "//rtc?sdk=go&publish=screen", Some(&token))
        .await
        .expect("joined");
    client.next().await;
    let start = world.node().last_start();
    assert_eq!(
        start.identity, "go#screen",
        "an extra connection that only publishes"
    );
    assert!(!start.grants.expect("grants").can_subscribe);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_has_its_status_before_the_upgrade() {
    let world = World::start().await;
    let lab = |claims| token("lab-key", LAB_SECRET, claims);
    let expired =
        json!({"sub": "a", "exp": now() - 100, "video": {"roomJoin": true, "room": "room"}});
    let cases = [
        ("no token", String::new(), 401, false),
        ("nonsense", "abc".into(), 401, false),
        (
            "unknown key",
            token("stranger", LAB_SECRET, json!({"sub": "a"})),
            401,
            false,
        ),
        (
            "wrong secret",
            token("lab-key", TOWN_SECRET, json!({"sub": "a"})),
            401,
            false,
        ),
        ("expired", lab(expired), 401, false),
        (
            "no grant",
            lab(json!({"sub": "a", "video": {"room": "room"}})),
            403,
            false,
        ),
        (
            "no room",
            lab(json!({"sub": "a", "video": {"roomJoin": true}})),
            400,
            false,
        ),
        (
            "no identity",
            lab(json!({"video": {"roomJoin": true, "room": "room"}})),
            400,
            false,
        ),
        (
            "control characters in the identity",
            lab(json!({"sub": "a\u{0}", "video": {"roomJoin": true, "room": "room"}})),
            400,
            false,
        ),
        (
            "undeclared room, ad hoc forbidden",
            town_join("somewhere", "anna"),
            404,
            false,
        ),
        (
            "suspended conference",
            town_join("closed", "mayor"),
            403,
            false,
        ),
        ("before its time", town_join("later", "mayor"), 503, true),
        ("not opened", town_join("council", "anna"), 503, true),
    ];
    for (name, token, status, retry) in cases {
        let no = refused(&world, &format!("access_token={token}")).await;
        assert_eq!(
            (no.status, no.retry_after.is_some()),
            (status, retry),
            "{name}: {no:?}"
        );
        // The same words without the upgrade, readable from any page.
        let asked = Request::new(
            world.http,
            "GET",
            &format!("/rtc/validate?access_token={token}"),
        )
        .header("Origin", "https://elsewhere.example")
        .send()
        .await;
        assert_eq!(
            (asked.status, asked.text().trim()),
            (status, no.text.as_str()),
            "{name}"
        );
        assert_eq!(
            asked.header("access-control-allow-origin"),
            Some("*"),
            "{name}"
        );
    }
    let no = refused(
        &world,
        &format!("access_token={}", town_join("council", "anna")),
    )
    .await;
    assert_eq!(no.text, "conference has not been opened yet");
    let no = refused(
        &world,
        &format!("access_token={}&protocol=new", lab_join("room", "a")),
    )
    .await;
    assert_eq!(
        (no.status, no.text.contains("`protocol`")),
        (400, true),
        "{no:?}"
    );
    assert!(
        world.node().starts.lock().expect("lock").is_empty(),
        "no refusal reached the node"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_room_refuses_is_a_status_as_well() {
    let world = World::start().await;
    for (reason, retry, status) in [
        ("RoomFull", true, 503),
        ("Revoked", false, 403),
        ("NotOpened", true, 503),
        ("Locked", true, 503),
    ] {
        world.node().script(Script::Refuse(reason, retry));
        let no = refused(
            &world,
            &format!("access_token={}", lab_join("room", "anna")),
        )
        .await;
        assert_eq!(
            (no.status, no.retry_after.is_some()),
            (status, retry),
            "{reason}: {no:?}"
        );
    }
    // Always under another lease: looked for again and again, then told to come later.
    world.node().script(Script::Refuse("WrongEpoch", true));
    assert_eq!(
        refused(
            &world,
            &format!("access_token={}", lab_join("room", "anna"))
        )
        .await
        .status,
        503
    );
    // A node that says nothing: within the time that SDKs wait.
    world.node().script(Script::Silent);
    assert_eq!(
        refused(
            &world,
            &format!("access_token={}", lab_join("room", "anna"))
        )
        .await
        .status,
        503
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_directory_arrives_nothing_is_certain() {
    let world = World::bare().await;
    let no = refused(
        &world,
        &format!("access_token={}", lab_join("room", "anna")),
    )
    .await;
    assert_eq!(
        no.status, 503,
        "the key may be published a moment later: {no:?}"
    );
    assert!(no.retry_after.is_some());
    assert_eq!(
        refused(&world, "access_token=a.b.c").await.status,
        401,
        "this is none, whatever arrives"
    );
    let door = Request::new(world.http, "GET", &format!("/api/v1/c/{COUNCIL}"))
        .send()
        .await;
    assert_eq!(
        (door.status, door.header("retry-after").is_some()),
        (503, true)
    );
    assert_eq!(
        Request::new(world.http, "GET", "/readyz")
            .send()
            .await
            .status,
        200,
        "ready is who serves"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_is_absent_in_the_way_that_makes_clients_fall_back() {
    let world = World::start().await;
    for path in ["/rtc/v1", "/rtc/v1/validate", "/settings/regions"] {
        let answer = Request::new(
            world.http,
            "GET",
            &format!("{path}?access_token={}", lab_join("room", "a")),
        )
        .send()
        .await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.text().contains("requested room does not exist"));
    }
    assert_eq!(
        Request::new(world.http, "GET", "/rtc").send().await.status,
        404,
        "without an upgrade"
    );
    let valid = Request::new(
        world.http,
        "GET",
        &format!("/rtc/validate?access_token={}", lab_join("room", "a")),
    )
    .send()
    .await;
    assert_eq!((valid.status, valid.text()), (200, "success"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declared_conference_knows_its_people_by_their_tokens() {
    let world = World::start().await;
    let mut mayor = connect(
        world.http,
        &format!("access_token={}", town_join("council", "mayor")),
    )
    .await
    .expect("an opener by subject");
    mayor.next().await;
    let start = world.node().last_start();
    assert_eq!(
        (start.role(), start.opener, start.guest),
        (Role::Moderator, true, false)
    );
    let speaker = town_join("council", "speaker");
    eventually("others are let in once it is open", async || {
        connect(world.http, &format!("access_token={speaker}"))
            .await
            .is_ok()
    })
    .await;
    let start = world.node().last_start();
    assert_eq!((start.role(), start.opener), (Role::Presenter, false));
    let admin = token(
        "town-key",
        TOWN_SECRET,
        json!({"sub": "clerk", "video": {"roomJoin": true, "roomAdmin": true, "room": "council"}}),
    );
    connect(world.http, &format!("access_token={admin}"))
        .await
        .expect("joined");
    assert!(
        world.node().last_start().opener,
        "a token with roomAdmin of the tenant's own key opens"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_of_the_server_come_from_nobody_else() {
    let world = World::start().await;
    let claims = json!({
        "sub": "anna",
        "attributes": {"plenum.role": "Moderator", "colour": "red"},
        "video": {"roomJoin": true, "room": "room", "canUpdateOwnMetadata": true},
    });
    let own =
        data_encoding::BASE64URL.encode(br#"{"plenum.guest":"false","mood":"good","colour":""}"#);
    connect(
        world.http,
        &format!(
            "access_token={}&attributes={own}",
            token("lab-key", LAB_SECRET, claims)
        ),
    )
    .await
    .expect("joined");
    let start = world.node().last_start();
    let mut attributes: Vec<_> = start.attributes.into_iter().collect();
    attributes.sort();
    assert_eq!(
        attributes,
        [
            ("colour".to_owned(), "red".to_owned()),
            ("mood".to_owned(), "good".to_owned())
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refreshed_tokens_come_in_the_form_of_the_client_and_join_again() {
    let world = World::start().await;
    let mut client = connect(
        world.http,
        &format!("access_token={}", lab_join("room", "anna")),
    )
    .await
    .expect("joined");
    client.next().await;
    let facts = TokenFacts {
        identity: "anna".into(),
        name: "Anna neu".into(),
        grants: Some(Grants {
            room_join: true,
            can_publish: true,
            can_publish_sources: vec!["camera".into()],
            ..Grants::default()
        }),
        ..TokenFacts::default()
    };
    world
        .node()
        .send_down(Down::TokenFacts(facts.clone()))
        .await;
    let Signal::RefreshToken(binary) = client.signal().await else {
        panic!("no token")
    };
    client.send(Message::Text("{}".into())).await;
    client.next().await;
    world.node().send_down(Down::TokenFacts(facts)).await;
    let Message::Text(text) = client.next().await else {
        panic!("the client speaks text now")
    };
    assert!(text.as_str().contains("refreshToken"), "{text}");
    drop(client);
    connect(world.http, &format!("access_token={binary}"))
        .await
        .expect("joined with the refreshed token");
    let start = world.node().last_start();
    assert_eq!(
        (start.identity.as_str(), start.name.as_str()),
        ("anna", "Anna neu")
    );
    assert_eq!(
        start.grants.expect("grants").can_publish_sources,
        ["camera"]
    );

    // The key that it stems from goes: the refreshed token with it.
    let mut lab = town();
    lab.uid = "tenant-lab".into();
    lab.name = "lab".into();
    lab.revision = "2".into();
    lab.api_keys[0].key = "lab-key-2".into();
    lab.ad_hoc = AdHoc::Forbidden.into();
    world.publish(Item::Tenant(lab)).await;
    eventually("the token is refused", async || {
        match connect(world.http, &format!("access_token={binary}")).await {
            Ok(_) => false,
            Err(no) => no.status == 401,
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_goes_to_the_node_of_the_sid_and_a_lost_one_is_told_to_join_anew() {
    let world = World::start().await;
    let token = lab_join("room", "anna");
    let mut client = connect(world.http, &format!("access_token={token}"))
        .await
        .expect("joined");
    client.next().await;
    let sid = format!("PA_{SITE}_{NODE_ID}_abc123");
    let resume =
        |sid: &str| format!("access_token={token}&reconnect=1&reconnect_reason=2&sid={sid}");
    let mut resumed = connect(world.http, &resume(&sid)).await.expect("resumed");
    assert_eq!(resumed.next().await, Message::Binary(FIRST.into()));
    let start = world.node().last_start();
    assert_eq!(
        (
            start.reconnect,
            start.participant_sid.as_str(),
            start.reconnect_reason
        ),
        (true, sid.as_str(), 2)
    );
    // Known to be gone: what has no form of a SID, and a room that is elsewhere.
    world.node().script(Script::Refuse("WrongEpoch", true));
    for sid in ["", "PA_x", sid.as_str(), "../../etc/passwd"] {
        let mut client = connect(world.http, &resume(sid)).await.expect("upgraded");
        let Signal::Leave(leave) = client.signal().await else {
            panic!("no leave")
        };
        assert_eq!(
            (leave.reason(), leave.action()),
            (DisconnectReason::StateMismatch, Action::Reconnect),
            "{sid}"
        );
        assert!(matches!(client.next().await, Message::Close(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_of_a_lost_node_are_told_to_join_anew() {
    let world = World::start().await;
    let mut client = connect(
        world.http,
        &format!("access_token={}", lab_join("room", "anna")),
    )
    .await
    .expect("joined");
    client.next().await;
    let mut mute = connect(
        world.http,
        &format!("access_token={}", lab_join("room", "berta")),
    )
    .await
    .expect("joined");
    mute.next().await;
    world.node().die();
    for client in [&mut client, &mut mute] {
        let Signal::Leave(leave) = client.signal().await else {
            panic!("no leave")
        };
        assert_eq!(
            (leave.reason(), leave.action()),
            (DisconnectReason::StateMismatch, Action::Reconnect)
        );
        assert!(matches!(client.next().await, Message::Close(_)));
    }
    let token = lab_join("room", "anna");
    let sid = format!("PA_{SITE}_{NODE_ID}_abc123");
    eventually("a resume says so", async || match connect(world.http, &format!("access_token={token}&reconnect=1&sid={sid}")).await {
        // Silent, but not known to be dead: come again.
        Err(no) => {
            assert_eq!(no.status, 503, "{no:?}");
            false
        }
        Ok(mut client) => matches!(client.signal().await, Signal::Leave(leave) if leave.action() == Action::Reconnect),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_stream_to_a_living_node_is_resumed() {
    let world = World::start().await;
    let mut client = connect(
        world.http,
        &format!("access_token={}", lab_join("room", "anna")),
    )
    .await
    .expect("joined");
    client.next().await;
    world.node().break_streams();
    let Message::Close(Some(frame)) = client.next().await else {
        panic!("no close frame")
    };
    assert_eq!(
        (u16::from(frame.code), frame.reason.as_str()),
        (1001, "resume")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_a_client_leaves_reaches_the_room() {
    let world = World::start().await;
    let mut ends = world.node().ends.subscribe();
    let mut client = connect(
        world.http,
        &format!("access_token={}", lab_join("room", "anna")),
    )
    .await
    .expect("joined");
    client.next().await;
    client.close().await;
    assert_eq!(
        *timeout(LIVE, ends.wait_for(|ends| ends.len() == 1))
            .await
            .expect("told")
            .expect("alive"),
        [true]
    );
    let mut client = connect(
        world.http,
        &format!("access_token={}", lab_join("room", "anna")),
    )
    .await
    .expect("joined");
    client.next().await;
    drop(client);
    assert_eq!(
        *timeout(LIVE, ends.wait_for(|ends| ends.len() == 2))
            .await
            .expect("told")
            .expect("alive"),
        [true, false]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_room_closes_with_its_own_code() {
    let world = World::start().await;
    let mut client = connect(
        world.http,
        &format!("access_token={}", lab_join("room", "anna")),
    )
    .await
    .expect("joined");
    client.next().await;
    world
        .node()
        .send_down(Down::Close(SessionClose {
            code: 4001,
            reason: "removed".into(),
        }))
        .await;
    let Message::Close(Some(frame)) = client.next().await else {
        panic!("no close frame")
    };
    assert_eq!(
        (u16::from(frame.code), frame.reason.as_str()),
        (4001, "removed")
    );
}

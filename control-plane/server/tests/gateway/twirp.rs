// SPDX-License-Identifier: EUPL-1.2
//! The RoomService as server SDKs call it.

use livekit_protocol as proto;
use plenum_proto::v1::AdminResponse;
use plenum_proto::v1::admin_request::Call;
use prost::Message;
use serde_json::{Value, json};

use crate::http::{Answer, Request};
use crate::rtc::connect;
use crate::world::{COUNCIL, LAB_SECRET, TOWN_SECRET, World, eventually, lab_join, token};

fn lab(video: Value) -> String {
    token(
        "lab-key",
        LAB_SECRET,
        json!({"sub": "backend", "video": video}),
    )
}

async fn call(world: &World, method: &str, token: &str, body: Value) -> Answer {
    Request::new(
        world.http,
        "POST",
        &format!("/twirp/livekit.RoomService/{method}"),
    )
    .bearer(token)
    .json(&body)
    .send()
    .await
}

fn failure(answer: &Answer) -> (u16, String) {
    (
        answer.status,
        answer.json()["code"].as_str().expect("code").to_owned(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_are_created_listed_and_deleted() {
    let world = World::start().await;
    world.node().answer_admin(AdminResponse {
        response: proto::Room {
            sid: "RM_hall".into(),
            name: "hall".into(),
            ..proto::Room::default()
        }
        .encode_to_vec(),
        ..AdminResponse::default()
    });
    let create = lab(json!({"roomCreate": true}));
    let created = call(
        &world,
        "CreateRoom",
        &create,
        json!({"name": "hall", "emptyTimeout": 60, "maxParticipants": 5, "metadata": "m"}),
    )
    .await;
    assert_eq!(
        (created.status, &created.json()["sid"]),
        (200, &json!("RM_hall")),
        "{}",
        created.text()
    );
    let open = world
        .node()
        .opens
        .lock()
        .expect("lock")
        .last()
        .cloned()
        .expect("opened");
    let policy = open.policy.expect("policy");
    assert_eq!(
        (
            policy.max_participants,
            policy.empty_timeout_ms,
            policy.declared
        ),
        (5, 60_000, false)
    );
    assert!(
        matches!(&world.node().admin.lock().expect("lock")[0].call, Some(Call::UpdateRoomMetadata(bytes))
        if proto::UpdateRoomMetadataRequest::decode(bytes.as_slice()).expect("request").metadata == "m")
    );
    // As often as one likes.
    assert_eq!(
        call(&world, "CreateRoom", &create, json!({"name": "hall"}))
            .await
            .status,
        200
    );
    let list = lab(json!({"roomList": true}));
    let address = world.http;
    let named = async |names: Value| {
        let answer = Request::new(address, "POST", "/twirp/livekit.RoomService/ListRooms")
            .bearer(&list)
            .json(&names)
            .send()
            .await;
        answer.json()["rooms"].as_array().map_or(0, Vec::len)
    };
    eventually("the room is listed", async || named(json!({})).await == 1).await;
    assert_eq!(
        (
            named(json!({"names": ["hall"]})).await,
            named(json!({"names": ["other"]})).await
        ),
        (1, 0)
    );
    world.node().answer_admin(AdminResponse::default());
    assert_eq!(
        call(&world, "DeleteRoom", &create, json!({"room": "hall"}))
            .await
            .status,
        200
    );
    assert_eq!(
        failure(&call(&world, "DeleteRoom", &create, json!({"room": "nowhere"})).await),
        (404, "not_found".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protobuf_is_answered_in_protobuf() {
    let world = World::start().await;
    connect(
        world.http,
        &format!("access_token={}", lab_join("room", "anna")),
    )
    .await
    .expect("joined");
    let info = proto::ParticipantInfo {
        identity: "anna".into(),
        ..proto::ParticipantInfo::default()
    };
    world.node().answer_admin(AdminResponse {
        response: info.encode_to_vec(),
        ..AdminResponse::default()
    });
    let request = proto::RoomParticipantIdentity {
        room: "room".into(),
        identity: "anna".into(),
        ..proto::RoomParticipantIdentity::default()
    };
    let admin = lab(json!({"roomAdmin": true, "room": "room"}));
    let answer = Request::new(
        world.http,
        "POST",
        "/twirp/livekit.RoomService/GetParticipant",
    )
    .bearer(&admin)
    .body("application/protobuf", request.encode_to_vec())
    .send()
    .await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/protobuf"))
    );
    assert_eq!(
        proto::ParticipantInfo::decode(answer.body.as_slice())
            .expect("info")
            .identity,
        "anna"
    );
    let sent = world
        .node()
        .admin
        .lock()
        .expect("lock")
        .last()
        .cloned()
        .expect("asked");
    assert_eq!(
        sent.actor_identity, "",
        "the tenant's backend is the API itself"
    );
    assert_eq!(
        sent.call,
        Some(Call::GetParticipant(request.encode_to_vec()))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_method_asks_for_its_grant() {
    let world = World::start().await;
    connect(
        world.http,
        &format!("access_token={}", lab_join("room", "anna")),
    )
    .await
    .expect("joined");
    let nothing = lab(json!({}));
    let room = json!({"room": "room", "identity": "anna", "name": "room"});
    let all = [
        "CreateRoom",
        "ListRooms",
        "DeleteRoom",
        "ListParticipants",
        "GetParticipant",
        "RemoveParticipant",
        "MutePublishedTrack",
        "UpdateParticipant",
        "UpdateSubscriptions",
        "SendData",
        "UpdateRoomMetadata",
    ];
    for method in all {
        assert_eq!(
            failure(&call(&world, method, &nothing, room.clone()).await),
            (403, "permission_denied".to_owned()),
            "{method}"
        );
        let unknown = Request::new(
            world.http,
            "POST",
            &format!("/twirp/livekit.RoomService/{method}"),
        )
        .json(&room)
        .send()
        .await;
        assert_eq!(
            failure(&unknown),
            (401, "unauthenticated".to_owned()),
            "{method}"
        );
    }
    let other = lab(json!({"roomAdmin": true, "room": "other"}));
    for method in &all[3..] {
        assert_eq!(
            failure(&call(&world, method, &other, room.clone()).await),
            (403, "permission_denied".to_owned()),
            "{method} in another room"
        );
    }
    let admin = lab(json!({"roomAdmin": true, "room": "room"}));
    for method in &all[3..] {
        assert_eq!(
            call(&world, method, &admin, room.clone()).await.status,
            200,
            "{method}"
        );
    }
    assert!(
        world.node().admin.lock().expect("lock").len() == all[3..].len(),
        "only what was granted reached the node"
    );
    // A tenant's key speaks of that tenant's rooms only.
    let foreign = token(
        "town-key",
        TOWN_SECRET,
        json!({"video": {"roomAdmin": true, "room": "room"}}),
    );
    assert_eq!(
        failure(&call(&world, "ListParticipants", &foreign, room.clone()).await),
        (404, "not_found".to_owned())
    );
    let forbidden = token(
        "town-key",
        TOWN_SECRET,
        json!({"video": {"roomCreate": true}}),
    );
    assert_eq!(
        failure(&call(&world, "CreateRoom", &forbidden, room).await),
        (403, "permission_denied".to_owned()),
        "ad hoc is forbidden there"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moderator_inside_acts_under_their_own_name() {
    let world = World::start().await;
    let (token, _opener) = world.opened(COUNCIL).await;
    let body = json!({"room": "council", "identity": "g_1", "trackSid": "TR_1", "muted": true});
    for method in [
        "MutePublishedTrack",
        "RemoveParticipant",
        "UpdateParticipant",
    ] {
        assert_eq!(
            call(&world, method, &token, body.clone()).await.status,
            200,
            "{method}"
        );
        let sent = world
            .node()
            .admin
            .lock()
            .expect("lock")
            .last()
            .cloned()
            .expect("asked");
        assert!(sent.actor_identity.starts_with("o_"), "{method}");
    }
    let before = world.node().admin.lock().expect("lock").len();
    for method in [
        "SendData",
        "UpdateRoomMetadata",
        "UpdateSubscriptions",
        "DeleteRoom",
        "CreateRoom",
        "ListRooms",
    ] {
        assert_eq!(
            failure(
                &call(
                    &world,
                    method,
                    &token,
                    json!({"room": "council", "name": "council"})
                )
                .await
            )
            .0,
            403,
            "{method}"
        );
    }
    assert_eq!(world.node().admin.lock().expect("lock").len(), before);
    for (reason, code) in [
        ("PermissionDenied", "permission_denied"),
        ("NotFound", "not_found"),
        ("InvalidArgument", "invalid_argument"),
    ] {
        world.node().answer_admin(AdminResponse {
            refused: reason.into(),
            message: "no".into(),
            ..AdminResponse::default()
        });
        assert_eq!(
            failure(&call(&world, "RemoveParticipant", &token, body.clone()).await).1,
            code
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_said_in_twirps_words() {
    let world = World::start().await;
    let token = lab(json!({"roomList": true}));
    let post = async |path: &str, kind: &str, body: &str| {
        failure(
            &Request::new(world.http, "POST", path)
                .bearer(&token)
                .body(kind, body.into())
                .send()
                .await,
        )
    };
    assert_eq!(
        post("/twirp/livekit.Egress/ListEgress", "application/json", "{}").await,
        (501, "unimplemented".to_owned())
    );
    assert_eq!(
        post(
            "/twirp/livekit.RoomService/MoveParticipant",
            "application/json",
            "{}"
        )
        .await,
        (501, "unimplemented".to_owned())
    );
    assert_eq!(
        post(
            "/twirp/livekit.RoomService/Nothing",
            "application/json",
            "{}"
        )
        .await,
        (404, "bad_route".to_owned())
    );
    assert_eq!(
        post("/twirp/other.Service/Nothing", "application/json", "{}").await,
        (404, "bad_route".to_owned())
    );
    assert_eq!(
        post("/twirp/livekit.RoomService/ListRooms", "text/plain", "{}").await,
        (404, "bad_route".to_owned())
    );
    assert_eq!(
        post(
            "/twirp/livekit.RoomService/ListRooms",
            "application/json",
            "{"
        )
        .await,
        (400, "malformed".to_owned())
    );
    assert_eq!(
        post(
            "/twirp/livekit.RoomService/ListRooms",
            "application/protobuf",
            "\u{7f}\u{7f}\u{7f}"
        )
        .await,
        (400, "malformed".to_owned())
    );
    let get = Request::new(world.http, "GET", "/twirp/livekit.RoomService/ListRooms")
        .bearer(&token)
        .send()
        .await;
    assert_eq!(failure(&get), (404, "bad_route".to_owned()));
}

// SPDX-License-Identifier: EUPL-1.2
//! A tenant that has used up what it may: every way in says which limit it was, in the form its clients read.

use plenum_proto::v1::publication::Item;
use plenum_proto::v1::{Limits, TenantRecord};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::Request;
use crate::rtc::connect;
use crate::world::{
    COUNCIL, LAB_SECRET, OPENER_KEY, World, eventually, lab, lab_join, token, town,
};

fn limited(tenant: TenantRecord, participants: u32, rooms: u32) -> Item {
    Item::Tenant(TenantRecord {
        revision: "limited".into(),
        limits: Some(Limits {
            participants: Some(participants),
            concurrent_rooms: Some(rooms),
            ..Limits::default()
        }),
        ..tenant
    })
}

/// Publishes and waits until it holds.
async fn publish(world: &World, item: Item, tenant: &str) {
    world.publish(item).await;
    let name = control_core::ids::TenantName::parse(tenant).expect("name");
    eventually("the limits are known", async || {
        let view = world.plane.view();
        view.tenant(&name)
            .is_some_and(|tenant| tenant.revision == "limited")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_over_the_limit_is_told_which_limit_it_is() {
    let world = World::start().await;
    publish(&world, limited(lab(), 1, 5), "lab").await;
    let path = |identity: &str| format!("access_token={}", lab_join("room", identity));
    let _first = connect(world.http, &path("anna")).await.expect("one may");
    let no = connect(world.http, &path("berta"))
        .await
        .err()
        .expect("one is all");
    assert_eq!(no.status, 503, "{no:?}");
    assert!(no.retry_after.is_some());
    assert!(no.text.contains("TenantParticipants"), "{no:?}");

    // The library for browsers sees nothing of that answer. It asks why, and reads the status and its phrase.
    let mut socket = TcpStream::connect(world.http).await.expect("connected");
    let ask = format!(
        "GET /rtc/validate?{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        path("berta")
    );
    socket.write_all(ask.as_bytes()).await.expect("written");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("read");
    assert!(
        answer.starts_with("HTTP/1.1 503 TenantParticipants\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("plenum-reason: TenantParticipants\r\n"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_room_service_names_the_limit_and_its_numbers() {
    let world = World::start().await;
    publish(&world, limited(lab(), 5, 1), "lab").await;
    let create = async |name: &str| {
        let may = token(
            "lab-key",
            LAB_SECRET,
            json!({"video": {"roomCreate": true}}),
        );
        Request::new(world.http, "POST", "/twirp/livekit.RoomService/CreateRoom")
            .bearer(&may)
            .json(&json!({"name": name}))
            .send()
            .await
    };
    assert_eq!(create("one").await.status, 200);
    let no = create("two").await;
    assert_eq!(no.status, 429);
    assert_eq!(no.header("plenum-reason"), Some("TenantRooms"));
    assert_eq!(no.json()["code"], "resource_exhausted");
    assert_eq!(
        no.json()["meta"],
        json!({"reason": "TenantRooms", "limit": "TenantRooms", "used": "1", "max": "1"})
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_door_says_what_is_short_and_lets_in_when_it_is_not_any_more() {
    let world = World::start().await;
    publish(&world, limited(town(), 50, 0), "musterstadt").await;
    let mut opener = world
        .enter(
            COUNCIL,
            &json!({"name": "Vorsitz", "openerKey": OPENER_KEY}),
        )
        .await;
    assert_eq!(
        opener.expect("waiting").await,
        json!({"reason": "NoCapacity", "limit": "TenantRooms"})
    );
    world.publish(Item::Tenant(town())).await;
    opener.expect("admitted").await;
}

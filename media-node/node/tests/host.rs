// SPDX-License-Identifier: EUPL-1.2
//! The RoomHost service as a control plane uses it: lobby, administration, resume, ends.

mod world;

use std::net::{IpAddr, Ipv4Addr};

use livekit_protocol as livekit;
use media_core::io::Protocol;
use plenum_load::headless::Source;
use plenum_proto::v1::admin_request::Call as Admin;
use plenum_proto::v1::knock_update::Item as Knock;
use plenum_proto::v1::node_report::Item as Report;
use plenum_proto::v1::session_down::Item as Down;
use plenum_proto::v1::{
    AdminRequest, AdminResponse, ChatRule, KnockRequest, LobbyDecision, LobbyRule, OpenRequest,
    Permission, Role, RoomPolicy, SessionStart,
};
use prost::Message;
use tonic::Code;
use world::{
    Call, Session, Setting, World, act_until, eventually, key, policy, scrape_text, session_start,
};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A declared conference whose guests wait in the lobby.
fn council() -> RoomPolicy {
    let permission = |role: Role, moderate: bool| Permission {
        role: role as i32,
        microphone: true,
        camera: true,
        screen_share: moderate,
        chat: ChatRule::ChatEveryone as i32,
        moderate,
        record: false,
        enter_muted: false,
    };
    RoomPolicy {
        declared: true,
        lobby: LobbyRule::LobbyGuests as i32,
        permissions: vec![
            permission(Role::Moderator, true),
            permission(Role::Guest, false),
        ],
        ..policy()
    }
}

fn chair() -> SessionStart {
    SessionStart {
        role: Role::Moderator as i32,
        opener: true,
        ..session_start("council", 1, "chair")
    }
}

fn guest() -> SessionStart {
    SessionStart {
        role: Role::Guest as i32,
        guest: true,
        ..session_start("council", 1, "g_1")
    }
}

async fn admin(call: &Call, actor: &str, what: Admin) -> AdminResponse {
    let request = AdminRequest {
        key: Some(key("council")),
        epoch: 1,
        actor_identity: actor.into(),
        call: Some(what),
    };
    call.client
        .clone()
        .admin(request)
        .await
        .expect("an answer")
        .into_inner()
}

async fn council_world() -> (World, Call) {
    let world = World::start(Setting::default()).await;
    let call = world.call().await;
    let request = OpenRequest {
        key: Some(key("council")),
        epoch: 1,
        policy: Some(council()),
        facts: None,
    };
    call.client.clone().open(request).await.expect("opened");
    (world, call)
}

async fn refused(person: &mut Session) -> String {
    let mut reason = None;
    eventually("refused", async || {
        if let Some(Down::Refused(refused)) = person.ending() {
            reason = Some(refused.reason);
        }
        reason.is_some()
    })
    .await;
    reason.expect("set")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_knocks_waits_is_admitted_and_meets_the_chair() {
    let (world, call) = council_world().await;
    let mut early = call.join(guest(), LOCALHOST, Protocol::Udp).await;
    assert_eq!(
        refused(&mut early).await,
        "NotOpened",
        "nobody but an opener opens"
    );

    let mut people = vec![call.join(chair(), LOCALHOST, Protocol::Udp).await];
    people[0].publish(Source::Microphone);
    act_until("the chair is in", &mut people, |people| {
        people[0].driver.client().sid().is_some()
    })
    .await;
    eventually("opened is a fact", async || {
        world.plane.reports().iter().any(|report| {
            matches!(report, Report::Room(room) if room.facts.as_ref().is_some_and(|facts| facts.opened))
        })
    })
    .await;

    let knock = |id: &str| KnockRequest {
        key: Some(key("council")),
        epoch: 1,
        entry_id: id.into(),
        name: "Guest".into(),
        guest: true,
        role: Role::Guest as i32,
    };
    let mut first = call
        .client
        .clone()
        .knock(knock("g_1"))
        .await
        .expect("knocks")
        .into_inner();
    assert_eq!(
        first.message().await.expect("news").expect("news").item,
        Some(Knock::Position(1))
    );
    let mut second = call
        .client
        .clone()
        .knock(knock("g_2"))
        .await
        .expect("knocks")
        .into_inner();
    assert_eq!(
        second.message().await.expect("news").expect("news").item,
        Some(Knock::Position(2))
    );

    let decision = LobbyDecision {
        admit: vec!["g_1".into()],
        deny: vec!["g_2".into()],
        admit_all: false,
    };
    let answer = admin(&call, "g_1", Admin::Lobby(decision.clone())).await;
    assert_eq!(
        answer.refused, "PermissionDenied",
        "who waits decides nothing"
    );
    assert_eq!(
        admin(&call, "chair", Admin::Lobby(decision)).await.refused,
        ""
    );
    let last = async |stream: &mut tonic::Streaming<plenum_proto::v1::KnockUpdate>| {
        let mut last = None;
        while let Some(update) = stream.message().await.expect("news") {
            last = update.item;
        }
        last
    };
    assert_eq!(last(&mut first).await, Some(Knock::Admitted(true)));
    assert_eq!(
        last(&mut second).await,
        Some(Knock::Refused("Denied".into()))
    );

    let mut admitted = call.join(guest(), LOCALHOST, Protocol::Udp).await;
    admitted.publish(Source::Microphone);
    people.push(admitted);
    act_until("they hear each other", &mut people, |people| {
        people.iter_mut().all(|person| person.received(1) >= 10)
    })
    .await;

    let answer = admin(
        &call,
        "",
        Admin::ListParticipants(livekit::ListParticipantsRequest::default().encode_to_vec()),
    )
    .await;
    let list =
        livekit::ListParticipantsResponse::decode(answer.response.as_slice()).expect("a response");
    let mut identities: Vec<String> = list
        .participants
        .into_iter()
        .map(|participant| participant.identity)
        .collect();
    identities.sort();
    assert_eq!(identities, ["chair", "g_1"]);

    let remove = livekit::RoomParticipantIdentity {
        room: "council".into(),
        identity: "g_1".into(),
        ..Default::default()
    };
    assert_eq!(
        admin(
            &call,
            "chair",
            Admin::RemoveParticipant(remove.encode_to_vec())
        )
        .await
        .refused,
        ""
    );
    act_until("the guest is out", &mut people, |people| {
        people[1].left.is_some()
    })
    .await;
    let mut again = call.join(guest(), LOCALHOST, Protocol::Udp).await;
    assert_eq!(
        refused(&mut again).await,
        "Revoked",
        "the same token opens nothing any more"
    );
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_for_all_ends_sessions_and_the_room() {
    let (world, call) = council_world().await;
    let mut people = vec![call.join(chair(), LOCALHOST, Protocol::Udp).await];
    act_until("the chair is in", &mut people, |people| {
        people[0].driver.client().sid().is_some()
    })
    .await;
    assert_eq!(admin(&call, "chair", Admin::End(true)).await.refused, "");
    act_until("everybody leaves", &mut people, |people| {
        people[0].left.is_some()
    })
    .await;
    eventually("the WebSocket is closed", async || {
        matches!(people[0].ending(), Some(Down::Close(_)))
    })
    .await;
    eventually("and reported", async || {
        world.plane.reports().iter().any(
            |report| matches!(report, Report::Closed(closed) if closed.key == Some(key("council"))),
        )
    })
    .await;
    let request = AdminRequest {
        key: Some(key("council")),
        epoch: 1,
        call: Some(Admin::End(true)),
        ..Default::default()
    };
    assert_eq!(
        call.client
            .clone()
            .admin(request)
            .await
            .expect_err("gone")
            .code(),
        Code::NotFound
    );
    let mut late = call.join(chair(), LOCALHOST, Protocol::Udp).await;
    assert_eq!(refused(&mut late).await, "Unknown");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_flow_on_while_the_websocket_is_cut_and_resumed() {
    let world = World::start(Setting::default()).await;
    let call = world.call().await;
    call.open("a", 1, None).await.expect("opened");
    let mut people = Vec::new();
    for identity in ["alice", "bob"] {
        let mut person = call
            .join(session_start("a", 1, identity), LOCALHOST, Protocol::Udp)
            .await;
        person.publish(Source::Microphone);
        people.push(person);
    }
    act_until("they meet", &mut people, |people| {
        people.iter_mut().all(|person| person.received(1) >= 10)
    })
    .await;

    // A replica that has just started knows the node by the SID, and not yet the room with its epoch.
    for known in [1, 0] {
        people[0].cut();
        let before = people[0].received(1);
        act_until("alice hears on without signalling", &mut people, |people| {
            people[0].received(1) >= before + 20
        })
        .await;
        let sid = people[0].driver.client().sid().expect("in").to_owned();
        let resume = SessionStart {
            reconnect: true,
            participant_sid: sid,
            ..session_start("a", known, "alice")
        };
        people[0].resumed = false;
        call.resume(&mut people[0], resume).await;
        act_until("the resume is accepted", &mut people, |people| {
            people[0].resumed
        })
        .await;
        let (alice, bob) = (people[0].received(1), people[1].received(1));
        act_until("both hear on", &mut people, |people| {
            people[0].received(1) >= alice + 20 && people[1].received(1) >= bob + 20
        })
        .await;
    }
    // Nobody joins so: a join needs the lease.
    let mut stranger = call
        .join(session_start("a", 0, "stranger"), LOCALHOST, Protocol::Udp)
        .await;
    assert_eq!(refused(&mut stranger).await, "WrongEpoch");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_series_that_the_documentation_names_exists() {
    let world = World::start(Setting::default()).await;
    let text = scrape_text(world.node.metrics_address().expect("metrics")).await;
    let page = include_str!("../../../docs/media-node.md");
    let section = page
        .split("## Metrics")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .expect("the section");
    let names: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with('|'))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .flat_map(|span| span.split(" / "))
        .map(|series| series.split('{').next().unwrap_or(series))
        .filter(|name| !name.contains('='))
        .collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let series = text
            .lines()
            .any(|line| line.starts_with(&format!("plenum_media_{name}")));
        assert!(series || text.contains(&format!("=\"{name}\"")), "{name}");
    }
    assert!(
        text.contains("plenum_media_shard_socket_buffer_bytes{shard=\"0\",direction=\"receive\"}")
    );
    assert!(text.contains("reason=\"receive_buffer_full\""));
    world.node.stop().await;
}

// SPDX-License-Identifier: EUPL-1.2
//! Rooms and shards together: headless clients meet, in virtual time, with real DTLS and SRTP.

mod rooms;

use std::time::Duration;

use livekit_protocol as proto;
use livekit_protocol::data_packet::Value;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use media_core::ids::{ExtSeq, PayloadType, Ssrc};
use media_core::shard::DropReason;
use media_room::api::{AdminCall, Facts, JoinRefusal, KnockUpdate, LobbyRule, Role};
use media_room::counters::Dropped;
use plenum_load::headless::{Event, Source};
use prost::Message as _;
use rooms::{World, ad_hoc, declared, start};

fn second() -> Duration {
    Duration::from_secs(1)
}

fn two(world: &mut World) -> (usize, usize) {
    world.add_node(ad_hoc(), Facts::default());
    let anna = world.add_person(start("anna", None, false));
    let ben = world.add_person(start("ben", None, false));
    for person in [anna, ben] {
        world.join(person, 0);
        world.run_for(second());
    }
    (anna, ben)
}

/// A declared conference with a moderator, a participant and a guest, all inside with open channels.
fn council(world: &mut World) -> [usize; 3] {
    world.add_node(declared(LobbyRule::Off), Facts::default());
    let people = [
        world.add_person(start("mona", Some(Role::Moderator), true)),
        world.add_person(start("paul", Some(Role::Participant), false)),
        world.add_person(start("g_eve", Some(Role::Guest), false)),
    ];
    for person in people {
        world.join(person, 0);
        world.people[person].client.publish(Source::Microphone);
        world.run_for(second());
    }
    world.run_for(second());
    people
}

fn topics(world: &World, person: usize) -> Vec<String> {
    world.people[person]
        .data()
        .into_iter()
        .filter_map(|packet| match packet.value {
            Some(Value::User(user)) => user.topic,
            Some(Value::StreamHeader(header)) => Some(header.topic),
            Some(Value::StreamChunk(chunk)) => Some(format!("chunk of {}", chunk.stream_id)),
            Some(Value::ChatMessage(_)) => Some("chat message".into()),
            _ => None,
        })
        .collect()
}

#[test]
fn two_clients_hear_and_see_each_other() {
    let mut world = World::new(1);
    let (anna, ben) = two(&mut world);
    for person in [anna, ben] {
        world.people[person].client.publish(Source::Microphone);
        world.people[person].client.publish(Source::Camera);
    }
    world.run_for(second() * 2);
    world.talk(&[anna, ben], 50);
    for person in [anna, ben] {
        let connected = world.people[person]
            .events
            .iter()
            .filter(|event| matches!(event, Event::Connected(..)))
            .count();
        assert_eq!(connected, 2, "both connections stand");
        let received = world.people[person].client.received();
        assert_eq!(received.len(), 2, "two tracks of the other: {received:?}");
        assert!(
            received
                .iter()
                .all(|(track, counters)| track.starts_with("TR_") && counters.packets >= 45),
            "{received:?}"
        );
    }
    assert_eq!(world.nodes[0].leaked, 0);
}

#[test]
fn whoever_comes_late_gets_what_is_there() {
    let mut world = World::new(2);
    let (anna, ben) = two(&mut world);
    world.people[anna].client.publish(Source::Microphone);
    world.people[anna].client.publish(Source::Camera);
    world.run_for(second());
    let carl = world.add_person(start("carl", None, false));
    world.join(carl, 0);
    world.run_for(second());
    world.talk(&[anna], 20);
    assert_eq!(world.people[carl].client.received().len(), 2);
    assert!(world.people[carl].packets() >= 36 && world.people[ben].packets() >= 36);
}

#[test]
fn a_broken_websocket_costs_no_packet() {
    let mut world = World::new(3);
    let (anna, ben) = two(&mut world);
    world.people[anna].client.publish(Source::Microphone);
    world.run_for(second());
    world.talk(&[anna], 10);
    let before = world.people[ben].packets();
    world.cut(anna);
    world.talk(&[anna], 50);
    world.resume(anna);
    world.talk(&[anna], 50);
    assert_eq!(
        world.people[ben].packets() - before,
        100,
        "every frame while signalling was away and after it came back"
    );
    assert!(
        world.people[anna]
            .events
            .iter()
            .any(|event| matches!(event, Event::Reconnected(_)))
    );
}

#[test]
fn who_does_not_come_back_is_gone_after_two_minutes_and_not_before() {
    let mut world = World::new(4);
    let (anna, ben) = two(&mut world);
    world.cut(anna);
    world.run_for(second() * 118);
    let gone = |world: &World| {
        world.people[ben].signals(|message| match message {
            Response::Update(update) => Some(update.participants.iter().any(|other| {
                other.identity == "anna"
                    && other.state == proto::participant_info::State::Disconnected as i32
            })),
            _ => None,
        })
    };
    assert!(!gone(&world).contains(&true));
    world.run_for(second() * 4);
    assert!(gone(&world).contains(&true));
}

#[test]
fn a_muted_track_passes_nothing_whatever_its_publisher_sends() {
    let mut world = World::new(5);
    let [mona, paul, eve] = council(&mut world);
    world.talk(&[paul], 10);
    let before = world.people[mona].packets();
    assert_eq!(before, 10);
    let sid = world.people[paul].client.tracks()[0]
        .sid
        .clone()
        .expect("published");
    let mute = |sid: String| {
        AdminCall::MutePublishedTrack(
            proto::MuteRoomTrackRequest {
                identity: "paul".into(),
                track_sid: sid,
                muted: true,
                ..Default::default()
            }
            .encode_to_vec(),
        )
    };
    world
        .admin(0, Some("g_eve"), mute(sid.clone()))
        .expect_err("a guest mutes nobody");
    world.talk(&[paul], 10);
    assert_eq!(world.people[mona].packets(), before + 10);
    world
        .admin(0, Some("mona"), mute(sid.clone()))
        .expect("a moderator does");
    world.talk(&[paul], 10);
    assert_eq!(
        world.people[mona].packets(),
        before + 10,
        "paul goes on sending, and nothing passes"
    );
    world.people[paul]
        .client
        .request(Request::Mute(proto::MuteTrackRequest { sid, muted: false }));
    world.pump();
    world.talk(&[paul], 10);
    assert_eq!(
        world.people[mona].packets(),
        before + 20,
        "he may unmute himself"
    );
    assert_eq!(world.people[eve].packets(), world.people[mona].packets());
}

#[test]
fn a_removed_participant_is_cut_off_and_its_token_is_dead() {
    let mut world = World::new(6);
    let [mona, _, eve] = council(&mut world);
    let remove = proto::RoomParticipantIdentity {
        identity: "g_eve".into(),
        ..Default::default()
    };
    world
        .admin(
            0,
            Some("mona"),
            AdminCall::RemoveParticipant(remove.encode_to_vec()),
        )
        .expect("removed");
    assert_eq!(
        world.people[eve].left().map(|leave| leave.reason),
        Some(proto::DisconnectReason::ParticipantRemoved as i32)
    );
    let before = world.people[mona].packets();
    world.talk(&[eve], 10);
    assert_eq!(world.people[mona].packets(), before);
    world.join(eve, 0);
    assert_eq!(world.people[eve].refused, Some(JoinRefusal::Revoked));
    // A later token is another matter.
    world.people[eve].start.token_issued_unix_s += 3600;
    world.join(eve, 0);
    assert_eq!(world.people[eve].refused, None);
}

#[test]
fn a_forged_source_gets_nothing_through() {
    let mut world = World::new(7);
    let [mona, _, eve] = council(&mut world);
    let before = world.people[mona].packets();
    let tracks = world.people[mona].client.received().len();
    // A guest may not share a screen: the request is refused, and what it offers all the same is declared to nobody.
    world.people[eve].client.publish(Source::ScreenShare);
    world.run_for(second());
    let refused = world.people[eve].signals(|message| match message {
        Response::RequestResponse(response) => Some(response.reason),
        _ => None,
    });
    assert_eq!(
        refused,
        [proto::request_response::Reason::NotAllowed as i32]
    );
    let cid = world.people[eve].client.tracks()[1].offered.cid.clone();
    for frame in 0..20 {
        world.people[eve]
            .client
            .send_frame(&cid, 0, frame * 1800, &[7; 500]);
        world.run_for(Duration::from_millis(20));
    }
    assert_eq!(world.people[mona].packets(), before);
    assert!(
        world.nodes[0]
            .shard
            .counters()
            .dropped(DropReason::UndeclaredSource)
            > 0
    );
    // A microphone that carries video.
    world.people[eve]
        .client
        .request(Request::AddTrack(proto::AddTrackRequest {
            cid,
            r#type: proto::TrackType::Video as i32,
            source: proto::TrackSource::Microphone as i32,
            ..Default::default()
        }));
    world.run_for(second());
    assert_eq!(world.people[mona].client.received().len(), tracks);
}

#[test]
fn an_undeclared_stream_gets_nothing_through() {
    let mut world = World::new(8);
    let [mona, _, eve] = council(&mut world);
    let before = world.people[mona].packets();
    let leg = world.people[eve].client.publisher().expect("a connection");
    for number in 0..20_u16 {
        // RTP with a payload type of Opus under an SSRC that no description names, without a mid.
        let mut packet = vec![0x80, 111];
        packet.extend(number.to_be_bytes());
        packet.extend((u32::from(number) * 960).to_be_bytes());
        packet.extend(0xdead_beef_u32.to_be_bytes());
        packet.extend([1; 60]);
        assert!(leg.send_raw_rtp(ExtSeq(u64::from(number)), &packet));
    }
    assert!(leg.send_rtp(Ssrc(0xfeed), PayloadType(111), 0, false, &[], &[1; 40]));
    world.run_for(second());
    assert_eq!(world.people[mona].packets(), before);
    assert!(
        world.nodes[0]
            .shard
            .counters()
            .dropped(DropReason::UndeclaredSource)
            >= 20
    );
}

#[test]
fn chat_of_guests_reaches_moderators_only() {
    let mut world = World::new(9);
    let [mona, paul, eve] = council(&mut world);
    for topic in ["lk-chat-topic", "lk.chat"] {
        world.say(eve, Some(topic), "psst");
    }
    let chat = proto::DataPacket {
        value: Some(Value::ChatMessage(proto::ChatMessage {
            id: "1".into(),
            message: "psst".into(),
            ..Default::default()
        })),
        destination_identities: vec!["paul".into()],
        ..Default::default()
    };
    world.send(eve, &chat);
    let header = |topic: &str, stream_id: &str| proto::DataPacket {
        value: Some(Value::StreamHeader(proto::data_stream::Header {
            stream_id: stream_id.into(),
            topic: topic.into(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let chunk = |stream_id: &str| proto::DataPacket {
        value: Some(Value::StreamChunk(proto::data_stream::Chunk {
            stream_id: stream_id.into(),
            ..Default::default()
        })),
        ..Default::default()
    };
    for packet in [
        header("lk.chat", "s1"),
        chunk("s1"),
        header("files", "s2"),
        chunk("s2"),
        chunk("never announced"),
    ] {
        world.send(eve, &packet);
    }
    world.say(eve, Some("reaction"), "wave");
    let of_moderator: Vec<String> = topics(&world, mona)
        .into_iter()
        .filter(|topic| topic != "plenum.lobby")
        .collect();
    assert_eq!(
        of_moderator,
        [
            "lk-chat-topic",
            "lk.chat",
            "chat message",
            "lk.chat",
            "chunk of s1",
            "files",
            "chunk of s2",
            "chunk of never announced",
            "reaction"
        ]
    );
    assert_eq!(topics(&world, paul), ["files", "chunk of s2", "reaction"]);
    world.say(mona, Some("lk.chat"), "hello all");
    assert_eq!(
        topics(&world, paul).last().map(String::as_str),
        Some("lk.chat")
    );
    assert_eq!(topics(&world, eve), ["lk.chat"]);
}

#[test]
fn the_servers_topics_are_not_for_clients_and_senders_cannot_be_forged() {
    let mut world = World::new(10);
    let [mona, paul, eve] = council(&mut world);
    world.say(eve, Some("plenum.lobby"), "{\"entries\":[{\"id\":\"x\"}]}");
    let mut forged = proto::DataPacket {
        value: Some(Value::User(proto::UserPacket {
            payload: b"hi".to_vec(),
            topic: Some("t".into()),
            ..Default::default()
        })),
        participant_identity: "mona".into(),
        participant_sid: "PA_x".into(),
        ..Default::default()
    };
    world.send(eve, &forged);
    forged.value = Some(Value::Transcription(proto::Transcription::default()));
    world.send(eve, &forged);
    assert_eq!(topics(&world, paul), ["t"]);
    let eve_sid = world.people[eve].client.sid().expect("joined").to_owned();
    let packet = world.people[paul].data().pop().expect("a packet");
    assert_eq!(
        (
            packet.participant_identity.as_str(),
            packet.participant_sid.as_str()
        ),
        ("g_eve", eve_sid.as_str())
    );
    assert!(
        topics(&world, mona)
            .iter()
            .filter(|topic| *topic == "plenum.lobby")
            .count()
            <= 1,
        "only the server's own list"
    );
    assert!(
        world.nodes[0]
            .room
            .counters()
            .dropped(Dropped::DataNotAllowed)
            >= 2
    );
}

#[test]
fn moderators_see_the_lobby_and_let_people_in() {
    let mut world = World::new(11);
    world.add_node(declared(LobbyRule::Guests), Facts::default());
    let mona = world.add_person(start("mona", Some(Role::Moderator), true));
    let eve = world.add_person(start("g_eve", Some(Role::Guest), false));
    let early = world.knock(0, "g_eve", true);
    assert_eq!(
        world.nodes[0].knocks[&early.0],
        [KnockUpdate::Position(1)],
        "before an opener everybody waits"
    );
    world.join(mona, 0);
    world.run_for(second());
    let list = |world: &World| {
        let packet = world.people[mona]
            .data()
            .into_iter()
            .rev()
            .find_map(|packet| match packet.value {
                Some(Value::User(user)) if user.topic.as_deref() == Some("plenum.lobby") => {
                    Some(user.payload)
                }
                _ => None,
            });
        let json: serde_json::Value =
            serde_json::from_slice(&packet.expect("a list")).expect("JSON");
        json["entries"]
            .as_array()
            .expect("entries")
            .iter()
            .map(|entry| entry["id"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(list(&world), ["g_eve"], "sent on joining");
    world.join(eve, 0);
    assert_eq!(world.people[eve].refused, Some(JoinRefusal::NotAdmitted));
    let second_knock = world.knock(0, "g_two", true);
    world.run_for(second());
    assert_eq!(list(&world), ["g_eve", "g_two"], "sent at each change");
    let decide = AdminCall::Lobby {
        admit: vec!["g_eve".into()],
        deny: vec!["g_two".into()],
        admit_all: false,
    };
    world.admin(0, Some("mona"), decide).expect("decided");
    world.run_for(second());
    assert!(list(&world).is_empty());
    assert_eq!(
        world.nodes[0].knocks[&early.0].last(),
        Some(&KnockUpdate::Admitted)
    );
    assert!(matches!(
        world.nodes[0].knocks[&second_knock.0].last(),
        Some(KnockUpdate::Refused(_))
    ));
    world.join(eve, 0);
    assert_eq!(world.people[eve].refused, None);
}

#[test]
fn a_small_wish_is_served_by_the_small_layer() {
    let mut world = World::new(12);
    let (anna, ben) = two(&mut world);
    let cid = world.people[anna].client.publish(Source::CameraSimulcast);
    world.run_for(second() * 2);
    let send = |world: &mut World, frames: u32, from: u32| {
        for frame in from..from + frames {
            for (layer, bytes) in [(0, 100), (1, 300), (2, 900)] {
                world.people[anna]
                    .client
                    .send_frame(&cid, layer, frame * 3000, &vec![3; bytes]);
            }
            world.run_for(Duration::from_millis(33));
        }
    };
    let bytes = |world: &World| {
        world.people[ben]
            .client
            .received()
            .values()
            .map(|counters| counters.bytes)
            .sum::<u64>()
    };
    send(&mut world, 60, 1);
    let sid = world.people[anna].client.tracks()[0]
        .sid
        .clone()
        .expect("published");
    let setting = proto::UpdateTrackSettings {
        track_sids: vec![sid],
        width: 320,
        height: 180,
        ..Default::default()
    };
    world.people[ben]
        .client
        .request(Request::TrackSetting(setting));
    world.pump();
    send(&mut world, 60, 61);
    let (before, packets) = (bytes(&world), world.people[ben].packets());
    send(&mut world, 30, 121);
    let mean = (bytes(&world) - before) / (world.people[ben].packets() - packets).max(1);
    assert!(
        world.people[ben].packets() - packets >= 29,
        "nothing freezes"
    );
    assert!(mean < 200, "mean of {mean} bytes: the layer of 100");
    // Nobody wants more: after a while the publisher is told so.
    world.run_for(second() * 6);
    let told = world.people[anna].signals(|message| match message {
        Response::SubscribedQualityUpdate(update) => {
            update.subscribed_codecs.first().map(|codec| {
                codec
                    .qualities
                    .iter()
                    .filter(|quality| quality.enabled)
                    .count()
            })
        }
        _ => None,
    });
    assert_eq!(told.first(), Some(&3));
    assert_eq!(told.last(), Some(&1));
}

#[test]
fn the_second_of_one_identity_replaces_the_first() {
    let mut world = World::new(13);
    let (anna, ben) = two(&mut world);
    let other = world.add_person(start("anna", None, false));
    world.join(other, 0);
    assert_eq!(
        world.people[anna]
            .left()
            .map(|leave| (leave.reason, leave.action)),
        Some((
            proto::DisconnectReason::DuplicateIdentity as i32,
            proto::leave_request::Action::Disconnect as i32
        ))
    );
    world.people[other].client.publish(Source::Microphone);
    world.run_for(second());
    world.talk(&[other], 10);
    assert_eq!(world.people[ben].packets(), 10);
    assert_eq!(
        world.nodes[0]
            .reports
            .last()
            .map(|report| report.participants),
        Some(2)
    );
}

#[test]
fn leaving_tells_the_others_and_frees_everything() {
    let mut world = World::new(14);
    let (anna, ben) = two(&mut world);
    world.people[anna].client.publish(Source::Microphone);
    world.run_for(second());
    let now = world.now;
    world.people[anna].client.leave(now);
    world.run_for(second());
    assert_eq!(
        world.nodes[0]
            .reports
            .last()
            .map(|report| (report.participants, report.publishers)),
        Some((1, 0))
    );
    let now = world.now;
    world.people[ben].client.leave(now);
    world.run_for(second() * 25);
    assert_eq!(world.nodes[0].ended, Some("Empty"));
    let events: Vec<&str> = world.nodes[0]
        .events
        .iter()
        .map(|(_, name)| *name)
        .collect();
    assert_eq!(events.first(), Some(&"room_started"));
    assert_eq!(events.last(), Some(&"room_finished"));
    let numbers: Vec<u64> = world.nodes[0].events.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(
        numbers,
        (1..=numbers.len() as u64).collect::<Vec<_>>(),
        "numbered without a gap"
    );
}

#[test]
fn ending_for_all_closes_the_door_again() {
    let mut world = World::new(15);
    let [mona, paul, eve] = council(&mut world);
    world
        .admin(0, Some("paul"), AdminCall::End)
        .expect_err("a participant ends nothing");
    world
        .admin(0, Some("mona"), AdminCall::End)
        .expect("a moderator does");
    for person in [mona, paul, eve] {
        assert!(world.people[person].closed);
    }
    let report = world.nodes[0].reports.last().expect("a report").clone();
    assert!(!report.facts.opened);
    // The next room of the conference begins closed.
    world.add_node(declared(LobbyRule::Off), report.facts);
    world.join(paul, 1);
    assert_eq!(world.people[paul].refused, Some(JoinRefusal::NotOpened));
}

#[test]
fn limits_are_exact() {
    let mut world = World::new(16);
    let mut policy = ad_hoc();
    policy.max_participants = 3;
    policy.max_publishers = 2;
    world.add_node(policy, Facts::default());
    let people: Vec<usize> = (0..4)
        .map(|number| world.add_person(start(&format!("p{number}"), None, false)))
        .collect();
    for person in &people {
        world.join(*person, 0);
    }
    let refused: Vec<_> = people
        .iter()
        .map(|person| world.people[*person].refused)
        .collect();
    assert_eq!(refused, [None, None, None, Some(JoinRefusal::RoomFull)]);
    for person in &people[..3] {
        world.people[*person].client.publish(Source::Microphone);
        world.run_for(second());
    }
    let limited = world.people[people[2]].signals(|message| match message {
        Response::RequestResponse(response) => Some(response.reason),
        _ => None,
    });
    assert_eq!(
        limited,
        [proto::request_response::Reason::LimitExceeded as i32]
    );
    assert_eq!(
        world.nodes[0]
            .reports
            .last()
            .map(|report| report.publishers),
        Some(2)
    );
    // Who is in may come again, full or not.
    world.join(people[1], 0);
    assert_eq!(world.people[people[1]].refused, None);
}

// SPDX-License-Identifier: EUPL-1.2
//! Rules of a room that a transcript alone would not explain.

mod script;

use std::time::Duration;

use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use media_core::api::{Channel, Codec, Command, Encoding, Event, Side};
use media_core::crypto::DtlsFailure;
use media_core::ids::{Ssrc, TransportId};
use media_room::api::{
    AdminCall, Facts, Frame, Input, JoinRefusal, LobbyRule, Output, Role, SessionId,
};
use media_room::sdp::Description;
use prost::Message as _;
use script::{
    Script, ad_hoc, answer_to, audio_section, camera, chromium_offer, declared, firefox_offer,
    microphone, offer_message, screen, start, text, video_section,
};

fn reasons(script: &mut Script, session: u64) -> Vec<proto::request_response::Reason> {
    script
        .take(session)
        .into_iter()
        .filter_map(|message| match message {
            Response::RequestResponse(response) => {
                proto::request_response::Reason::try_from(response.reason).ok()
            }
            _ => None,
        })
        .collect()
}

fn leave(script: &mut Script, session: u64) -> Option<proto::LeaveRequest> {
    script
        .take(session)
        .into_iter()
        .find_map(|message| match message {
            Response::Leave(leave) => Some(leave),
            _ => None,
        })
}

fn refusal(script: &Script) -> Option<JoinRefusal> {
    script.last.iter().find_map(|output| match output {
        Output::Refused { refusal, .. } => Some(*refusal),
        _ => None,
    })
}

#[test]
fn a_client_that_answers_no_offer_is_told_to_begin_anew() {
    let mut script = Script::new(ad_hoc());
    script.start(1, start("anna", None));
    script.pass(Duration::from_secs(19));
    assert_eq!(leave(&mut script, 1), None);
    script.pass(Duration::from_secs(2));
    let leave = leave(&mut script, 1).expect("a leave");
    assert_eq!(leave.action, proto::leave_request::Action::Reconnect as i32);
}

#[test]
fn a_client_without_a_media_path_does_not_stay_for_ever() {
    let mut script = Script::new(ad_hoc());
    script.start(1, start("anna", None));
    script.answer(1);
    script.pass(Duration::from_secs(59));
    assert_eq!(leave(&mut script, 1), None);
    script.pass(Duration::from_secs(2));
    assert_eq!(
        leave(&mut script, 1).map(|leave| leave.reason),
        Some(proto::DisconnectReason::ConnectionTimeout as i32)
    );
}

#[test]
fn a_client_without_gcm_is_told_that_media_fail() {
    let mut script = Script::new(ad_hoc());
    script.start(1, start("anna", None));
    script.answer(1);
    let transport = TransportId(script.transports(Side::Subscriber)[0]);
    script.media(Event::Failed {
        transport,
        failure: media_core::api::TransportFailure::Dtls(DtlsFailure::Profile),
    });
    let leave = leave(&mut script, 1).expect("a leave");
    assert_eq!(leave.reason, proto::DisconnectReason::MediaFailure as i32);
    assert_eq!(
        leave.action,
        proto::leave_request::Action::Disconnect as i32
    );
}

#[test]
fn text_frames_are_answered_in_text_until_binary_ones_come() {
    let mut script = Script::new(ad_hoc());
    let mut anna = start("anna", None);
    anna.text_frames = true;
    script.start(1, anna);
    let is_text = |script: &Script| {
        script
            .last
            .iter()
            .filter_map(|output| match output {
                Output::Frame { frame, .. } => Some(matches!(frame, Frame::Text(_))),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    assert!(is_text(&script).len() > 2 && is_text(&script).iter().all(|text| *text));
    let json = br#"{"pingReq":{"timestamp":"5"}}"#.to_vec();
    script.input(
        "json",
        Input::Frame {
            session: SessionId(1),
            frame: Frame::Text(json),
        },
    );
    assert_eq!(is_text(&script), [true]);
    script.request(
        1,
        Request::PingReq(proto::Ping {
            timestamp: 6,
            rtt: 0,
        }),
    );
    assert_eq!(is_text(&script), [false]);
}

#[test]
fn layers_of_a_sim_group_are_told_apart_by_ssrc() {
    let sdp = firefox_offer()
        .replace("a=simulcast:send f;h;q\r\n", "")
        .replace(
            "a=rid:f send\r\na=rid:h send\r\na=rid:q send\r\n",
            "a=ssrc-group:SIM 1001 1002 1003\r\n",
        );
    let offer = Description::parse(&sdp).expect("readable");
    let encoding = |ssrc, rtx| Encoding {
        rid: None,
        ssrc: Some(Ssrc(ssrc)),
        rtx_ssrc: Some(Ssrc(rtx)),
    };
    assert_eq!(
        offer.sections[1].encodings,
        [
            encoding(1001, 2001),
            encoding(1002, 2002),
            encoding(1003, 2003)
        ]
    );
}

#[test]
fn rids_are_ordered_from_low_to_high_whatever_the_browser_writes() {
    let offer = Description::parse(&firefox_offer()).expect("readable");
    let rids: Vec<_> = offer.sections[1]
        .encodings
        .iter()
        .filter_map(|encoding| encoding.rid.as_deref())
        .collect();
    assert_eq!(rids, ["q", "h", "f"]);
}

#[test]
fn the_codec_that_was_asked_for_is_answered_alone() {
    for (name, codec) in [
        ("vp8", Codec::Vp8),
        ("h264", Codec::H264),
        ("vp9", Codec::Vp9),
        ("av1", Codec::Av1),
    ] {
        let mut script = Script::new(ad_hoc());
        script.start(1, start("anna", None));
        script.request(1, camera("cam", name));
        script.request(
            1,
            offer_message(chromium_offer(1, 1, &[video_section("1", "cam")]), 1),
        );
        let published = script.commands.iter().find_map(|command| match command {
            Command::Publish(publication) => Some(
                publication
                    .payloads
                    .iter()
                    .map(|binding| binding.format.codec)
                    .collect::<Vec<_>>(),
            ),
            _ => None,
        });
        assert_eq!(published, Some(vec![codec]), "{name}");
    }
}

#[test]
fn a_tenants_list_of_codecs_holds_for_its_kind_alone() {
    let mut policy = ad_hoc();
    policy.codecs = vec!["vp9".into()];
    let mut script = Script::new(policy);
    script.start(1, start("anna", None));
    script.request(1, camera("cam", "vp8"));
    script.request(1, microphone("mic"));
    script.request(
        1,
        offer_message(
            chromium_offer(
                1,
                1,
                &[video_section("1", "cam"), audio_section("2", "mic")],
            ),
            1,
        ),
    );
    let codecs: Vec<_> = script
        .commands
        .iter()
        .filter_map(|command| match command {
            Command::Publish(publication) => Some(
                publication
                    .payloads
                    .iter()
                    .map(|binding| binding.format.codec)
                    .collect::<Vec<_>>(),
            ),
            _ => None,
        })
        .collect();
    assert!(
        codecs.contains(&vec![Codec::Vp9]),
        "VP8 was asked for and is not enabled: {codecs:?}"
    );
    assert!(
        codecs.contains(&vec![Codec::Red, Codec::Opus]),
        "{codecs:?}"
    );
}

#[test]
fn subscribers_without_red_are_bound_to_opus_alone() {
    let mut script = Script::new(ad_hoc());
    script.start(1, start("anna", None));
    script.answer(1);
    script.start(2, start("fox", None));
    script.answer(2);
    script.request(1, microphone("mic"));
    script.request(
        1,
        offer_message(chromium_offer(1, 1, &[audio_section("1", "mic")]), 1),
    );
    let offer = script.offer_of(2);
    let sdp = answer_to(&offer.sdp, 2)
        .replace("SAVPF 111 63", "SAVPF 111")
        .replace("a=rtpmap:63 red/48000/2\r\n", "")
        .replace("a=fmtp:63 111/111\r\n", "");
    script.request(
        2,
        Request::Answer(proto::SessionDescription {
            r#type: "answer".into(),
            sdp,
            id: offer.id,
            ..Default::default()
        }),
    );
    let bound = script.commands.iter().find_map(|command| match command {
        Command::Subscribe(subscription) => Some(
            subscription
                .payloads
                .iter()
                .map(|binding| binding.format.codec)
                .collect::<Vec<_>>(),
        ),
        _ => None,
    });
    assert_eq!(bound, Some(vec![Codec::Opus]));
}

#[test]
fn a_place_in_the_offer_is_reused_only_after_its_refusal_was_answered() {
    let mut script = Script::new(ad_hoc());
    script.start(1, start("anna", None));
    script.answer(1);
    script.start(2, start("ben", None));
    script.answer(2);
    for round in 0..40_u32 {
        let cid = format!("cam{round}");
        script.request(1, camera(&cid, "vp8"));
        let mid = (round + 1).to_string();
        script.request(
            1,
            offer_message(
                chromium_offer(1, 1, &[video_section(&mid, &cid)]),
                round + 1,
            ),
        );
        script.answer(2);
        if round % 2 == 0 {
            // Not answered yet: the refusal of the old and the next track come in one later offer.
            continue;
        }
        script.answer(2);
    }
    let offer = Description::parse(&script.offer_of(2).sdp).expect("readable");
    assert!(
        offer.sections.len() <= 4,
        "{} sections after 40 tracks, one at a time",
        offer.sections.len()
    );
    let mids: std::collections::BTreeSet<_> = offer
        .sections
        .iter()
        .map(|section| section.mid.clone())
        .collect();
    assert_eq!(mids.len(), offer.sections.len());
}

#[test]
fn tracks_that_must_be_encrypted_are_refused_in_the_clear() {
    let mut policy = ad_hoc();
    policy.e2ee_required = true;
    let mut script = Script::new(policy);
    script.start(1, start("anna", None));
    script.request(1, microphone("mic"));
    assert_eq!(
        reasons(&mut script, 1),
        [proto::request_response::Reason::NotAllowed]
    );
    let Request::AddTrack(request) = microphone("mic") else {
        unreachable!("as built")
    };
    script.request(
        1,
        Request::AddTrack(proto::AddTrackRequest {
            encryption: proto::encryption::Type::Gcm as i32,
            ..request
        }),
    );
    assert!(
        script
            .take(1)
            .iter()
            .any(|message| matches!(message, Response::TrackPublished(_)))
    );
}

#[test]
fn without_screen_sharing_no_screen_passes_under_any_name() {
    let mut policy = ad_hoc();
    policy.screen_share = false;
    let mut script = Script::new(policy);
    script.start(1, start("anna", None));
    script.request(1, screen("s"));
    let Request::AddTrack(request) = screen("s") else {
        unreachable!("as built")
    };
    script.request(
        1,
        Request::AddTrack(proto::AddTrackRequest {
            source: proto::TrackSource::Unknown as i32,
            ..request
        }),
    );
    script.request(1, camera("c", "vp8"));
    assert_eq!(
        reasons(&mut script, 1),
        [proto::request_response::Reason::NotAllowed; 2]
    );
}

#[test]
fn a_change_of_role_ends_what_the_new_role_may_not() {
    let mut script = Script::new(declared(LobbyRule::Off));
    script.start(1, start("mona", Some(Role::Moderator)));
    script.start(2, start("pia", Some(Role::Presenter)));
    script.request(2, screen("s"));
    script.request(
        2,
        offer_message(chromium_offer(2, 1, &[video_section("1", "s")]), 1),
    );
    let request = proto::UpdateParticipantRequest {
        identity: "pia".into(),
        attributes: [("plenum.role".to_owned(), "Participant".to_owned())].into(),
        ..Default::default()
    };
    script
        .admin(
            Some("mona"),
            AdminCall::UpdateParticipant(request.encode_to_vec()),
        )
        .expect("changed");
    assert!(
        script
            .take(2)
            .iter()
            .any(|message| matches!(message, Response::TrackUnpublished(_)))
    );
    assert!(matches!(
        script.commands.last(),
        Some(Command::Unpublish { .. })
    ));
    // And it holds over a rejoin with the old token.
    script.start(3, start("pia", Some(Role::Presenter)));
    script.request(3, screen("s"));
    assert_eq!(
        reasons(&mut script, 3),
        [proto::request_response::Reason::NotAllowed]
    );
}

#[test]
fn the_policy_of_a_running_room_takes_effect_at_once() {
    let mut script = Script::new(declared(LobbyRule::Guests));
    script.start(1, start("mona", Some(Role::Moderator)));
    script.knock(1, "g_one", None);
    script.input(
        "the lobby is switched off",
        Input::Policy(Box::new(declared(LobbyRule::Off))),
    );
    assert!(script.last.iter().any(|output| matches!(
        output,
        Output::Knock {
            update: media_room::api::KnockUpdate::Admitted,
            ..
        }
    )));
}

#[test]
fn a_room_ends_when_its_time_is_up_also_over_a_move() {
    let mut policy = ad_hoc();
    policy.max_duration_ms = 600_000;
    // It began five minutes ago on another node.
    let facts = Facts {
        room_sid: "RM_x".into(),
        opened: true,
        created_unix_ms: 1_799_999_700_000,
        ..Facts::default()
    };
    let mut script = Script::with_facts(policy, facts);
    script.start(1, start("anna", None));
    script.answer(1);
    let transport = script.transports(Side::Subscriber)[0];
    script.connected(transport);
    script.pass(Duration::from_secs(299));
    assert_eq!(leave(&mut script, 1), None);
    script.pass(Duration::from_secs(2));
    assert_eq!(
        leave(&mut script, 1).map(|leave| leave.reason),
        Some(proto::DisconnectReason::RoomClosed as i32)
    );
    assert!(script.text.contains("Ended { reason: \"MaxDuration\" }"));
    assert!(
        !script.text.contains("room_started"),
        "a move is no beginning"
    );
}

#[test]
fn tokens_are_refreshed_every_five_minutes() {
    let mut script = Script::new(ad_hoc());
    script.start(1, start("anna", None));
    script.answer(1);
    let transport = script.transports(Side::Subscriber)[0];
    script.connected(transport);
    let before = script.text.matches("TokenFacts").count();
    script.pass(Duration::from_secs(601));
    // Twice two words per line.
    assert_eq!(script.text.matches("TokenFacts").count() - before, 4);
}

#[test]
fn hidden_participants_are_seen_by_nobody_and_counted_nowhere() {
    let mut script = Script::new(ad_hoc());
    script.start(1, start("anna", None));
    let mut ghost = start("ghost", None);
    ghost.grants.hidden = true;
    script.start(2, ghost);
    script.start(3, start("ben", None));
    for session in [1, 3] {
        let seen = script
            .take(session)
            .into_iter()
            .any(|message| match message {
                Response::Update(update) => update
                    .participants
                    .iter()
                    .any(|other| other.identity == "ghost"),
                Response::Join(join) => join
                    .other_participants
                    .iter()
                    .any(|other| other.identity == "ghost"),
                _ => false,
            });
        assert!(!seen, "session {session}");
    }
    assert!(script.text.contains("participants: 2,") && !script.text.contains("participants: 3,"));
}

#[test]
fn reliable_messages_wait_for_a_channel_that_opens_and_lossy_ones_do_not() {
    let mut script = Script::new(ad_hoc());
    script.start(1, start("anna", None));
    script.answer(1);
    script.start(2, start("ben", None));
    script.answer(2);
    script.request(1, offer_message(chromium_offer(1, 1, &[]), 1));
    let publisher = script.transports(Side::Publisher)[0];
    let ben = TransportId(script.transports(Side::Subscriber)[1]);
    for number in 0..3_u32 {
        let mut packet = text(None, &format!("message {number}"));
        packet.sequence = number + 1;
        script.data(publisher, &packet);
    }
    let sent = |script: &Script| {
        script
            .commands
            .iter()
            .filter(|command| matches!(command, Command::SendData { .. }))
            .count()
    };
    assert_eq!(sent(&script), 0);
    script.media(Event::Data {
        transport: TransportId(publisher),
        channel: Channel::Lossy,
        payload: text(None, "x").encode_to_vec().into(),
    });
    script.media(Event::ChannelOpen {
        transport: ben,
        channel: Channel::Reliable,
    });
    assert_eq!(sent(&script), 3, "in order, once");
}

/// What everybody was told of a move, and how many of them.
fn notices(script: &Script) -> Vec<(String, usize)> {
    let told = script.commands.iter().filter_map(|command| match command {
        Command::SendData {
            transports,
            payload,
            ..
        } => Some((transports.len(), payload)),
        _ => None,
    });
    told.filter_map(|(count, payload)| {
        let packet = proto::DataPacket::decode(&payload[..]).ok()?;
        match packet.value? {
            proto::data_packet::Value::User(user)
                if user.topic.as_deref() == Some("plenum.move") =>
            {
                Some((String::from_utf8(user.payload).ok()?, count))
            }
            _ => None,
        }
    })
    .collect()
}

fn with_open_channel(script: &mut Script, session: u64, identity: &str, place: usize) {
    script.start(session, start(identity, Some(Role::Guest)));
    script.answer(session);
    let transport = script.transports(Side::Subscriber)[place];
    script.connected(transport);
    script.media(Event::ChannelOpen {
        transport: TransportId(transport),
        channel: Channel::Reliable,
    });
}

#[test]
fn people_are_told_once_that_the_room_moves_and_those_who_come_later_too() {
    let mut script = Script::with_facts(
        declared(LobbyRule::Off),
        Facts {
            opened: true,
            ..Facts::default()
        },
    );
    with_open_channel(&mut script, 1, "g_anna", 0);
    let notice = |script: &mut Script, at| script.input("notice", Input::Notice(at));
    notice(&mut script, None);
    assert_eq!(notices(&script), [], "nothing was to move");
    notice(&mut script, Some(1_800_000_060_000));
    notice(&mut script, Some(1_800_000_060_000));
    let told = r#"{"movesAt":1800000060000}"#.to_owned();
    assert_eq!(
        notices(&script),
        [(told.clone(), 1)],
        "told again by another replica"
    );
    with_open_channel(&mut script, 2, "g_ben", 1);
    assert_eq!(notices(&script), [(told.clone(), 1), (told, 1)]);
    notice(&mut script, None);
    let off = r#"{"movesAt":null}"#.to_owned();
    assert_eq!(
        notices(&script).last(),
        Some(&(off, 2)),
        "both, that it is off"
    );
}

#[test]
fn people_are_told_once_when_maintenance_begins_and_those_who_come_later_too() {
    let mut script = Script::with_facts(
        declared(LobbyRule::Off),
        Facts {
            opened: true,
            ..Facts::default()
        },
    );
    with_open_channel(&mut script, 1, "g_anna", 0);
    let input = |script: &mut Script, input| script.input("notice", input);
    input(&mut script, Input::Maintenance(None));
    assert_eq!(notices(&script), [], "nothing was planned");
    input(&mut script, Input::Maintenance(Some(1_800_000_000_000)));
    input(&mut script, Input::Maintenance(Some(1_800_000_000_000)));
    let begins = r#"{"movesAt":null,"maintenanceAt":1800000000000}"#.to_owned();
    assert_eq!(
        notices(&script),
        [(begins.clone(), 1)],
        "told again with other facts"
    );
    with_open_channel(&mut script, 2, "g_ben", 1);
    assert_eq!(
        notices(&script).last(),
        Some(&(begins, 1)),
        "who comes later"
    );
    input(&mut script, Input::Notice(Some(1_800_000_060_000)));
    let both = r#"{"movesAt":1800000060000,"maintenanceAt":1800000000000}"#.to_owned();
    assert_eq!(notices(&script).last(), Some(&(both, 2)));
    input(&mut script, Input::Notice(None));
    input(&mut script, Input::Maintenance(None));
    let off = r#"{"movesAt":null}"#.to_owned();
    assert_eq!(
        notices(&script).last(),
        Some(&(off, 2)),
        "both, that it is off"
    );
}

#[test]
fn a_removed_person_is_refused_on_the_next_node_too() {
    let mut script = Script::new(declared(LobbyRule::Off));
    script.start(1, start("mona", Some(Role::Moderator)));
    script.start(2, start("g_eve", Some(Role::Guest)));
    let remove = proto::RoomParticipantIdentity {
        identity: "g_eve".into(),
        ..Default::default()
    };
    script
        .admin(
            Some("mona"),
            AdminCall::RemoveParticipant(remove.encode_to_vec()),
        )
        .expect("removed");
    let facts = script
        .last
        .iter()
        .find_map(|output| match output {
            Output::Report(report) => Some(report.facts.clone()),
            _ => None,
        })
        .expect("a report");
    assert!(facts.opened);
    let mut next = Script::with_facts(declared(LobbyRule::Off), facts);
    next.start(1, start("g_eve", Some(Role::Guest)));
    assert_eq!(refusal(&next), Some(JoinRefusal::Revoked));
    next.start(2, start("paul", Some(Role::Participant)));
    assert_eq!(refusal(&next), None, "opened stays opened");
}

#[test]
fn a_resume_needs_the_right_identity() {
    let mut script = Script::new(ad_hoc());
    script.start(1, start("anna", None));
    script.answer(1);
    let transport = script.transports(Side::Subscriber)[0];
    script.connected(transport);
    let sid = script
        .take(1)
        .into_iter()
        .find_map(|message| match message {
            Response::Join(join) => join.participant.map(|participant| participant.sid),
            _ => None,
        });
    let mut thief = start("eve", None);
    thief.reconnect = true;
    thief.participant_sid = sid.expect("joined");
    script.start(2, thief);
    assert_eq!(
        leave(&mut script, 2).map(|leave| leave.reason),
        Some(proto::DisconnectReason::StateMismatch as i32)
    );
    assert_eq!(leave(&mut script, 1), None);
}

#[test]
fn at_most_sixteen_tracks_of_one_participant() {
    let mut script = Script::new(ad_hoc());
    script.start(1, start("anna", None));
    for number in 0..20 {
        script.request(1, microphone(&format!("m{number}")));
    }
    assert_eq!(
        reasons(&mut script, 1),
        [proto::request_response::Reason::LimitExceeded; 4]
    );
}

#[test]
fn guests_enter_muted_but_not_when_they_return_after_the_loss_of_a_node() {
    let muted_on_entry = |mut script: Script| {
        script.start(1, start("mona", Some(Role::Moderator)));
        script.start(2, start("g_one", Some(Role::Guest)));
        script.request(2, microphone("mic"));
        script.request(
            2,
            offer_message(chromium_offer(2, 1, &[audio_section("1", "mic")]), 1),
        );
        let mut commands = script.commands.iter();
        commands.any(|command| matches!(command, Command::SetMuted { muted: true, .. }))
    };
    assert!(muted_on_entry(Script::new(declared(LobbyRule::Off))));
    let facts = Facts {
        room_sid: "RM_of_before".into(),
        opened: true,
        created_unix_ms: 1,
        ..Facts::default()
    };
    assert!(!muted_on_entry(Script::with_facts(
        declared(LobbyRule::Off),
        facts
    )));
}

// SPDX-License-Identifier: EUPL-1.2
//! Golden transcripts: what a room answers to the flows of LiveKit's clients, frame by frame.
//!
//! `GOLDEN=write cargo test -p media-room --test transcripts` accepts the present answers.

mod script;

use std::time::Duration;

use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use media_core::api::{Codec, Event, Format, Side, SpeakerLevel, TransportFailure, TransportStats};
use media_core::ids::{PublicationId, RoomIndex, Ssrc, TransportId};
use media_room::api::{AdminCall, Facts, Input, LobbyRule, Role, SessionId};
use prost::Message as _;
use script::{
    Script, ad_hoc, audio_section, camera, chromium_offer, declared, firefox_offer, microphone,
    offer_message, screen, start, text, video_section,
};

/// Two in an ad-hoc room, both connected for receiving.
fn two() -> Script {
    let mut script = Script::new(ad_hoc());
    script.start(1, start("anna", None));
    script.answer(1);
    script.start(2, start("ben", None));
    script.answer(2);
    for transport in script.transports(Side::Subscriber) {
        script.connected(transport);
    }
    script
}

fn publish_camera_and_microphone(script: &mut Script, session: u64) {
    script.request(session, microphone("mic"));
    script.request(session, camera("cam", "vp8"));
    script.request(
        session,
        offer_message(
            chromium_offer(
                session,
                1,
                &[audio_section("1", "mic"), video_section("2", "cam")],
            ),
            1,
        ),
    );
}

#[test]
fn join_and_first_connection() {
    let mut script = Script::new(ad_hoc());
    script.start(1, start("anna", None));
    script.answer(1);
    let transport = script.transports(Side::Subscriber)[0];
    script.connected(transport);
    script.request(
        1,
        Request::PingReq(proto::Ping {
            timestamp: 42,
            rtt: 7,
        }),
    );
    script.request(1, Request::Ping(42));
    script.check("join");
}

#[test]
fn publish_and_subscribe() {
    let mut script = two();
    publish_camera_and_microphone(&mut script, 1);
    script.answer(2);
    let publisher = script.transports(Side::Publisher)[0];
    script.connected(publisher);
    let setting = |quality: proto::VideoQuality, disabled, width| proto::UpdateTrackSettings {
        track_sids: vec![track(&script, 1, "cam")],
        quality: quality as i32,
        disabled,
        width,
        height: width * 9 / 16,
        ..Default::default()
    };
    let settings = [
        setting(proto::VideoQuality::Low, false, 0),
        setting(proto::VideoQuality::High, false, 640),
        setting(proto::VideoQuality::High, true, 0),
        setting(proto::VideoQuality::High, false, 0),
    ];
    for settings in settings {
        script.request(2, Request::TrackSetting(settings));
    }
    script.pass(Duration::from_secs(6));
    script.check("publish");
}

/// SID of a track by the client's id.
fn track(script: &Script, session: u64, cid: &str) -> String {
    script.responses[&session]
        .iter()
        .find_map(|message| match message {
            proto::signal_response::Message::TrackPublished(published) if published.cid == cid => {
                published.track.as_ref().map(|track| track.sid.clone())
            }
            _ => None,
        })
        .expect("published")
}

#[test]
fn simulcast_of_firefox_and_a_track_id_of_its_own() {
    let mut script = two();
    script.request(1, camera("not-in-the-offer", "vp8"));
    script.request(1, offer_message(firefox_offer(), 1));
    script.check("firefox");
}

#[test]
fn mute_by_client_and_by_moderator() {
    let mut script = two();
    publish_camera_and_microphone(&mut script, 1);
    script.answer(2);
    let sid = track(&script, 1, "mic");
    script.request(
        1,
        Request::Mute(proto::MuteTrackRequest {
            sid: sid.clone(),
            muted: true,
        }),
    );
    script.request(
        1,
        Request::Mute(proto::MuteTrackRequest {
            sid: sid.clone(),
            muted: false,
        }),
    );
    let call = |muted| {
        let request = proto::MuteRoomTrackRequest {
            identity: "anna".into(),
            track_sid: sid.clone(),
            muted,
            ..Default::default()
        };
        AdminCall::MutePublishedTrack(request.encode_to_vec())
    };
    script.admin(None, call(true)).expect("muted");
    script
        .admin(None, call(false))
        .expect_err("nobody is unmuted by others");
    script.check("mute");
}

#[test]
fn unpublish_and_publish_again() {
    let mut script = two();
    publish_camera_and_microphone(&mut script, 1);
    script.answer(2);
    let mut gone = video_section("2", "cam");
    gone.active = false;
    script.request(
        1,
        offer_message(chromium_offer(1, 1, &[audio_section("1", "mic"), gone]), 2),
    );
    script.answer(2);
    script.request(1, camera("cam2", "vp8"));
    script.request(
        1,
        offer_message(
            chromium_offer(
                1,
                1,
                &[audio_section("1", "mic"), gone, video_section("3", "cam2")],
            ),
            3,
        ),
    );
    script.answer(2);
    script.check("unpublish");
}

#[test]
fn leave_and_duplicate_identity() {
    let mut script = two();
    script.start(3, start("ben", None));
    script.request(1, Request::Leave(proto::LeaveRequest::default()));
    script.check("leave");
}

#[test]
fn resume_keeps_the_connections() {
    let mut script = two();
    publish_camera_and_microphone(&mut script, 1);
    script.answer(2);
    let sid = own_sid(&script, 1);
    script.input(
        "session 1 breaks",
        Input::SessionEnd {
            session: SessionId(1),
            clean: false,
        },
    );
    script.pass(Duration::from_secs(30));
    let mut again = start("anna", None);
    again.reconnect = true;
    again.participant_sid = sid;
    script.start(4, again);
    script.request(
        4,
        offer_message(
            chromium_offer(
                1,
                2,
                &[audio_section("1", "mic"), video_section("2", "cam")],
            ),
            2,
        ),
    );
    script.answer(4);
    let believes = |sid: String| {
        Request::SyncState(proto::SyncState {
            publish_tracks: vec![proto::TrackPublishedResponse {
                cid: "cam".into(),
                track: Some(proto::TrackInfo {
                    sid,
                    ..Default::default()
                }),
            }],
            ..Default::default()
        })
    };
    let known = track(&script, 1, "cam");
    script.request(4, believes(known));
    script.request(4, believes("TR_unknown".into()));
    let mut stranger = start("carl", None);
    stranger.reconnect = true;
    stranger.participant_sid = "PA_hamburg_n1_gone".into();
    script.start(5, stranger);
    script.check("resume");
}

fn own_sid(script: &Script, session: u64) -> String {
    script.responses[&session]
        .iter()
        .find_map(|message| match message {
            proto::signal_response::Message::Join(join) => join
                .participant
                .as_ref()
                .map(|participant| participant.sid.clone()),
            _ => None,
        })
        .expect("joined")
}

#[test]
fn silence_of_signalling_and_media() {
    let mut script = two();
    script.input(
        "session 1 breaks",
        Input::SessionEnd {
            session: SessionId(1),
            clean: true,
        },
    );
    script.pass(Duration::from_secs(119));
    let transport = script.transports(Side::Subscriber)[0];
    script.media(Event::Failed {
        transport: TransportId(transport),
        failure: TransportFailure::ConsentLost,
    });
    script.pass(Duration::from_secs(15));
    let transport = script.transports(Side::Subscriber)[1];
    script.media(Event::Failed {
        transport: TransportId(transport),
        failure: TransportFailure::ConsentLost,
    });
    script.pass(Duration::from_secs(30));
    script.check("silence");
}

#[test]
fn data_from_client_to_clients() {
    let mut script = two();
    publish_camera_and_microphone(&mut script, 1);
    let publisher = script.transports(Side::Publisher)[0];
    for transport in script.transports(Side::Subscriber) {
        script.media(Event::ChannelOpen {
            transport: TransportId(transport),
            channel: media_core::api::Channel::Reliable,
        });
    }
    let mut first = text(Some("greetings"), "hello");
    first.sequence = 1;
    first.participant_identity = "somebody else".into();
    script.data(publisher, &first);
    script.data(publisher, &first);
    let mut direct = text(None, "to ben");
    direct.destination_identities = vec!["ben".into()];
    direct.sequence = 2;
    script.data(publisher, &direct);
    let mut nobody = text(None, "to nobody");
    nobody.destination_identities = vec!["carl".into()];
    script.data(publisher, &nobody);
    script.check("data");
}

#[test]
fn speakers_and_quality() {
    let mut script = two();
    publish_camera_and_microphone(&mut script, 1);
    script.answer(2);
    let publisher = script.transports(Side::Publisher)[0];
    script.connected(publisher);
    let microphone = script
        .commands
        .iter()
        .find_map(|command| match command {
            media_core::api::Command::Publish(publication)
                if publication.kind == media_core::api::Kind::Audio =>
            {
                Some(publication.id)
            }
            _ => None,
        })
        .expect("a microphone");
    let opus = Format {
        codec: Codec::Opus,
        variant: 0,
    };
    script.media(Event::EncodingBound {
        publication: microphone,
        encoding: 0,
        ssrc: Ssrc(2111),
        format: opus,
    });
    for (level, active) in [(0.6, true), (0.61, true), (0.0, false)] {
        script.media(Event::Speakers {
            room: RoomIndex(3),
            levels: vec![SpeakerLevel {
                publication: microphone,
                level,
                active,
            }],
        });
    }
    script.media(Event::Speakers {
        room: RoomIndex(3),
        levels: vec![SpeakerLevel {
            publication: PublicationId(99),
            level: 1.0,
            active: true,
        }],
    });
    script.pass(Duration::from_secs(5));
    for transport in script.transports(Side::Subscriber) {
        let stats = TransportStats {
            remote_fraction_lost: 0.2,
            rtt_ms: 20,
            ..TransportStats::default()
        };
        script.media(Event::Stats {
            transport: TransportId(transport),
            stats,
        });
    }
    script.pass(Duration::from_secs(1));
    script.check("speakers");
}

#[test]
fn metadata_attributes_and_the_room() {
    let mut script = two();
    let update = |name: &str, attribute: (&str, &str), request_id| {
        Request::UpdateMetadata(proto::UpdateParticipantMetadata {
            name: name.into(),
            attributes: [(attribute.0.to_owned(), attribute.1.to_owned())].into(),
            request_id,
            ..Default::default()
        })
    };
    script.request(1, update("Anna B.", ("plenum.hand", "1"), 1));
    script.request(1, update("", ("plenum.hand", ""), 2));
    script.request(1, update("", ("plenum.role", "Moderator"), 3));
    let long = "x".repeat(300);
    script.request(1, update(&long, ("a", "b"), 4));
    let request = proto::UpdateRoomMetadataRequest {
        room: "council".into(),
        metadata: "agenda".into(),
    };
    script
        .admin(None, AdminCall::UpdateRoomMetadata(request.encode_to_vec()))
        .expect("updated");
    script.check("metadata");
}

#[test]
fn subscription_permission_and_explicit_subscriptions() {
    let mut script = two();
    publish_camera_and_microphone(&mut script, 1);
    script.answer(2);
    let cam = track(&script, 1, "cam");
    let permission = |all_participants, tracks: Vec<String>| {
        Request::SubscriptionPermission(proto::SubscriptionPermission {
            all_participants,
            track_permissions: vec![proto::TrackPermission {
                participant_identity: "ben".into(),
                track_sids: tracks,
                ..Default::default()
            }],
        })
    };
    script.request(1, permission(false, vec![cam.clone()]));
    script.answer(2);
    script.request(1, permission(true, Vec::new()));
    script.answer(2);
    let subscription = |subscribe| {
        Request::Subscription(proto::UpdateSubscription {
            track_sids: vec![cam.clone()],
            subscribe,
            ..Default::default()
        })
    };
    script.request(2, subscription(false));
    script.answer(2);
    script.request(2, subscription(true));
    script.answer(2);
    script.check("subscriptions");
}

#[test]
fn what_is_not_allowed_is_refused() {
    let mut script = Script::new(declared(LobbyRule::Off));
    script.start(1, start("eve", Some(Role::Guest)));
    script.start(2, start("mona", Some(Role::Moderator)));
    script.start(3, start("eve", Some(Role::Guest)));
    script.request(3, screen("s"));
    script.request(3, camera("c", "vp8"));
    script.request(3, microphone("m"));
    script.request(3, microphone("m"));
    script.request(3, offer_message("v=0\r\n".into(), 1));
    script.request(
        3,
        offer_message(
            chromium_offer(3, 1, &[video_section("1", "c"), audio_section("2", "m")]),
            2,
        ),
    );
    // Muted on entry: told with the first packet.
    let microphone = script
        .commands
        .iter()
        .find_map(|command| match command {
            media_core::api::Command::Publish(publication) => Some(publication.id),
            _ => None,
        })
        .expect("a microphone");
    let opus = Format {
        codec: Codec::Opus,
        variant: 0,
    };
    script.media(Event::EncodingBound {
        publication: microphone,
        encoding: 0,
        ssrc: Ssrc(2111),
        format: opus,
    });
    script.check("refused");
}

#[test]
fn lobby_and_moderation() {
    let mut script = Script::new(declared(LobbyRule::Guests));
    script.start(1, start("mona", Some(Role::Moderator)));
    script.answer(1);
    let transport = script.transports(Side::Subscriber)[0];
    script.connected(transport);
    script.media(Event::ChannelOpen {
        transport: TransportId(transport),
        channel: media_core::api::Channel::Reliable,
    });
    script.knock(1, "g_one", None);
    script.knock(2, "g_two", None);
    script.knock(3, "g_three", None);
    script.start(2, start("g_one", Some(Role::Guest)));
    let decide = |admit: &[&str], deny: &[&str], admit_all| AdminCall::Lobby {
        admit: admit.iter().map(|id| (*id).to_owned()).collect(),
        deny: deny.iter().map(|id| (*id).to_owned()).collect(),
        admit_all,
    };
    script
        .admin(Some("g_one"), decide(&["g_one"], &[], false))
        .expect_err("a guest decides nothing");
    script
        .admin(Some("mona"), decide(&["g_one"], &["g_two"], false))
        .expect("decided");
    script
        .admin(Some("mona"), AdminCall::LobbyList)
        .expect("a list");
    script
        .admin(Some("mona"), decide(&[], &[], true))
        .expect("all");
    script.start(3, start("g_one", Some(Role::Guest)));
    script
        .admin(Some("mona"), AdminCall::Lock(true))
        .expect("locked");
    script.start(4, start("paul", Some(Role::Participant)));
    let role = |role: &str| {
        let request = proto::UpdateParticipantRequest {
            identity: "g_one".into(),
            attributes: [("plenum.role".to_owned(), role.to_owned())].into(),
            ..Default::default()
        };
        AdminCall::UpdateParticipant(request.encode_to_vec())
    };
    script
        .admin(Some("mona"), role("Presenter"))
        .expect("promoted");
    script
        .admin(Some("mona"), role("Moderator"))
        .expect_err("a guest never moderates");
    let remove = proto::RoomParticipantIdentity {
        identity: "g_one".into(),
        ..Default::default()
    };
    script
        .admin(
            Some("mona"),
            AdminCall::RemoveParticipant(remove.encode_to_vec()),
        )
        .expect("removed");
    script.start(5, start("g_one", Some(Role::Guest)));
    script.admin(Some("mona"), AdminCall::End).expect("ended");
    script.check("lobby");
}

#[test]
fn a_room_that_moves_says_so() {
    let mut script = Script::with_facts(
        declared(LobbyRule::Off),
        Facts {
            room_sid: "RM_kept".into(),
            opened: true,
            created_unix_ms: 1_799_999_000_000,
            ..Facts::default()
        },
    );
    script.start(1, start("paul", Some(Role::Participant)));
    script.knock(1, "g_one", None);
    script.input("the node gives the room up", Input::GiveUp);
    script.start(2, start("late", Some(Role::Participant)));
    script.check("giveup");
}

#[test]
fn an_empty_room_ends() {
    let mut script = Script::new(ad_hoc());
    script.start(1, start("anna", None));
    script.request(1, Request::Leave(proto::LeaveRequest::default()));
    script.pass(Duration::from_secs(60));
    script.check("empty");
}

// SPDX-License-Identifier: EUPL-1.2
//! Whatever clients send: nothing panics, every answer is bounded, nothing is left behind.

mod script;

use std::collections::BTreeSet;
use std::time::Duration;

use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use media_core::api::{Channel, Command, Event, Side, TransportFailure, TransportStats};
use media_core::ids::TransportId;
use media_room::api::{AdminCall, Facts, Frame, Input, KnockId, LobbyRule, Role, SessionId};
use media_room::sdp::{self, Description, Local, Sent, SentTrack, Taken};
use proptest::prelude::*;
use prost::Message as _;
use script::sdp::Offered;
use script::{
    Script, answer_to, camera, chromium_offer, declared, firefox_offer, microphone, offer_message,
    screen, start, text,
};

/// Outputs that one input may cause in a room of six.
const OUTPUTS_MAX: usize = 400;

fn config() -> ProptestConfig {
    // The shrunk input is printed; nothing is written beside the sources.
    ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// A description with some bytes changed, lines dropped or doubled.
fn spoiled() -> impl Strategy<Value = String> {
    let whole = prop_oneof![
        Just(firefox_offer()),
        Just(chromium_offer(
            1,
            1,
            &[
                script::audio_section("1", "mic"),
                script::video_section("2", "cam")
            ]
        )),
    ];
    (
        whole,
        proptest::collection::vec((any::<prop::sample::Index>(), 0_u8..4, any::<char>()), 0..8),
    )
        .prop_map(|(whole, changes)| {
            let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
            for (index, what, with) in changes {
                let at = index.index(lines.len());
                match what {
                    0 => {
                        lines.remove(at);
                    }
                    1 => lines.insert(at, lines[at].clone()),
                    2 => lines[at].push(with),
                    _ => {
                        lines[at].pop();
                    }
                }
                if lines.is_empty() {
                    lines.push("v=0".into());
                }
            }
            lines.join("\r\n") + "\r\n"
        })
}

fn local_ice() -> media_core::api::IceCredentials {
    media_core::api::IceCredentials {
        ufrag: "01abcdef".into(),
        password: "0123456789012345678901".into(),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,400}") {
        let _ = Description::parse(&text);
    }

    #[test]
    fn an_answer_mirrors_the_sections_of_any_offer_that_can_be_read(offer in spoiled()) {
        let Ok(offer) = Description::parse(&offer) else { return Ok(()) };
        let taken: Vec<Taken> =
            offer.sections.iter().map(|section| Taken { payloads: section.payloads.clone(), opus: "usedtx=1" }).collect();
        let ice = local_ice();
        let local = Local { ice: &ice, fingerprint: offer.fingerprint, candidates: &[], version: 1 };
        let answer = sdp::answer(&offer, &local, &taken);
        let Ok(answer) = Description::parse(&answer) else {
            // Only an answer without any section to carry the credentials cannot be read.
            prop_assert!(offer.sections.iter().all(|section| section.rejected || (section.kind.is_some() && section.payloads.is_empty())));
            return Ok(());
        };
        prop_assert_eq!(answer.sections.len(), offer.sections.len());
        for (asked, answered) in offer.sections.iter().zip(&answer.sections) {
            prop_assert_eq!(asked.mid.trim(), answered.mid.trim());
            prop_assert_eq!(asked.kind, answered.kind);
            prop_assert!(!answered.direction.send || answered.kind.is_none());
            for binding in &answered.payloads {
                prop_assert!(asked.payloads.iter().any(|other| other.payload_type == binding.payload_type));
            }
        }
    }

    #[test]
    fn an_own_offer_reads_back(tracks in proptest::collection::vec((any::<bool>(), any::<bool>(), 1_u32..1_000_000), 0..20)) {
        let sections: Vec<Sent> = tracks
            .iter()
            .enumerate()
            .map(|(number, (video, live, ssrc))| {
                let kind = if *video { media_core::api::Kind::Video } else { media_core::api::Kind::Audio };
                let codec = if *video { media_core::api::Codec::Vp8 } else { media_core::api::Codec::Red };
                Sent {
                    kind,
                    mid: (number + 1).to_string(),
                    track: live.then(|| SentTrack {
                        stream: "PA_1|camera".into(),
                        track: format!("TR_{number}"),
                        ssrc: media_core::ids::Ssrc(*ssrc),
                        rtx_ssrc: video.then_some(media_core::ids::Ssrc(ssrc + 1_000_000)),
                    }),
                    payloads: sdp::sent_payloads(&[media_core::api::Format { codec, variant: 0 }]),
                }
            })
            .collect();
        let ice = local_ice();
        let fingerprint = media_core::api::Fingerprint([7; 32]);
        let offer = sdp::offer(&Local { ice: &ice, fingerprint, candidates: &[], version: 3 }, &sections);
        let read = Description::parse(&offer).expect("an own offer can be read");
        prop_assert_eq!(&read.ice, &ice);
        prop_assert_eq!(read.fingerprint, fingerprint);
        prop_assert_eq!(read.sections.len(), sections.len() + 1);
        for (sent, read) in sections.iter().zip(&read.sections[1..]) {
            prop_assert_eq!(&sent.mid, &read.mid);
            prop_assert_eq!(sent.track.is_none(), read.rejected);
            if let Some(track) = &sent.track {
                prop_assert_eq!(&read.payloads, &sent.payloads);
                prop_assert_eq!(read.encodings[0].ssrc, Some(track.ssrc));
                prop_assert_eq!(read.encodings[0].rtx_ssrc, track.rtx_ssrc);
                prop_assert_eq!(read.msid.as_ref().map(|(_, track)| track), Some(&track.track));
            }
        }
    }

    #[test]
    fn no_frame_brings_a_room_down(steps in proptest::collection::vec((0_u8..26, any::<u8>(), any::<u16>(), proptest::collection::vec(any::<u8>(), 0..40)), 1..60)) {
        let mut play = Play::new(true);
        for (what, who, number, bytes) in steps {
            play.step(what, who, number, &bytes);
        }
        play.end()?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_process_behaves_like_two_with_a_lossless_link(steps in proptest::collection::vec((0_u8..26, any::<u8>(), any::<u16>(), proptest::collection::vec(any::<u8>(), 0..40)), 1..40)) {
        let [direct, by_wire] = [false, true].map(|by_wire| {
            let mut play = Play::new(by_wire);
            for (what, who, number, bytes) in &steps {
                play.step(*what, *who, *number, bytes);
            }
            play.script.text
        });
        prop_assert_eq!(direct, by_wire);
    }
}

/// A program of arbitrary steps.
struct Play {
    script: Script,
    session: u64,
    sessions: Vec<u64>,
    sids: Vec<String>,
    most: usize,
}

impl Play {
    fn new(by_wire: bool) -> Self {
        let mut script = Script::with_link(declared(LobbyRule::Guests), Facts::default(), by_wire);
        script.start(1, start("mona", Some(Role::Moderator)));
        script.answer(1);
        Self {
            script,
            session: 1,
            sessions: vec![1],
            sids: vec!["TR_none".into()],
            most: 0,
        }
    }

    fn step(&mut self, what: u8, who: u8, number: u16, bytes: &[u8]) {
        let session = self.sessions[usize::from(who) % self.sessions.len()];
        let sid = self.sids[usize::from(number) % self.sids.len()].clone();
        let before = self.script.outputs;
        let cid = format!("cid{}", number % 20);
        let words = String::from_utf8_lossy(bytes).into_owned();
        match what {
            0 => self.script.input(
                "bytes",
                Input::Frame {
                    session: SessionId(session),
                    frame: Frame::Binary(bytes.to_vec()),
                },
            ),
            1 => self.script.input(
                "text",
                Input::Frame {
                    session: SessionId(session),
                    frame: Frame::Text(bytes.to_vec()),
                },
            ),
            2 => {
                let json = format!(
                    "{{\"addTrack\":{{\"cid\":\"{}\",\"type\":{}}}}}",
                    cid,
                    number % 5
                );
                self.script.input(
                    "json",
                    Input::Frame {
                        session: SessionId(session),
                        frame: Frame::Text(json.into_bytes()),
                    },
                );
            }
            3 | 4 => {
                let identity =
                    ["mona", "paul", "g_one", "eve", "olga", "max"][usize::from(who) % 6];
                let role = [
                    Role::Moderator,
                    Role::Participant,
                    Role::Guest,
                    Role::Presenter,
                ][usize::from(number) % 4];
                self.session += 1;
                let mut start = start(identity, Some(role));
                start.name.clone_from(&words);
                start.grants.hidden = number.is_multiple_of(11);
                start.reconnect = number.is_multiple_of(7);
                start.text_frames = number.is_multiple_of(5);
                start.participant_sid = format!("PA_hamburg_n1_{words}");
                self.script.start(self.session, start);
                self.sessions.push(self.session);
            }
            5 => self.script.request(session, microphone(&cid)),
            6 => self.script.request(session, camera(&cid, &words)),
            7 => self.script.request(session, screen(&cid)),
            8 => {
                let odd = proto::AddTrackRequest {
                    cid,
                    name: words,
                    r#type: i32::from(number),
                    source: i32::from(who),
                    encryption: i32::from(number) - 3,
                    ..Default::default()
                };
                self.script.request(session, Request::AddTrack(odd));
            }
            9 | 10 => {
                let sections: Vec<(String, String, bool)> = (0..number % 5)
                    .map(|n| {
                        (
                            format!("{}", n + 1),
                            format!("cid{}", (number + n) % 20),
                            (number >> n) & 1 == 1,
                        )
                    })
                    .collect();
                let offered: Vec<Offered<'_>> = sections
                    .iter()
                    .map(|(mid, cid, video)| Offered {
                        mid,
                        cid,
                        video: *video,
                        simulcast: who.is_multiple_of(2),
                        active: !who.is_multiple_of(3),
                    })
                    .collect();
                let sdp = chromium_offer(session, u32::from(who % 3), &offered);
                self.script
                    .request(session, offer_message(sdp, u32::from(number)));
            }
            11 => self.script.request(
                session,
                offer_message(firefox_offer() + &words, u32::from(number)),
            ),
            12 | 13 => {
                let offer = self.script.responses.get(&session).and_then(|all| {
                    all.iter().rev().find_map(|message| match message {
                        Response::Offer(offer) => Some(offer.clone()),
                        _ => None,
                    })
                });
                if let Some(offer) = offer {
                    let id = if what == 12 {
                        offer.id
                    } else {
                        u32::from(number)
                    };
                    let sdp = answer_to(&offer.sdp, session);
                    self.script.request(
                        session,
                        Request::Answer(proto::SessionDescription {
                            r#type: "answer".into(),
                            sdp,
                            id,
                            ..Default::default()
                        }),
                    );
                }
            }
            14 => self.script.request(
                session,
                Request::Mute(proto::MuteTrackRequest {
                    sid,
                    muted: who.is_multiple_of(2),
                }),
            ),
            15 => self.script.request(
                session,
                Request::Subscription(proto::UpdateSubscription {
                    track_sids: vec![sid, words],
                    subscribe: who.is_multiple_of(2),
                    ..Default::default()
                }),
            ),
            16 => self.script.request(
                session,
                Request::TrackSetting(proto::UpdateTrackSettings {
                    track_sids: vec![sid],
                    disabled: who.is_multiple_of(3),
                    quality: i32::from(number) - 1,
                    width: u32::from(number),
                    height: u32::from(who),
                    fps: u32::from(who),
                    ..Default::default()
                }),
            ),
            17 => self.script.request(
                session,
                Request::UpdateMetadata(proto::UpdateParticipantMetadata {
                    metadata: words.clone(),
                    attributes: [(words, "x".repeat(usize::from(number)))].into(),
                    ..Default::default()
                }),
            ),
            18 => self.script.request(
                session,
                Request::SubscriptionPermission(proto::SubscriptionPermission {
                    all_participants: who.is_multiple_of(2),
                    track_permissions: vec![proto::TrackPermission {
                        participant_identity: "paul".into(),
                        track_sids: vec![sid],
                        ..Default::default()
                    }],
                }),
            ),
            19 => self.script.request(
                session,
                if who.is_multiple_of(2) {
                    Request::Leave(proto::LeaveRequest::default())
                } else {
                    Request::Ping(1)
                },
            ),
            20 => self.media(who, number, bytes),
            21 => self.script.input(
                "session ends",
                Input::SessionEnd {
                    session: SessionId(session),
                    clean: who.is_multiple_of(2),
                },
            ),
            22 => self.script.pass(Duration::from_millis(u64::from(number))),
            23 => {
                let call = match who % 9 {
                    0 => AdminCall::RemoveParticipant(
                        proto::RoomParticipantIdentity {
                            identity: "paul".into(),
                            ..Default::default()
                        }
                        .encode_to_vec(),
                    ),
                    1 => AdminCall::UpdateParticipant(bytes.to_vec()),
                    2 => AdminCall::SendData(bytes.to_vec()),
                    3 => AdminCall::Lock(number.is_multiple_of(2)),
                    4 => AdminCall::Lobby {
                        admit: vec!["g_one".into()],
                        deny: vec![words],
                        admit_all: number.is_multiple_of(2),
                    },
                    5 => AdminCall::MutePublishedTrack(
                        proto::MuteRoomTrackRequest {
                            identity: "paul".into(),
                            track_sid: sid,
                            muted: true,
                            ..Default::default()
                        }
                        .encode_to_vec(),
                    ),
                    6 => AdminCall::UpdateSubscriptions(bytes.to_vec()),
                    7 => AdminCall::ListParticipants(Vec::new()),
                    _ => AdminCall::UpdateParticipant(
                        proto::UpdateParticipantRequest {
                            identity: "paul".into(),
                            attributes: [("plenum.role".into(), "Guest".into())].into(),
                            ..Default::default()
                        }
                        .encode_to_vec(),
                    ),
                };
                let _ = self
                    .script
                    .admin((number.is_multiple_of(3)).then_some("mona"), call);
            }
            24 => self.script.knock(
                u64::from(number),
                &format!("g_{}", who % 3),
                (who.is_multiple_of(5)).then_some(Role::Participant),
            ),
            _ => self.script.input(
                "knock ends",
                Input::KnockEnd {
                    knock: KnockId(u64::from(number)),
                },
            ),
        }
        self.most = self.most.max(self.script.outputs - before);
        for message in self.script.responses.values().flatten() {
            if let Response::TrackPublished(published) = message
                && let Some(track) = &published.track
                && !self.sids.contains(&track.sid)
            {
                self.sids.push(track.sid.clone());
            }
        }
    }

    fn media(&mut self, who: u8, number: u16, bytes: &[u8]) {
        let all: Vec<u64> = [Side::Publisher, Side::Subscriber]
            .into_iter()
            .flat_map(|side| self.script.transports(side))
            .collect();
        let transport = TransportId(all[usize::from(number) % all.len()]);
        let event = match who % 7 {
            0 | 1 => return self.script.connected(transport.0),
            2 => Event::Failed {
                transport,
                failure: TransportFailure::Closed,
            },
            3 => Event::Failed {
                transport,
                failure: TransportFailure::ConsentLost,
            },
            4 => Event::ChannelOpen {
                transport,
                channel: Channel::Reliable,
            },
            5 => Event::Stats {
                transport,
                stats: TransportStats::default(),
            },
            _ => {
                let payload = if number.is_multiple_of(2) {
                    bytes.to_vec()
                } else {
                    text(Some("lk.chat"), "x").encode_to_vec()
                };
                Event::Data {
                    transport,
                    channel: Channel::Reliable,
                    payload: payload.into(),
                }
            }
        };
        self.script.media(event);
    }

    /// Everybody goes: what was made is gone.
    fn end(mut self) -> Result<(), TestCaseError> {
        prop_assert!(
            self.most <= OUTPUTS_MAX,
            "{} outputs for one input",
            self.most
        );
        // It may have ended by itself already.
        let _ = self.script.admin(None, AdminCall::End);
        let (mut transports, mut forwarded) = (BTreeSet::new(), BTreeSet::new());
        let mut removed = false;
        for command in &self.script.commands {
            match command {
                Command::AddTransport { transport, .. } => {
                    prop_assert!(transports.insert(*transport), "an id is used once")
                }
                Command::Subscribe(subscription) => {
                    prop_assert!(forwarded.insert(subscription.id), "an id is used once")
                }
                Command::RemoveRoom { .. } => removed = true,
                _ => {}
            }
        }
        prop_assert!(removed);
        prop_assert_eq!(self.script.room.poll_deadline(), None);
        Ok(())
    }
}

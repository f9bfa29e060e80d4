// SPDX-License-Identifier: EUPL-1.2
//! Plays clients against a room and writes down what comes out, in a form that people can read and compare.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "shared by several tests, each of which takes what it needs"
)]

pub mod sdp;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use media_core::api::{Channel, Command, Event, Fingerprint, Side};
use media_core::crypto::SrtpProfile;
use media_core::ids::{RoomIndex, ShardId, TransportId};
use media_core::io::{Path, Protocol};
use media_core::time::{Timestamp, WallAnchor};
use media_room::api::{
    AdminCall, AdminRefusal, Candidate, ChatRule, ClientParameters, Entropy, Facts, Frame, Grants,
    Input, Knock, KnockId, LobbyRule, Output, Permission, Policy, RequestId, Role, RoomConfig,
    SessionId, SessionStart,
};
use media_room::room::Room;
use prost::Message as _;
pub use sdp::{answer_to, audio_section, chromium_offer, firefox_offer, video_section};

/// Counts, so that transcripts repeat.
struct Counting(u64);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = (self.0 >> 56) as u8;
        }
    }
}

pub fn grants() -> Grants {
    Grants {
        room_join: true,
        room_admin: false,
        can_publish: true,
        can_subscribe: true,
        can_publish_data: true,
        can_publish_sources: Vec::new(),
        can_update_own_metadata: true,
        hidden: false,
        recorder: false,
        agent: false,
    }
}

/// As a gateway starts a session of livekit-client 2.23 in Chromium.
pub fn start(identity: &str, role: Option<Role>) -> SessionStart {
    let info = proto::ClientInfo {
        sdk: proto::client_info::Sdk::Js as i32,
        version: "2.23.0".into(),
        protocol: 17,
        browser: "Chrome".into(),
        ..Default::default()
    };
    SessionStart {
        identity: identity.to_owned(),
        name: identity.to_owned(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        grants: grants(),
        role,
        guest: role == Some(Role::Guest),
        opener: role == Some(Role::Moderator),
        token_issued_unix_s: 1_800_000_000,
        client: ClientParameters {
            client_info: info.encode_to_vec(),
            protocol: 17,
            auto_subscribe: true,
            ..ClientParameters::default()
        },
        reconnect: false,
        participant_sid: String::new(),
        reconnect_reason: 0,
        kind: "standard".into(),
        text_frames: false,
    }
}

pub fn ad_hoc() -> Policy {
    Policy {
        declared: false,
        lobby: LobbyRule::Off,
        guests_allowed: true,
        permissions: BTreeMap::new(),
        max_participants: 0,
        max_publishers: 0,
        empty_timeout_ms: 300_000,
        departure_timeout_ms: 20_000,
        max_duration_ms: 0,
        screen_share: true,
        e2ee_required: false,
        codecs: Vec::new(),
        revision: "1".into(),
    }
}

pub fn declared(lobby: LobbyRule) -> Policy {
    let permission = |camera, screen_share, chat, moderate, enter_muted| Permission {
        microphone: true,
        camera,
        screen_share,
        chat,
        moderate,
        record: false,
        enter_muted,
    };
    Policy {
        declared: true,
        lobby,
        permissions: BTreeMap::from([
            (
                Role::Moderator,
                permission(true, true, ChatRule::Everyone, true, false),
            ),
            (
                Role::Presenter,
                permission(true, true, ChatRule::Everyone, false, true),
            ),
            (
                Role::Participant,
                permission(true, false, ChatRule::Off, false, false),
            ),
            (
                Role::Guest,
                permission(false, false, ChatRule::Moderators, false, true),
            ),
        ]),
        ..ad_hoc()
    }
}

/// A room and its transcript.
pub struct Script {
    pub room: Room,
    pub now: Timestamp,
    pub text: String,
    /// Responses per session since they were last taken.
    pub responses: BTreeMap<u64, Vec<Response>>,
    pub commands: Vec<Command>,
    /// Webhook events so far: number, room, name, body.
    pub events: Vec<(u64, String, &'static str, Vec<u8>)>,
    pub outputs: usize,
    pub last: Vec<Output>,
    requests: u64,
}

impl Script {
    pub fn new(policy: Policy) -> Self {
        Self::with_facts(policy, Facts::default())
    }

    pub fn with_facts(policy: Policy, facts: Facts) -> Self {
        Self::with_link(policy, facts, true)
    }

    /// With roster and peers that hand each other values, or their serialised forms.
    pub fn with_link(policy: Policy, facts: Facts, by_wire: bool) -> Self {
        let now = Timestamp::from_millis(1000);
        let address = "192.0.2.7:20000".parse().expect("address");
        let config = RoomConfig {
            name: "council".into(),
            index: RoomIndex(3),
            epoch: 1,
            policy,
            facts,
            site: "hamburg".into(),
            node_id: "n1".into(),
            shard: ShardId(1),
            fingerprint: Fingerprint([0xab; 32]),
            candidates: vec![
                Candidate {
                    protocol: Protocol::Udp,
                    address,
                },
                Candidate {
                    protocol: Protocol::Tcp,
                    address,
                },
            ],
            wall: WallAnchor {
                at: now,
                unix_nanos: 1_800_000_000_000_000_000,
            },
        };
        let mut room = Room::new(config, Box::new(Counting(1)), now);
        if by_wire {
            room.by_wire();
        }
        let mut script = Self {
            room,
            now,
            text: String::new(),
            responses: BTreeMap::new(),
            commands: Vec::new(),
            events: Vec::new(),
            outputs: 0,
            last: Vec::new(),
            requests: 0,
        };
        script.line("> the room is made");
        script.drain();
        script
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    pub fn input(&mut self, what: &str, input: Input) {
        self.line(&format!("> {what}"));
        self.room.handle(self.now, input);
        self.drain();
    }

    pub fn start(&mut self, session: u64, start: SessionStart) {
        let what = format!(
            "session {session}: {} as {} ({:?})",
            if start.reconnect { "resume" } else { "join" },
            start.identity,
            start.role
        );
        self.input(
            &what,
            Input::SessionStart {
                session: SessionId(session),
                start: Box::new(start),
            },
        );
    }

    pub fn request(&mut self, session: u64, message: Request) {
        let what = format!("session {session}: {}", request_line(&message));
        let frame = Frame::Binary(
            proto::SignalRequest {
                message: Some(message),
            }
            .encode_to_vec(),
        );
        self.input(
            &what,
            Input::Frame {
                session: SessionId(session),
                frame,
            },
        );
    }

    pub fn media(&mut self, event: Event) {
        let what = format!("shard: {event:?}");
        self.input(&what, Input::Media(event));
    }

    pub fn connected(&mut self, transport: u64) {
        let path = Path {
            protocol: Protocol::Udp,
            local: "192.0.2.7:20000".parse().expect("address"),
            remote: "198.51.100.1:4000".parse().expect("address"),
        };
        self.media(Event::Connected {
            transport: id(transport),
            profile: SrtpProfile::AeadAes256Gcm,
            path,
        });
    }

    pub fn data(&mut self, transport: u64, packet: &proto::DataPacket) {
        let what = format!("transport {transport}: data {}", json(packet));
        let event = Event::Data {
            transport: id(transport),
            channel: Channel::Reliable,
            payload: packet.encode_to_vec().into(),
        };
        self.input(&what, Input::Media(event));
    }

    pub fn admin(&mut self, actor: Option<&str>, call: AdminCall) -> Result<Vec<u8>, AdminRefusal> {
        self.requests += 1;
        let request = RequestId(self.requests);
        let name = format!("{call:?}");
        let name = name.split(['(', ' ']).next().unwrap_or_default();
        self.input(
            &format!("admin {name} by {}", actor.unwrap_or("the API")),
            Input::Admin {
                request,
                actor: actor.map(str::to_owned),
                call,
            },
        );
        self.last
            .iter()
            .find_map(|output| match output {
                Output::Admin {
                    request: other,
                    result,
                } if *other == request => Some(result.clone()),
                _ => None,
            })
            .expect("every call is answered")
    }

    pub fn knock(&mut self, knock: u64, entry_id: &str, role: Option<Role>) {
        let entry = Knock {
            entry_id: entry_id.into(),
            name: entry_id.into(),
            guest: role.is_none(),
            role,
        };
        self.input(
            &format!("knock {knock}: {entry_id}"),
            Input::Knock {
                knock: KnockId(knock),
                entry,
            },
        );
    }

    pub fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(at) = self.room.poll_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            let at = self.now.as_millis() - 1000;
            self.line(&format!("> {at} ms"));
            self.room.handle_timeout(self.now);
            self.drain();
        }
        self.now = until;
    }

    fn drain(&mut self) {
        self.last.clear();
        while let Some(output) = self.room.poll_output() {
            self.outputs += 1;
            let line = match &output {
                Output::Frame { session, frame } => {
                    let response = match frame {
                        Frame::Binary(bytes) => {
                            proto::SignalResponse::decode(bytes.as_slice()).expect("a response")
                        }
                        Frame::Text(bytes) => serde_json::from_slice(bytes).expect("a response"),
                    };
                    let line = format!("session {}: {}", session.0, json(&response));
                    self.responses
                        .entry(session.0)
                        .or_default()
                        .extend(response.message);
                    line
                }
                Output::Media(command) => {
                    self.commands.push(command.clone());
                    command_line(command)
                }
                Output::Event {
                    seq,
                    room_sid,
                    name,
                    body,
                } => {
                    self.events
                        .push((*seq, room_sid.clone(), name, body.clone()));
                    format!("event {seq}: {name}")
                }
                Output::Admin { request, result } => match result {
                    Ok(bytes) => format!("answer {}: {} bytes", request.0, bytes.len()),
                    Err(refusal) => {
                        format!("answer {}: {} ({refusal})", request.0, refusal.reason())
                    }
                },
                Output::Report(report) => format!("report: {report:?}"),
                other => format!("{other:?}"),
            };
            for (number, part) in line.replace("\\r\\n", "\n").lines().enumerate() {
                let _ = writeln!(
                    self.text,
                    "{} {part}",
                    if number == 0 { "<" } else { "    " }
                );
            }
            self.last.push(output);
        }
    }

    /// Responses of a session since the last call.
    pub fn take(&mut self, session: u64) -> Vec<Response> {
        self.responses.remove(&session).unwrap_or_default()
    }

    /// The last offer to a session.
    pub fn offer_of(&mut self, session: u64) -> proto::SessionDescription {
        let found = self.responses.get(&session).and_then(|all| {
            all.iter().rev().find_map(|message| match message {
                Response::Offer(offer) => Some(offer.clone()),
                _ => None,
            })
        });
        found.expect("an offer")
    }

    /// Answers the last offer as a browser does.
    pub fn answer(&mut self, session: u64) {
        let offer = self.offer_of(session);
        let sdp = answer_to(&offer.sdp, session);
        self.request(
            session,
            Request::Answer(proto::SessionDescription {
                r#type: "answer".into(),
                sdp,
                id: offer.id,
                ..Default::default()
            }),
        );
    }

    /// Numbers of a session's transports, by side, in order of their making.
    pub fn transports(&self, side: Side) -> Vec<u64> {
        self.commands
            .iter()
            .filter_map(|command| match command {
                Command::AddTransport {
                    transport,
                    side: other,
                    ..
                } if *other == side => Some(transport.0),
                _ => None,
            })
            .collect()
    }

    /// Compares with the golden file; `GOLDEN=write` writes it.
    #[expect(clippy::disallowed_methods, reason = "a test's golden files")]
    pub fn check(&self, name: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(format!("{name}.txt"));
        if std::env::var("GOLDEN").is_ok_and(|value| value == "write") {
            std::fs::write(&path, &self.text).expect("the golden file can be written");
            return;
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        for (number, (now, before)) in self.text.lines().zip(golden.lines()).enumerate() {
            assert_eq!(
                now,
                before,
                "{}:{}; GOLDEN=write accepts the new transcript",
                path.display(),
                number + 1
            );
        }
        assert_eq!(
            self.text.lines().count(),
            golden.lines().count(),
            "{}",
            path.display()
        );
    }
}

fn id(number: u64) -> TransportId {
    TransportId(number)
}

/// Protojson with sorted keys.
fn json<T: serde::Serialize>(message: &T) -> String {
    fn sorted(value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(map) => {
                let mut pairs: Vec<_> = map
                    .into_iter()
                    .map(|(key, value)| (key, sorted(value)))
                    .collect();
                pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
                serde_json::Value::Object(pairs.into_iter().collect())
            }
            serde_json::Value::Array(list) => {
                serde_json::Value::Array(list.into_iter().map(sorted).collect())
            }
            other => other,
        }
    }
    sorted(serde_json::to_value(message).expect("protojson")).to_string()
}

fn request_line(message: &Request) -> String {
    match message {
        Request::Offer(description) => format!("offer {}", description.id),
        Request::Answer(description) => format!("answer {}", description.id),
        other => {
            let request = proto::SignalRequest {
                message: Some(other.clone()),
            };
            // Clients may send numbers that protojson does not know; the room never does.
            if serde_json::to_value(&request).is_ok() {
                json(&request)
            } else {
                format!("{request:?}")
            }
        }
    }
}

fn command_line(command: &Command) -> String {
    match command {
        Command::SendData {
            transports,
            channel,
            payload,
        } => {
            let packet = proto::DataPacket::decode(&payload[..]).expect("a packet");
            format!(
                "to shard: SendData to {transports:?} on {channel:?}: {}",
                json(&packet)
            )
        }
        other => format!("to shard: {other:?}"),
    }
}

pub fn offer_message(sdp: String, id: u32) -> Request {
    Request::Offer(proto::SessionDescription {
        r#type: "offer".into(),
        sdp,
        id,
        ..Default::default()
    })
}

pub fn microphone(cid: &str) -> Request {
    Request::AddTrack(proto::AddTrackRequest {
        cid: cid.into(),
        name: "microphone".into(),
        r#type: proto::TrackType::Audio as i32,
        source: proto::TrackSource::Microphone as i32,
        ..Default::default()
    })
}

pub fn camera(cid: &str, codec: &str) -> Request {
    let layers: Vec<_> = [(0, 320, 180), (1, 640, 360), (2, 1280, 720)]
        .into_iter()
        .map(|(quality, width, height)| proto::VideoLayer {
            quality,
            width,
            height,
            ..Default::default()
        })
        .collect();
    Request::AddTrack(proto::AddTrackRequest {
        cid: cid.into(),
        name: "camera".into(),
        r#type: proto::TrackType::Video as i32,
        source: proto::TrackSource::Camera as i32,
        width: 1280,
        height: 720,
        layers: layers.clone(),
        simulcast_codecs: vec![proto::SimulcastCodec {
            codec: codec.into(),
            cid: cid.into(),
            layers,
            ..Default::default()
        }],
        ..Default::default()
    })
}

pub fn screen(cid: &str) -> Request {
    Request::AddTrack(proto::AddTrackRequest {
        cid: cid.into(),
        r#type: proto::TrackType::Video as i32,
        source: proto::TrackSource::ScreenShare as i32,
        width: 1920,
        height: 1080,
        ..Default::default()
    })
}

pub fn text(topic: Option<&str>, text: &str) -> proto::DataPacket {
    proto::DataPacket {
        value: Some(proto::data_packet::Value::User(proto::UserPacket {
            payload: text.as_bytes().to_vec(),
            topic: topic.map(str::to_owned),
            ..Default::default()
        })),
        ..Default::default()
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! Any bytes as signalling frames and data packets of a participant.
#![no_main]

use std::collections::BTreeMap;

use livekit_protocol as proto;
use media_core::api::{Channel, Command, Event, Fingerprint, Side};
use media_core::ids::{RoomIndex, ShardId, TransportId};
use media_core::time::{Timestamp, WallAnchor};
use media_room::api::{
    ClientParameters, Entropy, Facts, Frame, Grants, Input, LobbyRule, Output, Policy, RoomConfig,
    SessionId, SessionStart,
};
use media_room::room::Room;
use prost::Message as _;

struct Numbers;

impl Entropy for Numbers {
    fn fill(&mut self, bytes: &mut [u8]) {
        for (number, byte) in bytes.iter_mut().enumerate() {
            *byte = number as u8;
        }
    }
}

fn start(identity: &str) -> Box<SessionStart> {
    Box::new(SessionStart {
        identity: identity.into(),
        name: String::new(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        grants: Grants {
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
        },
        role: None,
        guest: false,
        opener: false,
        token_issued_unix_s: 1,
        client: ClientParameters {
            protocol: 17,
            auto_subscribe: true,
            ..ClientParameters::default()
        },
        reconnect: false,
        participant_sid: String::new(),
        reconnect_reason: 0,
        kind: String::new(),
        text_frames: false,
    })
}

fn room(now: Timestamp) -> Room {
    let policy = Policy {
        declared: false,
        lobby: LobbyRule::Off,
        guests_allowed: true,
        permissions: BTreeMap::new(),
        max_participants: 0,
        max_publishers: 0,
        empty_timeout_ms: 1000,
        departure_timeout_ms: 1000,
        max_duration_ms: 0,
        screen_share: true,
        e2ee_required: false,
        codecs: Vec::new(),
        revision: String::new(),
    };
    let config = RoomConfig {
        name: "fuzz".into(),
        index: RoomIndex(1),
        epoch: 1,
        policy,
        facts: Facts::default(),
        site: "s".into(),
        node_id: "n".into(),
        shard: ShardId(0),
        fingerprint: Fingerprint([1; 32]),
        candidates: Vec::new(),
        wall: WallAnchor {
            at: now,
            unix_nanos: 0,
        },
    };
    Room::new(config, Box::new(Numbers), now)
}

// Two people in a room; the bytes are cut into what the first of them says. The first byte of a piece tells how it is said, the
// second its length.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let now = Timestamp::from_millis(1000);
    let mut room = room(now);
    for (session, identity) in [(1, "one"), (2, "two")] {
        let session = SessionId(session);
        let start = start(identity);
        room.handle(now, Input::SessionStart { session, start });
    }
    let session = SessionId(1);
    let mut publisher = TransportId(0);
    let mut rest = data;
    loop {
        while let Some(output) = room.poll_output() {
            match output {
                Output::Media(Command::AddTransport {
                    transport,
                    side: Side::Publisher,
                    ..
                }) => publisher = transport,
                // What a client gets can be read by it.
                Output::Frame {
                    frame: Frame::Binary(bytes),
                    ..
                } => {
                    proto::SignalResponse::decode(bytes.as_slice()).expect("a response");
                }
                _ => {}
            }
        }
        let [how, length, tail @ ..] = rest else {
            break;
        };
        let (piece, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        let input = match how % 3 {
            0 => Input::Frame {
                session,
                frame: Frame::Binary(piece.to_vec()),
            },
            1 => Input::Frame {
                session,
                frame: Frame::Text(piece.to_vec()),
            },
            _ => Input::Media(Event::Data {
                transport: publisher,
                channel: Channel::Reliable,
                payload: piece.into(),
            }),
        };
        room.handle(now, input);
    }
});

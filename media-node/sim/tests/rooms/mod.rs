// SPDX-License-Identifier: EUPL-1.2
//! Rooms on shards with real SRTP, and headless clients, in virtual time and without a network between them.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared by several tests, each of which takes what it needs"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use livekit_protocol as proto;
use livekit_protocol::signal_response::Message as Response;
use media_core::api::{Channel, Command, Side};
use media_core::ids::{RoomIndex, ShardId};
use media_core::io::{Path, Protocol, RecvBatch};
use media_core::shard::{Shard, ShardConfig};
use media_core::time::{Timestamp, WallAnchor};
use media_crypto::{AwsLc, Certificate};
use media_room::api::{
    AdminCall, AdminRefusal, Candidate, ChatRule, ClientParameters, Entropy, Facts, Frame, Grants,
    Input, JoinRefusal, Knock, KnockId, KnockUpdate, LobbyRule, Output, Permission, Policy,
    RequestId, Role, RoomConfig, RoomReport, SessionId, SessionStart,
};
use media_room::room::Room;
use media_sim::random::Random;
use plenum_load::headless::{Event, Headless, Options};
use prost::Message as _;

/// Wall time of the first moment.
pub const UNIX_S: i64 = 1_800_000_000;
/// Index of every room here: one per shard.
pub const ROOM: RoomIndex = RoomIndex(7);

/// Seeded randomness of a room.
pub struct Seeded(pub Random);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.0.next() as u8;
        }
    }
}

/// Who commands the shard's gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// The room.
    Kept,
    /// The test; what the room says of it is not heard.
    Held,
    /// Nobody: it is open from the start, to show that a test sees it.
    TakenOut,
}

/// One node: one shard with one room.
pub struct Node {
    pub room: Room,
    pub shard: Shard<AwsLc>,
    pub reports: Vec<RoomReport>,
    pub events: Vec<(u64, &'static str)>,
    pub answers: BTreeMap<u64, Result<Vec<u8>, AdminRefusal>>,
    pub knocks: BTreeMap<u64, Vec<KnockUpdate>>,
    pub ended: Option<&'static str>,
    pub gate: Gate,
    /// As the room said last.
    pub is_open: bool,
    /// Packets that were forwarded while the room said that the gate is closed.
    pub leaked: u64,
}

/// One client and what it saw.
pub struct Person {
    pub client: Headless,
    pub start: SessionStart,
    pub node: usize,
    pub session: Option<SessionId>,
    pub refused: Option<JoinRefusal>,
    pub closed: bool,
    pub events: Vec<Event>,
    pub tokens: usize,
    addresses: (SocketAddr, SocketAddr),
}

impl Person {
    /// Signalling messages of a kind.
    pub fn signals<T>(&self, pick: impl Fn(&Response) -> Option<T>) -> Vec<T> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Signal(message) => pick(message),
                _ => None,
            })
            .collect()
    }

    /// Data packets received.
    pub fn data(&self) -> Vec<proto::DataPacket> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Data(_, bytes) => proto::DataPacket::decode(bytes.as_slice()).ok(),
                _ => None,
            })
            .collect()
    }

    /// Media packets received.
    pub fn packets(&self) -> u64 {
        self.client
            .received()
            .values()
            .map(|counters| counters.packets)
            .sum()
    }

    /// The node's last word.
    pub fn left(&self) -> Option<&proto::LeaveRequest> {
        self.events.iter().find_map(|event| match event {
            Event::Left(leave) => Some(leave),
            _ => None,
        })
    }
}

/// Everything.
pub struct World {
    pub now: Timestamp,
    pub nodes: Vec<Node>,
    pub people: Vec<Person>,
    certificate: Arc<Certificate>,
    random: Random,
    /// Rooms take everything that roster and peers say through its serialised form.
    by_wire: bool,
    next_session: u64,
    next_request: u64,
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

/// What a control plane makes of a token.
pub fn start(identity: &str, role: Option<Role>, opener: bool) -> SessionStart {
    SessionStart {
        identity: identity.to_owned(),
        name: identity.to_uppercase(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        grants: grants(),
        role,
        guest: role == Some(Role::Guest),
        opener,
        token_issued_unix_s: UNIX_S,
        client: ClientParameters {
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

/// The preset `Meeting`, with a silent screen for guests and a restricted chat.
pub fn declared(lobby: LobbyRule) -> Policy {
    let permission = |screen_share, chat, moderate| Permission {
        microphone: true,
        camera: true,
        screen_share,
        chat,
        moderate,
        record: false,
        enter_muted: false,
    };
    Policy {
        declared: true,
        lobby,
        permissions: BTreeMap::from([
            (Role::Moderator, permission(true, ChatRule::Everyone, true)),
            (Role::Presenter, permission(true, ChatRule::Everyone, false)),
            (
                Role::Participant,
                permission(true, ChatRule::Everyone, false),
            ),
            (Role::Guest, permission(false, ChatRule::Moderators, false)),
        ]),
        ..ad_hoc()
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let certificate = Arc::new(Certificate::generate().expect("certificate"));
        Self {
            by_wire: true,
            ..Self::with_certificate(seed, certificate)
        }
    }

    /// Shares a certificate, so that many worlds are cheap.
    pub fn with_certificate(seed: u64, certificate: Arc<Certificate>) -> Self {
        Self {
            now: Timestamp::from_millis(1000),
            nodes: Vec::new(),
            people: Vec::new(),
            certificate,
            random: Random::new(seed),
            by_wire: false,
            next_session: 0,
            next_request: 0,
        }
    }

    fn address(node: usize) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, node as u8 + 1], 20_000))
    }

    /// A node with a room; its number.
    pub fn add_node(&mut self, policy: Policy, facts: Facts) -> usize {
        let number = self.nodes.len();
        let wall = WallAnchor {
            at: Timestamp::ZERO,
            unix_nanos: UNIX_S as u64 * 1_000_000_000,
        };
        let config = RoomConfig {
            name: "council".into(),
            index: ROOM,
            epoch: number as u64 + 1,
            policy,
            facts,
            site: "hamburg".into(),
            node_id: format!("node{number}"),
            shard: ShardId(0),
            fingerprint: self.certificate.fingerprint(),
            candidates: vec![
                Candidate {
                    protocol: Protocol::Udp,
                    address: Self::address(number),
                },
                Candidate {
                    protocol: Protocol::Tcp,
                    address: Self::address(number),
                },
            ],
            wall,
        };
        let shard = Shard::new(
            ShardId(0),
            ShardConfig::default(),
            AwsLc::seeded(self.certificate.clone(), self.random.next()),
            self.now,
            wall,
        );
        let mut room = Room::new(
            config,
            Box::new(Seeded(Random::new(self.random.next()))),
            self.now,
        );
        if self.by_wire {
            room.by_wire();
        }
        self.nodes.push(Node {
            room,
            shard,
            reports: Vec::new(),
            events: Vec::new(),
            answers: BTreeMap::new(),
            knocks: BTreeMap::new(),
            ended: None,
            gate: Gate::Kept,
            is_open: false,
            leaked: 0,
        });
        self.pump();
        number
    }

    /// A client that has not joined; its number.
    pub fn add_person(&mut self, start: SessionStart) -> usize {
        let number = self.people.len();
        let address = |port| SocketAddr::from(([10, 1, (number >> 8) as u8, number as u8], port));
        let addresses = (address(1000), address(1001));
        let client = self.client(addresses);
        self.people.push(Person {
            client,
            start,
            node: 0,
            session: None,
            refused: None,
            closed: false,
            events: Vec::new(),
            tokens: 0,
            addresses,
        });
        number
    }

    fn client(&mut self, addresses: (SocketAddr, SocketAddr)) -> Headless {
        Headless::new(
            AwsLc::seeded(self.certificate.clone(), self.random.next()),
            Options {
                publisher_address: addresses.0,
                subscriber_address: addresses.1,
                protocol: Protocol::Udp,
                keep_media: false,
            },
        )
    }

    /// Joins (anew) on a node: another client at the same addresses.
    pub fn join(&mut self, person: usize, node: usize) {
        let addresses = self.people[person].addresses;
        let client = self.client(addresses);
        let session = self.session();
        let who = &mut self.people[person];
        who.client = client;
        who.node = node;
        who.session = Some(session);
        who.refused = None;
        who.closed = false;
        who.events.clear();
        let start = Box::new(SessionStart {
            reconnect: false,
            participant_sid: String::new(),
            ..who.start.clone()
        });
        self.nodes[node]
            .room
            .handle(self.now, Input::SessionStart { session, start });
        self.pump();
    }

    /// Comes back to the same participant with another WebSocket.
    pub fn resume(&mut self, person: usize) {
        let session = self.session();
        let who = &mut self.people[person];
        let participant_sid = who.client.sid().unwrap_or_default().to_owned();
        who.session = Some(session);
        who.closed = false;
        let start = Box::new(SessionStart {
            reconnect: true,
            participant_sid,
            ..who.start.clone()
        });
        let node = who.node;
        self.nodes[node]
            .room
            .handle(self.now, Input::SessionStart { session, start });
        self.pump();
    }

    /// The WebSocket breaks; media goes on.
    pub fn cut(&mut self, person: usize) {
        let who = &mut self.people[person];
        if let Some(session) = who.session.take() {
            let node = who.node;
            self.nodes[node].room.handle(
                self.now,
                Input::SessionEnd {
                    session,
                    clean: false,
                },
            );
            self.pump();
        }
    }

    fn session(&mut self) -> SessionId {
        self.next_session += 1;
        SessionId(self.next_session)
    }

    /// An administrative call and its answer.
    pub fn admin(
        &mut self,
        node: usize,
        actor: Option<&str>,
        call: AdminCall,
    ) -> Result<Vec<u8>, AdminRefusal> {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.nodes[node].room.handle(
            self.now,
            Input::Admin {
                request,
                actor: actor.map(str::to_owned),
                call,
            },
        );
        self.pump();
        self.nodes[node]
            .answers
            .remove(&request.0)
            .expect("every call is answered")
    }

    /// Somebody knocks; their number.
    pub fn knock(&mut self, node: usize, entry_id: &str, guest: bool) -> KnockId {
        self.next_request += 1;
        let knock = KnockId(self.next_request);
        let entry = Knock {
            entry_id: entry_id.into(),
            name: entry_id.to_uppercase(),
            guest,
            role: None,
        };
        self.nodes[node]
            .room
            .handle(self.now, Input::Knock { knock, entry });
        self.pump();
        knock
    }

    /// Carries everything that waits, at this moment.
    pub fn pump(&mut self) {
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for number in 0..self.nodes.len() {
                moved |= self.pump_node(number);
            }
            for number in 0..self.people.len() {
                moved |= self.pump_person(number);
            }
        }
    }

    fn pump_node(&mut self, number: usize) -> bool {
        let mut moved = false;
        let now = self.now;
        let node = &mut self.nodes[number];
        while let Some(output) = node.room.poll_output() {
            moved = true;
            let find = |people: &mut Vec<Person>, session: SessionId| {
                people
                    .iter_mut()
                    .position(|person| person.session == Some(session) && person.node == number)
            };
            match output {
                Output::Frame { session, frame } => {
                    if let Some(person) = find(&mut self.people, session) {
                        let message = match frame {
                            Frame::Binary(bytes) => {
                                proto::SignalResponse::decode(bytes.as_slice()).expect("a response")
                            }
                            Frame::Text(bytes) => {
                                serde_json::from_slice(&bytes).expect("a response")
                            }
                        };
                        self.people[person].client.handle_signal(now, message);
                    }
                }
                Output::Refused { session, refusal } => {
                    if let Some(person) = find(&mut self.people, session) {
                        self.people[person].refused = Some(refusal);
                        self.people[person].session = None;
                    }
                }
                Output::Close { session, .. } => {
                    if let Some(person) = find(&mut self.people, session) {
                        self.people[person].closed = true;
                        self.people[person].session = None;
                    }
                }
                Output::TokenFacts { session, .. } => {
                    if let Some(person) = find(&mut self.people, session) {
                        self.people[person].tokens += 1;
                    }
                }
                Output::Media(command) => {
                    if let Command::SetGate { open, .. } = &command {
                        node.is_open = *open;
                    }
                    if node.gate == Gate::Kept || !matches!(command, Command::SetGate { .. }) {
                        node.shard.handle_command(now, command);
                    }
                }
                Output::Knock { knock, update } => {
                    node.knocks.entry(knock.0).or_default().push(update)
                }
                Output::Admin { request, result } => {
                    node.answers.insert(request.0, result);
                }
                Output::Report(report) => node.reports.push(*report),
                Output::Event { seq, name, .. } => node.events.push((seq, name)),
                Output::Ended { reason } => node.ended = Some(reason),
            }
        }
        let forwarded = node.shard.counters().forwarded_packets;
        let mut datagrams: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
        while let Some(transmit) = node.shard.poll_transmit() {
            for datagram in transmit.bytes.chunks(transmit.segment.max(1)) {
                datagrams.push((transmit.path.remote, datagram.to_vec()));
            }
        }
        if !node.is_open {
            node.leaked += node.shard.counters().forwarded_packets - forwarded;
        }
        while let Some(event) = node.shard.poll_event() {
            moved = true;
            node.room.handle(now, Input::Media(event));
        }
        for (to, mut datagram) in datagrams {
            moved = true;
            for person in self
                .people
                .iter_mut()
                .filter(|person| person.node == number)
            {
                let side = match to {
                    to if to == person.addresses.0 => Side::Publisher,
                    to if to == person.addresses.1 => Side::Subscriber,
                    _ => continue,
                };
                person.client.handle_datagram(now, side, &mut datagram);
            }
        }
        moved
    }

    fn pump_person(&mut self, number: usize) -> bool {
        let mut moved = false;
        let now = self.now;
        let person = &mut self.people[number];
        let Some(node) = self.nodes.get_mut(person.node) else {
            return false;
        };
        while let Some(request) = person.client.poll_request() {
            moved = true;
            if let Some(session) = person.session {
                node.room.handle(
                    now,
                    Input::Frame {
                        session,
                        frame: Frame::Binary(request.encode_to_vec()),
                    },
                );
            }
        }
        let mut batch = RecvBatch::default();
        while let Some((_, path, datagram)) = person.client.poll_transmit() {
            let path = Path {
                protocol: path.protocol,
                local: path.remote,
                remote: path.local,
            };
            batch.push(path, &datagram);
        }
        if !batch.metas.is_empty() {
            moved = true;
            node.shard.handle_datagrams(now, &mut batch);
        }
        while let Some(event) = person.client.poll_event() {
            person.events.push(event);
        }
        moved
    }

    /// Lets time pass until `until`, with every timer in between.
    pub fn run_until(&mut self, until: Timestamp) {
        self.pump();
        loop {
            let nodes = self
                .nodes
                .iter()
                .flat_map(|node| [node.room.poll_deadline(), node.shard.poll_deadline()]);
            let people = self
                .people
                .iter()
                .map(|person| person.client.poll_deadline());
            let next = nodes.chain(people).flatten().min();
            let Some(at) = next.filter(|at| *at <= until) else {
                break;
            };
            // A timer that is due does not fire again at the same moment for ever.
            self.now = self
                .now
                .max(at)
                .max(self.now + Duration::from_micros(100))
                .min(until.max(self.now));
            let now = self.now;
            for node in &mut self.nodes {
                if node.shard.poll_deadline().is_some_and(|at| at <= now) {
                    node.shard.handle_timeout(now);
                }
                if node.room.poll_deadline().is_some_and(|at| at <= now) {
                    node.room.handle_timeout(now);
                }
            }
            for person in &mut self.people {
                if person.client.poll_deadline().is_some_and(|at| at <= now) {
                    person.client.handle_timeout(now);
                }
            }
            self.pump();
            if self.now >= until {
                break;
            }
        }
        self.now = self.now.max(until);
        self.pump();
    }

    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    /// Everybody in `senders` sends `frames` frames of each of their tracks, 20 ms apart.
    pub fn talk(&mut self, senders: &[usize], frames: u32) {
        for frame in 0..frames {
            for person in senders {
                let client = &mut self.people[*person].client;
                let tracks: Vec<(String, bool, usize)> = client
                    .tracks()
                    .iter()
                    .map(|track| {
                        (
                            track.offered.cid.clone(),
                            track.source.is_video(),
                            track.offered.ssrcs.len(),
                        )
                    })
                    .collect();
                for (cid, video, layers) in tracks {
                    for layer in 0..layers {
                        let clock = if video { 90_000 } else { 48_000 };
                        client.send_frame(
                            &cid,
                            layer,
                            (frame + 1) * clock / 50,
                            &[frame as u8; 400],
                        );
                    }
                }
            }
            self.run_for(Duration::from_millis(20));
        }
    }

    /// A user packet of a client, with `topic`.
    pub fn say(&mut self, person: usize, topic: Option<&str>, text: &str) {
        let packet = proto::DataPacket {
            value: Some(proto::data_packet::Value::User(proto::UserPacket {
                payload: text.as_bytes().to_vec(),
                topic: topic.map(str::to_owned),
                ..Default::default()
            })),
            ..Default::default()
        };
        self.send(person, &packet);
    }

    /// Any packet of a client.
    pub fn send(&mut self, person: usize, packet: &proto::DataPacket) {
        let now = self.now;
        let _ =
            self.people[person]
                .client
                .send_data(now, Channel::Reliable, &packet.encode_to_vec());
        self.run_for(Duration::from_millis(50));
    }
}

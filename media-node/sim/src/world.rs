// SPDX-License-Identifier: EUPL-1.2
//! Shards, clients, and the wires between them.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use media_core::api::{
    Channel, Codec, Command, Encoding, Event, ExtensionMap, Fingerprint, Format, IceCredentials,
    Kind, LayerWish, PayloadBinding, Publication, Side, Subscription, TransportFailure,
};
use media_core::ids::{
    ExtSeq, ExtensionId, ParticipantId, PayloadType, PublicationId, RoomIndex, ShardId, Ssrc,
    SubscriptionId, TransportId,
};
use media_core::io::{Path, Protocol, RecvBatch};
use media_core::rtp::header::{Header, Writer};
use media_core::rtp::rtcp::{self, Message};
use media_core::shard::{Shard, ShardConfig};
use media_core::srtp::{self, Direction, Replay};
use media_core::time::{Timestamp, WallAnchor};
use media_core::transport::client::ClientTransport;
use media_core::transport::{TransportEvent, TransportOut, stun};
use media_crypto::{AwsLc, Certificate};

use crate::inbound::{Inbound, Report};
use crate::random::Random;
use crate::source::{Packet, Source, payload};

/// The room of a world.
pub const ROOM: RoomIndex = RoomIndex(1);
const FIRST_PORT: u16 = 10_000;

/// How bad a wire is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weather {
    /// Part of the datagrams that are lost.
    pub lost: f64,
    /// Part that is delayed so that others overtake.
    pub reordered: f64,
    /// Part that comes twice.
    pub repeated: f64,
}

impl Weather {
    /// Nothing happens to a datagram.
    pub const CLEAR: Self = Self {
        lost: 0.0,
        reordered: 0.0,
        repeated: 0.0,
    };
    /// What every call has to survive: 5 % loss, 2 % reordering, 1 % duplication.
    pub const ROUGH: Self = Self {
        lost: 0.05,
        reordered: 0.02,
        repeated: 0.01,
    };
}

/// A client with one peer connection for both ways, which is all a shard can tell.
struct Client {
    home: usize,
    crypto: AwsLc,
    ice: ClientTransport<AwsLc>,
    keys: Option<(Direction<AwsLc>, Direction<AwsLc>)>,
    rtcp_out: u32,
    sources: Vec<(PublicationId, Source)>,
    inbound: HashMap<Ssrc, Inbound>,
    /// Retransmission stream to media stream.
    rtx: HashMap<Ssrc, Ssrc>,
    next_report: Timestamp,
    transport_sequence: u16,
    feedback: usize,
    data: Vec<(Channel, Vec<u8>)>,
    failure: Option<TransportFailure>,
    rogue: bool,
    ports: u16,
}

/// A datagram on its way.
struct Flying {
    to_server: bool,
    client: usize,
    path: Path,
    datagram: Vec<u8>,
}

/// A subscription with what it belongs to.
#[derive(Clone, Copy, Debug)]
struct Link {
    client: usize,
    ssrc: Ssrc,
    publication: PublicationId,
    captures_before: u64,
}

/// The simulation.
pub struct World {
    /// Shards of as many nodes.
    pub shards: Vec<Shard<AwsLc>>,
    /// All events of all shards.
    pub events: Vec<Event>,
    now: Timestamp,
    random: Random,
    weather: Weather,
    clients: Vec<Client>,
    flight: BTreeMap<(Timestamp, u64), Flying>,
    order: u64,
    next_id: u64,
    links: HashMap<SubscriptionId, Link>,
    forwarded: HashMap<SubscriptionId, Option<u8>>,
    fingerprint: Fingerprint,
    /// Moves under way: transport to old shard.
    moving: HashMap<TransportId, usize>,
    /// Per outgoing stream what was sealed under which index.
    sealed: HashMap<(usize, Ssrc), (Replay, BTreeMap<u64, u64>)>,
    /// Media datagrams the shards sent.
    pub sent: usize,
}

fn server(shard: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 2000 + shard as u16))
}

fn credentials(name: &str) -> IceCredentials {
    IceCredentials {
        ufrag: name.to_owned(),
        password: format!("{name}-and-some-more-characters"),
    }
}

/// Header extensions of publishers.
#[must_use]
pub fn published_extensions() -> ExtensionMap {
    ExtensionMap {
        mid: ExtensionId(1),
        rid: ExtensionId(2),
        repaired_rid: ExtensionId(3),
        audio_level: ExtensionId(4),
        transport_cc: ExtensionId(5),
        ..ExtensionMap::NONE
    }
}

/// Payload types of everybody.
#[must_use]
pub fn payloads() -> Vec<PayloadBinding> {
    let binding = |payload_type: PayloadType, codec, clock_rate| PayloadBinding {
        payload_type,
        format: Format { codec, variant: 0 },
        rtx: (clock_rate == 90_000).then(|| payload::rtx(payload_type)),
        clock_rate,
    };
    vec![
        binding(payload::VP8, Codec::Vp8, 90_000),
        binding(payload::H264, Codec::H264, 90_000),
        binding(payload::VP9, Codec::Vp9, 90_000),
        binding(payload::AV1, Codec::Av1, 90_000),
        binding(payload::OPUS, Codec::Opus, 48_000),
        binding(payload::RED, Codec::Red, 48_000),
    ]
}

impl World {
    /// One shard.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_shards(seed, 1)
    }

    /// Several, each with the same room; clients join the first.
    #[must_use]
    pub fn with_shards(seed: u64, count: usize) -> Self {
        let certificate = Arc::new(Certificate::generate().expect("certificate"));
        let fingerprint = certificate.fingerprint();
        let now = Timestamp::from_millis(1000);
        let wall = WallAnchor {
            at: now,
            unix_nanos: 1_700_000_000_000_000_000,
        };
        let shards = (0..count)
            .map(|index| {
                // Another node has another certificate.
                let certificate = if index == 0 {
                    Arc::clone(&certificate)
                } else {
                    Arc::new(Certificate::generate().expect("certificate"))
                };
                let crypto = AwsLc::seeded(certificate, seed ^ index as u64);
                let mut shard = Shard::new(
                    ShardId(index as u8),
                    ShardConfig::default(),
                    crypto,
                    now,
                    wall,
                );
                shard.handle_command(now, Command::AddRoom { room: ROOM });
                shard
            })
            .collect();
        Self {
            shards,
            events: Vec::new(),
            now,
            random: Random::new(seed),
            weather: Weather::CLEAR,
            clients: Vec::new(),
            flight: BTreeMap::new(),
            order: 0,
            next_id: 100,
            links: HashMap::new(),
            forwarded: HashMap::new(),
            fingerprint,
            moving: HashMap::new(),
            sealed: HashMap::new(),
            sent: 0,
        }
    }

    /// Changes the weather of all wires.
    pub fn weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    /// The first shard.
    #[must_use]
    pub fn shard(&self) -> &Shard<AwsLc> {
        &self.shards[0]
    }

    /// Virtual time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Opens the room on all shards.
    pub fn open(&mut self) {
        self.gate(true);
    }

    /// Opens or closes it.
    pub fn gate(&mut self, open: bool) {
        for shard in 0..self.shards.len() {
            self.command_at(shard, Command::SetGate { room: ROOM, open });
        }
    }

    /// A command to the first shard.
    pub fn command(&mut self, command: Command) {
        self.command_at(0, command);
    }

    /// A command to one shard.
    pub fn command_at(&mut self, shard: usize, command: Command) {
        self.shards[shard].handle_command(self.now, command);
        self.drain(shard);
    }

    fn path(&self, client: usize) -> Path {
        let known = &self.clients[client];
        Self::path_of(known.home, client, known.ports)
    }

    fn path_of(shard: usize, client: usize, ports: u16) -> Path {
        let remote = SocketAddr::from(([127, 0, 0, 1], FIRST_PORT + 1000 * ports + client as u16));
        Path {
            protocol: Protocol::Udp,
            local: server(shard),
            remote,
        }
    }

    fn turned(path: Path) -> Path {
        Path {
            local: path.remote,
            remote: path.local,
            ..path
        }
    }

    /// A client joins and connects.
    pub fn join(&mut self) -> usize {
        let client = self.begin_join();
        self.run(Duration::from_secs(1));
        assert!(self.clients[client].keys.is_some(), "joined");
        client
    }

    /// A client that begins to connect.
    pub fn begin_join(&mut self) -> usize {
        let client = self.clients.len();
        let certificate = Arc::new(Certificate::generate().expect("certificate"));
        let crypto = AwsLc::seeded(Arc::clone(&certificate), client as u64 + 10);
        let (ours, theirs) = (
            credentials(&format!("00server{client}")),
            credentials(&format!("client{client}")),
        );
        let path = Self::path_of(0, client, 0);
        let dtls = crypto.dtls_client(self.fingerprint, self.now);
        let ice = ClientTransport::new(
            theirs.clone(),
            ours.clone(),
            Self::turned(path),
            dtls,
            true,
            self.now,
        );
        let transport = TransportId(client as u64);
        self.clients.push(Client {
            home: 0,
            crypto,
            ice,
            keys: None,
            rtcp_out: 0,
            sources: Vec::new(),
            inbound: HashMap::new(),
            rtx: HashMap::new(),
            next_report: self.now,
            transport_sequence: 65_000,
            feedback: 0,
            data: Vec::new(),
            failure: None,
            rogue: false,
            ports: 0,
        });
        self.command(Command::AddTransport {
            transport,
            room: ROOM,
            participant: ParticipantId(client as u64),
            side: Side::Publisher,
            local: ours,
        });
        self.command(Command::SetRemote {
            transport,
            remote: theirs,
            fingerprint: certificate.fingerprint(),
        });
        client
    }

    /// Begins to move a client to another shard by an ICE restart: the new one fetches the state when the first check arrives.
    pub fn begin_move(&mut self, client: usize, shard: usize) {
        let transport = TransportId(client as u64);
        let fresh = credentials(&format!(
            "{shard:02}fresh{client}-{}",
            self.clients[client].ports
        ));
        self.command_at(
            shard,
            Command::AddTransport {
                transport,
                room: ROOM,
                participant: ParticipantId(client as u64),
                side: Side::Publisher,
                local: fresh.clone(),
            },
        );
        let known = &mut self.clients[client];
        self.moving.insert(transport, known.home);
        known.home = shard;
        known.ports += 1;
        let path = Self::turned(Self::path_of(shard, client, known.ports));
        known.ice.restart(fresh, path, self.now);
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Publishes a track of `layers` layers.
    pub fn publish(&mut self, client: usize, codec: Codec, layers: usize) -> PublicationId {
        let id = PublicationId(self.id());
        let source = Source::new(codec, layers, 1000 * id.0 as u32, self.now);
        let encodings = source
            .layers
            .iter()
            .map(|layer| Encoding {
                rid: layer.rid.clone(),
                ssrc: layer.rid.is_none().then_some(layer.ssrc),
                rtx_ssrc: layer.rid.is_none().then_some(layer.rtx_ssrc),
            })
            .collect();
        let kind = if source.is_audio() {
            Kind::Audio
        } else {
            Kind::Video
        };
        self.clients[client].sources.push((id, source));
        let home = self.clients[client].home;
        self.command_at(
            home,
            Command::Publish(Box::new(Publication {
                id,
                transport: TransportId(client as u64),
                kind,
                mid: id.0.to_string(),
                encodings,
                payloads: payloads(),
                extensions: published_extensions(),
            })),
        );
        id
    }

    /// What a client publishes.
    pub fn source(&mut self, publication: PublicationId) -> &mut Source {
        self.clients
            .iter_mut()
            .flat_map(|client| &mut client.sources)
            .find(|(id, _)| *id == publication)
            .map(|(_, source)| source)
            .expect("published")
    }

    /// Instead of what it declared the client sends from another SSRC.
    pub fn rogue_source(&mut self, client: usize) {
        self.clients[client].rogue = true;
    }

    /// Subscribes as a client that reads everything but RED.
    pub fn subscribe(&mut self, client: usize, publication: PublicationId) -> SubscriptionId {
        let readable = payloads()
            .into_iter()
            .filter(|binding| binding.format.codec != Codec::Red)
            .collect();
        self.subscribe_with(client, publication, readable)
    }

    /// Subscribes with these payload types.
    pub fn subscribe_with(
        &mut self,
        client: usize,
        publication: PublicationId,
        payloads: Vec<PayloadBinding>,
    ) -> SubscriptionId {
        let id = SubscriptionId(self.id());
        let (ssrc, rtx_ssrc) = (
            Ssrc(500_000 + 10 * id.0 as u32),
            Ssrc(500_001 + 10 * id.0 as u32),
        );
        let captures_before = self.source(publication).captures;
        self.clients[client]
            .inbound
            .insert(ssrc, Inbound::default());
        self.clients[client].rtx.insert(rtx_ssrc, ssrc);
        self.links.insert(
            id,
            Link {
                client,
                ssrc,
                publication,
                captures_before,
            },
        );
        let home = self.clients[client].home;
        self.command_at(
            home,
            Command::Subscribe(Box::new(Subscription {
                id,
                publication,
                transport: TransportId(client as u64),
                mid: id.0.to_string(),
                ssrc,
                rtx_ssrc: Some(rtx_ssrc),
                payloads,
                extensions: ExtensionMap {
                    audio_level: ExtensionId(4),
                    abs_send_time: ExtensionId(6),
                    ..ExtensionMap::NONE
                },
            })),
        );
        id
    }

    /// Wishes a layer, or a pause.
    pub fn wish(
        &mut self,
        subscription: SubscriptionId,
        enabled: bool,
        max_encoding: u8,
        max_temporal: u8,
    ) {
        let home = self.clients[self.links[&subscription].client].home;
        self.command_at(
            home,
            Command::SetLayers {
                subscription,
                wish: LayerWish {
                    enabled,
                    max_encoding,
                    max_temporal,
                },
            },
        );
    }

    /// Layer that is forwarded.
    #[must_use]
    pub fn forwarded(&self, subscription: SubscriptionId) -> Option<u8> {
        self.forwarded.get(&subscription).copied().flatten()
    }

    /// What came of a subscription.
    #[must_use]
    pub fn received(&self, subscription: SubscriptionId) -> &Report {
        let link = &self.links[&subscription];
        self.clients[link.client].inbound[&link.ssrc].report()
    }

    /// The next pause of a subscription is wished for.
    pub fn forget_pause(&mut self, subscription: SubscriptionId) {
        let link = self.links[&subscription];
        if let Some(inbound) = self.clients[link.client].inbound.get_mut(&link.ssrc) {
            inbound.forget_pause();
        }
    }

    /// Captures made since a subscription began.
    pub fn captures(&mut self, subscription: SubscriptionId) -> u64 {
        let link = self.links[&subscription];
        self.source(link.publication).captures - link.captures_before
    }

    /// Transport-wide feedback messages a client received.
    #[must_use]
    pub fn feedback(&self, client: usize) -> usize {
        self.clients[client].feedback
    }

    /// Messages a client received.
    #[must_use]
    pub fn data(&self, client: usize) -> &[(Channel, Vec<u8>)] {
        &self.clients[client].data
    }

    /// Did the client's connection end?
    #[must_use]
    pub fn failure(&self, client: usize) -> Option<TransportFailure> {
        self.clients[client].failure
    }

    /// Messages that rooms would have received.
    #[must_use]
    pub fn data_events(&self) -> usize {
        self.events
            .iter()
            .filter(|event| matches!(event, Event::Data { .. }))
            .count()
    }

    /// A client sends a message.
    pub fn send_data(&mut self, client: usize, channel: Channel, data: &[u8]) {
        let mut out = TransportOut::default();
        let known = &mut self.clients[client];
        known
            .ice
            .send_data(self.now, &mut known.crypto, channel, data, &mut out)
            .expect("the channel is open");
        self.take(client, out);
    }

    fn put(&mut self, to_server: bool, client: usize, path: Path, datagram: Vec<u8>) {
        if self.random.chance(self.weather.lost) {
            return;
        }
        let mut delay = Duration::from_millis(15);
        if self.random.chance(self.weather.reordered) {
            delay += Duration::from_millis(1 + self.random.below(25));
        }
        let copies = if self.random.chance(self.weather.repeated) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            self.order += 1;
            self.flight.insert(
                (self.now + delay, self.order),
                Flying {
                    to_server,
                    client,
                    path,
                    datagram: datagram.clone(),
                },
            );
        }
    }

    fn drain(&mut self, shard: usize) {
        let mut sent = Vec::new();
        while let Some(transmit) = self.shards[shard].poll_transmit() {
            for datagram in transmit.bytes.chunks(transmit.segment) {
                sent.push((transmit.path, datagram.to_vec()));
            }
        }
        for (path, datagram) in sent {
            let client = usize::from((path.remote.port() - FIRST_PORT) % 1000);
            self.check_sealed(client, &datagram);
            self.put(false, client, path, datagram);
        }
        while let Some(event) = self.shards[shard].poll_event() {
            match &event {
                Event::EncodingForwarded {
                    subscription,
                    encoding,
                } => {
                    self.forwarded.insert(*subscription, *encoding);
                }
                Event::Refused { reason, .. } => panic!("refused: {reason}"),
                Event::AwaitsState { transport } => {
                    if let Some(old) = self.moving.get(transport).copied() {
                        self.command_at(
                            old,
                            Command::Export {
                                transport: *transport,
                            },
                        );
                    }
                }
                Event::Exported { transport, state } => {
                    let written = serde_json::to_vec(state).expect("plain data");
                    let state = Box::new(serde_json::from_slice(&written).expect("plain data"));
                    let new = self.clients[transport.0 as usize].home;
                    self.moving.remove(transport);
                    self.command_at(
                        new,
                        Command::Import {
                            transport: *transport,
                            state,
                        },
                    );
                }
                _ => {}
            }
            self.events.push(event);
        }
    }

    /// One outgoing index may seal one content only: a second one under the same key would give AES-GCM away.
    fn check_sealed(&mut self, client: usize, datagram: &[u8]) {
        if !matches!(datagram.first(), Some(128..=191)) || (192..224).contains(&datagram[1]) {
            return;
        }
        self.sent += 1;
        let header = Header::parse(datagram).expect("RTP");
        let (numbers, contents) = self.sealed.entry((client, header.ssrc)).or_default();
        let index = numbers.extend(header.sequence);
        if numbers.is_fresh(index.0) {
            numbers.accept(index.0);
        }
        let mut hasher = DefaultHasher::new();
        datagram.hash(&mut hasher);
        let hash = hasher.finish();
        if let Some(before) = contents.insert(index.0, hash) {
            assert_eq!(
                before, hash,
                "index {index} of {} to client {client} sealed two contents",
                header.ssrc
            );
        }
        if contents.len() > 4000 {
            contents.pop_first();
        }
    }

    fn take(&mut self, client: usize, out: TransportOut) {
        for (_, datagram) in out.datagrams {
            let path = self.path(client);
            self.put(true, client, path, datagram);
        }
        for event in out.events {
            let known = &mut self.clients[client];
            match event {
                TransportEvent::Keys(material) => known.keys = srtp::keys::<AwsLc>(&material),
                TransportEvent::Data(channel, data) => known.data.push((channel, data)),
                TransportEvent::Failed(failure) => known.failure = Some(failure),
                _ => {}
            }
        }
    }

    /// Lets virtual time pass, in steps of a millisecond.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        let mut batches: Vec<RecvBatch> =
            self.shards.iter().map(|_| RecvBatch::default()).collect();
        while let Some(entry) = self.flight.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let Flying {
                to_server,
                client,
                path,
                datagram,
            } = entry.remove();
            if to_server {
                batches[usize::from(path.local.port() - 2000)].push(path, &datagram);
            } else {
                self.client_datagram(client, datagram);
            }
        }
        for (shard, mut batch) in batches.into_iter().enumerate() {
            if !batch.metas.is_empty() {
                self.shards[shard].handle_datagrams(self.now, &mut batch);
                self.drain(shard);
            }
            if self.shards[shard]
                .poll_deadline()
                .is_some_and(|at| at <= self.now)
            {
                self.shards[shard].handle_timeout(self.now);
                self.drain(shard);
            }
        }
        for client in 0..self.clients.len() {
            let mut out = TransportOut::default();
            let known = &mut self.clients[client];
            if known
                .ice
                .poll_deadline(&known.crypto)
                .is_some_and(|at| at <= self.now)
            {
                known
                    .ice
                    .handle_timeout(self.now, &mut known.crypto, &mut out);
                self.take(client, out);
            }
            self.produce(client);
            if self.now.as_millis().is_multiple_of(10) {
                self.ask(client);
            }
        }
    }

    fn produce(&mut self, client: usize) {
        let now = self.now;
        let known = &mut self.clients[client];
        if known.keys.is_none() {
            return;
        }
        let mut packets = Vec::new();
        for (id, source) in &mut known.sources {
            packets.extend(source.produce(now).into_iter().map(|packet| (*id, packet)));
        }
        for (publication, mut packet) in packets {
            if self.clients[client].rogue {
                packet.ssrc = Ssrc(packet.ssrc.0 ^ 0x5555);
                packet.rid = Some("zz".to_owned());
            }
            self.send(client, publication, &packet);
        }
        if now >= self.clients[client].next_report {
            self.clients[client].next_report = now + Duration::from_secs(1);
            self.report(client);
        }
    }

    fn send(&mut self, client: usize, publication: PublicationId, packet: &Packet) {
        let datagram = self.seal(client, publication, packet);
        let path = self.path(client);
        self.put(true, client, path, datagram);
    }

    fn seal(&mut self, client: usize, publication: PublicationId, packet: &Packet) -> Vec<u8> {
        let map = published_extensions();
        let known = &mut self.clients[client];
        let keys = known.keys.as_ref().expect("joined");
        let mut bytes = vec![0; 100 + packet.payload.len() + 16];
        let mut writer = Writer::new(
            &mut bytes,
            packet.marker,
            packet.payload_type,
            packet.sequence as u16,
            packet.timestamp,
            packet.ssrc,
        );
        if let Some(rid) = &packet.rid {
            writer.extension(map.mid, publication.0.to_string().as_bytes());
            writer.extension(
                if packet.repaired {
                    map.repaired_rid
                } else {
                    map.rid
                },
                rid.as_bytes(),
            );
        }
        if let Some(level) = packet.level {
            writer.extension(map.audio_level, &[level]);
        } else {
            // Audio is sent again as it was, so nothing in it counts.
            writer.extension(map.transport_cc, &known.transport_sequence.to_be_bytes());
            known.transport_sequence = known.transport_sequence.wrapping_add(1);
        }
        let at = writer.finish();
        bytes[at..at + packet.payload.len()].copy_from_slice(&packet.payload);
        bytes.truncate(at + packet.payload.len() + keys.0.tag_bytes());
        keys.0
            .seal_rtp(packet.ssrc, ExtSeq(packet.sequence), &mut bytes, at);
        bytes
    }

    /// Sender reports of all layers: what ties their clocks together.
    fn report(&mut self, client: usize) {
        let now = self.now;
        let mut compound = Vec::new();
        for (_, source) in &self.clients[client].sources {
            for layer in &source.layers {
                let seconds = now.as_nanos() / 1_000_000_000 + 3_900_000_000;
                let fraction = ((now.as_nanos() % 1_000_000_000) << 32) / 1_000_000_000;
                rtcp::sender_report(
                    &mut compound,
                    layer.ssrc,
                    seconds << 32 | fraction,
                    source.clock(layer, now),
                    0,
                    0,
                );
            }
        }
        if !compound.is_empty() {
            self.send_rtcp(client, compound);
        }
    }

    fn send_rtcp(&mut self, client: usize, compound: Vec<u8>) {
        let (path, compound) = self.sealed_rtcp(client, compound);
        self.put(true, client, path, compound);
    }

    /// Any packet of a client, sealed, with the path it comes on.
    pub fn sealed(
        &mut self,
        client: usize,
        publication: PublicationId,
        packet: &Packet,
    ) -> (Path, Vec<u8>) {
        (self.path(client), self.seal(client, publication, packet))
    }

    /// Any RTCP of a client, sealed, with the path it comes on.
    pub fn sealed_rtcp(&mut self, client: usize, mut compound: Vec<u8>) -> (Path, Vec<u8>) {
        let path = self.path(client);
        let known = &mut self.clients[client];
        let keys = known.keys.as_ref().expect("joined");
        known.rtcp_out += 1;
        keys.0.seal_rtcp(known.rtcp_out, &mut compound);
        (path, compound)
    }

    /// Any datagram from the client's proved path, past all wires.
    pub fn inject(&mut self, client: usize, datagram: Vec<u8>) {
        let path = self.path(client);
        self.order += 1;
        self.flight.insert(
            (self.now, self.order),
            Flying {
                to_server: true,
                client,
                path,
                datagram,
            },
        );
    }

    /// A connectivity check of a client that has not moved.
    #[must_use]
    pub fn check(&self, client: usize) -> (Path, Vec<u8>) {
        let (ours, theirs) = (
            credentials(&format!("00server{client}")),
            credentials(&format!("client{client}")),
        );
        let username = format!("{}:{}", ours.ufrag, theirs.ufrag);
        let check = stun::request::<AwsLc>([7; 12], &username, &ours.password, true);
        (self.path(client), check)
    }

    /// Any RTCP, sealed by the client.
    pub fn send_raw_rtcp(&mut self, client: usize, compound: Vec<u8>) {
        self.send_rtcp(client, compound);
    }

    fn client_datagram(&mut self, client: usize, mut datagram: Vec<u8>) {
        let now = self.now;
        if stun::is_stun(&datagram) || (20..64).contains(&datagram[0]) {
            let mut out = TransportOut::default();
            let known = &mut self.clients[client];
            known
                .ice
                .handle_datagram(now, &mut known.crypto, &datagram, &mut out);
            self.take(client, out);
            return;
        }
        if self.clients[client].keys.is_none() {
            return;
        }
        if (192..224).contains(&datagram[1]) {
            self.client_rtcp(client, &mut datagram);
        } else {
            self.client_rtp(client, &mut datagram);
        }
    }

    fn client_rtcp(&mut self, client: usize, datagram: &mut [u8]) {
        let known = &mut self.clients[client];
        let Some((_, remote)) = &known.keys else {
            return;
        };
        let (_, length) = remote
            .open_rtcp(datagram)
            .expect("the shard's reports are authentic");
        let (mut resend, mut key_frames) = (Vec::new(), Vec::new());
        let feedback = &mut known.feedback;
        let whole = rtcp::parse(&datagram[..length], |message| match message {
            Message::KeyFrameRequest { ssrc } => key_frames.push(ssrc),
            Message::Nack { ssrc, pid, mask } => {
                resend.push((ssrc, pid));
                resend.extend(
                    (0..16)
                        .filter(|bit| mask >> bit & 1 == 1)
                        .map(|bit| (ssrc, pid.wrapping_add(bit + 1))),
                );
            }
            Message::TransportFeedback(_) => *feedback += 1,
            _ => {}
        });
        assert!(whole, "what the shard writes is whole");
        for (_, source) in &mut known.sources {
            source
                .layers
                .iter_mut()
                .filter(|layer| key_frames.contains(&layer.ssrc))
                .for_each(|layer| layer.key = true);
        }
        let mut repairs = Vec::new();
        for (ssrc, sequence) in resend {
            for (id, source) in &mut known.sources {
                repairs.extend(source.repair(ssrc, sequence).map(|packet| (*id, packet)));
            }
        }
        for (publication, packet) in repairs {
            self.send(client, publication, &packet);
        }
    }

    fn client_rtp(&mut self, client: usize, datagram: &mut [u8]) {
        let now = self.now;
        let known = &mut self.clients[client];
        let Some((_, remote)) = &known.keys else {
            return;
        };
        let header = Header::parse(datagram).expect("RTP");
        let repaired = known.rtx.get(&header.ssrc).copied();
        let media = repaired.unwrap_or(header.ssrc);
        let inbound = known
            .inbound
            .get_mut(&media)
            .expect("only subscribed streams arrive");
        let replay = if repaired.is_some() {
            &mut inbound.rtx_replay
        } else {
            &mut inbound.replay
        };
        let mut sequence = replay.extend(header.sequence);
        if !replay.is_fresh(sequence.0) {
            return;
        }
        let length = remote
            .open_rtp(header.ssrc, sequence, datagram, header.payload_at)
            .expect("authentic");
        replay.accept(sequence.0);
        let mut body = &datagram[header.payload_at..length];
        if header.padding {
            body = &body[..body.len() - usize::from(*body.last().expect("padding"))];
        }
        let mut payload_type = header.payload_type;
        if repaired.is_some() {
            sequence = inbound
                .replay
                .extend(u16::from_be_bytes([body[0], body[1]]));
            body = &body[2..];
            payload_type = PayloadType(payload_type.0 - 1);
        }
        inbound.take(
            now,
            sequence.0,
            header.marker,
            header.timestamp,
            payload_type,
            body,
        );
    }

    /// The client asks for what it misses.
    fn ask(&mut self, client: usize) {
        let now = self.now;
        let mut compound = Vec::new();
        for (ssrc, inbound) in &mut self.clients[client].inbound {
            let (lost, key_frame) = inbound.tick(now);
            if compound.is_empty() && (!lost.is_empty() || key_frame) {
                rtcp::receiver_report(&mut compound, Ssrc(1), &[]);
            }
            if !lost.is_empty() {
                rtcp::nack(&mut compound, Ssrc(1), *ssrc, &lost);
            }
            if key_frame {
                rtcp::picture_loss(&mut compound, Ssrc(1), *ssrc);
            }
        }
        if !compound.is_empty() {
            self.send_rtcp(client, compound);
        }
    }

    /// Sealed packets of `frames` captures, as they would arrive now: for counting what the shard does with them.
    pub fn prepared(&mut self, client: usize, frames: usize) -> RecvBatch {
        let mut batch = RecvBatch::default();
        for _ in 0..frames {
            let now = self.now + Duration::from_millis(40);
            self.now = now;
            let known = &mut self.clients[client];
            let mut packets = Vec::new();
            for (id, source) in &mut known.sources {
                packets.extend(source.produce(now).into_iter().map(|packet| (*id, packet)));
            }
            for (publication, packet) in packets {
                let datagram = self.seal(client, publication, &packet);
                let path = self.path(client);
                batch.push(path, &datagram);
            }
        }
        batch
    }
}

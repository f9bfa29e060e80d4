// SPDX-License-Identifier: EUPL-1.2
//! A shard, clients, and the wire between them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use media_core::api::{
    Channel, Codec, Command, Encoding, Event, ExtensionMap, Format, IceCredentials, Kind,
    PayloadBinding, Publication, Side, Subscription,
};
use media_core::crypto::TAG_BYTES;
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

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts allocations of the running thread.
struct Counting;

#[expect(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; this one only counts"
)]
// SAFETY: everything is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const VP8: PayloadType = PayloadType(96);
const VP8_RTX: PayloadType = PayloadType(97);
const OPUS: PayloadType = PayloadType(111);
const RED: PayloadType = PayloadType(63);
const ROOM: RoomIndex = RoomIndex(1);

/// How bad the wire is.
#[derive(Clone, Copy)]
pub(crate) struct Wire {
    pub(crate) seed: u64,
    lost: f64,
    reordered: f64,
    repeated: f64,
}

impl Wire {
    pub(crate) const CLEAN: Self = Self {
        seed: 7,
        lost: 0.0,
        reordered: 0.0,
        repeated: 0.0,
    };

    pub(crate) fn seeded(seed: u64) -> Self {
        Self {
            seed,
            ..Self::CLEAN
        }
    }

    fn chance(&mut self, part: f64) -> bool {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) as f64 / (1_u64 << 53) as f64 <= part && part > 0.0
    }
}

/// What a client saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received {
    pub(crate) packets: usize,
    pub(crate) frames: usize,
    pub(crate) gaps: u64,
    pub(crate) backwards: usize,
    pub(crate) picture_gaps: usize,
    pub(crate) longest_pause: Duration,
    pub(crate) last_payload: Vec<u8>,
}

struct Layer {
    ssrc: Ssrc,
    rtx_ssrc: Ssrc,
    rid: Option<String>,
    sequence: u64,
    rtx_sequence: u64,
    picture: u16,
    tl0: u8,
    key: bool,
    history: BTreeMap<u64, (bool, u32, Vec<u8>)>,
}

enum Source {
    Video {
        layers: Vec<Layer>,
        frames: usize,
    },
    Audio {
        ssrc: Ssrc,
        sequence: u64,
        red: bool,
    },
    Rogue {
        sequence: u64,
    },
}

/// What came of one incoming SSRC, by extended sequence number: marker, timestamp, picture id, arrival.
#[derive(Default)]
struct Inbound {
    replay: Replay,
    packets: BTreeMap<u64, (bool, u32, Option<u16>, bool, Timestamp)>,
    asked: HashMap<u64, Timestamp>,
    last_payload: Vec<u8>,
}

struct Leg {
    crypto: AwsLc,
    ice: ClientTransport<AwsLc>,
    keys: Option<(Direction<AwsLc>, Direction<AwsLc>)>,
    rtcp_out: u32,
    rtx_in: Replay,
    inbound: Inbound,
    sources: Vec<Source>,
    media_ssrc: Option<Ssrc>,
    rtx_ssrc: Option<Ssrc>,
    next_frame: Timestamp,
}

pub(crate) struct World {
    pub(crate) shard: Shard<AwsLc>,
    pub(crate) events: Vec<Event>,
    now: Timestamp,
    wire: Wire,
    legs: Vec<Leg>,
    flight: BTreeMap<(Timestamp, u64), (bool, Path, Vec<u8>)>,
    order: u64,
    next_id: u64,
    forwarded: HashMap<SubscriptionId, Option<u8>>,
    fingerprint: media_core::api::Fingerprint,
}

fn server() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 2000))
}

fn credentials(name: &str) -> IceCredentials {
    IceCredentials {
        ufrag: name.to_owned(),
        password: format!("{name}-and-some-more-characters"),
    }
}

impl World {
    pub(crate) fn new(wire: Wire) -> Self {
        let certificate = Arc::new(Certificate::generate().expect("certificate"));
        let fingerprint = certificate.fingerprint();
        let now = Timestamp::from_millis(1000);
        let wall = WallAnchor {
            at: now,
            unix_nanos: 1_700_000_000_000_000_000,
        };
        let mut shard = Shard::new(
            ShardId(0),
            ShardConfig::default(),
            AwsLc::seeded(certificate, 1),
            now,
            wall,
        );
        shard.handle_command(now, Command::AddRoom { room: ROOM });
        Self {
            shard,
            events: Vec::new(),
            now,
            wire,
            legs: Vec::new(),
            flight: BTreeMap::new(),
            order: 0,
            next_id: 100,
            forwarded: HashMap::new(),
            fingerprint,
        }
    }

    pub(crate) fn wire(&mut self, lost: f64, reordered: f64, repeated: f64) {
        self.wire = Wire {
            seed: self.wire.seed,
            lost,
            reordered,
            repeated,
        };
    }

    pub(crate) fn open(&mut self) {
        self.command(Command::SetGate {
            room: ROOM,
            open: true,
        });
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.shard.handle_command(self.now, command);
        self.drain();
    }

    fn path(leg: usize) -> Path {
        let remote = SocketAddr::from(([127, 0, 0, 1], 10_000 + leg as u16));
        Path {
            protocol: Protocol::Udp,
            local: server(),
            remote,
        }
    }

    /// A client with one peer connection for both ways, which is enough for the shard.
    pub(crate) fn join(&mut self) -> usize {
        let leg = self.legs.len();
        let certificate = Arc::new(Certificate::generate().expect("certificate"));
        let crypto = AwsLc::seeded(Arc::clone(&certificate), leg as u64 + 10);
        let (ours, theirs) = (
            credentials(&format!("00server{leg}")),
            credentials(&format!("client{leg}")),
        );
        let path = Self::path(leg);
        let ice = ClientTransport::new(
            theirs.clone(),
            ours.clone(),
            Path {
                local: path.remote,
                remote: path.local,
                ..path
            },
            crypto.dtls_client(self.fingerprint, self.now),
            true,
            self.now,
        );
        let transport = TransportId(leg as u64);
        self.command(Command::AddTransport {
            transport,
            room: ROOM,
            participant: ParticipantId(leg as u64),
            side: Side::Publisher,
            local: ours,
        });
        self.command(Command::SetRemote {
            transport,
            remote: theirs,
            fingerprint: certificate.fingerprint(),
        });
        self.legs.push(Leg {
            crypto,
            ice,
            keys: None,
            rtcp_out: 0,
            rtx_in: Replay::default(),
            inbound: Inbound::default(),
            sources: Vec::new(),
            media_ssrc: None,
            rtx_ssrc: None,
            next_frame: self.now,
        });
        self.run(Duration::from_secs(1));
        assert!(self.legs[leg].keys.is_some(), "joined");
        leg
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn extensions() -> ExtensionMap {
        ExtensionMap {
            mid: ExtensionId(1),
            rid: ExtensionId(2),
            repaired_rid: ExtensionId(3),
            audio_level: ExtensionId(4),
            transport_cc: ExtensionId(5),
            ..ExtensionMap::NONE
        }
    }

    fn payloads() -> Vec<PayloadBinding> {
        let binding = |payload_type, codec, rtx, clock_rate| PayloadBinding {
            payload_type,
            format: Format { codec, variant: 0 },
            rtx,
            clock_rate,
        };
        vec![
            binding(VP8, Codec::Vp8, Some(VP8_RTX), 90_000),
            binding(OPUS, Codec::Opus, None, 48_000),
            binding(RED, Codec::Red, None, 48_000),
        ]
    }

    fn publish(&mut self, leg: usize, kind: Kind, encodings: Vec<Encoding>) -> PublicationId {
        let id = PublicationId(self.id());
        self.command(Command::Publish(Box::new(Publication {
            id,
            transport: TransportId(leg as u64),
            kind,
            mid: "0".to_owned(),
            encodings,
            payloads: Self::payloads(),
            extensions: Self::extensions(),
        })));
        id
    }

    /// `layers` > 1 are told apart by RID only, as browsers do.
    pub(crate) fn publish_video(&mut self, leg: usize, layers: usize) -> PublicationId {
        let base = 1000 * (leg as u32 + 1);
        let layers: Vec<Layer> = (0..layers)
            .map(|index| Layer {
                ssrc: Ssrc(base + 10 * index as u32),
                rtx_ssrc: Ssrc(base + 10 * index as u32 + 1),
                rid: (layers > 1).then(|| ["q", "h", "f"][index].to_owned()),
                sequence: 65_000 + 100 * index as u64,
                rtx_sequence: 500,
                picture: 0x7ff0 - 1000 * index as u16,
                tl0: 7,
                key: true,
                history: BTreeMap::new(),
            })
            .collect();
        let encodings = layers
            .iter()
            .map(|layer| Encoding {
                rid: layer.rid.clone(),
                ssrc: layer.rid.is_none().then_some(layer.ssrc),
                rtx_ssrc: layer.rid.is_none().then_some(layer.rtx_ssrc),
            })
            .collect();
        self.legs[leg]
            .sources
            .push(Source::Video { layers, frames: 0 });
        self.publish(leg, Kind::Video, encodings)
    }

    pub(crate) fn publish_audio(&mut self, leg: usize) -> PublicationId {
        let ssrc = Ssrc(77);
        self.legs[leg].sources.push(Source::Audio {
            ssrc,
            sequence: 9,
            red: false,
        });
        self.publish(
            leg,
            Kind::Audio,
            vec![Encoding {
                ssrc: Some(ssrc),
                ..Encoding::default()
            }],
        )
    }

    pub(crate) fn publish_red(&mut self, leg: usize) -> PublicationId {
        let ssrc = Ssrc(78);
        self.legs[leg].sources.push(Source::Audio {
            ssrc,
            sequence: 9,
            red: true,
        });
        self.publish(
            leg,
            Kind::Audio,
            vec![Encoding {
                ssrc: Some(ssrc),
                ..Encoding::default()
            }],
        )
    }

    /// Instead of what it declared the client sends from another SSRC.
    pub(crate) fn rogue_source(&mut self, leg: usize) {
        self.legs[leg].sources = vec![Source::Rogue { sequence: 1 }];
    }

    /// A subscriber reads VP8 with RTX and Opus, no RED.
    pub(crate) fn subscribe(&mut self, leg: usize, publication: PublicationId) -> SubscriptionId {
        let id = SubscriptionId(self.id());
        let (ssrc, rtx_ssrc) = (Ssrc(500_000 + leg as u32), Ssrc(600_000 + leg as u32));
        self.legs[leg].media_ssrc = Some(ssrc);
        self.legs[leg].rtx_ssrc = Some(rtx_ssrc);
        self.command(Command::Subscribe(Box::new(Subscription {
            id,
            publication,
            transport: TransportId(leg as u64),
            mid: "1".to_owned(),
            ssrc,
            rtx_ssrc: Some(rtx_ssrc),
            payloads: Self::payloads()
                .into_iter()
                .filter(|binding| binding.format.codec != Codec::Red)
                .collect(),
            extensions: ExtensionMap {
                audio_level: ExtensionId(4),
                abs_send_time: ExtensionId(6),
                ..ExtensionMap::NONE
            },
        })));
        id
    }

    pub(crate) fn forwarded(&self, subscription: SubscriptionId) -> Option<u8> {
        self.forwarded.get(&subscription).copied().flatten()
    }

    pub(crate) fn data_events(&self) -> usize {
        self.events
            .iter()
            .filter(|event| matches!(event, Event::Data { .. }))
            .count()
    }

    pub(crate) fn send_data(&mut self, leg: usize, channel: Channel, data: &[u8]) {
        let mut out = TransportOut::default();
        let client = &mut self.legs[leg];
        client
            .ice
            .send_data(self.now, &mut client.crypto, channel, data, &mut out)
            .expect("channel is open");
        self.take(leg, out);
    }

    fn put(&mut self, to_server: bool, path: Path, datagram: Vec<u8>) {
        if self.wire.chance(self.wire.lost) {
            return;
        }
        let mut delay = Duration::from_millis(15);
        if self.wire.chance(self.wire.reordered) {
            delay += Duration::from_millis(12);
        }
        let copies = if self.wire.chance(self.wire.repeated) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            self.order += 1;
            self.flight.insert(
                (self.now + delay, self.order),
                (to_server, path, datagram.clone()),
            );
        }
    }

    fn drain(&mut self) {
        let mut sent = Vec::new();
        while let Some(transmit) = self.shard.poll_transmit() {
            for datagram in transmit.bytes.chunks(transmit.segment) {
                sent.push((transmit.path, datagram.to_vec()));
            }
        }
        for (path, datagram) in sent {
            self.put(false, path, datagram);
        }
        while let Some(event) = self.shard.poll_event() {
            if let Event::EncodingForwarded {
                subscription,
                encoding,
            } = &event
            {
                self.forwarded.insert(*subscription, *encoding);
            }
            if let Event::Refused { reason, .. } = &event {
                panic!("refused: {reason}");
            }
            self.events.push(event);
        }
    }

    fn take(&mut self, leg: usize, out: TransportOut) {
        for (_, datagram) in out.datagrams {
            self.put(true, Self::path(leg), datagram);
        }
        for event in out.events {
            if let TransportEvent::Keys(material) = event {
                self.legs[leg].keys = srtp::keys::<AwsLc>(&material);
            }
        }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(1);
            let due: Vec<_> = self
                .flight
                .range(..=(self.now, u64::MAX))
                .map(|(key, _)| *key)
                .collect();
            let mut batch = RecvBatch::default();
            for key in due {
                let (to_server, path, datagram) = self.flight.remove(&key).expect("listed");
                if to_server {
                    batch.push(path, &datagram);
                } else {
                    let leg = usize::from(path.remote.port() - 10_000);
                    self.client_datagram(leg, datagram);
                }
            }
            if !batch.metas.is_empty() {
                self.shard.handle_datagrams(self.now, &mut batch);
                self.drain();
            }
            if self.shard.poll_deadline().is_some_and(|at| at <= self.now) {
                self.shard.handle_timeout(self.now);
                self.drain();
            }
            for leg in 0..self.legs.len() {
                let mut out = TransportOut::default();
                let client = &mut self.legs[leg];
                if client
                    .ice
                    .poll_deadline(&client.crypto)
                    .is_some_and(|at| at <= self.now)
                {
                    client
                        .ice
                        .handle_timeout(self.now, &mut client.crypto, &mut out);
                    self.take(leg, out);
                }
                self.produce(leg);
                self.ask_again(leg);
            }
        }
    }

    /// Frames every 33 ms of three packets, two temporal layers; audio every 20 ms.
    fn produce(&mut self, leg: usize) {
        let now = self.now;
        let client = &mut self.legs[leg];
        if client.keys.is_none() || now < client.next_frame {
            return;
        }
        let video = client
            .sources
            .iter()
            .any(|source| matches!(source, Source::Video { .. }));
        client.next_frame = now + Duration::from_millis(if video { 33 } else { 20 });
        let mut sources = std::mem::take(&mut client.sources);
        let mut packets = Vec::new();
        for source in &mut sources {
            match source {
                Source::Video { layers, frames } => {
                    *frames += 1;
                    let upper = *frames % 2 == 0;
                    for layer in layers {
                        let timestamp =
                            ((now.as_millis() * 90) as u32).wrapping_add(layer.ssrc.0 << 8);
                        let key = std::mem::take(&mut layer.key);
                        let upper = upper && !key;
                        layer.picture = layer.picture.wrapping_add(1) & 0x7fff;
                        if !upper {
                            layer.tl0 = layer.tl0.wrapping_add(1);
                        }
                        for part in 0..3_u8 {
                            let [high, low] = (layer.picture | 0x8000).to_be_bytes();
                            let tid = if upper { 0x40 } else { 0 };
                            let start = if part == 0 { 0x90 } else { 0x80 };
                            let mut payload =
                                vec![start, 0xe0, high, low, layer.tl0, tid, u8::from(!key)];
                            payload.resize(1000 + usize::from(part), part);
                            layer
                                .history
                                .insert(layer.sequence, (part == 2, timestamp, payload.clone()));
                            while layer.history.len() > 500 {
                                layer.history.pop_first();
                            }
                            packets.push((
                                layer.ssrc,
                                VP8,
                                layer.sequence,
                                part == 2,
                                timestamp,
                                payload,
                                layer.rid.clone(),
                                false,
                            ));
                            layer.sequence += 1;
                        }
                    }
                }
                Source::Audio {
                    ssrc,
                    sequence,
                    red,
                } => {
                    let payload = if *red {
                        [&[0x80 | OPUS.0, 0, 0, 3, OPUS.0][..], b"old", b"opus"].concat()
                    } else {
                        b"opus".to_vec()
                    };
                    let kind = if *red { RED } else { OPUS };
                    packets.push((
                        *ssrc,
                        kind,
                        *sequence,
                        false,
                        (*sequence * 960) as u32,
                        payload,
                        None,
                        false,
                    ));
                    *sequence += 1;
                }
                Source::Rogue { sequence } => {
                    packets.push((
                        Ssrc(666),
                        VP8,
                        *sequence,
                        true,
                        1,
                        vec![0x90, 0, 0],
                        Some("zz".to_owned()),
                        false,
                    ));
                    *sequence += 1;
                }
            }
        }
        self.legs[leg].sources = sources;
        for (ssrc, payload_type, sequence, marker, timestamp, payload, rid, repaired) in packets {
            let packet = self.seal(
                leg,
                ssrc,
                payload_type,
                sequence,
                marker,
                timestamp,
                &payload,
                rid.as_deref(),
                repaired,
            );
            self.put(true, Self::path(leg), packet);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one packet")]
    fn seal(
        &self,
        leg: usize,
        ssrc: Ssrc,
        payload_type: PayloadType,
        sequence: u64,
        marker: bool,
        timestamp: u32,
        payload: &[u8],
        rid: Option<&str>,
        repaired: bool,
    ) -> Vec<u8> {
        let map = Self::extensions();
        let mut packet = vec![0; 100 + payload.len() + TAG_BYTES];
        let mut writer = Writer::new(
            &mut packet,
            marker,
            payload_type,
            sequence as u16,
            timestamp,
            ssrc,
        );
        if let Some(rid) = rid {
            writer.extension(map.mid, if rid == "zz" { b"9" } else { b"0" });
            writer.extension(
                if repaired { map.repaired_rid } else { map.rid },
                rid.as_bytes(),
            );
        }
        if payload_type == OPUS || payload_type == RED {
            writer.extension(map.audio_level, &[0x80 | 20]);
        }
        writer.extension(map.transport_cc, &(sequence as u16).to_be_bytes());
        let at = writer.finish();
        packet[at..at + payload.len()].copy_from_slice(payload);
        packet.truncate(at + payload.len() + TAG_BYTES);
        let keys = self.legs[leg].keys.as_ref().expect("joined");
        keys.0.seal_rtp(ssrc, ExtSeq(sequence), &mut packet, at);
        packet
    }

    fn client_datagram(&mut self, leg: usize, mut datagram: Vec<u8>) {
        let now = self.now;
        if stun::is_stun(&datagram) || (20..64).contains(&datagram[0]) {
            let mut out = TransportOut::default();
            let client = &mut self.legs[leg];
            client
                .ice
                .handle_datagram(now, &mut client.crypto, &datagram, &mut out);
            self.take(leg, out);
            return;
        }
        let client = &mut self.legs[leg];
        let Some((_, remote)) = &client.keys else {
            return;
        };
        if (192..224).contains(&datagram[1]) {
            let (_, length) = remote
                .open_rtcp(&mut datagram)
                .expect("the shard's reports are authentic");
            let mut resend = Vec::new();
            let whole = rtcp::parse(&datagram[..length], |message| match message {
                Message::KeyFrameRequest { ssrc } => {
                    for source in &mut client.sources {
                        if let Source::Video { layers, .. } = source {
                            layers
                                .iter_mut()
                                .filter(|layer| layer.ssrc == ssrc)
                                .for_each(|layer| layer.key = true);
                        }
                    }
                }
                Message::Nack { ssrc, pid, mask } => {
                    for bit in 0..=16_u16 {
                        if bit == 0 || mask >> (bit - 1) & 1 == 1 {
                            resend.push((ssrc, pid.wrapping_add(bit)));
                        }
                    }
                }
                _ => {}
            });
            assert!(whole, "what the shard writes is whole");
            for (ssrc, sequence) in resend {
                self.repair(leg, ssrc, sequence);
            }
            return;
        }
        let header = Header::parse(&datagram).expect("RTP");
        let media = Some(header.ssrc) == client.media_ssrc;
        assert!(
            media || Some(header.ssrc) == client.rtx_ssrc,
            "only subscribed streams arrive"
        );
        let replay = if media {
            &mut client.inbound.replay
        } else {
            &mut client.rtx_in
        };
        let mut sequence = replay.extend(header.sequence);
        if !replay.is_fresh(sequence.0) {
            return;
        }
        let length = remote
            .open_rtp(header.ssrc, sequence, &mut datagram, header.payload_at)
            .expect("authentic");
        replay.accept(sequence.0);
        let mut payload = &datagram[header.payload_at..length];
        if header.padding {
            payload = &payload[..payload.len() - usize::from(*payload.last().expect("padding"))];
        }
        if !media {
            sequence = client
                .inbound
                .replay
                .extend(u16::from_be_bytes([payload[0], payload[1]]));
            payload = &payload[2..];
        }
        let vp8 = media_core::rtp::payload::inspect(Codec::Vp8, payload).vp8;
        let video = header.payload_type != OPUS;
        let picture = vp8
            .and_then(|vp8| vp8.picture)
            .map(|(_, picture, _)| picture)
            .filter(|_| video);
        let start = vp8.is_some_and(|vp8| vp8.start) && video;
        client.inbound.last_payload = payload[..payload.len().min(4)].to_vec();
        client.inbound.packets.entry(sequence.0).or_insert((
            header.marker,
            header.timestamp,
            picture,
            start,
            now,
        ));
    }

    /// The publisher answers a NACK.
    fn repair(&mut self, leg: usize, ssrc: Ssrc, sequence: u16) {
        let mut answer = None;
        for source in &mut self.legs[leg].sources {
            let Source::Video { layers, .. } = source else {
                continue;
            };
            for layer in layers.iter_mut().filter(|layer| layer.ssrc == ssrc) {
                let found = layer
                    .history
                    .iter()
                    .rev()
                    .find(|(number, _)| **number as u16 == sequence);
                if let Some((_, (marker, timestamp, payload))) = found {
                    let payload = [&sequence.to_be_bytes()[..], payload].concat();
                    answer = Some((
                        layer.rtx_ssrc,
                        layer.rtx_sequence,
                        *marker,
                        *timestamp,
                        payload,
                        layer.rid.clone(),
                    ));
                    layer.rtx_sequence += 1;
                }
            }
        }
        if let Some((ssrc, sequence, marker, timestamp, payload, rid)) = answer {
            let packet = self.seal(
                leg,
                ssrc,
                VP8_RTX,
                sequence,
                marker,
                timestamp,
                &payload,
                rid.as_deref(),
                true,
            );
            self.put(true, Self::path(leg), packet);
        }
    }

    /// The subscriber asks for what is missing, each number again after 60 ms.
    fn ask_again(&mut self, leg: usize) {
        if self.now.as_millis() % 20 != 0 {
            return;
        }
        let now = self.now;
        let client = &mut self.legs[leg];
        let (Some(media), Some(_)) = (client.media_ssrc, &client.keys) else {
            return;
        };
        let Some((&last, _)) = client.inbound.packets.last_key_value() else {
            return;
        };
        let Some((&first, _)) = client.inbound.packets.first_key_value() else {
            return;
        };
        let mut lost = Vec::new();
        for number in first.max(last.saturating_sub(200))..last {
            if !client.inbound.packets.contains_key(&number)
                && client
                    .inbound
                    .asked
                    .get(&number)
                    .is_none_or(|at| now.since(*at) >= Duration::from_millis(60))
            {
                client.inbound.asked.insert(number, now);
                lost.push(number as u16);
            }
        }
        if lost.is_empty() {
            return;
        }
        let mut packet = Vec::new();
        rtcp::receiver_report(&mut packet, Ssrc(1), &[]);
        rtcp::nack(&mut packet, Ssrc(1), media, &lost);
        client.rtcp_out += 1;
        let keys = client.keys.as_ref().expect("joined");
        keys.0.seal_rtcp(client.rtcp_out, &mut packet);
        self.put(true, Self::path(leg), packet);
    }

    pub(crate) fn sent_frames(&self, leg: usize) -> usize {
        self.legs[leg]
            .sources
            .iter()
            .map(|source| {
                if let Source::Video { frames, .. } = source {
                    *frames
                } else {
                    0
                }
            })
            .sum()
    }

    pub(crate) fn received(&self, leg: usize) -> Received {
        let inbound = &self.legs[leg].inbound;
        let mut received = Received {
            packets: inbound.packets.len(),
            last_payload: inbound.last_payload.clone(),
            ..Received::default()
        };
        let mut before: Option<(u64, (bool, u32, Option<u16>, bool, Timestamp))> = None;
        let mut whole = false;
        let mut last_frame: Option<Timestamp> = None;
        for (&number, &packet) in &inbound.packets {
            let (marker, timestamp, picture, start, at) = packet;
            let contiguous = before.is_some_and(|(last, _)| last + 1 == number);
            if let Some((last, (_, last_timestamp, last_picture, ..))) = before {
                received.gaps += number - last - 1;
                if timestamp.wrapping_sub(last_timestamp) as i32 > 0 && !start && contiguous {
                    received.picture_gaps += 1;
                }
                if (timestamp.wrapping_sub(last_timestamp) as i32) < 0 {
                    received.backwards += 1;
                }
                if let (Some(last), Some(picture)) = (last_picture, picture)
                    && contiguous
                    && !(picture == last && !start
                        || picture == last.wrapping_add(1) & 0x7fff && start)
                {
                    received.picture_gaps += 1;
                }
            }
            whole = start || (whole && contiguous);
            if marker && whole {
                received.frames += 1;
                if let Some(last) = last_frame {
                    received.longest_pause = received.longest_pause.max(at.since(last));
                }
                last_frame = Some(at.max(last_frame.unwrap_or(at)));
            }
            before = Some((number, packet));
        }
        received
    }

    /// Packets forwarded and allocations made while the shard works on prepared batches.
    pub(crate) fn count_allocations(&mut self, leg: usize) -> (u64, u64) {
        let mut packets = 0;
        let mut allocations = 0;
        for _ in 0..50 {
            self.now = self.now + Duration::from_millis(1);
            let mut batch = RecvBatch::default();
            let (ssrc, first) = match &mut self.legs[leg].sources[0] {
                Source::Video { layers, .. } => {
                    layers[0].sequence += 4;
                    layers[0].picture = layers[0].picture.wrapping_add(1) & 0x7fff;
                    (layers[0].ssrc, layers[0].sequence - 4)
                }
                _ => panic!("a video source"),
            };
            for sequence in first..first + 4 {
                let packet = self.seal(
                    leg,
                    ssrc,
                    VP8,
                    sequence,
                    false,
                    5,
                    &[0x11; 1100],
                    None,
                    false,
                );
                batch.push(Self::path(leg), &packet);
            }
            let before = ALLOCATIONS.with(Cell::get);
            let forwarded = self.shard.counters().forwarded_packets;
            self.shard.handle_datagrams(self.now, &mut batch);
            while let Some(transmit) = self.shard.poll_transmit() {
                std::hint::black_box(transmit.bytes);
            }
            allocations += ALLOCATIONS.with(Cell::get) - before;
            packets += self.shard.counters().forwarded_packets - forwarded;
        }
        (packets, allocations)
    }
}

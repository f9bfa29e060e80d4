// SPDX-License-Identifier: EUPL-1.2
//! The forwarder against the floor, in one run on one core: `cargo bench -p media-sim --bench forward`.
//!
//! The floor is the shortest honest program for the same work: open once, then per subscriber copy, rewrite, seal and send runs of
//! the same length. The forwarder is the real shard with everything switched on: demultiplexing, replay windows, rings, layer
//! decisions, numbers, feedback to the publisher, reports to and from subscribers, connectivity checks. Both read the same packets
//! from memory and send through the same socket into the same sink; they take turns, and what counts is the median of the ratios.
//!
//! The sink is `ifb`, which drops every buffer and has UDP segmentation, in a network namespace of its own; loopback and a veth pair
//! are printed beside it. Words on the command line pick sinks (`ifb`, `loopback`, `veth`, `none`), `quick` measures less.

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use common::{allocations, cpu_time, ip, machine, median, pin, reran_in_namespace};
use media_core::api::Codec;
use media_core::crypto::{MasterKey, SrtpKeys, SrtpProfile};
use media_core::ids::{ExtSeq, ExtensionId, PayloadType, PublicationId, Ssrc};
use media_core::io::{Path, Protocol, RecvBatch, Transmit};
use media_core::rtp::header::{Header, Writer};
use media_core::rtp::rtcp;
use media_core::srtp::{self, Direction, Replay};
use media_core::time::Timestamp;
use media_crypto::AwsLc;
use media_net::UdpSocket;
use media_sim::source::{Packet, payload};
use media_sim::world::World;

/// Bytes of a forwarded datagram, header and tag included.
const DATAGRAM_BYTES: usize = 1200;
const TAG: usize = 16;
/// Fixed header and `abs-send-time`.
const HEADER: usize = 20;
const PAYLOAD: usize = DATAGRAM_BYTES - HEADER - TAG;
/// Time per packet towards one subscriber: 200 packets per second, a camera of 2 Mbit/s. What belongs to seconds and not to packets
/// (reports, feedback, checks) is spread over that many.
const PER_PACKET: Duration = Duration::from_millis(5);
/// Packets towards one subscriber per second.
const PER_SECOND: usize = 200;
/// Forwarded packets per measurement: short, so that most measurements lie between two interruptions of a busy machine.
const PACKETS: usize = 1000;

type MakeSink = fn() -> Option<Sink>;

/// Where packets go.
struct Sink {
    name: &'static str,
    address: Option<IpAddr>,
    socket: Option<UdpSocket>,
    _receivers: Vec<std::net::UdpSocket>,
    _namespace: Option<std::process::Child>,
}

impl Sink {
    fn none() -> Self {
        Self {
            name: "none",
            address: None,
            socket: None,
            _receivers: Vec::new(),
            _namespace: None,
        }
    }

    fn to(name: &'static str, own: Ipv4Addr, remote: Ipv4Addr) -> Option<Self> {
        let socket = UdpSocket::bind(SocketAddr::from((own, 0)), false, 8 << 20).ok()?;
        Some(Self {
            name,
            address: Some(remote.into()),
            socket: Some(socket),
            _receivers: Vec::new(),
            _namespace: None,
        })
    }

    fn ifb() -> Option<Self> {
        let made = ip("link add ifb0 type ifb")
            && ip("link set ifb0 up")
            && ip("addr add 10.99.0.1/16 dev ifb0");
        made.then(|| {
            Self::to(
                "ifb",
                Ipv4Addr::new(10, 99, 0, 1),
                Ipv4Addr::new(10, 99, 1, 1),
            )
        })?
    }

    fn loopback() -> Option<Self> {
        let _ = ip("link set lo up");
        let mut sink = Self::to("loopback", Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST)?;
        // Bound and never read: their buffers fill, then the kernel drops.
        sink._receivers = (10_000..10_064)
            .filter_map(|port| std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok())
            .collect();
        Some(sink)
    }

    fn veth() -> Option<Self> {
        let child = std::process::Command::new("unshare")
            .args(["-n", "sleep", "600"])
            .spawn()
            .ok()?;
        // The namespace exists once its link list differs from ours; asking again is cheap.
        let moved = ip("link add plenum0 type veth peer name plenum1")
            && (0..200).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                ip(&format!("link set plenum1 netns {}", child.id()))
            });
        let inside = |words: &str| {
            std::process::Command::new("nsenter")
                .args(["-t", &child.id().to_string(), "-n", "ip"])
                .args(words.split(' '))
                .status()
                .is_ok_and(|status| status.success())
        };
        let ready = moved
            && ip("addr add 10.98.0.1/16 dev plenum0")
            && ip("link set plenum0 up")
            && inside("link set plenum1 up")
            && inside("addr add 10.98.1.1/16 dev plenum1");
        // Without a receiver each datagram would be answered by ICMP: what cannot be delivered is dropped by a route instead.
        let _ = inside("route add blackhole 10.98.1.1/32 table local")
            || inside("addr del 10.98.1.1/16 dev plenum1");
        let neighbour =
            ip("neigh replace 10.98.1.1 lladdr 02:00:00:00:00:01 dev plenum0 nud permanent");
        let mut sink = (ready && neighbour).then(|| {
            Self::to(
                "veth",
                Ipv4Addr::new(10, 98, 0, 1),
                Ipv4Addr::new(10, 98, 1, 1),
            )
        })??;
        sink._namespace = Some(child);
        Some(sink)
    }

    fn send(&mut self, transmit: Transmit<'_>) {
        let (Some(address), Some(socket)) = (self.address, &mut self.socket) else {
            std::hint::black_box(transmit.bytes);
            return;
        };
        let mut path = transmit.path;
        path.remote.set_ip(address);
        std::hint::black_box(socket.send(&Transmit { path, ..transmit }));
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(child) = &mut self._namespace {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn direction(seed: u8) -> Direction<AwsLc> {
    let master = MasterKey {
        key: vec![seed; 32],
        salt: vec![seed ^ 0x5a; 12],
    };
    let keys = SrtpKeys {
        profile: SrtpProfile::AeadAes256Gcm,
        local: master.clone(),
        remote: master,
    };
    srtp::keys::<AwsLc>(&keys)
        .map(|(local, _)| local)
        .expect("a key of 32 bytes")
}

/// The floor: keys, counters, one buffer.
struct Floor {
    input: Direction<AwsLc>,
    replay: Replay,
    sequence: u64,
    outputs: Vec<(Direction<AwsLc>, u64, Path)>,
    run: Vec<u8>,
}

impl Floor {
    fn new(fan_out: usize) -> Self {
        let path = |index: usize| Path {
            protocol: Protocol::Udp,
            local: SocketAddr::from((Ipv4Addr::LOCALHOST, 2000)),
            remote: SocketAddr::from((Ipv4Addr::LOCALHOST, 10_000 + index as u16)),
        };
        Self {
            input: direction(1),
            replay: Replay::default(),
            sequence: 1000,
            outputs: (0..fan_out)
                .map(|index| (direction(index as u8 + 2), 0, path(index)))
                .collect(),
            run: vec![0; 64 * 1024],
        }
    }

    fn prepare(&mut self, frames: usize, run: usize) -> Vec<RecvBatch> {
        let path = self.outputs[0].2;
        (0..frames)
            .map(|_| {
                let mut batch = RecvBatch::default();
                for _ in 0..run {
                    let mut packet = vec![0; HEADER + PAYLOAD + TAG];
                    let mut writer = Writer::new(
                        &mut packet,
                        false,
                        payload::VP8,
                        self.sequence as u16,
                        7,
                        Ssrc(9),
                    );
                    writer.extension(ExtensionId(5), &[1, 2]);
                    let at = writer.finish();
                    packet.truncate(at + PAYLOAD + TAG);
                    self.input
                        .seal_rtp(Ssrc(9), ExtSeq(self.sequence), &mut packet, at);
                    self.sequence += 1;
                    batch.push(path, &packet);
                }
                batch
            })
            .collect()
    }

    fn forward(&mut self, batch: &mut RecvBatch, sink: &mut Sink) -> usize {
        let mut sent = 0;
        let count = batch.metas.len();
        for meta in &batch.metas {
            let packet = &mut batch.buffer[meta.offset..meta.offset + meta.len];
            let header = Header::parse(packet).expect("RTP");
            let index = self.replay.extend(header.sequence);
            assert!(self.replay.is_fresh(index.0));
            self.input
                .open_rtp(header.ssrc, index, packet, header.payload_at)
                .expect("authentic");
            self.replay.accept(index.0);
        }
        for (keys, next, path) in &mut self.outputs {
            let mut at = 0;
            for meta in &batch.metas {
                let packet = &batch.buffer[meta.offset..meta.offset + meta.len - TAG];
                let out = &mut self.run[at..at + DATAGRAM_BYTES];
                let mut writer = Writer::new(
                    out,
                    packet[1] & 0x80 != 0,
                    PayloadType(96),
                    *next as u16,
                    77,
                    Ssrc(5),
                );
                writer.extension(ExtensionId(6), &[1, 2, 3]);
                let payload_at = writer.finish();
                out[payload_at..DATAGRAM_BYTES - TAG]
                    .copy_from_slice(&packet[packet.len() - PAYLOAD..]);
                keys.seal_rtp(Ssrc(5), ExtSeq(*next), out, payload_at);
                *next += 1;
                at += DATAGRAM_BYTES;
            }
            sink.send(Transmit {
                path: *path,
                bytes: &self.run[..at],
                segment: DATAGRAM_BYTES,
            });
            sent += count;
        }
        sent
    }
}

/// The forwarder: a shard with one publisher and its subscribers.
struct Forwarder {
    world: World,
    publisher: usize,
    subscribers: Vec<(usize, Ssrc)>,
    publication: PublicationId,
    ssrc: Ssrc,
    now: Timestamp,
    sequence: u64,
    picture: u16,
    frames: usize,
}

impl Forwarder {
    fn new(fan_out: usize) -> Self {
        let mut world = World::new(1);
        let publisher = world.begin_join();
        let joined: Vec<_> = (0..fan_out).map(|_| world.begin_join()).collect();
        world.run(Duration::from_secs(3));
        world.open();
        let publication = world.publish(publisher, Codec::Vp8, 1);
        let layer = &mut world.source(publication).layers[0];
        layer.enabled = false;
        let ssrc = layer.ssrc;
        let subscribers = joined
            .into_iter()
            .map(|client| {
                let subscription = world.subscribe(client, publication);
                (client, Ssrc(500_000 + 10 * subscription.0 as u32))
            })
            .collect();
        world.run(Duration::from_millis(100));
        let now = world.now();
        Self {
            world,
            publisher,
            subscribers,
            publication,
            ssrc,
            now,
            sequence: 1000,
            picture: 0,
            frames: 0,
        }
    }

    fn prepare(&mut self, frames: usize, run: usize) -> Vec<(Timestamp, RecvBatch)> {
        (0..frames)
            .map(|_| {
                self.now = self.now + PER_PACKET * run as u32;
                self.frames += 1;
                self.picture = self.picture.wrapping_add(1) & 0x7fff;
                let mut batch = RecvBatch::default();
                let [high, low] = (self.picture | 0x8000).to_be_bytes();
                for part in 0..run {
                    let mut body = vec![
                        if part == 0 { 0x90 } else { 0x80 },
                        0xe0,
                        high,
                        low,
                        self.frames as u8,
                        0,
                        u8::from(self.frames > 1),
                    ];
                    body.resize(PAYLOAD, 0);
                    let packet = Packet {
                        ssrc: self.ssrc,
                        payload_type: payload::VP8,
                        sequence: self.sequence,
                        marker: part + 1 == run,
                        timestamp: (self.now.as_millis() * 90) as u32,
                        payload: body,
                        rid: None,
                        repaired: false,
                        level: None,
                    };
                    self.sequence += 1;
                    let (path, datagram) =
                        self.world.sealed(self.publisher, self.publication, &packet);
                    batch.push(path, &datagram);
                }
                // Each subscriber reports once a second and checks its path every 2.5 s, and so does the publisher.
                let (report, check) = (PER_SECOND / run, PER_SECOND * 5 / 2 / run);
                for (position, (client, ssrc)) in self.subscribers.iter().enumerate() {
                    if (self.frames + position).is_multiple_of(report) {
                        let mut compound = Vec::new();
                        let block = rtcp::Report {
                            ssrc: ssrc.0,
                            highest: self.frames as u32,
                            ..rtcp::Report::default()
                        };
                        rtcp::receiver_report(&mut compound, Ssrc(1), &[block]);
                        let (path, datagram) = self.world.sealed_rtcp(*client, compound);
                        batch.push(path, &datagram);
                    }
                    if (self.frames + position).is_multiple_of(check) {
                        let (path, datagram) = self.world.check(*client);
                        batch.push(path, &datagram);
                    }
                }
                if self.frames.is_multiple_of(check) {
                    let (path, datagram) = self.world.check(self.publisher);
                    batch.push(path, &datagram);
                }
                (self.now, batch)
            })
            .collect()
    }

    fn forward(&mut self, now: Timestamp, batch: &mut RecvBatch, sink: &mut Sink) {
        let shard = &mut self.world.shards[0];
        shard.handle_datagrams(now, batch);
        while let Some(transmit) = shard.poll_transmit() {
            sink.send(transmit);
        }
        if shard
            .poll_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            shard.handle_timeout(now);
            while let Some(transmit) = shard.poll_transmit() {
                sink.send(transmit);
            }
        }
        while let Some(event) = shard.poll_event() {
            std::hint::black_box(event);
        }
    }

    fn forwarded(&self) -> u64 {
        self.world.shard().counters().forwarded_packets
    }
}

/// Nanoseconds per packet of floor and forwarder, their ratio, allocations per forwarded packet.
fn measure(sink: &mut Sink, fan_out: usize, run: usize, rounds: usize) -> (f64, f64, f64, f64) {
    let (mut floor, mut forwarder) = (Floor::new(fan_out), Forwarder::new(fan_out));
    let frames = (PACKETS / fan_out / run).max(8);
    let (mut floors, mut forwards, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut allocated, mut forwarded) = (0, 0);
    for round in 0..=rounds {
        let mut batches = floor.prepare(frames, run);
        let begin = cpu_time();
        let sent: usize = batches
            .iter_mut()
            .map(|batch| floor.forward(batch, sink))
            .sum();
        let floor_nanos = (cpu_time() - begin).as_nanos() as f64 / sent as f64;

        let mut batches = forwarder.prepare(frames, run);
        let (before, packets) = (allocations(), forwarder.forwarded());
        let begin = cpu_time();
        for (now, batch) in &mut batches {
            forwarder.forward(*now, batch, sink);
        }
        let spent = cpu_time() - begin;
        let packets = forwarder.forwarded() - packets;
        assert_eq!(
            packets as usize,
            frames * run * fan_out,
            "all packets are forwarded"
        );
        let forward_nanos = spent.as_nanos() as f64 / packets as f64;
        if round == 0 {
            // Caches, key frame, first allocations.
            continue;
        }
        allocated += allocations() - before;
        forwarded += packets;
        floors.push(floor_nanos);
        forwards.push(forward_nanos);
        ratios.push(forward_nanos / floor_nanos);
    }
    (
        median(floors),
        median(forwards),
        median(ratios),
        allocated as f64 / forwarded as f64,
    )
}

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    if reran_in_namespace() {
        return;
    }
    pin();
    let quick = words.iter().any(|word| word == "quick");
    let rounds = if quick { 31 } else { 201 };
    // `50x8` picks one fan-out and run length.
    let pairs: Vec<(usize, usize)> = words
        .iter()
        .filter_map(|word| word.split_once('x'))
        .filter_map(|(fan_out, run)| Some((fan_out.parse().ok()?, run.parse().ok()?)))
        .collect();
    let names: Vec<&String> = words
        .iter()
        .filter(|word| *word != "quick" && !word.contains('x'))
        .collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|word| *word == name);
    println!(
        "forwarding a datagram of {DATAGRAM_BYTES} bytes, AES-256-GCM, one core; {}",
        machine()
    );
    println!(
        "median of {rounds} interleaved rounds, CPU time of the thread; wanted: ratio at most 1.20 at run 1, 1.35 above; 0 allocations"
    );
    println!(
        "allocations are those of feedback, reports and checks: per packet there are none (media-sim, tests/allocations.rs)"
    );
    let sinks: [(&str, &[usize], MakeSink); 4] = [
        ("ifb", &[1, 10, 50], Sink::ifb),
        ("loopback", &[10], Sink::loopback),
        ("veth", &[10], Sink::veth),
        ("none", &[1, 10, 50], || Some(Sink::none())),
    ];
    for (name, fan_outs, make) in sinks {
        if !wanted(name) {
            continue;
        }
        let Some(mut sink) = make() else {
            println!("sink {name}: not to be had here");
            continue;
        };
        println!(
            "\nsink {}\n{:>8} {:>4} {:>10} {:>14} {:>6} {:>12}",
            sink.name, "fan-out", "run", "floor ns", "forwarder ns", "ratio", "allocations"
        );
        for fan_out in fan_outs {
            for run in [1, 4, 8] {
                if !pairs.is_empty() && !pairs.contains(&(*fan_out, run)) {
                    continue;
                }
                let (floor, forward, ratio, allocations) =
                    measure(&mut sink, *fan_out, run, rounds);
                println!(
                    "{fan_out:>8} {run:>4} {floor:>10.0} {forward:>14.0} {ratio:>6.2} {allocations:>12.3}"
                );
            }
        }
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! What a fuzzer does with its bytes, for every parser that touches the network. The targets of `media-node/fuzz` call these by
//! name; `tests/corpus.rs` replays the kept inputs and mutations of them on stable Rust.
//!
//! Each function panics when something that must always hold does not: no parser panics, reads outside its input or breaks an
//! invariant of its own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use media_core::api::{Channel, Codec, Fingerprint, Format, IceCredentials};
use media_core::ids::{ExtSeq, Ssrc, TransportId};
use media_core::io::{DATAGRAM_BYTES_MAX, Path, Protocol};
use media_core::rewrite::Rewriter;
use media_core::ring::{Ring, Slot};
use media_core::rtp::header::Header;
use media_core::rtp::payload::{inspect, red_primary};
use media_core::rtp::rtcp::{self, Message};
use media_core::rtp::twcc::Feedback;
use media_core::time::Timestamp;
use media_core::transport::sctp::{Role, Sctp, SctpEvent};
use media_core::transport::{Transport, TransportOut, stun};
use media_crypto::{AwsLc, Certificate};
use media_net::frame;
use media_room::sdp;
use rtc_rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
use rtc_shared::marshal::Unmarshal;

use crate::source::{Packet, payload};
use crate::world::World;

/// A target: its name, what it does, inputs to begin with.
pub struct Target {
    /// Name of the fuzz target and of its corpus folder.
    pub name: &'static str,
    /// What it does with an input.
    pub run: fn(&[u8]),
    /// Valid inputs to mutate.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 11] = [
    Target {
        name: "stun",
        run: run_stun,
        seeds: stun_seeds,
    },
    Target {
        name: "rtp",
        run: run_rtp,
        seeds: rtp_seeds,
    },
    Target {
        name: "rtcp",
        run: run_rtcp,
        seeds: rtcp_seeds,
    },
    Target {
        name: "twcc",
        run: run_twcc,
        seeds: || vec![vec![0, 1, 9, 0, 2, 9, 0, 9, 200, 255, 255, 1]],
    },
    Target {
        name: "payload",
        run: run_payload,
        seeds: payload_seeds,
    },
    Target {
        name: "sctp",
        run: run_sctp,
        seeds: sctp_seeds,
    },
    Target {
        name: "descriptions",
        run: run_sdp,
        seeds: sdp_seeds,
    },
    Target {
        name: "frame",
        run: run_frame,
        seeds: || vec![vec![3, 0, 3, 1, 2, 3, 0, 0, 0, 1, 9]],
    },
    Target {
        name: "rewriter",
        run: run_rewriter,
        seeds: || vec![(0..60).collect()],
    },
    Target {
        name: "ring",
        run: run_ring,
        seeds: || vec![(0..90).collect()],
    },
    Target {
        name: "shard",
        run: run_shard,
        seeds: shard_seeds,
    },
];

fn path() -> Path {
    Path {
        protocol: Protocol::Udp,
        local: ([127, 0, 0, 1], 2000).into(),
        remote: ([127, 0, 0, 1], 10_000).into(),
    }
}

const UFRAG: &str = "00node";
const PASSWORD: &str = "a-password-of-some-length";

/// A transport takes any bytes as STUN; only what was made with the password proves a path.
pub fn run_stun(data: &[u8]) {
    let certificate = Arc::new(Certificate::generate().expect("certificate"));
    let mut crypto = AwsLc::seeded(certificate, 1);
    let credentials = IceCredentials {
        ufrag: UFRAG.to_owned(),
        password: PASSWORD.to_owned(),
    };
    let mut transport = Transport::<AwsLc>::new(TransportId(1), credentials);
    let mut out = TransportOut::default();
    let _ = stun::username(data);
    transport.handle_stun(Timestamp::ZERO, &mut crypto, path(), data, &mut out);
    let authentic =
        stun::Check::parse(data).is_some_and(|check| check.authentic::<AwsLc>(PASSWORD));
    assert!(
        authentic || transport.path().is_none(),
        "a forged check proved a path"
    );
    for (to, answer) in out.datagrams {
        assert_eq!(to, path(), "an answer goes back where the check came from");
        assert!(stun::is_stun(&answer));
    }
}

fn stun_seeds() -> Vec<Vec<u8>> {
    let check =
        |nominate| stun::request::<AwsLc>([7; 12], &format!("{UFRAG}:client"), PASSWORD, nominate);
    vec![check(true), check(false)]
}

/// Header and extensions lie within the packet.
pub fn run_rtp(data: &[u8]) {
    if let Some(header) = Header::parse(data) {
        assert!(header.payload_at <= data.len());
        header.extensions(data, |id, at, length| {
            assert!(id.0 != 0 && at + length <= header.payload_at);
        });
    }
}

fn rtp_seeds() -> Vec<Vec<u8>> {
    vec![
        [
            &[
                0x90, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0xbe, 0xde, 0, 1, 0x10, 0x30, 0x22, 1,
            ][..],
            &[9; 20],
        ]
        .concat(),
        [
            &[
                0x92, 224, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 1, 1, 1, 1, 2, 2, 2, 2, 0x10, 0, 0, 2, 3,
                2, 7, 7, 0, 5, 0, 0,
            ][..],
            &[9; 5],
        ]
        .concat(),
    ]
}

/// Compound packets; what is read back from what was written is the same.
pub fn run_rtcp(data: &[u8]) {
    let (mut nacks, mut reports) = (Vec::new(), Vec::new());
    rtcp::parse(data, |message| match message {
        Message::Nack { pid, .. } => nacks.push(pid),
        Message::Report(report) => reports.push(report),
        _ => {}
    });
    reports.truncate(31);
    let mut packet = Vec::new();
    rtcp::receiver_report(&mut packet, Ssrc(1), &reports);
    nacks.sort_unstable();
    nacks.dedup();
    rtcp::nack(&mut packet, Ssrc(1), Ssrc(2), &nacks);
    let (mut again, mut wanted) = (Vec::new(), HashSet::new());
    let whole = rtcp::parse(&packet, |message| match message {
        Message::Report(report) => again.push(report),
        Message::Nack { pid, mask, .. } => {
            wanted.insert(pid);
            wanted.extend(
                (0..16)
                    .filter(|bit| mask >> bit & 1 == 1)
                    .map(|bit| pid.wrapping_add(bit + 1)),
            );
        }
        _ => {}
    });
    assert!(whole);
    assert_eq!(again, reports);
    assert_eq!(
        wanted,
        nacks.into_iter().collect::<HashSet<u16>>(),
        "exactly what is lost is asked for"
    );
}

fn rtcp_seeds() -> Vec<Vec<u8>> {
    let mut packet = Vec::new();
    rtcp::receiver_report(
        &mut packet,
        Ssrc(1),
        &[rtcp::Report {
            ssrc: 5,
            fraction_lost: 1,
            ..rtcp::Report::default()
        }],
    );
    rtcp::source_description(&mut packet, Ssrc(1));
    rtcp::picture_loss(&mut packet, Ssrc(1), Ssrc(2));
    rtcp::nack(&mut packet, Ssrc(1), Ssrc(2), &[1, 2, 20, 65_535]);
    rtcp::sender_report(&mut packet, Ssrc(1), 9, 8, 7, 6);
    packet.extend_from_slice(&[0x81, 203, 0, 1, 0, 0, 0, 1]);
    vec![packet]
}

/// Any arrivals make feedback that another implementation reads, with as many deltas as statuses that have one.
pub fn run_twcc(data: &[u8]) {
    let mut feedback = Feedback::default();
    let mut now = Timestamp::from_millis(1000);
    for chunk in data.chunks_exact(3) {
        now = now + Duration::from_micros(u64::from(chunk[2]).pow(3));
        feedback.arrived(u16::from_be_bytes([chunk[0], chunk[1]]), now);
        if chunk[2] % 16 == 15 {
            let mut out = Vec::new();
            feedback.write(&mut out, Ssrc(1), Ssrc(2));
            if !out.is_empty() {
                assert!(
                    out.len() <= 1400,
                    "{} bytes do not fit a datagram",
                    out.len()
                );
                let read =
                    TransportLayerCc::unmarshal(&mut out.as_slice()).expect("valid feedback");
                assert!(read.packet_status_count > 0);
            }
        }
    }
}

/// Descriptors of all codecs; the offsets they give lie within the payload.
pub fn run_payload(data: &[u8]) {
    for codec in [
        Codec::Opus,
        Codec::Red,
        Codec::Vp8,
        Codec::Vp9,
        Codec::H264,
        Codec::Av1,
    ] {
        let info = inspect(codec, data);
        if let Some(vp8) = info.vp8 {
            assert!(
                vp8.picture
                    .is_none_or(|(at, _, long)| usize::from(at) + usize::from(long) < data.len())
            );
            assert!(vp8.tl0.is_none_or(|(at, _)| usize::from(at) < data.len()));
        }
        assert!(!info.parameters || info.key_frame);
    }
    assert!(red_primary(data).is_none_or(|at| at < data.len()));
}

fn payload_seeds() -> Vec<Vec<u8>> {
    vec![
        vec![0x90, 0xf0, 0x81, 0x02, 0x33, 0x40, 0x00, 0x01, 9, 9],
        vec![0x78, 0, 5, 0x67, 1, 2, 3, 4, 0, 2, 0x68, 9],
        vec![0x7c, 0x85, 1, 2, 3],
        vec![0x80 | 111, 0, 0, 3, 111, 1, 1, 1, 2, 2],
        vec![0x88, 0x81, 0x02, 9],
        vec![0x18, 9, 9],
    ]
}

/// CRC-32C as SCTP has it (RFC 9260, appendix A), so that mutated packets get past the checksum.
fn checksum(packet: &mut [u8]) {
    let Some(place) = packet.get_mut(8..12) else {
        return;
    };
    place.fill(0);
    let mut crc = u32::MAX;
    for byte in packet.iter() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
        }
    }
    packet[8..12].copy_from_slice(&(!crc).to_le_bytes());
}

/// A connected association takes any packets: chunks of its peer, mutated by the input.
pub fn run_sctp(data: &[u8]) {
    let now = Instant::now();
    let (mut client, mut server) = (Sctp::new(Role::Client), Sctp::new(Role::Server));
    client.connect(now);
    for _ in 0..6 {
        while let Some(packet) = client.poll_transmit(now) {
            server.handle(now, packet.to_vec());
        }
        while let Some(packet) = server.poll_transmit(now) {
            client.handle(now, packet.to_vec());
        }
        while let Some(event) = client.poll_event(now) {
            if matches!(event, SctpEvent::Connected) {
                client.open_channels(now);
            }
        }
        while server.poll_event(now).is_some() {}
    }
    let mut rest = data;
    while let Some((&length, tail)) = rest.split_first() {
        let take = usize::from(length).min(tail.len());
        let (mutation, tail) = tail.split_at(take);
        rest = tail;
        let _ = client.send(now, Channel::Reliable, mutation);
        while let Some(packet) = client.poll_transmit(now) {
            let mut packet = packet.to_vec();
            // Verification tag and ports stay; the chunks are the input's.
            for (index, byte) in mutation.iter().enumerate() {
                if let Some(place) = packet.get_mut(12 + index) {
                    *place ^= byte;
                }
            }
            checksum(&mut packet);
            server.handle(now, packet);
        }
        while let Some(event) = server.poll_event(now) {
            assert!(!matches!(event, SctpEvent::Broken), "the library panicked");
        }
        while server.poll_transmit(now).is_some() {}
    }
    server.handle_timeout(now + Duration::from_secs(4));
    while server.poll_transmit(now).is_some() {}
}

fn sctp_seeds() -> Vec<Vec<u8>> {
    vec![vec![5, 0, 0, 0, 0, 0, 3, 1, 0, 0], vec![40; 60]]
}

/// Descriptions of clients; an answer can be written to whatever is read, and reads as a description again.
pub fn run_sdp(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(offer) = sdp::Description::parse(text) else {
        return;
    };
    let ice = IceCredentials {
        ufrag: UFRAG.to_owned(),
        password: PASSWORD.to_owned(),
    };
    let local = sdp::Local {
        ice: &ice,
        fingerprint: Fingerprint([7; 32]),
        candidates: &[],
        version: 1,
    };
    let answer = sdp::answer(&offer, &local, &[]);
    if let Ok(again) = sdp::Description::parse(&answer) {
        assert!(
            again.sections.len() <= offer.sections.len(),
            "an answer has no sections of its own"
        );
    }
}

fn sdp_seeds() -> Vec<Vec<u8>> {
    let print = [0x5a_u8; 32].map(|byte| format!("{byte:02X}")).join(":");
    let head = format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS\r\n\
         a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=ice-options:trickle\r\na=fingerprint:sha-256 {print}\r\na=setup:actpass\r\n"
    );
    let video = "m=video 9 UDP/TLS/RTP/SAVPF 96 97 102\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendonly\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n\
                 a=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=rtpmap:102 H264/90000\r\n\
                 a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
                 a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=extmap:2/sendonly urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
                 a=rid:q send\r\na=rid:f send\r\na=simulcast:send q;f\r\na=msid:- camera\r\n";
    let audio = "m=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=sendrecv\r\na=rtpmap:111 opus/48000/2\r\n\
                 a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\na=ssrc-group:FID 1 2\r\na=ssrc:1 cname:x\r\n";
    let data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\na=sctp-port:5000\r\n";
    vec![format!("{head}{video}{audio}{data}").into_bytes()]
}

/// A stream cut anywhere gives the same datagrams as in one piece.
pub fn run_frame(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut deframer = frame::Deframer::new(DATAGRAM_BYTES_MAX);
        let mut datagrams = Vec::new();
        let mut failed = false;
        for piece in pieces {
            failed = deframer
                .push(piece, |datagram| datagrams.push(datagram.to_vec()))
                .is_err();
            assert!(deframer.pending() <= frame::HEADER_BYTES + DATAGRAM_BYTES_MAX);
            if failed {
                break;
            }
        }
        (datagrams, failed)
    };
    let whole = read(&mut std::iter::once(stream));
    assert_eq!(whole, read(&mut stream.chunks(1 + usize::from(cut))));
}

/// No two packets ever share an outgoing number, and what was sent is found again.
pub fn run_rewriter(data: &[u8]) {
    let mut rewriter = Rewriter::new(65_500);
    let mut next = [1000_u64, 50_000, 90_000];
    let mut used = HashSet::new();
    let mut current = None::<u8>;
    for chunk in data.chunks_exact(2) {
        let (step, amount) = (chunk[0] % 8, u64::from(chunk[1] % 40));
        let encoding = chunk[0] / 8 % 3;
        match step {
            0 => {
                rewriter.switch(
                    encoding,
                    ExtSeq(next[usize::from(encoding)]),
                    0,
                    0,
                    Some(u16::from(chunk[1])),
                    Some(chunk[1]),
                );
                current = Some(encoding);
            }
            1 => {
                // A layer that begins anew under the same numbers.
                rewriter.forget(encoding);
                next[usize::from(encoding)] = next[usize::from(encoding)].saturating_sub(amount);
                current = current.filter(|current| *current != encoding);
            }
            2 => {
                rewriter.leave_out(
                    encoding,
                    ExtSeq(next[usize::from(encoding)]),
                    amount % 2 == 0,
                );
                next[usize::from(encoding)] += 1;
            }
            _ => {
                let sequence = ExtSeq(next[usize::from(encoding)] + amount / 8);
                if current == Some(encoding) {
                    if let Some(numbers) = rewriter.forward(encoding, sequence, 0, None, None) {
                        assert!(
                            used.insert(numbers.sequence),
                            "{:?} was given twice",
                            numbers.sequence
                        );
                        let found = rewriter
                            .reverse(numbers.sequence.0 as u16)
                            .expect("just sent");
                        assert_eq!((found.0, found.1), (encoding, sequence));
                    }
                    next[usize::from(encoding)] = sequence.0 + 1;
                }
            }
        }
    }
}

/// What is found is what was put in under that number, whole.
pub fn run_ring(data: &[u8]) {
    let mut ring = Ring::new(4096, 64);
    let format = Format {
        codec: Codec::Vp8,
        variant: 0,
    };
    let mut kept = std::collections::HashMap::new();
    for (order, chunk) in data.chunks_exact(3).enumerate() {
        let (sequence, descriptor, length) = (
            u64::from(chunk[0]),
            usize::from(chunk[1]) % 80,
            usize::from(chunk[2]) * 5,
        );
        if chunk[1] == 255 {
            ring.clear();
            kept.clear();
            continue;
        }
        let (head, body) = (vec![order as u8; descriptor], vec![!(order as u8); length]);
        let mut slot = Slot::new(ExtSeq(sequence), 0, false, format);
        slot.descriptor = descriptor as u8;
        slot.payload = length as u16;
        ring.insert(slot, &head, &body);
        if descriptor + length <= 1024 {
            kept.insert(sequence, (head, body));
        }
        for (number, (head, body)) in &kept {
            if let Some((slot, found_head, found_body)) = ring.get(ExtSeq(*number)) {
                assert_eq!(slot.sequence.0, *number);
                assert_eq!((found_head, found_body), (head.as_slice(), body.as_slice()));
            }
        }
    }
}

/// A whole shard with a publisher and a subscriber: the input is what a client with keys sends. Nothing panics, no index seals two
/// contents (the world checks it), and a stranger gets nothing.
pub fn run_shard(data: &[u8]) {
    let mut world = World::new(1);
    let (publisher, subscriber, stranger) =
        (world.begin_join(), world.begin_join(), world.begin_join());
    world.run(Duration::from_millis(400));
    world.open();
    let track = world.publish(publisher, Codec::Vp8, 3);
    let subscription = world.subscribe(subscriber, track);
    world.run(Duration::from_millis(100));
    let mut sequence = 200_000;
    let mut rest = data;
    while let [kind, length, tail @ ..] = rest {
        let take = usize::from(*length).min(tail.len());
        let (body, tail) = tail.split_at(take);
        rest = tail;
        match kind % 6 {
            0 => world.inject(publisher, body.to_vec()),
            1 => {
                let mut compound = body.to_vec();
                compound.resize(body.len().max(8).next_multiple_of(4), 0);
                world.send_raw_rtcp(
                    if kind / 6 % 2 == 0 {
                        publisher
                    } else {
                        subscriber
                    },
                    compound,
                );
            }
            2 | 3 => {
                sequence += u64::from(kind / 6);
                let payload_type = [
                    payload::VP8,
                    payload::rtx(payload::VP8),
                    payload::H264,
                    payload::RED,
                ][usize::from(kind / 6 % 4)];
                let packet = Packet {
                    ssrc: Ssrc(u32::from(*length) * 7),
                    payload_type,
                    sequence,
                    marker: kind % 2 == 0,
                    timestamp: sequence as u32 * 90,
                    payload: body.to_vec(),
                    rid: Some(["q", "h", "f", "zz"][usize::from(length % 4)].to_owned()),
                    repaired: kind % 6 == 3,
                    level: None,
                };
                let (_, datagram) = world.sealed(publisher, track, &packet);
                world.inject(publisher, datagram);
            }
            4 => world.wish(subscription, kind / 6 % 2 == 0, length % 4, length / 64),
            _ => world.send_data(publisher, Channel::Reliable, body),
        }
        world.run(Duration::from_millis(u64::from(kind / 16)));
    }
    world.run(Duration::from_millis(50));
    assert!(world.data(stranger).is_empty());
}

fn shard_seeds() -> Vec<Vec<u8>> {
    let mut mixed = vec![2, 60, 0x90, 0xe0, 0x81, 1, 5, 0];
    mixed.extend_from_slice(&[7; 60]);
    mixed.extend_from_slice(&[1, 16, 0x81, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0]);
    mixed.extend_from_slice(&[4, 1, 5, 3, b'a', b'b', b'c', 0, 4, 0x80, 96, 1, 2]);
    vec![mixed]
}

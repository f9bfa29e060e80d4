// SPDX-License-Identifier: EUPL-1.2
//! What a client publishes: frames of a codec in layers, packetised as browsers do it, each carrying the number of its capture.

use std::collections::BTreeMap;

use media_core::api::Codec;
use media_core::ids::{PayloadType, Ssrc};
use media_core::time::Timestamp;

/// Payload types, the same for publishers and subscribers.
pub mod payload {
    use media_core::ids::PayloadType;

    /// VP8.
    pub const VP8: PayloadType = PayloadType(96);
    /// H.264.
    pub const H264: PayloadType = PayloadType(102);
    /// VP9.
    pub const VP9: PayloadType = PayloadType(98);
    /// AV1.
    pub const AV1: PayloadType = PayloadType(45);
    /// Opus.
    pub const OPUS: PayloadType = PayloadType(111);
    /// RED.
    pub const RED: PayloadType = PayloadType(63);

    /// RTX of a video payload type.
    #[must_use]
    pub fn rtx(of: PayloadType) -> PayloadType {
        PayloadType(of.0 + 1)
    }
}

/// Milliseconds between frames of video.
pub const VIDEO_INTERVAL: u64 = 33;
/// Milliseconds between packets of audio.
pub const AUDIO_INTERVAL: u64 = 20;
/// Packets of a stream that name its layer; browsers stop when the other side knows.
const NAMED_PACKETS: u64 = 60;
/// Packets kept to be sent again.
const HISTORY: usize = 500;

/// One packet to be sealed.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Stream.
    pub ssrc: Ssrc,
    /// Payload type.
    pub payload_type: PayloadType,
    /// Extended sequence number.
    pub sequence: u64,
    /// Marker.
    pub marker: bool,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Payload.
    pub payload: Vec<u8>,
    /// Names its layer.
    pub rid: Option<String>,
    /// Is a retransmission: the layer is named by the repaired id.
    pub repaired: bool,
    /// RFC 6464 byte.
    pub level: Option<u8>,
}

/// One layer.
#[derive(Debug)]
pub struct Layer {
    /// Stream.
    pub ssrc: Ssrc,
    /// Stream of retransmissions.
    pub rtx_ssrc: Ssrc,
    /// Restriction id with simulcast.
    pub rid: Option<String>,
    /// A key frame is wanted.
    pub key: bool,
    /// Is it sent?
    pub enabled: bool,
    sequence: u64,
    rtx_sequence: u64,
    first_sequence: u64,
    clock: u32,
    picture: u16,
    tl0: u8,
    history: BTreeMap<u64, Packet>,
}

/// A published track.
#[derive(Debug)]
pub struct Source {
    /// Its codec.
    pub codec: Codec,
    /// Its layers, low to high.
    pub layers: Vec<Layer>,
    /// Captures so far.
    pub captures: u64,
    /// RFC 6464 byte of what is said next.
    pub level: u8,
    next: Timestamp,
}

impl Source {
    /// `count` layers with SSRCs from `base` on. More than one are told apart by RID alone, as browsers do.
    #[must_use]
    pub fn new(codec: Codec, count: usize, base: u32, now: Timestamp) -> Self {
        let layers = (0..count)
            .map(|index| Layer {
                ssrc: Ssrc(base + 10 * index as u32),
                rtx_ssrc: Ssrc(base + 10 * index as u32 + 1),
                rid: (count > 1).then(|| ["q", "h", "f"][index].to_owned()),
                key: true,
                enabled: true,
                // Near their rollovers, so that a minute passes all of them.
                sequence: 65_000 + 100 * index as u64,
                first_sequence: 65_000 + 100 * index as u64,
                rtx_sequence: 65_400,
                // Each layer has a clock of its own; the first passes its rollover after three seconds.
                clock: (u32::MAX - 300_000).wrapping_add((index as u32) << 28),
                picture: 0x7ff0 - 1000 * index as u16,
                tl0: 250,
                history: BTreeMap::new(),
            })
            .collect();
        Self {
            codec,
            layers,
            captures: 0,
            level: 0x80 | 20,
            next: now,
        }
    }

    /// Is it audio?
    #[must_use]
    pub fn is_audio(&self) -> bool {
        matches!(self.codec, Codec::Opus | Codec::Red)
    }

    /// Ticks of its RTP clock per millisecond.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        if self.is_audio() { 48 } else { 90 }
    }

    /// RTP timestamp of a layer at `now`.
    #[must_use]
    pub fn clock(&self, layer: &Layer, now: Timestamp) -> u32 {
        layer
            .clock
            .wrapping_add((now.as_millis() * self.ticks()) as u32)
    }

    /// Packets that are due.
    pub fn produce(&mut self, now: Timestamp) -> Vec<Packet> {
        if now < self.next {
            return Vec::new();
        }
        let interval = if self.is_audio() {
            AUDIO_INTERVAL
        } else {
            VIDEO_INTERVAL
        };
        self.next = Timestamp::from_millis(now.as_millis() + interval);
        self.captures += 1;
        let mut packets = Vec::new();
        let (codec, capture, level) = (self.codec, self.captures, self.level);
        let ticks = self.ticks();
        for layer in self.layers.iter_mut().filter(|layer| layer.enabled) {
            let timestamp = layer.clock.wrapping_add((now.as_millis() * ticks) as u32);
            layer.frame(codec, capture, timestamp, level, &mut packets);
        }
        packets
    }

    /// The retransmission of a packet, or `None`. Audio goes out once more as it was.
    pub fn repair(&mut self, ssrc: Ssrc, sequence: u16) -> Option<Packet> {
        let audio = self.is_audio();
        let layer = self.layers.iter_mut().find(|layer| layer.ssrc == ssrc)?;
        let (_, packet) = layer
            .history
            .iter()
            .rev()
            .find(|(number, _)| **number as u16 == sequence)?;
        if audio {
            return Some(packet.clone());
        }
        layer.rtx_sequence += 1;
        Some(Packet {
            ssrc: layer.rtx_ssrc,
            payload_type: payload::rtx(packet.payload_type),
            sequence: layer.rtx_sequence,
            payload: [&sequence.to_be_bytes()[..], &packet.payload].concat(),
            rid: layer
                .rid
                .clone()
                .filter(|_| layer.rtx_sequence < 65_400 + NAMED_PACKETS),
            repaired: true,
            ..packet.clone()
        })
    }
}

impl Layer {
    fn frame(
        &mut self,
        codec: Codec,
        capture: u64,
        timestamp: u32,
        level: u8,
        packets: &mut Vec<Packet>,
    ) {
        let key = std::mem::take(&mut self.key);
        let number = (capture as u32).to_be_bytes();
        let (payload_type, parts) = match codec {
            Codec::Opus => (payload::OPUS, vec![[b"opus", &number[..]].concat()]),
            Codec::Red => (
                payload::RED,
                vec![
                    [
                        &[0x80 | payload::OPUS.0, 0, 0, 3, payload::OPUS.0][..],
                        b"old",
                        b"opus",
                        &number,
                    ]
                    .concat(),
                ],
            ),
            Codec::Vp8 => (payload::VP8, self.vp8(key, capture, number)),
            Codec::H264 => (payload::H264, h264(key, number)),
            Codec::Vp9 => (payload::VP9, self.vp9(key, number)),
            Codec::Av1 => (payload::AV1, av1(key, number)),
        };
        let audio = matches!(codec, Codec::Opus | Codec::Red);
        let last = parts.len() - 1;
        for (part, payload) in parts.into_iter().enumerate() {
            let packet = Packet {
                ssrc: self.ssrc,
                payload_type,
                sequence: self.sequence,
                marker: part == last && !audio,
                timestamp,
                payload,
                rid: self
                    .rid
                    .clone()
                    .filter(|_| self.sequence < self.first_sequence + NAMED_PACKETS),
                repaired: false,
                level: audio.then_some(level),
            };
            self.history.insert(self.sequence, packet.clone());
            if self.history.len() > HISTORY {
                self.history.pop_first();
            }
            self.sequence += 1;
            packets.push(packet);
        }
    }

    /// Three packets; every second frame belongs to the upper temporal layer and depends on the lower alone.
    fn vp8(&mut self, key: bool, capture: u64, number: [u8; 4]) -> Vec<Vec<u8>> {
        let upper = capture.is_multiple_of(2) && !key;
        self.picture = self.picture.wrapping_add(1) & 0x7fff;
        if !upper {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        let [high, low] = (self.picture | 0x8000).to_be_bytes();
        let layer = if upper { 0x60 } else { 0 };
        (0..3_u8)
            .map(|part| {
                let start = if part == 0 { 0x90 } else { 0x80 };
                let mut payload = vec![start, 0xe0, high, low, self.tl0, layer, u8::from(!key)];
                payload.extend_from_slice(&number);
                payload.resize(1000 + usize::from(part), part);
                payload
            })
            .collect()
    }

    fn vp9(&mut self, key: bool, number: [u8; 4]) -> Vec<Vec<u8>> {
        self.picture = self.picture.wrapping_add(1) & 0x7fff;
        let [high, low] = (self.picture | 0x8000).to_be_bytes();
        (0..2_u8)
            .map(|part| {
                let predicted = if key { 0 } else { 0x40 };
                let edges = if part == 0 { 0x08 } else { 0x04 };
                let mut payload = vec![0x80 | predicted | edges, high, low];
                payload.extend_from_slice(&number);
                payload.resize(900, part);
                payload
            })
            .collect()
    }
}

/// A key frame is its parameter sets in one packet and three fragments; another frame is three fragments.
fn h264(key: bool, number: [u8; 4]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    if key {
        let sets = [0x78, 0, 5, 0x67, 1, 2, 3, 4, 0, 2, 0x68, 9];
        parts.push([&sets[..], &number].concat());
    }
    for part in 0..3_u8 {
        let edge = match part {
            0 => 0x80,
            2 => 0x40,
            _ => 0,
        };
        let mut payload = vec![0x7c, edge | if key { 5 } else { 1 }];
        payload.extend_from_slice(&number);
        payload.resize(1000, part);
        parts.push(payload);
    }
    parts
}

fn av1(key: bool, number: [u8; 4]) -> Vec<Vec<u8>> {
    (0..2_u8)
        .map(|part| {
            let aggregation = 0x10
                | if part == 0 {
                    if key { 0x08 } else { 0 }
                } else {
                    0x80
                };
            let mut payload = vec![aggregation];
            payload.extend_from_slice(&number);
            payload.resize(900, part);
            payload
        })
        .collect()
}

/// What a receiver reads of a payload again: does a frame begin, is it a key frame, and which capture is it.
#[must_use]
pub fn read(payload_type: PayloadType, payload: &[u8]) -> Option<(bool, bool, Option<u32>)> {
    let number = |at: usize| {
        payload
            .get(at..at + 4)?
            .first_chunk()
            .map(|bytes| u32::from_be_bytes(*bytes))
    };
    Some(match payload_type {
        payload::OPUS => (true, true, number(4)),
        payload::RED => (true, true, number(12)),
        payload::VP8 => {
            let start = payload.first()? & 0x10 != 0;
            (start, start && payload.get(6)? & 1 == 0, number(7))
        }
        payload::H264 => match payload.first()? & 0x1f {
            24 => (true, true, number(12)),
            28 => {
                let fragment = payload.get(1)?;
                (fragment & 0x9f == 0x81, false, number(2))
            }
            _ => return None,
        },
        payload::VP9 => {
            let first = payload.first()?;
            (first & 0x08 != 0, first & 0x48 == 0x08, number(3))
        }
        payload::AV1 => {
            let first = payload.first()?;
            (first & 0x80 == 0, first & 0x08 != 0, number(1))
        }
        _ => return None,
    })
}

// SPDX-License-Identifier: EUPL-1.2
//! What a shard keeps of rooms, peers, publications and subscriptions.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::time::Duration;

use crate::api::{
    Format, LayerWish, PayloadBinding, Publication, Side, Subscription, TransportStats,
};
use crate::crypto::Crypto;
use crate::ids::{ExtSeq, ParticipantId, PayloadType, RoomIndex, Ssrc};
use crate::rewrite::Rewriter;
use crate::ring::Ring;
use crate::rtp::twcc::Feedback;
use crate::srtp::{Direction, Replay};
use crate::time::Timestamp;
use crate::transport::Transport;

/// Values by index, found by id: indices are what the packet path uses.
pub(super) struct Arena<I, T> {
    items: Vec<Option<T>>,
    free: Vec<usize>,
    by_id: HashMap<I, usize, BuildHasherDefault<Mix>>,
}

impl<I: Copy + Eq + Hash, T> Arena<I, T> {
    pub(super) fn new() -> Self {
        Self {
            items: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn insert(&mut self, id: I, item: T) -> usize {
        let index = self.free.pop().unwrap_or(self.items.len());
        if index == self.items.len() {
            self.items.push(Some(item));
        } else {
            self.items[index] = Some(item);
        }
        self.by_id.insert(id, index);
        index
    }

    pub(super) fn index(&self, id: I) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.items.get(index)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.items.get_mut(index)?.as_mut()
    }

    pub(super) fn remove(&mut self, id: I) -> Option<(usize, T)> {
        let index = self.by_id.remove(&id)?;
        let item = self.items[index].take()?;
        self.free.push(index);
        Some((index, item))
    }
}

/// Multiplicative hashing for keys that no stranger chooses: ids of the node, and addresses that a check has proved.
#[derive(Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 29
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}

/// A room: its gate and who is in it.
pub(super) struct Room {
    pub(super) id: RoomIndex,
    pub(super) open: bool,
    pub(super) peers: Vec<usize>,
    pub(super) audio: Vec<usize>,
    pub(super) speakers_armed: Option<Timestamp>,
}

/// A peer connection with its media state.
pub(super) struct Peer<C: Crypto> {
    pub(super) room: usize,
    pub(super) participant: ParticipantId,
    pub(super) side: Side,
    pub(super) ice: Transport<C>,
    pub(super) keys: Option<PeerKeys<C>>,
    pub(super) streams: Vec<Stream>,
    pub(super) publications: Vec<usize>,
    pub(super) subscriptions: Vec<usize>,
    pub(super) feedback: Feedback,
    pub(super) feedback_armed: Option<Timestamp>,
    pub(super) feedback_media: Ssrc,
    pub(super) next_transport_sequence: u16,
    pub(super) reports_armed: Option<Timestamp>,
    pub(super) timer_at: Option<Timestamp>,
    /// User fragment before a restart.
    pub(super) old_fragment: Option<String>,
    /// Own SSRC in RTCP.
    pub(super) reporter: Ssrc,
    pub(super) stats: TransportStats,
}

/// Keys of a peer and the counters that belong to them.
pub(super) struct PeerKeys<C: Crypto> {
    pub(super) local: Direction<C>,
    pub(super) remote: Direction<C>,
    pub(super) rtcp_index: u32,
    pub(super) rtcp_replay: Replay,
}

/// One SSRC received on a peer.
pub(super) struct Stream {
    pub(super) ssrc: Ssrc,
    pub(super) replay: Replay,
    pub(super) publication: usize,
    pub(super) encoding: u8,
    pub(super) retransmission: bool,
}

/// A publication with what was received of it.
pub(super) struct Published {
    pub(super) declared: Publication,
    pub(super) peer: usize,
    pub(super) room: usize,
    pub(super) encodings: Vec<EncodingState>,
    pub(super) muted: bool,
    pub(super) subscriptions: Vec<usize>,
    /// Packets not yet forwarded.
    pub(super) fresh: Vec<(u8, ExtSeq)>,
    pub(super) queued: bool,
    pub(super) key_armed: Option<Timestamp>,
    pub(super) nack_armed: Option<Timestamp>,
    pub(super) level: Level,
}

impl Published {
    pub(super) fn binding(&self, payload_type: PayloadType) -> Option<&PayloadBinding> {
        self.declared
            .payloads
            .iter()
            .find(|binding| binding.payload_type == payload_type)
    }

    pub(super) fn is_retransmission(&self, payload_type: PayloadType) -> bool {
        self.declared
            .payloads
            .iter()
            .any(|binding| binding.rtx == Some(payload_type))
    }

    pub(super) fn primary_of(&self, rtx: PayloadType) -> Option<&PayloadBinding> {
        self.declared
            .payloads
            .iter()
            .find(|binding| binding.rtx == Some(rtx))
    }
}

/// Loudness over the running interval (RFC 6464).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Level {
    pub(super) packets: u32,
    pub(super) active: u32,
    /// Smallest byte seen: 0 is loudest, 127 silence.
    pub(super) loudest: u8,
    pub(super) smoothed: f32,
    pub(super) speaking: bool,
}

/// A lost packet that was or will be asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Missing {
    pub(super) sequence: u64,
    pub(super) asked: Timestamp,
    pub(super) next: Timestamp,
    pub(super) tries: u8,
}

/// Shortest and longest wait before a packet is asked for again.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));
/// Wait while no repair was seen.
const ASK_AGAIN_START: Duration = Duration::from_millis(80);

impl EncodingState {
    /// How long an answer to a request may take.
    pub(super) fn ask_again(&self) -> Duration {
        self.repair_time.map_or(ASK_AGAIN_START, |time| {
            (time * 5 / 4 + Duration::from_millis(5)).clamp(ASK_AGAIN.0, ASK_AGAIN.1)
        })
    }

    /// A packet that was missing is here.
    pub(super) fn found(&mut self, now: Timestamp, sequence: u64, repaired: bool) {
        let Some(at) = self
            .missing
            .iter()
            .position(|missing| missing.sequence == sequence)
        else {
            return;
        };
        // After a second request nobody knows which one was answered.
        if let Some(missing) = self.missing.remove(at)
            && repaired
            && missing.tries == 1
        {
            let time = now.since(missing.asked);
            self.repair_time = Some(
                self.repair_time
                    .map_or(time, |before| (before * 7 + time) / 8),
            );
        }
    }
}

/// The last sender report of an encoding.
#[derive(Clone, Copy, Debug)]
pub(super) struct SenderReport {
    pub(super) ntp: u64,
    pub(super) rtp: u32,
    pub(super) at: Timestamp,
}

/// One layer of a publication.
pub(super) struct EncodingState {
    pub(super) ssrc: Option<Ssrc>,
    pub(super) ring: Option<Ring>,
    pub(super) clock_rate: u32,
    pub(super) base: u64,
    pub(super) highest: Option<u64>,
    pub(super) received: u64,
    pub(super) expected_before: u64,
    pub(super) received_before: u64,
    pub(super) jitter: f32,
    pub(super) transit: Option<i64>,
    pub(super) last_packet: Timestamp,
    pub(super) missing: VecDeque<Missing>,
    /// From a request to the packet, smoothed.
    pub(super) repair_time: Option<Duration>,
    pub(super) bound_at: Option<Timestamp>,
    pub(super) parameters_seen: bool,
    pub(super) key_wanted: bool,
    pub(super) key_asked: Option<Timestamp>,
    pub(super) report: Option<SenderReport>,
}

impl EncodingState {
    pub(super) fn new() -> Self {
        Self {
            ssrc: None,
            ring: None,
            clock_rate: 90_000,
            base: 0,
            highest: None,
            received: 0,
            expected_before: 0,
            received_before: 0,
            jitter: 0.0,
            transit: None,
            last_packet: Timestamp::ZERO,
            missing: VecDeque::new(),
            repair_time: None,
            bound_at: None,
            parameters_seen: false,
            key_wanted: false,
            key_asked: None,
            report: None,
        }
    }
}

/// A subscription with its numbers.
pub(super) struct Subscribed {
    pub(super) declared: Subscription,
    pub(super) publication: usize,
    pub(super) peer: usize,
    pub(super) wish: LayerWish,
    pub(super) current: Option<u8>,
    /// Highest temporal layer that is forwarded; raised only where a decoder can follow.
    pub(super) temporal: u8,
    pub(super) announced: Option<Option<u8>>,
    pub(super) rewriter: Rewriter,
    pub(super) rtx_next: u64,
    /// Retransmissions that may still be asked for: each forwarded packet earns one.
    pub(super) rtx_budget: u16,
    pub(super) last_at: Timestamp,
    pub(super) packets: u32,
    pub(super) bytes: u32,
    pub(super) packets_reported: u32,
}

impl Subscribed {
    /// Payload type for a format; RED falls back to Opus, said by the second value.
    pub(super) fn binding(&self, format: Format) -> Option<(&PayloadBinding, bool)> {
        use crate::api::Codec;
        let find = |format: Format| {
            self.declared
                .payloads
                .iter()
                .find(|binding| binding.format == format)
        };
        find(format).map(|binding| (binding, false)).or_else(|| {
            (format.codec == Codec::Red)
                .then(|| {
                    find(Format {
                        codec: Codec::Opus,
                        variant: 0,
                    })
                })
                .flatten()
                .map(|binding| (binding, true))
        })
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! From rings to subscribers: layer decisions, numbers, headers, sealing, runs.

use super::receive::{ENCODING_ALIVE, ENCODING_BEHIND};
use super::state::{Published, Subscribed};
use super::{DropReason, Job, Shard};
use crate::api::{ExtensionMap, Kind};
use crate::crypto::Crypto;
use crate::ids::{ExtSeq, PayloadType, Ssrc};
use crate::io::Path;
use crate::limits::{RTX_BUDGET_MAX, RUN_BYTES_MAX, RUN_DATAGRAMS_MAX};
use crate::rewrite::Numbers;
use crate::ring::Slot;
use crate::rtp::header::Writer;
use crate::rtp::payload;
use crate::time::Timestamp;

/// Packets whose sizes differ by at most this are padded to one size.
const PAD_MAX: usize = 24;
/// Header with all extensions.
const HEADER_BYTES_MAX: usize = 400;

/// One packet to be written.
struct Outgoing<'a> {
    slot: &'a Slot,
    descriptor: &'a [u8],
    payload: &'a [u8],
    numbers: Numbers,
    payload_type: PayloadType,
    ssrc: Ssrc,
    /// Sequence number and index under which it is sealed; differs from `numbers` for retransmissions.
    sequence: ExtSeq,
    original: Option<u16>,
    extensions: &'a ExtensionMap,
    transport_sequence: u16,
    now: Timestamp,
}

/// Writes one packet without its tag; where the payload begins and where the packet ends.
fn write(out: &mut [u8], packet: &Outgoing<'_>, pad_to: usize) -> (usize, usize) {
    let map = packet.extensions;
    let ids = [
        map.audio_level,
        map.video_orientation,
        map.abs_send_time,
        map.transport_cc,
        map.dependency_descriptor,
    ];
    let two_byte = packet.descriptor.len() > 16 || ids.iter().any(|id| id.0 > 14);
    let timestamp = packet
        .slot
        .timestamp
        .wrapping_add(packet.numbers.timestamp_offset);
    let mut writer = Writer::new(
        out,
        packet.slot.marker,
        packet.payload_type,
        packet.sequence.0 as u16,
        timestamp,
        packet.ssrc,
    )
    .two_byte(two_byte);
    if let Some(level) = packet.slot.audio_level {
        writer.extension(map.audio_level, &[level]);
    }
    if let Some(orientation) = packet.slot.orientation {
        writer.extension(map.video_orientation, &[orientation]);
    }
    if map.abs_send_time.0 != 0 {
        // 24 bits, 6.18 fixed point: it wraps after 64 s.
        let send_time = ((packet.now.as_nanos() % 64_000_000_000) << 18) / 1_000_000_000;
        writer.extension(map.abs_send_time, &(send_time as u32).to_be_bytes()[1..]);
    }
    writer.extension(map.transport_cc, &packet.transport_sequence.to_be_bytes());
    writer.extension(map.dependency_descriptor, packet.descriptor);
    let mut at = writer.finish();
    let payload_at = at;
    if let Some(original) = packet.original {
        out[at..at + 2].copy_from_slice(&original.to_be_bytes());
        at += 2;
    }
    let body = at;
    out[at..at + packet.payload.len()].copy_from_slice(packet.payload);
    at += packet.payload.len();
    if let Some(vp8) = packet.slot.vp8 {
        if let Some((offset, picture, long)) = vp8.picture {
            let place = body + usize::from(offset);
            let picture = picture.wrapping_add(packet.numbers.picture_offset);
            if long {
                out[place..place + 2].copy_from_slice(&(picture & 0x7fff | 0x8000).to_be_bytes());
            } else {
                out[place] = (picture & 0x7f) as u8;
            }
        }
        if let Some((offset, tl0)) = vp8.tl0 {
            out[body + usize::from(offset)] = tl0.wrapping_add(packet.numbers.tl0_offset);
        }
    }
    let padding = pad_to.saturating_sub(at);
    if (1..=PAD_MAX).contains(&padding) {
        out[at..at + padding - 1].fill(0);
        out[at + padding - 1] = padding as u8;
        out[0] |= 0x20;
        at += padding;
    }
    (payload_at, at)
}

/// Begins or changes the encoding of a subscription when this packet allows it. True when it is to be forwarded as the current.
fn choose(
    subscribed: &mut Subscribed,
    published: &Published,
    now: Timestamp,
    target: Option<u8>,
    encoding: u8,
    slot: &Slot,
) -> bool {
    if subscribed.current == Some(encoding) {
        return true;
    }
    if target != Some(encoding) || !slot.key_frame {
        return false;
    }
    let clock = published
        .encodings
        .get(usize::from(encoding))
        .map_or(90_000, |state| state.clock_rate);
    let in_timestamp = slot.timestamp;
    let playing = subscribed.current.is_some();
    let timestamp = match subscribed.rewriter.last_timestamp() {
        None => in_timestamp,
        Some(last) => {
            let elapsed =
                now.since(subscribed.last_at).as_nanos() * u128::from(clock) / 1_000_000_000;
            let by_arrival = last.wrapping_add((elapsed as u32).max(clock / 1000));
            // Both encodings' sender reports tell the same instant in both clocks; arrival times only guess it.
            // The same one after a pause has its offset still.
            let by_report = subscribed.rewriter.timing().and_then(|(before, offset)| {
                if before == encoding {
                    return Some(in_timestamp.wrapping_add(offset));
                }
                let old = published.encodings.get(usize::from(before))?.report?;
                let new = published.encodings.get(usize::from(encoding))?.report?;
                let ntp = (new.ntp.wrapping_sub(old.ntp) as i64 as i128 * i128::from(clock)) >> 32;
                let delta = i128::from(in_timestamp.wrapping_sub(new.rtp) as i32) + ntp;
                Some(old.rtp.wrapping_add(delta as u32).wrapping_add(offset))
            });
            let plausible =
                |exact: &u32| (exact.wrapping_sub(by_arrival) as i32).unsigned_abs() < clock;
            let millisecond = (clock / 1000) as i32;
            match by_report.filter(plausible) {
                None => by_arrival,
                Some(exact) => match exact.wrapping_sub(last) as i32 {
                    // The key frame was repaired and is older than what plays already: time does not go back for it, the
                    // next one will do.
                    late if playing && late < -millisecond => return false,
                    // The same picture in another layer.
                    same if same < millisecond => last.wrapping_add(millisecond as u32),
                    _ => exact,
                },
            }
        }
    };
    let picture = slot
        .vp8
        .and_then(|vp8| vp8.picture)
        .map(|(_, picture, _)| picture);
    let tl0 = slot.vp8.and_then(|vp8| vp8.tl0).map(|(_, tl0)| tl0);
    subscribed.rewriter.switch(
        encoding,
        slot.sequence,
        in_timestamp,
        timestamp,
        picture,
        tl0,
    );
    subscribed.current = Some(encoding);
    true
}

impl<C: Crypto> Shard<C> {
    /// Highest living encoding within the wish; the lowest declared one while none lives.
    pub(super) fn target(&self, subscription: usize) -> Option<u8> {
        let subscribed = self.subscriptions.get(subscription)?;
        if !subscribed.wish.enabled {
            return None;
        }
        let published = self.publications.get(subscribed.publication)?;
        let newest = published
            .encodings
            .iter()
            .map(|encoding| encoding.last_packet)
            .max()?;
        let mut target = None;
        for (index, encoding) in published.encodings.iter().enumerate() {
            let alive = encoding.highest.is_some()
                && self.now < encoding.last_packet + ENCODING_ALIVE
                && newest < encoding.last_packet + ENCODING_BEHIND;
            if alive && (target.is_none() || index <= usize::from(subscribed.wish.max_encoding)) {
                target = Some(index as u8);
            }
        }
        target.or(subscribed.current)
    }

    /// Makes the next run into `self.run`: destination, bytes, segment.
    pub(super) fn next_run(&mut self) -> Option<(Path, usize, usize)> {
        while let Some((subscription, sequence)) = self.retransmissions.pop_front() {
            if let Some(run) = self.retransmit(subscription, sequence) {
                return Some(run);
            }
        }
        loop {
            if self.job.is_none() {
                let publication = self.queue.pop_front()?;
                let Some(published) = self.publications.get_mut(publication) else {
                    continue;
                };
                published.queued = false;
                self.batch.clear();
                std::mem::swap(&mut self.batch, &mut published.fresh);
                self.job = Some(Job {
                    publication,
                    subscriber: 0,
                    at: 0,
                });
            }
            let Some(job) = &self.job else { continue };
            let (publication, subscriber, at) = (job.publication, job.subscriber, job.at);
            let subscription = self
                .publications
                .get(publication)
                .and_then(|published| published.subscriptions.get(subscriber).copied());
            let Some(subscription) = subscription else {
                self.job = None;
                continue;
            };
            let (run, next) = self.run_for(subscription, at);
            let finished = next >= self.batch.len();
            if let Some(job) = &mut self.job {
                if finished {
                    job.subscriber += 1;
                    job.at = 0;
                } else {
                    job.at = next;
                }
            }
            if run.is_some() {
                return run;
            }
        }
    }

    /// Writes as many packets of the batch from `at` on as make one run. Returns the run and where to go on.
    fn run_for(
        &mut self,
        subscription: usize,
        mut at: usize,
    ) -> (Option<(Path, usize, usize)>, usize) {
        let end = self.batch.len();
        let now = self.now;
        let target = self.target(subscription);
        let Some(subscribed) = self.subscriptions.get_mut(subscription) else {
            return (None, end);
        };
        let (index, publication) = (subscribed.peer, subscribed.publication);
        let (Some(peer), Some(published)) = (
            self.peers.get_mut(index),
            self.publications.get(publication),
        ) else {
            return (None, end);
        };
        let (Some(path), Some(keys)) = (peer.ice.path(), &peer.keys) else {
            return (None, end);
        };
        let before = subscribed.current;
        let tag_bytes = keys.local.tag_bytes();
        let kind = published.declared.kind;
        let pad = self.config.pad_runs && kind == Kind::Video;
        let has_transport_cc = subscribed.declared.extensions.transport_cc.0 != 0;
        let (mut bytes, mut segment, mut count) = (0, 0, 0);
        let mut bytes_out = 0_u32;
        while at < end && count < RUN_DATAGRAMS_MAX && bytes + 2048 < RUN_BYTES_MAX {
            let (encoding, sequence) = self.batch[at];
            let found = published
                .encodings
                .get(usize::from(encoding))
                .and_then(|state| state.ring.as_ref()?.get(sequence));
            let Some((slot, descriptor, payload)) = found else {
                // Padding without payload, or overwritten already: its number is not used.
                subscribed.rewriter.leave_out(encoding, sequence, false);
                at += 1;
                continue;
            };
            if !choose(subscribed, published, now, target, encoding, slot) {
                at += 1;
                continue;
            }
            let Some((binding, unpack)) = subscribed.binding(slot.format) else {
                at += 1;
                continue;
            };
            let payload_type = binding.payload_type;
            let payload = if unpack {
                match payload::red_primary(payload) {
                    Some(primary) => &payload[primary..],
                    None => {
                        subscribed.rewriter.leave_out(encoding, sequence, false);
                        at += 1;
                        continue;
                    }
                }
            } else {
                payload
            };
            let (mut picture, mut tl0) = (None, None);
            if let Some(vp8) = &slot.vp8 {
                if slot.key_frame {
                    subscribed.temporal = subscribed.wish.max_temporal;
                } else if vp8.start && vp8.sync && vp8.tid <= subscribed.wish.max_temporal {
                    subscribed.temporal = subscribed.temporal.max(vp8.tid);
                }
                if vp8.tid > subscribed.temporal {
                    subscribed.rewriter.leave_out(encoding, sequence, vp8.start);
                    at += 1;
                    continue;
                }
                picture = vp8.picture.map(|(_, picture, _)| picture);
                tl0 = vp8.tl0.map(|(_, tl0)| tl0);
            }
            // The size decides first whether it belongs to this run: a number once given must be sealed.
            let estimate =
                header_bytes(&subscribed.declared.extensions, slot, descriptor) + payload.len();
            if count > 0 && estimate + tag_bytes > segment {
                break;
            }
            let pad_to = match (pad, count) {
                (false, _) => 0,
                (true, 0) => {
                    estimate + largest_of_run(published, &self.batch[at + 1..], payload.len())
                        - payload.len()
                }
                (true, _) => segment - tag_bytes,
            };
            let Some(numbers) =
                subscribed
                    .rewriter
                    .forward(encoding, sequence, slot.timestamp, picture, tl0)
            else {
                at += 1;
                continue;
            };
            let transport_sequence = peer.next_transport_sequence;
            if has_transport_cc {
                peer.next_transport_sequence = transport_sequence.wrapping_add(1);
            }
            let outgoing = Outgoing {
                slot,
                descriptor,
                payload,
                numbers,
                payload_type,
                ssrc: subscribed.declared.ssrc,
                sequence: numbers.sequence,
                original: None,
                extensions: &subscribed.declared.extensions,
                transport_sequence,
                now: sent_at(kind, slot, now),
            };
            let room = &mut self.run[bytes..];
            let (payload_at, length) = write(room, &outgoing, pad_to);
            let size = length + tag_bytes;
            keys.local.seal_rtp(
                outgoing.ssrc,
                outgoing.sequence,
                &mut room[..size],
                payload_at,
            );
            bytes_out = bytes_out.wrapping_add(payload.len() as u32);
            at += 1;
            if count == 0 {
                segment = size;
            }
            bytes += size;
            count += 1;
            if size < segment {
                // A shorter segment ends a run.
                break;
            }
        }
        if count > 0 {
            subscribed.last_at = now;
            subscribed.packets = subscribed.packets.wrapping_add(count as u32);
            subscribed.bytes = subscribed.bytes.wrapping_add(bytes_out);
            subscribed.rtx_budget =
                RTX_BUDGET_MAX.min(subscribed.rtx_budget.saturating_add(count as u16));
            peer.stats.sent_packets += count as u64;
            peer.stats.sent_bytes += bytes as u64;
            self.counters.runs += 1;
            self.counters.segmented_runs += u64::from(count > 1);
            self.counters.forwarded_packets += count as u64;
            self.counters.forwarded_bytes += bytes as u64;
        }
        let current = subscribed.current;
        if peer.reports_armed.is_none() && count > 0 {
            self.arm_reports(now, index);
        }
        if current != before {
            self.announce(subscription);
        }
        if let Some(target) = target.filter(|target| current != Some(*target)) {
            self.request_key_frame(publication, target);
        }
        ((count > 0).then_some((path, bytes, segment)), at)
    }

    fn retransmit(&mut self, subscription: usize, wanted: u16) -> Option<(Path, usize, usize)> {
        let now = self.now;
        let subscribed = self.subscriptions.get_mut(subscription)?;
        let Some(budget) = subscribed.rtx_budget.checked_sub(1) else {
            self.counters.drop(DropReason::Limit);
            return None;
        };
        subscribed.rtx_budget = budget;
        let Some((encoding, sequence, numbers)) = subscribed.rewriter.reverse(wanted) else {
            self.counters.drop(DropReason::RetransmissionGone);
            return None;
        };
        let published = self.publications.get(subscribed.publication)?;
        if published.muted || !self.rooms.get(published.room).is_some_and(|room| room.open) {
            return None;
        }
        let ring = published
            .encodings
            .get(usize::from(encoding))?
            .ring
            .as_ref()?;
        let Some((slot, descriptor, payload)) = ring.get(sequence) else {
            self.counters.drop(DropReason::RetransmissionGone);
            return None;
        };
        let (binding, unpack) = subscribed.binding(slot.format)?;
        let kind = published.declared.kind;
        let (payload_type, ssrc, sequence, original) =
            match (binding.rtx, subscribed.declared.rtx_ssrc) {
                (Some(rtx), Some(ssrc)) if kind == Kind::Video => {
                    let sequence = ExtSeq(subscribed.rtx_next);
                    subscribed.rtx_next += 1;
                    (rtx, ssrc, sequence, Some(wanted))
                }
                // Browsers have no RTX for audio: the very same packet once more, which is safe to seal again because nothing
                // in it differs.
                _ if kind == Kind::Audio && subscribed.declared.extensions.transport_cc.0 == 0 => (
                    binding.payload_type,
                    subscribed.declared.ssrc,
                    numbers.sequence,
                    None,
                ),
                _ => return None,
            };
        let payload = if unpack {
            &payload[payload::red_primary(payload)?..]
        } else {
            payload
        };
        let peer = self.peers.get_mut(subscribed.peer)?;
        let path = peer.ice.path()?;
        let transport_sequence = peer.next_transport_sequence;
        if subscribed.declared.extensions.transport_cc.0 != 0 {
            peer.next_transport_sequence = transport_sequence.wrapping_add(1);
        }
        let outgoing = Outgoing {
            slot,
            descriptor,
            payload,
            numbers,
            payload_type,
            ssrc,
            sequence,
            original,
            extensions: &subscribed.declared.extensions,
            transport_sequence,
            now: sent_at(kind, slot, now),
        };
        let (payload_at, length) = write(&mut self.run, &outgoing, 0);
        let keys = peer.keys.as_ref()?;
        let size = length + keys.local.tag_bytes();
        keys.local
            .seal_rtp(ssrc, sequence, &mut self.run[..size], payload_at);
        peer.stats.sent_packets += 1;
        peer.stats.sent_bytes += size as u64;
        self.counters.retransmitted_packets += 1;
        Some((path, size, size))
    }
}

/// What `abs-send-time` says. Audio leaves when it comes, and its retransmission must not differ from it in a single bit.
fn sent_at(kind: Kind, slot: &Slot, now: Timestamp) -> Timestamp {
    match kind {
        Kind::Audio => slot.arrived,
        Kind::Video => now,
    }
}

/// Bytes of the header that [`write`] will make.
fn header_bytes(map: &ExtensionMap, slot: &Slot, descriptor: &[u8]) -> usize {
    let ids = [
        map.audio_level,
        map.video_orientation,
        map.abs_send_time,
        map.transport_cc,
        map.dependency_descriptor,
    ];
    let each = if descriptor.len() > 16 || ids.iter().any(|id| id.0 > 14) {
        2
    } else {
        1
    };
    let mut body = 0;
    let mut add = |id: crate::ids::ExtensionId, len: usize| {
        if id.0 != 0 && len > 0 {
            body += each + len;
        }
    };
    add(map.audio_level, usize::from(slot.audio_level.is_some()));
    add(
        map.video_orientation,
        usize::from(slot.orientation.is_some()),
    );
    add(map.abs_send_time, 3);
    add(map.transport_cc, 2);
    add(map.dependency_descriptor, descriptor.len());
    let extension = if body == 0 {
        0
    } else {
        4 + usize::next_multiple_of(body, 4)
    };
    debug_assert!(12 + extension <= HEADER_BYTES_MAX);
    12 + extension
}

/// Payload size to which the first packet of a run is padded: the largest of those after it that differ little.
fn largest_of_run(published: &Published, rest: &[(u8, ExtSeq)], first: usize) -> usize {
    let mut largest = first;
    for (encoding, sequence) in rest.iter().take(RUN_DATAGRAMS_MAX) {
        let ring = published
            .encodings
            .get(usize::from(*encoding))
            .and_then(|state| state.ring.as_ref());
        let Some((slot, ..)) = ring.and_then(|ring| ring.get(*sequence)) else {
            break;
        };
        let size = usize::from(slot.payload);
        if size.abs_diff(first) > PAD_MAX {
            break;
        }
        largest = largest.max(size);
    }
    largest
}

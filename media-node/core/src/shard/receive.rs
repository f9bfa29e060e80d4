// SPDX-License-Identifier: EUPL-1.2
//! From datagrams to packets in rings: demultiplexing, authentication, binding, loss detection.

use std::time::Duration;

use super::state::{Missing, SenderReport, Stream};
use super::timers::REORDER;
use super::{DropReason, Heard, Shard};
use crate::api::{Event, Kind};
use crate::crypto::Crypto;
use crate::ids::{ExtSeq, Ssrc};
use crate::io::{Path, RecvBatch};
use crate::ring::{Ring, Slot};
use crate::rtp::header::Header;
use crate::rtp::payload;
use crate::rtp::rtcp::{self, Message};
use crate::time::Timestamp;
use crate::transport::stun;

/// Streams of one peer: all layers of all publications with their retransmissions.
pub(super) const STREAMS_MAX: usize = 64;
/// Packets asked for at once; a longer gap is an interruption that a key frame mends.
const MISSING_MAX: usize = 256;
/// Sequence numbers a stream may jump forward within the window of loss.
const JUMP_MAX: u64 = 1000;
/// Browsers check a pair every 2.5 s.
const PATH_OWNED: Duration = Duration::from_secs(6);
/// A layer changes its SSRC at most this often.
const REBIND_GAP: Duration = Duration::from_millis(250);
const VIDEO_SLOTS: usize = 1024;
const AUDIO_SLOTS: usize = 128;

/// Strangers that are answered within a second, per shard: enough for probes, and no work for anybody who floods.
const STRANGERS_MAX: u32 = 20;

/// Counts the answers to strangers.
#[derive(Default)]
pub(super) struct Strangers {
    since: Option<Timestamp>,
    answered: u32,
}

impl Strangers {
    fn admit(&mut self, now: Timestamp) -> bool {
        let same = self
            .since
            .is_some_and(|since| now.since(since) < Duration::from_secs(1));
        if !same {
            self.since = Some(now);
            self.answered = 0;
        }
        self.answered += 1;
        self.answered <= STRANGERS_MAX
    }
}

/// What a packet says of itself in header extensions.
#[derive(Default)]
struct Said {
    mid: Option<(usize, usize)>,
    rid: Option<(usize, usize)>,
    repaired: Option<(usize, usize)>,
    level: Option<u8>,
    orientation: Option<u8>,
    transport_sequence: Option<u16>,
    descriptor: Option<(usize, usize)>,
}

impl<C: Crypto> Shard<C> {
    /// A batch of datagrams, decrypted in place.
    pub fn handle_datagrams(&mut self, now: Timestamp, batch: &mut RecvBatch) {
        self.now = now;
        let RecvBatch { buffer, metas } = batch;
        for meta in metas.iter() {
            let segment = meta.segment.max(1);
            let mut at = 0;
            while at < meta.len {
                let len = segment.min(meta.len - at);
                let start = meta.offset + at;
                at += len;
                self.counters.received_datagrams += 1;
                let Some(datagram) = buffer.get_mut(start..start + len) else {
                    break;
                };
                self.datagram(now, meta.path, datagram);
            }
        }
    }

    /// Which local user fragment a datagram of an unknown path asks for; the shell steers by it.
    #[must_use]
    pub fn knows_path(&self, path: Path) -> bool {
        self.paths.contains_key(&path)
    }

    fn datagram(&mut self, now: Timestamp, path: Path, datagram: &mut [u8]) {
        // RFC 7983 §7.
        match datagram.first() {
            Some(128..=191) => match datagram.get(1) {
                Some(192..=223) => self.rtcp(now, path, datagram),
                _ => self.rtp(now, path, datagram),
            },
            Some(0..=3) => self.stun(now, path, datagram),
            Some(20..=63) => self.dtls(now, path, datagram),
            _ => self.counters.drop(DropReason::UnknownProtocol),
        }
    }

    fn stun(&mut self, now: Timestamp, path: Path, datagram: &[u8]) {
        let known =
            stun::username(datagram).and_then(|(local, _)| self.fragments.get(local).copied());
        let Some(index) = known else {
            match stun::stranger_response(datagram) {
                Some(answer) if self.strangers.admit(now) => self.control.push_back((path, answer)),
                _ => self.counters.drop(DropReason::UnknownFragment),
            }
            return;
        };
        // A sender's address can be forged, so nobody takes a path away from a peer that still checks it.
        let owned = self
            .paths
            .get(&path)
            .filter(|owner| **owner != index)
            .and_then(|owner| self.peers.get(*owner)?.ice.last_check(path))
            .is_some_and(|checked| now.since(checked) < PATH_OWNED);
        if owned {
            self.counters.drop(DropReason::UnknownPath);
            return;
        }
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        peer.ice
            .handle_stun(now, &mut self.crypto, path, datagram, &mut self.out);
        self.settle(now, index);
    }

    fn dtls(&mut self, now: Timestamp, path: Path, datagram: &[u8]) {
        let Some(index) = self.paths.get(&path).copied() else {
            self.counters.drop(DropReason::UnknownPath);
            return;
        };
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        peer.ice
            .handle_dtls(now, &mut self.crypto, path, datagram, &mut self.out);
        self.settle(now, index);
    }

    fn rtp(&mut self, now: Timestamp, path: Path, datagram: &mut [u8]) {
        if let Err(reason) = self.try_rtp(now, path, datagram) {
            self.counters.drop(reason);
        }
    }

    fn try_rtp(
        &mut self,
        now: Timestamp,
        path: Path,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let index = *self.paths.get(&path).ok_or(DropReason::UnknownPath)?;
        let header = Header::parse(datagram).ok_or(DropReason::Malformed)?;
        let peer = self.peers.get_mut(index).ok_or(DropReason::UnknownPath)?;
        let keys = peer.keys.as_ref().ok_or(DropReason::NoKeys)?;
        let known = peer
            .streams
            .iter()
            .position(|stream| stream.ssrc == header.ssrc);
        let sequence = match known {
            Some(position) => {
                let replay = &peer.streams[position].replay;
                let sequence = replay.extend(header.sequence);
                if !replay.is_fresh(sequence.0) {
                    return Err(DropReason::Replay);
                }
                sequence
            }
            None => ExtSeq(u64::from(header.sequence)),
        };
        let length = keys
            .remote
            .open_rtp(header.ssrc, sequence, datagram, header.payload_at)
            .ok_or(DropReason::Unauthentic)?;
        let packet = &datagram[..length];
        let position = match known {
            Some(position) => position,
            None => self.bind(index, &header, packet)?,
        };
        let peer = self.peers.get_mut(index).ok_or(DropReason::UnknownPath)?;
        let stream = &mut peer.streams[position];
        stream.replay.accept(sequence.0);
        let (publication, encoding, retransmission) =
            (stream.publication, stream.encoding, stream.retransmission);
        peer.stats.received_packets += 1;
        peer.stats.received_bytes += length as u64;
        self.counters.received_packets += 1;
        self.counters.received_bytes += length as u64;
        let said = self.said(publication, &header, packet);
        if let Some(transport_sequence) = said.transport_sequence {
            let peer = self.peers.get_mut(index).ok_or(DropReason::UnknownPath)?;
            peer.feedback_media = header.ssrc;
            if peer.feedback.arrived(transport_sequence, now) {
                self.arm_feedback(now, index);
            }
        }
        let mut end = length;
        if header.padding {
            let padding = usize::from(*packet.last().ok_or(DropReason::Malformed)?);
            end = length
                .checked_sub(padding)
                .filter(|end| *end >= header.payload_at)
                .ok_or(DropReason::Malformed)?;
        }
        self.arm_reports(now, index);
        if retransmission {
            self.repaired(now, publication, encoding, &header, &packet[..end], &said)
        } else {
            self.ingest(
                now,
                publication,
                encoding,
                sequence,
                &header,
                header.payload_at,
                &packet[..end],
                &said,
                false,
            )
        }
    }

    fn said(&self, publication: usize, header: &Header, packet: &[u8]) -> Said {
        let mut said = Said::default();
        let Some(published) = self.publications.get(publication) else {
            return said;
        };
        let map = &published.declared.extensions;
        header.extensions(packet, |id, at, len| {
            if id.0 == 0 {
            } else if id == map.mid {
                said.mid = Some((at, len));
            } else if id == map.rid {
                said.rid = Some((at, len));
            } else if id == map.repaired_rid {
                said.repaired = Some((at, len));
            } else if id == map.audio_level {
                said.level = Some(packet[at]);
            } else if id == map.video_orientation {
                said.orientation = Some(packet[at]);
            } else if id == map.transport_cc && len >= 2 {
                said.transport_sequence = Some(u16::from_be_bytes([packet[at], packet[at + 1]]));
            } else if id == map.dependency_descriptor {
                said.descriptor = Some((at, len));
            }
        });
        said
    }

    /// Finds the publication and layer of an SSRC that was not seen before: by declared SSRC, else by mid with rid. Only authentic
    /// packets come here, and what no description declares stays outside.
    fn bind(&mut self, index: usize, header: &Header, packet: &[u8]) -> Result<usize, DropReason> {
        let peer = self.peers.get(index).ok_or(DropReason::UnknownPath)?;
        if peer.streams.len() >= STREAMS_MAX {
            return Err(DropReason::Limit);
        }
        let mut found = None;
        for publication in &peer.publications {
            let Some(published) = self.publications.get(*publication) else {
                continue;
            };
            let media = published.binding(header.payload_type).is_some();
            let retransmission = !media && published.is_retransmission(header.payload_type);
            if !media && !retransmission {
                continue;
            }
            let encodings = &published.declared.encodings;
            if let Some(encoding) = encodings.iter().position(|encoding| {
                if media {
                    encoding.ssrc == Some(header.ssrc)
                } else {
                    encoding.rtx_ssrc == Some(header.ssrc)
                }
            }) {
                found = Some((*publication, encoding, retransmission));
                break;
            }
            let said = self.said(*publication, header, packet);
            let text = |range: Option<(usize, usize)>| range.map(|(at, len)| &packet[at..at + len]);
            if text(said.mid) != Some(published.declared.mid.as_bytes()) {
                continue;
            }
            let rid = if media {
                text(said.rid)
            } else {
                text(said.repaired).or(text(said.rid))
            };
            let encoding = match rid {
                Some(rid) => encodings
                    .iter()
                    .position(|encoding| encoding.rid.as_deref().map(str::as_bytes) == Some(rid)),
                None if encodings.len() == 1 => Some(0),
                None => None,
            };
            if let Some(encoding) = encoding {
                found = Some((*publication, encoding, retransmission));
                break;
            }
        }
        let (publication, encoding, retransmission) = found.ok_or(DropReason::UndeclaredSource)?;
        let encoding = encoding as u8;
        if !retransmission {
            let published = self
                .publications
                .get_mut(publication)
                .ok_or(DropReason::UndeclaredSource)?;
            let id = published.declared.id;
            let binding = published
                .binding(header.payload_type)
                .copied()
                .ok_or(DropReason::UndeclaredPayload)?;
            let state = &mut published.encodings[usize::from(encoding)];
            // Each change costs all subscribers a key frame, so a publisher may not make them at will.
            let now = self.now;
            if state
                .bound_at
                .is_some_and(|before| now.since(before) < REBIND_GAP)
            {
                return Err(DropReason::Limit);
            }
            // A layer that begins anew under another SSRC is another stream of numbers.
            let mut ring = state.ring.take();
            if let Some(ring) = &mut ring {
                ring.clear();
            }
            *state = super::EncodingState {
                key_asked: state.key_asked,
                ring,
                bound_at: Some(now),
                ssrc: Some(header.ssrc),
                clock_rate: binding.clock_rate,
                ..super::EncodingState::new()
            };
            published.fresh.retain(|(of, _)| *of != encoding);
            for subscription in &published.subscriptions {
                if let Some(subscribed) = self.subscriptions.get_mut(*subscription) {
                    subscribed.rewriter.forget(encoding);
                    subscribed.current = subscribed.current.filter(|current| *current != encoding);
                }
            }
            self.events.push_back(Event::EncodingBound {
                publication: id,
                encoding,
                ssrc: header.ssrc,
                format: binding.format,
            });
        }
        let peer = self.peers.get_mut(index).ok_or(DropReason::UnknownPath)?;
        if !retransmission {
            peer.streams.retain(|stream| {
                stream.publication != publication
                    || stream.encoding != encoding
                    || stream.retransmission
            });
        }
        peer.streams.push(Stream {
            ssrc: header.ssrc,
            replay: crate::srtp::Replay::default(),
            publication,
            encoding,
            retransmission,
        });
        Ok(peer.streams.len() - 1)
    }

    /// A retransmission (RFC 4588 §4): the original sequence number stands before the payload.
    fn repaired(
        &mut self,
        now: Timestamp,
        publication: usize,
        encoding: u8,
        header: &Header,
        packet: &[u8],
        said: &Said,
    ) -> Result<(), DropReason> {
        let Some(&[high, low]) = packet.get(header.payload_at..header.payload_at + 2) else {
            // Padding probes travel on this SSRC without a payload.
            return Ok(());
        };
        let published = self
            .publications
            .get(publication)
            .ok_or(DropReason::UndeclaredSource)?;
        let state = &published.encodings[usize::from(encoding)];
        let binding = *published
            .primary_of(header.payload_type)
            .ok_or(DropReason::UndeclaredPayload)?;
        let Some(highest) = state.highest else {
            return Ok(());
        };
        let delta = i64::from(u16::from_be_bytes([high, low]).wrapping_sub(highest as u16) as i16);
        let sequence = ExtSeq(
            highest
                .checked_add_signed(delta)
                .ok_or(DropReason::Malformed)?,
        );
        if delta > 0
            || state
                .ring
                .as_ref()
                .is_some_and(|ring| ring.contains(sequence))
        {
            return Ok(());
        }
        let mut header = *header;
        header.payload_type = binding.payload_type;
        self.ingest(
            now,
            publication,
            encoding,
            sequence,
            &header,
            header.payload_at + 2,
            packet,
            said,
            true,
        )
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one packet, borrowed from one buffer"
    )]
    fn ingest(
        &mut self,
        now: Timestamp,
        publication: usize,
        encoding: u8,
        sequence: ExtSeq,
        header: &Header,
        payload_at: usize,
        packet: &[u8],
        said: &Said,
        repaired: bool,
    ) -> Result<(), DropReason> {
        let published = self
            .publications
            .get_mut(publication)
            .ok_or(DropReason::UndeclaredSource)?;
        let kind = published.declared.kind;
        let binding = *published
            .binding(header.payload_type)
            .ok_or(DropReason::UndeclaredPayload)?;
        let payload = &packet[payload_at..];
        let state = published
            .encodings
            .get_mut(usize::from(encoding))
            .ok_or(DropReason::UndeclaredSource)?;
        // A retransmission overtook it. It must not go out again: one outgoing index seals one content.
        if state
            .ring
            .as_ref()
            .is_some_and(|ring| ring.contains(sequence))
        {
            return Err(DropReason::Replay);
        }
        let mut first_missing = None;
        match state.highest {
            None => {
                state.base = sequence.0;
                state.highest = Some(sequence.0);
            }
            Some(highest) if sequence.0 > highest => {
                let gap = sequence.0 - highest - 1;
                if gap > JUMP_MAX {
                    state.missing.clear();
                } else {
                    for lost in highest + 1..sequence.0 {
                        if state.missing.len() >= MISSING_MAX {
                            state.missing.pop_front();
                        }
                        state.missing.push_back(Missing {
                            sequence: lost,
                            asked: now,
                            next: now + REORDER,
                            tries: 0,
                        });
                    }
                    first_missing = (gap > 0).then_some(now + REORDER);
                }
                state.highest = Some(sequence.0);
            }
            Some(_) => {
                // Late or repaired.
                state.found(now, sequence.0, repaired);
                if sequence.0 < state.base {
                    state.base = sequence.0;
                }
            }
        }
        state.received += 1;
        state.last_packet = now;
        if !repaired {
            // Interarrival jitter (RFC 3550 §6.4.1).
            let arrival = (now.as_nanos() / 1000).wrapping_mul(u64::from(state.clock_rate)) as i64
                / 1_000_000;
            let transit = arrival.wrapping_sub(i64::from(header.timestamp));
            if let Some(before) = state.transit {
                let difference = (transit.wrapping_sub(before) as i32).unsigned_abs() as f32;
                state.jitter += (difference - state.jitter) / 16.0;
            }
            state.transit = Some(transit);
        }
        if payload.is_empty() {
            // Padding alone keeps the numbers going: subscribers do not get it, and their numbers close up.
            published.fresh.push((encoding, sequence));
            self.enqueue(publication);
            return Ok(());
        }
        let info = payload::inspect(binding.format.codec, payload);
        let mut slot = Slot::new(sequence, header.timestamp, header.marker, binding.format);
        state.parameters_seen |= info.parameters;
        // Whoever sends parameter sets is not decoded without them; some senders name them in the session description only.
        slot.key_frame = info.key_frame && (info.parameters || !state.parameters_seen);
        slot.arrived = now;
        slot.vp8 = info.vp8;
        slot.audio_level = said.level;
        slot.orientation = said.orientation;
        let descriptor = said
            .descriptor
            .map_or(&[][..], |(at, len)| &packet[at..at + len]);
        slot.descriptor = descriptor.len() as u8;
        slot.payload = payload.len() as u16;
        let ring = state.ring.get_or_insert_with(|| match kind {
            Kind::Video => Ring::new(self.config.video_ring_bytes, VIDEO_SLOTS),
            Kind::Audio => Ring::new(self.config.audio_ring_bytes, AUDIO_SLOTS),
        });
        ring.insert(slot, descriptor, payload);
        if slot.key_frame {
            state.key_wanted = false;
        }
        let muted = published.muted;
        let room = published.room;
        if let Some(at) = first_missing {
            self.arm_nacks(at, publication);
        }
        if !self.rooms.get(room).is_some_and(|room| room.open) {
            return Err(DropReason::GateClosed);
        }
        if muted {
            return Err(DropReason::Muted);
        }
        if let (Kind::Audio, Some(level)) = (kind, said.level) {
            self.note_level(now, publication, level);
        }
        if let Some(published) = self.publications.get_mut(publication) {
            published.fresh.push((encoding, sequence));
        }
        self.enqueue(publication);
        Ok(())
    }

    fn enqueue(&mut self, publication: usize) {
        let Some(published) = self.publications.get_mut(publication) else {
            return;
        };
        if published.subscriptions.is_empty() {
            published.fresh.clear();
        } else if !published.queued {
            published.queued = true;
            self.queue.push_back(publication);
        }
    }

    fn rtcp(&mut self, now: Timestamp, path: Path, datagram: &mut [u8]) {
        if let Err(reason) = self.try_rtcp(now, path, datagram) {
            self.counters.drop(reason);
        }
    }

    fn try_rtcp(
        &mut self,
        now: Timestamp,
        path: Path,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let index = *self.paths.get(&path).ok_or(DropReason::UnknownPath)?;
        let peer = self.peers.get_mut(index).ok_or(DropReason::UnknownPath)?;
        let keys = peer.keys.as_mut().ok_or(DropReason::NoKeys)?;
        let (rtcp_index, length) = keys
            .remote
            .open_rtcp(datagram)
            .ok_or(DropReason::Unauthentic)?;
        if !keys.rtcp_replay.is_fresh(u64::from(rtcp_index)) {
            return Err(DropReason::Replay);
        }
        keys.rtcp_replay.accept(u64::from(rtcp_index));
        // Messages are few and small; they are copied out so that answering may touch everything.
        let mut heard = std::mem::take(&mut self.heard);
        heard.clear();
        let whole = rtcp::parse(&datagram[..length], |message| match message {
            Message::SenderReport { ssrc, ntp, rtp } => heard.senders.push((ssrc, ntp, rtp)),
            Message::Report(report) => heard.reports.push(report),
            Message::Nack { ssrc, pid, mask } => heard.wanted.push((ssrc, pid, mask)),
            Message::KeyFrameRequest { ssrc } => heard.key_frames.push(ssrc),
            Message::Bye { .. } | Message::TransportFeedback(_) => {}
        });
        self.answer(now, index, &heard);
        self.heard = heard;
        if whole {
            Ok(())
        } else {
            Err(DropReason::Malformed)
        }
    }

    fn answer(&mut self, now: Timestamp, index: usize, heard: &Heard) {
        for &(ssrc, ntp, rtp) in &heard.senders {
            self.publisher_report(now, index, ssrc, ntp, rtp);
        }
        let ntp_now = (self.wall.ntp(now) >> 16) as u32;
        for report in &heard.reports {
            let Some(peer) = self.peers.get_mut(index) else {
                break;
            };
            peer.stats.remote_fraction_lost = f32::from(report.fraction_lost) / 256.0;
            if report.last_sr != 0 {
                let round_trip = ntp_now
                    .wrapping_sub(report.last_sr)
                    .wrapping_sub(report.delay);
                // The publisher's clock stands in our sender reports; only a plausible difference is a round trip.
                let millis = u64::from(round_trip) * 1000 / 65_536;
                if millis < 10_000 {
                    peer.stats.rtt_ms = millis as u32;
                }
            }
        }
        for &(ssrc, pid, mask) in &heard.wanted {
            let Some(subscription) = self.subscription_of(index, ssrc) else {
                continue;
            };
            for bit in 0..=16_u16 {
                if bit == 0 || mask >> (bit - 1) & 1 == 1 {
                    if self.retransmissions.len() >= 1024 {
                        self.counters.drop(DropReason::Limit);
                        break;
                    }
                    self.retransmissions
                        .push_back((subscription, pid.wrapping_add(bit)));
                }
            }
        }
        for &ssrc in &heard.key_frames {
            if let Some(subscription) = self.subscription_of(index, ssrc)
                && let Some(subscribed) = self.subscriptions.get(subscription)
                && let Some(encoding) = subscribed.current.or_else(|| self.target(subscription))
            {
                let publication = subscribed.publication;
                self.request_key_frame(publication, encoding);
            }
        }
    }

    fn subscription_of(&self, peer: usize, ssrc: Ssrc) -> Option<usize> {
        self.peers
            .get(peer)?
            .subscriptions
            .iter()
            .copied()
            .find(|index| {
                self.subscriptions
                    .get(*index)
                    .is_some_and(|subscribed| subscribed.declared.ssrc == ssrc)
            })
    }

    fn publisher_report(&mut self, now: Timestamp, index: usize, ssrc: Ssrc, ntp: u64, rtp: u32) {
        let Some(peer) = self.peers.get(index) else {
            return;
        };
        let Some(stream) = peer
            .streams
            .iter()
            .find(|stream| stream.ssrc == ssrc && !stream.retransmission)
        else {
            return;
        };
        let (publication, encoding) = (stream.publication, usize::from(stream.encoding));
        if let Some(state) = self
            .publications
            .get_mut(publication)
            .and_then(|p| p.encodings.get_mut(encoding))
        {
            state.report = Some(SenderReport { ntp, rtp, at: now });
        }
    }
}

/// An encoding that was silent for longer is not chosen any more.
pub(super) const ENCODING_ALIVE: Duration = Duration::from_millis(1500);
/// Nor one that was silent for this long while another goes on: browsers suspend the upper layers first.
pub(super) const ENCODING_BEHIND: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_strangers_gets_few_answers_and_a_probe_gets_one_again() {
        let mut strangers = Strangers::default();
        let start = Timestamp::from_nanos(5_000_000_000);
        let answered = (0..10_000).filter(|_| strangers.admit(start)).count();
        assert_eq!(answered, STRANGERS_MAX as usize);
        assert!(strangers.admit(start + Duration::from_secs(1)));
    }
}

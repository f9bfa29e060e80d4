// SPDX-License-Identifier: EUPL-1.2
//! Timers and what they send: feedback to publishers, reports, key-frame requests, speakers.
//!
//! A timer exists only while its object has something to do, so an idle shard has none but those of its transports.

use std::cmp::Ordering;
use std::time::Duration;

use super::Shard;
use super::state::SenderReport;
use crate::api::{Event, Kind, SpeakerLevel};
use crate::crypto::Crypto;
use crate::ids::{ExtSeq, Ssrc};
use crate::rtp::rtcp::{self, Report};
use crate::rtp::twcc::Feedback;
use crate::time::Timestamp;

/// Key frames of one encoding are asked for at most this often.
const KEY_FRAME_GAP: Duration = Duration::from_millis(500);
/// Reports while packets flow.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of speaker detection.
const SPEAKERS_INTERVAL: Duration = Duration::from_millis(400);
/// A packet may come this late before it is asked for.
pub(super) const REORDER: Duration = Duration::from_millis(20);
const NACK_TRIES: u8 = 10;
/// Louder than this (dBov below full scale) counts as voice.
const VOICE_LEVEL: u8 = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Peer(usize),
    Feedback(usize),
    Reports(usize),
    Nack(usize),
    KeyFrame(usize),
    Speakers(usize),
}

/// An entry of the timer heap, earliest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timer {
    pub(super) at: Timestamp,
    pub(super) what: What,
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .at
            .cmp(&self.at)
            .then_with(|| other.what.cmp(&self.what))
    }
}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<C: Crypto> Shard<C> {
    /// Runs every timer that is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
        while self.timers.peek().is_some_and(|timer| timer.at <= now) {
            let Some(timer) = self.timers.pop() else {
                return;
            };
            // What it was armed for may be gone and its index another's, or it was armed anew for an earlier time.
            if let Some(armed) = self.armed_field(timer.what)
                && *armed == Some(timer.at)
            {
                *armed = None;
                self.counters.fired_timers += 1;
                self.fire(now, timer.what);
            }
        }
    }

    fn fire(&mut self, now: Timestamp, what: What) {
        match what {
            What::Peer(index) => self.peer_timeout(now, index),
            What::Feedback(index) => self.send_feedback(index),
            What::Reports(index) => self.send_reports(now, index),
            What::Nack(index) => self.send_nacks(now, index),
            What::KeyFrame(index) => self.repeat_key_frame_request(now, index),
            What::Speakers(index) => self.judge_speakers(now, index),
        }
    }

    fn armed_field(&mut self, what: What) -> Option<&mut Option<Timestamp>> {
        match what {
            What::Peer(index) => self.peers.get_mut(index).map(|peer| &mut peer.timer_at),
            What::Feedback(index) => self
                .peers
                .get_mut(index)
                .map(|peer| &mut peer.feedback_armed),
            What::Reports(index) => self
                .peers
                .get_mut(index)
                .map(|peer| &mut peer.reports_armed),
            What::Nack(index) => self
                .publications
                .get_mut(index)
                .map(|published| &mut published.nack_armed),
            What::KeyFrame(index) => self
                .publications
                .get_mut(index)
                .map(|published| &mut published.key_armed),
            What::Speakers(index) => self
                .rooms
                .get_mut(index)
                .map(|room| &mut room.speakers_armed),
        }
    }

    /// Arms a timer, unless it is armed for an earlier time already.
    pub(super) fn arm(&mut self, at: Timestamp, what: What) {
        if let Some(armed) = self.armed_field(what)
            && armed.is_none_or(|armed| at < armed)
        {
            *armed = Some(at);
            self.timers.push(Timer { at, what });
        }
    }

    /// Later deadlines are found when the earlier timer fires.
    pub(super) fn arm_peer(&mut self, index: usize) {
        if let Some(at) = self
            .peers
            .get(index)
            .and_then(|peer| peer.ice.poll_deadline(&self.crypto))
        {
            self.arm(at, What::Peer(index));
        }
    }

    fn peer_timeout(&mut self, now: Timestamp, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        peer.ice
            .handle_timeout(now, &mut self.crypto, &mut self.out);
        self.settle(now, index);
    }

    /// Seals and queues a compound packet.
    pub(super) fn send_rtcp(&mut self, index: usize, mut packet: Vec<u8>) {
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        let (Some(keys), Some(path)) = (&mut peer.keys, peer.ice.path()) else {
            return;
        };
        // 2^31 packets under one key (RFC 7714 §9.1): decades at these rates; silence is right then.
        if keys.rtcp_index >= 0x7fff_ffff {
            return;
        }
        keys.rtcp_index += 1;
        keys.local.seal_rtcp(keys.rtcp_index, &mut packet);
        self.control.push_back((path, packet));
    }

    pub(super) fn send_feedback(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        let reporter = peer.reporter;
        let mut packet = self.buffer();
        rtcp::receiver_report(&mut packet, reporter, &[]);
        let before = packet.len();
        if let Some(peer) = self.peers.get_mut(index) {
            peer.feedback
                .write(&mut packet, reporter, peer.feedback_media);
        }
        if packet.len() > before {
            self.send_rtcp(index, packet);
        } else {
            self.recycle(packet);
        }
    }

    pub(super) fn arm_feedback(&mut self, now: Timestamp, index: usize) {
        self.arm(now + Feedback::INTERVAL, What::Feedback(index));
    }

    pub(super) fn arm_reports(&mut self, now: Timestamp, index: usize) {
        self.arm(now + REPORT_INTERVAL, What::Reports(index));
    }

    fn send_reports(&mut self, now: Timestamp, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        let reporter = peer.reporter;
        let (publications, subscriptions) = (peer.publications.len(), peer.subscriptions.len());
        let mut reports = std::mem::take(&mut self.report_blocks);
        reports.clear();
        let (mut lost_all, mut flowing) = (0, false);
        for position in 0..publications {
            let Some(published) = self
                .peers
                .get(index)
                .and_then(|peer| peer.publications.get(position).copied())
            else {
                break;
            };
            let Some(published) = self.publications.get_mut(published) else {
                continue;
            };
            for encoding in &mut published.encodings {
                let (Some(ssrc), Some(highest)) = (encoding.ssrc, encoding.highest) else {
                    continue;
                };
                let expected = highest + 1 - encoding.base;
                let lost = expected.saturating_sub(encoding.received);
                lost_all += lost;
                let interval = expected - encoding.expected_before;
                let came = encoding.received - encoding.received_before;
                if interval == 0 && came == 0 {
                    continue;
                }
                flowing = true;
                encoding.expected_before = expected;
                encoding.received_before = encoding.received;
                let missed = interval.saturating_sub(came);
                if reports.len() < 31 {
                    reports.push(Report {
                        ssrc: ssrc.0,
                        fraction_lost: (missed * 256)
                            .checked_div(interval)
                            .map_or(0, |part| part.min(255) as u8),
                        lost: lost.min(0x7f_ffff) as u32,
                        highest: highest as u32,
                        jitter: encoding.jitter as u32,
                        last_sr: encoding
                            .report
                            .map_or(0, |report| (report.ntp >> 16) as u32),
                        delay: encoding.report.map_or(0, |report| {
                            (now.since(report.at).as_nanos() * 65_536 / 1_000_000_000) as u32
                        }),
                    });
                }
            }
        }
        let mut packet = self.buffer();
        if !reports.is_empty() {
            rtcp::receiver_report(&mut packet, reporter, &reports);
        }
        self.report_blocks = reports;
        for position in 0..subscriptions {
            let Some(at) = self
                .peers
                .get(index)
                .and_then(|peer| peer.subscriptions.get(position).copied())
            else {
                break;
            };
            let Some((ssrc, ntp, rtp, packets, bytes)) = self.sender_report(now, at) else {
                continue;
            };
            flowing = true;
            if packet.len() + 64 > rtcp::PACKET_BYTES_MAX {
                let empty = self.buffer();
                let full = std::mem::replace(&mut packet, empty);
                self.send_rtcp(index, full);
            }
            rtcp::sender_report(&mut packet, ssrc, ntp, rtp, packets, bytes);
            rtcp::source_description(&mut packet, ssrc);
        }
        if packet.is_empty() {
            self.recycle(packet);
        } else {
            self.send_rtcp(index, packet);
        }
        if let Some(peer) = self.peers.get_mut(index) {
            peer.stats.lost_packets = lost_all;
        }
        if flowing {
            self.arm_reports(now, index);
        }
    }

    /// The publisher's clock, carried on to `now` and into the subscriber's timestamps, so that its audio and video stay in step.
    fn sender_report(
        &mut self,
        now: Timestamp,
        index: usize,
    ) -> Option<(Ssrc, u64, u32, u32, u32)> {
        let wall = self.wall.ntp(now);
        let subscribed = self.subscriptions.get_mut(index)?;
        if subscribed.packets == subscribed.packets_reported {
            return None;
        }
        subscribed.packets_reported = subscribed.packets;
        let offset = subscribed.rewriter.timestamp_offset()?;
        let encoding = self
            .publications
            .get(subscribed.publication)?
            .encodings
            .get(usize::from(subscribed.current?))?;
        let (ntp, rtp) = match encoding.report {
            Some(SenderReport { ntp, rtp, at }) => {
                let elapsed = now.since(at).as_nanos();
                let fraction = ((elapsed << 32) / 1_000_000_000) as u64;
                let ticks = (elapsed * u128::from(encoding.clock_rate) / 1_000_000_000) as u32;
                (
                    ntp.wrapping_add(fraction),
                    rtp.wrapping_add(ticks).wrapping_add(offset),
                )
            }
            None => {
                let elapsed = now.since(subscribed.last_at).as_nanos();
                let ticks = (elapsed * u128::from(encoding.clock_rate) / 1_000_000_000) as u32;
                (
                    wall,
                    subscribed.rewriter.last_timestamp()?.wrapping_add(ticks),
                )
            }
        };
        Some((
            subscribed.declared.ssrc,
            ntp,
            rtp,
            subscribed.packets,
            subscribed.bytes,
        ))
    }

    pub(super) fn arm_nacks(&mut self, at: Timestamp, publication: usize) {
        self.arm(at, What::Nack(publication));
    }

    fn send_nacks(&mut self, now: Timestamp, publication: usize) {
        let Some(published) = self.publications.get_mut(publication) else {
            return;
        };
        let index = published.peer;
        let Some(reporter) = self.peers.get(index).map(|peer| peer.reporter) else {
            return;
        };
        let mut packet = Vec::new();
        let mut next = None::<Timestamp>;
        let mut count = 0;
        for encoding in &mut published.encodings {
            let Some(ssrc) = encoding.ssrc else { continue };
            let again = encoding.ask_again();
            let mut lost = Vec::new();
            encoding.missing.retain_mut(|missing| {
                if missing.next <= now {
                    if missing.tries >= NACK_TRIES {
                        return false;
                    }
                    missing.tries += 1;
                    missing.asked = now;
                    missing.next = now + again;
                    lost.push(missing.sequence);
                }
                next = Some(next.map_or(missing.next, |next| next.min(missing.next)));
                true
            });
            if !lost.is_empty() {
                lost.sort_unstable();
                count += lost.len() as u64;
                let lost: Vec<u16> = lost
                    .into_iter()
                    .map(|sequence| ExtSeq(sequence).0 as u16)
                    .collect();
                if packet.is_empty() {
                    rtcp::receiver_report(&mut packet, reporter, &[]);
                }
                rtcp::nack(&mut packet, reporter, ssrc, &lost);
            }
        }
        self.counters.nacked_packets += count;
        if !packet.is_empty() {
            self.send_rtcp(index, packet);
        }
        if let Some(next) = next {
            self.arm_nacks(next, publication);
        }
    }

    /// Asks for a key frame of the encoding that a subscription wants and does not have.
    pub(super) fn request_target_key_frame(&mut self, subscription: usize) {
        let Some(subscribed) = self.subscriptions.get(subscription) else {
            return;
        };
        let (publication, current) = (subscribed.publication, subscribed.current);
        // Whoever has no keys yet would miss the key frame, and the next one may be asked for only after KEY_FRAME_GAP.
        if self
            .peers
            .get(subscribed.peer)
            .is_none_or(|peer| peer.keys.is_none())
        {
            return;
        }
        if let Some(target) = self.target(subscription)
            && current != Some(target)
        {
            self.request_key_frame(publication, target);
        }
    }

    pub(super) fn request_key_frame(&mut self, publication: usize, encoding: u8) {
        let now = self.now;
        let Some(published) = self.publications.get_mut(publication) else {
            return;
        };
        if published.declared.kind == Kind::Audio {
            return;
        }
        let peer = published.peer;
        let Some(state) = published.encodings.get_mut(usize::from(encoding)) else {
            return;
        };
        state.key_wanted = true;
        let due = state
            .key_asked
            .is_none_or(|asked| now.since(asked) >= KEY_FRAME_GAP);
        let mut send = None;
        if due && let Some(ssrc) = state.ssrc {
            state.key_asked = Some(now);
            send = Some(ssrc);
        }
        if state.ssrc.is_some() {
            self.arm(now + KEY_FRAME_GAP, What::KeyFrame(publication));
        }
        if let (Some(ssrc), Some(reporter)) = (send, self.peers.get(peer).map(|peer| peer.reporter))
        {
            let mut packet = self.buffer();
            rtcp::receiver_report(&mut packet, reporter, &[]);
            rtcp::picture_loss(&mut packet, reporter, ssrc);
            self.counters.key_frame_requests += 1;
            self.send_rtcp(peer, packet);
        }
    }

    fn repeat_key_frame_request(&mut self, now: Timestamp, publication: usize) {
        let Some(published) = self.publications.get_mut(publication) else {
            return;
        };
        for encoding in 0..published.encodings.len() {
            let wanted = self
                .publications
                .get(publication)
                .and_then(|published| published.encodings.get(encoding))
                .is_some_and(
                    // Nobody is asked who has stopped sending.
                    |state| {
                        state.key_wanted && now.since(state.last_packet) < Duration::from_secs(5)
                    },
                );
            if wanted {
                self.request_key_frame(publication, encoding as u8);
            }
        }
    }

    pub(super) fn note_level(&mut self, now: Timestamp, publication: usize, byte: u8) {
        let Some(published) = self.publications.get_mut(publication) else {
            return;
        };
        let level = byte & 0x7f;
        published.level.packets += 1;
        published.level.active += u32::from(level < VOICE_LEVEL);
        published.level.loudest = published.level.loudest.min(level);
        let at = published.room;
        self.arm(now + SPEAKERS_INTERVAL, What::Speakers(at));
    }

    fn judge_speakers(&mut self, now: Timestamp, index: usize) {
        let Some(room) = self.rooms.get_mut(index) else {
            return;
        };
        let id = room.id;
        let mut levels = Vec::new();
        let (mut changed, mut heard) = (false, false);
        for publication in &room.audio {
            let Some(published) = self.publications.get_mut(*publication) else {
                continue;
            };
            let level = &mut published.level;
            heard |= level.packets > 0;
            // 40 % of the interval must be voice (discontinuous transmission sends few packets of silence).
            let speaking =
                level.packets > 0 && level.active * 10 >= level.packets * 4 && level.active > 1;
            let loudness = if speaking {
                10_f32.powf(-f32::from(level.loudest) / 20.0)
            } else {
                0.0
            };
            let smoothed = if speaking {
                level.smoothed + (loudness - level.smoothed) / 2.0
            } else {
                0.0
            };
            changed |= speaking != level.speaking || (smoothed - level.smoothed).abs() > 0.1;
            *level = super::state::Level {
                packets: 0,
                active: 0,
                loudest: 127,
                smoothed,
                speaking,
            };
            if speaking {
                levels.push(SpeakerLevel {
                    publication: published.declared.id,
                    level: smoothed,
                    active: true,
                });
            }
        }
        if changed {
            levels.sort_by(|a, b| b.level.total_cmp(&a.level));
            self.events.push_back(Event::Speakers { room: id, levels });
        }
        if heard {
            self.arm(now + SPEAKERS_INTERVAL, What::Speakers(index));
        }
    }
}

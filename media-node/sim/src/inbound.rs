// SPDX-License-Identifier: EUPL-1.2
//! What a client makes of one received track: a jitter buffer that waits for retransmissions, a decoder that plays frames in order,
//! and a judge of every number that must be contiguous.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use media_core::api::Codec;
use media_core::ids::PayloadType;
use media_core::rtp::payload::inspect;
use media_core::srtp::Replay;
use media_core::time::Timestamp;

use crate::source::{self, payload};

/// A receiver asks for a packet again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(60);
const ASKS_MAX: u8 = 10;
/// A frame that is not whole for this long makes the receiver ask for a key frame.
const STUCK: Duration = Duration::from_millis(200);

#[derive(Clone, Debug)]
struct Received {
    marker: bool,
    timestamp: u32,
    payload_type: PayloadType,
    start: bool,
    key: bool,
    capture: Option<u32>,
    picture: Option<u16>,
    tl0: Option<u8>,
    tid: u8,
    body: Vec<u8>,
}

/// What came of a track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Packets, retransmissions counted once.
    pub packets: usize,
    /// Frames decoded, or audio packets played.
    pub frames: usize,
    /// Sequence numbers that never came.
    pub gaps: u64,
    /// Frames that could not be decoded and were jumped over by a key frame.
    pub jumps: usize,
    /// Timestamps that did not rise with the captures they belong to.
    pub timestamp_errors: usize,
    /// Picture ids or TL0PICIDX that were not contiguous.
    pub picture_errors: usize,
    /// Captures that came backwards, or frames that mix several.
    pub capture_errors: usize,
    /// Frames of a layer that was left while their last packets were still missing.
    pub cuts: usize,
    /// Captures shown twice, in two layers one after the other: what a switch to a higher layer may cost. Not counted as frames.
    pub repeats: usize,
    /// Longest time between two frames.
    pub longest_pause: Duration,
    /// Key frames asked for.
    pub key_frames_asked: usize,
    /// Body of the last packet played, without descriptor.
    pub last_body: Vec<u8>,
}

/// One received track.
#[derive(Debug, Default)]
pub struct Inbound {
    /// Window of its media stream.
    pub replay: Replay,
    /// Window of its retransmissions.
    pub rtx_replay: Replay,
    waiting: BTreeMap<u64, Received>,
    next: Option<u64>,
    started: bool,
    stuck_since: Option<Timestamp>,
    asked: HashMap<u64, (Timestamp, u8)>,
    key_asked: Option<Timestamp>,
    last: Option<Played>,
    last_played: Option<Timestamp>,
    report: Report,
}

#[derive(Clone, Copy, Debug)]
struct Played {
    timestamp: u32,
    capture: u32,
    picture: Option<u16>,
    tl0: Option<u8>,
    contiguous: bool,
}

impl Inbound {
    /// One packet under its original number.
    pub fn take(
        &mut self,
        now: Timestamp,
        sequence: u64,
        marker: bool,
        timestamp: u32,
        payload_type: PayloadType,
        body: &[u8],
    ) {
        let Some((start, key, capture)) = source::read(payload_type, body) else {
            panic!(
                "payload type {payload_type} was not offered or is malformed: {:?}",
                &body[..body.len().min(12)]
            );
        };
        if self.next.is_some_and(|next| sequence < next) || self.waiting.contains_key(&sequence) {
            return;
        }
        let vp8 = (payload_type == payload::VP8)
            .then(|| inspect(Codec::Vp8, body).vp8)
            .flatten();
        self.report.packets += 1;
        self.waiting.insert(
            sequence,
            Received {
                marker,
                timestamp,
                payload_type,
                start,
                key,
                capture,
                picture: vp8
                    .and_then(|vp8| vp8.picture)
                    .map(|(_, picture, _)| picture),
                tl0: vp8.and_then(|vp8| vp8.tl0).map(|(_, tl0)| tl0),
                tid: vp8.map_or(0, |vp8| vp8.tid),
                body: body[..body.len().min(16)].to_vec(),
            },
        );
        self.play(now);
    }

    /// Plays what is due. Number of the packets asked for again, and whether a key frame is wanted.
    pub fn tick(&mut self, now: Timestamp) -> (Vec<u16>, bool) {
        self.play(now);
        let mut lost = Vec::new();
        if let (Some(next), Some((&last, _))) = (self.next, self.waiting.last_key_value()) {
            for number in next.max(last.saturating_sub(400))..last {
                if self.waiting.contains_key(&number) {
                    continue;
                }
                let (at, tries) = self.asked.entry(number).or_insert((Timestamp::ZERO, 0));
                if *tries < ASKS_MAX && now.since(*at) >= ASK_AGAIN {
                    (*at, *tries) = (now, *tries + 1);
                    lost.push(number as u16);
                }
            }
        }
        let stuck = self
            .stuck_since
            .is_some_and(|since| now.since(since) >= STUCK)
            && self
                .key_asked
                .is_none_or(|asked| now.since(asked) >= 2 * STUCK);
        if stuck {
            self.key_asked = Some(now);
            self.report.key_frames_asked += 1;
        }
        (lost, stuck)
    }

    fn play(&mut self, now: Timestamp) {
        loop {
            if !self.started {
                let Some(first) = self
                    .waiting
                    .iter()
                    .find(|(_, packet)| packet.key)
                    .map(|(number, _)| *number)
                else {
                    return;
                };
                self.next = Some(first);
                self.started = true;
                self.waiting.retain(|number, _| *number >= first);
            }
            let Some(next) = self.next else { return };
            if let Some(end) = self.whole_frame(next) {
                self.decode(now, next, end, true);
                self.stuck_since = None;
                continue;
            }
            if self.waiting.is_empty() {
                self.stuck_since = None;
                return;
            }
            let since = *self.stuck_since.get_or_insert(now);
            let audio = self
                .waiting
                .values()
                .next()
                .is_some_and(|packet| is_audio(packet.payload_type));
            // Audio plays on without what is too late; video waits for a key frame.
            let jump = self
                .waiting
                .iter()
                .filter(|(_, packet)| packet.key)
                .map(|(number, _)| *number)
                .find(|number| self.whole_frame(*number).is_some());
            let Some(jump) = jump.filter(|_| now.since(since) >= STUCK) else {
                return;
            };
            self.report.gaps += (next..jump)
                .filter(|number| !self.waiting.contains_key(number))
                .count() as u64;
            self.report.jumps += usize::from(!audio);
            self.waiting.retain(|number, _| *number >= jump);
            if let Some(last) = &mut self.last {
                last.contiguous = false;
            }
            self.next = Some(jump);
            self.stuck_since = None;
        }
    }

    /// Last number of the frame that begins at `first`, if all of it is here.
    fn whole_frame(&self, first: u64) -> Option<u64> {
        let begin = self.waiting.get(&first).filter(|packet| packet.start)?;
        if is_audio(begin.payload_type) {
            return Some(first);
        }
        let mut number = first;
        loop {
            let packet = self.waiting.get(&number)?;
            if packet.timestamp != begin.timestamp || (number > first && packet.start) {
                // The layer was left in the midst of a frame.
                return Some(number - 1);
            }
            if packet.marker {
                return Some(number);
            }
            number += 1;
        }
    }

    fn decode(&mut self, now: Timestamp, first: u64, end: u64, contiguous: bool) {
        let frame: Vec<Received> = (first..=end)
            .filter_map(|number| self.waiting.remove(&number))
            .collect();
        let Some(begin) = frame.first() else { return };
        let capture = begin.capture.unwrap_or_default();
        if frame
            .iter()
            .any(|packet| packet.capture != begin.capture || packet.picture != begin.picture)
        {
            self.report.capture_errors += 1;
        }
        let cut =
            !is_audio(begin.payload_type) && !frame.last().is_some_and(|packet| packet.marker);
        if let Some(last) = self.last {
            let captures = capture.wrapping_sub(last.capture);
            if captures > 10_000 {
                self.report.capture_errors += 1;
            }
            if captures == 0 {
                self.report.repeats += 1;
                self.report.frames -= 1;
            }
            let per_capture = if is_audio(begin.payload_type) {
                960
            } else {
                90 * source::VIDEO_INTERVAL as u32
            };
            let step = begin.timestamp.wrapping_sub(last.timestamp) as i32;
            // Layers have clocks of their own, which sender reports tie together to within a millisecond.
            if (step - captures.wrapping_mul(per_capture) as i32).unsigned_abs() > 90 {
                self.report.timestamp_errors += 1;
            }
            if let (true, Some(before), Some(picture)) =
                (last.contiguous, last.picture, begin.picture)
                && picture != before.wrapping_add(1) & 0x7fff
            {
                self.report.picture_errors += 1;
            }
            if let (true, Some(before), Some(tl0)) = (last.contiguous, last.tl0, begin.tl0)
                && tl0 != before.wrapping_add(u8::from(begin.tid == 0))
            {
                self.report.picture_errors += 1;
            }
        }
        if let Some(last) = self.last_played {
            self.report.longest_pause = self.report.longest_pause.max(now.since(last));
        }
        self.last_played = Some(now);
        self.report.frames += usize::from(!cut);
        self.report.cuts += usize::from(cut);
        self.report.last_body.clone_from(&begin.body);
        self.last = Some(Played {
            timestamp: begin.timestamp,
            capture,
            picture: begin.picture,
            tl0: begin.tl0,
            contiguous,
        });
        self.next = Some(end + 1);
        self.asked.retain(|number, _| *number > end);
    }

    /// A pause that was wished for is none.
    pub fn forget_pause(&mut self) {
        self.last_played = None;
    }

    /// What came of it so far.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }
}

fn is_audio(payload_type: PayloadType) -> bool {
    payload_type == payload::OPUS || payload_type == payload::RED
}

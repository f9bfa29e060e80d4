// SPDX-License-Identifier: EUPL-1.2
//! Contiguous numbers for a subscriber, whatever is switched or left out before: sequence numbers, timestamps, VP8 picture ids.
//!
//! A stream towards a subscriber is a list of segments. Within a segment the outgoing number is the incoming one plus an
//! offset; a segment ends where a packet is left out or another encoding takes over. Late packets find their segment, or are of
//! none and are dropped; a NACK finds its packet the other way round.

use std::collections::VecDeque;

use crate::ids::ExtSeq;

/// Segments kept: with every second frame left out at 30 frames per second they reach back four seconds.
const SEGMENTS_MAX: usize = 64;

/// What a subscriber receives in place of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Outgoing extended sequence number.
    pub sequence: ExtSeq,
    /// To be added to the timestamp, wrapping.
    pub timestamp_offset: u32,
    /// To be added to the picture id, wrapping in its width.
    pub picture_offset: u16,
    /// To be added to TL0PICIDX, wrapping.
    pub tl0_offset: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Segment {
    encoding: u8,
    in_first: u64,
    /// Exclusive; `u64::MAX` while it is the open one.
    in_end: u64,
    out_first: u64,
    timestamp_offset: u32,
    picture_offset: u16,
    tl0_offset: u8,
}

/// The rewriter of one subscription.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rewriter {
    segments: VecDeque<Segment>,
    /// Next outgoing number for a packet in order.
    next_out: u64,
    /// First incoming number of the open segment's encoding that is not decided on.
    next_in: u64,
    last_timestamp: Option<u32>,
    last_picture: Option<u16>,
    last_tl0: Option<u8>,
}

impl Rewriter {
    /// Begins with `first` as the first outgoing number; its rollover count is 0, as a receiver assumes (RFC 3711 §3.3.1).
    #[must_use]
    pub fn new(first: u16) -> Self {
        Self {
            segments: VecDeque::new(),
            next_out: u64::from(first),
            next_in: 0,
            last_timestamp: None,
            last_picture: None,
            last_tl0: None,
        }
    }

    /// Last outgoing timestamp.
    #[must_use]
    pub fn last_timestamp(&self) -> Option<u32> {
        self.last_timestamp
    }

    /// Encoding that was forwarded last, and the offset of its timestamps.
    #[must_use]
    pub fn timing(&self) -> Option<(u8, u32)> {
        self.segments
            .back()
            .map(|segment| (segment.encoding, segment.timestamp_offset))
    }

    /// Offset of the open segment's timestamps.
    #[must_use]
    pub fn timestamp_offset(&self) -> Option<u32> {
        self.segments.back().map(|segment| segment.timestamp_offset)
    }

    /// The numbers of `encoding` begin anew under another meaning: no packet with one of its old numbers may be taken for the packet
    /// that had it before, because an outgoing index seals one content only.
    pub fn forget(&mut self, encoding: u8) {
        self.segments.retain(|segment| segment.encoding != encoding);
    }

    /// The segment that still grows.
    fn open(&mut self) -> Option<&mut Segment> {
        self.segments
            .back_mut()
            .filter(|segment| segment.in_end == u64::MAX)
    }

    fn push(&mut self, segment: Segment) {
        if self.segments.len() == SEGMENTS_MAX {
            self.segments.pop_front();
        }
        self.segments.push_back(segment);
    }

    /// `encoding` takes over with the packet `first`. `timestamp` is the outgoing timestamp its frame shall have.
    pub fn switch(
        &mut self,
        encoding: u8,
        first: ExtSeq,
        in_timestamp: u32,
        timestamp: u32,
        picture: Option<u16>,
        tl0: Option<u8>,
    ) {
        let next_in = self.next_in;
        if let Some(open) = self.open() {
            open.in_end = next_in;
        }
        let picture_offset = match (self.last_picture, picture) {
            (Some(last), Some(picture)) => last.wrapping_add(1).wrapping_sub(picture),
            _ => 0,
        };
        let tl0_offset = match (self.last_tl0, tl0) {
            (Some(last), Some(tl0)) => last.wrapping_add(1).wrapping_sub(tl0),
            _ => 0,
        };
        self.push(Segment {
            encoding,
            in_first: first.0,
            in_end: u64::MAX,
            out_first: self.next_out,
            timestamp_offset: timestamp.wrapping_sub(in_timestamp),
            picture_offset,
            tl0_offset,
        });
        self.next_in = first.0;
    }

    /// Leaves a packet out, in order or not; those after it close up. With `frame` the packet begins a frame with a picture id.
    pub fn leave_out(&mut self, encoding: u8, sequence: ExtSeq, frame: bool) {
        let next_in = self.next_in;
        let Some(open) = self
            .open()
            .filter(|open| open.encoding == encoding && sequence.0 >= next_in)
        else {
            return;
        };
        // A hole before it stays open for the late packets: they get the numbers that were kept for them.
        let kept = sequence.0 - open.in_first;
        if kept == 0 {
            // Nothing went out under it: a frame of many packets costs one segment.
            open.in_first += 1;
            open.picture_offset = open.picture_offset.wrapping_sub(u16::from(frame));
            self.next_in = sequence.0 + 1;
            return;
        }
        open.in_end = sequence.0;
        let open = *open;
        self.next_out = open.out_first + kept;
        self.push(Segment {
            in_first: sequence.0 + 1,
            out_first: self.next_out,
            picture_offset: open.picture_offset.wrapping_sub(u16::from(frame)),
            ..Segment {
                in_end: u64::MAX,
                ..open
            }
        });
        self.next_in = sequence.0 + 1;
    }

    /// Numbers for a packet that shall be forwarded; `None` when it is late for a segment that is gone or lies in a gap.
    pub fn forward(
        &mut self,
        encoding: u8,
        sequence: ExtSeq,
        timestamp: u32,
        picture: Option<u16>,
        tl0: Option<u8>,
    ) -> Option<Numbers> {
        let segment = *self.find(encoding, sequence)?;
        let out = segment.out_first + (sequence.0 - segment.in_first);
        if segment.in_end == u64::MAX && sequence.0 >= self.next_in {
            self.next_in = sequence.0 + 1;
            self.next_out = out + 1;
            self.last_timestamp = Some(timestamp.wrapping_add(segment.timestamp_offset));
            if let Some(picture) = picture {
                self.last_picture = Some(picture.wrapping_add(segment.picture_offset));
            }
            if let Some(tl0) = tl0 {
                self.last_tl0 = Some(tl0.wrapping_add(segment.tl0_offset));
            }
        }
        Some(Numbers {
            sequence: ExtSeq(out),
            timestamp_offset: segment.timestamp_offset,
            picture_offset: segment.picture_offset,
            tl0_offset: segment.tl0_offset,
        })
    }

    fn find(&self, encoding: u8, sequence: ExtSeq) -> Option<&Segment> {
        self.segments.iter().rev().find(|segment| {
            segment.encoding == encoding && (segment.in_first..segment.in_end).contains(&sequence.0)
        })
    }

    /// The packet behind an outgoing 16-bit sequence number near the last one: encoding, incoming number, numbers.
    #[must_use]
    pub fn reverse(&self, out: u16) -> Option<(u8, ExtSeq, Numbers)> {
        let last = self.next_out.checked_sub(1)?;
        let delta = i64::from(out.wrapping_sub(last as u16) as i16);
        if delta > 0 {
            return None;
        }
        let wanted = last.checked_add_signed(delta)?;
        self.segments
            .iter()
            .rev()
            .find(|segment| segment.out_first <= wanted)
            .and_then(|segment| {
                let sequence = segment.in_first + (wanted - segment.out_first);
                (sequence < segment.in_end).then_some((
                    segment.encoding,
                    ExtSeq(sequence),
                    Numbers {
                        sequence: ExtSeq(wanted),
                        timestamp_offset: segment.timestamp_offset,
                        picture_offset: segment.picture_offset,
                        tl0_offset: segment.tl0_offset,
                    },
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn out(rewriter: &mut Rewriter, encoding: u8, sequence: u64) -> Option<u64> {
        rewriter
            .forward(encoding, ExtSeq(sequence), 0, None, None)
            .map(|numbers| numbers.sequence.0)
    }

    #[test]
    fn a_switch_is_contiguous_and_late_packets_find_their_old_place() {
        let mut rewriter = Rewriter::new(100);
        rewriter.switch(0, ExtSeq(5000), 0, 0, None, None);
        let first = out(&mut rewriter, 0, 5000).expect("first");
        assert_eq!(first, 100);
        assert_eq!(out(&mut rewriter, 0, 5002), Some(first + 2));
        rewriter.switch(1, ExtSeq(9), 0, 0, None, None);
        assert_eq!(out(&mut rewriter, 1, 9), Some(first + 3));
        assert_eq!(
            out(&mut rewriter, 0, 5001),
            Some(first + 1),
            "the hole is filled"
        );
        assert_eq!(
            out(&mut rewriter, 0, 5003),
            None,
            "late packet after switch is dropped"
        );
        assert_eq!(out(&mut rewriter, 1, 8), None, "before the key frame");
        let (encoding, sequence, _) = rewriter.reverse(102).expect("sent");
        assert_eq!((encoding, sequence), (0, ExtSeq(5002)));
    }

    #[test]
    fn numbers_of_a_stream_that_began_anew_are_never_given_to_other_packets() {
        let mut rewriter = Rewriter::new(0);
        rewriter.switch(0, ExtSeq(1), 0, 0, None, None);
        assert_eq!(out(&mut rewriter, 0, 1), Some(0));
        assert_eq!(out(&mut rewriter, 0, 9), Some(8));
        rewriter.forget(0);
        rewriter.switch(0, ExtSeq(5), 0, 0, None, None);
        assert_eq!(out(&mut rewriter, 0, 5), Some(9));
        assert_eq!(out(&mut rewriter, 0, 3), None, "a number of before");
        assert_eq!(rewriter.reverse(3), None);
    }

    #[test]
    fn picture_ids_stay_contiguous_over_switches_and_left_out_frames() {
        let mut rewriter = Rewriter::new(0);
        rewriter.switch(0, ExtSeq(1), 0, 0, Some(500), Some(7));
        let picture =
            |numbers: Numbers, picture: u16| picture.wrapping_add(numbers.picture_offset) & 0x7fff;
        let numbers = rewriter
            .forward(0, ExtSeq(1), 0, Some(500), Some(7))
            .expect("key frame");
        assert_eq!(picture(numbers, 500), 500);
        rewriter.leave_out(0, ExtSeq(2), true);
        let numbers = rewriter
            .forward(0, ExtSeq(3), 0, Some(502), Some(8))
            .expect("next");
        assert_eq!(picture(numbers, 502), 501);
        rewriter.switch(2, ExtSeq(77), 0, 0, Some(9000), Some(200));
        let numbers = rewriter
            .forward(2, ExtSeq(77), 0, Some(9000), Some(200))
            .expect("switched");
        assert_eq!(picture(numbers, 9000), 502);
        assert_eq!(200_u8.wrapping_add(numbers.tl0_offset), 9);
    }

    proptest! {
        /// No two packets share a number, numbers of what was not left out are contiguous, and each can be found again.
        #[test]
        fn numbers_are_unique_contiguous_and_reversible(
            steps in proptest::collection::vec((0_u8..10, 0_u64..3), 1..300),
        ) {
            let mut rewriter = Rewriter::new(65_500);
            let mut encoding = 0_u8;
            let mut next = [1000_u64, 50_000, 90_000];
            let mut used = HashMap::new();
            rewriter.switch(0, ExtSeq(next[0]), 0, 0, None, None);
            for (kind, jump) in steps {
                let at = next[usize::from(encoding)];
                match kind {
                    0 => {
                        encoding = (encoding + 1) % 3;
                        rewriter.switch(encoding, ExtSeq(next[usize::from(encoding)]), 0, 0, None, None);
                    }
                    1 | 2 => {
                        rewriter.leave_out(encoding, ExtSeq(at), false);
                        next[usize::from(encoding)] += 1;
                    }
                    _ => {
                        // `jump` packets are lost before this one.
                        let sequence = at + jump;
                        let out = out(&mut rewriter, encoding, sequence).expect("in order");
                        prop_assert!(used.insert(out, (encoding, sequence)).is_none());
                        let (found, source, _) = rewriter.reverse(out as u16).expect("just sent");
                        prop_assert_eq!((found, source), (encoding, ExtSeq(sequence)));
                        if jump > 0 {
                            let late = super::tests::out(&mut rewriter, encoding, sequence - 1).expect("its place was kept");
                            prop_assert_eq!(late, out - 1);
                            prop_assert!(used.insert(late, (encoding, sequence - 1)).is_none());
                        }
                        next[usize::from(encoding)] = sequence + 1;
                    }
                }
            }
            let (low, high) = (used.keys().min().copied().unwrap_or(0), used.keys().max().copied().unwrap_or(0));
            prop_assert!(high - low < 1000);
        }
    }
}

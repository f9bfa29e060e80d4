// SPDX-License-Identifier: EUPL-1.2
//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1), the receiving side.

use std::time::Duration;

use crate::ids::Ssrc;
use crate::time::Timestamp;

/// Packets kept between two feedback messages: 100 ms at 50 Mbit/s.
const ARRIVALS_MAX: usize = 512;
/// Unit of arrival deltas.
const TICK_NANOS: u64 = 250_000;
/// Unit of the reference time.
const REFERENCE_NANOS: u64 = 64_000_000;
/// Packets one message may describe, so that it stays below the size of a datagram.
const SPAN_MAX: u64 = 400;

/// Arrivals since the last feedback.
#[derive(Debug, Default)]
pub struct Feedback {
    /// (extended sequence number, arrival), unsorted.
    arrivals: Vec<(u64, Timestamp)>,
    highest: Option<u64>,
    /// First sequence number not yet spoken of.
    next: u64,
    count: u8,
    /// To be added to arrival times: the clock of the node that began to speak of them.
    clock_offset: i64,
    /// Of the message that is written, kept for its memory.
    deltas: Vec<u8>,
}

/// What goes along when a receiver moves: numbers and the clock, so that the sender's estimator sees no jump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FeedbackState {
    highest: Option<u64>,
    next: u64,
    count: u8,
    clock_nanos: u64,
}

impl Feedback {
    /// How often feedback is sent while packets come: what browsers do among themselves.
    pub const INTERVAL: Duration = Duration::from_millis(100);

    /// Notes one packet. True when it is the first since the last feedback.
    pub fn arrived(&mut self, sequence: u16, now: Timestamp) -> bool {
        let extended = match self.highest {
            None => 0x1_0000 | u64::from(sequence),
            Some(highest) => {
                let delta = i64::from(sequence.wrapping_sub(highest as u16) as i16);
                highest.saturating_add_signed(delta)
            }
        };
        if self.highest.is_none() {
            // Once, so that no packet after it allocates.
            self.arrivals.reserve_exact(ARRIVALS_MAX);
            self.next = extended;
        }
        self.highest = Some(
            self.highest
                .map_or(extended, |highest| highest.max(extended)),
        );
        let first = self.arrivals.is_empty();
        if self.arrivals.len() < ARRIVALS_MAX && extended >= self.next {
            let at = now.as_nanos().saturating_add_signed(self.clock_offset);
            self.arrivals.push((extended, Timestamp::from_nanos(at)));
        }
        first
    }

    /// State at `now`; arrivals that were not spoken of yet are left behind.
    #[must_use]
    pub fn export(&self, now: Timestamp) -> FeedbackState {
        FeedbackState {
            highest: self.highest,
            next: self.next,
            count: self.count,
            clock_nanos: now.as_nanos().saturating_add_signed(self.clock_offset),
        }
    }

    /// Goes on from `state` at `now`.
    #[must_use]
    pub fn import(state: &FeedbackState, now: Timestamp) -> Self {
        Self {
            arrivals: Vec::with_capacity(if state.highest.is_some() {
                ARRIVALS_MAX
            } else {
                0
            }),
            highest: state.highest,
            next: state.next,
            count: state.count,
            deltas: Vec::new(),
            clock_offset: (state.clock_nanos as i64).wrapping_sub(now.as_nanos() as i64),
        }
    }

    /// Appends one feedback message, or nothing when nothing came.
    pub fn write(&mut self, out: &mut Vec<u8>, from: Ssrc, media: Ssrc) {
        self.arrivals.sort_unstable();
        self.arrivals.dedup_by_key(|arrival| arrival.0);
        let Some(&(last, _)) = self.arrivals.last() else {
            return;
        };
        let base = self.next.max(last.saturating_sub(SPAN_MAX - 1));
        let span = last - base + 1;
        // Time is told from the first packet that is spoken of, so that at least its delta fits.
        let mut at = self
            .arrivals
            .partition_point(|(sequence, _)| *sequence < base);
        let first_at = self.arrivals[at].1;
        let reference = first_at.as_nanos() / REFERENCE_NANOS;
        let start = out.len();
        out.extend_from_slice(&[0x80 | 15, 205, 0, 0]);
        out.extend_from_slice(&from.0.to_be_bytes());
        out.extend_from_slice(&media.0.to_be_bytes());
        out.extend_from_slice(&(base as u16).to_be_bytes());
        out.extend_from_slice(&(span as u16).to_be_bytes());
        out.extend_from_slice(&((reference as u32) << 8 | u32::from(self.count)).to_be_bytes());
        self.count = self.count.wrapping_add(1);
        // Status chunks: seven two-bit symbols each (§3.1.4).
        let mut time = reference * REFERENCE_NANOS / TICK_NANOS;
        self.deltas.clear();
        let mut chunk = 0_u16;
        for index in 0..span {
            let mut symbol = 0;
            if let Some(&(sequence, arrival)) = self.arrivals.get(at)
                && sequence == base + index
            {
                at += 1;
                let ticks = arrival.as_nanos() / TICK_NANOS;
                let delta = ticks as i64 - time as i64;
                if let Ok(small) = u8::try_from(delta) {
                    symbol = 1;
                    self.deltas.push(small);
                    time = ticks;
                } else if let Ok(large) = i16::try_from(delta) {
                    symbol = 2;
                    self.deltas.extend_from_slice(&large.to_be_bytes());
                    time = ticks;
                }
            }
            let place = (index % 7) as u32;
            chunk |= symbol << (12 - 2 * place);
            if place == 6 || index + 1 == span {
                out.extend_from_slice(&(0xc000 | chunk).to_be_bytes());
                chunk = 0;
            }
        }
        out.extend_from_slice(&self.deltas);
        while !(out.len() - start).is_multiple_of(4) {
            out.push(0);
        }
        let words = ((out.len() - start) / 4 - 1) as u16;
        out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
        self.next = last + 1;
        self.arrivals.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtc_rtcp::transport_feedbacks::transport_layer_cc::{PacketStatusChunk, TransportLayerCc};
    use rtc_shared::marshal::Unmarshal;

    #[test]
    fn another_implementation_reads_what_is_written() {
        let mut feedback = Feedback::default();
        for (sequence, millis) in [(65_534, 100), (65_535, 101), (1, 300), (2, 103)] {
            feedback.arrived(sequence, Timestamp::from_millis(millis));
        }
        let mut out = Vec::new();
        feedback.write(&mut out, Ssrc(1), Ssrc(2));
        let read = TransportLayerCc::unmarshal(&mut out.as_slice()).expect("valid feedback");
        assert_eq!(
            (read.base_sequence_number, read.packet_status_count),
            (65_534, 5)
        );
        assert_eq!(read.recv_deltas.len(), 4);
        let total: i64 = read.recv_deltas.iter().map(|delta| delta.delta).sum();
        // Reference 64 ms, last packet 103 ms.
        assert_eq!(total, 39_000);
        assert!(matches!(
            read.packet_chunks[0],
            PacketStatusChunk::StatusVectorChunk(_)
        ));
    }

    #[test]
    fn after_a_long_silence_the_first_packet_spoken_of_is_received() {
        let mut feedback = Feedback::default();
        feedback.arrived(1, Timestamp::from_millis(100));
        feedback.arrived(3000, Timestamp::from_millis(60_100));
        let mut out = Vec::new();
        feedback.write(&mut out, Ssrc(1), Ssrc(2));
        let read = TransportLayerCc::unmarshal(&mut out.as_slice()).expect("valid feedback");
        assert_eq!(read.recv_deltas.len(), 1);
    }

    #[test]
    fn nothing_is_written_twice_and_nothing_without_arrivals() {
        let mut feedback = Feedback::default();
        let mut out = Vec::new();
        feedback.write(&mut out, Ssrc(1), Ssrc(2));
        assert!(out.is_empty());
        assert!(feedback.arrived(5, Timestamp::from_millis(1)));
        assert!(!feedback.arrived(6, Timestamp::from_millis(2)));
        feedback.write(&mut out, Ssrc(1), Ssrc(2));
        let length = out.len();
        feedback.arrived(5, Timestamp::from_millis(3));
        feedback.write(&mut out, Ssrc(1), Ssrc(2));
        assert_eq!(out.len(), length);
    }
}

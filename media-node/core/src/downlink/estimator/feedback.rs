// SPDX-License-Identifier: EUPL-1.2
//! Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1), read by the side that sent the packets.

use thiserror::Error;

/// Unit of arrival times in feedback, nanoseconds.
pub(super) const TICK_NANOS: i64 = 250_000;
/// Ticks in one unit of the reference time (64 ms).
const REFERENCE_TICKS: i64 = 256;
/// Common header of RTCP feedback with both SSRCs.
const HEADER_BYTES: usize = 12;
/// The message's own fields before its chunks.
const FIELDS_BYTES: usize = 8;

/// Why a feedback message is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FeedbackError {
    /// Shorter than its fields, its chunks or its deltas need.
    #[error("the feedback message is cut short")]
    Short,
    /// A symbol that the draft reserves.
    #[error("the feedback message holds a reserved symbol")]
    Reserved,
    /// Speaks of no packet.
    #[error("the feedback message speaks of no packet")]
    Empty,
}

/// A message whose chunks and deltas have been checked for length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Feedback<'a> {
    /// Sequence number of the first packet that is spoken of.
    pub(super) base: u16,
    /// Packets that are spoken of.
    pub(super) count: u16,
    /// Reference time, in 64 ms, 24 bits.
    pub(super) reference: u32,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> Feedback<'a> {
    /// Reads a whole RTCP message (payload-specific header included) and checks that everything it announces is there. One pass over its
    /// chunks, no allocation.
    ///
    /// # Errors
    /// [`FeedbackError`]; nothing of such a message is to be believed.
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, FeedbackError> {
        let fields: &[u8; FIELDS_BYTES] = message
            .get(HEADER_BYTES..)
            .and_then(|rest| rest.first_chunk())
            .ok_or(FeedbackError::Short)?;
        let [base_high, base_low, count_high, count_low, r0, r1, r2, _] = *fields;
        let count = u16::from_be_bytes([count_high, count_low]);
        if count == 0 {
            return Err(FeedbackError::Empty);
        }
        let body = &message[HEADER_BYTES + FIELDS_BYTES..];
        let (mut left, mut at, mut delta_bytes) = (usize::from(count), 0, 0);
        while left > 0 {
            let chunk = chunk_at(body, at).ok_or(FeedbackError::Short)?;
            at += 2;
            let symbols = Symbols::of(chunk);
            for place in 0..symbols.len.min(left) {
                delta_bytes += match symbols.get(place) {
                    Symbol::Missing => 0,
                    Symbol::Small => 1,
                    Symbol::Large => 2,
                    Symbol::Reserved => return Err(FeedbackError::Reserved),
                };
            }
            left -= symbols.len.min(left);
        }
        let (chunks, rest) = body.split_at(at);
        Ok(Self {
            base: u16::from_be_bytes([base_high, base_low]),
            count,
            reference: u32::from_be_bytes([0, r0, r1, r2]),
            chunks,
            deltas: rest.get(..delta_bytes).ok_or(FeedbackError::Short)?,
        })
    }

    /// Visits every packet in the order of sequence numbers: its number and its arrival in ticks after the reference time, `None` when it
    /// had not come.
    pub(super) fn packets(&self, mut visit: impl FnMut(u16, Option<i64>)) {
        let (mut sequence, mut left, mut time) = (self.base, usize::from(self.count), 0_i64);
        let mut deltas = self.deltas;
        for chunk in self.chunks.chunks_exact(2) {
            let symbols = Symbols::of(u16::from_be_bytes([chunk[0], chunk[1]]));
            for place in 0..symbols.len.min(left) {
                let bytes = match symbols.get(place) {
                    Symbol::Small => 1,
                    Symbol::Large => 2,
                    Symbol::Missing | Symbol::Reserved => 0,
                };
                let (now, rest) = deltas.split_at(bytes.min(deltas.len()));
                deltas = rest;
                let arrived = match *now {
                    [small] => Some(i64::from(small)),
                    [high, low] => Some(i64::from(i16::from_be_bytes([high, low]))),
                    _ => None,
                };
                time += arrived.unwrap_or(0);
                visit(sequence, arrived.map(|_| time));
                sequence = sequence.wrapping_add(1);
            }
            left -= symbols.len.min(left);
        }
    }
}

/// Reference times of 24 bits, carried on over their wrapping: 12 days, so a sender that lives longer sees one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct References {
    last: Option<i64>,
}

impl References {
    /// Ticks of a reference time since the first one's era began.
    pub(super) fn ticks(&mut self, reference: u32) -> i64 {
        const ERA: i64 = 1 << 24;
        let wide = match self.last {
            None => i64::from(reference),
            Some(last) => {
                let delta = (i64::from(reference) - last).rem_euclid(ERA);
                last + if delta >= ERA / 2 { delta - ERA } else { delta }
            }
        };
        self.last = Some(wide);
        wide * REFERENCE_TICKS
    }
}

#[derive(Clone, Copy)]
enum Symbol {
    Missing,
    Small,
    Large,
    Reserved,
}

/// What a chunk says of up to 8191 packets.
struct Symbols {
    chunk: u16,
    len: usize,
}

impl Symbols {
    const fn of(chunk: u16) -> Self {
        let len = if chunk & 0x8000 == 0 {
            (chunk & 0x1fff) as usize
        } else if chunk & 0x4000 == 0 {
            14
        } else {
            7
        };
        Self { chunk, len }
    }

    const fn get(&self, place: usize) -> Symbol {
        let bits = if self.chunk & 0x8000 == 0 {
            self.chunk >> 13
        } else if self.chunk & 0x4000 == 0 {
            (self.chunk >> (13 - place)) & 1
        } else {
            (self.chunk >> (12 - 2 * place)) & 3
        };
        match bits & 3 {
            0 => Symbol::Missing,
            1 => Symbol::Small,
            2 => Symbol::Large,
            _ => Symbol::Reserved,
        }
    }
}

fn chunk_at(body: &[u8], at: usize) -> Option<u16> {
    let bytes: &[u8; 2] = body.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rtc_rtcp::transport_feedbacks::transport_layer_cc::{
        PacketStatusChunk, RecvDelta, RunLengthChunk, StatusChunkTypeTcc, SymbolTypeTcc,
        TransportLayerCc,
    };
    use rtc_shared::marshal::Marshal;

    fn seen(message: &[u8]) -> Vec<(u16, Option<i64>)> {
        let mut seen = Vec::new();
        Feedback::parse(message)
            .expect("valid feedback")
            .packets(|sequence, at| seen.push((sequence, at)));
        seen
    }

    #[test]
    fn run_lengths_of_another_implementation_are_read() {
        let run = |symbol, run_length| {
            PacketStatusChunk::RunLengthChunk(RunLengthChunk {
                type_tcc: StatusChunkTypeTcc::RunLengthChunk,
                packet_status_symbol: symbol,
                run_length,
            })
        };
        let delta = |type_tcc_packet, delta| RecvDelta {
            type_tcc_packet,
            delta,
        };
        let message = TransportLayerCc {
            sender_ssrc: 1,
            media_ssrc: 2,
            base_sequence_number: 65_534,
            packet_status_count: 5,
            reference_time: 7,
            fb_pkt_count: 3,
            packet_chunks: vec![
                run(SymbolTypeTcc::PacketReceivedSmallDelta, 2),
                run(SymbolTypeTcc::PacketNotReceived, 2),
                run(SymbolTypeTcc::PacketReceivedLargeDelta, 1),
            ],
            recv_deltas: vec![
                delta(SymbolTypeTcc::PacketReceivedSmallDelta, 1_000),
                delta(SymbolTypeTcc::PacketReceivedSmallDelta, 250),
                delta(SymbolTypeTcc::PacketReceivedLargeDelta, -2_000),
            ],
        };
        let bytes = message.marshal().expect("written");
        assert_eq!(Feedback::parse(&bytes).expect("read").reference, 7);
        assert_eq!(
            seen(&bytes),
            [
                (65_534, Some(4)),
                (65_535, Some(5)),
                (0, None),
                (1, None),
                (2, Some(-3))
            ]
        );
    }

    #[test]
    fn what_the_own_receiver_writes_is_read() {
        use crate::ids::Ssrc;
        use crate::rtp::twcc;
        use crate::time::Timestamp;
        let mut receiver = twcc::Feedback::default();
        for (sequence, millis) in [(10, 100), (11, 101), (14, 300), (13, 103)] {
            receiver.arrived(sequence, Timestamp::from_millis(millis));
        }
        let mut message = Vec::new();
        receiver.write(&mut message, Ssrc(1), Ssrc(2));
        let reference = i64::from(Feedback::parse(&message).expect("read").reference);
        let millis = |at: i64| (at + reference * REFERENCE_TICKS) / 4;
        let seen: Vec<(u16, Option<i64>)> = seen(&message)
            .into_iter()
            .map(|(sequence, at)| (sequence, at.map(millis)))
            .collect();
        assert_eq!(
            seen,
            [
                (10, Some(100)),
                (11, Some(101)),
                (12, None),
                (13, Some(103)),
                (14, Some(300))
            ]
        );
    }

    #[test]
    fn what_is_cut_short_reserved_or_empty_is_refused() {
        let message = |count: u16, chunk: u16, deltas: &[u8]| {
            let mut bytes = vec![0x8f, 205, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, 0, 9];
            bytes.extend(count.to_be_bytes());
            bytes.extend([0, 0, 1, 0]);
            bytes.extend(chunk.to_be_bytes());
            bytes.extend(deltas);
            bytes
        };
        let error = |bytes: &[u8]| Feedback::parse(bytes).err();
        assert_eq!(error(&message(2, 0x2002, &[1])), Some(FeedbackError::Short));
        assert_eq!(
            error(&message(9000, 0x2002, &[1, 1])),
            Some(FeedbackError::Short)
        );
        assert_eq!(
            error(&message(1, 0x6001, &[1])),
            Some(FeedbackError::Reserved)
        );
        assert_eq!(error(&message(0, 0, &[])), Some(FeedbackError::Empty));
        assert_eq!(error(&[0x8f, 205, 0, 0]), Some(FeedbackError::Short));
        assert!(error(&message(2, 0x2002, &[1, 1])).is_none());
    }

    #[test]
    fn a_reference_time_goes_on_over_its_wrapping() {
        let mut references = References::default();
        assert_eq!(references.ticks(0xff_ffff), 0xff_ffff * REFERENCE_TICKS);
        assert_eq!(references.ticks(1), 0x100_0001 * REFERENCE_TICKS);
        assert_eq!(references.ticks(0xff_fffe), 0xff_fffe * REFERENCE_TICKS);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_speak_of_more_packets_than_it_counts(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Ok(feedback) = Feedback::parse(&bytes) {
                let mut count = 0_u32;
                feedback.packets(|_, _| count += 1);
                prop_assert_eq!(count, u32::from(feedback.count));
            }
        }
    }
}

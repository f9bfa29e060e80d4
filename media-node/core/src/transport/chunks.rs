// SPDX-License-Identifier: EUPL-1.2
//! Are the chunks of an SCTP packet what they say they are (RFC 9260 §3)? Asked before the library reads them, because it takes
//! lengths at their word: a chunk shorter than its fixed part, or a parameter longer than its chunk, makes it panic.

const HEADER_BYTES: usize = 12;
const CHUNK_HEADER_BYTES: usize = 4;

/// Every chunk lies within the packet and holds the fields of its type.
#[must_use]
pub(super) fn are_well_formed(packet: &[u8]) -> bool {
    let Some(mut rest) = packet.get(HEADER_BYTES..) else {
        return false;
    };
    while !rest.is_empty() {
        let Some((value, tail)) = item(rest) else {
            return false;
        };
        if !chunk(rest[0], value) {
            return false;
        }
        rest = tail;
    }
    true
}

/// A chunk, parameter or error cause: 16 bits of type and flags, 16 bits of length, value, padding. The value and what follows.
fn item(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let &[_, _, high, low] = bytes.get(..CHUNK_HEADER_BYTES)?.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let value = bytes.get(CHUNK_HEADER_BYTES..length)?;
    // The padding of the last one may be missing.
    let end = length.next_multiple_of(4).min(bytes.len());
    Some((value, &bytes[end..]))
}

/// Numbers a peer may run ahead: what fits its window in the smallest chunks.
const AHEAD_MAX: i32 = 16_384;

/// Follows the peer's transmission sequence numbers. The library counts up to whatever number it is told, one by one, and would be
/// busy for minutes with a number far ahead.
#[derive(Debug, Default)]
pub(super) struct Progress {
    highest: Option<u32>,
}

impl Progress {
    /// Notes what a well-formed packet says; false when it runs too far ahead. `restarts`: an INIT begins the numbers anew.
    pub(super) fn admits(&mut self, packet: &[u8], restarts: bool) -> bool {
        let mut rest = packet.get(HEADER_BYTES..).unwrap_or_default();
        while let Some((value, tail)) = item(rest) {
            let number = |at: usize| {
                value
                    .get(at..at + 4)
                    .and_then(|bytes| bytes.first_chunk())
                    .map(|bytes| u32::from_be_bytes(*bytes))
            };
            match rest[0] {
                1 | 2 if restarts => self.highest = number(12).map(|first| first.wrapping_sub(1)),
                0 | 64 | 192 => {
                    if let (Some(highest), Some(told)) = (self.highest, number(0)) {
                        let ahead = told.wrapping_sub(highest) as i32;
                        if ahead > AHEAD_MAX {
                            return false;
                        }
                        if ahead > 0 {
                            self.highest = Some(told);
                        }
                    }
                }
                _ => {}
            }
            rest = tail;
        }
        true
    }
}

fn chunk(kind: u8, value: &[u8]) -> bool {
    match kind {
        // DATA, I-DATA.
        0 => value.len() > 12,
        64 => value.len() > 16,
        // INIT, INIT ACK.
        1 | 2 => value.len() >= 16 && parameters(&value[16..], 0),
        // SACK: its gap blocks and duplicates are counted.
        3 => {
            let count = |at: usize| {
                value.get(at..at + 2).map_or(0, |bytes| {
                    usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
                })
            };
            value.len() >= 12 && value.len() == 12 + 4 * (count(8) + count(10))
        }
        // HEARTBEAT, HEARTBEAT ACK, RE-CONFIG.
        4 | 5 | 130 => parameters(value, 1),
        // ABORT, ERROR: causes have the shape of parameters.
        6 | 9 => items(value, 0, |_, _| true),
        // SHUTDOWN.
        7 => value.len() == 4,
        // FORWARD TSN: a number and pairs of stream and sequence.
        192 => value.len() >= 4 && value.len().is_multiple_of(4),
        _ => true,
    }
}

fn parameters(bytes: &[u8], least: usize) -> bool {
    items(bytes, least, |kind, value| match kind {
        // Outgoing and incoming stream reset, re-configuration response, added streams.
        13 => value.len() >= 12 && value.len().is_multiple_of(2),
        14 => value.len() >= 4 && value.len().is_multiple_of(2),
        15 => value.len() >= 8,
        16 => value.len() == 8 || value.len() == 16,
        17 | 18 => value.len() == 8,
        // Requested HMAC algorithms.
        0x8004 => value.len().is_multiple_of(2),
        _ => true,
    })
}

fn items(mut bytes: &[u8], least: usize, valid: impl Fn(u16, &[u8]) -> bool) -> bool {
    let mut count = 0;
    while !bytes.is_empty() {
        let Some((value, tail)) = item(bytes) else {
            return false;
        };
        if !valid(u16::from_be_bytes([bytes[0], bytes[1]]), value) {
            return false;
        }
        count += 1;
        bytes = tail;
    }
    count >= least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(chunks: &[&[u8]]) -> Vec<u8> {
        [&[0; HEADER_BYTES][..], &chunks.concat()].concat()
    }

    #[test]
    fn whole_chunks_pass() {
        let data = [&[0, 3, 0, 17][..], &[0; 12], &[9, 0, 0, 0]].concat();
        let sack = [3, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 9, 0, 1, 0, 0, 0, 2, 0, 3];
        let heartbeat = [4, 0, 0, 12, 0, 1, 0, 8, 1, 2, 3, 4];
        assert!(are_well_formed(&packet(&[&data, &sack, &heartbeat])));
        assert!(are_well_formed(&packet(&[&[11, 0, 0, 4]])));
    }

    #[test]
    fn a_number_far_ahead_is_not_admitted() {
        let mut progress = Progress::default();
        let init = [&[1, 0, 0, 20][..], &[0; 12], &[0xff, 0xff, 0xff, 0xf0]].concat();
        let forward = |number: u32| [&[192, 0, 0, 8][..], &number.to_be_bytes()].concat();
        assert!(progress.admits(&packet(&[&init]), true));
        assert!(progress.admits(&packet(&[&forward(5)]), false));
        assert!(progress.admits(&packet(&[&forward(3)]), false));
        assert!(!progress.admits(&packet(&[&forward(0x7000_0000)]), false));
        assert!(progress.admits(&packet(&[&forward(6)]), false));
    }

    #[test]
    fn chunks_that_lie_about_their_length_do_not() {
        for chunk in [
            &[0, 3, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8][..],
            &[3, 0, 0, 16, 0, 0, 0, 1, 0, 0, 0, 9, 0, 200, 0, 0],
            &[4, 0, 0, 12, 0, 1, 0, 80, 1, 2, 3, 4],
            &[6, 0, 0, 8, 0, 1, 0, 90],
            &[7, 0, 0, 6, 1, 2],
            &[130, 0, 0, 4],
            &[192, 0, 0, 6, 0, 0],
            &[1, 0, 0, 8, 0, 0, 0, 0],
            &[11, 0, 0, 3],
            &[11, 0, 1, 0],
        ] {
            assert!(!are_well_formed(&packet(&[chunk])), "{chunk:?}");
        }
        assert!(!are_well_formed(&[0; 11]));
    }
}

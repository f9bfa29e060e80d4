// SPDX-License-Identifier: EUPL-1.2
//! Framing of datagrams on a stream: a 16-bit length before each (RFC 4571 §2), as ICE-TCP uses it (RFC 6544 §3).

/// Bytes of the length.
pub const HEADER_BYTES: usize = 2;

/// A frame longer than the bound of its reader: the stream has no meaning from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes exceeds the bound of {max}")]
pub struct TooLong {
    /// Announced.
    pub length: usize,
    /// Bound.
    pub max: usize,
}

/// Takes a stream apart.
///
/// *Shape*: keeps at most one incomplete frame between calls.
#[derive(Debug)]
pub struct Deframer {
    partial: Vec<u8>,
    max: usize,
}

impl Deframer {
    /// With a bound on datagrams.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            partial: Vec::new(),
            max,
        }
    }

    /// Takes bytes of the stream and gives every datagram that is complete with them. Empty frames are skipped (RFC 4571 §2 allows
    /// them). After an error the stream is of no use.
    ///
    /// # Errors
    /// [`TooLong`]; datagrams before it have been given.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), TooLong> {
        while !bytes.is_empty() {
            if self.partial.is_empty() {
                // The common case copies nothing: whole frames within one read.
                let Some(length) = self.length_of(bytes)? else {
                    self.partial.extend_from_slice(bytes);
                    return Ok(());
                };
                let end = HEADER_BYTES + length;
                let Some(datagram) = bytes.get(HEADER_BYTES..end) else {
                    self.partial.extend_from_slice(bytes);
                    return Ok(());
                };
                if !datagram.is_empty() {
                    each(datagram);
                }
                bytes = &bytes[end..];
                continue;
            }
            let wanted = match self.length_of(&self.partial)? {
                Some(length) => HEADER_BYTES + length,
                None => HEADER_BYTES,
            };
            let take = wanted.saturating_sub(self.partial.len()).min(bytes.len());
            self.partial.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if let Some(length) = self.length_of(&self.partial)?
                && self.partial.len() == HEADER_BYTES + length
            {
                if length > 0 {
                    each(&self.partial[HEADER_BYTES..]);
                }
                self.partial.clear();
            }
        }
        Ok(())
    }

    fn length_of(&self, bytes: &[u8]) -> Result<Option<usize>, TooLong> {
        let Some(&[high, low]) = bytes.get(..HEADER_BYTES) else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > self.max {
            Err(TooLong {
                length,
                max: self.max,
            })
        } else {
            Ok(Some(length))
        }
    }

    /// Bytes of the incomplete frame.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.partial.len()
    }
}

/// The length that goes before a datagram; `None` when it does not fit 16 bits.
#[must_use]
pub fn header(datagram: &[u8]) -> Option<[u8; HEADER_BYTES]> {
    u16::try_from(datagram.len()).ok().map(u16::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 2048;

    fn deframe(pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut deframer = Deframer::new(MAX);
        let mut datagrams = Vec::new();
        for piece in pieces {
            deframer.push(piece, |datagram| datagrams.push(datagram.to_vec()))?;
            assert!(deframer.pending() < HEADER_BYTES + MAX);
        }
        Ok(datagrams)
    }

    proptest! {
        #[test]
        fn any_cut_of_a_stream_gives_the_same_datagrams(
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut stream = Vec::new();
            for datagram in &datagrams {
                stream.extend(header(datagram).expect("short"));
                stream.extend(datagram);
            }
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            at.extend([0, stream.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|range| &stream[range[0]..range[1]]).collect();
            let whole: Vec<Vec<u8>> = datagrams.into_iter().filter(|datagram| !datagram.is_empty()).collect();
            prop_assert_eq!(deframe(&pieces), Ok(whole));
        }

        #[test]
        fn any_bytes_are_taken_without_growth(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..8)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            if let Err(error) = deframe(&pieces) {
                prop_assert!(error.length > MAX);
            }
        }
    }

    #[test]
    fn a_frame_beyond_the_bound_ends_the_stream_before_its_bytes_come() {
        assert_eq!(
            deframe(&[&[0xff], &[0xff]]),
            Err(TooLong {
                length: 0xffff,
                max: MAX
            })
        );
        assert_eq!(
            deframe(&[&[0x08, 0x01, 1]]),
            Err(TooLong {
                length: MAX + 1,
                max: MAX
            })
        );
        assert_eq!(
            deframe(&[&[0, 1, 9, 0, 0, 0, 1, 8]]),
            Ok(vec![vec![9], vec![8]])
        );
    }

    #[test]
    fn a_datagram_beyond_16_bits_has_no_frame() {
        assert_eq!(header(&[0; 65_536]), None);
        assert_eq!(header(&[0; 258]), Some([1, 2]));
    }
}

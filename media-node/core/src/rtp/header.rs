// SPDX-License-Identifier: EUPL-1.2
//! The RTP header (RFC 3550 §5.1) with its extensions (RFC 8285), read in place.

use crate::ids::{ExtensionId, PayloadType, Ssrc};

/// Bytes of the fixed part.
pub const FIXED_BYTES: usize = 12;

/// What of a header the packet path needs; offsets point into the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Marker bit.
    pub marker: bool,
    /// Padding bit.
    pub padding: bool,
    /// Payload type.
    pub payload_type: PayloadType,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: Ssrc,
    /// Where the payload begins: everything before is authenticated, not encrypted.
    pub payload_at: usize,
    extension: Extension,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    None,
    OneByte { at: usize, end: usize },
    TwoByte { at: usize, end: usize },
}

impl Header {
    /// Reads a header; `None` when the packet is cut short or of another version.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let fixed: &[u8; FIXED_BYTES] = packet.first_chunk()?;
        if fixed[0] >> 6 != 2 {
            return None;
        }
        let mut at = FIXED_BYTES + 4 * usize::from(fixed[0] & 0x0f);
        let mut extension = Extension::None;
        if fixed[0] & 0x10 != 0 {
            let head: &[u8; 4] = packet.get(at..)?.first_chunk()?;
            let profile = u16::from_be_bytes([head[0], head[1]]);
            let bytes = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
            at += 4;
            extension = match profile {
                0xbede => Extension::OneByte {
                    at,
                    end: at + bytes,
                },
                0x1000..=0x100f => Extension::TwoByte {
                    at,
                    end: at + bytes,
                },
                _ => Extension::None,
            };
            at += bytes;
        }
        if at > packet.len() {
            return None;
        }
        Some(Self {
            marker: fixed[1] & 0x80 != 0,
            padding: fixed[0] & 0x20 != 0,
            payload_type: PayloadType(fixed[1] & 0x7f),
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: Ssrc(u32::from_be_bytes([
                fixed[8], fixed[9], fixed[10], fixed[11],
            ])),
            payload_at: at,
            extension,
        })
    }

    /// Calls `visit` with each extension element: its id and where its bytes stand.
    pub fn extensions(&self, packet: &[u8], mut visit: impl FnMut(ExtensionId, usize, usize)) {
        match self.extension {
            Extension::None => {}
            Extension::OneByte { mut at, end } => {
                while at < end {
                    let byte = packet[at];
                    let (id, len) = (byte >> 4, usize::from(byte & 0x0f) + 1);
                    if byte == 0 {
                        at += 1;
                        continue;
                    }
                    // Id 15 ends the list (RFC 8285 §4.2), and so does 0 with a length, which is neither padding nor an element.
                    if id == 15 || id == 0 || at + 1 + len > end {
                        return;
                    }
                    visit(ExtensionId(id), at + 1, len);
                    at += 1 + len;
                }
            }
            Extension::TwoByte { mut at, end } => {
                while at + 1 < end {
                    let id = packet[at];
                    if id == 0 {
                        at += 1;
                        continue;
                    }
                    let len = usize::from(packet[at + 1]);
                    if at + 2 + len > end {
                        return;
                    }
                    visit(ExtensionId(id), at + 2, len);
                    at += 2 + len;
                }
            }
        }
    }
}

/// Writes a header into `out`, extensions in the one-byte form where all ids are below 15 and all values fit, otherwise two-byte.
pub struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
    two_byte: bool,
    extension_at: Option<usize>,
}

impl<'a> Writer<'a> {
    /// Writes the fixed part. `out` holds at least the header and its extensions.
    #[must_use]
    pub fn new(
        out: &'a mut [u8],
        marker: bool,
        payload_type: PayloadType,
        sequence: u16,
        timestamp: u32,
        ssrc: Ssrc,
    ) -> Self {
        out[0] = 0x80;
        out[1] = u8::from(marker) << 7 | payload_type.0;
        out[2..4].copy_from_slice(&sequence.to_be_bytes());
        out[4..8].copy_from_slice(&timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&ssrc.0.to_be_bytes());
        Self {
            out,
            at: FIXED_BYTES,
            two_byte: false,
            extension_at: None,
        }
    }

    /// Uses the two-byte form; to be said before the first extension.
    #[must_use]
    pub fn two_byte(mut self, two_byte: bool) -> Self {
        self.two_byte = two_byte;
        self
    }

    /// Appends one extension; nothing when it was not negotiated.
    pub fn extension(&mut self, id: ExtensionId, value: &[u8]) {
        if id.0 == 0 || value.is_empty() {
            return;
        }
        if self.extension_at.is_none() {
            self.extension_at = Some(self.at);
            let profile: u16 = if self.two_byte { 0x1000 } else { 0xbede };
            self.out[self.at..self.at + 2].copy_from_slice(&profile.to_be_bytes());
            self.at += 4;
        }
        if self.two_byte {
            self.out[self.at] = id.0;
            self.out[self.at + 1] = value.len() as u8;
            self.at += 2;
        } else {
            self.out[self.at] = id.0 << 4 | (value.len() as u8 - 1);
            self.at += 1;
        }
        self.out[self.at..self.at + value.len()].copy_from_slice(value);
        self.at += value.len();
    }

    /// Ends the header; its length.
    #[must_use]
    pub fn finish(mut self) -> usize {
        if let Some(start) = self.extension_at {
            let body = self.at - start - 4;
            let padded = body.next_multiple_of(4);
            self.out[self.at..start + 4 + padded].fill(0);
            self.at = start + 4 + padded;
            self.out[start + 2..start + 4].copy_from_slice(&((padded / 4) as u16).to_be_bytes());
            self.out[0] |= 0x10;
        }
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        for two_byte in [false, true] {
            let mut packet = [0; 100];
            let mut writer = Writer::new(&mut packet, true, PayloadType(96), 65_535, 7, Ssrc(9))
                .two_byte(two_byte);
            writer.extension(ExtensionId(3), b"abc");
            writer.extension(ExtensionId(0), b"not negotiated");
            writer.extension(ExtensionId(14), b"x");
            let length = writer.finish();
            let header = Header::parse(&packet).expect("valid");
            assert_eq!(header.payload_at, length);
            assert_eq!(
                (
                    header.marker,
                    header.sequence,
                    header.timestamp,
                    header.ssrc
                ),
                (true, 65_535, 7, Ssrc(9))
            );
            let mut seen = Vec::new();
            header.extensions(&packet, |id, at, len| {
                seen.push((id.0, packet[at..at + len].to_vec()))
            });
            assert_eq!(seen, vec![(3, b"abc".to_vec()), (14, b"x".to_vec())]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(packet in proptest::collection::vec(any::<u8>(), 0..120)) {
            let mut packet = packet;
            if let Some(first) = packet.first_mut() { *first = 0x90 | (*first & 0x2f); }
            if packet.len() > 14 && packet[13] & 1 == 0 { packet[12] = 0xbe; packet[13] = 0xde; }
            if let Some(header) = Header::parse(&packet) {
                prop_assert!(header.payload_at <= packet.len());
                header.extensions(&packet, |_, at, len| assert!(at + len <= header.payload_at));
            }
        }
    }
}

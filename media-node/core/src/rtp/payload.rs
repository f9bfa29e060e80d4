// SPDX-License-Identifier: EUPL-1.2
//! Payload descriptors: where a frame begins, whether it is a key frame, and the numbers that must stay contiguous.

use crate::api::Codec;

/// What a forwarder needs to know of one packet's payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// First packet of a key frame: a stream may begin or switch here.
    pub key_frame: bool,
    /// H.264: the packet brings a sequence parameter set, without which no key frame is decoded.
    pub parameters: bool,
    /// VP8 numbers, when present.
    pub vp8: Option<Vp8>,
}

/// VP8 payload descriptor (RFC 7741 §4.2); offsets are relative to the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vp8 {
    /// Where the picture id stands, its value, and whether it has 15 bits.
    pub picture: Option<(u8, u16, bool)>,
    /// Where TL0PICIDX stands and its value.
    pub tl0: Option<(u8, u8)>,
    /// Temporal layer.
    pub tid: u8,
    /// Y bit: depends on the base layer alone, so that a receiver may begin to take this temporal layer here.
    pub sync: bool,
    /// First packet of a frame.
    pub start: bool,
}

/// Judges a payload.
#[must_use]
pub fn inspect(codec: Codec, payload: &[u8]) -> Info {
    match codec {
        Codec::Opus | Codec::Red => Info {
            key_frame: true,
            ..Info::default()
        },
        Codec::Vp8 => vp8(payload).unwrap_or_default(),
        Codec::Vp9 => Info {
            key_frame: vp9_key(payload).unwrap_or(false),
            ..Info::default()
        },
        Codec::H264 => Info {
            key_frame: h264_begins(payload, &[H264_IDR, H264_SPS]),
            parameters: h264_begins(payload, &[H264_SPS]),
            vp8: None,
        },
        // N bit of the aggregation header: first packet of a coded video sequence.
        Codec::Av1 => Info {
            key_frame: payload.first().is_some_and(|byte| byte & 0x08 != 0),
            ..Info::default()
        },
    }
}

fn vp8(payload: &[u8]) -> Option<Info> {
    let first = *payload.first()?;
    let mut at = 1_usize;
    let mut vp8 = Vp8 {
        start: first & 0x10 != 0 && first & 0x07 == 0,
        ..Vp8::default()
    };
    if first & 0x80 != 0 {
        let extended = *payload.get(at)?;
        at += 1;
        if extended & 0x80 != 0 {
            let high = *payload.get(at)?;
            if high & 0x80 != 0 {
                let low = *payload.get(at + 1)?;
                vp8.picture = Some((at as u8, u16::from_be_bytes([high & 0x7f, low]), true));
                at += 2;
            } else {
                vp8.picture = Some((at as u8, u16::from(high), false));
                at += 1;
            }
        }
        if extended & 0x40 != 0 {
            vp8.tl0 = Some((at as u8, *payload.get(at)?));
            at += 1;
        }
        if extended & 0x30 != 0 {
            if extended & 0x20 != 0 {
                let byte = *payload.get(at)?;
                vp8.tid = byte >> 6;
                vp8.sync = byte & 0x20 != 0;
            }
            at += 1;
        }
    }
    let key_frame = vp8.start && payload.get(at).is_some_and(|byte| byte & 0x01 == 0);
    Some(Info {
        key_frame,
        parameters: false,
        vp8: Some(vp8),
    })
}

/// VP9 payload descriptor (RFC 9628 §4.2): begins a frame, not predicted, lowest spatial layer.
fn vp9_key(payload: &[u8]) -> Option<bool> {
    let first = *payload.first()?;
    let (picture, predicted, layers, begins) = (
        first & 0x80 != 0,
        first & 0x40 != 0,
        first & 0x20 != 0,
        first & 0x08 != 0,
    );
    let mut at = 1;
    if picture {
        at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
    }
    let spatial = if layers {
        payload.get(at)? >> 1 & 0x07
    } else {
        0
    };
    Some(begins && !predicted && spatial == 0)
}

const H264_IDR: u8 = 5;
const H264_SPS: u8 = 7;

/// Does a unit of one of the `kinds` begin here, alone, aggregated or fragmented (RFC 6184 §5.6-5.8)?
fn h264_begins(payload: &[u8], kinds: &[u8]) -> bool {
    let Some(first) = payload.first() else {
        return false;
    };
    match first & 0x1f {
        kind if kinds.contains(&kind) => true,
        24 => {
            let mut at = 1;
            while let Some(&[high, low, kind]) = payload.get(at..at + 3) {
                if kinds.contains(&(kind & 0x1f)) {
                    return true;
                }
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
            }
            false
        }
        28 => payload
            .get(1)
            .is_some_and(|fragment| fragment & 0x80 != 0 && kinds.contains(&(fragment & 0x1f))),
        _ => false,
    }
}

/// The primary block of a RED payload (RFC 2198 §3): where it begins. `None` when malformed.
#[must_use]
pub fn red_primary(payload: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut redundant = 0;
    loop {
        let head = *payload.get(at)?;
        if head & 0x80 == 0 {
            at += 1;
            break;
        }
        let bytes: &[u8; 4] = payload.get(at..)?.first_chunk()?;
        redundant += usize::from(u16::from_be_bytes([bytes[2] & 0x03, bytes[3]]));
        at += 4;
    }
    let primary = at + redundant;
    (primary < payload.len()).then_some(primary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn vp8_numbers_are_found() {
        let payload = [0x90, 0xf0, 0x81, 0x02, 0x33, 0x40, 0x00, 0x01];
        let info = inspect(Codec::Vp8, &payload);
        assert!(info.key_frame);
        let vp8 = info.vp8.expect("descriptor");
        assert_eq!(vp8.picture, Some((2, 0x0102, true)));
        assert_eq!(vp8.tl0, Some((4, 0x33)));
        assert_eq!(vp8.tid, 1);
        assert!(!inspect(Codec::Vp8, &[0x10, 0x01]).key_frame, "P frame");
        assert!(
            !inspect(Codec::Vp8, &[0x00, 0x00]).key_frame,
            "not the first packet"
        );
    }

    #[test]
    fn h264_key_frames_are_found_in_all_packetisations() {
        assert!(inspect(Codec::H264, &[0x65]).key_frame);
        assert!(!inspect(Codec::H264, &[0x65]).parameters);
        assert!(inspect(Codec::H264, &[0x78, 0, 1, 0x67, 0, 1, 0x68]).parameters);
        assert!(inspect(Codec::H264, &[0x78, 0, 1, 0x67, 0, 1, 0x68]).key_frame);
        assert!(inspect(Codec::H264, &[0x7c, 0x85]).key_frame);
        assert!(
            !inspect(Codec::H264, &[0x7c, 0x05]).key_frame,
            "middle of a fragment"
        );
        assert!(!inspect(Codec::H264, &[0x41]).key_frame);
    }

    #[test]
    fn the_primary_block_of_red_is_what_stands_last() {
        // One redundant block of 3 bytes, then the primary of 2.
        let payload = [0x80 | 111, 0, 0, 3, 111, 1, 1, 1, 2, 2];
        assert_eq!(red_primary(&payload), Some(8));
        assert_eq!(red_primary(&[111, 9]), Some(1));
        assert_eq!(red_primary(&[0x80 | 111, 0, 3, 255, 111]), None);
    }

    proptest! {
        #[test]
        fn any_payload_is_judged_without_panic(payload in proptest::collection::vec(any::<u8>(), 0..40)) {
            for codec in [Codec::Opus, Codec::Red, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
                let info = inspect(codec, &payload);
                if let Some(vp8) = info.vp8 {
                    if let Some((at, _, long)) = vp8.picture {
                        prop_assert!(usize::from(at) + usize::from(long) < payload.len());
                    }
                    if let Some((at, _)) = vp8.tl0 {
                        prop_assert!(usize::from(at) < payload.len());
                    }
                }
            }
            if let Some(at) = red_primary(&payload) {
                prop_assert!(at < payload.len());
            }
        }
    }
}

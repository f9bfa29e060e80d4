// SPDX-License-Identifier: EUPL-1.2
//! The plaintext ring of one encoding: what arrived last, for forwarding now and for retransmission later, shared by all
//! subscribers of the shard.

use crate::api::Format;
use crate::ids::ExtSeq;
use crate::rtp::payload::Vp8;
use crate::time::Timestamp;

/// One packet in a [`Ring`].
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Extended sequence number of the publisher.
    pub sequence: ExtSeq,
    /// RTP timestamp of the publisher.
    pub timestamp: u32,
    /// When it arrived.
    pub arrived: Timestamp,
    /// Marker bit.
    pub marker: bool,
    /// What it carries.
    pub format: Format,
    /// First packet of a key frame.
    pub key_frame: bool,
    /// VP8 numbers.
    pub vp8: Option<Vp8>,
    /// RFC 6464 byte, or 127 (silence) without voice.
    pub audio_level: Option<u8>,
    /// Video orientation byte.
    pub orientation: Option<u8>,
    /// Length of the dependency descriptor, which stands before the payload.
    pub descriptor: u8,
    /// Payload bytes.
    pub payload: u16,
    /// Absolute write position; the bytes are there as long as `at + capacity >= written`.
    at: u64,
}

/// Ring of packets with a byte budget and an index by sequence number.
#[derive(Debug)]
pub struct Ring {
    bytes: Vec<u8>,
    slots: Vec<Option<Slot>>,
    written: u64,
}

impl Ring {
    /// `bytes` of payload and `slots` packets, both powers of two.
    #[must_use]
    pub fn new(bytes: usize, slots: usize) -> Self {
        debug_assert!(bytes.is_power_of_two() && slots.is_power_of_two());
        Self {
            bytes: vec![0; bytes],
            slots: vec![None; slots],
            written: 0,
        }
    }

    /// Forgets all packets, keeps the memory.
    pub fn clear(&mut self) {
        self.slots.fill(None);
    }

    fn index(&self, sequence: ExtSeq) -> usize {
        (sequence.0 as usize) & (self.slots.len() - 1)
    }

    /// Puts a packet in. `slot.descriptor` and `slot.payload` must be the lengths of the two parts.
    pub fn insert(&mut self, mut slot: Slot, descriptor: &[u8], payload: &[u8]) {
        let total = descriptor.len() + payload.len();
        let capacity = self.bytes.len() as u64;
        if total as u64 > capacity / 4 {
            return;
        }
        // A packet never wraps around, so that it is one slice.
        let offset = self.written % capacity;
        if offset + total as u64 > capacity {
            self.written += capacity - offset;
        }
        let at = (self.written % capacity) as usize;
        self.bytes[at..at + descriptor.len()].copy_from_slice(descriptor);
        self.bytes[at + descriptor.len()..at + total].copy_from_slice(payload);
        slot.at = self.written;
        self.written += total as u64;
        let index = self.index(slot.sequence);
        self.slots[index] = Some(slot);
    }

    /// Is the packet here?
    #[must_use]
    pub fn contains(&self, sequence: ExtSeq) -> bool {
        self.slots[self.index(sequence)].is_some_and(|slot| slot.sequence == sequence)
    }

    /// A packet with its dependency descriptor and payload.
    #[must_use]
    pub fn get(&self, sequence: ExtSeq) -> Option<(&Slot, &[u8], &[u8])> {
        let slot = self.slots[self.index(sequence)].as_ref()?;
        if slot.sequence != sequence || slot.at + (self.bytes.len() as u64) < self.written {
            return None;
        }
        let at = (slot.at % self.bytes.len() as u64) as usize;
        let payload_at = at + usize::from(slot.descriptor);
        Some((
            slot,
            &self.bytes[at..payload_at],
            &self.bytes[payload_at..payload_at + usize::from(slot.payload)],
        ))
    }
}

impl Slot {
    /// A slot that is not in a ring yet.
    #[must_use]
    pub fn new(sequence: ExtSeq, timestamp: u32, marker: bool, format: Format) -> Self {
        Self {
            sequence,
            timestamp,
            arrived: Timestamp::ZERO,
            marker,
            format,
            key_frame: false,
            vp8: None,
            audio_level: None,
            orientation: None,
            descriptor: 0,
            payload: 0,
            at: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Codec;
    use proptest::prelude::*;

    proptest! {
        /// What is found is what was put in under that number, whole, and the newest are found.
        #[test]
        fn found_bytes_are_the_inserted_ones(lengths in proptest::collection::vec(0_usize..200, 1..300)) {
            let mut ring = Ring::new(4096, 64);
            let format = Format { codec: Codec::Vp8, variant: 0 };
            for (index, length) in lengths.iter().enumerate() {
                let payload = vec![index as u8; *length];
                let mut slot = Slot::new(ExtSeq(index as u64), 0, false, format);
                slot.payload = *length as u16;
                ring.insert(slot, &[], &payload);
                for back in 0..=index {
                    if let Some((slot, _, bytes)) = ring.get(ExtSeq(back as u64)) {
                        prop_assert_eq!(slot.sequence, ExtSeq(back as u64));
                        prop_assert_eq!(bytes, &vec![back as u8; lengths[back]][..]);
                    } else {
                        let newer: usize = lengths[back..=index].iter().sum();
                        prop_assert!(index - back >= 64 || newer + 200 > 4096);
                    }
                }
            }
        }
    }
}

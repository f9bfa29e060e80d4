// SPDX-License-Identifier: EUPL-1.2
//! SRTP and SRTCP with AES-GCM (RFC 3711, RFC 7714): key derivation, rollover, replay windows, sealing in place.
//!
//! The SHA1 profile is not carried: [`keys`] refuses it, and the transport ends with a counted failure.

use crate::crypto::{AeadKey, Crypto, MasterKey, SrtpKeys, SrtpProfile, TAG_BYTES};
use crate::ids::{ExtSeq, Ssrc};

/// Bytes that SRTCP adds: tag and index.
pub const SRTCP_OVERHEAD: usize = TAG_BYTES + 4;

/// Keys of one direction.
pub struct Direction<C: Crypto> {
    rtp: C::Aead,
    rtp_salt: [u8; 12],
    rtcp: C::Aead,
    rtcp_salt: [u8; 12],
}

/// Derives both directions; local first. `None` for a profile without AEAD.
#[must_use]
pub fn keys<C: Crypto>(keys: &SrtpKeys) -> Option<(Direction<C>, Direction<C>)> {
    match keys.profile {
        SrtpProfile::AeadAes128Gcm | SrtpProfile::AeadAes256Gcm => {
            Some((Direction::new(&keys.local), Direction::new(&keys.remote)))
        }
        SrtpProfile::Aes128CmSha1_80 => None,
    }
}

/// The pseudo-random function of RFC 3711 §4.3.3 with the 96-bit salt of RFC 7714 §11, key derivation rate 0.
fn derive<C: Crypto>(master: &MasterKey, label: u8, out: &mut [u8]) {
    let mut block = [0; 16];
    block[..master.salt.len()].copy_from_slice(&master.salt);
    block[7] ^= label;
    for (counter, chunk) in out.chunks_mut(16).enumerate() {
        let mut key_stream = block;
        key_stream[14..].copy_from_slice(&(counter as u16).to_be_bytes());
        C::aes_block(&master.key, &mut key_stream);
        chunk.copy_from_slice(&key_stream[..chunk.len()]);
    }
}

impl<C: Crypto> Direction<C> {
    fn new(master: &MasterKey) -> Self {
        let mut key = [0; 32];
        let key_bytes = master.key.len();
        let mut salts = [[0; 12]; 2];
        derive::<C>(master, 0, &mut key[..key_bytes]);
        let rtp = C::Aead::new(&key[..key_bytes]);
        derive::<C>(master, 2, &mut salts[0]);
        derive::<C>(master, 3, &mut key[..key_bytes]);
        let rtcp = C::Aead::new(&key[..key_bytes]);
        derive::<C>(master, 5, &mut salts[1]);
        key.fill(0);
        Self {
            rtp,
            rtp_salt: salts[0],
            rtcp,
            rtcp_salt: salts[1],
        }
    }

    /// IV of RFC 7714 §8.1.
    fn rtp_nonce(&self, ssrc: Ssrc, index: ExtSeq) -> [u8; 12] {
        let mut nonce = self.rtp_salt;
        xor(&mut nonce[2..6], &ssrc.0.to_be_bytes());
        xor(&mut nonce[6..12], &index.0.to_be_bytes()[2..]);
        nonce
    }

    /// IV of RFC 7714 §9.1.
    fn rtcp_nonce(&self, ssrc: Ssrc, index: u32) -> [u8; 12] {
        let mut nonce = self.rtcp_salt;
        xor(&mut nonce[2..6], &ssrc.0.to_be_bytes());
        xor(&mut nonce[8..12], &index.to_be_bytes());
        nonce
    }

    /// Seals `packet[payload_at..]` in place; the last [`TAG_BYTES`] of `packet` become the tag. `index` must never repeat for
    /// one SSRC under these keys with another content.
    pub fn seal_rtp(&self, ssrc: Ssrc, index: ExtSeq, packet: &mut [u8], payload_at: usize) {
        let nonce = self.rtp_nonce(ssrc, index);
        let (header, rest) = packet.split_at_mut(payload_at);
        let text = rest.len() - TAG_BYTES;
        let (text, tag) = rest.split_at_mut(text);
        let tag: &mut [u8; TAG_BYTES] = tag.try_into().expect("invariant: split at the tag");
        self.rtp.seal(&nonce, header, text, tag);
    }

    /// Opens in place; the length of the plaintext packet, or `None` when it is not authentic.
    pub fn open_rtp(
        &self,
        ssrc: Ssrc,
        index: ExtSeq,
        packet: &mut [u8],
        payload_at: usize,
    ) -> Option<usize> {
        if packet.len() < payload_at + TAG_BYTES {
            return None;
        }
        let nonce = self.rtp_nonce(ssrc, index);
        let plain = packet.len() - TAG_BYTES;
        let (header, text) = packet.split_at_mut(payload_at);
        self.rtp.open(&nonce, header, text).ok()?;
        Some(plain)
    }

    /// Seals a compound RTCP packet: appends tag and index to `packet`.
    pub fn seal_rtcp(&self, index: u32, packet: &mut Vec<u8>) {
        let ssrc = Ssrc(u32::from_be_bytes(
            packet[4..8]
                .try_into()
                .expect("invariant: RTCP has 8 bytes"),
        ));
        let nonce = self.rtcp_nonce(ssrc, index);
        let word = (index | 0x8000_0000).to_be_bytes();
        let mut aad = [0; 12];
        aad[..8].copy_from_slice(&packet[..8]);
        aad[8..].copy_from_slice(&word);
        let mut tag = [0; TAG_BYTES];
        self.rtcp.seal(&nonce, &aad, &mut packet[8..], &mut tag);
        packet.extend_from_slice(&tag);
        packet.extend_from_slice(&word);
    }

    /// Opens a compound packet in place: index and length of the plaintext, or `None`.
    pub fn open_rtcp(&self, packet: &mut [u8]) -> Option<(u32, usize)> {
        let end = packet.len().checked_sub(4)?;
        if end < 8 + TAG_BYTES {
            return None;
        }
        let word: [u8; 4] = packet[end..].try_into().expect("invariant: four bytes");
        let index = u32::from_be_bytes(word);
        // Plain SRTCP (E = 0) has no place in WebRTC.
        if index & 0x8000_0000 == 0 {
            return None;
        }
        let index = index & 0x7fff_ffff;
        let ssrc = Ssrc(u32::from_be_bytes(
            packet[4..8].try_into().expect("invariant: four bytes"),
        ));
        let nonce = self.rtcp_nonce(ssrc, index);
        let mut aad = [0; 12];
        aad[..8].copy_from_slice(&packet[..8]);
        aad[8..].copy_from_slice(&word);
        self.rtcp.open(&nonce, &aad, &mut packet[8..end]).ok()?;
        Some((index, end - TAG_BYTES))
    }
}

fn xor(into: &mut [u8], with: &[u8]) {
    for (a, b) in into.iter_mut().zip(with) {
        *a ^= b;
    }
}

/// Window of accepted indices, 128 wide (RFC 3711 §3.3.2 asks for at least 64; retransmissions arrive late).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    highest: Option<u64>,
    seen: u128,
}

impl Replay {
    /// May `index` be a packet not seen before?
    #[must_use]
    pub fn is_fresh(&self, index: u64) -> bool {
        match self.highest {
            None => true,
            Some(highest) if index > highest => true,
            Some(highest) => {
                let age = highest - index;
                age < 128 && self.seen >> age & 1 == 0
            }
        }
    }

    /// Notes an authentic packet.
    pub fn accept(&mut self, index: u64) {
        match self.highest {
            Some(highest) if index <= highest => {
                self.seen |= 1_u128.checked_shl((highest - index) as u32).unwrap_or(0)
            }
            Some(highest) => {
                self.seen = self
                    .seen
                    .checked_shl(u32::try_from(index - highest).unwrap_or(u32::MAX))
                    .unwrap_or(0)
                    | 1;
                self.highest = Some(index);
            }
            None => {
                self.seen = 1;
                self.highest = Some(index);
            }
        }
    }

    /// Estimates the extended sequence number (RFC 3711 §3.3.1).
    #[must_use]
    pub fn extend(&self, sequence: u16) -> ExtSeq {
        match self.highest {
            None => ExtSeq(u64::from(sequence)),
            Some(highest) => {
                let delta = i64::from(sequence.wrapping_sub(highest as u16) as i16);
                // Before the first rollover nothing lies below zero.
                ExtSeq(
                    highest
                        .checked_add_signed(delta)
                        .unwrap_or(u64::from(sequence)),
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        /// Against the definition: fresh unless seen or too old.
        #[test]
        fn replay_window_equals_its_definition(indices in proptest::collection::vec(0_u64..400, 1..300)) {
            let mut window = Replay::default();
            let mut seen = HashSet::new();
            let mut highest = None::<u64>;
            for index in indices {
                let expected = !seen.contains(&index) && highest.is_none_or(|highest| index + 128 > highest);
                prop_assert_eq!(window.is_fresh(index), expected);
                if expected {
                    window.accept(index);
                    seen.insert(index);
                    highest = Some(highest.map_or(index, |highest| highest.max(index)));
                }
            }
        }

        #[test]
        fn rollover_is_followed_over_reordering(start in any::<u16>(), steps in proptest::collection::vec(-100_i64..2000, 1..200)) {
            let mut window = Replay::default();
            let mut truth = u64::from(start);
            window.accept(truth);
            let mut highest = truth;
            for step in steps {
                truth = highest.saturating_add_signed(step);
                let estimate = window.extend(truth as u16);
                prop_assert_eq!(estimate, ExtSeq(truth));
                if window.is_fresh(truth) { window.accept(truth); }
                highest = highest.max(truth);
            }
        }
    }
}

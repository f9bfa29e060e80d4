// SPDX-License-Identifier: EUPL-1.2
//! SRTP and SRTCP (RFC 3711, RFC 7714): key derivation, rollover, replay windows, sealing in place.
//!
//! AES-GCM is the profile of every call; AES-CM with HMAC-SHA1 exists for pools that allow it by configuration.

use serde::{Deserialize, Serialize};

use crate::crypto::{AeadKey, Crypto, MasterKey, SrtpKeys, SrtpProfile, TAG_BYTES};
use crate::ids::{ExtSeq, Ssrc};

/// Most bytes that SRTCP adds: tag and index.
pub const SRTCP_OVERHEAD: usize = TAG_BYTES + 4;
/// Bytes of a tag of the SHA1 profile.
const SHA1_TAG_BYTES: usize = 10;

/// Keys of one direction.
pub struct Direction<C: Crypto>(Suite<C>);

enum Suite<C: Crypto> {
    Gcm {
        rtp: C::Aead,
        rtp_salt: [u8; 12],
        rtcp: C::Aead,
        rtcp_salt: [u8; 12],
    },
    /// RTP and RTCP.
    Sha1(Box<[Sha1Keys; 2]>),
}

/// Session keys of the SHA1 profile.
struct Sha1Keys {
    cipher: [u8; 16],
    salt: [u8; 14],
    auth: [u8; 20],
}

/// Derives both directions; local first. `None` when the material does not fit its profile.
#[must_use]
pub fn keys<C: Crypto>(keys: &SrtpKeys) -> Option<(Direction<C>, Direction<C>)> {
    let fits = |master: &MasterKey| {
        master.key.len() == keys.profile.key_bytes()
            && master.salt.len() == keys.profile.salt_bytes()
    };
    (fits(&keys.local) && fits(&keys.remote)).then(|| {
        (
            Direction::new(keys.profile, &keys.local),
            Direction::new(keys.profile, &keys.remote),
        )
    })
}

/// The pseudo-random function of RFC 3711 §4.3.3, with the 96-bit salt of RFC 7714 §11 where GCM asks for it; key derivation
/// rate 0.
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

impl Sha1Keys {
    /// `label` is 0 for RTP, 3 for RTCP.
    fn new<C: Crypto>(master: &MasterKey, label: u8) -> Self {
        let mut keys = Self {
            cipher: [0; 16],
            salt: [0; 14],
            auth: [0; 20],
        };
        derive::<C>(master, label, &mut keys.cipher);
        derive::<C>(master, label + 1, &mut keys.auth);
        derive::<C>(master, label + 2, &mut keys.salt);
        keys
    }

    /// Encrypts or decrypts (RFC 3711 §4.1.1).
    fn cipher<C: Crypto>(&self, ssrc: Ssrc, index: u64, text: &mut [u8]) {
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(&self.salt);
        xor(&mut iv[4..8], &ssrc.0.to_be_bytes());
        xor(&mut iv[8..14], &index.to_be_bytes()[2..]);
        C::aes_ctr(&self.cipher, &iv, text);
    }

    fn tag<C: Crypto>(&self, parts: &[&[u8]]) -> [u8; SHA1_TAG_BYTES] {
        let mut tag = [0; SHA1_TAG_BYTES];
        tag.copy_from_slice(&C::hmac_sha1(&self.auth, parts)[..SHA1_TAG_BYTES]);
        tag
    }

    fn is_authentic<C: Crypto>(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        // Constant time: the difference of all bytes is gathered before it is judged.
        tag.len() == SHA1_TAG_BYTES
            && self
                .tag::<C>(parts)
                .iter()
                .zip(tag)
                .fold(0, |sum, (a, b)| sum | (a ^ b))
                == 0
    }
}

/// Upper 32 bits of the index, which the SHA1 profile authenticates beside the packet.
fn rollover(index: ExtSeq) -> [u8; 4] {
    ((index.0 >> 16) as u32).to_be_bytes()
}

/// IV of RFC 7714 §8.1.
fn rtp_nonce(salt: &[u8; 12], ssrc: Ssrc, index: ExtSeq) -> [u8; 12] {
    let mut nonce = *salt;
    xor(&mut nonce[2..6], &ssrc.0.to_be_bytes());
    xor(&mut nonce[6..12], &index.0.to_be_bytes()[2..]);
    nonce
}

/// IV of RFC 7714 §9.1 and what is authenticated beside the ciphertext (§9.2): header, E bit and index.
fn rtcp_nonce(salt: &[u8; 12], packet: &[u8], index: u32) -> ([u8; 12], [u8; 12]) {
    let mut nonce = *salt;
    xor(&mut nonce[2..6], &packet[4..8]);
    xor(&mut nonce[8..12], &index.to_be_bytes());
    let mut aad = [0; 12];
    aad[..8].copy_from_slice(&packet[..8]);
    aad[8..].copy_from_slice(&(index | 0x8000_0000).to_be_bytes());
    (nonce, aad)
}

/// First SSRC of a compound packet of at least eight bytes.
fn rtcp_ssrc(packet: &[u8]) -> Ssrc {
    Ssrc(u32::from_be_bytes([
        packet[4], packet[5], packet[6], packet[7],
    ]))
}

impl<C: Crypto> Direction<C> {
    fn new(profile: SrtpProfile, master: &MasterKey) -> Self {
        if profile == SrtpProfile::Aes128CmSha1_80 {
            return Self(Suite::Sha1(Box::new([
                Sha1Keys::new::<C>(master, 0),
                Sha1Keys::new::<C>(master, 3),
            ])));
        }
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
        Self(Suite::Gcm {
            rtp,
            rtp_salt: salts[0],
            rtcp,
            rtcp_salt: salts[1],
        })
    }

    /// Bytes of the tag behind an RTP packet.
    #[must_use]
    pub fn tag_bytes(&self) -> usize {
        match &self.0 {
            Suite::Gcm { .. } => TAG_BYTES,
            Suite::Sha1(_) => SHA1_TAG_BYTES,
        }
    }

    /// Seals `packet[payload_at..]` in place; the last [`Self::tag_bytes`] of `packet` become the tag. `index` must never repeat
    /// for one SSRC under these keys with another content.
    pub fn seal_rtp(&self, ssrc: Ssrc, index: ExtSeq, packet: &mut [u8], payload_at: usize) {
        let end = packet.len() - self.tag_bytes();
        match &self.0 {
            Suite::Gcm { rtp, rtp_salt, .. } => {
                let nonce = rtp_nonce(rtp_salt, ssrc, index);
                let (header, rest) = packet.split_at_mut(payload_at);
                let (text, tag) = rest.split_at_mut(end - payload_at);
                let tag: &mut [u8; TAG_BYTES] =
                    tag.try_into().expect("invariant: split at the tag");
                rtp.seal(&nonce, header, text, tag);
            }
            Suite::Sha1(keys) => {
                keys[0].cipher::<C>(ssrc, index.0, &mut packet[payload_at..end]);
                let tag = keys[0].tag::<C>(&[&packet[..end], &rollover(index)]);
                packet[end..].copy_from_slice(&tag);
            }
        }
    }

    /// Opens in place; the length of the plaintext packet, or `None` when it is not authentic.
    pub fn open_rtp(
        &self,
        ssrc: Ssrc,
        index: ExtSeq,
        packet: &mut [u8],
        payload_at: usize,
    ) -> Option<usize> {
        let end = packet
            .len()
            .checked_sub(self.tag_bytes())
            .filter(|end| *end >= payload_at)?;
        match &self.0 {
            Suite::Gcm { rtp, rtp_salt, .. } => {
                let nonce = rtp_nonce(rtp_salt, ssrc, index);
                let (header, text) = packet.split_at_mut(payload_at);
                rtp.open(&nonce, header, text).ok()?;
            }
            Suite::Sha1(keys) => {
                if !keys[0].is_authentic::<C>(&[&packet[..end], &rollover(index)], &packet[end..]) {
                    return None;
                }
                keys[0].cipher::<C>(ssrc, index.0, &mut packet[payload_at..end]);
            }
        }
        Some(end)
    }

    /// Seals a compound RTCP packet of at least eight bytes: appends tag and index to `packet`.
    pub fn seal_rtcp(&self, index: u32, packet: &mut Vec<u8>) {
        let ssrc = rtcp_ssrc(packet);
        let word = (index | 0x8000_0000).to_be_bytes();
        match &self.0 {
            Suite::Gcm {
                rtcp, rtcp_salt, ..
            } => {
                let (nonce, aad) = rtcp_nonce(rtcp_salt, packet, index);
                let mut tag = [0; TAG_BYTES];
                rtcp.seal(&nonce, &aad, &mut packet[8..], &mut tag);
                packet.extend_from_slice(&tag);
                packet.extend_from_slice(&word);
            }
            Suite::Sha1(keys) => {
                keys[1].cipher::<C>(ssrc, u64::from(index), &mut packet[8..]);
                packet.extend_from_slice(&word);
                let tag = keys[1].tag::<C>(&[packet]);
                packet.extend_from_slice(&tag);
            }
        }
    }

    /// Opens a compound packet in place: index and length of the plaintext, or `None`.
    pub fn open_rtcp(&self, packet: &mut [u8]) -> Option<(u32, usize)> {
        // Where the index stands, and where the ciphertext ends.
        let (word_at, end) = match &self.0 {
            Suite::Gcm { .. } => {
                let word_at = packet.len().checked_sub(4)?;
                (word_at, word_at.checked_sub(TAG_BYTES)?)
            }
            Suite::Sha1(_) => {
                let word_at = packet.len().checked_sub(SHA1_TAG_BYTES + 4)?;
                (word_at, word_at)
            }
        };
        if end < 8 {
            return None;
        }
        let word: [u8; 4] = *packet.get(word_at..)?.first_chunk()?;
        let index = u32::from_be_bytes(word);
        // Plain SRTCP (E = 0) has no place in WebRTC.
        if index & 0x8000_0000 == 0 {
            return None;
        }
        let index = index & 0x7fff_ffff;
        let ssrc = rtcp_ssrc(packet);
        match &self.0 {
            Suite::Gcm {
                rtcp, rtcp_salt, ..
            } => {
                let (nonce, aad) = rtcp_nonce(rtcp_salt, packet, index);
                rtcp.open(&nonce, &aad, &mut packet[8..word_at]).ok()?;
            }
            Suite::Sha1(keys) => {
                let (text, tag) = packet.split_at_mut(word_at + 4);
                if !keys[1].is_authentic::<C>(&[text], tag) {
                    return None;
                }
                keys[1].cipher::<C>(ssrc, u64::from(index), &mut text[8..end]);
            }
        }
        Some((index, end))
    }
}

fn xor(into: &mut [u8], with: &[u8]) {
    for (a, b) in into.iter_mut().zip(with) {
        *a ^= b;
    }
}

/// Window of accepted indices, 128 wide (RFC 3711 §3.3.2 asks for at least 64; retransmissions arrive late).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ReplayParts", into = "ReplayParts")]
pub struct Replay {
    highest: Option<u64>,
    seen: u128,
}

/// [`Replay`] as it is written: not every format has numbers of 128 bits.
#[derive(Serialize, Deserialize)]
struct ReplayParts {
    highest: Option<u64>,
    seen: [u64; 2],
}

impl From<Replay> for ReplayParts {
    fn from(replay: Replay) -> Self {
        Self {
            highest: replay.highest,
            seen: [(replay.seen >> 64) as u64, replay.seen as u64],
        }
    }
}

impl From<ReplayParts> for Replay {
    fn from(parts: ReplayParts) -> Self {
        let [high, low] = parts.seen;
        Self {
            highest: parts.highest,
            seen: u128::from(high) << 64 | u128::from(low),
        }
    }
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

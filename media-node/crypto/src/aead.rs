// SPDX-License-Identifier: EUPL-1.2
//! AES-GCM by aws-lc's stateless key object: sealing and opening in place, without allocation.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use media_core::crypto::{AeadKey, TAG_BYTES, Unauthentic};

/// One expanded AES-GCM key, about 600 bytes.
pub struct Gcm(LessSafeKey);

impl AeadKey for Gcm {
    fn new(key: &[u8]) -> Self {
        let algorithm = if key.len() == 32 {
            &AES_256_GCM
        } else {
            &AES_128_GCM
        };
        Self(LessSafeKey::new(
            UnboundKey::new(algorithm, key).expect("invariant: AES keys have 16 or 32 bytes"),
        ))
    }

    fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8], tag: &mut [u8; TAG_BYTES]) {
        let sealed = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), text)
            .expect("invariant: a packet is far below the limit of GCM");
        tag.copy_from_slice(sealed.as_ref());
    }

    fn open(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> Result<(), Unauthentic> {
        self.0
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), text)
            .map(|_| ())
            .map_err(|_| Unauthentic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_and_a_changed_bit_does_not() {
        for length in [16, 32] {
            let key = Gcm::new(&vec![7; length]);
            let mut text = *b"forty-two bytes of plaintext are enough...";
            let mut tag = [0; TAG_BYTES];
            key.seal(&[1; 12], b"header", &mut text, &mut tag);
            let mut sealed = [text.as_slice(), &tag].concat();
            let mut changed = sealed.clone();
            key.open(&[1; 12], b"header", &mut sealed)
                .expect("authentic");
            assert_eq!(&sealed[..42], b"forty-two bytes of plaintext are enough...");
            changed[3] ^= 1;
            assert_eq!(
                key.open(&[1; 12], b"header", &mut changed),
                Err(Unauthentic)
            );
        }
    }
}

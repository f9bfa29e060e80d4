// SPDX-License-Identifier: EUPL-1.2
//! Random texts and numbers from the entropy that was given in.

use crate::api::Entropy;

const ALPHABET: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/";

/// Letters and digits of `ice-char` (RFC 8839 §5.4), six bits each.
pub(crate) fn text(entropy: &mut (dyn Entropy + Send), length: usize) -> String {
    let mut bytes = vec![0; length];
    entropy.fill(&mut bytes);
    bytes
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte & 63)]))
        .collect()
}

/// Letters and digits of identifiers: five bits each.
pub(crate) fn name(entropy: &mut (dyn Entropy + Send), length: usize) -> String {
    let mut bytes = vec![0; length];
    entropy.fill(&mut bytes);
    bytes
        .iter()
        .map(|byte| char::from(b"abcdefghjkmnpqrstuvwxyz23456789A"[usize::from(byte & 31)]))
        .collect()
}

/// A number.
pub(crate) fn number(entropy: &mut (dyn Entropy + Send)) -> u32 {
    let mut bytes = [0; 4];
    entropy.fill(&mut bytes);
    u32::from_be_bytes(bytes)
}

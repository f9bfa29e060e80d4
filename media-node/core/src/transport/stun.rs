// SPDX-License-Identifier: EUPL-1.2
//! Connectivity checks: the part of STUN (RFC 8489) and ICE (RFC 8445) that a lite agent and its test client speak.

use std::net::SocketAddr;

use rtc_stun::attributes::{
    ATTR_ICE_CONTROLLING, ATTR_MESSAGE_INTEGRITY, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME,
};
use rtc_stun::error_code::{ErrorCode, ErrorCodeAttribute};
use rtc_stun::fingerprint::FingerprintAttr;
use rtc_stun::message::{
    BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, Message, MessageType, Setter, TransactionId,
    is_stun_message,
};
use rtc_stun::xoraddr::XorMappedAddress;

use crate::crypto::Crypto;

const HEADER_BYTES: usize = 20;
const INTEGRITY_BYTES: usize = 20;
/// Longest fragment a description may name (RFC 8839 §5.4); a longer user name is no check of ours.
const USERNAME_BYTES_MAX: usize = 513;

/// Is this datagram STUN by first byte and cookie?
#[must_use]
pub fn is_stun(packet: &[u8]) -> bool {
    is_stun_message(packet)
}

/// Local and remote user fragment of a check, without judging it: how the transport is found.
#[must_use]
pub fn username(packet: &[u8]) -> Option<(&str, &str)> {
    if !is_stun_message(packet) {
        return None;
    }
    let (offset, length) = attribute(packet, ATTR_USERNAME.0)?;
    let name = std::str::from_utf8(packet.get(offset..offset + length)?).ok()?;
    (name.len() <= USERNAME_BYTES_MAX)
        .then(|| name.split_once(':'))
        .flatten()
}

/// Offset and length of an attribute's value.
fn attribute(packet: &[u8], wanted: u16) -> Option<(usize, usize)> {
    let mut at = HEADER_BYTES;
    while let Some(&[kind_high, kind_low, length_high, length_low]) = packet.get(at..at + 4) {
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        if at + 4 + length > packet.len() {
            return None;
        }
        if u16::from_be_bytes([kind_high, kind_low]) == wanted {
            return Some((at + 4, length));
        }
        at += 4 + length.next_multiple_of(4);
    }
    None
}

/// HMAC-SHA1 over everything before the attribute, with the length as if the message ended after it (RFC 8489 §14.5).
fn integrity<C: Crypto>(
    packet: &[u8],
    attribute_at: usize,
    password: &str,
) -> [u8; INTEGRITY_BYTES] {
    let covered = (attribute_at + 4 + INTEGRITY_BYTES - HEADER_BYTES) as u16;
    let mut header = [0; HEADER_BYTES];
    header.copy_from_slice(&packet[..HEADER_BYTES]);
    header[2..4].copy_from_slice(&covered.to_be_bytes());
    C::hmac_sha1(
        password.as_bytes(),
        &[&header, &packet[HEADER_BYTES..attribute_at]],
    )
}

fn is_authentic<C: Crypto>(packet: &[u8], password: &str) -> bool {
    let Some((value_at, INTEGRITY_BYTES)) = attribute(packet, ATTR_MESSAGE_INTEGRITY.0) else {
        return false;
    };
    let expected = integrity::<C>(packet, value_at - 4, password);
    // Constant time: the difference of all bytes is gathered before it is judged.
    let difference = expected
        .iter()
        .zip(&packet[value_at..])
        .fold(0, |sum, (a, b)| sum | (a ^ b));
    difference == 0
}

/// A binding request.
#[derive(Debug)]
pub struct Check<'a> {
    packet: &'a [u8],
    transaction: TransactionId,
    /// Our fragment.
    pub local_ufrag: &'a str,
    /// Theirs.
    pub remote_ufrag: &'a str,
    /// USE-CANDIDATE is present.
    pub use_candidate: bool,
    /// ICE-CONTROLLING is present.
    pub controlling: bool,
}

impl<'a> Check<'a> {
    /// Reads a binding request; `None` for anything else.
    #[must_use]
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let (local_ufrag, remote_ufrag) = username(packet)?;
        let mut message = Message::new();
        message.unmarshal_binary(packet).ok()?;
        (message.typ == BINDING_REQUEST).then(|| Self {
            packet,
            transaction: message.transaction_id,
            local_ufrag,
            remote_ufrag,
            use_candidate: message.contains(ATTR_USE_CANDIDATE),
            controlling: message.contains(ATTR_ICE_CONTROLLING),
        })
    }

    /// Was it made by somebody who knows `password`?
    #[must_use]
    pub fn authentic<C: Crypto>(&self, password: &str) -> bool {
        is_authentic::<C>(self.packet, password)
    }
}

fn message(kind: MessageType, transaction: TransactionId) -> Message {
    let mut message = Message::new();
    message.transaction_id = transaction;
    message.set_type(kind);
    message.write_header();
    message
}

fn finish<C: Crypto>(mut message: Message, password: Option<&str>) -> Vec<u8> {
    if let Some(password) = password {
        let at = message.raw.len();
        let value = integrity::<C>(&message.raw, at, password);
        message.add(ATTR_MESSAGE_INTEGRITY, &value);
    }
    // Adding the fingerprint fails for no message of ours: all are far below the 64 kB of the length field.
    let _ = FingerprintAttr.add_to(&mut message);
    message.raw
}

/// Answer to an authentic check.
#[must_use]
pub fn success_response<C: Crypto>(
    check: &Check<'_>,
    mapped: SocketAddr,
    password: &str,
) -> Vec<u8> {
    let mut message = message(BINDING_SUCCESS, check.transaction);
    let _ = XorMappedAddress {
        ip: mapped.ip(),
        port: mapped.port(),
    }
    .add_to(&mut message);
    finish::<C>(message, Some(password))
}

/// Answer to a check that is not taken. Shorter than any request, so nobody is amplified.
#[must_use]
pub fn error_response(check: &Check<'_>, code: u16) -> Vec<u8> {
    refusal(check.transaction, code)
}

/// Bytes of the answer to a stranger: a header, an error code without words, a fingerprint.
const STRANGER_BYTES: usize = HEADER_BYTES + 8 + 8;

/// Answer to a binding request without credentials, as a probe of reachability sends it: refused (RFC 8489 §9.1.3), which says that
/// somebody is there and no more. `None` for anything else, and where the answer would be longer than the question.
#[must_use]
pub fn stranger_response(packet: &[u8]) -> Option<Vec<u8>> {
    if packet.len() < STRANGER_BYTES
        || !is_stun_message(packet)
        || attribute(packet, ATTR_USERNAME.0).is_some()
    {
        return None;
    }
    let mut asked = Message::new();
    asked.unmarshal_binary(packet).ok()?;
    if asked.typ != BINDING_REQUEST {
        return None;
    }
    Some(refusal(asked.transaction_id, 400))
}

fn refusal(transaction: TransactionId, code: u16) -> Vec<u8> {
    let mut message = message(BINDING_ERROR, transaction);
    let _ = ErrorCodeAttribute {
        code: ErrorCode(code),
        reason: Vec::new(),
    }
    .add_to(&mut message);
    let _ = FingerprintAttr.add_to(&mut message);
    message.raw
}

/// A client's check: the controlling side.
#[must_use]
pub fn request<C: Crypto>(
    transaction: [u8; 12],
    username: &str,
    password: &str,
    use_candidate: bool,
) -> Vec<u8> {
    let mut message = message(BINDING_REQUEST, TransactionId(transaction));
    message.add(ATTR_USERNAME, username.as_bytes());
    message.add(ATTR_PRIORITY, &0x6e7f_1eff_u32.to_be_bytes());
    message.add(ATTR_ICE_CONTROLLING, &[1; 8]);
    if use_candidate {
        message.add(ATTR_USE_CANDIDATE, &[]);
    }
    finish::<C>(message, Some(password))
}

/// Is this an authentic success response?
#[must_use]
pub fn is_success<C: Crypto>(packet: &[u8], password: &str) -> bool {
    let mut message = Message::new();
    is_stun_message(packet)
        && message.unmarshal_binary(packet).is_ok()
        && message.typ == BINDING_SUCCESS
        && is_authentic::<C>(packet, password)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(kind: [u8; 2], padding: usize) -> Vec<u8> {
        let length = u16::try_from(4 + padding).unwrap();
        let mut packet = kind.to_vec();
        packet.extend(length.to_be_bytes());
        packet.extend([0x21, 0x12, 0xa4, 0x42]);
        packet.extend([7; 12]);
        packet.extend([0x00, 0x26]);
        packet.extend(u16::try_from(padding).unwrap().to_be_bytes());
        packet.resize(packet.len() + padding, 0);
        packet
    }

    #[test]
    fn a_stranger_is_refused_with_no_more_than_he_sent() {
        let asked = bare([0, 1], 64);
        let answer = stranger_response(&asked).unwrap();
        assert_eq!(answer.len(), STRANGER_BYTES);
        assert!(answer.starts_with(&[0x01, 0x11]), "a binding error");
        assert_eq!(answer[8..20], asked[8..20], "of this transaction");
        for padding in 0..64 {
            let asked = bare([0, 1], padding / 4 * 4);
            let answer = stranger_response(&asked);
            assert!(answer.is_none_or(|answer| answer.len() <= asked.len()));
        }
    }

    #[test]
    fn nothing_but_a_bare_request_is_answered() {
        for kind in [[1, 1], [1, 0x11], [0, 0x11], [0, 3]] {
            assert_eq!(stranger_response(&bare(kind, 64)), None, "{kind:?}");
        }
        let mut named = bare([0, 1], 64);
        named[21] = 0x06;
        assert_eq!(
            stranger_response(&named),
            None,
            "a check with a name is no stranger's"
        );
        let mut short = bare([0, 1], 64);
        short.truncate(50);
        assert_eq!(stranger_response(&short), None);
    }
}

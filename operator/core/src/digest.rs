// SPDX-License-Identifier: EUPL-1.2
//! Names and revisions that are hashes.

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// SHA-256.
#[must_use]
pub fn sha256(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}

/// HMAC-SHA256. *Source*: RFC 2104 §2.
#[must_use]
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; BLOCK_BYTES];
    if key.len() > BLOCK_BYTES {
        block[..32].copy_from_slice(&sha256(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(message)
        .finalize();
    Sha256::new()
        .chain_update(padded(0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}

/// Id of a room, the part of its link: it cannot be guessed from the name, and a second cluster with the same link key
/// gives the same one.
#[must_use]
pub fn room_id(link_key: &[u8], room_name: &str) -> String {
    let mut id = BASE32_NOPAD
        .encode(&hmac_sha256(link_key, room_name.as_bytes()))
        .to_ascii_lowercase();
    id.truncate(ROOM_ID_CHARS);
    id
}

/// Uid of an object that no API server has numbered: the same for the same name, in the shape of a UUID.
#[must_use]
pub fn uid(kind: &str, namespace: &str, name: &str) -> String {
    let hash = HEXLOWER.encode(&sha256(format!("{kind}/{namespace}/{name}").as_bytes())[..16]);
    format!(
        "{}-{}-{}-{}-{}",
        &hash[..8],
        &hash[8..12],
        &hash[12..16],
        &hash[16..20],
        &hash[20..]
    )
}

/// Short id of a node in SIDs and leases: letters of its pool, then 30 bits of its uid. No `-`, at most 14 characters.
#[must_use]
pub fn node_id(pool: &str, uid: &str) -> String {
    let mut id: String = pool
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .take(8)
        .collect();
    let hash = BASE32_NOPAD
        .encode(&sha256(uid.as_bytes())[..5])
        .to_ascii_lowercase();
    id.push_str(&hash[..6]);
    id
}

/// Revision of a record: equal content, equal revision.
#[must_use]
pub fn revision(content: &impl Serialize) -> String {
    let text = serde_json::to_vec(content).expect("invariant: records are plain data");
    HEXLOWER.encode(&sha256(&text)[..REVISION_BYTES])
}

/// Revision of a record that holds something guessable: without the key nobody can try guesses against it.
#[must_use]
pub fn keyed_revision(key: &[u8], content: &impl Serialize) -> String {
    let text = serde_json::to_vec(content).expect("invariant: records are plain data");
    HEXLOWER.encode(&hmac_sha256(key, &text)[..REVISION_BYTES])
}

const BLOCK_BYTES: usize = 64;
/// 130 bits, as `decisions.md` §1 fixes it.
const ROOM_ID_CHARS: usize = 26;
/// 64 bits: revisions are compared within one object only.
const REVISION_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_agrees_with_rfc_4231() {
        let hex = |bytes: [u8; 32]| HEXLOWER.encode(&bytes);
        assert_eq!(
            hex(hmac_sha256(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        let long = [0xaa_u8; 131];
        let message = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(
            hex(hmac_sha256(&long, message)),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn room_id_depends_on_key_and_name_alone() {
        let id = room_id(b"key", "council");
        assert_eq!(id.len(), 26);
        assert!(
            id.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        );
        assert_eq!(id, room_id(b"key", "council"));
        assert_ne!(id, room_id(b"key", "council2"));
        assert_ne!(id, room_id(b"kez", "council"));
    }

    #[test]
    fn node_ids_have_no_dash_and_at_most_16_characters() {
        for pool in ["local", "frankfurt-a", "a", "very-long-name-of-a-pool"] {
            let id = node_id(pool, &uid("MediaNode", "media", pool));
            assert!((6..=16).contains(&id.len()), "{id}");
            assert!(
                id.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            );
        }
    }
}

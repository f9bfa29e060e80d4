// SPDX-License-Identifier: EUPL-1.2
//! Secrets that nobody has declared: how their values are made from randomness, and the objects that hold them.
//!
//! Randomness is an argument, so that both shells make the same from the same bytes. The objects carry no label or
//! annotation that depends on a value.

use data_encoding::BASE32_NOPAD;
use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use plenum_api::{Conference, names};

use super::{LINK_KEY, LINK_KEY_SECRET, labels};

/// Random bytes of a link key.
pub const LINK_KEY_BYTES: usize = 32;
/// Random bytes of a password; six bits of each are used: 84 bits.
pub const PASSWORD_BYTES: usize = 14;
/// Random bytes of an opener key: 160 bits.
pub const OPENER_KEY_BYTES: usize = 20;

/// 16 letters that neither look nor sound alike when spelt.
const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
const VOWELS: &[u8; 4] = b"aeou";

/// Syllables of a consonant and a vowel, which can be read out over a telephone.
#[must_use]
pub fn password(random: &[u8; PASSWORD_BYTES]) -> String {
    let mut text = String::with_capacity(PASSWORD_BYTES * 3);
    for (index, byte) in random.iter().enumerate() {
        if index > 0 && index % 2 == 0 {
            text.push('-');
        }
        text.push(char::from(CONSONANTS[usize::from(byte >> 2 & 0xf)]));
        text.push(char::from(VOWELS[usize::from(byte & 3)]));
    }
    text
}

/// Letters and digits, which stand in the fragment of a link.
#[must_use]
pub fn opener_key(random: &[u8; OPENER_KEY_BYTES]) -> String {
    BASE32_NOPAD.encode(random).to_ascii_lowercase()
}

/// The Secret with the link key of a tenant. It has no owner: links outlive a tenant whose namespace is kept.
#[must_use]
pub fn link_key_secret(tenant: &str, namespace: &str, key: &[u8; LINK_KEY_BYTES]) -> Secret {
    secret(
        namespace,
        LINK_KEY_SECRET,
        tenant,
        None,
        "Opaque",
        LINK_KEY,
        key.to_vec(),
    )
}

/// The Secret with the password of a conference, owned by it.
#[must_use]
pub fn password_secret(
    tenant: &str,
    namespace: &str,
    conference: &Conference,
    password: String,
) -> Secret {
    let name = conference.metadata.name.as_deref().unwrap_or_default();
    secret(
        namespace,
        &names::password_secret(name),
        tenant,
        owner(conference),
        "Opaque",
        names::SECRET_KEY_PASSWORD,
        password.into_bytes(),
    )
}

/// A Secret with an opener key that a conference names and nobody has brought, owned by the conference.
#[must_use]
pub fn opener_key_secret(
    tenant: &str,
    namespace: &str,
    name: &str,
    part: &str,
    conference: &Conference,
    key: String,
) -> Secret {
    secret(
        namespace,
        name,
        tenant,
        owner(conference),
        names::SECRET_TYPE_OPENER_KEY,
        part,
        key.into_bytes(),
    )
}

/// `None` for a conference that no API server has numbered.
fn owner(conference: &Conference) -> Option<OwnerReference> {
    Some(OwnerReference {
        api_version: names::API_VERSION.to_owned(),
        kind: "Conference".to_owned(),
        name: conference.metadata.name.clone()?,
        uid: conference.metadata.uid.clone()?,
        controller: Some(true),
        block_owner_deletion: None,
    })
}

fn secret(
    namespace: &str,
    name: &str,
    tenant: &str,
    owner: Option<OwnerReference>,
    type_: &str,
    part: &str,
    value: Vec<u8>,
) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels(tenant)),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        type_: Some(type_.to_owned()),
        data: Some([(part.to_owned(), ByteString(value))].into()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_can_be_spoken_and_every_bit_that_counts_changes_them() {
        let one = password(&[0; PASSWORD_BYTES]);
        assert_eq!(one, "baba-baba-baba-baba-baba-baba-baba");
        for byte in 0..PASSWORD_BYTES {
            for bit in 0..6 {
                let mut random = [0; PASSWORD_BYTES];
                random[byte] = 1 << bit;
                assert_ne!(password(&random), one, "byte {byte}, bit {bit}");
            }
        }
        let all = password(&std::array::from_fn(|index| index as u8 * 19));
        assert_eq!(all.split('-').count(), 7);
        assert!(
            all.split('-')
                .all(|part| part.len() == 4
                    && part.bytes().all(|letter| letter.is_ascii_lowercase()))
        );
    }

    #[test]
    fn a_password_secret_goes_with_its_conference_and_prints_nothing() {
        let mut conference = Conference::new("council", plenum_api::ConferenceSpec::default());
        conference.metadata.uid = Some("u-1".to_owned());
        let secret = password_secret("town", "tenant-town", &conference, "baba-dudu".to_owned());
        assert_eq!(secret.metadata.name.as_deref(), Some("council-password"));
        let owner = &secret.metadata.owner_references.expect("an owner")[0];
        assert_eq!(
            (owner.kind.as_str(), owner.uid.as_str()),
            ("Conference", "u-1")
        );
        let labels = format!("{:?}", secret.metadata.labels);
        assert!(!labels.contains("baba"), "{labels}");
    }
}

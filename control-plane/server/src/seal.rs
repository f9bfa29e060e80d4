// SPDX-License-Identifier: EUPL-1.2
//! Records as the store keeps them: sealed with AES-256-GCM, so that neither the secrets of tenants nor the plans of conferences can be
//! read or changed by whoever reads or writes the store.
//!
//! A sealed value is `1 | key id (8) | nonce (12) | length of the tenant's name (1) | the name | ciphertext and tag`. The name stands there in
//! clear text, because whoever opens the value has to know it; with kind, uid and revision it is bound to the ciphertext, so that no
//! value can stand in for another one. Nonces are random: 96 bits bear far more values under one key than an installation ever seals.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use control_core::record::RecordKind;

/// Version of the form of sealed values.
const VERSION: u8 = 1;
/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a key's id.
const ID_BYTES: usize = 8;
/// Version, key id, nonce, length of the tenant's name.
const HEADER_BYTES: usize = 1 + ID_BYTES + NONCE_LEN + 1;

/// Names a key without telling it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; ID_BYTES]);

impl KeyId {
    fn of(key: &[u8]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"plenum seal key id\0");
        context.update(key);
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&context.finish().as_ref()[..ID_BYTES]);
        Self(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a file holds no seal key.
#[derive(Debug, thiserror::Error)]
pub enum SealKeyError {
    /// It cannot be read.
    #[error("--seal-key-file {}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It holds no keys.
    #[error(
        "--seal-key-file {}: holds {bytes} bytes; {KEY_BYTES} random ones are a key, and {} the present and the previous one", path.display(), 2 * KEY_BYTES
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
}

/// Why a value is not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The name of the tenant does not fit.
    #[error("the name of the tenant is longer than 255 bytes")]
    Tenant,
    /// The system has no random numbers, or the value is too long for the cipher.
    #[error("the cipher refuses")]
    Cipher,
}

/// Why a value is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is none of ours, or of a newer version.
    #[error("the value has no form that this version knows")]
    Form,
    /// The key is not among ours.
    #[error("the value is sealed with key {0}, which --seal-key-file does not hold")]
    UnknownKey(KeyId),
    /// It was changed, or belongs elsewhere.
    #[error("the value was changed, or was put under another name than its own")]
    Forged,
}

impl OpenError {
    /// CamelCase reason.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Form => "UnknownForm",
            Self::UnknownKey(_) => "UnknownSealKey",
            Self::Forged => "Forged",
        }
    }
}

/// What a sealed value belongs to; it opens there and nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Kind of the record.
    pub kind: RecordKind,
    /// Uid of its object.
    pub uid: &'a str,
    /// Revision under which it is kept.
    pub revision: &'a str,
}

impl Place<'_> {
    /// Everything that the ciphertext is bound to; each part with its length, so that no two places give the same bytes.
    fn associated(self, tenant: &[u8]) -> Vec<u8> {
        let parts: [&[u8]; 5] = [
            b"plenum record v1",
            self.kind.as_str().as_bytes(),
            tenant,
            self.uid.as_bytes(),
            self.revision.as_bytes(),
        ];
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }
}

/// A value that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Whose it is; empty = nobody's.
    pub tenant: String,
    /// What was sealed.
    pub plain: Vec<u8>,
}

struct Key {
    id: KeyId,
    key: LessSafeKey,
}

/// The present key, and the one before it.
pub struct SealKeys {
    current: Key,
    previous: Option<Key>,
}

impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKeys")
            .field("current", &self.current.id)
            .field("previous", &self.previous.as_ref().map(|key| key.id))
            .finish()
    }
}

fn key(bytes: &[u8]) -> Option<Key> {
    let unbound = UnboundKey::new(&AES_256_GCM, bytes).ok()?;
    Some(Key {
        id: KeyId::of(bytes),
        key: LessSafeKey::new(unbound),
    })
}

impl SealKeys {
    /// From the bytes of one key, or of the present and the previous one.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        match bytes.len() {
            KEY_BYTES => Some(Self {
                current: key(bytes)?,
                previous: None,
            }),
            len if len == 2 * KEY_BYTES => Some(Self {
                current: key(&bytes[..KEY_BYTES])?,
                previous: Some(key(&bytes[KEY_BYTES..])?),
            }),
            _ => None,
        }
    }

    /// From a file.
    ///
    /// # Errors
    /// [`SealKeyError`].
    pub fn read(path: &Path) -> Result<Self, SealKeyError> {
        let read = |source| SealKeyError::Read {
            path: path.to_owned(),
            source,
        };
        let size = |bytes| SealKeyError::Size {
            path: path.to_owned(),
            bytes,
        };
        let length = std::fs::metadata(path).map_err(read)?.len();
        if length > 2 * KEY_BYTES as u64 {
            return Err(size(usize::try_from(length).unwrap_or(usize::MAX)));
        }
        let bytes = std::fs::read(path).map_err(read)?;
        Self::new(&bytes).ok_or_else(|| size(bytes.len()))
    }

    /// A key of this process alone: for a store that lives no longer.
    ///
    /// # Errors
    /// [`SealError::Cipher`] where the system has no random numbers.
    pub fn random() -> Result<Self, SealError> {
        let mut bytes = [0; KEY_BYTES];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| SealError::Cipher)?;
        Self::new(&bytes).ok_or(SealError::Cipher)
    }

    /// Seals a value for its place.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(&self, place: Place<'_>, tenant: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let length = u8::try_from(tenant.len()).map_err(|_| SealError::Tenant)?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|_| SealError::Cipher)?;
        let mut value =
            Vec::with_capacity(HEADER_BYTES + tenant.len() + plain.len() + AES_256_GCM.tag_len());
        value.push(VERSION);
        value.extend_from_slice(&self.current.id.0);
        value.extend_from_slice(&nonce);
        value.push(length);
        value.extend_from_slice(tenant.as_bytes());
        let begin = value.len();
        value.extend_from_slice(plain);
        let aad = Aad::from(place.associated(tenant.as_bytes()));
        let tag = self
            .current
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                aad,
                &mut value[begin..],
            )
            .map_err(|_| SealError::Cipher)?;
        value.extend_from_slice(tag.as_ref());
        Ok(value)
    }

    /// Opens a value at its place.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, place: Place<'_>, value: &[u8]) -> Result<Opened, OpenError> {
        let (header, rest) = value
            .split_at_checked(HEADER_BYTES)
            .ok_or(OpenError::Form)?;
        let (id, header) = match header.split_first() {
            Some((&VERSION, rest)) => rest.split_at_checked(ID_BYTES).ok_or(OpenError::Form)?,
            _ => return Err(OpenError::Form),
        };
        let (nonce, length) = header.split_at_checked(NONCE_LEN).ok_or(OpenError::Form)?;
        let id = KeyId(id.try_into().map_err(|_| OpenError::Form)?);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| OpenError::Form)?;
        let length = length.first().copied().ok_or(OpenError::Form)?;
        let (tenant, sealed) = rest
            .split_at_checked(usize::from(length))
            .ok_or(OpenError::Form)?;
        let key = [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| key.id == id)
            .ok_or(OpenError::UnknownKey(id))?;
        let mut plain = sealed.to_vec();
        let aad = Aad::from(place.associated(tenant));
        let length = key
            .key
            .open_in_place(nonce, aad, &mut plain)
            .map_err(|_| OpenError::Forged)?
            .len();
        plain.truncate(length);
        let tenant = String::from_utf8(tenant.to_vec()).map_err(|_| OpenError::Form)?;
        Ok(Opened { tenant, plain })
    }

    /// Whether a value is sealed with the present key; one of the previous key is to be sealed again.
    #[must_use]
    pub fn is_current(&self, value: &[u8]) -> bool {
        value.first() == Some(&VERSION) && value.get(1..=ID_BYTES) == Some(&self.current.id.0[..])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Place<'static> = Place {
        kind: RecordKind::Tenant,
        uid: "u1",
        revision: "r1",
    };

    fn keys(bytes: &[u8]) -> SealKeys {
        SealKeys::new(bytes).expect("a key")
    }

    #[test]
    fn a_value_opens_with_its_key_at_its_place_and_nowhere_else() {
        let own = keys(&[1; 32]);
        let value = own.seal(PLACE, "school", b"secret").expect("sealed");
        assert!(!value.windows(6).any(|part| part == b"secret"));
        let opened = own.open(PLACE, &value).expect("opened");
        assert_eq!(
            (opened.tenant.as_str(), opened.plain.as_slice()),
            ("school", &b"secret"[..])
        );
        for elsewhere in [
            Place { uid: "u2", ..PLACE },
            Place {
                revision: "r2",
                ..PLACE
            },
            Place {
                kind: RecordKind::Conference,
                ..PLACE
            },
            // The same bytes, divided otherwise.
            Place {
                uid: "u1r",
                revision: "1",
                ..PLACE
            },
        ] {
            assert_eq!(own.open(elsewhere, &value), Err(OpenError::Forged));
        }
        let OpenError::UnknownKey(id) = keys(&[2; 32]).open(PLACE, &value).expect_err("refused")
        else {
            panic!("another key");
        };
        assert_eq!(id, own.current.id);
    }

    #[test]
    fn a_value_of_the_previous_key_opens_and_is_to_be_sealed_again() {
        let value = keys(&[1; 32]).seal(PLACE, "school", b"x").expect("sealed");
        let mut both = vec![2; 32];
        both.extend([1; 32]);
        let both = keys(&both);
        assert!(!both.is_current(&value));
        assert_eq!(both.open(PLACE, &value).expect("opened").plain, b"x");
        let again = both.seal(PLACE, "school", b"x").expect("sealed");
        assert!(both.is_current(&again) && keys(&[2; 32]).is_current(&again));
    }

    #[test]
    fn two_seals_of_one_value_have_nothing_in_common_to_be_recognised_by() {
        let own = keys(&[1; 32]);
        let seal = || own.seal(PLACE, "", &[0; 64]).expect("sealed");
        assert_ne!(seal()[HEADER_BYTES..], seal()[HEADER_BYTES..]);
    }

    #[test]
    fn a_key_file_holds_one_key_or_two() {
        let path = std::env::temp_dir().join(format!("plenum-seal-{}", std::process::id()));
        for (bytes, taken) in [
            (31, false),
            (32, true),
            (33, false),
            (64, true),
            (65, false),
        ] {
            std::fs::write(&path, vec![7; bytes]).expect("written");
            let read = SealKeys::read(&path);
            assert_eq!(read.is_ok(), taken, "{bytes}: {read:?}");
            if let Err(error) = read {
                assert!(
                    error.to_string().contains(&format!("{bytes} bytes")),
                    "{error}"
                );
            }
        }
        std::fs::remove_file(&path).expect("removed");
        let absent = SealKeys::read(&path).expect_err("gone");
        assert!(absent.to_string().contains("cannot be read"), "{absent}");
    }

    #[test]
    fn keys_do_not_print() {
        let text = format!("{:?}", keys(&[7; 32]));
        assert!(!text.contains("7, 7"), "{text}");
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(tenant in "[a-z]{0,60}", plain in proptest::collection::vec(any::<u8>(), 0..300)) {
            let own = keys(&[3; 32]);
            let value = own.seal(PLACE, &tenant, &plain).expect("sealed");
            prop_assert_eq!(own.open(PLACE, &value), Ok(Opened { tenant, plain }));
        }

        #[test]
        fn a_changed_byte_opens_nothing(at in any::<proptest::sample::Index>(), bit in 0_u8..8, plain in "[a-z]{0,40}") {
            let own = keys(&[3; 32]);
            let mut value = own.seal(PLACE, "school", plain.as_bytes()).expect("sealed");
            let at = at.index(value.len());
            value[at] ^= 1 << bit;
            prop_assert!(own.open(PLACE, &value).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let own = keys(&[3; 32]);
            prop_assert!(own.open(PLACE, &bytes).is_err());
            let mut ours = own.current.id.0.to_vec();
            ours.insert(0, VERSION);
            ours.extend(bytes);
            prop_assert!(own.open(PLACE, &ours).is_err());
        }
    }
}

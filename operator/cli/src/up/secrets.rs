// SPDX-License-Identifier: EUPL-1.2
//! Secrets that nobody has declared: made once, kept in the state directory, the same after every start.

use std::{collections::BTreeMap, path::PathBuf};

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use data_encoding::HEXLOWER;
use operator_core::{
    Confidential, Generated, Name, SecretKey, Wants,
    tenant::secrets::{self, LINK_KEY_BYTES},
};
use serde::{Deserialize, Serialize};

use super::state_dir::{StateDir, StateError};

const FILE: &str = "secrets.json";

/// What is kept.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    /// How often the system was started; part of every epoch.
    starts: u64,
    /// Base64 by tenant.
    link_keys: BTreeMap<String, String>,
    /// By `namespace/name` of the conference.
    passwords: BTreeMap<String, String>,
    /// By `namespace/name/key` of the Secret.
    opener_keys: BTreeMap<String, String>,
}

/// The Secrets of a state directory.
pub(crate) struct Secrets {
    kept: Kept,
}

/// Why Secrets cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretsError {
    /// The directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The file was changed by hand.
    #[error("{path}: {source}; restore it, or remove it: links and passwords are then made anew")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// No randomness.
    #[error("the system gives no random numbers")]
    Random,
}

impl Secrets {
    /// Reads what is kept, and counts this start.
    pub(crate) fn open(dir: &StateDir) -> Result<Self, SecretsError> {
        let kept = match dir.read(FILE)? {
            None => Kept::default(),
            Some(text) => {
                serde_json::from_slice(&text).map_err(|source| SecretsError::Unreadable {
                    path: dir.path().join(FILE),
                    source,
                })?
            }
        };
        let mut secrets = Self { kept };
        secrets.kept.starts += 1;
        secrets.save(dir)?;
        Ok(secrets)
    }

    fn save(&self, dir: &StateDir) -> Result<(), SecretsError> {
        let text = serde_json::to_vec_pretty(&self.kept).expect("invariant: maps of text are JSON");
        dir.write(FILE, &text)?;
        Ok(())
    }

    /// Number of this start, from 1.
    pub(crate) fn starts(&self) -> u64 {
        self.kept.starts
    }

    /// Everything that is wanted; what is not there yet is made and kept. What is no longer wanted stays, so that links
    /// and passwords come back with their conference.
    pub(crate) fn generate(
        &mut self,
        dir: &StateDir,
        wants: &Wants,
    ) -> Result<Generated, SecretsError> {
        let mut generated = Generated::default();
        let mut made = false;
        for tenant in &wants.link_keys {
            let entry = kept_or(&mut self.kept.link_keys, tenant.clone(), &mut made, || {
                Ok(STANDARD.encode(random::<LINK_KEY_BYTES>()?))
            })?;
            let key = STANDARD
                .decode(entry)
                .map_err(|_| SecretsError::Unreadable {
                    path: dir.path().join(FILE),
                    source: serde::de::Error::custom(format!("linkKeys of {tenant} is no base64")),
                })?;
            generated
                .link_keys
                .insert(tenant.clone(), Confidential(key));
        }
        for name in &wants.passwords {
            let entry = kept_or(
                &mut self.kept.passwords,
                name.to_string(),
                &mut made,
                || Ok(secrets::password(&random()?)),
            )?;
            generated
                .passwords
                .insert(Name::clone(name), Confidential(entry));
        }
        for key in &wants.opener_keys {
            let SecretKey { secret, key: part } = key;
            let entry = kept_or(
                &mut self.kept.opener_keys,
                format!("{secret}/{part}"),
                &mut made,
                || Ok(secrets::opener_key(&random()?)),
            )?;
            generated
                .opener_keys
                .insert(key.clone(), Confidential(entry));
        }
        if made {
            self.save(dir)?;
        }
        Ok(generated)
    }

    /// The file with the key of the control plane's own tokens.
    pub(crate) fn installation_key(dir: &StateDir) -> Result<PathBuf, SecretsError> {
        key_file(dir, "installation.key", |bytes| bytes >= 32)
    }

    /// The file with the key that seals secrets in the store.
    pub(crate) fn seal_key(dir: &StateDir) -> Result<PathBuf, SecretsError> {
        key_file(dir, "seal.key", |bytes| bytes == 32)
    }

    /// Part of every key in a store that several systems share: the same after every start, and nobody else's.
    pub(crate) fn namespace(dir: &StateDir) -> Result<String, SecretsError> {
        let key = dir.read("installation.key")?.unwrap_or_default();
        let digest = digest(&SHA256, &[b"plenum namespace\0".as_slice(), &key].concat());
        Ok(format!("up-{}", HEXLOWER.encode(&digest.as_ref()[..8])))
    }
}

fn key_file(
    dir: &StateDir,
    name: &str,
    fits: impl Fn(usize) -> bool,
) -> Result<PathBuf, SecretsError> {
    match dir.read(name)? {
        Some(key) if fits(key.len()) => Ok(dir.path().join(name)),
        _ => Ok(dir.write(name, &random::<32>()?)?),
    }
}

fn kept_or(
    kept: &mut BTreeMap<String, String>,
    at: String,
    made: &mut bool,
    make: impl FnOnce() -> Result<String, SecretsError>,
) -> Result<String, SecretsError> {
    if let Some(value) = kept.get(&at) {
        return Ok(value.clone());
    }
    let value = make()?;
    *made = true;
    kept.insert(at, value.clone());
    Ok(value)
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], SecretsError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| SecretsError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_stays_the_same_after_a_restart() {
        let base = std::env::temp_dir().join(format!("plenum-secrets-{}", std::process::id()));
        let wants = Wants {
            link_keys: vec!["town".into()],
            passwords: vec![Name::new("tenant-town", "council")],
            opener_keys: vec![SecretKey {
                secret: Name::new("tenant-town", "opener"),
                key: "key".into(),
            }],
            nodes: Vec::new(),
        };
        let dir = StateDir::open(&base).expect("a directory");
        let mut secrets = Secrets::open(&dir).expect("new");
        let first = secrets.generate(&dir, &wants).expect("made");
        secrets
            .generate(&dir, &Wants::default())
            .expect("nothing wanted");
        drop(dir);
        let dir = StateDir::open(&base).expect("the directory");
        let mut secrets = Secrets::open(&dir).expect("kept");
        assert_eq!(secrets.starts(), 2);
        assert_eq!(secrets.generate(&dir, &wants).expect("kept"), first);
        std::fs::write(dir.path().join(FILE), b"{").expect("a broken file");
        assert!(matches!(
            Secrets::open(&dir),
            Err(SecretsError::Unreadable { .. })
        ));
        drop(dir);
        std::fs::remove_dir_all(&base).expect("gone");
    }
}

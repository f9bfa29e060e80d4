// SPDX-License-Identifier: EUPL-1.2
//! Crypto backends of `media-core`, shared by the node, the load client and the simulation: AES-GCM, HMAC and randomness from
//! aws-lc, DTLS 1.2 from `rtc-dtls`.

mod aead;
mod dtls;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::{digest, hmac};
use media_core::api::Fingerprint;
use media_core::crypto::{Crypto, SrtpKeys, SrtpProfile};
use media_core::time::Timestamp;

pub use aead::Gcm;
pub use dtls::{AEAD_PROFILES, Certificate, Dtls, DtlsError, LEGACY_PROFILES, Role};

/// The backend of the node.
pub struct AwsLc {
    certificate: Arc<Certificate>,
    random: Random,
    profiles: &'static [SrtpProfile],
    /// Set from outside: associations that begin while it is true also allow the SHA1 profile.
    legacy: Arc<AtomicBool>,
    /// Stands for [`Timestamp::ZERO`].
    base: Instant,
}

/// Where randomness comes from.
enum Random {
    System(SystemRandom),
    /// Simulation only: a counter hashed with the seed.
    Seeded {
        seed: u64,
        counter: u64,
    },
}

impl AwsLc {
    /// `legacy` also allows the SHA1 profile (`MediaPool.spec.security.srtpLegacy: Allowed`).
    #[must_use]
    pub fn new(certificate: Arc<Certificate>, legacy: bool) -> Self {
        Self {
            certificate,
            random: Random::System(SystemRandom::new()),
            profiles: if legacy {
                LEGACY_PROFILES
            } else {
                AEAD_PROFILES
            },
            legacy: Arc::default(),
            base: Instant::now(),
        }
    }

    /// With a switch for the SHA1 profile that may be thrown while associations live; those that begin afterwards follow it.
    #[must_use]
    pub fn with_legacy_switch(certificate: Arc<Certificate>, legacy: Arc<AtomicBool>) -> Self {
        Self {
            legacy,
            ..Self::new(certificate, false)
        }
    }

    /// Predictable credentials and identifiers for simulations. Keys of DTLS stay random.
    #[must_use]
    pub fn seeded(certificate: Arc<Certificate>, seed: u64) -> Self {
        Self {
            certificate,
            random: Random::Seeded { seed, counter: 0 },
            profiles: AEAD_PROFILES,
            legacy: Arc::default(),
            base: Instant::now(),
        }
    }

    /// A DTLS association in the client role, for load clients and simulations.
    #[must_use]
    pub fn dtls_client(&self, remote: Fingerprint, now: Timestamp) -> Dtls {
        Dtls::new(
            Role::Client,
            Arc::clone(&self.certificate),
            remote,
            self.profiles,
            now,
        )
    }
}

impl Crypto for AwsLc {
    type Aead = Gcm;
    type Dtls = Dtls;

    fn aes_block(key: &[u8], block: &mut [u8; 16]) {
        let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
        let key =
            UnboundCipherKey::new(algorithm, key).expect("invariant: AES keys have 16 or 32 bytes");
        let key = EncryptingKey::ecb(key).expect("invariant: ECB takes any AES key");
        key.encrypt(block).expect("invariant: one whole block");
    }

    fn hmac_sha1(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
        let mut context = hmac::Context::with_key(&key);
        for part in parts {
            context.update(part);
        }
        context
            .sign()
            .as_ref()
            .try_into()
            .expect("invariant: SHA-1 gives 20 bytes")
    }

    fn aes_ctr(key: &[u8], iv: &[u8; 16], text: &mut [u8]) {
        let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
        let key =
            UnboundCipherKey::new(algorithm, key).expect("invariant: AES keys have 16 or 32 bytes");
        let key = EncryptingKey::ctr(key).expect("invariant: CTR takes any AES key");
        key.less_safe_encrypt(text, EncryptionContext::Iv128(FixedLength::from(iv)))
            .expect("invariant: CTR takes any length");
    }

    fn random(&mut self, bytes: &mut [u8]) {
        match &mut self.random {
            Random::System(system) => system
                .fill(bytes)
                .expect("invariant: the system's random generator works"),
            Random::Seeded { seed, counter } => {
                for chunk in bytes.chunks_mut(32) {
                    let mut input = [0; 16];
                    input[..8].copy_from_slice(&seed.to_be_bytes());
                    input[8..].copy_from_slice(&counter.to_be_bytes());
                    *counter += 1;
                    let hash = digest::digest(&digest::SHA256, &input);
                    chunk.copy_from_slice(&hash.as_ref()[..chunk.len()]);
                }
            }
        }
    }

    fn dtls_server(&mut self, remote: Fingerprint, now: Timestamp) -> Dtls {
        Dtls::new(
            Role::Server,
            Arc::clone(&self.certificate),
            remote,
            if self.legacy.load(Ordering::Relaxed) {
                LEGACY_PROFILES
            } else {
                self.profiles
            },
            now,
        )
    }

    fn dtls_import(
        &mut self,
        remote: Fingerprint,
        exported: &[u8],
        now: Timestamp,
    ) -> Option<(Dtls, SrtpKeys)> {
        Dtls::import(
            Arc::clone(&self.certificate),
            remote,
            self.profiles,
            exported,
            now,
        )
    }

    fn instant(&self, now: Timestamp) -> Instant {
        self.base + now.since(Timestamp::ZERO)
    }

    fn timestamp(&self, instant: Instant) -> Timestamp {
        Timestamp::ZERO + instant.saturating_duration_since(self.base)
    }

    fn local_fingerprint(&self) -> Fingerprint {
        self.certificate.fingerprint()
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! Cryptography as traits: the core names no backend. `media-crypto` implements them on aws-lc and rtc-dtls.

use std::fmt;
use std::time::Instant;

use crate::api::Fingerprint;
use crate::time::Timestamp;

/// SRTP protection profiles that may be negotiated (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SrtpProfile {
    /// `SRTP_AEAD_AES_256_GCM`.
    AeadAes256Gcm,
    /// `SRTP_AEAD_AES_128_GCM`.
    AeadAes128Gcm,
    /// `SRTP_AES128_CM_HMAC_SHA1_80`: only by explicit configuration.
    Aes128CmSha1_80,
}

impl SrtpProfile {
    /// Bytes of a master key.
    #[must_use]
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::AeadAes256Gcm => 32,
            Self::AeadAes128Gcm | Self::Aes128CmSha1_80 => 16,
        }
    }

    /// Bytes of a master salt.
    #[must_use]
    pub const fn salt_bytes(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 12,
            Self::Aes128CmSha1_80 => 14,
        }
    }

    /// Metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::AeadAes256Gcm => "aead_aes_256_gcm",
            Self::AeadAes128Gcm => "aead_aes_128_gcm",
            Self::Aes128CmSha1_80 => "aes128_cm_sha1_80",
        }
    }
}

/// One direction's master key and salt; prints nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey {
    /// Key, [`SrtpProfile::key_bytes`] long.
    pub key: Vec<u8>,
    /// Salt, [`SrtpProfile::salt_bytes`] long.
    pub salt: Vec<u8>,
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// What DTLS exports for SRTP (RFC 5764 §4.2), seen from the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrtpKeys {
    /// Negotiated profile.
    pub profile: SrtpProfile,
    /// Protects what the node sends.
    pub local: MasterKey,
    /// Protects what the node receives.
    pub remote: MasterKey,
}

/// Authentication failed; nothing else may be learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("authentication failed")]
pub struct Unauthentic;

/// Bytes of a GCM tag.
pub const TAG_BYTES: usize = 16;

/// AES-GCM with one key. Implementations hold the expanded key; sealing and opening never allocate.
pub trait AeadKey: Send + Sized {
    /// `key` is 16 or 32 bytes; anything else is a bug of the caller.
    fn new(key: &[u8]) -> Self;

    /// Encrypts `text` in place and writes the tag.
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8], tag: &mut [u8; TAG_BYTES]);

    /// Opens `text` (ciphertext with the tag at its end) in place; the plaintext is `text.len() - 16` long. On failure the content
    /// of `text` is unspecified.
    ///
    /// # Errors
    /// [`Unauthentic`].
    fn open(&self, nonce: &[u8; 12], aad: &[u8], text: &mut [u8]) -> Result<(), Unauthentic>;
}

/// What the core needs of a crypto backend, resolved at compile time.
pub trait Crypto: Send + 'static {
    /// AES-GCM keys.
    type Aead: AeadKey;
    /// DTLS server associations.
    type Dtls: DtlsServer;

    /// Encrypts one AES block in place (key of 16 or 32 bytes): the pseudo-random function of SRTP's key derivation (RFC 3711 §4.3.3).
    fn aes_block(key: &[u8], block: &mut [u8; 16]);

    /// HMAC-SHA1 (STUN message integrity, RFC 8489 §14.5; the SHA1 profile of SRTP).
    fn hmac_sha1(key: &[u8], parts: &[&[u8]]) -> [u8; 20];

    /// AES-CTR in place (the SHA1 profile of SRTP only).
    fn aes_ctr(key: &[u8], iv: &[u8; 16], text: &mut [u8]);

    /// Fills `bytes` with randomness. A simulation seeds it.
    fn random(&mut self, bytes: &mut [u8]);

    /// Begins a DTLS association in the server role that accepts only a client certificate with `remote`.
    fn dtls_server(&mut self, remote: Fingerprint, now: Timestamp) -> Self::Dtls;

    /// Goes on with an association that [`DtlsServer::export`] gave away; `None` when it cannot be read or is another client's.
    fn dtls_import(
        &mut self,
        remote: Fingerprint,
        exported: &[u8],
        now: Timestamp,
    ) -> Option<(Self::Dtls, SrtpKeys)>;

    /// `now` as the `Instant` that libraries below want; a fixed offset, no clock is read.
    fn instant(&self, now: Timestamp) -> Instant;

    /// The inverse of [`Crypto::instant`].
    fn timestamp(&self, instant: Instant) -> Timestamp;

    /// SHA-256 fingerprint of the node's DTLS certificate.
    fn local_fingerprint(&self) -> Fingerprint;
}

/// What a DTLS association says after being fed.
#[derive(Debug)]
pub enum DtlsOutput {
    /// A datagram for the other side.
    Datagram(Vec<u8>),
    /// The handshake is complete, the fingerprint matched, the profile is allowed. Said once.
    Connected(SrtpKeys),
    /// Decrypted application data: one SCTP packet.
    Data(Vec<u8>),
    /// The other side closed (close_notify).
    Closed,
    /// The association failed for good; nothing follows.
    Failed(DtlsFailure),
}

/// Why a DTLS association failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DtlsFailure {
    /// The certificate does not match the fingerprint of the SDP.
    #[error("the certificate does not match the fingerprint of the session description")]
    Fingerprint,
    /// No common AEAD profile.
    #[error("no SRTP profile with AES-GCM in common")]
    Profile,
    /// A fatal alert, a broken record, a bound reached.
    #[error("the handshake failed")]
    Handshake,
    /// The handshake did not complete in time.
    #[error("the handshake did not complete in time")]
    Timeout,
}

/// A DTLS association in the server role, without sockets. It re-sends its last flight by itself (`decisions.md` §3.10).
pub trait DtlsServer: Send {
    /// Feeds one datagram (one or more records).
    fn handle_datagram(&mut self, now: Timestamp, datagram: &[u8]);
    /// To be called at [`DtlsServer::poll_deadline`].
    fn handle_timeout(&mut self, now: Timestamp);
    /// When [`DtlsServer::handle_timeout`] wants to be called.
    fn poll_deadline(&self) -> Option<Timestamp>;
    /// Next output; to be drained after each call.
    fn poll_output(&mut self) -> Option<DtlsOutput>;
    /// Encrypts one SCTP packet; dropped before the handshake is complete.
    fn send(&mut self, now: Timestamp, data: &[u8]);
    /// Sends close_notify.
    fn close(&mut self, now: Timestamp);
    /// State for a hand-over: opaque, versioned. It is a move: nothing is sealed here afterwards. `None` while the handshake runs
    /// or when the backend cannot.
    fn export(&mut self) -> Option<Vec<u8>>;
}

// SPDX-License-Identifier: EUPL-1.2
//! DTLS 1.2 on `rtc-dtls`, driven so that no lost datagram hangs a handshake.
//!
//! The crate clears its retransmission timer on any handshake record, also on one that brings nothing forward; with its reply
//! lost, both ends then wait for ever. So its own timer is set out of the way, and [`Dtls`] keeps the datagrams of the last flight
//! and sends them again when the other side repeats itself and on a timer of its own that backs off from 200 ms. Repeating the same
//! records is right: whoever received them drops them in its replay window, whoever did not takes them.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use bytes::BytesMut;
use media_core::api::Fingerprint;
use media_core::crypto::{DtlsFailure, DtlsOutput, DtlsServer, MasterKey, SrtpKeys, SrtpProfile};
use media_core::time::Timestamp;
use rtc_dtls::cipher_suite::CipherSuiteId;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::crypto_provider::RTCCryptoProvider;
use rtc_dtls::crypto_provider::providers::AwsLcRsProvider;
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_dtls::state::State;
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error as RtcError;

/// First wait of the re-sender.
const RESEND_START: Duration = Duration::from_millis(200);
/// Longest wait of the re-sender.
const RESEND_MAX: Duration = Duration::from_secs(2);
/// Repeated messages of the other side are answered at most this often.
const REPEAT_GAP: Duration = Duration::from_millis(40);
/// Repeated messages answered in all, so that a forger of handshake records cannot amplify without limit.
const REPEATS_MAX: u32 = 64;
/// A handshake that takes longer has failed.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// Handshake bytes taken before completion: a certificate chain of WebRTC has below 2 kB.
const HANDSHAKE_BYTES_MAX: usize = 64 * 1024;
/// Datagrams of a hello that are kept: post-quantum hellos take two.
const HELLO_DATAGRAMS_MAX: usize = 16;
/// First byte of an exported state.
const EXPORT_VERSION: u8 = 1;
/// Longer than any handshake: keeps the crate's own timer quiet.
const QUIET: Duration = Duration::from_secs(3600);

const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum DtlsError {
    /// The key or certificate could not be generated.
    #[error("cannot make a DTLS certificate: {0}")]
    Certificate(String),
}

/// A self-signed certificate with its key, made at start and never written anywhere.
pub struct Certificate {
    inner: rtc_dtls::crypto::Certificate,
    fingerprint: Fingerprint,
    provider: Arc<dyn RTCCryptoProvider>,
    /// What every association in the server role shares.
    server: OnceLock<Option<Arc<HandshakeConfig>>>,
}

/// Profiles of a node: AES-GCM alone.
pub const AEAD_PROFILES: &[SrtpProfile] = &[SrtpProfile::AeadAes256Gcm, SrtpProfile::AeadAes128Gcm];
/// Profiles of a pool that allows the SHA1 profile to clients without AES-GCM.
pub const LEGACY_PROFILES: &[SrtpProfile] = &[
    SrtpProfile::AeadAes256Gcm,
    SrtpProfile::AeadAes128Gcm,
    SrtpProfile::Aes128CmSha1_80,
];

impl Certificate {
    /// Generates an ECDSA P-256 certificate.
    ///
    /// # Errors
    /// When the key cannot be generated.
    pub fn generate() -> Result<Self, DtlsError> {
        let provider: Arc<dyn RTCCryptoProvider> = Arc::new(AwsLcRsProvider::new());
        let inner = rtc_dtls::crypto::Certificate::generate_self_signed_with_alg(
            vec!["plenum".to_owned()],
            &rcgen::PKCS_ECDSA_P256_SHA256,
            provider.crypto(),
        )
        .map_err(|error| DtlsError::Certificate(error.to_string()))?;
        let fingerprint = fingerprint_of(
            inner
                .certificate
                .first()
                .map_or(&[][..], |der| der.as_ref()),
        );
        Ok(Self {
            inner,
            fingerprint,
            provider,
            server: OnceLock::new(),
        })
    }

    /// SHA-256 over the DER form.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

fn fingerprint_of(der: &[u8]) -> Fingerprint {
    Fingerprint(
        digest::digest(&digest::SHA256, der)
            .as_ref()
            .try_into()
            .expect("invariant: SHA-256 gives 32 bytes"),
    )
}

/// Role of an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Answers a ClientHello; what the node does.
    Server,
    /// Sends the ClientHello; what clients do.
    Client,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshake,
    Connected,
    Ended,
}

/// One association. About 11 kB on the heap.
pub struct Dtls {
    endpoint: Endpoint,
    role: Role,
    expected: Fingerprint,
    profiles: &'static [SrtpProfile],
    certificate: Arc<Certificate>,
    /// The client's first datagrams, while it may turn out that it knows the SHA1 profile only.
    hello: Vec<Vec<u8>>,
    phase: Phase,
    /// The crate wants an `Instant`; this one stands for `started`.
    base: Instant,
    started: Timestamp,
    handshake_bytes: usize,
    flight: Vec<Vec<u8>>,
    resend_at: Option<Timestamp>,
    resend_after: Duration,
    resent_at: Timestamp,
    repeats: u32,
    output: VecDeque<DtlsOutput>,
}

impl Dtls {
    /// Begins. A client's first flight is ready at once and offers `profiles` in their order. A server takes AES-GCM whatever the
    /// order of the client, and what `profiles` names beyond it only from a client that offers no AES-GCM.
    #[must_use]
    pub fn new(
        role: Role,
        certificate: Arc<Certificate>,
        expected: Fingerprint,
        profiles: &'static [SrtpProfile],
        now: Timestamp,
    ) -> Self {
        let config = match role {
            // The library follows the client's order, so the first try knows nothing but AES-GCM.
            Role::Server => certificate
                .server
                .get_or_init(|| config(role, &certificate, AEAD_PROFILES))
                .clone(),
            Role::Client => config(role, &certificate, profiles),
        };
        let server = config.clone().filter(|_| role == Role::Server);
        let mut dtls = Self::bare(role, certificate, expected, profiles, server, now);
        match config {
            None => dtls.fail(now, DtlsFailure::Handshake),
            Some(config) if role == Role::Client => {
                if dtls
                    .endpoint
                    .connect(dtls.base, peer(), config, None)
                    .is_err()
                {
                    dtls.fail(now, DtlsFailure::Handshake);
                }
                dtls.collect(now);
            }
            Some(_) => {}
        }
        dtls
    }

    fn bare(
        role: Role,
        certificate: Arc<Certificate>,
        expected: Fingerprint,
        profiles: &'static [SrtpProfile],
        server: Option<Arc<HandshakeConfig>>,
        now: Timestamp,
    ) -> Self {
        Self {
            endpoint: Endpoint::new(peer(), TransportProtocol::UDP, server),
            role,
            expected,
            profiles,
            certificate,
            hello: Vec::new(),
            phase: Phase::Handshake,
            base: Instant::now(),
            started: now,
            handshake_bytes: 0,
            flight: Vec::new(),
            resend_at: None,
            resend_after: RESEND_START,
            resent_at: now,
            repeats: 0,
            output: VecDeque::new(),
        }
    }

    /// Goes on with an association that another process exported, in the server role. `None` when the state cannot be read or
    /// belongs to another client.
    #[must_use]
    pub fn import(
        certificate: Arc<Certificate>,
        expected: Fingerprint,
        profiles: &'static [SrtpProfile],
        exported: &[u8],
        now: Timestamp,
    ) -> Option<(Self, SrtpKeys)> {
        let (version, exported) = exported.split_first()?;
        if *version != EXPORT_VERSION {
            return None;
        }
        let mut state = State::new(Arc::clone(&certificate.provider), false);
        // The archive wants to be aligned, and an allocation of its own is.
        let aligned = exported.to_vec();
        state.unmarshal_binary(&aligned).ok()?;
        if state.is_client() {
            return None;
        }
        let config = config(Role::Server, &certificate, AEAD_PROFILES)?;
        let mut dtls = Self::bare(Role::Server, certificate, expected, profiles, None, now);
        // With a state of its own `connect` continues, whatever the role.
        dtls.endpoint
            .connect(dtls.base, peer(), config, Some(state))
            .ok()?;
        dtls.phase = Phase::Connected;
        let keys = dtls.keys().ok()?;
        Some((dtls, keys))
    }

    /// Fingerprint of the own certificate.
    #[must_use]
    pub fn local_fingerprint(&self) -> Fingerprint {
        self.certificate.fingerprint()
    }

    fn instant(&self, now: Timestamp) -> Instant {
        self.base + now.since(self.started)
    }

    /// Takes what the endpoint wants sent. During the handshake it is the flight to repeat.
    fn collect(&mut self, now: Timestamp) -> bool {
        let mut sent = Vec::new();
        while let Some(message) = self.endpoint.poll_transmit() {
            sent.push(message.message.to_vec());
        }
        if sent.is_empty() {
            return false;
        }
        if self.phase == Phase::Handshake {
            self.hello.clear();
            self.flight.clone_from(&sent);
            self.resend_after = RESEND_START;
            self.resend_at = Some(now + self.resend_after);
            self.resent_at = now;
        }
        self.output
            .extend(sent.into_iter().map(DtlsOutput::Datagram));
        true
    }

    /// Before the server has answered anything it can still begin anew with another list of profiles.
    fn may_fall_back(&self) -> bool {
        self.role == Role::Server
            && self.phase == Phase::Handshake
            && self.flight.is_empty()
            && self.hello.len() < HELLO_DATAGRAMS_MAX
            && self.profiles.contains(&SrtpProfile::Aes128CmSha1_80)
    }

    /// The client offers no AES-GCM: the same hello once more, to an endpoint that knows the SHA1 profile.
    fn fall_back(&mut self, now: Instant) -> Result<Vec<EndpointEvent>, RtcError> {
        let config = config(
            Role::Server,
            &self.certificate,
            &[SrtpProfile::Aes128CmSha1_80],
        );
        self.endpoint = Endpoint::new(peer(), TransportProtocol::UDP, config);
        let mut events = Vec::new();
        for datagram in std::mem::take(&mut self.hello) {
            events = self
                .endpoint
                .read(now, peer(), None, BytesMut::from(datagram.as_slice()))?;
        }
        Ok(events)
    }

    fn resend(&mut self, now: Timestamp) {
        self.resent_at = now;
        self.output
            .extend(self.flight.iter().cloned().map(DtlsOutput::Datagram));
    }

    fn fail(&mut self, now: Timestamp, failure: DtlsFailure) {
        if self.phase == Phase::Ended {
            return;
        }
        // Without it two ends answer each other's alerts for ever.
        let instant = self.instant(now);
        let _ = self.endpoint.stop(instant, peer());
        self.phase = Phase::Ended;
        self.resend_at = None;
        self.flight.clear();
        while let Some(message) = self.endpoint.poll_transmit() {
            self.output
                .push_back(DtlsOutput::Datagram(message.message.to_vec()));
        }
        self.output.push_back(DtlsOutput::Failed(failure));
    }

    fn complete(&mut self, now: Timestamp) {
        match self.keys() {
            Ok(keys) => {
                self.phase = Phase::Connected;
                self.resend_at = None;
                if self.role == Role::Client {
                    self.flight.clear();
                }
                self.output.push_back(DtlsOutput::Connected(keys));
            }
            Err(failure) => self.fail(now, failure),
        }
    }

    fn keys(&self) -> Result<SrtpKeys, DtlsFailure> {
        let state = self
            .endpoint
            .get_connection_state(peer())
            .ok_or(DtlsFailure::Handshake)?;
        let der = state
            .peer_certificates
            .first()
            .ok_or(DtlsFailure::Fingerprint)?;
        if fingerprint_of(der) != self.expected {
            return Err(DtlsFailure::Fingerprint);
        }
        let profile = match state.srtp_protection_profile() {
            SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm => SrtpProfile::AeadAes256Gcm,
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => SrtpProfile::AeadAes128Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => SrtpProfile::Aes128CmSha1_80,
            _ => return Err(DtlsFailure::Profile),
        };
        if !self.profiles.contains(&profile) {
            return Err(DtlsFailure::Profile);
        }
        let (key, salt) = (profile.key_bytes(), profile.salt_bytes());
        let material = state
            .export_keying_material(EXPORTER_LABEL, &[], 2 * (key + salt))
            .map_err(|_| DtlsFailure::Handshake)?;
        let bytes: &[u8] = material.as_ref();
        // RFC 5764 §4.2: client key, server key, client salt, server salt.
        let master = |index: usize| MasterKey {
            key: bytes[index * key..(index + 1) * key].to_vec(),
            salt: bytes[2 * key + index * salt..2 * key + (index + 1) * salt].to_vec(),
        };
        let (local, remote) = match self.role {
            Role::Client => (master(0), master(1)),
            Role::Server => (master(1), master(0)),
        };
        Ok(SrtpKeys {
            profile,
            local,
            remote,
        })
    }
}

/// The endpoint tells associations apart by address; this one has a single association, which moves between paths.
fn peer() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 9))
}

fn config(
    role: Role,
    certificate: &Certificate,
    profiles: &[SrtpProfile],
) -> Option<Arc<HandshakeConfig>> {
    let profiles = profiles
        .iter()
        .map(|profile| match profile {
            SrtpProfile::AeadAes256Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
            SrtpProfile::AeadAes128Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            SrtpProfile::Aes128CmSha1_80 => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        })
        .collect();
    ConfigBuilder::default()
        .with_crypto_provider(Arc::clone(&certificate.provider))
        .with_certificates(vec![certificate.inner.clone()])
        .with_cipher_suites(vec![CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256])
        .with_srtp_protection_profiles(profiles)
        .with_client_auth(ClientAuthType::RequireAnyClientCert)
        .with_extended_master_secret(ExtendedMasterSecretType::Require)
        // Certificates are judged by the fingerprint of the session description, not by a chain.
        .with_insecure_skip_verify(true)
        .with_flight_interval(QUIET)
        .build(role == Role::Client, None)
        .ok()
        .map(Arc::new)
}

/// Does the datagram hold a handshake record (content type 22) of any epoch?
fn has_handshake(mut datagram: &[u8]) -> bool {
    while let [kind, _, _, _, _, _, _, _, _, _, _, high, low, ..] = *datagram {
        if kind == 22 {
            return true;
        }
        let end = 13 + usize::from(u16::from_be_bytes([high, low]));
        datagram = datagram.get(end..).unwrap_or_default();
    }
    false
}

impl DtlsServer for Dtls {
    fn handle_datagram(&mut self, now: Timestamp, datagram: &[u8]) {
        if self.phase == Phase::Ended {
            return;
        }
        if self.phase == Phase::Handshake {
            self.handshake_bytes += datagram.len();
            if self.handshake_bytes > HANDSHAKE_BYTES_MAX {
                self.fail(now, DtlsFailure::Handshake);
                return;
            }
        }
        let instant = self.instant(now);
        if self.may_fall_back() {
            self.hello.push(datagram.to_vec());
        }
        let mut result = self
            .endpoint
            .read(instant, peer(), None, BytesMut::from(datagram));
        if matches!(result, Err(RtcError::ErrServerNoMatchingSrtpProfile)) && self.may_fall_back() {
            result = self.fall_back(instant);
        }
        let replied = self.collect(now);
        match result {
            Ok(events) => {
                for event in events {
                    match event {
                        EndpointEvent::HandshakeComplete => self.complete(now),
                        EndpointEvent::ApplicationData(data) => {
                            self.output.push_back(DtlsOutput::Data(data.to_vec()))
                        }
                        EndpointEvent::PeerClosed => {
                            self.phase = Phase::Ended;
                            self.resend_at = None;
                            self.output.push_back(DtlsOutput::Closed);
                        }
                        _ => {}
                    }
                }
            }
            Err(
                RtcError::ErrServerNoMatchingSrtpProfile | RtcError::ErrClientNoMatchingSrtpProfile,
            ) => self.fail(now, DtlsFailure::Profile),
            Err(error) if is_fatal(&error) => self.fail(now, DtlsFailure::Handshake),
            // A record that cannot be read is dropped (RFC 6347 §4.1.2.7): anybody on the path could have sent it.
            Err(_) => {}
        }
        // A connected server keeps its last flight: the client asks for it by repeating its own (RFC 6347 §4.2.4).
        if self.phase != Phase::Ended
            && !replied
            && !self.flight.is_empty()
            && self.repeats < REPEATS_MAX
            && now.since(self.resent_at) >= REPEAT_GAP
            && has_handshake(datagram)
        {
            self.repeats += 1;
            self.resend(now);
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        if self.phase != Phase::Handshake {
            return;
        }
        if now.since(self.started) >= HANDSHAKE_MAX {
            self.fail(now, DtlsFailure::Timeout);
            return;
        }
        if self.resend_at.is_some_and(|at| now >= at) {
            self.resend(now);
            self.resend_after = (self.resend_after * 2).min(RESEND_MAX);
            self.resend_at = Some(now + self.resend_after);
        }
    }

    fn poll_deadline(&self) -> Option<Timestamp> {
        let end = (self.phase == Phase::Handshake).then(|| self.started + HANDSHAKE_MAX);
        self.resend_at.into_iter().chain(end).min()
    }

    fn poll_output(&mut self) -> Option<DtlsOutput> {
        self.output.pop_front()
    }

    fn send(&mut self, now: Timestamp, data: &[u8]) {
        if self.phase != Phase::Connected {
            return;
        }
        let instant = self.instant(now);
        if self.endpoint.write(instant, peer(), data).is_ok() {
            self.collect(now);
        }
    }

    fn close(&mut self, now: Timestamp) {
        if self.phase == Phase::Ended {
            return;
        }
        let instant = self.instant(now);
        let _ = self.endpoint.stop(instant, peer());
        self.collect(now);
        self.phase = Phase::Ended;
        self.resend_at = None;
    }

    fn export(&mut self) -> Option<Vec<u8>> {
        if self.phase != Phase::Connected {
            return None;
        }
        let state = self
            .endpoint
            .get_connection_state(peer())?
            .marshal_binary()
            .ok()?;
        // A move: whoever has the state goes on counting records, so nothing may be sealed here any more.
        self.phase = Phase::Ended;
        self.resend_at = None;
        self.flight.clear();
        Some([&[EXPORT_VERSION], state.as_slice()].concat())
    }
}

/// Errors after which the crate's state machine cannot go on.
fn is_fatal(error: &RtcError) -> bool {
    matches!(
        error,
        RtcError::ErrAlertFatalOrClose
            | RtcError::ErrVerifyDataMismatch
            | RtcError::ErrNoAvailableCipherSuites
            | RtcError::ErrCipherSuiteNoIntersection
            | RtcError::ErrServerRequiredButNoClientEms
            | RtcError::ErrKeySignatureMismatch
            | RtcError::ErrClientCertificateNotVerified
            | RtcError::ErrConnClosed
    )
}

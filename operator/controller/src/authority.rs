// SPDX-License-Identifier: EUPL-1.2
//! The operator's own issuer of certificates. The CA is in the Secret `plenum-ca` of the operator's namespace; it is made where there is
//! none, and may come from cert-manager. Certificates are replaced after two thirds of their life, and when the CA is another one.

mod keep;
mod rotate;

pub use keep::Keeper;

use std::{
    net::IpAddr,
    sync::{Arc, RwLock},
    time::Duration,
};

use jiff::Timestamp;
use plenum_publish::issuer::{self, Issuer};
pub use plenum_publish::issuer::{Pem, Subject};
use tokio::sync::watch;

/// Life of a certificate.
pub const LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Life of a CA that the operator makes.
const CA_LIFE: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The CA has not been read yet.
    #[error("the Secret of the CA has not been read yet")]
    NotReady,
    /// The certificate could not be made.
    #[error("{0}")]
    Make(String),
}

impl AuthorityError {
    /// CamelCase reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotReady => "AuthorityNotReady",
            Self::Make(_) => "CertificateNotMade",
        }
    }
}

/// The issuer, once it is there.
#[derive(Clone)]
pub struct Authority {
    issuer: Arc<RwLock<Option<Arc<Issuer>>>>,
    changes: watch::Sender<u64>,
    trust_domain: Arc<str>,
    now: fn() -> Timestamp,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new("plenum.internal", Timestamp::now)
    }
}

impl Authority {
    /// Without a CA yet.
    #[must_use]
    pub fn new(trust_domain: &str, now: fn() -> Timestamp) -> Self {
        Self {
            issuer: Arc::default(),
            changes: watch::Sender::new(0),
            trust_domain: trust_domain.into(),
            now,
        }
    }

    /// Uses this CA from now on.
    pub fn use_ca(&self, issuer: Issuer) {
        if let Ok(mut slot) = self.issuer.write() {
            *slot = Some(Arc::new(issuer));
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// Wakes when another CA is used, or others are trusted.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What certificates come with: the CA, and what else is to be trusted.
    #[must_use]
    pub fn ca(&self) -> Option<String> {
        let issuer = self.issuer.read().ok()?.clone()?;
        Some(issuer.trusted().to_owned())
    }

    /// Makes a certificate.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn issue(&self, subject: &Subject) -> Result<Pem, AuthorityError> {
        let issuer = self
            .issuer
            .read()
            .map_err(|_| AuthorityError::NotReady)?
            .clone()
            .ok_or(AuthorityError::NotReady)?;
        issuer
            .issue(subject, (self.now)(), LIFE)
            .map_err(|error| AuthorityError::Make(error.to_string()))
    }

    /// Whom a media node's certificate is for.
    #[must_use]
    pub fn node(&self, uid: &str, dns: &[String], ips: &[IpAddr]) -> Subject {
        let own = plenum_shell::identity::node_dns(uid);
        Subject {
            name: format!("node {uid}"),
            dns: std::iter::once(own).chain(dns.iter().cloned()).collect(),
            ips: ips.to_vec(),
            spiffe: Some(self.spiffe(&format!("node/{uid}"))),
        }
    }

    /// A certificate of a media node, for its uid and whatever else it is reached by.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn node_certificate(
        &self,
        uid: &str,
        dns: &[String],
        ips: &[IpAddr],
    ) -> Result<Pem, AuthorityError> {
        self.issue(&self.node(uid, dns, ips))
    }

    /// Whether a certificate has to be replaced: it is due, from another CA, or not for everything it should be.
    #[must_use]
    pub fn is_due(&self, ca: &str, cert: &str, subject: &Subject) -> bool {
        self.ca().is_some_and(|own| own.trim() != ca.trim())
            || issuer::is_due(cert, (self.now)())
            || !issuer::covers(cert, subject)
    }

    /// When a certificate has to be looked at again.
    #[must_use]
    pub fn renewal(cert: &str) -> Option<Timestamp> {
        issuer::renewal(cert)
    }

    fn spiffe(&self, path: &str) -> String {
        format!("spiffe://{}/{path}", self.trust_domain)
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! The operator's own issuer of certificates.

use std::{
    net::IpAddr,
    sync::{Arc, RwLock},
};

/// A certificate with its key and its CA, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The CA's certificates.
    pub ca: String,
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The CA has not been read yet.
    #[error("the Secret of the CA has not been read yet")]
    NotReady,
    /// The certificate could not be made.
    #[error("cannot make a certificate for {name}: {message}")]
    Make {
        /// For whom.
        name: String,
        /// Why.
        message: String,
    },
}

impl AuthorityError {
    /// CamelCase reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotReady => "AuthorityNotReady",
            Self::Make { .. } => "CertificateNotMade",
        }
    }
}

/// The issuer, once it is there.
#[derive(Clone, Default)]
pub struct Authority(Arc<RwLock<Option<Arc<dyn Issue>>>>);

/// What makes certificates.
trait Issue: Send + Sync {
    fn node(&self, uid: &str, dns: &[String], ips: &[IpAddr]) -> Result<Pem, AuthorityError>;
}

impl Authority {
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
        let issuer = self.0.read().map_err(|_| AuthorityError::NotReady)?.clone();
        issuer.ok_or(AuthorityError::NotReady)?.node(uid, dns, ips)
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! mTLS between the parts: the own certificate, and who a peer is by the SPIFFE id of its certificate.
//!
//! The path of the SPIFFE id decides the part; the trust domain is the business of the CA.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};
use tonic::{Request, Status};
use webpki::EndEntityCert;

/// DNS name in every certificate of the control plane, whatever address is dialled.
pub const CONTROL_PLANE_DNS: &str = "control-plane.plenum.internal";
/// Time for a TLS handshake: whoever does not finish it holds a connection no longer.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How every PEM block begins (RFC 7468 §2).
const PEM_BEGIN: &[u8] = b"-----BEGIN ";

/// DNS name in the certificate of a media node.
#[must_use]
pub fn node_dns(uid: &str) -> String {
    format!("{uid}.node.plenum.internal")
}

/// Certificates of this process.
#[derive(Clone)]
pub struct Tls {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of `--tls-dir` cannot be read.
    #[error("cannot read {}; --tls-dir needs ca.crt, tls.crt and tls.key", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is no PEM.
    #[error("{} holds no PEM block", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
    },
}

impl Tls {
    /// Reads `ca.crt`, `tls.crt` and `tls.key`.
    ///
    /// # Errors
    /// [`TlsError`] with the file.
    pub fn read(directory: &Path) -> Result<Self, TlsError> {
        let read = |name: &str| {
            let path = directory.join(name);
            let bytes = std::fs::read(&path).map_err(|source| TlsError::Read {
                path: path.clone(),
                source,
            })?;
            if bytes
                .windows(PEM_BEGIN.len())
                .any(|window| window == PEM_BEGIN)
            {
                Ok(bytes)
            } else {
                Err(TlsError::NotPem { path })
            }
        };
        Ok(Self {
            ca: read("ca.crt")?,
            certificate: read("tls.crt")?,
            key: read("tls.key")?,
        })
    }

    /// From PEM in memory.
    #[must_use]
    pub fn from_pem(ca: &str, certificate: &str, key: &str) -> Self {
        Self {
            ca: ca.into(),
            certificate: certificate.into(),
            key: key.into(),
        }
    }

    /// Server side: whoever has no certificate of the CA does not get through the handshake, which has a time limit.
    #[must_use]
    pub fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .timeout(HANDSHAKE)
            .identity(Identity::from_pem(&self.certificate, &self.key))
            .client_ca_root(Certificate::from_pem(&self.ca))
    }

    /// Client side towards `dns_name`, whatever address is dialled.
    #[must_use]
    pub fn client(&self, dns_name: &str) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(Identity::from_pem(&self.certificate, &self.key))
            .ca_certificate(Certificate::from_pem(&self.ca))
            .domain_name(dns_name)
    }
}

/// A part of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A replica of the control plane.
    ControlPlane,
    /// The operator, or `plenum up` in its place.
    Operator,
    /// The media node with this uid, not yet checked for form.
    Node(String),
}

/// Reads who calls from the certificate that the handshake verified.
///
/// # Errors
/// `UNAUTHENTICATED` without a readable certificate, `PERMISSION_DENIED` when it names no part of the system.
pub fn peer_of<T>(request: &Request<T>) -> Result<Peer, Status> {
    let certificates = request
        .peer_certs()
        .ok_or_else(|| Status::unauthenticated("no client certificate"))?;
    let leaf = certificates
        .first()
        .ok_or_else(|| Status::unauthenticated("no client certificate"))?;
    let certificate = EndEntityCert::try_from(leaf)
        .map_err(|_| Status::unauthenticated("unreadable client certificate"))?;
    // A certificate that names two peers is a mistake of its issuer; the first readable one counts, as in the order of the certificate.
    certificate
        .valid_uri_names()
        .find_map(parse_spiffe)
        .ok_or_else(|| Status::permission_denied("the certificate names no part of the system"))
}

fn parse_spiffe(uri: &str) -> Option<Peer> {
    let (domain, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
    if domain.is_empty() {
        return None;
    }
    match path.split_once('/') {
        None if path == "operator" => Some(Peer::Operator),
        None if path == "control-plane" => Some(Peer::ControlPlane),
        Some(("node", uid)) if !uid.is_empty() && !uid.contains('/') => {
            Some(Peer::Node(uid.to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_who_its_spiffe_path_names() {
        for (uri, peer) in [
            ("spiffe://plenum.internal/operator", Peer::Operator),
            ("spiffe://plenum.internal/control-plane", Peer::ControlPlane),
            ("spiffe://other.domain/node/u-1", Peer::Node("u-1".into())),
        ] {
            assert_eq!(parse_spiffe(uri), Some(peer), "{uri}");
        }
        for stranger in [
            "spiffe:///operator",
            "spiffe:///control-plane",
            "spiffe://plenum.internal/operator/x",
            "spiffe://plenum.internal/control-plane/x",
            "spiffe://plenum.internal/node/",
            "spiffe://plenum.internal/node/a/b",
            "spiffe://plenum.internal/node",
            "https://plenum.internal/operator",
        ] {
            assert_eq!(parse_spiffe(stranger), None, "{stranger}");
        }
    }
}

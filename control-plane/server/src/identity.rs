// SPDX-License-Identifier: EUPL-1.2
//! mTLS between the parts: the control plane's certificate, and who a peer is by the SPIFFE id of its own.

use std::path::{Path, PathBuf};

use control_core::ids::Uid;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};
use tonic::{Request, Status};
use webpki::EndEntityCert;

/// Certificates of this replica.
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

    /// Server side: whoever has no certificate of the CA does not get through the handshake.
    #[must_use]
    pub fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
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

/// DNS name in the certificate of a node.
#[must_use]
pub fn node_dns(uid: &Uid) -> String {
    format!("{uid}.node.plenum.internal")
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The operator, or `plenum up` in its place.
    Operator,
    /// A media node.
    Node(Uid),
}

/// Reads who calls from the certificate that the handshake verified.
///
/// # Errors
/// `UNAUTHENTICATED` without a readable certificate, `PERMISSION_DENIED` when it names no peer of the control plane.
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
        .ok_or_else(|| {
            Status::permission_denied("the certificate names neither an operator nor a media node")
        })
}

fn parse_spiffe(uri: &str) -> Option<Peer> {
    let (domain, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
    if domain.is_empty() {
        return None;
    }
    match path.split_once('/') {
        None if path == "operator" => Some(Peer::Operator),
        Some(("node", uid)) => Uid::parse(uid).ok().map(Peer::Node),
        _ => None,
    }
}

const PEM_BEGIN: &[u8] = b"-----BEGIN ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_who_its_spiffe_path_names() {
        assert_eq!(
            parse_spiffe("spiffe://plenum.internal/operator"),
            Some(Peer::Operator)
        );
        let node = Peer::Node(Uid::parse("u-1").expect("uid"));
        assert_eq!(parse_spiffe("spiffe://other.domain/node/u-1"), Some(node));
        for stranger in [
            "spiffe:///operator",
            "spiffe://plenum.internal/control-plane",
            "spiffe://plenum.internal/operator/x",
            "spiffe://plenum.internal/node/",
            "spiffe://plenum.internal/node/a/b",
            "spiffe://plenum.internal/node",
            "https://plenum.internal/operator",
        ] {
            assert_eq!(parse_spiffe(stranger), None, "{stranger}");
        }
    }
}

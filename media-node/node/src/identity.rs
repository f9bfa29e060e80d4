// SPDX-License-Identifier: EUPL-1.2
//! mTLS between the parts: reads the node's certificate and checks the SPIFFE id of whoever calls.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};
use tonic::{Request, Status};
use webpki::EndEntityCert;

/// DNS name in every control-plane certificate, whatever address is dialled.
pub const CONTROL_PLANE_DNS: &str = "control-plane.plenum.internal";
/// Time for a TLS handshake: whoever does not finish it holds a connection no longer.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Path of the control plane's SPIFFE id; the trust domain is the CA's business.
const CONTROL_PLANE_PATH: &str = "control-plane";

/// Certificates of the node.
#[derive(Clone)]
pub struct Tls {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// A file of `--tls-dir` cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}")]
pub struct TlsError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

impl Tls {
    /// Reads `ca.crt`, `tls.crt` and `tls.key`.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn read(directory: &Path) -> Result<Self, TlsError> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read(&path).map_err(|source| TlsError { path, source })
        };
        Ok(Self {
            ca: read("ca.crt")?,
            certificate: read("tls.crt")?,
            key: read("tls.key")?,
        })
    }

    /// From PEM in memory, for tests.
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
            .timeout(HANDSHAKE)
            .identity(Identity::from_pem(&self.certificate, &self.key))
            .client_ca_root(Certificate::from_pem(&self.ca))
    }

    /// Client side towards `dns_name`.
    #[must_use]
    pub fn client(&self, dns_name: &str) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .identity(Identity::from_pem(&self.certificate, &self.key))
            .ca_certificate(Certificate::from_pem(&self.ca))
            .domain_name(dns_name)
    }
}

/// Refuses everybody but the control plane.
///
/// # Errors
/// `PERMISSION_DENIED` (another part of the system) or `UNAUTHENTICATED` (no certificate).
pub fn require_control_plane<T>(request: &Request<T>) -> Result<(), Status> {
    let certificates = request
        .peer_certs()
        .ok_or_else(|| Status::unauthenticated("no client certificate"))?;
    let leaf = certificates
        .first()
        .ok_or_else(|| Status::unauthenticated("no client certificate"))?;
    let certificate = EndEntityCert::try_from(leaf)
        .map_err(|_| Status::unauthenticated("unreadable client certificate"))?;
    if certificate.valid_uri_names().any(is_control_plane) {
        Ok(())
    } else {
        Err(Status::permission_denied(
            "RoomHost is for the control plane",
        ))
    }
}

fn is_control_plane(uri: &str) -> bool {
    uri.strip_prefix("spiffe://")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(domain, path)| !domain.is_empty() && path == CONTROL_PLANE_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_control_plane_has_the_control_planes_id() {
        assert!(is_control_plane("spiffe://plenum.internal/control-plane"));
        for other in [
            "spiffe://plenum.internal/node/control-plane",
            "spiffe://plenum.internal/operator",
            "spiffe:///control-plane",
            "https://plenum.internal/control-plane",
            "spiffe://plenum.internal/control-plane/x",
        ] {
            assert!(!is_control_plane(other), "{other}");
        }
    }
}

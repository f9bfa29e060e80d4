// SPDX-License-Identifier: EUPL-1.2
//! mTLS between the parts: the own certificate, and who a peer is by the SPIFFE id of its certificate.
//!
//! The path of the SPIFFE id decides the part; the trust domain is the business of the CA.

use tonic::{Request, Status};
use webpki::EndEntityCert;

pub use crate::tls::{Tls, TlsError};

/// DNS name in every certificate of the control plane, whatever address is dialled.
pub const CONTROL_PLANE_DNS: &str = "control-plane.plenum.internal";
/// DNS name in the certificate of a media node.
#[must_use]
pub fn node_dns(uid: &str) -> String {
    format!("{uid}.node.plenum.internal")
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

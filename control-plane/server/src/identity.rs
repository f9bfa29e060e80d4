// SPDX-License-Identifier: EUPL-1.2
//! Who calls this replica, and the certificates it shows.

use control_core::ids::Uid;
use plenum_shell::identity::{self, Peer as Part};
pub use plenum_shell::identity::{Tls, TlsError};
use tonic::{Request, Status};

/// DNS name in the certificate of a node.
#[must_use]
pub fn node_dns(uid: &Uid) -> String {
    identity::node_dns(uid.as_str())
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
    caller(identity::peer_of(request)?)
}

fn caller(part: Part) -> Result<Peer, Status> {
    match part {
        Part::Operator => Some(Peer::Operator),
        Part::Node(uid) => Uid::parse(&uid).ok().map(Peer::Node),
        Part::ControlPlane => None,
    }
    .ok_or_else(|| {
        Status::permission_denied("the certificate names neither an operator nor a media node")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_and_nodes_without_a_uid_do_not_call() {
        let node = Peer::Node(Uid::parse("u-1").expect("uid"));
        assert_eq!(caller(Part::Node("u-1".into())).expect("a peer"), node);
        assert!(caller(Part::ControlPlane).is_err());
        assert!(caller(Part::Node("no uid".into())).is_err());
    }
}

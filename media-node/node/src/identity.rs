// SPDX-License-Identifier: EUPL-1.2
//! Who may call this node, and the certificates it shows.

pub use plenum_shell::identity::{CONTROL_PLANE_DNS, Tls, TlsError};
use plenum_shell::identity::{Peer, peer_of};
use tonic::{Request, Status};

/// Refuses everybody but the control plane.
///
/// # Errors
/// `PERMISSION_DENIED` (another part of the system) or `UNAUTHENTICATED` (no certificate).
pub fn require_control_plane<T>(request: &Request<T>) -> Result<(), Status> {
    match peer_of(request)? {
        Peer::ControlPlane => Ok(()),
        Peer::Operator | Peer::Node(_) => Err(Status::permission_denied(
            "RoomHost is for the control plane",
        )),
    }
}

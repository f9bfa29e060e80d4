// SPDX-License-Identifier: EUPL-1.2
//! Plenum's own wire types: the directory, node and room services of `plenum/v1`.
//!
//! Everything here is generated from the `.proto` files beside this crate; nothing is hand-written. Conversion *in* is
//! where validation happens, in the `convert` modules of the shells.

/// Messages and services of `plenum.v1`.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("plenum.v1");
}

// SPDX-License-Identifier: EUPL-1.2
//! What the operator and `plenum up` share towards the control plane, so that there is one way and no twin of it: the two streams to each
//! replica ([`streams`]), records as they go over the wire with the slow hashes of passwords ([`convert`]), what the replicas report
//! ([`live`]), and the certificates of all parts ([`issuer`]).

pub mod convert;
pub mod issuer;
pub mod live;
pub mod streams;

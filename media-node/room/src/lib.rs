// SPDX-License-Identifier: EUPL-1.2
//! The room actor as a pure state machine: LiveKit signalling, SDP bookkeeping, permissions, the opening gate.
//!
//! [`room::Room`] holds two kinds of machine that talk only in the serialisable messages of [`link`]: one roster (who is in, what they
//! may do, which tracks there are, who gets which data) and one peer per participant (signalling, session descriptions, subscriptions).
#![forbid(unsafe_code)]

pub mod api;
pub mod counters;
pub mod limits;
pub mod link;
mod peer;
pub mod permissions;
mod random;
pub mod room;
mod roster;
pub mod sdp;
pub mod signal;
#[cfg(test)]
mod testing;

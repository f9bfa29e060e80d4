// SPDX-License-Identifier: EUPL-1.2
//! The room actor as a pure state machine: LiveKit signalling, SDP bookkeeping, permissions, the opening gate.
#![forbid(unsafe_code)]

pub mod api;
pub mod sdp;

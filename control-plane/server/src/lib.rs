// SPDX-License-Identifier: EUPL-1.2
//! The control plane as a library, so that its binary and its tests wire the same parts.
#![forbid(unsafe_code)]

pub mod config;
pub mod hosts;
pub mod identity;
pub mod metrics;
pub mod plane;

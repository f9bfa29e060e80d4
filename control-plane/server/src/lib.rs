// SPDX-License-Identifier: EUPL-1.2
//! The control plane as a library, so that its binary and its tests wire the same parts.
#![forbid(unsafe_code)]

pub mod auth;
pub mod clock;
pub mod config;
pub mod convert;
pub mod gateway;
pub mod hosts;
pub mod identity;
pub mod live;
pub mod metrics;
pub mod password;
pub mod peers;
pub mod plane;
pub mod probes;
pub mod rpc;
pub mod seal;
pub mod store;
pub mod supervise;
pub mod webhooks;

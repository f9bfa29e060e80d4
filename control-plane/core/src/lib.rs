// SPDX-License-Identifier: EUPL-1.2
//! The control plane's decisions as pure functions and plain data: what is declared, what may be open, which node takes a room, which
//! lease holds, what a tenant has left, what a person may do.
//!
//! Time, randomness and counts come in as arguments; nothing here knows a socket, a store or a task.
#![forbid(unsafe_code)]

pub mod directory;
pub mod grant;
pub mod ids;
pub mod lease;
pub mod limits;
pub mod opening;
pub mod placement;
pub mod quota;
pub mod record;
#[cfg(test)]
mod testing;
pub mod throttle;
pub mod time;
pub mod webhook;

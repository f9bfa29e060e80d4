// SPDX-License-Identifier: EUPL-1.2
//! What the shells of Plenum's parts share, because both ends of a stream have to agree on it: certificates and who a peer is
//! ([`identity`], [`tls`]), the log and the traces of a process ([`telemetry`]), the trace that a call carries ([`trace`]),
//! how a process begins ([`process`]) and what it says of itself ([`probe`]).
//!
//! Nothing here decides anything about rooms or media; pure crates do not use it.

pub mod identity;
pub mod probe;
pub mod process;
pub mod telemetry;
pub mod tls;
pub mod trace;

/// Every binary that shares this crate allocates by it where it is static: musl's own allocator has one lock for all threads.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

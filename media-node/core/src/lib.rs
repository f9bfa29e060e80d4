// SPDX-License-Identifier: EUPL-1.2
//! The packet path as a pure state machine: [`shard::Shard`] and everything below it.
//!
//! No clock, no socket, no thread, no runtime: datagrams, commands and time come in as arguments, datagrams, events and deadlines
//! come out. Cryptography is a trait ([`crypto::Crypto`]).
#![forbid(unsafe_code)]

pub mod api;
pub mod crypto;
pub mod downlink;
pub mod handover;
pub mod ids;
pub mod io;
pub mod limits;
pub mod rewrite;
pub mod ring;
pub mod rtp;
pub mod shard;
pub mod srtp;
pub mod time;
pub mod transport;

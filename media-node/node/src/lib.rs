// SPDX-License-Identifier: EUPL-1.2
//! The media node: what surrounds the pure parts with sockets, threads, gRPC, clocks and counters.
//!
//! *Map*: [`worker`] runs one shard on one thread, [`steer`] decides whose a datagram is, [`stream`] and [`acceptor`] are ICE-TCP,
//! [`link`] carries commands and events between shards and [`rooms`], whose actors drive `media_room::room::Room`; [`host`] and
//! [`convert`] are the service for the control plane, [`control`], [`reports`] and [`state`] the node's own streams to it; [`node`]
//! wires them.
#![forbid(unsafe_code)]

pub mod acceptor;
pub mod clock;
pub mod config;
pub mod control;
pub mod convert;
pub mod guard;
pub mod host;
pub mod identity;
pub mod link;
pub mod metrics;
pub mod node;
mod outbox;
pub mod probes;
pub mod replicas;
pub mod reports;
pub mod rooms;
pub mod state;
pub mod steer;
pub mod stream;
pub mod stun;
pub mod worker;

// SPDX-License-Identifier: EUPL-1.2
//! Seeded simulation: shards with real SRTP between in-memory clients, over wires that lose, reorder and repeat, in virtual time.
//!
//! Nothing here reads a clock. Traffic is reproducible from the seed; keys are not (the DTLS library draws its own), and nothing
//! depends on them. What a client decodes is judged while it runs, see [`inbound`].

pub mod fuzz;
pub mod inbound;
pub mod random;
pub mod source;
pub mod world;

// SPDX-License-Identifier: EUPL-1.2
//! Sockets of the packet path: UDP with batches and segmentation offload, and the framing of ICE-TCP.
//!
//! The only home of `unsafe` in the project, one file per kernel feature: `option` (socket options), `receive`
//! (`recvmmsg` with `UDP_GRO`), `send` (`sendmsg` with `UDP_SEGMENT`, `sendmmsg`). What the kernel writes is read by the safe parsers
//! of `control` and `address`; [`frame`] is the framing of RFC 4571 and has nothing to do with the kernel.

mod address;
mod control;
pub mod frame;
mod option;
mod receive;
mod send;
pub mod stream;
mod udp;

pub use send::Sent;
pub use udp::{Buffers, UdpSocket};

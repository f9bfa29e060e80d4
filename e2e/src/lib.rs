// SPDX-License-Identifier: EUPL-1.2
//! End-to-end tests of Plenum.
//!
//! `browser/` drives real Chromium and Firefox, `go/` is a program on the public Go SDK, `tests/conformance` a headless client on
//! the `webrtc` crate that does what browsers can't, `tests/failures` takes parts of the system away while people talk. Each runs the system in network and process namespaces of its own
//! (`inside.sh`), so nothing leaves the machine and nothing is left behind. This crate holds what the Rust tests share.

pub mod chart;
pub mod cluster;
pub mod health;
pub mod http;
pub mod installed;
pub mod processes;
pub mod prometheus;
pub mod redis;
pub mod system;

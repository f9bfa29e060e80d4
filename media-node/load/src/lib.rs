// SPDX-License-Identifier: EUPL-1.2
//! Load client of Plenum: LiveKit signalling and media without a browser, for load, simulation and tests.
#![forbid(unsafe_code)]

pub mod crowd;
pub mod driver;
pub mod headless;
pub mod leg;
pub mod person;
pub mod sdp;
pub mod websocket;

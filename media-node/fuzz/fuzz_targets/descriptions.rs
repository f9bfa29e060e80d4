// SPDX-License-Identifier: EUPL-1.2
//! Any text as a client's session description.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| media_sim::fuzz::run_sdp(data));

// SPDX-License-Identifier: EUPL-1.2
//! Any bytes as STUN to a transport that waits for checks.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| media_sim::fuzz::run_stun(data));

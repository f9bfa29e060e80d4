// SPDX-License-Identifier: EUPL-1.2
//! Any bytes as a payload of every codec.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| media_sim::fuzz::run_payload(data));

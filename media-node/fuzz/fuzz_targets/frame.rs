// SPDX-License-Identifier: EUPL-1.2
//! Any stream of RFC 4571 frames, cut anywhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| media_sim::fuzz::run_frame(data));

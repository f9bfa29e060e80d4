// SPDX-License-Identifier: EUPL-1.2
//! Any arrivals as transport-wide feedback.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| media_sim::fuzz::run_twcc(data));

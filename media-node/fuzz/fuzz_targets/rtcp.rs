// SPDX-License-Identifier: EUPL-1.2
//! Any bytes as a compound RTCP packet.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| media_sim::fuzz::run_rtcp(data));

// SPDX-License-Identifier: EUPL-1.2
//! Any order of packets through the ring.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| media_sim::fuzz::run_ring(data));

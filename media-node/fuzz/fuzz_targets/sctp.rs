// SPDX-License-Identifier: EUPL-1.2
//! Any chunks to a connected SCTP association.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| media_sim::fuzz::run_sctp(data));

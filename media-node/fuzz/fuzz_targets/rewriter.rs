// SPDX-License-Identifier: EUPL-1.2
//! Any order of switches, gaps and late packets through the rewriter.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| media_sim::fuzz::run_rewriter(data));

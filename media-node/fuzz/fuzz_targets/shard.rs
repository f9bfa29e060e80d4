// SPDX-License-Identifier: EUPL-1.2
//! Whatever a client with keys may send to a whole shard.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| media_sim::fuzz::run_shard(data));

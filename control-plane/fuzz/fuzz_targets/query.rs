// SPDX-License-Identifier: EUPL-1.2
//! Any bytes as the query of `/rtc`: what is taken is bounded.
#![no_main]

use control_plane::gateway::client::ConnectQuery;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let pairs: Vec<(String, String)> = text
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if let Ok(query) = ConnectQuery::parse(&pairs, "192.0.2.1") {
        assert!(query.sid.len() <= 128 && query.parameters.publish_only_suffix.len() <= 128);
        // Ten descriptions of 128 characters, each of at most four bytes, and some numbers.
        assert!(query.parameters.client_info.len() < 8_192);
    }
});

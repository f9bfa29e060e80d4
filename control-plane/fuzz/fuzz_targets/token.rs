// SPDX-License-Identifier: EUPL-1.2
//! Any bytes as a token, and any bytes as the claims of a token that is signed rightly. The first are never believed; the second only
//! when they say when they end, and have not ended.
#![no_main]

use aws_lc_rs::hmac;
use control_plane::auth::{InstallationKey, Keys, Source, Verifier};
use data_encoding::BASE64URL_NOPAD;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW: i64 = 1_900_000_000;

struct One;

impl Keys for One {
    fn api_key(&self, key: &str) -> Option<(String, Vec<u8>)> {
        (key == "key").then(|| ("tenant".to_owned(), SECRET.to_vec()))
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(installation) = InstallationKey::new(&[7; 32]) else {
        return;
    };
    let verifier = Verifier {
        installation: &installation,
        keys: &One,
        development_keys: false,
    };
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(verifier.verify(text, NOW).is_err(), "a token was forged");
    }
    let signed = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(br#"{"alg":"HS256"}"#),
        BASE64URL_NOPAD.encode(data)
    );
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, SECRET),
        signed.as_bytes(),
    );
    if let Ok(token) = verifier.verify(
        &format!("{signed}.{}", BASE64URL_NOPAD.encode(tag.as_ref())),
        NOW,
    ) {
        assert!(
            !token.own && token.source == Source::Key("key".to_owned()) && token.tenant == "tenant"
        );
        assert!(token.expires_unix_s > NOW - 60);
        assert!(
            token.own_claims() == Default::default(),
            "nobody else says who opens"
        );
        let grants = token.video().to_grants();
        assert!(
            grants.can_publish
                || grants.can_publish_sources.is_empty()
                || token.video().can_publish == Some(false)
        );
    }
});

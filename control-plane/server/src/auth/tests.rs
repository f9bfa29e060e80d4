// SPDX-License-Identifier: EUPL-1.2
use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_900_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

#[derive(Default)]
struct Ring(BTreeMap<String, (String, Vec<u8>)>);

impl Ring {
    fn with(mut self, key: &str, tenant: &str, secret: &[u8]) -> Self {
        self.0
            .insert(key.to_owned(), (tenant.to_owned(), secret.to_vec()));
        self
    }
}

impl Keys for Ring {
    fn api_key(&self, key: &str) -> Option<(String, Vec<u8>)> {
        self.0.get(key).cloned()
    }
}

fn installation() -> InstallationKey {
    InstallationKey::new(&[7; 32]).expect("long enough")
}

fn ring() -> Ring {
    Ring::default().with("town", "musterstadt", SECRET).with(
        "other",
        "lab",
        b"another secret of some length ...",
    )
}

fn compact(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let signed = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.to_string().as_bytes()),
        BASE64URL_NOPAD.encode(claims.to_string().as_bytes())
    );
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, secret),
        signed.as_bytes(),
    );
    format!("{signed}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

fn hs256(claims: &Value) -> String {
    compact(&json!({"alg": "HS256", "typ": "JWT"}), claims, SECRET)
}

fn verify_with(ring: &Ring, text: &str) -> Result<Token, TokenRefusal> {
    Verifier {
        installation: &installation(),
        keys: ring,
        development_keys: false,
    }
    .verify(text, NOW)
}

fn verify(text: &str) -> Result<Token, TokenRefusal> {
    verify_with(&ring(), text)
}

fn good() -> Value {
    json!({"iss": "town", "sub": "anna", "exp": NOW + 600, "nbf": NOW, "video": {"roomJoin": true, "room": "council"}})
}

fn changed(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> String {
    let mut claims = good();
    change(claims.as_object_mut().expect("object"));
    hs256(&claims)
}

#[test]
fn a_token_of_a_tenants_key_belongs_to_that_tenant() {
    let token = verify(&hs256(&good())).expect("valid");
    assert_eq!(
        (token.tenant.as_str(), token.identity.as_str()),
        ("musterstadt", "anna")
    );
    assert_eq!(token.source, Source::Key("town".to_owned()));
    assert!(!token.own);
}

#[test]
fn every_refusal_has_its_case() {
    let header = |header: Value| compact(&header, &good(), SECRET);
    let cases = [
        ("empty", String::new(), TokenRefusal::Missing),
        (
            "long",
            "a".repeat(TOKEN_BYTES_MAX + 1),
            TokenRefusal::TooLong,
        ),
        ("one part", "abc".to_owned(), TokenRefusal::Malformed),
        ("two parts", "abc.def".to_owned(), TokenRefusal::Malformed),
        (
            "five parts (JWE)",
            "a.b.c.d.e".to_owned(),
            TokenRefusal::Malformed,
        ),
        (
            "not base64url",
            "eyJhbGciOiJIUzI1NiJ9.+/==.x".to_owned(),
            TokenRefusal::Malformed,
        ),
        (
            "alg none",
            header(json!({"alg": "none"})),
            TokenRefusal::Algorithm,
        ),
        (
            "alg None",
            header(json!({"alg": "None"})),
            TokenRefusal::Algorithm,
        ),
        (
            "alg HS384",
            header(json!({"alg": "HS384"})),
            TokenRefusal::Algorithm,
        ),
        (
            "alg RS256",
            header(json!({"alg": "RS256"})),
            TokenRefusal::Algorithm,
        ),
        (
            "alg missing",
            header(json!({"typ": "JWT"})),
            TokenRefusal::Malformed,
        ),
        (
            "crit",
            header(json!({"alg": "HS256", "crit": ["b64"], "b64": false})),
            TokenRefusal::Algorithm,
        ),
        (
            "unknown key",
            changed(|c| drop(c.insert("iss".into(), json!("stranger")))),
            TokenRefusal::UnknownKey,
        ),
        (
            "no issuer",
            changed(|c| drop(c.remove("iss"))),
            TokenRefusal::UnknownKey,
        ),
        (
            "another tenant's key",
            changed(|c| drop(c.insert("iss".into(), json!("other")))),
            TokenRefusal::Signature,
        ),
        (
            "own issuer, foreign key",
            changed(|c| drop(c.insert("iss".into(), json!("plenum:musterstadt")))),
            TokenRefusal::Signature,
        ),
        (
            "no expiry",
            changed(|c| drop(c.remove("exp"))),
            TokenRefusal::NoExpiry,
        ),
        (
            "null expiry",
            changed(|c| drop(c.insert("exp".into(), Value::Null))),
            TokenRefusal::NoExpiry,
        ),
        (
            "text expiry",
            changed(|c| drop(c.insert("exp".into(), json!("never")))),
            TokenRefusal::Malformed,
        ),
        (
            "expired",
            changed(|c| drop(c.insert("exp".into(), json!(NOW - 60)))),
            TokenRefusal::Expired,
        ),
        (
            "nbf ahead",
            changed(|c| drop(c.insert("nbf".into(), json!(NOW + 61)))),
            TokenRefusal::NotYetValid,
        ),
        (
            "iat ahead",
            changed(|c| drop(c.insert("iat".into(), json!(NOW + 61)))),
            TokenRefusal::NotYetValid,
        ),
        (
            "claims are a list",
            compact(&json!({"alg": "HS256"}), &json!([1]), SECRET),
            TokenRefusal::Malformed,
        ),
    ];
    for (name, text, refusal) in cases {
        assert_eq!(verify(&text).expect_err(name), refusal, "{name}");
    }
}

#[test]
fn clocks_may_differ_by_a_minute() {
    for claims in [
        changed(|c| drop(c.insert("exp".into(), json!(NOW - 59)))),
        changed(|c| drop(c.insert("nbf".into(), json!(NOW + 60)))),
        changed(|c| drop(c.insert("iat".into(), json!(NOW + 60)))),
        changed(|c| drop(c.insert("exp".into(), json!(NOW as f64 + 0.5)))),
    ] {
        verify(&claims).expect("within the leeway");
    }
}

#[test]
fn an_empty_secret_signs_nothing() {
    let ring = Ring::default().with("town", "musterstadt", b"");
    let text = compact(&json!({"alg": "HS256"}), &good(), b"");
    assert_eq!(verify_with(&ring, &text), Err(TokenRefusal::UnknownKey));
}

#[test]
fn what_is_not_said_has_its_default() {
    let grants = |video: Value| {
        let token = verify(&changed(|c| drop(c.insert("video".into(), video)))).expect("valid");
        let grants = token.video().to_grants();
        (
            grants.can_publish,
            grants.can_subscribe,
            grants.can_publish_data,
            grants.can_update_own_metadata,
        )
    };
    assert_eq!(grants(json!({})), (true, true, true, false));
    assert_eq!(
        grants(json!({"canPublish": null, "canSubscribe": null})),
        (true, true, true, false)
    );
    assert_eq!(
        grants(json!({"canPublish": false})),
        (false, true, false, false)
    );
    assert_eq!(
        grants(json!({"canPublish": false, "canPublishData": true})),
        (false, true, true, false)
    );
    assert_eq!(
        grants(json!({"canSubscribe": false, "canUpdateOwnMetadata": true})),
        (true, false, true, true)
    );
    assert_eq!(
        grants(json!({"canPublish": true, "canPublishSources": []})),
        (true, true, true, false)
    );
    // An empty list would mean every source.
    assert_eq!(
        grants(json!({"canPublishSources": ["telepathy"]})),
        (false, true, true, false)
    );
}

#[test]
fn unknown_claims_are_ignored_and_nulls_are_absent() {
    let text = changed(|c| {
        c.insert("name".into(), Value::Null);
        c.insert("attributes".into(), Value::Null);
        c.insert("inference".into(), json!({"perform": true}));
        c.insert("kindDetails".into(), json!(["a"]));
    });
    assert_eq!(verify(&text).expect("valid").claims.name, "");
}

#[test]
fn only_this_installation_says_who_is_an_opener() {
    let text = changed(|c| {
        c.insert(
            "plenum".into(),
            json!({"role": "Moderator", "opener": true}),
        );
        c.insert("src".into(), json!("door"));
    });
    assert_eq!(
        verify(&text).expect("valid").own_claims(),
        OwnClaims::default()
    );
}

fn of_key(key: &str, secret: &[u8]) -> Stem {
    Stem {
        source: Source::Key(key.to_owned()),
        print: installation().print(key, secret),
    }
}

#[test]
fn own_tokens_live_as_long_as_the_key_they_stem_from() {
    let claims = Claims {
        sub: "anna".to_owned(),
        plenum: Some(OwnClaims {
            role: Some(RoleName::Moderator),
            guest: false,
            opener: true,
        }),
        ..Claims::default()
    };
    let refreshed = sign(
        &installation(),
        "musterstadt",
        &of_key("town", SECRET),
        claims.clone(),
        NOW,
        600,
    );
    let token = verify(&refreshed).expect("valid");
    assert!(token.own && token.own_claims().opener);
    assert_eq!(token.expires_unix_s, NOW + 600);
    assert_eq!(
        verify_with(&Ring::default(), &refreshed),
        Err(TokenRefusal::SourceRemoved)
    );
    let rotated = Ring::default().with("town", "musterstadt", b"another secret of the same key..");
    assert_eq!(
        verify_with(&rotated, &refreshed),
        Err(TokenRefusal::SourceRemoved)
    );
    let moved = Ring::default().with("town", "lab", SECRET);
    assert_eq!(
        verify_with(&moved, &refreshed),
        Err(TokenRefusal::SourceRemoved)
    );
    let door = sign(
        &installation(),
        "musterstadt",
        &Stem::door(),
        claims,
        NOW,
        600,
    );
    assert_eq!(
        verify_with(&Ring::default(), &door)
            .expect("needs no key")
            .source,
        Source::Door
    );
}

#[test]
fn published_keys_are_for_loopback() {
    for (key, secret) in [
        ("devkey", SECRET),
        (
            "innocent",
            b"secretsecretsecretsecretsecretsecret".as_slice(),
        ),
    ] {
        let ring = Ring::default().with(key, "lab", secret);
        let mut claims = good();
        claims["iss"] = json!(key);
        let text = compact(&json!({"alg": "HS256"}), &claims, secret);
        assert_eq!(verify_with(&ring, &text), Err(TokenRefusal::DevelopmentKey));
        let refreshed = sign(
            &installation(),
            "lab",
            &of_key(key, secret),
            Claims::default(),
            NOW,
            600,
        );
        assert_eq!(
            verify_with(&ring, &refreshed),
            Err(TokenRefusal::DevelopmentKey)
        );
        let installation = installation();
        let verifier = Verifier {
            installation: &installation,
            keys: &ring,
            development_keys: true,
        };
        verifier.verify(&text, NOW).expect("allowed");
    }
}

#[test]
fn a_short_installation_key_is_refused() {
    assert_eq!(
        InstallationKey::new(&[1; 31]).map(|_| ()),
        Err(KeyTooShort(31))
    );
}

proptest! {
    #[test]
    fn no_text_panics_and_none_is_believed(text in "\\PC{0,400}") {
        prop_assert!(verify(&text).is_err());
    }

    #[test]
    fn no_structure_panics_and_none_is_believed(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 1..5)) {
        let text = parts.iter().map(|part| BASE64URL_NOPAD.encode(part)).collect::<Vec<_>>().join(".");
        prop_assert!(verify(&text).is_err());
    }

    #[test]
    fn a_token_with_one_character_changed_is_refused(position in any::<proptest::sample::Index>(), replacement in "[A-Za-z0-9_.-]") {
        let text = hs256(&good());
        let position = position.index(text.len());
        let mut altered = text.clone();
        altered.replace_range(position..=position, &replacement);
        prop_assume!(altered != text);
        prop_assert!(verify(&altered).is_err());
    }

    #[test]
    fn signed_claims_are_read_back(identity in "[a-z0-9@._-]{1,40}", name in "\\PC{0,40}", valid in 1_i64..100_000, guest: bool, opener: bool) {
        let claims = Claims { sub: identity.clone(), name: name.clone(), plenum: Some(OwnClaims { role: None, guest, opener }), ..Claims::default() };
        let token = verify(&sign(&installation(), "t", &Stem::door(), claims, NOW, valid)).expect("valid");
        prop_assert_eq!(token.identity, identity);
        prop_assert_eq!(token.claims.name.clone(), name);
        prop_assert_eq!(token.claims.plenum, Some(OwnClaims { role: None, guest, opener }));
    }
}

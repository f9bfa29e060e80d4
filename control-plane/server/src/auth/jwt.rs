// SPDX-License-Identifier: EUPL-1.2
//! Compact JWS with HS256 (RFC 7515, 7519) and nothing else.

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;

use super::{Claims, TokenRefusal};

/// Honest tokens have some hundred bytes; metadata may make them longer. URLs beyond this are refused by servers and proxies anyway.
pub const TOKEN_BYTES_MAX: usize = 32 * 1024;

/// `{"alg":"HS256","typ":"JWT"}`.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

#[derive(Deserialize)]
struct Header {
    alg: String,
    /// Extensions that must be understood (RFC 7515 §4.1.11): none is.
    crit: Option<serde_json::Value>,
}

/// A token cut into its parts; nothing in it is to be believed before [`Parsed::verify`].
pub(super) struct Parsed<'a> {
    signed: &'a str,
    payload: &'a str,
    signature: Vec<u8>,
}

impl<'a> Parsed<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, TokenRefusal> {
        if text.is_empty() {
            return Err(TokenRefusal::Missing);
        }
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenRefusal::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenRefusal::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenRefusal::Malformed)?;
        let header: Header = decode_json(header)?;
        if header.alg != "HS256" || header.crit.is_some() {
            return Err(TokenRefusal::Algorithm);
        }
        let signature = BASE64URL_NOPAD
            .decode(signature.as_bytes())
            .map_err(|_| TokenRefusal::Malformed)?;
        Ok(Self {
            signed,
            payload,
            signature,
        })
    }

    pub(super) fn claims(&self) -> Result<Claims, TokenRefusal> {
        decode_json(self.payload)
    }

    pub(super) fn verify(&self, key: &hmac::Key) -> Result<(), TokenRefusal> {
        hmac::verify(key, self.signed.as_bytes(), &self.signature)
            .map_err(|_| TokenRefusal::Signature)
    }
}

fn decode_json<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, TokenRefusal> {
    let bytes = BASE64URL_NOPAD
        .decode(part.as_bytes())
        .map_err(|_| TokenRefusal::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenRefusal::Malformed)
}

pub(super) fn sign(key: &hmac::Key, claims: &Claims) -> String {
    let payload =
        serde_json::to_vec(claims).expect("invariant: claims are plain values with string keys");
    let mut token = format!("{HEADER}.{}", BASE64URL_NOPAD.encode(&payload));
    let signature = hmac::sign(key, token.as_bytes());
    token.push('.');
    BASE64URL_NOPAD.encode_append(signature.as_ref(), &mut token);
    token
}

// SPDX-License-Identifier: EUPL-1.2
//! Who a token belongs to: verification of join tokens and signing of the control plane's own.
//!
//! HS256 only. A token whose `iss` is an API key belongs to that key's tenant; one with `iss = plenum:<tenant>` was signed by this
//! installation (door, refresh) and names in `src` where it stems from, so that taking a key away, or giving it another secret, takes its
//! offspring away too.

pub mod claims;
mod jwt;

use std::fmt;

use aws_lc_rs::hmac;

pub use claims::{Claims, OwnClaims, RoleName, VideoGrant};
pub use jwt::TOKEN_BYTES_MAX;

/// Prefix of `iss` in own tokens; no API key may begin with it.
const OWN_ISSUER: &str = "plenum:";
/// Prefix of `src` for tokens that stem from an API key.
const KEY_SOURCE: &str = "key:";
/// `src` of tokens that stem from the door.
const DOOR_SOURCE: &str = "door";
/// Clocks of backends and replicas may differ by this much.
const LEEWAY_S: i64 = 60;
/// Key that every SDK's documentation prints: whoever can reach the port knows it.
const PUBLISHED_KEY: &str = "devkey";
/// Secrets printed in public documentation.
const PUBLISHED_SECRETS: [&[u8]; 2] = [b"secret", b"secretsecretsecretsecretsecretsecret"];

/// Where keys are looked up.
pub trait Keys {
    /// Tenant and secret of an API key.
    fn api_key(&self, key: &str) -> Option<(String, Vec<u8>)>;
}

/// Signs and verifies own tokens; at least 32 random bytes.
pub struct InstallationKey(hmac::Key);

impl fmt::Debug for InstallationKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("InstallationKey")
    }
}

/// The file of the installation key holds too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the installation key has {0} bytes, at least {min} random bytes are needed", min = InstallationKey::BYTES_MIN)]
pub struct KeyTooShort(usize);

impl InstallationKey {
    /// Shorter keys can be searched.
    pub const BYTES_MIN: usize = 32;

    /// Takes the key's bytes.
    ///
    /// # Errors
    /// [`KeyTooShort`].
    pub fn new(bytes: &[u8]) -> Result<Self, KeyTooShort> {
        if bytes.len() < Self::BYTES_MIN {
            return Err(KeyTooShort(bytes.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// 128 bits that nobody without the key can foretell; the same for the same parts.
    #[must_use]
    pub fn derive(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.0);
        // No JWT begins with a zero byte: what is derived is never a signature.
        context.update(&[0]);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut bits = [0; 16];
        bits.copy_from_slice(&context.sign().as_ref()[..16]);
        bits
    }
}

impl InstallationKey {
    /// Tells one secret of an API key from the next, and nothing about it to whoever lacks the installation key.
    #[must_use]
    pub fn print(&self, key: &str, secret: &[u8]) -> String {
        data_encoding::BASE64URL_NOPAD.encode(&self.derive(&[b"secret", key.as_bytes(), secret]))
    }
}

/// 128 random bits.
#[must_use]
pub fn random_128() -> [u8; 16] {
    let mut bits = [0; 16];
    aws_lc_rs::rand::fill(&mut bits).expect("invariant: the system's random generator works");
    bits
}

/// Where a token stems from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Given out at the door of a conference.
    Door,
    /// Signed with this API key, or refreshed from a token that was.
    Key(String),
}

impl Source {
    /// The claim `src`.
    #[must_use]
    pub fn to_claim(&self) -> String {
        match self {
            Self::Door => DOOR_SOURCE.to_owned(),
            Self::Key(key) => format!("{KEY_SOURCE}{key}"),
        }
    }

    fn parse(claim: &str) -> Option<Self> {
        if claim == DOOR_SOURCE {
            return Some(Self::Door);
        }
        claim
            .strip_prefix(KEY_SOURCE)
            .filter(|key| !key.is_empty())
            .map(|key| Self::Key(key.to_owned()))
    }
}

/// Where a token stems from, and which secret of that key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stem {
    /// Where.
    pub source: Source,
    /// As [`InstallationKey::print`] has it; empty for the door.
    pub print: String,
}

impl Stem {
    /// Given out at the door.
    #[must_use]
    pub const fn door() -> Self {
        Self {
            source: Source::Door,
            print: String::new(),
        }
    }
}

/// A verified token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Whose people and rooms it speaks of.
    pub tenant: String,
    /// `sub`, or `jti` where there is none; empty in tokens that are for the API only.
    pub identity: String,
    /// Where it stems from.
    pub source: Source,
    /// Tells one secret of that key from the next; empty for the door.
    pub source_print: String,
    /// True: signed by this installation.
    pub own: bool,
    /// `iat`, Unix seconds; 0 = not said.
    pub issued_unix_s: i64,
    /// `exp`, Unix seconds.
    pub expires_unix_s: i64,
    /// Everything else it says.
    pub claims: Claims,
}

impl Token {
    /// What tokens made from this one stem from.
    #[must_use]
    pub fn stem(&self) -> Stem {
        Stem {
            source: self.source.clone(),
            print: self.source_print.clone(),
        }
    }

    /// The grants, or none.
    #[must_use]
    pub fn video(&self) -> VideoGrant {
        self.claims.video.clone().unwrap_or_default()
    }

    /// What this installation wrote about the person; never taken from anybody else's token.
    #[must_use]
    pub fn own_claims(&self) -> OwnClaims {
        if self.own {
            self.claims.plenum.clone().unwrap_or_default()
        } else {
            OwnClaims::default()
        }
    }
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenRefusal {
    /// Neither header nor query carry one.
    #[error("no token: send it as `Authorization: Bearer` or as `access_token`")]
    Missing,
    /// Longer than any honest one.
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// Not three parts of base64url with JSON inside.
    #[error("the token is not a JWT")]
    Malformed,
    /// Another algorithm than HS256, or a critical header.
    #[error("the token is not signed with HS256")]
    Algorithm,
    /// `iss` names no key.
    #[error("the token's issuer is not a known API key")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the token's signature is wrong")]
    Signature,
    /// No `exp`.
    #[error("the token has no expiry")]
    NoExpiry,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` lies ahead.
    #[error("the token is not valid yet: compare the clocks")]
    NotYetValid,
    /// The key that the token stems from has been removed, or has another secret by now.
    #[error("the key that this token stems from has been removed")]
    SourceRemoved,
    /// A key that everybody knows, on an address that others reach.
    #[error("the published development key is for loopback only")]
    DevelopmentKey,
}

impl TokenRefusal {
    /// CamelCase reason.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "TokenMissing",
            Self::TooLong => "TokenTooLong",
            Self::Malformed => "TokenMalformed",
            Self::Algorithm => "TokenAlgorithm",
            Self::UnknownKey => "TokenUnknownKey",
            Self::Signature => "TokenSignature",
            Self::NoExpiry => "TokenNoExpiry",
            Self::Expired => "TokenExpired",
            Self::NotYetValid => "TokenNotYetValid",
            Self::SourceRemoved => "TokenSourceRemoved",
            Self::DevelopmentKey => "TokenDevelopmentKey",
        }
    }

    /// Records that are still to come could turn this into a yes.
    #[must_use]
    pub const fn depends_on_records(self) -> bool {
        matches!(self, Self::UnknownKey | Self::SourceRemoved)
    }
}

/// Circumstances of a verification.
pub struct Verifier<'a> {
    /// Own key.
    pub installation: &'a InstallationKey,
    /// Keys of tenants.
    pub keys: &'a dyn Keys,
    /// May published keys be used?
    pub development_keys: bool,
}

impl Verifier<'_> {
    /// Verifies `text` at the time `now_unix_s`.
    ///
    /// # Errors
    /// [`TokenRefusal`].
    pub fn verify(&self, text: &str, now_unix_s: i64) -> Result<Token, TokenRefusal> {
        let parsed = jwt::Parsed::parse(text)?;
        let claims = parsed.claims()?;
        let (tenant, source, source_print, own) = match claims.iss.strip_prefix(OWN_ISSUER) {
            Some(tenant) => {
                parsed.verify(&self.installation.0)?;
                let source = Source::parse(&claims.src).ok_or(TokenRefusal::Malformed)?;
                let mut print = String::new();
                if let Source::Key(key) = &source {
                    let (owner, secret) =
                        self.keys.api_key(key).ok_or(TokenRefusal::SourceRemoved)?;
                    if owner != tenant {
                        return Err(TokenRefusal::SourceRemoved);
                    }
                    print = self.installation.print(key, &secret);
                    if claims.srcp != print {
                        return Err(TokenRefusal::SourceRemoved);
                    }
                    self.refuse_published(key, &secret)?;
                }
                (tenant.to_owned(), source, print, true)
            }
            None => {
                let (tenant, secret) = self
                    .keys
                    .api_key(&claims.iss)
                    .ok_or(TokenRefusal::UnknownKey)?;
                // HMAC takes any key, an empty one too: that would let everybody sign.
                if secret.is_empty() {
                    return Err(TokenRefusal::UnknownKey);
                }
                parsed.verify(&hmac::Key::new(hmac::HMAC_SHA256, &secret))?;
                self.refuse_published(&claims.iss, &secret)?;
                let print = self.installation.print(&claims.iss, &secret);
                (tenant, Source::Key(claims.iss.clone()), print, false)
            }
        };
        let expires_unix_s = claims.exp.ok_or(TokenRefusal::NoExpiry)?.0;
        if now_unix_s >= expires_unix_s.saturating_add(LEEWAY_S) {
            return Err(TokenRefusal::Expired);
        }
        let ahead = |date: Option<claims::NumericDate>| {
            date.is_some_and(|date| date.0 > now_unix_s.saturating_add(LEEWAY_S))
        };
        if ahead(claims.nbf) || ahead(claims.iat) {
            return Err(TokenRefusal::NotYetValid);
        }
        let identity = if claims.sub.is_empty() {
            claims.jti.clone()
        } else {
            claims.sub.clone()
        };
        let issued_unix_s = claims.iat.or(claims.nbf).map_or(0, |date| date.0);
        Ok(Token {
            tenant,
            identity,
            source,
            source_print,
            own,
            issued_unix_s,
            expires_unix_s,
            claims,
        })
    }

    fn refuse_published(&self, key: &str, secret: &[u8]) -> Result<(), TokenRefusal> {
        let published = key == PUBLISHED_KEY || PUBLISHED_SECRETS.contains(&secret);
        if published && !self.development_keys {
            Err(TokenRefusal::DevelopmentKey)
        } else {
            Ok(())
        }
    }
}

/// Signs `claims` for `tenant` as an own token that stems from `stem`, valid from `now_unix_s` for `valid_s`.
#[must_use]
pub fn sign(
    installation: &InstallationKey,
    tenant: &str,
    stem: &Stem,
    claims: Claims,
    now_unix_s: i64,
    valid_s: i64,
) -> String {
    let claims = Claims {
        iss: format!("{OWN_ISSUER}{tenant}"),
        src: stem.source.to_claim(),
        srcp: stem.print.clone(),
        iat: Some(claims::NumericDate(now_unix_s)),
        nbf: Some(claims::NumericDate(now_unix_s)),
        exp: Some(claims::NumericDate(now_unix_s.saturating_add(valid_s))),
        ..claims
    };
    jwt::sign(&installation.0, &claims)
}

/// Signs claims with another key than the installation's.
pub(crate) fn sign_with(key: &hmac::Key, claims: &Claims) -> String {
    jwt::sign(key, claims)
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: EUPL-1.2
//! Who somebody at the door is: an opener by key, a person by token, a guest by the link's password.

use control_core::grant::{self, Credential, Standing};
use control_core::ids::Uid;
use control_core::record::{Conference, Opener};
use control_core::throttle::Throttle;
use serde::Deserialize;

use super::super::Gateway;
use super::super::admission;
use super::super::listen::Via;
use super::super::refusal::Refusal;
use crate::auth::{Stem, Token};
use crate::password::{PasswordError, is_opener_key};
use crate::plane::ThrottleScope;

/// Longest name, in characters.
const NAME_CHARS_MAX: usize = 64;
/// Shortest id of a page that is taken as random.
const CLIENT_ID_CHARS_MIN: usize = 16;
/// Longest.
const CLIENT_ID_CHARS_MAX: usize = 64;
/// Notices that a page acknowledges.
const ACKNOWLEDGED_MAX: usize = 64;
/// Longest opener key.
const OPENER_KEY_BYTES_MAX: usize = 512;

/// What a page sends.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct EntryBody {
    pub(super) name: String,
    pub(super) password: Option<String>,
    pub(super) opener_key: Option<String>,
    pub(super) token: Option<String>,
    pub(super) acknowledged: Vec<String>,
    pub(super) client_id: Option<String>,
}

/// Somebody who showed who they are.
#[derive(Clone, Debug)]
pub(super) struct Entrant {
    pub(super) identity: String,
    pub(super) name: String,
    pub(super) standing: Standing,
    pub(super) stem: Stem,
}

impl EntryBody {
    /// A name without control characters, direction marks and surplus blanks.
    pub(super) fn clean_name(&self) -> Result<String, Refusal> {
        let kept: String = self
            .name
            .chars()
            .map(|letter| if letter.is_whitespace() { ' ' } else { letter })
            .filter(|letter| !is_invisible(*letter))
            .collect();
        let name = kept
            .split(' ')
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
            Err(Refusal::InvalidName)
        } else {
            Ok(name)
        }
    }

    /// Consent is a condition of entry.
    pub(super) fn check_notices(&self, conference: &Conference) -> Result<(), Refusal> {
        if self.acknowledged.len() > ACKNOWLEDGED_MAX {
            return Err(Refusal::BadRequest(format!(
                "`acknowledged` has more than {ACKNOWLEDGED_MAX} entries"
            )));
        }
        let all = conference
            .notices
            .iter()
            .filter(|notice| notice.acknowledge)
            .all(|notice| self.acknowledged.contains(&notice.id));
        if all {
            Ok(())
        } else {
            Err(Refusal::AcknowledgementRequired)
        }
    }
}

/// Characters that show nothing but change how others show.
fn is_invisible(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Finds out who somebody is. Failures are counted, for the address and for the conference.
pub(super) async fn identify(
    gateway: &Gateway,
    via: Via,
    conference: &Conference,
    body: &EntryBody,
) -> Result<Entrant, Refusal> {
    if let Some(text) = body.token.as_deref().filter(|text| !text.is_empty()) {
        let token = gateway.authenticate(&axum::http::HeaderMap::new(), Some(text), via)?;
        return by_token(conference, token, body);
    }
    let name = body.clean_name()?;
    let scopes = scopes(&conference.uid, via);
    throttle(gateway, &scopes).await?;
    if let Some(key) = body.opener_key.as_deref().filter(|key| !key.is_empty()) {
        let hash = (key.len() <= OPENER_KEY_BYTES_MAX)
            .then(|| known_hash(conference, key))
            .flatten();
        let Some(hash) = hash else {
            fail(gateway, &scopes).await;
            return Err(Refusal::WrongOpenerKey);
        };
        let standing = grant::standing(conference, &Credential::OpenerKey(hash))?;
        return Ok(Entrant {
            identity: identity(gateway, conference, body, "o_"),
            name,
            standing,
            stem: Stem::door(),
        });
    }
    // Known before the password, so that nobody types one in vain.
    let standing = grant::standing(conference, &Credential::Link)?;
    let Some(password) = body
        .password
        .as_deref()
        .filter(|password| !password.is_empty())
    else {
        return Err(Refusal::PasswordRequired);
    };
    // Every conference has a password: a record without one has none that fits.
    let hash = Some(conference.password_hash.as_str()).filter(|hash| !hash.is_empty());
    if !check(gateway, hash, password, &scopes).await? {
        return Err(Refusal::WrongPassword);
    }
    Ok(Entrant {
        identity: identity(gateway, conference, body, "g_"),
        name,
        standing,
        stem: Stem::door(),
    })
}

/// For a link that names nothing: costs what a wrong password costs, so that time tells nothing.
pub(super) async fn waste(gateway: &Gateway, via: Via, body: &EntryBody) -> Result<(), Refusal> {
    let Ok(nobody) = Uid::parse("unknown") else {
        return Err(Refusal::Internal);
    };
    // Only the address is throttled: no conference can be harmed.
    let [address, _] = scopes(&nobody, via);
    let address = [address];
    throttle(gateway, &address).await?;
    check(
        gateway,
        None,
        body.password.as_deref().unwrap_or_default(),
        &address,
    )
    .await
    .map(drop)
}

fn by_token(conference: &Conference, token: Token, body: &EntryBody) -> Result<Entrant, Refusal> {
    if admission::room_of(&token)? != conference.key() {
        return Err(Refusal::OtherRoom);
    }
    if token.identity.is_empty() {
        return Err(Refusal::NoIdentity);
    }
    let standing = admission::standing_of(&token, conference)?;
    let stem = token.stem();
    let name = if token.claims.name.is_empty() {
        body.clean_name().unwrap_or_default()
    } else {
        token.claims.name
    };
    Ok(Entrant {
        identity: token.identity,
        name,
        standing,
        stem,
    })
}

/// The hash of `key` if it is one of the conference's; every hash is compared, in constant time.
fn known_hash(conference: &Conference, key: &str) -> Option<[u8; 32]> {
    conference
        .openers
        .iter()
        .fold(None, |found, opener| match opener {
            Opener::KeySha256(hash) if is_opener_key(key, hash) => Some(*hash),
            _ => found,
        })
}

/// 128 bits nobody can guess: random, or the same again for a page that names itself by a random id.
fn identity(gateway: &Gateway, conference: &Conference, body: &EntryBody, prefix: &str) -> String {
    let length = CLIENT_ID_CHARS_MIN..=CLIENT_ID_CHARS_MAX;
    let bits = match body
        .client_id
        .as_deref()
        .filter(|id| length.contains(&id.len()))
    {
        Some(id) => gateway.0.installation.derive(&[
            b"identity",
            prefix.as_bytes(),
            conference.uid.as_str().as_bytes(),
            id.as_bytes(),
        ]),
        None => crate::auth::random_128(),
    };
    format!("{prefix}{}", data_encoding::HEXLOWER.encode(&bits))
}

/// Failures count for the address and for the conference.
fn scopes(uid: &Uid, via: Via) -> [ThrottleScope; 2] {
    [
        ThrottleScope::Address(uid.clone(), via.peer),
        ThrottleScope::Conference(uid.clone()),
    ]
}

async fn throttle(gateway: &Gateway, scopes: &[ThrottleScope]) -> Result<(), Refusal> {
    for scope in scopes {
        if let Throttle::Wait(wait) = gateway.0.plane.throttle(scope.clone()).await {
            return Err(Refusal::Throttled(wait));
        }
    }
    Ok(())
}

async fn fail(gateway: &Gateway, scopes: &[ThrottleScope]) {
    for scope in scopes {
        gateway.0.plane.count_failure(scope.clone()).await;
    }
}

/// Checks a password and counts a wrong one.
///
/// Whoever sends many at a time is asked again when their turn comes, and the turn ends only after the failure was counted: however many
/// wait, no more than the pool's workers are tried beyond what is free.
async fn check(
    gateway: &Gateway,
    hash: Option<&str>,
    password: &str,
    scopes: &[ThrottleScope],
) -> Result<bool, Refusal> {
    let passwords = &gateway.0.passwords;
    if passwords.is_known(hash, password) {
        return Ok(true);
    }
    let turn = passwords.turn().await.map_err(|error| refusal_of(&error))?;
    throttle(gateway, scopes).await?;
    let (right, turn) = passwords
        .check(turn, hash, password)
        .await
        .map_err(|error| refusal_of(&error))?;
    if !right {
        fail(gateway, scopes).await;
    }
    drop(turn);
    Ok(right)
}

fn refusal_of(error: &PasswordError) -> Refusal {
    match error {
        PasswordError::Busy => Refusal::Busy,
        PasswordError::Unusable => {
            tracing::error!(
                event = "PasswordHashUnusable",
                "a conference's password hash cannot be used"
            );
            Refusal::Internal
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Option<String> {
        EntryBody {
            name: text.to_owned(),
            ..EntryBody::default()
        }
        .clean_name()
        .ok()
    }

    #[test]
    fn names_are_freed_of_what_does_not_show() {
        assert_eq!(name("  Anna \t Muster\n"), Some("Anna Muster".to_owned()));
        assert_eq!(name("An\u{202e}na\u{200b}"), Some("Anna".to_owned()));
        assert_eq!(name("Žofie Ünal 李"), Some("Žofie Ünal 李".to_owned()));
        for wrong in ["", " ", "\u{200b}", "\u{7}", &"a".repeat(65)] {
            assert_eq!(name(wrong), None, "{wrong:?}");
        }
    }
}

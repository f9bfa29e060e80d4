// SPDX-License-Identifier: EUPL-1.2
//! Refreshed tokens: what a client joins with after its first token has run out.

use std::collections::BTreeMap;

use control_core::ids::RoomKey;
use plenum_proto::v1::TokenFacts;

use super::super::Gateway;
use super::super::admission::without_server_attributes;
use super::role_of;
use crate::auth::{self, Claims, OwnClaims, Source, Token, VideoGrant};

/// A refreshed token lives at least this long.
const VALID_S_MIN: i64 = 600;

/// A token with the person's present facts, that lives as long as the one it stems from and at least ten minutes. The room says when.
///
/// None where the key that it would stem from is gone or has another secret: it would be refused, and must not come to life when a key of that name comes back.
pub(super) fn sign(
    gateway: &Gateway,
    token: &Token,
    key: &RoomKey,
    facts: &TokenFacts,
    publish_only: bool,
) -> Option<String> {
    if let Source::Key(key) = &token.source {
        let view = gateway.0.plane.view();
        let owner = view.tenant_of_key(key)?;
        let print = gateway
            .0
            .installation
            .print(key, owner.secret(key)?.expose());
        if owner.name.as_str() != token.tenant || print != token.source_print {
            return None;
        }
    }
    let now = gateway.now_unix_s();
    let valid_s = token.expires_unix_s.saturating_sub(now).max(VALID_S_MIN);
    Some(auth::sign(
        &gateway.0.installation,
        &token.tenant,
        &token.stem(),
        claims(token, key, facts, publish_only),
        now,
        valid_s,
    ))
}

fn claims(token: &Token, key: &RoomKey, facts: &TokenFacts, publish_only: bool) -> Claims {
    let attributes: BTreeMap<String, String> = facts.attributes.clone().into_iter().collect();
    let mut grants = facts.grants.clone().unwrap_or_default();
    if publish_only {
        // An extra connection that only publishes is the query's wish, not the token's.
        grants.can_subscribe = token.video().to_grants().can_subscribe;
    }
    Claims {
        // The token's own identity: that of an extra connection has a suffix, which the query adds again.
        sub: token.identity.clone(),
        kind: token.claims.kind.clone(),
        name: facts.name.clone(),
        metadata: facts.metadata.clone(),
        attributes: without_server_attributes(&attributes),
        video: Some(VideoGrant::from_grants(&grants, key.name.as_str())),
        plenum: Some(OwnClaims {
            role: role_of(facts),
            guest: facts.guest,
            opener: facts.opener,
        }),
        ..Claims::default()
    }
}

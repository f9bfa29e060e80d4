// SPDX-License-Identifier: EUPL-1.2
//! From a verified token to what a room is told of the person: pure, over the directory and the live room.

use std::collections::BTreeMap;
use std::time::Duration;

use control_core::directory::DirectoryView;
use control_core::grant::{self, Credential, Standing};
use control_core::ids::{RoomKey, TenantName};
use control_core::opening::{Opening, opening};
use control_core::record::{AdHoc, Conference, Role, RoomPolicy, Tenant};
use control_core::time::UnixMillis;
use livekit_protocol::RoomConfiguration;
use plenum_proto::v1;

use super::refusal::Refusal;
use crate::auth::{Keys, RoleName, Source, Token};
use crate::plane::{LiveRoom, PlaceRequest};

/// Longest identity.
const IDENTITY_BYTES_MAX: usize = 256;
/// Attributes that only the server writes.
const SERVER_ATTRIBUTES: [&str; 2] = ["plenum.role", "plenum.guest"];
/// A token may let a room that it creates stay empty for this long at most.
const EMPTY_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

impl Keys for DirectoryView {
    fn api_key(&self, key: &str) -> Option<(String, Vec<u8>)> {
        let tenant = self.tenant_of_key(key)?;
        Some((
            tenant.name.as_str().to_owned(),
            tenant.secret(key)?.expose().to_vec(),
        ))
    }
}

/// A person who may enter, and the room as it has to be placed.
#[derive(Clone, Debug)]
pub struct Admission {
    /// What the room needs.
    pub place: PlaceRequest,
    /// Key of the room.
    pub key: RoomKey,
    /// Identity.
    pub identity: String,
    /// Role and marks; `None` in rooms that are no object: the grants alone decide.
    pub standing: Option<Standing>,
    /// Grants as the token says, with defaults; the room narrows them.
    pub grants: v1::Grants,
}

/// What is known around a join.
pub struct Surroundings<'a> {
    /// The directory.
    pub view: &'a DirectoryView,
    /// Has a whole snapshot arrived?
    pub loaded: bool,
    /// Have nodes had the time to name their rooms since this process began?
    pub settled: bool,
    /// The room, if it lives.
    pub room: Option<&'a LiveRoom>,
    /// Wall time.
    pub now: UnixMillis,
}

/// The room that a token lets its person enter.
///
/// # Errors
/// [`Refusal`]: no room, or a name that cannot be one.
pub fn room_of(token: &Token) -> Result<RoomKey, Refusal> {
    if !token.video().room_join {
        return Err(Refusal::NotGranted("roomJoin"));
    }
    room_named(token)
}

/// The room that a token names, whatever it grants there.
///
/// # Errors
/// [`Refusal`]: no room, or a name that cannot be one.
pub fn room_named(token: &Token) -> Result<RoomKey, Refusal> {
    let video = token.video();
    if video.room.is_empty() {
        return Err(Refusal::NoRoom);
    }
    RoomKey::parse(&token.tenant, &video.room)
        .map_err(|error| Refusal::InvalidArgument(error.to_string()))
}

/// May the token's person enter its room, and as what?
///
/// # Errors
/// [`Refusal`].
pub fn admit(
    around: &Surroundings<'_>,
    token: &Token,
    key: &RoomKey,
) -> Result<Admission, Refusal> {
    if token.identity.is_empty() {
        return Err(Refusal::NoIdentity);
    }
    if token.identity.len() > IDENTITY_BYTES_MAX || token.identity.chars().any(char::is_control) {
        return Err(Refusal::InvalidArgument(format!(
            "the identity has more than {IDENTITY_BYTES_MAX} bytes or control characters"
        )));
    }
    let tenant = tenant(around, &key.tenant)?;
    let (standing, policy, pool) = match around.view.conference_of_room(key) {
        Some(conference) => {
            may_be_open(around, tenant, conference)?;
            let standing = standing_of(token, conference)?;
            // Where a room runs, it decides itself: what is heard of it here comes a moment after its opener was answered.
            if !standing.opener && around.room.is_none() {
                return Err(Refusal::NotOpened);
            }
            (
                Some(standing),
                conference.policy.clone(),
                conference.pool.clone(),
            )
        }
        None => {
            running_or_active(around, tenant)?;
            (None, ad_hoc(around, tenant, token)?, None)
        }
    };
    if around
        .room
        .is_some_and(|room| room.facts.is_revoked(&token.identity, token.issued_unix_s))
    {
        return Err(Refusal::RoomRefused {
            reason: "Revoked".to_owned(),
            message: "this token was revoked".to_owned(),
        });
    }
    let grants = token.video().to_grants();
    Ok(Admission {
        place: PlaceRequest {
            tenant: key.tenant.clone(),
            room: key.name.clone(),
            policy,
            pool,
            floor: around.room.map(|room| room.epoch).unwrap_or_default(),
            participants: 1,
            publishers: u32::from(may_publish(around, key, standing.as_ref(), &grants)),
        },
        key: key.clone(),
        identity: token.identity.clone(),
        standing,
        grants,
    })
}

/// Might a person send audio or video? Who may not needs nothing of the tenant's publishers.
fn may_publish(
    around: &Surroundings<'_>,
    key: &RoomKey,
    standing: Option<&Standing>,
    grants: &v1::Grants,
) -> bool {
    let by_role = match (standing, around.view.conference_of_room(key)) {
        (Some(standing), Some(conference)) => conference
            .policy
            .permissions
            .get(&standing.role)
            .is_some_and(|may| may.microphone || may.camera || may.screen_share),
        _ => true,
    };
    grants.can_publish && by_role
}

/// A tenant that exists.
///
/// # Errors
/// [`Refusal`].
pub fn tenant<'a>(around: &Surroundings<'a>, name: &TenantName) -> Result<&'a Tenant, Refusal> {
    match around.view.tenant(name) {
        Some(tenant) => Ok(tenant),
        None if around.loaded => Err(Refusal::TenantSuspended),
        None => Err(Refusal::NotLoaded),
    }
}

/// Outer bounds of a declared conference.
///
/// # Errors
/// [`Refusal`].
pub fn may_be_open(
    around: &Surroundings<'_>,
    tenant: &Tenant,
    conference: &Conference,
) -> Result<(), Refusal> {
    if conference.suspended {
        return Err(Refusal::ConferenceSuspended);
    }
    if tenant.suspended {
        return running_or_active(around, tenant);
    }
    match opening(tenant, conference, around.now) {
        Opening::Allowed { .. } => Ok(()),
        Opening::NotYet { .. } => Err(Refusal::NotYetTime),
        Opening::Over => Err(Refusal::Ended),
        Opening::Suspended => Err(Refusal::ConferenceSuspended),
    }
}

/// A suspended tenant gets no new rooms; those that run go on unless they are to end as well.
fn running_or_active(around: &Surroundings<'_>, tenant: &Tenant) -> Result<(), Refusal> {
    if tenant.suspended && (tenant.suspend_terminate || around.room.is_none()) {
        return Err(Refusal::TenantSuspended);
    }
    if tenant.active_from.is_some_and(|from| around.now < from) && around.room.is_none() {
        return Err(Refusal::NotYetTime);
    }
    Ok(())
}

/// Role and marks: from an own token as written there, otherwise by the conference's rules.
///
/// # Errors
/// [`Refusal`].
pub fn standing_of(token: &Token, conference: &Conference) -> Result<Standing, Refusal> {
    let own = token.own_claims();
    if let Some(role) = own.role {
        if own.guest && !conference.policy.guests_allowed {
            return Err(grant::GrantRefusal::GuestsForbidden.into());
        }
        return Ok(Standing {
            role: core_role(role),
            guest: own.guest,
            opener: own.opener,
        });
    }
    if token.own && token.source == Source::Door {
        // The door always writes a role; without one this is nothing that we signed for a conference.
        return Err(Refusal::OtherRoom);
    }
    let credential = Credential::TenantToken {
        subject: token.identity.clone(),
        room_admin: token.video().room_admin,
        groups: Vec::new(),
    };
    Ok(grant::standing(conference, &credential)?)
}

fn ad_hoc(
    around: &Surroundings<'_>,
    tenant: &Tenant,
    token: &Token,
) -> Result<RoomPolicy, Refusal> {
    let policy = tenant
        .ad_hoc_policy
        .as_ref()
        .filter(|_| tenant.ad_hoc != AdHoc::Forbidden);
    let exists = around.room.is_some();
    let policy = match (policy, tenant.ad_hoc) {
        // The door's tokens are for declared conferences; this one has been retracted.
        _ if token.source == Source::Door => None,
        (Some(policy), AdHoc::OnJoin) => Some(policy),
        (Some(policy), AdHoc::OnCreate) if exists => Some(policy),
        // The room may run on a node that has not reported yet.
        (Some(_), AdHoc::OnCreate) if !around.settled => return Err(Refusal::NotLoaded),
        _ => None,
    };
    match policy {
        Some(policy) => Ok(with_wishes(policy, token.claims.room_config.as_ref())),
        None if around.loaded => Err(Refusal::RoomUnknown),
        None => Err(Refusal::NotLoaded),
    }
}

/// `roomConfig` of the token that creates the room: it narrows, it never loosens.
fn with_wishes(policy: &RoomPolicy, wishes: Option<&serde_json::Value>) -> RoomPolicy {
    let wishes: RoomConfiguration = wishes
        .and_then(|wishes| serde_json::from_value(wishes.clone()).ok())
        .unwrap_or_default();
    narrowed(
        policy,
        wishes.max_participants,
        wishes.empty_timeout,
        wishes.departure_timeout,
    )
}

/// A policy with the wishes of whoever creates the room; 0 = none.
#[must_use]
pub fn narrowed(
    policy: &RoomPolicy,
    max_participants: u32,
    empty_timeout_s: u32,
    departure_timeout_s: u32,
) -> RoomPolicy {
    let mut policy = policy.clone();
    if max_participants > 0
        && (policy.max_participants == 0 || max_participants < policy.max_participants)
    {
        policy.max_participants = max_participants;
    }
    let wish = |seconds: u32| {
        Some(Duration::from_secs(seconds.into()).min(EMPTY_TIMEOUT_MAX))
            .filter(|wish| !wish.is_zero())
    };
    policy.empty_timeout = wish(empty_timeout_s).unwrap_or(policy.empty_timeout);
    policy.departure_timeout = wish(departure_timeout_s).unwrap_or(policy.departure_timeout);
    policy
}

/// Attributes without those that only the server writes.
#[must_use]
pub fn without_server_attributes(
    attributes: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    attributes
        .iter()
        .filter(|(name, _)| !SERVER_ATTRIBUTES.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Between the two spellings of a role.
#[must_use]
pub const fn core_role(role: RoleName) -> Role {
    match role {
        RoleName::Moderator => Role::Moderator,
        RoleName::Presenter => Role::Presenter,
        RoleName::Participant => Role::Participant,
        RoleName::Guest => Role::Guest,
    }
}

/// Between the two spellings of a role.
#[must_use]
pub const fn token_role(role: Role) -> RoleName {
    match role {
        Role::Moderator => RoleName::Moderator,
        Role::Presenter => RoleName::Presenter,
        Role::Participant => RoleName::Participant,
        Role::Guest => RoleName::Guest,
    }
}

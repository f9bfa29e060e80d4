// SPDX-License-Identifier: EUPL-1.2
//! Roles, rules and facts of rooms.

use std::collections::BTreeMap;
use std::time::Duration;

use control_core::limits;
use control_core::record::{
    ChatRule, LobbyRule, Permission, Revocation, Role, RoomFacts, RoomPolicy,
};
use plenum_proto::v1 as wire;

use super::{ConvertError, Result, bounded, text};

pub(super) fn role(field: &'static str, role: i32) -> Result<Role> {
    match wire::Role::try_from(role) {
        Ok(wire::Role::Moderator) => Ok(Role::Moderator),
        Ok(wire::Role::Presenter) => Ok(Role::Presenter),
        Ok(wire::Role::Participant) => Ok(Role::Participant),
        Ok(wire::Role::Guest) => Ok(Role::Guest),
        _ => Err(ConvertError::Value {
            field,
            rule: "a role is MODERATOR, PRESENTER, PARTICIPANT or GUEST",
        }),
    }
}

/// Role, for the wire.
#[must_use]
pub const fn role_out(role: Role) -> wire::Role {
    match role {
        Role::Moderator => wire::Role::Moderator,
        Role::Presenter => wire::Role::Presenter,
        Role::Participant => wire::Role::Participant,
        Role::Guest => wire::Role::Guest,
    }
}

fn permission(permission: wire::Permission) -> Result<(Role, Permission)> {
    let wire::Permission {
        role: of,
        microphone,
        camera,
        screen_share,
        chat,
        moderate,
        record,
        enter_muted,
    } = permission;
    let chat = match wire::ChatRule::try_from(chat) {
        Ok(wire::ChatRule::ChatEveryone) => ChatRule::Everyone,
        Ok(wire::ChatRule::ChatModerators) => ChatRule::Moderators,
        Ok(wire::ChatRule::ChatOff) => ChatRule::Off,
        _ => {
            return Err(ConvertError::Value {
                field: "permissions.chat",
                rule: "chat is EVERYONE, MODERATORS or OFF",
            });
        }
    };
    let of = role("permissions.role", of)?;
    Ok((
        of,
        Permission {
            microphone,
            camera,
            screen_share,
            chat,
            moderate,
            record,
            enter_muted,
        },
    ))
}

fn permission_out(role: Role, permission: &Permission) -> wire::Permission {
    let Permission {
        microphone,
        camera,
        screen_share,
        chat,
        moderate,
        record,
        enter_muted,
    } = *permission;
    let chat = match chat {
        ChatRule::Everyone => wire::ChatRule::ChatEveryone,
        ChatRule::Moderators => wire::ChatRule::ChatModerators,
        ChatRule::Off => wire::ChatRule::ChatOff,
    };
    wire::Permission {
        role: role_out(role).into(),
        microphone,
        camera,
        screen_share,
        chat: chat.into(),
        moderate,
        record,
        enter_muted,
    }
}

/// Rules of a room.
///
/// # Errors
/// [`ConvertError`].
pub fn policy(policy: wire::RoomPolicy) -> Result<RoomPolicy> {
    let lobby = match wire::LobbyRule::try_from(policy.lobby) {
        Ok(wire::LobbyRule::LobbyOff) => LobbyRule::Off,
        Ok(wire::LobbyRule::LobbyGuests) => LobbyRule::Guests,
        Ok(wire::LobbyRule::LobbyEveryone) => LobbyRule::Everyone,
        _ => {
            return Err(ConvertError::Value {
                field: "policy.lobby",
                rule: "the lobby is OFF, GUESTS or EVERYONE",
            });
        }
    };
    bounded("policy.permissions", policy.permissions.len(), 4)?;
    bounded("policy.codecs", policy.codecs.len(), limits::CODECS_MAX)?;
    let codecs: Result<Vec<String>> = policy
        .codecs
        .into_iter()
        .map(|codec| text("policy.codecs", codec, 64))
        .collect();
    let permissions: Result<BTreeMap<Role, Permission>> =
        policy.permissions.into_iter().map(permission).collect();
    Ok(RoomPolicy {
        declared: policy.declared,
        lobby,
        guests_allowed: policy.guests_allowed,
        permissions: permissions?,
        max_participants: policy.max_participants,
        max_publishers: policy.max_publishers,
        empty_timeout: Duration::from_millis(policy.empty_timeout_ms),
        departure_timeout: Duration::from_millis(policy.departure_timeout_ms),
        max_duration: Duration::from_millis(policy.max_duration_ms),
        max_bitrate_kbps: policy.max_bitrate_kbps,
        screen_share: policy.screen_share,
        e2ee_required: policy.e2ee_required,
        codecs: codecs?,
        revision: text("policy.revision", policy.revision, 128)?,
    })
}

/// Rules of a room, for the wire.
#[must_use]
pub fn policy_out(policy: &RoomPolicy) -> wire::RoomPolicy {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let lobby = match policy.lobby {
        LobbyRule::Off => wire::LobbyRule::LobbyOff,
        LobbyRule::Guests => wire::LobbyRule::LobbyGuests,
        LobbyRule::Everyone => wire::LobbyRule::LobbyEveryone,
    };
    wire::RoomPolicy {
        declared: policy.declared,
        lobby: lobby.into(),
        guests_allowed: policy.guests_allowed,
        permissions: policy
            .permissions
            .iter()
            .map(|(role, permission)| permission_out(*role, permission))
            .collect(),
        max_participants: policy.max_participants,
        max_publishers: policy.max_publishers,
        empty_timeout_ms: millis(policy.empty_timeout),
        departure_timeout_ms: millis(policy.departure_timeout),
        max_duration_ms: millis(policy.max_duration),
        max_bitrate_kbps: policy.max_bitrate_kbps,
        screen_share: policy.screen_share,
        e2ee_required: policy.e2ee_required,
        codecs: policy.codecs.clone(),
        revision: policy.revision.clone(),
    }
}

/// Facts of a room.
///
/// # Errors
/// [`ConvertError`].
pub fn facts(facts: wire::RoomFacts) -> Result<RoomFacts> {
    bounded(
        "facts.revoked",
        facts.revoked.len(),
        limits::FACT_ENTRIES_MAX,
    )?;
    bounded(
        "facts.admitted",
        facts.admitted.len(),
        limits::FACT_ENTRIES_MAX,
    )?;
    bounded(
        "facts.role_changes",
        facts.role_changes.len(),
        limits::FACT_ENTRIES_MAX,
    )?;
    let role_changes: Result<Vec<(String, Role)>> = facts
        .role_changes
        .into_iter()
        .map(|change| {
            Ok((
                change.identity,
                role("facts.role_changes.role", change.role)?,
            ))
        })
        .collect();
    Ok(RoomFacts {
        room_sid: text("facts.room_sid", facts.room_sid, 64)?,
        opened: facts.opened,
        locked: facts.locked,
        revoked: facts
            .revoked
            .into_iter()
            .map(|revocation| Revocation {
                identity: revocation.identity,
                not_before_unix_s: revocation.not_before_unix_s,
            })
            .collect(),
        admitted: facts.admitted,
        role_changes: role_changes?,
        metadata: text("facts.metadata", facts.metadata, limits::METADATA_BYTES_MAX)?,
        created_unix_ms: facts.created_unix_ms,
    })
}

/// Facts of a room, for the wire.
#[must_use]
pub fn facts_out(facts: &RoomFacts) -> wire::RoomFacts {
    wire::RoomFacts {
        room_sid: facts.room_sid.clone(),
        opened: facts.opened,
        locked: facts.locked,
        revoked: facts
            .revoked
            .iter()
            .map(|revocation| wire::Revocation {
                identity: revocation.identity.clone(),
                not_before_unix_s: revocation.not_before_unix_s,
            })
            .collect(),
        admitted: facts.admitted.clone(),
        role_changes: facts
            .role_changes
            .iter()
            .map(|(identity, role)| wire::RoleChange {
                identity: identity.clone(),
                role: role_out(*role).into(),
            })
            .collect(),
        metadata: facts.metadata.clone(),
        created_unix_ms: facts.created_unix_ms,
    }
}

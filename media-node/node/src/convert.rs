// SPDX-License-Identifier: EUPL-1.2
//! Wire messages to the room's plain values and back. What comes in is bounded and checked here; behind it everything is typed.

use std::collections::BTreeMap;

use media_room::api;
use plenum_proto::v1;
use tonic::Status;

use crate::rooms::Key;

/// Tenant names are DNS labels.
const TENANT_MAX: usize = 63;
/// Names of rooms, people and their identities.
const NAME_MAX: usize = 256;
/// Short words: kinds, sids, suffixes, codec names, revisions.
const WORD_MAX: usize = 128;
/// Metadata of a participant, and all attributes together.
const METADATA_MAX: usize = 64 * 1024;
/// Attributes of a participant.
const ATTRIBUTES_MAX: usize = 256;
/// An encoded `livekit.ClientInfo`.
const CLIENT_INFO_MAX: usize = 4 * 1024;
/// Metadata of a room that survives its node (`decisions.md` §2.1).
const ROOM_METADATA_MAX: usize = 16 * 1024;
/// People in one list of room facts.
const FACTS_MAX: usize = 10_000;
/// Names in one list of a request.
const LIST_MAX: usize = 1_000;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A field without which nothing can be done.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A text or list exceeds its bound.
    #[error("{field} exceeds its bound of {max}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its bound.
        max: usize,
    },
    /// A number of an enum that this version does not know.
    #[error("{0} has no such value")]
    Unknown(&'static str),
}

impl From<ConvertError> for Status {
    fn from(error: ConvertError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

fn bounded<T: AsRef<[u8]>>(field: &'static str, value: T, max: usize) -> Result<T, ConvertError> {
    if value.as_ref().len() > max {
        Err(ConvertError::TooLong { field, max })
    } else {
        Ok(value)
    }
}

fn required(field: &'static str, value: String, max: usize) -> Result<String, ConvertError> {
    if value.is_empty() {
        Err(ConvertError::Missing(field))
    } else {
        bounded(field, value, max)
    }
}

fn short_list<T>(field: &'static str, list: Vec<T>, max: usize) -> Result<Vec<T>, ConvertError> {
    if list.len() > max {
        Err(ConvertError::TooLong { field, max })
    } else {
        Ok(list)
    }
}

fn names(field: &'static str, list: Vec<String>, max: usize) -> Result<Vec<String>, ConvertError> {
    short_list(field, list, max)?
        .into_iter()
        .map(|name| bounded(field, name, NAME_MAX))
        .collect()
}

/// Key of a room.
///
/// # Errors
/// [`ConvertError`].
pub fn key(key: Option<v1::RoomKey>) -> Result<Key, ConvertError> {
    let key = key.ok_or(ConvertError::Missing("key"))?;
    Ok((
        required("key.tenant", key.tenant, TENANT_MAX)?,
        required("key.name", key.name, NAME_MAX)?,
    ))
}

fn role(number: i32) -> Result<Option<api::Role>, ConvertError> {
    Ok(
        match v1::Role::try_from(number).map_err(|_| ConvertError::Unknown("role"))? {
            v1::Role::Unspecified => None,
            v1::Role::Moderator => Some(api::Role::Moderator),
            v1::Role::Presenter => Some(api::Role::Presenter),
            v1::Role::Participant => Some(api::Role::Participant),
            v1::Role::Guest => Some(api::Role::Guest),
        },
    )
}

fn role_out(role: Option<api::Role>) -> v1::Role {
    match role {
        None => v1::Role::Unspecified,
        Some(api::Role::Moderator) => v1::Role::Moderator,
        Some(api::Role::Presenter) => v1::Role::Presenter,
        Some(api::Role::Participant) => v1::Role::Participant,
        Some(api::Role::Guest) => v1::Role::Guest,
    }
}

fn permission(permission: v1::Permission) -> Result<(api::Role, api::Permission), ConvertError> {
    let role = role(permission.role)?.ok_or(ConvertError::Missing("permissions.role"))?;
    let chat = match v1::ChatRule::try_from(permission.chat)
        .map_err(|_| ConvertError::Unknown("permissions.chat"))?
    {
        v1::ChatRule::ChatEveryone => api::ChatRule::Everyone,
        v1::ChatRule::ChatModerators => api::ChatRule::Moderators,
        v1::ChatRule::ChatOff => api::ChatRule::Off,
        v1::ChatRule::Unspecified => return Err(ConvertError::Missing("permissions.chat")),
    };
    Ok((
        role,
        api::Permission {
            microphone: permission.microphone,
            camera: permission.camera,
            screen_share: permission.screen_share,
            chat,
            moderate: permission.moderate,
            record: permission.record,
            enter_muted: permission.enter_muted,
        },
    ))
}

/// Rules of a room. Complete, or refused: nothing is filled in here.
///
/// # Errors
/// [`ConvertError`].
pub fn policy(policy: Option<v1::RoomPolicy>) -> Result<api::Policy, ConvertError> {
    let policy = policy.ok_or(ConvertError::Missing("policy"))?;
    let lobby = match v1::LobbyRule::try_from(policy.lobby)
        .map_err(|_| ConvertError::Unknown("policy.lobby"))?
    {
        v1::LobbyRule::LobbyOff => api::LobbyRule::Off,
        v1::LobbyRule::LobbyGuests => api::LobbyRule::Guests,
        v1::LobbyRule::LobbyEveryone => api::LobbyRule::Everyone,
        v1::LobbyRule::Unspecified => return Err(ConvertError::Missing("policy.lobby")),
    };
    Ok(api::Policy {
        declared: policy.declared,
        lobby,
        guests_allowed: policy.guests_allowed,
        permissions: short_list("policy.permissions", policy.permissions, 16)?
            .into_iter()
            .map(permission)
            .collect::<Result<_, _>>()?,
        max_participants: policy.max_participants,
        max_publishers: policy.max_publishers,
        empty_timeout_ms: policy.empty_timeout_ms,
        departure_timeout_ms: policy.departure_timeout_ms,
        max_duration_ms: policy.max_duration_ms,
        screen_share: policy.screen_share,
        e2ee_required: policy.e2ee_required,
        codecs: names("policy.codecs", policy.codecs, 32)?,
        revision: bounded("policy.revision", policy.revision, WORD_MAX)?,
    })
}

/// Facts of a former epoch; none = a room that begins.
///
/// # Errors
/// [`ConvertError`].
pub fn facts(facts: Option<v1::RoomFacts>) -> Result<api::Facts, ConvertError> {
    let facts = facts.unwrap_or_default();
    Ok(api::Facts {
        room_sid: bounded("facts.room_sid", facts.room_sid, WORD_MAX)?,
        opened: facts.opened,
        locked: facts.locked,
        revoked: short_list("facts.revoked", facts.revoked, FACTS_MAX)?
            .into_iter()
            .map(|revocation| {
                Ok(api::Revocation {
                    identity: bounded("facts.revoked.identity", revocation.identity, NAME_MAX)?,
                    not_before_unix_s: revocation.not_before_unix_s,
                })
            })
            .collect::<Result<_, _>>()?,
        admitted: names("facts.admitted", facts.admitted, FACTS_MAX)?,
        role_changes: short_list("facts.role_changes", facts.role_changes, FACTS_MAX)?
            .into_iter()
            .map(|change| {
                let role =
                    role(change.role)?.ok_or(ConvertError::Missing("facts.role_changes.role"))?;
                Ok((
                    bounded("facts.role_changes.identity", change.identity, NAME_MAX)?,
                    role,
                ))
            })
            .collect::<Result<_, _>>()?,
        metadata: bounded("facts.metadata", facts.metadata, ROOM_METADATA_MAX)?,
        created_unix_ms: facts.created_unix_ms,
    })
}

/// Facts for the control plane.
#[must_use]
pub fn facts_out(facts: api::Facts) -> v1::RoomFacts {
    v1::RoomFacts {
        room_sid: facts.room_sid,
        opened: facts.opened,
        locked: facts.locked,
        revoked: facts
            .revoked
            .into_iter()
            .map(|revocation| v1::Revocation {
                identity: revocation.identity,
                not_before_unix_s: revocation.not_before_unix_s,
            })
            .collect(),
        admitted: facts.admitted,
        role_changes: facts
            .role_changes
            .into_iter()
            .map(|(identity, role)| v1::RoleChange {
                identity,
                role: role_out(Some(role)) as i32,
            })
            .collect(),
        metadata: facts.metadata,
        created_unix_ms: facts.created_unix_ms,
    }
}

/// A client's frame.
///
/// # Errors
/// [`ConvertError`].
pub fn frame(frame: v1::Frame) -> Result<api::Frame, ConvertError> {
    match v1::frame::Kind::try_from(frame.kind).map_err(|_| ConvertError::Unknown("frame.kind"))? {
        v1::frame::Kind::Binary => Ok(api::Frame::Binary(frame.data)),
        v1::frame::Kind::Text => Ok(api::Frame::Text(frame.data)),
        v1::frame::Kind::Unspecified => Err(ConvertError::Missing("frame.kind")),
    }
}

/// A frame for a client.
#[must_use]
pub fn frame_out(frame: api::Frame) -> v1::Frame {
    let (kind, data) = match frame {
        api::Frame::Binary(data) => (v1::frame::Kind::Binary, data),
        api::Frame::Text(data) => (v1::frame::Kind::Text, data),
    };
    v1::Frame {
        kind: kind as i32,
        data,
    }
}

fn grants(grants: v1::Grants) -> Result<api::Grants, ConvertError> {
    Ok(api::Grants {
        room_join: grants.room_join,
        room_admin: grants.room_admin,
        can_publish: grants.can_publish,
        can_subscribe: grants.can_subscribe,
        can_publish_data: grants.can_publish_data,
        can_publish_sources: names("grants.can_publish_sources", grants.can_publish_sources, 16)?,
        can_update_own_metadata: grants.can_update_own_metadata,
        hidden: grants.hidden,
        recorder: grants.recorder,
        agent: grants.agent,
    })
}

fn grants_out(grants: api::Grants) -> v1::Grants {
    v1::Grants {
        room_join: grants.room_join,
        room_admin: grants.room_admin,
        can_publish: grants.can_publish,
        can_subscribe: grants.can_subscribe,
        can_publish_data: grants.can_publish_data,
        can_publish_sources: grants.can_publish_sources,
        can_update_own_metadata: grants.can_update_own_metadata,
        hidden: grants.hidden,
        recorder: grants.recorder,
        agent: grants.agent,
    }
}

/// A session's beginning: room, epoch, and what the room is told.
///
/// # Errors
/// [`ConvertError`].
pub fn session_start(
    start: v1::SessionStart,
) -> Result<(Key, u64, api::SessionStart), ConvertError> {
    let (key, epoch) = (key(start.key)?, start.epoch);
    let client = start.client.unwrap_or_default();
    if start.attributes.len() > ATTRIBUTES_MAX {
        return Err(ConvertError::TooLong {
            field: "attributes",
            max: ATTRIBUTES_MAX,
        });
    }
    let attributes: BTreeMap<String, String> = start.attributes.into_iter().collect();
    if attributes
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum::<usize>()
        > METADATA_MAX
    {
        return Err(ConvertError::TooLong {
            field: "attributes",
            max: METADATA_MAX,
        });
    }
    let start = api::SessionStart {
        identity: required("identity", start.identity, NAME_MAX)?,
        name: bounded("name", start.name, NAME_MAX)?,
        metadata: bounded("metadata", start.metadata, METADATA_MAX)?,
        attributes,
        grants: grants(start.grants.ok_or(ConvertError::Missing("grants"))?)?,
        role: role(start.role)?,
        guest: start.guest,
        opener: start.opener,
        token_issued_unix_s: start.token_issued_unix_s,
        client: api::ClientParameters {
            client_info: bounded("client.client_info", client.client_info, CLIENT_INFO_MAX)?,
            protocol: client.protocol,
            auto_subscribe: client.auto_subscribe,
            adaptive_stream: client.adaptive_stream,
            publish_only_suffix: bounded(
                "client.publish_only_suffix",
                client.publish_only_suffix,
                WORD_MAX,
            )?,
        },
        reconnect: start.reconnect,
        participant_sid: bounded("participant_sid", start.participant_sid, WORD_MAX)?,
        reconnect_reason: start.reconnect_reason,
        kind: bounded("kind", start.kind, WORD_MAX)?,
        text_frames: start.text_frames,
    };
    Ok((key, epoch, start))
}

/// What the gateway signs into a refreshed token.
#[must_use]
pub fn token_facts_out(facts: api::TokenFacts) -> v1::TokenFacts {
    v1::TokenFacts {
        identity: facts.identity,
        name: facts.name,
        metadata: facts.metadata,
        attributes: facts.attributes.into_iter().collect(),
        grants: Some(grants_out(facts.grants)),
        role: role_out(facts.role) as i32,
        guest: facts.guest,
        opener: facts.opener,
    }
}

/// Somebody at the door.
///
/// # Errors
/// [`ConvertError`].
pub fn knock(request: v1::KnockRequest) -> Result<(Key, u64, api::Knock), ConvertError> {
    let entry = api::Knock {
        entry_id: required("entry_id", request.entry_id, NAME_MAX)?,
        name: bounded("name", request.name, NAME_MAX)?,
        guest: request.guest,
        role: role(request.role)?,
    };
    Ok((key(request.key)?, request.epoch, entry))
}

/// What an administrative request wants.
#[derive(Debug)]
pub enum Administration {
    /// The room answers.
    Call(api::AdminCall),
    /// The declared policy changed.
    Policy(Box<api::Policy>),
}

/// An administrative request's call.
///
/// # Errors
/// [`ConvertError`].
pub fn admin(call: Option<v1::admin_request::Call>) -> Result<Administration, ConvertError> {
    use v1::admin_request::Call;
    let call = match call.ok_or(ConvertError::Missing("call"))? {
        Call::ListParticipants(request) => api::AdminCall::ListParticipants(request),
        Call::GetParticipant(request) => api::AdminCall::GetParticipant(request),
        Call::RemoveParticipant(request) => api::AdminCall::RemoveParticipant(request),
        Call::MutePublishedTrack(request) => api::AdminCall::MutePublishedTrack(request),
        Call::UpdateParticipant(request) => api::AdminCall::UpdateParticipant(request),
        Call::UpdateSubscriptions(request) => api::AdminCall::UpdateSubscriptions(request),
        Call::SendData(request) => api::AdminCall::SendData(request),
        Call::UpdateRoomMetadata(request) => api::AdminCall::UpdateRoomMetadata(request),
        Call::DeleteRoom(request) => api::AdminCall::DeleteRoom(request),
        Call::GetRoom(request) => api::AdminCall::GetRoom(request),
        Call::Lobby(decision) => api::AdminCall::Lobby {
            admit: names("lobby.admit", decision.admit, LIST_MAX)?,
            deny: names("lobby.deny", decision.deny, LIST_MAX)?,
            admit_all: decision.admit_all,
        },
        Call::LobbyList(_) => api::AdminCall::LobbyList,
        Call::Lock(lock) => api::AdminCall::Lock(lock),
        Call::End(_) => api::AdminCall::End,
        Call::Policy(rules) => return Ok(Administration::Policy(Box::new(policy(Some(rules))?))),
    };
    Ok(Administration::Call(call))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start() -> v1::SessionStart {
        v1::SessionStart {
            key: Some(v1::RoomKey {
                tenant: "t".into(),
                name: "r".into(),
            }),
            epoch: 3,
            identity: "alice".into(),
            grants: Some(v1::Grants {
                room_join: true,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_session_without_room_identity_or_grants_is_refused_by_name() {
        assert_eq!(session_start(start()).expect("complete").1, 3);
        let refuse = |change: fn(&mut v1::SessionStart)| {
            let mut start = start();
            change(&mut start);
            session_start(start).expect_err("refused")
        };
        assert_eq!(
            refuse(|start| start.key = None),
            ConvertError::Missing("key")
        );
        assert_eq!(
            refuse(|start| start.identity.clear()),
            ConvertError::Missing("identity")
        );
        assert_eq!(
            refuse(|start| start.grants = None),
            ConvertError::Missing("grants")
        );
        assert_eq!(
            refuse(|start| start.role = 77),
            ConvertError::Unknown("role")
        );
        let bound = ConvertError::TooLong {
            field: "attributes",
            max: METADATA_MAX,
        };
        assert_eq!(
            refuse(|start| start.attributes = [("a".into(), "x".repeat(METADATA_MAX))].into()),
            bound
        );
    }

    #[test]
    fn a_policy_with_holes_is_refused() {
        assert_eq!(policy(None), Err(ConvertError::Missing("policy")));
        assert_eq!(
            policy(Some(v1::RoomPolicy::default())),
            Err(ConvertError::Missing("policy.lobby"))
        );
        let rules = v1::RoomPolicy {
            lobby: v1::LobbyRule::LobbyOff as i32,
            ..Default::default()
        };
        assert!(policy(Some(rules.clone())).is_ok());
        let permissions = vec![v1::Permission {
            role: v1::Role::Guest as i32,
            ..Default::default()
        }];
        let holes = policy(Some(v1::RoomPolicy {
            permissions,
            ..rules
        }));
        assert_eq!(holes, Err(ConvertError::Missing("permissions.chat")));
    }

    #[test]
    fn facts_beyond_their_bounds_are_refused() {
        let many = v1::RoomFacts {
            admitted: vec![String::new(); FACTS_MAX + 1],
            ..Default::default()
        };
        assert_eq!(
            facts(Some(many)),
            Err(ConvertError::TooLong {
                field: "facts.admitted",
                max: FACTS_MAX
            })
        );
        let long = v1::RoomFacts {
            metadata: "x".repeat(ROOM_METADATA_MAX + 1),
            ..Default::default()
        };
        assert!(facts(Some(long)).is_err());
    }

    proptest! {
        #[test]
        fn facts_survive_the_wire(
            (opened, locked) in any::<(bool, bool)>(),
            created_unix_ms in any::<u64>(),
            admitted in prop::collection::vec("[a-z]{1,8}", 0..4),
            revoked in prop::collection::vec(("[a-z]{1,8}", any::<i64>()), 0..4),
            roles in prop::collection::vec(("[a-z]{1,8}", 0..4_usize), 0..4),
            metadata in ".{0,40}",
        ) {
            let all = [api::Role::Moderator, api::Role::Presenter, api::Role::Participant, api::Role::Guest];
            let before = api::Facts {
                room_sid: "RM_x".into(),
                opened,
                locked,
                revoked: revoked
                    .into_iter()
                    .map(|(identity, not_before_unix_s)| api::Revocation { identity, not_before_unix_s })
                    .collect(),
                admitted,
                role_changes: roles.into_iter().map(|(identity, role)| (identity, all[role])).collect(),
                metadata,
                created_unix_ms,
            };
            prop_assert_eq!(facts(Some(facts_out(before.clone()))), Ok(before));
        }
    }
}

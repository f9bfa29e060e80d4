// SPDX-License-Identifier: EUPL-1.2
//! Administration: the room's part of LiveKit's RoomService, the lobby's decisions, lock and end.

use livekit_protocol as proto;
use livekit_protocol::data_packet::{Kind, Value};
use livekit_protocol::{DisconnectReason, TrackSource};
use media_core::api::Channel;
use media_core::limits::DATA_MESSAGE_BYTES_MAX;
use prost::Message;

use super::join::{GUEST, HAND, RESERVED, ROLE};
use super::{Context, Down, Farewell, Roster};
use crate::api::{AdminCall, AdminRefusal, Output, RequestId, Role};
use crate::limits::{LIST_MAX, ROOM_METADATA_BYTES_MAX};
use crate::link::{MemberId, ToPeer};

type Answer = Result<Vec<u8>, AdminRefusal>;

fn read<T: Message + Default>(bytes: &[u8]) -> Result<T, AdminRefusal> {
    T::decode(bytes).map_err(|_| AdminRefusal::InvalidArgument("the request cannot be read"))
}

impl Roster {
    /// Carries out a call and answers it.
    pub(crate) fn admin(
        &mut self,
        context: &mut Context<'_>,
        request: RequestId,
        actor: Option<&str>,
        call: AdminCall,
    ) {
        let result = self.call(context, actor, call);
        context.out.push_back(Output::Admin { request, result });
    }

    fn call(&mut self, context: &mut Context<'_>, actor: Option<&str>, call: AdminCall) -> Answer {
        if let Some(actor) = actor {
            let moderates = self
                .members
                .values()
                .any(|member| member.identity == actor && self.effective(member).moderate);
            if !moderates {
                return Err(AdminRefusal::PermissionDenied);
            }
        }
        if self.ended.is_some() {
            return Err(AdminRefusal::NotFound("room"));
        }
        match call {
            AdminCall::ListParticipants(_) => {
                let participants = self
                    .members
                    .values()
                    .map(|member| self.info(member))
                    .collect();
                Ok(proto::ListParticipantsResponse { participants }.encode_to_vec())
            }
            AdminCall::GetParticipant(bytes) => {
                let request: proto::RoomParticipantIdentity = read(&bytes)?;
                let member = self
                    .members
                    .get(&self.find(&request.identity)?)
                    .ok_or(AdminRefusal::NotFound("participant"))?;
                Ok(self.info(member).encode_to_vec())
            }
            AdminCall::RemoveParticipant(bytes) => self.remove_participant(context, &read(&bytes)?),
            AdminCall::MutePublishedTrack(bytes) => self.mute_track(context, &read(&bytes)?),
            AdminCall::UpdateParticipant(bytes) => {
                self.update_participant(context, actor, read(&bytes)?)
            }
            AdminCall::UpdateSubscriptions(bytes) => {
                self.update_subscriptions(context, read(&bytes)?)
            }
            AdminCall::SendData(bytes) => self.send_data(context, read(&bytes)?),
            AdminCall::UpdateRoomMetadata(bytes) => {
                let request: proto::UpdateRoomMetadataRequest = read(&bytes)?;
                if request.metadata.len() > ROOM_METADATA_BYTES_MAX {
                    return Err(AdminRefusal::InvalidArgument(
                        "metadata is longer than 16384 bytes",
                    ));
                }
                self.facts.metadata = request.metadata;
                self.room_changed(context);
                Ok(self.room_info().encode_to_vec())
            }
            AdminCall::DeleteRoom(_) => {
                self.finish(context, "Deleted", DisconnectReason::RoomDeleted);
                Ok(proto::DeleteRoomResponse {}.encode_to_vec())
            }
            AdminCall::GetRoom(_) => Ok(self.room_info().encode_to_vec()),
            AdminCall::Lobby {
                admit,
                deny,
                admit_all,
            } => {
                if admit.len() + deny.len() > LIST_MAX {
                    return Err(AdminRefusal::InvalidArgument("too many entries"));
                }
                let found = self.decide(context, &admit, &deny, admit_all);
                if found == 0 && !admit_all {
                    return Err(AdminRefusal::NotFound("lobby entry"));
                }
                Ok(Vec::new())
            }
            AdminCall::LobbyList => Ok(self.lobby_list(context.now)),
            AdminCall::Lock(locked) => {
                if locked && !self.facts.locked {
                    // Who is in may come back after a lost connection.
                    for identity in self
                        .members
                        .values()
                        .map(|member| member.identity.clone())
                        .collect::<Vec<_>>()
                    {
                        self.admit(&identity);
                    }
                }
                self.facts.locked = locked;
                self.reconsider_lobby(context);
                // Moderators see the state of the lock beside the lobby.
                let members: Vec<MemberId> = self.members.keys().copied().collect();
                self.lobby_to(context, &members);
                Ok(Vec::new())
            }
            AdminCall::End => {
                self.finish(context, "EndedByModerator", DisconnectReason::RoomDeleted);
                Ok(Vec::new())
            }
        }
    }

    fn find(&self, identity: &str) -> Result<MemberId, AdminRefusal> {
        self.by_identity(identity)
            .ok_or(AdminRefusal::NotFound("participant"))
    }

    fn remove_participant(
        &mut self,
        context: &mut Context<'_>,
        request: &proto::RoomParticipantIdentity,
    ) -> Answer {
        let found = self.find(&request.identity);
        // Somebody who is not here may be removed as well: their tokens are refused from now on.
        let now = self.unix_s(context.now);
        if found.is_ok() || request.revoke_token_ts > 0 {
            let issued = found
                .as_ref()
                .ok()
                .and_then(|id| self.members.get(id))
                .map_or(0, |member| member.token_issued_unix_s);
            self.revoke(
                &request.identity,
                now.max(issued).max(request.revoke_token_ts.min(now)),
            );
        }
        self.remove(context, found?, Farewell::Removed);
        Ok(proto::RemoveParticipantResponse {}.encode_to_vec())
    }

    fn mute_track(
        &mut self,
        context: &mut Context<'_>,
        request: &proto::MuteRoomTrackRequest,
    ) -> Answer {
        let id = self.find(&request.identity)?;
        let member = self
            .members
            .get(&id)
            .ok_or(AdminRefusal::NotFound("participant"))?;
        let track = member
            .tracks
            .iter()
            .find(|track| track.info.0.sid == request.track_sid)
            .ok_or(AdminRefusal::NotFound("track"))?;
        if track.info.0.muted && !request.muted {
            return Err(AdminRefusal::InvalidArgument("nobody is unmuted by others"));
        }
        if !track.info.0.muted && request.muted {
            context.send(
                id,
                ToPeer::SetMuted {
                    sid: request.track_sid.clone(),
                    muted: true,
                    tell: true,
                },
            );
            self.muted(context, id, &request.track_sid, true);
        }
        let member = self
            .members
            .get(&id)
            .ok_or(AdminRefusal::NotFound("participant"))?;
        let track = member
            .tracks
            .iter()
            .find(|track| track.info.0.sid == request.track_sid)
            .map(|track| track.info.0.clone());
        Ok(proto::MuteRoomTrackResponse { track }.encode_to_vec())
    }

    fn update_participant(
        &mut self,
        context: &mut Context<'_>,
        actor: Option<&str>,
        request: proto::UpdateParticipantRequest,
    ) -> Answer {
        let id = self.find(&request.identity)?;
        let mut attributes = request.attributes;
        let role = match attributes.remove(ROLE) {
            Some(text) => Some(Role::parse(&text).ok_or(AdminRefusal::InvalidArgument(
                "attribute plenum.role names no role",
            ))?),
            None => None,
        };
        if attributes
            .keys()
            .any(|key| key.starts_with(RESERVED) && key != HAND)
            || attributes.contains_key(GUEST)
        {
            return Err(AdminRefusal::InvalidArgument(
                "attributes plenum.* are the server's",
            ));
        }
        if !self.fits(id, &request.name, &request.metadata, &attributes) {
            return Err(AdminRefusal::InvalidArgument(
                "name, metadata or attributes are too long",
            ));
        }
        let member = self
            .members
            .get_mut(&id)
            .ok_or(AdminRefusal::NotFound("participant"))?;
        if let Some(role) = role {
            if member.role.is_none() {
                return Err(AdminRefusal::InvalidArgument(
                    "participants of this room have no roles",
                ));
            }
            if role == Role::Moderator && member.guest {
                return Err(AdminRefusal::InvalidArgument("a guest never moderates"));
            }
            if actor == Some(member.identity.as_str()) {
                return Err(AdminRefusal::PermissionDenied);
            }
            member.role = Some(role);
            member
                .attributes
                .insert(ROLE.to_owned(), role.as_str().to_owned());
            self.remember_role(&request.identity, role);
        }
        if let Some(permission) = request.permission {
            self.set_permission(id, &permission);
        }
        self.set_metadata(context, id, &request.name, &request.metadata, attributes);
        self.permissions_changed(context, id);
        if role.is_some() {
            self.lobby_to(context, &[id]);
        }
        let member = self
            .members
            .get(&id)
            .ok_or(AdminRefusal::NotFound("participant"))?;
        Ok(self.info(member).encode_to_vec())
    }

    /// Grants as the API sets them; the role's preset narrows them as it narrows those of a token.
    fn set_permission(&mut self, id: MemberId, permission: &proto::ParticipantPermission) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        let grants = &mut member.grants;
        grants.can_subscribe = permission.can_subscribe;
        grants.can_publish = permission.can_publish;
        grants.can_publish_data = permission.can_publish_data;
        grants.can_update_own_metadata = permission.can_update_metadata;
        grants.hidden = permission.hidden;
        grants.can_publish_sources = permission
            .can_publish_sources
            .iter()
            .filter_map(|source| match TrackSource::try_from(*source).ok()? {
                TrackSource::Camera => Some("camera"),
                TrackSource::Microphone => Some("microphone"),
                TrackSource::ScreenShare => Some("screen_share"),
                TrackSource::ScreenShareAudio => Some("screen_share_audio"),
                TrackSource::Unknown => None,
            })
            .map(str::to_owned)
            .collect();
    }

    fn update_subscriptions(
        &mut self,
        context: &mut Context<'_>,
        request: proto::UpdateSubscriptionsRequest,
    ) -> Answer {
        let id = self.find(&request.identity)?;
        let sids: Vec<String> = request
            .track_sids
            .into_iter()
            .chain(
                request
                    .participant_tracks
                    .into_iter()
                    .flat_map(|tracks| tracks.track_sids),
            )
            .take(LIST_MAX)
            .collect();
        context.send(
            id,
            ToPeer::Subscribe {
                sids,
                subscribe: request.subscribe,
            },
        );
        Ok(proto::UpdateSubscriptionsResponse {}.encode_to_vec())
    }

    fn send_data(&mut self, context: &mut Context<'_>, request: proto::SendDataRequest) -> Answer {
        if request.data.len() > DATA_MESSAGE_BYTES_MAX - 4096 {
            return Err(AdminRefusal::InvalidArgument(
                "data is too long for one message",
            ));
        }
        if request
            .topic
            .as_deref()
            .is_some_and(|topic| topic.len() > 1024 || topic.starts_with(RESERVED))
        {
            return Err(AdminRefusal::InvalidArgument(
                "topics plenum.* are the server's, others have at most 1024 bytes",
            ));
        }
        let channel = if request.kind == Kind::Lossy as i32 {
            Channel::Lossy
        } else {
            Channel::Reliable
        };
        #[expect(deprecated, reason = "older callers name SIDs")]
        let sids = request.destination_sids;
        let everybody = sids.is_empty() && request.destination_identities.is_empty();
        let to: Vec<MemberId> = self
            .members
            .values()
            .filter(|member| {
                everybody
                    || sids.contains(&member.sid)
                    || request.destination_identities.contains(&member.identity)
            })
            .map(|member| member.id)
            .collect();
        let packet = proto::DataPacket {
            value: Some(Value::User(proto::UserPacket {
                payload: request.data,
                topic: request.topic,
                nonce: request.nonce,
                ..Default::default()
            })),
            ..Default::default()
        };
        if !to.is_empty() {
            context.down.push_back(Down::Many(
                to,
                ToPeer::Data {
                    channel,
                    payload: packet.encode_to_vec(),
                },
            ));
        }
        Ok(proto::SendDataResponse {}.encode_to_vec())
    }
}

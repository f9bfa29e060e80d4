// SPDX-License-Identifier: EUPL-1.2
//! How people go, and how the room ends.

use livekit_protocol as proto;
use livekit_protocol::DisconnectReason;
use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_response::Message as Response;
use media_core::api::Command;
use serde::{Deserialize, Serialize};

use super::{ACTIVE, Context, DISCONNECTED, Down, Roster};
use crate::api::{KnockRefusal, KnockUpdate, Output, Revocation};
use crate::limits::{CLOSED_GRACE, REVOKED_MAX, SIGNAL_AND_MEDIA_AWAY, SIGNAL_AWAY};
use crate::link::{MemberId, ToPeer, Wire};

/// Why somebody goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Farewell {
    /// By the client's own word.
    Left,
    /// Signalling did not come back in time.
    SignalLost,
    /// The media path is gone: only a new connection helps.
    MediaLost,
    /// No agreement on encryption.
    Unsupported,
    /// No media path in time.
    NeverConnected,
    /// The same identity came again.
    DuplicateIdentity,
    /// Its client begins anew.
    Replaced,
    /// A moderator or the API.
    Removed,
    /// What client and room believe differs.
    Mismatch,
    /// The room ends for this reason.
    Ended(i32),
    /// The room goes on elsewhere.
    GivenUp,
}

impl Farewell {
    pub(super) fn reason(self) -> DisconnectReason {
        match self {
            Self::Left => DisconnectReason::ClientInitiated,
            Self::SignalLost => DisconnectReason::SignalClose,
            Self::MediaLost | Self::NeverConnected => DisconnectReason::ConnectionTimeout,
            Self::Unsupported => DisconnectReason::MediaFailure,
            Self::DuplicateIdentity => DisconnectReason::DuplicateIdentity,
            Self::Removed => DisconnectReason::ParticipantRemoved,
            Self::Replaced | Self::Mismatch => DisconnectReason::StateMismatch,
            Self::Ended(reason) => {
                DisconnectReason::try_from(reason).unwrap_or(DisconnectReason::RoomClosed)
            }
            Self::GivenUp => DisconnectReason::ServerShutdown,
        }
    }

    fn action(self) -> Action {
        match self {
            Self::MediaLost
            | Self::Mismatch
            | Self::GivenUp
            | Self::Replaced
            | Self::SignalLost => Action::Reconnect,
            Self::Left
            | Self::Unsupported
            | Self::NeverConnected
            | Self::DuplicateIdentity
            | Self::Removed
            | Self::Ended(_) => Action::Disconnect,
        }
    }
}

impl Roster {
    /// Takes a member out and tells everybody.
    pub(super) fn remove(&mut self, context: &mut Context<'_>, id: MemberId, farewell: Farewell) {
        let Some(mut member) = self.members.remove(&id) else {
            return;
        };
        self.speaking.remove(&id);
        let tracks: Vec<_> = std::mem::take(&mut member.tracks);
        for track in &tracks {
            self.announce_gone(context, id, &track.info.0.sid);
        }
        for other in self.members.values_mut() {
            for track in &mut other.tracks {
                if track.wanted.remove(&id).is_some() {
                    track.wanted_changed(context.now);
                }
            }
        }
        let leave = (farewell != Farewell::Left).then(|| {
            Wire(proto::LeaveRequest {
                can_reconnect: farewell.action() != Action::Disconnect,
                reason: farewell.reason() as i32,
                action: farewell.action() as i32,
                regions: None,
            })
        });
        context.send(id, ToPeer::End { leave });
        member.state = DISCONNECTED;
        member.version += 1;
        let mut info = self.info(&member);
        info.disconnect_reason = farewell.reason() as i32;
        if !member.grants.hidden {
            // Clients from protocol 12 on see by the identity that the new connection replaces the old one.
            let all: Vec<_> = self
                .members
                .values()
                .filter(|other| {
                    farewell != Farewell::DuplicateIdentity || other.client.protocol < 12
                })
                .map(|other| other.id)
                .collect();
            self.remember_departure(context.now, &info);
            let update = Response::Update(proto::ParticipantUpdate {
                participants: vec![info.clone()],
            });
            context.down.push_back(Down::Many(
                all,
                ToPeer::Send(Wire(proto::SignalResponse {
                    message: Some(update),
                })),
            ));
        }
        for track in tracks {
            if track.bound.is_some() && member.ever_active {
                self.event(
                    context,
                    "track_unpublished",
                    Some(&info),
                    Some(&track.info.0),
                );
            }
        }
        let name = if member.ever_active {
            "participant_left"
        } else {
            "participant_connection_aborted"
        };
        self.event(context, name, Some(&info), None);
        if self.ended.is_none()
            && !self.members.values().any(Self::counts)
            && self.empty_since.is_none()
        {
            self.empty_since = Some(context.now);
        }
        self.counts_changed(context.now);
    }

    /// The WebSocket ended: the participant stays for a while.
    pub(super) fn signal_lost(&mut self, context: &mut Context<'_>, id: MemberId) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.session = None;
        let limit = if member.media_alive {
            SIGNAL_AWAY
        } else {
            SIGNAL_AND_MEDIA_AWAY
        };
        member.deadline = Some((context.now + limit, Farewell::SignalLost));
    }

    pub(super) fn became_active(&mut self, context: &mut Context<'_>, id: MemberId) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.state = ACTIVE;
        member.ever_active = true;
        if member.session.is_some() {
            member.deadline = None;
        }
        self.touch(context, id);
        let Some(member) = self.members.get(&id) else {
            return;
        };
        let info = self.info(member);
        // What was published on the way is told only now.
        let published: Vec<String> = member
            .tracks
            .iter()
            .filter(|track| track.bound.is_some())
            .map(|track| track.info.0.sid.clone())
            .collect();
        self.event(context, "participant_joined", Some(&info), None);
        for sid in published {
            self.published(context, id, &sid);
        }
    }

    pub(super) fn media_alive(&mut self, context: &mut Context<'_>, id: MemberId, alive: bool) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.media_alive = alive;
        if member.session.is_none() {
            let limit = if alive {
                SIGNAL_AWAY
            } else {
                SIGNAL_AND_MEDIA_AWAY
            };
            let at = context.now + limit;
            let at = member
                .deadline
                .map_or(at, |(before, _)| if alive { at } else { before.min(at) });
            member.deadline = Some((at, Farewell::SignalLost));
        }
    }

    pub(super) fn media_failed(
        &mut self,
        context: &mut Context<'_>,
        id: MemberId,
        closed: bool,
        unsupported: bool,
    ) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        if unsupported {
            return self.remove(context, id, Farewell::Unsupported);
        }
        if closed {
            // Its word that it leaves may still be on the way.
            let at = context.now + CLOSED_GRACE;
            if member.deadline.is_none_or(|(before, _)| before > at) {
                member.deadline = Some((at, Farewell::MediaLost));
            }
            return;
        }
        // Without signalling nobody can be told: the participant's time runs out as it was set.
        if member.session.is_some() {
            self.remove(context, id, Farewell::MediaLost);
        }
    }

    /// Refuses the person's tokens issued up to now.
    pub(super) fn revoke(&mut self, identity: &str, not_before_unix_s: i64) {
        let before = self
            .facts
            .revoked
            .iter()
            .find(|other| other.identity == identity)
            .map_or(i64::MIN, |other| other.not_before_unix_s);
        self.facts
            .revoked
            .retain(|other| other.identity != identity);
        if self.facts.revoked.len() >= REVOKED_MAX {
            self.facts.revoked.remove(0);
        }
        self.facts.revoked.push(Revocation {
            identity: identity.to_owned(),
            not_before_unix_s: before.max(not_before_unix_s),
        });
        self.facts.admitted.retain(|other| other != identity);
    }

    /// The room ends for everybody; a declared one is closed again.
    pub(super) fn finish(
        &mut self,
        context: &mut Context<'_>,
        reason: &'static str,
        told: DisconnectReason,
    ) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(reason);
        context.out.push_back(Output::Media(Command::SetGate {
            room: self.index,
            open: false,
        }));
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.remove(context, id, Farewell::Ended(told as i32));
        }
        for waiting in std::mem::take(&mut self.knocks) {
            context.out.push_back(Output::Knock {
                knock: waiting.knock,
                update: KnockUpdate::Refused(KnockRefusal::Closing),
            });
        }
        if self.facts.created_unix_ms != 0 {
            self.event(context, "room_finished", None, None);
        }
        let mut facts = crate::api::Facts {
            revoked: std::mem::take(&mut self.facts.revoked),
            ..Default::default()
        };
        facts.metadata = std::mem::take(&mut self.facts.metadata);
        facts.opened = !self.policy.declared;
        self.facts = facts;
        self.end(context);
    }

    /// The room goes on elsewhere: facts stay, nothing is said to have finished.
    pub(crate) fn give_up(&mut self, context: &mut Context<'_>) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some("GivenUp");
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.silent_remove(context, id);
        }
        self.knocks.clear();
        self.end(context);
    }

    fn silent_remove(&mut self, context: &mut Context<'_>, id: MemberId) {
        if self.members.remove(&id).is_some() {
            let farewell = Farewell::GivenUp;
            let leave = proto::LeaveRequest {
                can_reconnect: true,
                reason: farewell.reason() as i32,
                action: farewell.action() as i32,
                regions: None,
            };
            context.send(
                id,
                ToPeer::End {
                    leave: Some(Wire(leave)),
                },
            );
        }
    }

    fn end(&mut self, context: &mut Context<'_>) {
        self.empty_since = None;
        self.opened_at = None;
        self.updates_due = None;
        self.quality_due = None;
        self.counts_due = None;
        if self.ended != Some("GivenUp") {
            self.report(context);
        }
    }

    pub(crate) fn index(&self) -> media_core::ids::RoomIndex {
        self.index
    }
}

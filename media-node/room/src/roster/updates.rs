// SPDX-License-Identifier: EUPL-1.2
//! What everybody hears: participants, room, speakers, connection quality.

use std::time::Duration;

use livekit_protocol as proto;
use livekit_protocol::signal_response::Message as Response;
use media_core::api::SpeakerLevel;
use media_core::time::Timestamp;

use super::{Context, DISCONNECTED, Down, JOINED, Roster};
use crate::limits::{PROMPT_UPDATES_MAX, QUALITY_INTERVAL, SIGNAL_AWAY, UPDATE_BATCH};
use crate::link::{MemberId, ToPeer, Wire};

/// Departures that a resuming client is told again.
const DEPARTURES_MAX: usize = 512;
/// Pace of counts in `room_update`.
const COUNTS_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes of one `update` that goes to many.
const UPDATE_BYTES: usize = 128 * 1024;

impl Roster {
    /// Something about a member changed. Publishers' changes go out with this step, others may be gathered.
    pub(super) fn touch(&mut self, context: &mut Context<'_>, id: MemberId) {
        let prompt = self.members.len() <= PROMPT_UPDATES_MAX;
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        if !member.dirty {
            member.version += 1;
            member.dirty = true;
        }
        let at = if prompt || !member.tracks.is_empty() {
            context.now
        } else {
            context.now + UPDATE_BATCH
        };
        self.updates_due = Some(self.updates_due.map_or(at, |before| before.min(at)));
    }

    pub(super) fn counts_changed(&mut self, now: Timestamp) {
        if self.ended.is_none() && self.counts_told != (self.participants(), self.publishers()) {
            self.counts_due = self.counts_due.or(Some(now + COUNTS_INTERVAL));
        }
    }

    /// Sends what is due. To be called at the end of every step.
    pub(crate) fn flush(&mut self, context: &mut Context<'_>) {
        if self.updates_due.is_some_and(|at| at <= context.now) {
            self.updates_due = None;
            let mut chunk = Vec::new();
            let mut bytes = 0;
            let dirty: Vec<MemberId> = self
                .members
                .values()
                .filter(|member| member.dirty)
                .map(|member| member.id)
                .collect();
            for id in dirty {
                let Some(member) = self.members.get_mut(&id) else {
                    continue;
                };
                member.dirty = false;
                let hidden = member.grants.hidden;
                let Some(member) = self.members.get(&id) else {
                    continue;
                };
                let info = self.info(member);
                if hidden {
                    context.respond(
                        id,
                        Response::Update(proto::ParticipantUpdate {
                            participants: vec![info],
                        }),
                    );
                    continue;
                }
                let size = prost::Message::encoded_len(&info);
                if bytes + size > UPDATE_BYTES {
                    self.broadcast(
                        context,
                        Response::Update(proto::ParticipantUpdate {
                            participants: std::mem::take(&mut chunk),
                        }),
                    );
                    bytes = 0;
                }
                bytes += size;
                chunk.push(info);
            }
            if !chunk.is_empty() {
                self.broadcast(
                    context,
                    Response::Update(proto::ParticipantUpdate {
                        participants: chunk,
                    }),
                );
            }
            self.counts_changed(context.now);
        }
    }

    pub(super) fn broadcast(&self, context: &mut Context<'_>, message: Response) {
        let all: Vec<MemberId> = self
            .members
            .values()
            .filter(|member| member.state >= JOINED && member.state != DISCONNECTED)
            .map(|member| member.id)
            .collect();
        if !all.is_empty() {
            context.down.push_back(Down::Many(
                all,
                ToPeer::Send(Wire(proto::SignalResponse {
                    message: Some(message),
                })),
            ));
        }
    }

    pub(super) fn room_changed(&mut self, context: &mut Context<'_>) {
        self.counts_due = None;
        self.counts_told = (self.participants(), self.publishers());
        let room = Some(self.room_info());
        self.broadcast(context, Response::RoomUpdate(proto::RoomUpdate { room }));
    }

    pub(super) fn updates_timeout(&mut self, context: &mut Context<'_>) {
        if self.counts_due.is_some_and(|at| at <= context.now) {
            self.counts_due = None;
            if self.counts_told != (self.participants(), self.publishers()) {
                self.room_changed(context);
            }
        }
        if self.quality_due.is_some_and(|at| at <= context.now) {
            self.quality_due = None;
            let updates: Vec<_> = self
                .members
                .values_mut()
                .filter_map(|member| {
                    let (quality, score) = member.quality.take()?;
                    Some(Wire(proto::ConnectionQualityInfo {
                        participant_sid: member.sid.clone(),
                        quality,
                        score,
                    }))
                })
                .collect();
            if !updates.is_empty() {
                let all = self.members.keys().copied().collect();
                context
                    .down
                    .push_back(Down::Many(all, ToPeer::Qualities(updates)));
            }
        }
    }

    pub(super) fn quality(
        &mut self,
        context: &mut Context<'_>,
        id: MemberId,
        quality: i32,
        score: f32,
    ) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.quality = Some((quality, score));
        // Gathered shortly: the peers' figures come at about the same time.
        self.quality_due = self
            .quality_due
            .or(Some(context.now + QUALITY_INTERVAL / 10));
    }

    /// Levels of publications from the shard: only those that changed.
    pub(crate) fn speakers(&mut self, context: &mut Context<'_>, levels: &[SpeakerLevel]) {
        let mut changed: Vec<Wire<proto::SpeakerInfo>> = Vec::new();
        for member in self.members.values().filter(|member| !member.grants.hidden) {
            let mut now: Option<(f32, bool)> = None;
            for level in levels {
                let own = member.tracks.iter().any(|track| {
                    track
                        .bound
                        .as_ref()
                        .is_some_and(|bound| bound.publication == level.publication.0)
                });
                if own {
                    let (loudest, active) = now.unwrap_or((0.0, false));
                    now = Some((loudest.max(level.level), active || level.active));
                }
            }
            let Some((level, active)) = now else { continue };
            let level = if active {
                (level * 8.0).ceil() / 8.0
            } else {
                0.0
            };
            let before = self
                .speaking
                .get(&member.id)
                .copied()
                .unwrap_or((0.0, false));
            if before == (level, active) {
                continue;
            }
            if active {
                self.speaking.insert(member.id, (level, active));
            } else {
                self.speaking.remove(&member.id);
            }
            changed.push(Wire(proto::SpeakerInfo {
                sid: member.sid.clone(),
                level,
                active,
            }));
        }
        if !changed.is_empty() {
            let all = self.members.keys().copied().collect();
            context
                .down
                .push_back(Down::Many(all, ToPeer::Speakers(changed)));
        }
    }

    pub(super) fn remember_departure(&mut self, now: Timestamp, info: &proto::ParticipantInfo) {
        if self.departures.len() >= DEPARTURES_MAX {
            self.departures.pop_front();
        }
        self.departures.push_back((
            now,
            proto::ParticipantInfo {
                tracks: Vec::new(),
                ..info.clone()
            },
        ));
    }

    /// Who left while somebody's signalling may have been away.
    pub(super) fn recent_departures(&mut self, now: Timestamp) -> Vec<proto::ParticipantInfo> {
        let limit = SIGNAL_AWAY + QUALITY_INTERVAL;
        while self
            .departures
            .front()
            .is_some_and(|(at, _)| now.since(*at) > limit)
        {
            self.departures.pop_front();
        }
        // Who is here again under the same identity has not left.
        self.departures
            .iter()
            .map(|(_, info)| info.clone())
            .filter(|info| self.by_identity(&info.identity).is_none())
            .collect()
    }
}

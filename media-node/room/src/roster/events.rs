// SPDX-License-Identifier: EUPL-1.2
//! Webhook events, numbered within the epoch.

use livekit_protocol as proto;

use super::{Context, Roster};
use crate::api::Output;
use crate::limits::EVENT_BYTES_MAX;

impl Roster {
    fn end_reason(&self) -> proto::RoomEndReason {
        match self.ended {
            Some("Deleted" | "EndedByModerator") => proto::RoomEndReason::RoomEndApiDelete,
            Some(_) => proto::RoomEndReason::RoomEndIdleTimeout,
            None => proto::RoomEndReason::RoomEndUnknown,
        }
    }

    /// Raises an event.
    pub(super) fn event(
        &mut self,
        context: &mut Context<'_>,
        name: &'static str,
        participant: Option<&proto::ParticipantInfo>,
        track: Option<&proto::TrackInfo>,
    ) {
        let mut event = proto::WebhookEvent {
            event: name.to_owned(),
            room: Some(self.room_info()),
            participant: participant.cloned(),
            track: track.cloned(),
            created_at: (self.unix_ms(context.now) / 1000) as i64,
            room_end_reason: match name {
                "room_finished" => self.end_reason() as i32,
                _ => proto::RoomEndReason::RoomEndUnknown as i32,
            },
            ..Default::default()
        };
        let mut body = serde_json::to_vec(&event);
        if body.as_ref().is_ok_and(|body| body.len() > EVENT_BYTES_MAX) {
            // Whoever writes much about themselves does not thereby come and go unnoticed, nor push others' events out.
            if let Some(participant) = &mut event.participant {
                participant.metadata.clear();
                participant.attributes.clear();
                participant.tracks.clear();
            }
            if let Some(room) = &mut event.room {
                room.metadata.clear();
            }
            body = serde_json::to_vec(&event);
        }
        match body {
            Ok(body) => {
                self.events += 1;
                context.out.push_back(Output::Event {
                    seq: self.events,
                    room_sid: self.facts.room_sid.clone(),
                    name,
                    body,
                });
            }
            Err(error) => tracing::warn!(name, %error, "an event cannot be written"),
        }
    }
}

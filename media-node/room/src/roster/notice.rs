// SPDX-License-Identifier: EUPL-1.2
//! News for everybody in the room: it moves to another node soon, or will some time after maintenance begins; everybody is away for a
//! moment then.

use livekit_protocol as proto;
use media_core::api::Channel;
use prost::Message as _;
use serde::Serialize;

use super::{Context, Down, Roster};
use crate::link::{MemberId, ToPeer};

/// Topic of the announcement that the room moves, or that maintenance begins which will move it.
pub(crate) const TOPIC: &str = "plenum.move";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Move {
    /// Milliseconds since 1970; null = it does not move after all.
    moves_at: Option<u64>,
    /// Milliseconds since 1970: maintenance of the node begins, and the room moves some time after that.
    #[serde(skip_serializing_if = "Option::is_none")]
    maintenance_at: Option<u64>,
}

impl Roster {
    /// The room moves at a time, or not after all. Told again, it is passed on once.
    pub(crate) fn notice(&mut self, context: &mut Context<'_>, moves_at_unix_ms: Option<u64>) {
        if self.moves_at_unix_ms == moves_at_unix_ms {
            return;
        }
        self.moves_at_unix_ms = moves_at_unix_ms;
        self.tell_all(context);
    }

    /// Maintenance of the node begins at a time, or is off. Told again, it is passed on once.
    pub(crate) fn maintenance(&mut self, context: &mut Context<'_>, begins_at: Option<u64>) {
        if self.maintenance_at_unix_ms == begins_at {
            return;
        }
        self.maintenance_at_unix_ms = begins_at;
        self.tell_all(context);
    }

    fn tell_all(&self, context: &mut Context<'_>) {
        let members: Vec<MemberId> = self.members.keys().copied().collect();
        self.tell_move(context, &members);
    }

    /// Tells who has just come, if there is anything to tell.
    pub(super) fn notice_to(&self, context: &mut Context<'_>, member: MemberId) {
        if self
            .moves_at_unix_ms
            .or(self.maintenance_at_unix_ms)
            .is_some()
        {
            self.tell_move(context, &[member]);
        }
    }

    /// Rooms of backends have pages of their own, which know nothing of the topic.
    fn tell_move(&self, context: &mut Context<'_>, members: &[MemberId]) {
        if !self.policy.declared || members.is_empty() {
            return;
        }
        let news = Move {
            moves_at: self.moves_at_unix_ms,
            maintenance_at: self.maintenance_at_unix_ms,
        };
        let packet = proto::DataPacket {
            value: Some(proto::data_packet::Value::User(proto::UserPacket {
                payload: serde_json::to_vec(&news).unwrap_or_default(),
                topic: Some(TOPIC.to_owned()),
                ..Default::default()
            })),
            ..Default::default()
        };
        context.down.push_back(Down::Many(
            members.to_vec(),
            ToPeer::Data {
                channel: Channel::Reliable,
                payload: packet.encode_to_vec(),
            },
        ));
    }
}

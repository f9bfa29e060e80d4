// SPDX-License-Identifier: EUPL-1.2
//! Data packets: who may send what to whom. The sender is stamped by the server; chat obeys the role's rule; `plenum.` topics are the
//! server's.

use std::collections::BTreeSet;

use livekit_protocol as proto;
use livekit_protocol::data_packet::Value;
use media_core::api::Channel;
use prost::Message as _;
use serde::{Deserialize, Serialize};

use super::{Context, Down, Roster, join::RESERVED};
use crate::api::ChatRule;
use crate::counters::Dropped;
use crate::limits::{LIST_MAX, NONCES_MAX, STREAMS_MAX};
use crate::link::{MemberId, ToPeer};

/// Topics of LiveKit's chat, as data packets and as text streams.
const CHAT_TOPICS: [&str; 2] = ["lk.chat", "lk-chat-topic"];

/// Where a message may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Route {
    /// Where it says.
    AsWished,
    /// To moderators, whatever it says.
    Moderators,
    /// Nowhere.
    Nowhere,
}

impl Roster {
    /// A message of a client.
    pub(super) fn data(
        &mut self,
        context: &mut Context<'_>,
        id: MemberId,
        channel: Channel,
        payload: &[u8],
    ) {
        if !self.facts.opened {
            return context.counters.drop(Dropped::DataNotAllowed);
        }
        let Some(member) = self.members.get(&id) else {
            return;
        };
        let effective = self.effective(member);
        if !effective.can_publish_data {
            return context.counters.drop(Dropped::DataNotAllowed);
        }
        let Ok(mut packet) = proto::DataPacket::decode(payload) else {
            return context.counters.drop(Dropped::Data);
        };
        let is_agent = member.grants.agent;
        let (mut identity, mut sid) = (member.identity.clone(), member.sid.clone());
        if member.grants.hidden {
            identity.clear();
            sid.clear();
        }
        if channel == Channel::Reliable && packet.sequence > 0 {
            if packet.sequence <= member.last_sequence {
                return context.counters.drop(Dropped::DataRepeated);
            }
            if let Some(member) = self.members.get_mut(&id) {
                member.last_sequence = packet.sequence;
            }
        }
        let route = self.route(id, &packet, effective.chat);
        if route == Route::Nowhere {
            return context.counters.drop(Dropped::DataNotAllowed);
        }
        let mut wished: Vec<String> = std::mem::take(&mut packet.destination_identities);
        let mut wished_sids = Vec::new();
        match &mut packet.value {
            Some(Value::User(user)) => {
                if !user.nonce.is_empty() && !self.is_fresh(id, &user.nonce) {
                    return context.counters.drop(Dropped::DataRepeated);
                }
                #[expect(deprecated, reason = "older clients read and write these")]
                {
                    user.participant_identity.clone_from(&identity);
                    user.participant_sid.clone_from(&sid);
                    wished.append(&mut user.destination_identities);
                    wished_sids.append(&mut user.destination_sids);
                }
            }
            // Only agents transcribe, only the server names speakers, and metrics go to nobody.
            Some(Value::Transcription(_)) if !is_agent => {
                return context.counters.drop(Dropped::DataNotAllowed);
            }
            #[expect(deprecated, reason = "a client may send it all the same")]
            Some(Value::Speaker(_)) => return context.counters.drop(Dropped::DataNotAllowed),
            Some(Value::Metrics(_)) | None => {
                return context.counters.drop(Dropped::DataNotAllowed);
            }
            Some(_) => {}
        }
        if wished.len() + wished_sids.len() > LIST_MAX {
            return context.counters.drop(Dropped::Limit);
        }
        let speaks_for_another = is_agent
            && !packet.participant_identity.is_empty()
            && matches!(
                &packet.value,
                Some(
                    Value::ChatMessage(_)
                        | Value::StreamHeader(_)
                        | Value::StreamChunk(_)
                        | Value::StreamTrailer(_)
                )
            );
        if !speaks_for_another {
            packet.participant_identity = identity;
        }
        packet.participant_sid = sid;
        #[expect(deprecated, reason = "older clients read `kind`")]
        {
            packet.kind = match channel {
                Channel::Reliable => proto::data_packet::Kind::Reliable,
                Channel::Lossy => proto::data_packet::Kind::Lossy,
            } as i32;
        }
        let everybody = wished.is_empty() && wished_sids.is_empty();
        let wished: BTreeSet<String> = wished.into_iter().collect();
        let wished_sids: BTreeSet<String> = wished_sids.into_iter().collect();
        let to: Vec<MemberId> = self
            .members
            .values()
            .filter(|other| other.id != id)
            .filter(|other| match route {
                Route::AsWished => {
                    everybody
                        || wished.contains(&other.identity)
                        || wished_sids.contains(&other.sid)
                }
                Route::Moderators => self.effective(other).moderate,
                Route::Nowhere => false,
            })
            .map(|other| other.id)
            .collect();
        if !to.is_empty() {
            context.down.push_back(Down::Many(
                to,
                ToPeer::Data {
                    channel,
                    payload: packet.encode_to_vec(),
                },
            ));
        }
    }

    /// Where the sender's role lets the packet go.
    fn route(&mut self, id: MemberId, packet: &proto::DataPacket, chat: ChatRule) -> Route {
        let chat = match chat {
            ChatRule::Everyone => Route::AsWished,
            ChatRule::Moderators => Route::Moderators,
            ChatRule::Off => Route::Nowhere,
        };
        let of_topic = |topic: &str| {
            if topic.starts_with(RESERVED) {
                Route::Nowhere
            } else if CHAT_TOPICS.contains(&topic) {
                chat
            } else {
                Route::AsWished
            }
        };
        match &packet.value {
            Some(Value::User(user)) => of_topic(user.topic.as_deref().unwrap_or_default()),
            // What cannot be looked into may be chat.
            Some(Value::ChatMessage(_) | Value::EncryptedPacket(_)) => chat,
            Some(Value::StreamHeader(header)) => {
                let route = of_topic(&header.topic);
                if let Some(member) = self.members.get_mut(&id) {
                    member
                        .streams
                        .retain(|(stream, _)| *stream != header.stream_id);
                    if member.streams.len() >= STREAMS_MAX {
                        member.streams.pop_front();
                    }
                    member
                        .streams
                        .push_back((super::join::bounded(header.stream_id.clone(), 256), route));
                }
                route
            }
            Some(Value::StreamChunk(chunk)) => {
                self.route_of_stream(id, &chunk.stream_id, chat, false)
            }
            Some(Value::StreamTrailer(trailer)) => {
                self.route_of_stream(id, &trailer.stream_id, chat, true)
            }
            _ => Route::AsWished,
        }
    }

    /// A stream goes where its header went; one without a header that is remembered goes where chat goes.
    fn route_of_stream(&mut self, id: MemberId, stream: &str, chat: Route, last: bool) -> Route {
        let Some(member) = self.members.get_mut(&id) else {
            return Route::Nowhere;
        };
        let Some(at) = member.streams.iter().position(|(other, _)| other == stream) else {
            return chat;
        };
        let route = member.streams[at].1;
        if last {
            member.streams.remove(at);
        }
        route
    }

    fn is_fresh(&mut self, id: MemberId, nonce: &[u8]) -> bool {
        let Some(member) = self.members.get_mut(&id) else {
            return false;
        };
        let nonce = &nonce[..nonce.len().min(64)];
        if member.nonces.iter().any(|other| other == nonce) {
            return false;
        }
        if member.nonces.len() >= NONCES_MAX {
            member.nonces.pop_front();
        }
        member.nonces.push_back(nonce.to_vec());
        true
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! People at the door: who waits, who is let in, what moderators see of it.

use livekit_protocol as proto;
use media_core::api::Channel;
use media_core::time::Timestamp;
use prost::Message as _;
use serde::Serialize;

use super::{Context, Down, Roster};
use crate::api::{Knock, KnockId, KnockRefusal, KnockUpdate, LobbyRule, Output, Role};
use crate::limits::{LOBBY_MAX, NAME_BYTES_MAX};
use crate::link::{MemberId, ToPeer};

/// Topic of the list of waiting people, to moderators only.
pub(crate) const TOPIC: &str = "plenum.lobby";

/// Somebody at the door.
pub(crate) struct Waiting {
    pub(super) knock: KnockId,
    pub(super) entry: Knock,
    since: Timestamp,
}

#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    name: &'a str,
    since: u64,
    guest: bool,
}

#[derive(Serialize)]
struct Entries<'a> {
    entries: Vec<Entry<'a>>,
    locked: bool,
}

impl Roster {
    /// Must this person wait, for an opener or a moderator?
    fn must_wait(&self, entry: &Knock) -> bool {
        if !self.facts.opened {
            return true;
        }
        let moderator = entry.role == Some(Role::Moderator) && !entry.guest;
        let waits = match self.policy.lobby {
            LobbyRule::Off => false,
            LobbyRule::Guests => entry.guest,
            LobbyRule::Everyone => true,
        };
        (waits || self.facts.locked) && !moderator && !self.facts.admitted.contains(&entry.entry_id)
    }

    /// Somebody knocks.
    pub(crate) fn knock(&mut self, context: &mut Context<'_>, knock: KnockId, mut entry: Knock) {
        let refusal = if self.ended.is_some() {
            Some(KnockRefusal::Closing)
        } else if entry.guest && !self.policy.guests_allowed {
            Some(KnockRefusal::GuestsNotAllowed)
        } else if self.knocks.len() >= LOBBY_MAX {
            Some(KnockRefusal::LobbyFull)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            context.out.push_back(Output::Knock {
                knock,
                update: KnockUpdate::Refused(refusal),
            });
            return;
        }
        if !self.must_wait(&entry) {
            self.admit(&entry.entry_id);
            context.out.push_back(Output::Knock {
                knock,
                update: KnockUpdate::Admitted,
            });
            return;
        }
        entry.name = super::join::bounded(entry.name, NAME_BYTES_MAX);
        self.knocks.push(Waiting {
            knock,
            entry,
            since: context.now,
        });
        let position = self.knocks.len() as u32;
        context.out.push_back(Output::Knock {
            knock,
            update: KnockUpdate::Position(position),
        });
        self.lobby_changed(context, self.knocks.len());
    }

    pub(crate) fn knock_end(&mut self, context: &mut Context<'_>, knock: KnockId) {
        if let Some(at) = self
            .knocks
            .iter()
            .position(|waiting| waiting.knock == knock)
        {
            self.knocks.remove(at);
            self.lobby_changed(context, at);
            if self.knocks.is_empty() && self.empty_since.is_some() {
                // Those who waited kept the room.
                self.empty_since = Some(context.now);
            }
        }
    }

    /// A moderator decides. How many were found.
    pub(super) fn decide(
        &mut self,
        context: &mut Context<'_>,
        admit: &[String],
        deny: &[String],
        admit_all: bool,
    ) -> usize {
        let mut first = None;
        let mut decided = 0;
        let mut kept = Vec::new();
        for (at, waiting) in std::mem::take(&mut self.knocks).into_iter().enumerate() {
            let id = &waiting.entry.entry_id;
            let update = if deny.contains(id) {
                KnockUpdate::Refused(KnockRefusal::Denied)
            } else if admit_all || admit.contains(id) {
                self.admit(id);
                KnockUpdate::Admitted
            } else {
                kept.push(waiting);
                continue;
            };
            first = first.or(Some(at));
            decided += 1;
            context.out.push_back(Output::Knock {
                knock: waiting.knock,
                update,
            });
        }
        self.knocks = kept;
        if let Some(first) = first {
            self.lobby_changed(context, first);
        }
        decided
    }

    /// The rules changed: who need not wait any more is let in.
    pub(super) fn reconsider_lobby(&mut self, context: &mut Context<'_>) {
        let free: Vec<String> = self
            .knocks
            .iter()
            .filter(|waiting| !self.must_wait(&waiting.entry))
            .map(|waiting| waiting.entry.entry_id.clone())
            .collect();
        if !free.is_empty() {
            self.decide(context, &free, &[], false);
        }
    }

    /// Positions from `from` on moved, moderators get the new list.
    fn lobby_changed(&mut self, context: &mut Context<'_>, from: usize) {
        for (at, waiting) in self.knocks.iter().enumerate().skip(from) {
            context.out.push_back(Output::Knock {
                knock: waiting.knock,
                update: KnockUpdate::Position(at as u32 + 1),
            });
        }
        let moderators: Vec<MemberId> = self.members.keys().copied().collect();
        self.lobby_to(context, &moderators);
    }

    /// The list as JSON.
    pub(super) fn lobby_list(&self, now: Timestamp) -> Vec<u8> {
        let entries = self
            .knocks
            .iter()
            .map(|waiting| Entry {
                id: &waiting.entry.entry_id,
                name: &waiting.entry.name,
                since: self
                    .unix_ms(now)
                    .saturating_sub(now.since(waiting.since).as_millis() as u64),
                guest: waiting.entry.guest,
            })
            .collect();
        serde_json::to_vec(&Entries {
            entries,
            locked: self.facts.locked,
        })
        .unwrap_or_default()
    }

    /// Sends the list to those of `members` who moderate.
    pub(super) fn lobby_to(&self, context: &mut Context<'_>, members: &[MemberId]) {
        if !self.policy.declared {
            return;
        }
        let moderators: Vec<MemberId> = members
            .iter()
            .copied()
            .filter(|id| {
                self.members
                    .get(id)
                    .is_some_and(|member| self.effective(member).moderate)
            })
            .collect();
        if moderators.is_empty() {
            return;
        }
        let packet = proto::DataPacket {
            value: Some(proto::data_packet::Value::User(proto::UserPacket {
                payload: self.lobby_list(context.now),
                topic: Some(TOPIC.to_owned()),
                ..Default::default()
            })),
            ..Default::default()
        };
        context.down.push_back(Down::Many(
            moderators,
            ToPeer::Data {
                channel: Channel::Reliable,
                payload: packet.encode_to_vec(),
            },
        ));
    }
}

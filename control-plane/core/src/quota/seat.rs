// SPDX-License-Identifier: EUPL-1.2
//! What one room takes of its nodes: reported, reserved, held.

use std::collections::BTreeMap;

use super::{ReservationId, Usage};
use crate::ids::NodeId;
use crate::limits;
use crate::time::Moment;

/// Most reservations of one room that wait at a time.
pub const ROOM_RESERVATIONS_MAX: usize = 2_000;
/// Settled reservations that a room remembers until they would have expired, so that a repeated request is known; beyond, the oldest go.
pub const SETTLED_KEPT_MAX: usize = 64;

/// What a node reported last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reported {
    amount: Usage,
    expires: Moment,
}

/// A place that is held for one request; nothing is left of its amount once it is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reserved {
    id: ReservationId,
    node: NodeId,
    amount: Usage,
    expires: Moment,
}

impl Reserved {
    fn is_settled(&self) -> bool {
        self.amount == Usage::default()
    }
}

/// Capacity that is held for a planned conference.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    node: NodeId,
    amount: Usage,
    expires: Moment,
}

/// Everything that counts for one room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seat {
    reported: BTreeMap<NodeId, Reported>,
    /// In the order of their making.
    reserved: Vec<Reserved>,
    held: Option<Held>,
}

impl Seat {
    pub(super) fn is_empty(&self) -> bool {
        self.reported.is_empty() && self.reserved.is_empty() && self.held.is_none()
    }

    /// People by the last report of a node.
    pub(super) fn people_on(&self, node: &NodeId) -> u32 {
        self.reported
            .get(node)
            .map_or(0, |reported| reported.amount.participants)
    }

    /// Reservations, settled ones that are remembered included.
    pub(super) fn reservations(&self) -> usize {
        self.reserved.len()
    }

    /// When the first part runs out that counts. What is settled counts for nothing and goes together.
    pub(super) fn due(&self) -> Option<Moment> {
        let reported = self.reported.values().map(|reported| reported.expires);
        let waiting = self.reserved.iter().filter(|one| !one.is_settled());
        let waiting = waiting.map(|reserved| reserved.expires);
        let settled = self.reserved.iter().filter(|one| one.is_settled());
        let settled = settled.map(|reserved| reserved.expires).max();
        let held = self.held.iter().map(|held| held.expires);
        reported.chain(waiting).chain(held).chain(settled).min()
    }

    /// Drops what has run out.
    pub(super) fn expire(&mut self, now: Moment) {
        self.reported.retain(|_, reported| reported.expires > now);
        self.reserved.retain(|reserved| reserved.expires > now);
        self.held.take_if(|held| held.expires <= now);
    }

    /// What it takes of each of its nodes.
    pub(super) fn uses(&self) -> BTreeMap<NodeId, Usage> {
        let mut uses: BTreeMap<NodeId, Usage> = self
            .reported
            .iter()
            .map(|(node, reported)| (node.clone(), reported.amount))
            .collect();
        for reserved in &self.reserved {
            let sum = uses.entry(reserved.node.clone()).or_default();
            *sum = sum.plus(reserved.amount);
        }
        if let Some(held) = &self.held {
            let sum = uses.entry(held.node.clone()).or_default();
            *sum = sum.max(held.amount);
        }
        uses.retain(|_, amount| *amount != Usage::default());
        uses
    }

    pub(super) fn held_on(&self) -> Option<&NodeId> {
        self.held.as_ref().map(|held| &held.node)
    }

    pub(super) fn reservation(&self, id: ReservationId) -> Option<&NodeId> {
        self.reserved
            .iter()
            .find(|reserved| reserved.id == id)
            .map(|reserved| &reserved.node)
    }

    /// Holds an amount; publishers are never held.
    pub(super) fn reserve(
        &mut self,
        id: ReservationId,
        node: &NodeId,
        amount: Usage,
        expires: Moment,
    ) {
        self.reserved.push(Reserved {
            id,
            node: node.clone(),
            amount: Usage {
                publishers: 0,
                ..amount
            },
            expires,
        });
    }

    pub(super) fn hold(&mut self, node: &NodeId, amount: Usage, expires: Moment) {
        self.held = Some(Held {
            node: node.clone(),
            amount: Usage {
                publishers: 0,
                ..amount
            },
            expires,
        });
    }

    pub(super) fn drop_hold(&mut self) {
        self.held = None;
    }

    pub(super) fn release(&mut self, id: ReservationId) {
        self.reserved.retain(|reserved| reserved.id != id);
    }

    pub(super) fn close(&mut self, node: &NodeId) {
        self.reported.remove(node);
    }

    /// The node owns the room: what others reported of it is past, and of its own reservations as many are settled as people came.
    pub(super) fn report(
        &mut self,
        node: &NodeId,
        participants: u32,
        publishers: u32,
        expires: Moment,
    ) {
        let amount = Usage {
            publishers,
            ..Usage::of_join(true, participants)
        };
        let before = self.reported.get(node).map(|reported| reported.amount);
        self.reported.clear();
        self.reported
            .insert(node.clone(), Reported { amount, expires });
        let came = participants.saturating_sub(before.map_or(0, |before| before.participants));
        self.settle(node, before.is_none(), came);
    }

    fn settle(&mut self, node: &NodeId, room_came: bool, came: u32) {
        let mut left = came;
        for reserved in self.reserved.iter_mut().filter(|one| one.node == *node) {
            if room_came {
                reserved.amount.rooms = 0;
            }
            if left > 0 && reserved.amount.participants > 0 {
                left = left.saturating_sub(reserved.amount.participants);
                reserved.amount.participants = 0;
                reserved.amount.egress_kbps = 0;
            }
        }
        let mut surplus = self
            .reserved
            .iter()
            .filter(|reserved| reserved.is_settled())
            .count()
            .saturating_sub(SETTLED_KEPT_MAX);
        self.reserved.retain(|reserved| {
            let goes = surplus > 0 && reserved.is_settled();
            surplus -= usize::from(goes);
            !goes
        });
    }
}

/// When a reservation made now runs out.
pub(super) fn reservation_expires(now: Moment) -> Moment {
    now.after(limits::RESERVATION)
}

// SPDX-License-Identifier: EUPL-1.2
//! What a tenant uses and whether there is room for more.
//!
//! Used is the sum of what nodes report (each report overwrites the node's last one) plus reservations, which expire after 15 s or are
//! settled by the report that counts their participant. The ledger is what a store keeps; its clock is an argument.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{NodeId, RoomKey, TenantName};
use crate::limits;
use crate::record::{Capacity, TenantLimits};
use crate::time::Moment;

/// Amounts of the three things that are limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Rooms.
    pub rooms: u32,
    /// Participants.
    pub participants: u32,
    /// Egress.
    pub egress_kbps: u64,
}

impl Usage {
    /// Sum.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            rooms: self.rooms.saturating_add(other.rooms),
            participants: self.participants.saturating_add(other.participants),
            egress_kbps: self.egress_kbps.saturating_add(other.egress_kbps),
        }
    }

    /// Difference, not below zero.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self {
            rooms: self.rooms.saturating_sub(other.rooms),
            participants: self.participants.saturating_sub(other.participants),
            egress_kbps: self.egress_kbps.saturating_sub(other.egress_kbps),
        }
    }

    /// What a participant and, if need be, their room cost by declared estimate.
    #[must_use]
    pub const fn of_join(new_room: bool, participants: u32) -> Self {
        Self {
            rooms: new_room as u32,
            participants,
            egress_kbps: participants as u64 * limits::PARTICIPANT_EGRESS_KBPS as u64,
        }
    }
}

/// Which limit refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// Rooms of the tenant.
    TenantRooms,
    /// Participants of the tenant.
    TenantParticipants,
    /// Egress of the tenant.
    TenantEgress,
    /// Rooms of the node.
    NodeRooms,
    /// Participants of the node.
    NodeParticipants,
    /// Egress of the node.
    NodeEgress,
}

impl Limit {
    /// Is another node worth a try?
    #[must_use]
    pub const fn is_of_node(self) -> bool {
        matches!(
            self,
            Self::NodeRooms | Self::NodeParticipants | Self::NodeEgress
        )
    }

    /// CamelCase reason.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TenantRooms => "TenantRooms",
            Self::TenantParticipants => "TenantParticipants",
            Self::TenantEgress => "TenantEgress",
            Self::NodeRooms => "NodeRooms",
            Self::NodeParticipants => "NodeParticipants",
            Self::NodeEgress => "NodeEgress",
        }
    }
}

/// Why nothing was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaRefusal {
    /// A limit is reached.
    #[error("{} is reached: {used} of {max} are used", limit.reason())]
    Reached {
        /// Which.
        limit: Limit,
        /// In use, reservations included.
        used: u64,
        /// The ceiling.
        max: u64,
    },
    /// The ledger itself is full.
    #[error("{0} reservations wait; try again in a few seconds")]
    TooManyReservations(usize),
}

/// First limit that `more` on top of `used` would break for a tenant.
///
/// # Errors
/// [`QuotaRefusal::Reached`].
pub fn check_tenant(limits: &TenantLimits, used: Usage, more: Usage) -> Result<(), QuotaRefusal> {
    let max = |value: Option<u32>| value.map_or(u64::MAX, u64::from);
    check(
        Limit::TenantRooms,
        used.rooms.into(),
        more.rooms.into(),
        max(limits.rooms),
    )?;
    check(
        Limit::TenantParticipants,
        used.participants.into(),
        more.participants.into(),
        max(limits.participants),
    )?;
    let egress = limits
        .egress_mbps
        .map_or(u64::MAX, |mbps| u64::from(mbps) * 1_000);
    check(
        Limit::TenantEgress,
        used.egress_kbps,
        more.egress_kbps,
        egress,
    )
}

/// First limit that `more` on top of `used` would break for a node.
///
/// # Errors
/// [`QuotaRefusal::Reached`].
pub fn check_node(capacity: &Capacity, used: Usage, more: Usage) -> Result<(), QuotaRefusal> {
    check(
        Limit::NodeRooms,
        used.rooms.into(),
        more.rooms.into(),
        capacity.rooms.into(),
    )?;
    check(
        Limit::NodeParticipants,
        used.participants.into(),
        more.participants.into(),
        capacity.participants.into(),
    )?;
    check(
        Limit::NodeEgress,
        used.egress_kbps,
        more.egress_kbps,
        u64::from(capacity.egress_mbps) * 1_000,
    )
}

fn check(limit: Limit, used: u64, more: u64, max: u64) -> Result<(), QuotaRefusal> {
    if more > 0 && used.saturating_add(more) > max {
        return Err(QuotaRefusal::Reached { limit, used, max });
    }
    Ok(())
}

/// Number of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationId(pub u64);

/// A place that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reservation {
    key: RoomKey,
    node: NodeId,
    amount: Usage,
    expires: Moment,
}

/// Most reservations that wait at a time: 15 s of 2,000 joins each.
pub const RESERVATIONS_MAX: usize = 30_000;

/// Counts and reservations of all tenants and nodes.
#[derive(Debug, Default)]
pub struct QuotaLedger {
    rooms: BTreeMap<RoomKey, BTreeMap<NodeId, Usage>>,
    reservations: BTreeMap<ReservationId, Reservation>,
    by_room: BTreeMap<RoomKey, BTreeSet<ReservationId>>,
    by_tenant: BTreeMap<TenantName, Usage>,
    by_node: BTreeMap<NodeId, Usage>,
    last: u64,
}

impl QuotaLedger {
    /// In use by a tenant.
    #[must_use]
    pub fn of_tenant(&self, tenant: &TenantName) -> Usage {
        self.by_tenant.get(tenant).copied().unwrap_or_default()
    }

    /// In use on a node.
    #[must_use]
    pub fn of_node(&self, node: &NodeId) -> Usage {
        self.by_node.get(node).copied().unwrap_or_default()
    }

    /// Rooms that a node reported last, with their counts.
    pub fn rooms_of(&self, node: &NodeId) -> impl Iterator<Item = &RoomKey> {
        self.rooms
            .iter()
            .filter(move |(_, nodes)| nodes.contains_key(node))
            .map(|(key, _)| key)
    }

    /// Holds `more` for a room on a node.
    ///
    /// # Errors
    /// [`QuotaRefusal`]; nothing is held then.
    pub fn reserve(
        &mut self,
        key: &RoomKey,
        node: &NodeId,
        more: Usage,
        limits: &TenantLimits,
        capacity: &Capacity,
        now: Moment,
    ) -> Result<ReservationId, QuotaRefusal> {
        self.expire(now);
        if self.reservations.len() >= RESERVATIONS_MAX {
            return Err(QuotaRefusal::TooManyReservations(self.reservations.len()));
        }
        check_tenant(limits, self.of_tenant(&key.tenant), more)?;
        check_node(capacity, self.of_node(node), more)?;
        self.last += 1;
        let id = ReservationId(self.last);
        let expires = now.after(limits::RESERVATION);
        self.add(key, node, more);
        self.reservations.insert(
            id,
            Reservation {
                key: key.clone(),
                node: node.clone(),
                amount: more,
                expires,
            },
        );
        self.by_room.entry(key.clone()).or_default().insert(id);
        Ok(id)
    }

    /// Gives a reservation back.
    pub fn release(&mut self, id: ReservationId) {
        let Some(reservation) = self.reservations.remove(&id) else {
            return;
        };
        self.subtract(&reservation.key, &reservation.node, reservation.amount);
        if let Some(ids) = self.by_room.get_mut(&reservation.key) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_room.remove(&reservation.key);
            }
        }
    }

    /// A node reports a room with so many participants: the number replaces its last one, and as many of the room's reservations
    /// there are settled as participants came, the oldest first.
    pub fn report(&mut self, key: &RoomKey, node: &NodeId, participants: u32, now: Moment) {
        self.expire(now);
        let amount = Usage::of_join(true, participants);
        let nodes = self.rooms.entry(key.clone()).or_default();
        let before = nodes.insert(node.clone(), amount);
        if let Some(before) = before {
            self.subtract(key, node, before);
        }
        self.add(key, node, amount);
        let came = participants.saturating_sub(before.map_or(0, |before| before.participants));
        self.settle(key, node, before.is_none(), came);
    }

    fn settle(&mut self, key: &RoomKey, node: &NodeId, room_came: bool, came: u32) {
        let mut left = came;
        let ids: Vec<ReservationId> = self
            .by_room
            .get(key)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        for id in ids {
            let Some(reservation) = self
                .reservations
                .get_mut(&id)
                .filter(|reservation| reservation.node == *node)
            else {
                continue;
            };
            let mut settled = Usage::default();
            if room_came {
                settled.rooms = reservation.amount.rooms;
            }
            if left > 0 && reservation.amount.participants > 0 {
                left = left.saturating_sub(reservation.amount.participants);
                settled.participants = reservation.amount.participants;
                settled.egress_kbps = reservation.amount.egress_kbps;
            }
            reservation.amount = reservation.amount.minus(settled);
            let done = reservation.amount == Usage::default();
            self.subtract(key, node, settled);
            if done {
                self.release(id);
            }
        }
    }

    /// A room ended on a node.
    pub fn close(&mut self, key: &RoomKey, node: &NodeId) {
        let Some(nodes) = self.rooms.get_mut(key) else {
            return;
        };
        let gone = nodes.remove(node);
        if nodes.is_empty() {
            self.rooms.remove(key);
        }
        if let Some(gone) = gone {
            self.subtract(key, node, gone);
        }
    }

    /// Drops reservations whose time is over.
    pub fn expire(&mut self, now: Moment) {
        // Ids rise with time and all reservations live equally long: the first ones expire first.
        while let Some((id, _)) = self
            .reservations
            .first_key_value()
            .filter(|(_, first)| first.expires <= now)
        {
            self.release(*id);
        }
    }

    fn add(&mut self, key: &RoomKey, node: &NodeId, amount: Usage) {
        if amount == Usage::default() {
            return;
        }
        let tenant = self.by_tenant.entry(key.tenant.clone()).or_default();
        *tenant = tenant.plus(amount);
        let node = self.by_node.entry(node.clone()).or_default();
        *node = node.plus(amount);
    }

    fn subtract(&mut self, key: &RoomKey, node: &NodeId, amount: Usage) {
        if let Some(used) = self.by_tenant.get_mut(&key.tenant) {
            *used = used.minus(amount);
            if *used == Usage::default() {
                self.by_tenant.remove(&key.tenant);
            }
        }
        if let Some(used) = self.by_node.get_mut(node) {
            *used = used.minus(amount);
            if *used == Usage::default() {
                self.by_node.remove(node);
            }
        }
    }
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: EUPL-1.2
//! What a tenant uses and whether there is room for more.
//!
//! Used is, over all rooms and their nodes, the greater of what is held for a planned conference and of what the node reports (each report
//! overwrites the last one) plus reservations, which expire after 15 s or are settled by the report that counts their participant. The
//! ledger is what a store keeps; its clock is an argument.

use crate::limits;
use crate::record::{Capacity, TenantLimits};

mod ledger;
mod seat;

pub use ledger::{NoChoice, Offer, QuotaLedger, RESERVATIONS_MAX};
pub use seat::{ROOM_RESERVATIONS_MAX, SETTLED_KEPT_MAX};

/// Amounts of the things that are limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Rooms.
    pub rooms: u32,
    /// Participants.
    pub participants: u32,
    /// Participants who publish; only ever reported, a reservation holds none.
    pub publishers: u32,
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
            publishers: self.publishers.saturating_add(other.publishers),
            egress_kbps: self.egress_kbps.saturating_add(other.egress_kbps),
        }
    }

    /// Difference, not below zero.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self {
            rooms: self.rooms.saturating_sub(other.rooms),
            participants: self.participants.saturating_sub(other.participants),
            publishers: self.publishers.saturating_sub(other.publishers),
            egress_kbps: self.egress_kbps.saturating_sub(other.egress_kbps),
        }
    }

    /// The greater of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            rooms: self.rooms.max(other.rooms),
            participants: self.participants.max(other.participants),
            publishers: self.publishers.max(other.publishers),
            egress_kbps: self.egress_kbps.max(other.egress_kbps),
        }
    }

    /// What a participant and, if need be, their room cost by declared estimate.
    #[must_use]
    pub const fn of_join(new_room: bool, participants: u32) -> Self {
        Self {
            rooms: new_room as u32,
            participants,
            publishers: 0,
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
    /// Publishing participants of the tenant.
    TenantPublishers,
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
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::TenantRooms,
        Self::TenantParticipants,
        Self::TenantPublishers,
        Self::TenantEgress,
        Self::NodeRooms,
        Self::NodeParticipants,
        Self::NodeEgress,
    ];

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
            Self::TenantPublishers => "TenantPublishers",
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

impl QuotaRefusal {
    /// Would another node refuse as well?
    #[must_use]
    pub const fn is_of_tenant(self) -> bool {
        match self {
            Self::Reached { limit, .. } => !limit.is_of_node(),
            Self::TooManyReservations(_) => false,
        }
    }
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
    check(
        Limit::TenantPublishers,
        used.publishers.into(),
        more.publishers.into(),
        max(limits.publishers),
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

/// Number of a reservation: that of the request that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationId(pub u128);

/// How full a node is, in millionths of its scarcest ceiling.
#[must_use]
pub fn load(capacity: &Capacity, used: Usage) -> u64 {
    let share = |used: u64, max: u64| match (used, max) {
        (0, _) => 0,
        (_, 0) => u64::MAX,
        (used, max) => used.saturating_mul(1_000_000) / max,
    };
    share(used.rooms.into(), capacity.rooms.into())
        .max(share(
            used.participants.into(),
            capacity.participants.into(),
        ))
        .max(share(
            used.egress_kbps,
            u64::from(capacity.egress_mbps) * 1_000,
        ))
}

#[cfg(test)]
mod tests;

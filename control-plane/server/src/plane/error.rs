// SPDX-License-Identifier: EUPL-1.2
//! Why a room is not placed, and what a client is told: status, `Retry-After` and reason come from the variant, here and nowhere else.

use control_core::ids::{RoomKey, TenantName};
use control_core::placement::NoNode;
use control_core::quota::QuotaRefusal;

use crate::hosts::HostError;

/// Why a room is not placed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PlaceError {
    /// No snapshot has arrived since the start.
    #[error("the directory has not arrived yet")]
    NotLoaded,
    /// The directory has no such tenant.
    #[error("tenant {0} is not published")]
    UnknownTenant(TenantName),
    /// It is suspended.
    #[error("tenant {0} is suspended and opens no rooms")]
    TenantSuspended(TenantName),
    /// Nodes have not all reported since the start or the store's return; the room may run on one of them.
    #[error("where room {0} runs is not known yet")]
    Settling(RoomKey),
    /// The room's node is silent; whether it is dead is not certain.
    #[error("the media node of room {0} does not answer at the moment")]
    NodeSilent(RoomKey),
    /// No node takes it.
    #[error(transparent)]
    NoCapacity(#[from] NoNode),
    /// A limit is reached.
    #[error(transparent)]
    Quota(#[from] QuotaRefusal),
    /// The node that was chosen refused.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Others moved the room at the same time.
    #[error("room {0} is being moved")]
    Contended(RoomKey),
    /// The store holds as much as it may.
    #[error("the store is full")]
    StoreFull,
    /// Epochs are used up.
    #[error("room {0} has no further epoch")]
    EpochsExhausted(RoomKey),
    /// A part of the request breaks a bound.
    #[error("the policy of room {key} is out of bounds: {problem}")]
    Invalid {
        /// The room.
        key: RoomKey,
        /// What.
        problem: &'static str,
    },
}

impl PlaceError {
    /// HTTP status. Clients give up for good on 401, 403 and 404, so everything that may pass is 503.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::TenantSuspended(_) => 403,
            Self::Invalid { .. } => 400,
            Self::Host(error) => error.status(),
            _ => 503,
        }
    }

    /// Seconds after which trying again makes sense; `None` = never by itself.
    #[must_use]
    pub const fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::TenantSuspended(_) | Self::Invalid { .. } => None,
            Self::NotLoaded | Self::Settling(_) | Self::NodeSilent(_) | Self::Contended(_) => {
                Some(1)
            }
            Self::UnknownTenant(_) | Self::NoCapacity(_) | Self::Quota(_) | Self::StoreFull => {
                Some(5)
            }
            Self::EpochsExhausted(_) => Some(60),
            Self::Host(error) => Some(error.retry_after_s()),
        }
    }

    /// CamelCase reason and metric label.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotLoaded => "DirectoryNotLoaded",
            Self::UnknownTenant(_) => "UnknownTenant",
            Self::TenantSuspended(_) => "TenantSuspended",
            Self::Settling(_) => "Settling",
            Self::NodeSilent(_) => "NodeSilent",
            Self::NoCapacity(_) => "NoCapacity",
            Self::Quota(QuotaRefusal::Reached { limit, .. }) => limit.reason(),
            Self::Quota(QuotaRefusal::TooManyReservations(_)) => "TooManyReservations",
            Self::Host(error) => error.reason(),
            Self::Contended(_) => "Contended",
            Self::StoreFull => "StoreFull",
            Self::EpochsExhausted(_) => "EpochsExhausted",
            Self::Invalid { .. } => "InvalidPolicy",
        }
    }
}

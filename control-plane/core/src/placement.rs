// SPDX-License-Identifier: EUPL-1.2
//! Which node takes a room. Hard filters first; then a short list of which the store takes one in the step that gives the lease; without
//! a store, an order that all replicas share.

use crate::ids::{Jurisdiction, NodeId, Pool, RoomKey, Site, TenantName, Uid};
use crate::lease::Standing;
use crate::quota::{self, Usage};
use crate::record::{Capacity, Conference, Tenant};

mod planned;
mod recent;
mod shortlist;

pub use planned::{Calendar, Hold};
pub use recent::Recent;
pub use shortlist::{Question, Shortlist, plan_join, tally};

/// What a room asks of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Pools it may run in; empty = every one.
    pub pools: Vec<Pool>,
    /// Sites it may run in; empty = every one.
    pub sites: Vec<Site>,
    /// Sites that the room itself is bound to, besides; empty = every one.
    pub room_sites: Vec<Site>,
    /// Sites that are used first while they have room, in order.
    pub preferred: Vec<Site>,
    /// Jurisdictions it may run in; empty = every one. A node whose site declares none lies in none.
    pub jurisdictions: Vec<Jurisdiction>,
    /// Whose room it is; `None` = nobody's nodes are told apart.
    pub tenant: Option<TenantName>,
    /// Does its tenant share nodes with nobody?
    pub dedicated: bool,
    /// What it takes of the node.
    pub amount: Usage,
}

impl Wish {
    /// What a tenant's room asks for, in these pools.
    #[must_use]
    pub fn of(
        tenant: &Tenant,
        conference: Option<&Conference>,
        pools: Vec<Pool>,
        amount: Usage,
    ) -> Self {
        Self {
            pools,
            sites: tenant.residency.sites.clone(),
            room_sites: conference.map_or_else(Vec::new, |conference| conference.sites.clone()),
            preferred: tenant.residency.preferred.clone(),
            jurisdictions: tenant.residency.jurisdictions.clone(),
            tenant: Some(tenant.name.clone()),
            dedicated: tenant.dedicated_nodes,
            amount,
        }
    }
}

/// Whose rooms a node carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Occupants {
    /// Nobody's.
    #[default]
    Nobody,
    /// Of one tenant.
    One {
        /// Whose.
        tenant: TenantName,
        /// Does that tenant share nodes with nobody?
        dedicated: bool,
    },
    /// Of several, none of which is alone by right.
    Several,
}

impl Occupants {
    /// May a room of `wish` come beside them?
    fn admit(&self, wish: &Wish) -> bool {
        let Some(own) = &wish.tenant else {
            return true;
        };
        match self {
            Self::Nobody => true,
            Self::One { tenant, dedicated } => tenant == own || !(wish.dedicated || *dedicated),
            Self::Several => !wish.dedicated,
        }
    }
}

/// How rooms are laid out over nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strategy {
    /// Evenly: of two the less loaded.
    #[default]
    Spread,
    /// On as few nodes as will do: the fullest that fits, so that empty ones can go.
    Pack,
}

impl Strategy {
    /// As in manifests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spread => "Spread",
            Self::Pack => "Pack",
        }
    }

    /// From the text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Spread, Self::Pack]
            .into_iter()
            .find(|strategy| strategy.as_str() == text)
    }
}

/// Most nodes that one placement offers to the store, in order of preference.
pub const CHOICES_MAX: usize = 8;

/// A node as placement sees it: declared, reported and reserved together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Uid.
    pub uid: Uid,
    /// Short id.
    pub node: NodeId,
    /// Pool.
    pub pool: Pool,
    /// Data centre.
    pub site: Site,
    /// Its jurisdiction.
    pub jurisdiction: Option<Jurisdiction>,
    /// Wanted by the operator and by the node itself.
    pub accepting: bool,
    /// Has the node the facts of its present epoch, and named its rooms?
    pub ready: bool,
    /// Heard lately?
    pub standing: Standing,
    /// Ceiling.
    pub capacity: Capacity,
    /// In use by its last report.
    pub used: Usage,
    /// Whose rooms it carries.
    pub occupants: Occupants,
}

/// Why a node is no candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unfit {
    /// Not of the pools.
    Pool,
    /// Not of the sites.
    Site,
    /// Not of the jurisdictions.
    Jurisdiction,
    /// Kept apart for another tenant, or shared while the room's tenant shares with nobody.
    Shared,
    /// Suspect or dead.
    Silent,
    /// Has no facts yet.
    NotReady,
    /// Takes no rooms.
    NotAccepting,
    /// No capacity left.
    Full,
}

/// No node takes the room; how many failed at which filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error(
    "no media node takes the room: {elsewhere} of other pools, sites or jurisdictions, {shared} kept apart for tenants, {silent} silent, \
     {not_ready} not ready, {not_accepting} not accepting, {full} full, {unasked} not asked"
)]
pub struct NoNode {
    /// Of other pools, sites or jurisdictions: nothing will change by waiting.
    pub elsewhere: u32,
    /// Carry rooms of tenants that share with nobody, or of others than the one that shares with nobody.
    pub shared: u32,
    /// Suspect or dead.
    pub silent: u32,
    /// Without facts.
    pub not_ready: u32,
    /// Drained.
    pub not_accepting: u32,
    /// Full.
    pub full: u32,
    /// Might have had a place; so many are not asked for one room.
    pub unasked: u32,
}

impl NoNode {
    /// Counts a node.
    pub const fn count(&mut self, unfit: Unfit) {
        let counter = match unfit {
            Unfit::Pool | Unfit::Site | Unfit::Jurisdiction => &mut self.elsewhere,
            Unfit::Shared => &mut self.shared,
            Unfit::Silent => &mut self.silent,
            Unfit::NotReady => &mut self.not_ready,
            Unfit::NotAccepting => &mut self.not_accepting,
            Unfit::Full => &mut self.full,
        };
        *counter = counter.saturating_add(1);
    }
}

/// Whether a room may run on a node at all, whatever is in use there.
///
/// # Errors
/// The first filter that refuses.
pub fn may_run(wish: &Wish, candidate: &Candidate) -> Result<(), Unfit> {
    if !wish.pools.is_empty() && !wish.pools.contains(&candidate.pool) {
        return Err(Unfit::Pool);
    }
    let at = |sites: &[Site]| sites.is_empty() || sites.contains(&candidate.site);
    if !at(&wish.sites) || !at(&wish.room_sites) {
        return Err(Unfit::Site);
    }
    let in_jurisdiction = |allowed: &Jurisdiction| {
        candidate
            .jurisdiction
            .as_ref()
            .is_some_and(|own| allowed.admits(own))
    };
    if !wish.jurisdictions.is_empty() && !wish.jurisdictions.iter().any(in_jurisdiction) {
        return Err(Unfit::Jurisdiction);
    }
    if candidate.standing != Standing::Alive {
        return Err(Unfit::Silent);
    }
    if !candidate.ready {
        return Err(Unfit::NotReady);
    }
    if !candidate.accepting {
        return Err(Unfit::NotAccepting);
    }
    if !candidate.occupants.admit(wish) {
        return Err(Unfit::Shared);
    }
    Ok(())
}

/// Whether a room may run on a node and has a place there.
///
/// # Errors
/// The first filter that refuses.
pub fn admit(wish: &Wish, candidate: &Candidate) -> Result<(), Unfit> {
    may_run(wish, candidate)?;
    quota::check_node(&candidate.capacity, candidate.used, wish.amount).map_err(|_| Unfit::Full)
}

/// Chooses a node as every other replica would that sees the same nodes: of the admissible ones at the most preferred site the one that
/// ranks highest for this room.
///
/// # Errors
/// [`NoNode`].
pub fn plan_alone<'a>(
    wish: &Wish,
    key: &RoomKey,
    candidates: &'a [Candidate],
) -> Result<&'a Candidate, NoNode> {
    let mut none = NoNode::default();
    candidates
        .iter()
        .filter(|candidate| match admit(wish, candidate) {
            Ok(()) => true,
            Err(unfit) => {
                none.count(unfit);
                false
            }
        })
        .min_by_key(|candidate| {
            let rank = std::cmp::Reverse((rank(key, &candidate.node), candidate.node.clone()));
            (tier(wish, candidate), rank)
        })
        .ok_or(none)
}

/// Place of a node's site in the order of preference.
fn tier(wish: &Wish, candidate: &Candidate) -> usize {
    wish.preferred
        .iter()
        .position(|site| *site == candidate.site)
        .unwrap_or(wish.preferred.len())
}

/// Share of the scarcest thing in use, in millionths.
#[must_use]
pub fn load(capacity: &Capacity, used: Usage) -> u64 {
    let share = |used: u64, max: u64| {
        used.saturating_mul(1_000_000)
            .checked_div(max)
            .unwrap_or(u64::MAX)
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

/// Rendezvous rank of a node for a room: the same on every replica, version and machine.
///
/// *Source*: Thaler, Ravishankar: highest random weight; FNV-1a with the finaliser of MurmurHash3 as weight.
#[must_use]
pub fn rank(key: &RoomKey, node: &NodeId) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in [key.tenant.as_str(), key.name.as_str(), node.as_str()] {
        // A separator that no name contains keeps ("ab", "c") and ("a", "bc") apart.
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: EUPL-1.2
//! Which node takes a room. Hard filters first, then the less loaded of two random ones; without a store, an order that all replicas
//! share.

use crate::ids::{Jurisdiction, NodeId, Pool, RoomKey, Site, Uid};
use crate::lease::Standing;
use crate::quota::{self, Usage};
use crate::record::Capacity;

/// What a room asks of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Pools it may run in; empty = every one.
    pub pools: Vec<Pool>,
    /// Sites it may run in; empty = every one.
    pub sites: Vec<Site>,
    /// Jurisdictions it may run in; empty = every one. A node whose site declares none lies in none.
    pub jurisdictions: Vec<Jurisdiction>,
    /// What it takes of the node.
    pub amount: Usage,
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
    /// In use, reservations included.
    pub used: Usage,
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
    "no media node takes the room: {elsewhere} of other pools, sites or jurisdictions, {silent} silent, {not_ready} not ready, \
     {not_accepting} not accepting, {full} full"
)]
pub struct NoNode {
    /// Of other pools, sites or jurisdictions: nothing will change by waiting.
    pub elsewhere: u32,
    /// Suspect or dead.
    pub silent: u32,
    /// Without facts.
    pub not_ready: u32,
    /// Drained.
    pub not_accepting: u32,
    /// Full.
    pub full: u32,
}

/// Whether a room may run on a node.
///
/// # Errors
/// The first filter that refuses.
pub fn admit(wish: &Wish, candidate: &Candidate) -> Result<(), Unfit> {
    if !wish.pools.is_empty() && !wish.pools.contains(&candidate.pool) {
        return Err(Unfit::Pool);
    }
    if !wish.sites.is_empty() && !wish.sites.contains(&candidate.site) {
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
    quota::check_node(&candidate.capacity, candidate.used, wish.amount).map_err(|_| Unfit::Full)
}

/// Chooses a node for a new room: of two different random admissible ones the less loaded.
///
/// # Errors
/// [`NoNode`].
pub fn plan_join<'a>(
    wish: &Wish,
    candidates: &'a [Candidate],
    random: [u64; 2],
) -> Result<&'a Candidate, NoNode> {
    let fit = fit(wish, candidates)?;
    // `fit` is not empty, so neither modulus is 0.
    let first = reduce(random[0], fit.len());
    let Some(rest) = fit.len().checked_sub(1).filter(|rest| *rest > 0) else {
        return Ok(fit[first]);
    };
    let second = (first + 1 + reduce(random[1], rest)) % fit.len();
    let (a, b) = (fit[first], fit[second]);
    Ok(
        match load(a).cmp(&load(b)).then_with(|| a.node.cmp(&b.node)) {
            std::cmp::Ordering::Greater => b,
            _ => a,
        },
    )
}

/// Chooses a node as every other replica would that sees the same nodes: the admissible one that ranks highest for this room.
///
/// # Errors
/// [`NoNode`].
pub fn plan_alone<'a>(
    wish: &Wish,
    key: &RoomKey,
    candidates: &'a [Candidate],
) -> Result<&'a Candidate, NoNode> {
    let fit = fit(wish, candidates)?;
    fit.into_iter()
        .max_by_key(|candidate| (rank(key, &candidate.node), candidate.node.clone()))
        .ok_or_else(NoNode::default)
}

fn fit<'a>(wish: &Wish, candidates: &'a [Candidate]) -> Result<Vec<&'a Candidate>, NoNode> {
    let mut none = NoNode::default();
    let fit: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| {
            let counter = match admit(wish, candidate) {
                Ok(()) => return true,
                Err(Unfit::Pool | Unfit::Site | Unfit::Jurisdiction) => &mut none.elsewhere,
                Err(Unfit::Silent) => &mut none.silent,
                Err(Unfit::NotReady) => &mut none.not_ready,
                Err(Unfit::NotAccepting) => &mut none.not_accepting,
                Err(Unfit::Full) => &mut none.full,
            };
            *counter += 1;
            false
        })
        .collect();
    if fit.is_empty() { Err(none) } else { Ok(fit) }
}

/// Even reduction of a random number to `0..len`.
fn reduce(random: u64, len: usize) -> usize {
    ((u128::from(random) * len as u128) >> 64) as usize
}

/// Share of the scarcest thing in use, in millionths.
fn load(candidate: &Candidate) -> u64 {
    let share = |used: u64, max: u64| {
        used.saturating_mul(1_000_000)
            .checked_div(max)
            .unwrap_or(u64::MAX)
    };
    let capacity = candidate.capacity;
    share(candidate.used.rooms.into(), capacity.rooms.into())
        .max(share(
            candidate.used.participants.into(),
            capacity.participants.into(),
        ))
        .max(share(
            candidate.used.egress_kbps,
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

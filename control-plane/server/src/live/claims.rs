// SPDX-License-Identifier: EUPL-1.2
//! Which node claims which room. Questions about one node, one tenant or all rooms together cost what they answer, not what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use control_core::ids::{Epoch, RoomKey, TenantName, Uid};
use control_core::lease::{Claim, compare_claims};
use control_core::record::{RoomFacts, RoomPolicy};

use super::{LiveNode, ROOMS_PER_NODE_MAX};

/// A room as one node reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Lease.
    pub epoch: Epoch,
    /// People in it.
    pub participants: u32,
    /// Who publish.
    pub publishers: u32,
    /// People at its door.
    pub lobby: u32,
    /// Facts.
    pub facts: RoomFacts,
    /// Revision of the rules it runs by.
    pub policy_revision: String,
    /// The rules it runs by, where no conference declares them.
    pub policy: Option<Box<RoomPolicy>>,
}

/// A node that must end its room because a better claim is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loser {
    /// Whose.
    pub uid: Uid,
    /// Epochs below this one end.
    pub epoch_below: Epoch,
}

/// Rooms together, each by its best claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many.
    pub rooms: u32,
    /// People in them.
    pub participants: u32,
    /// Who publish.
    pub publishers: u32,
}

impl Totals {
    const fn plus(self, other: Self) -> Self {
        Self {
            rooms: self.rooms.saturating_add(other.rooms),
            participants: self.participants.saturating_add(other.participants),
            publishers: self.publishers.saturating_add(other.publishers),
        }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            rooms: self.rooms.saturating_sub(other.rooms),
            participants: self.participants.saturating_sub(other.participants),
            publishers: self.publishers.saturating_sub(other.publishers),
        }
    }
}

type Nodes = BTreeMap<Uid, LiveNode>;

#[derive(Debug, Default)]
struct Claims {
    /// Boxed: a map of one has room for eleven, and nearly every room is claimed once.
    by_node: BTreeMap<Uid, Box<Entry>>,
    /// What it adds to the totals.
    counted: Totals,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    claims: BTreeMap<RoomKey, Claims>,
    on_node: BTreeMap<Uid, BTreeSet<RoomKey>>,
    contested: BTreeSet<RoomKey>,
    totals: Totals,
    by_tenant: BTreeMap<TenantName, Totals>,
}

impl Rooms {
    pub(super) fn entry(&self, uid: &Uid, key: &RoomKey) -> Option<&Entry> {
        #[cfg(test)]
        LOOKS.with(|looks| looks.set(looks.get() + 1));
        self.claims.get(key)?.by_node.get(uid).map(Box::as_ref)
    }

    /// Highest epoch that a node claims a room by.
    pub(super) fn epoch(&self, key: &RoomKey) -> Option<Epoch> {
        let claims = self.claims.get(key)?;
        claims.by_node.values().map(|entry| entry.epoch).max()
    }

    pub(super) fn best<'a>(&'a self, key: &RoomKey, nodes: &Nodes) -> Option<(&'a Uid, &'a Entry)> {
        best(&self.claims.get(key)?.by_node, nodes)
    }

    pub(super) fn all<'a>(
        &'a self,
        nodes: &'a Nodes,
    ) -> impl Iterator<Item = (&'a RoomKey, &'a Uid, &'a Entry)> {
        self.claims.iter().filter_map(|(key, claims)| {
            let (uid, entry) = best(&claims.by_node, nodes)?;
            Some((key, uid, entry))
        })
    }

    pub(super) fn from<'a>(
        &'a self,
        first: &RoomKey,
        nodes: &'a Nodes,
    ) -> impl Iterator<Item = (&'a RoomKey, &'a Uid, &'a Entry)> {
        let range = (Bound::Included(first.clone()), Bound::Unbounded);
        self.claims.range(range).filter_map(|(key, claims)| {
            let (uid, entry) = best(&claims.by_node, nodes)?;
            Some((key, uid, entry))
        })
    }

    /// Rooms that one node claims.
    pub(super) fn of<'a>(&'a self, uid: &'a Uid) -> impl Iterator<Item = (&'a RoomKey, &'a Entry)> {
        self.on_node
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|key| Some((key, self.entry(uid, key)?)))
    }

    pub(super) const fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn totals_of(&self, tenant: &TenantName) -> Totals {
        self.by_tenant.get(tenant).copied().unwrap_or_default()
    }

    /// A node claims a room. Not, if it claims as many as it may.
    pub(super) fn put(&mut self, uid: &Uid, key: &RoomKey, entry: Entry, nodes: &Nodes) -> bool {
        let own = self.on_node.entry(uid.clone()).or_default();
        if !own.contains(key) {
            if own.len() >= ROOMS_PER_NODE_MAX {
                return false;
            }
            own.insert(key.clone());
        }
        let claims = self.claims.entry(key.clone()).or_default();
        claims.by_node.insert(uid.clone(), Box::new(entry));
        self.settle(key, nodes);
        true
    }

    pub(super) fn remove(&mut self, uid: &Uid, key: &RoomKey, nodes: &Nodes) -> Option<Entry> {
        let entry = *self.claims.get_mut(key)?.by_node.remove(uid)?;
        if let Some(own) = self.on_node.get_mut(uid) {
            own.remove(key);
            if own.is_empty() {
                self.on_node.remove(uid);
            }
        }
        self.settle(key, nodes);
        Some(entry)
    }

    /// Counts a room after its claims changed.
    fn settle(&mut self, key: &RoomKey, nodes: &Nodes) {
        let Some(claims) = self.claims.get_mut(key) else {
            return;
        };
        let now = best(&claims.by_node, nodes).map_or(Totals::default(), |(_, entry)| Totals {
            rooms: 1,
            participants: entry.participants,
            publishers: entry.publishers,
        });
        let before = std::mem::replace(&mut claims.counted, now);
        let (claimed, twice) = (!claims.by_node.is_empty(), claims.by_node.len() > 1);
        self.totals = self.totals.minus(before).plus(now);
        let tenant = self.by_tenant.entry(key.tenant.clone()).or_default();
        *tenant = tenant.minus(before).plus(now);
        if *tenant == Totals::default() {
            self.by_tenant.remove(&key.tenant);
        }
        if !claimed {
            self.claims.remove(key);
        }
        if !twice {
            self.contested.remove(key);
        } else if !self.contested.contains(key) {
            self.contested.insert(key.clone());
        }
    }

    pub(super) fn losers(&self, key: &RoomKey, nodes: &Nodes) -> Vec<Loser> {
        if !self.contested.contains(key) {
            return Vec::new();
        }
        let Some(claims) = self.claims.get(key) else {
            return Vec::new();
        };
        let Some((winner, held)) = best(&claims.by_node, nodes) else {
            return Vec::new();
        };
        claims
            .by_node
            .iter()
            .filter(|(uid, _)| *uid != winner)
            // Equal epochs: the loser's own epoch has to go too.
            .map(|(uid, entry)| Loser {
                uid: uid.clone(),
                epoch_below: held.epoch.max(Epoch(entry.epoch.0.saturating_add(1))),
            })
            .collect()
    }

    pub(super) fn doubles(&self, nodes: &Nodes) -> Vec<(RoomKey, Vec<Loser>)> {
        self.contested
            .iter()
            .map(|key| (key.clone(), self.losers(key, nodes)))
            .collect()
    }
}

#[cfg(test)]
thread_local! {
    /// Rooms looked at so far.
    pub(super) static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

fn best<'a>(by_node: &'a BTreeMap<Uid, Box<Entry>>, nodes: &Nodes) -> Option<(&'a Uid, &'a Entry)> {
    #[cfg(test)]
    LOOKS.with(|looks| looks.set(looks.get() + 1));
    // Nearly every room is claimed once; then nothing has to be compared.
    if by_node.len() == 1 {
        return by_node
            .first_key_value()
            .filter(|(uid, _)| nodes.contains_key(*uid))
            .map(|(uid, entry)| (uid, entry.as_ref()));
    }
    by_node
        .iter()
        .filter_map(|(uid, entry)| Some((uid, entry, nodes.get(uid)?)))
        .max_by(|a, b| match (claim(a.2, a.1), claim(b.2, b.1)) {
            (Some(a), Some(b)) => compare_claims(&a, &b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        })
        .map(|(uid, entry, _)| (uid, entry.as_ref()))
}

fn claim(node: &LiveNode, entry: &Entry) -> Option<Claim> {
    Some(Claim {
        epoch: entry.epoch,
        participants: entry.participants,
        node: node.hello.node_id.clone()?,
    })
}

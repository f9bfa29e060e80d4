// SPDX-License-Identifier: EUPL-1.2
//! Counts, reservations and holds of all tenants and nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::seat::{ROOM_RESERVATIONS_MAX, Seat, reservation_expires};
use super::{QuotaRefusal, ReservationId, Usage, check_node, check_tenant, load};
use crate::ids::{NodeId, RoomKey, TenantName};
use crate::placement::Strategy;
use crate::record::{Capacity, TenantLimits};
use crate::time::Moment;

/// Most reservations of all rooms at a time: 15 s of 10,000 joins each.
pub const RESERVATIONS_MAX: usize = 150_000;

/// A node that may be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Which.
    pub node: &'a NodeId,
    /// Its ceiling.
    pub capacity: &'a Capacity,
    /// Does it take rooms?
    pub accepting: bool,
}

/// Why none of the offered nodes was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoChoice {
    /// The tenant has no more, or the last one that accepts has no room.
    Refused(QuotaRefusal),
    /// None accepts.
    NotAccepting,
}

/// What the ledger keeps of all rooms.
#[derive(Debug, Default)]
pub struct QuotaLedger {
    pub(super) seats: BTreeMap<RoomKey, Seat>,
    due: BTreeSet<(Moment, RoomKey)>,
    pub(super) by_tenant: BTreeMap<TenantName, Usage>,
    pub(super) by_node: BTreeMap<NodeId, Usage>,
    pub(super) reservations: usize,
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

    /// People in a room by the last report of a node.
    #[must_use]
    pub fn people_on(&self, key: &RoomKey, node: &NodeId) -> u32 {
        self.seats.get(key).map_or(0, |seat| seat.people_on(node))
    }

    /// Chooses a node for a room that has none and holds `more` there. What is held for the room decides first; it ends where the room is
    /// placed elsewhere.
    ///
    /// # Errors
    /// [`NoChoice`]; nothing is held then.
    #[allow(clippy::too_many_arguments)]
    pub fn place(
        &mut self,
        key: &RoomKey,
        id: ReservationId,
        offers: &[Offer<'_>],
        strategy: Strategy,
        more: Usage,
        limits: &TenantLimits,
        now: Moment,
    ) -> Result<usize, NoChoice> {
        self.expire(now);
        self.bounded(key).map_err(NoChoice::Refused)?;
        let expires = reservation_expires(now);
        let change = |seat: &mut Seat, node: &NodeId| {
            if seat.held_on().is_some_and(|held| held != node) {
                seat.drop_hold();
            }
            seat.reserve(id, node, more, expires);
        };
        let held = self.held_on(key);
        self.choose(key, offers, strategy, held.as_ref(), more, limits, &change)
    }

    /// Holds capacity for a planned conference. `runs_on` is where its room is, if anywhere; else a hold that lives keeps its node.
    ///
    /// # Errors
    /// [`NoChoice`]; what was held before stays as it was.
    #[allow(clippy::too_many_arguments)]
    pub fn hold(
        &mut self,
        key: &RoomKey,
        runs_on: Option<&NodeId>,
        offers: &[Offer<'_>],
        strategy: Strategy,
        amount: Usage,
        limits: &TenantLimits,
        lifetime: Duration,
        now: Moment,
    ) -> Result<usize, NoChoice> {
        self.expire(now);
        let expires = now.after(lifetime);
        let change = |seat: &mut Seat, node: &NodeId| seat.hold(node, amount, expires);
        let held = self.held_on(key);
        let wanted = runs_on.or(held.as_ref());
        self.choose(
            key,
            offers,
            strategy,
            wanted,
            Usage::default(),
            limits,
            &change,
        )
    }

    /// Gives a hold up.
    pub fn drop_hold(&mut self, key: &RoomKey, now: Moment) {
        self.edit(key, now, Seat::drop_hold);
    }

    /// Holds `more` for a room on the node where it runs. The same request again holds nothing more.
    ///
    /// # Errors
    /// [`QuotaRefusal`]; nothing is held then.
    #[allow(clippy::too_many_arguments)]
    pub fn reserve(
        &mut self,
        key: &RoomKey,
        node: &NodeId,
        id: ReservationId,
        more: Usage,
        limits: &TenantLimits,
        capacity: &Capacity,
        now: Moment,
    ) -> Result<ReservationId, QuotaRefusal> {
        self.expire(now);
        let known = self.seats.get(key).and_then(|seat| seat.reservation(id));
        if known == Some(node) {
            return Ok(id);
        }
        self.bounded(key)?;
        let expires = reservation_expires(now);
        let before = self.seats.get(key).cloned().unwrap_or_default();
        let mut after = before.clone();
        after.reserve(id, node, more, expires);
        self.admits(key, node, capacity, &before, &after, more, limits)?;
        self.replace(key, &before, after);
        Ok(id)
    }

    /// Gives a reservation back.
    pub fn release(&mut self, key: &RoomKey, id: ReservationId, now: Moment) {
        self.edit(key, now, |seat| seat.release(id));
    }

    /// The node that owns a room reports so many people in it: the numbers replace the last ones, and as many of the room's reservations
    /// there are settled as people came, the oldest first. They count for `lifetime` unless they are reported again.
    pub fn report(
        &mut self,
        key: &RoomKey,
        node: &NodeId,
        participants: u32,
        publishers: u32,
        lifetime: Duration,
        now: Moment,
    ) {
        self.expire(now);
        let expires = now.after(lifetime);
        self.edit(key, now, |seat| {
            seat.report(node, participants, publishers, expires);
        });
    }

    /// A room ended on a node.
    pub fn close(&mut self, key: &RoomKey, node: &NodeId, now: Moment) {
        self.edit(key, now, |seat| seat.close(node));
    }

    /// Drops what has run out.
    pub fn expire(&mut self, now: Moment) {
        while let Some((_, key)) = self.due.first().filter(|(due, _)| *due <= now).cloned() {
            self.edit(&key, now, |_| ());
        }
    }

    fn held_on(&self, key: &RoomKey) -> Option<NodeId> {
        self.seats.get(key).and_then(Seat::held_on).cloned()
    }

    fn bounded(&self, key: &RoomKey) -> Result<(), QuotaRefusal> {
        let of_room = self.seats.get(key).map_or(0, Seat::reservations);
        if of_room >= ROOM_RESERVATIONS_MAX {
            return Err(QuotaRefusal::TooManyReservations(of_room));
        }
        if self.reservations >= RESERVATIONS_MAX {
            return Err(QuotaRefusal::TooManyReservations(self.reservations));
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn choose(
        &mut self,
        key: &RoomKey,
        offers: &[Offer<'_>],
        strategy: Strategy,
        wanted: Option<&NodeId>,
        more: Usage,
        limits: &TenantLimits,
        change: &dyn Fn(&mut Seat, &NodeId),
    ) -> Result<usize, NoChoice> {
        let before = self.seats.get(key).cloned().unwrap_or_default();
        let mut refusal: Option<QuotaRefusal> = None;
        let mut fits = |index: usize| {
            let offer = offers.get(index).filter(|offer| offer.accepting)?;
            let mut after = before.clone();
            change(&mut after, offer.node);
            match self.admits(
                key,
                offer.node,
                offer.capacity,
                &before,
                &after,
                more,
                limits,
            ) {
                Ok(()) => Some((load(offer.capacity, self.of_node(offer.node)), index)),
                Err(refused) => {
                    // What the tenant has used up no other node gives.
                    if !refusal.is_some_and(QuotaRefusal::is_of_tenant) {
                        refusal = Some(refused);
                    }
                    None
                }
            }
        };
        let wanted = offers
            .iter()
            .position(|offer| Some(offer.node) == wanted)
            .and_then(&mut fits);
        let compared = match strategy {
            Strategy::Spread => 2,
            Strategy::Pack => 1,
        };
        let chosen = wanted
            .or_else(|| (0..compared).filter_map(&mut fits).min())
            .or_else(|| (compared..offers.len()).find_map(&mut fits));
        let Some((_, index)) = chosen else {
            return Err(refusal.map_or(NoChoice::NotAccepting, NoChoice::Refused));
        };
        let mut after = before.clone();
        if let Some(offer) = offers.get(index) {
            change(&mut after, offer.node);
        }
        self.replace(key, &before, after);
        Ok(index)
    }

    /// Whether a room may take `after` instead of `before`. Publishers are checked, but nothing holds them.
    #[allow(clippy::too_many_arguments)]
    fn admits(
        &self,
        key: &RoomKey,
        node: &NodeId,
        capacity: &Capacity,
        before: &Seat,
        after: &Seat,
        more: Usage,
        limits: &TenantLimits,
    ) -> Result<(), QuotaRefusal> {
        let (before, after) = (before.uses(), after.uses());
        let on_node = |uses: &BTreeMap<NodeId, Usage>| uses.get(node).copied().unwrap_or_default();
        let of_all = |uses: &BTreeMap<NodeId, Usage>| {
            uses.values()
                .fold(Usage::default(), |sum, amount| sum.plus(*amount))
        };
        let of_tenant = Usage {
            publishers: more.publishers,
            ..of_all(&after).minus(of_all(&before))
        };
        check_tenant(limits, self.of_tenant(&key.tenant), of_tenant)?;
        let of_node = on_node(&after).minus(on_node(&before));
        check_node(capacity, self.of_node(node), of_node)
    }

    fn edit(&mut self, key: &RoomKey, now: Moment, change: impl FnOnce(&mut Seat)) {
        let before = self.seats.get(key).cloned().unwrap_or_default();
        let mut after = before.clone();
        after.expire(now);
        change(&mut after);
        self.replace(key, &before, after);
    }

    fn replace(&mut self, key: &RoomKey, before: &Seat, after: Seat) {
        let (uses_before, uses_after) = (before.uses(), after.uses());
        for (node, amount) in uses_before {
            count(&mut self.by_tenant, &key.tenant, |sum| sum.minus(amount));
            count(&mut self.by_node, &node, |sum| sum.minus(amount));
        }
        for (node, amount) in uses_after {
            count(&mut self.by_tenant, &key.tenant, |sum| sum.plus(amount));
            count(&mut self.by_node, &node, |sum| sum.plus(amount));
        }
        self.reservations = self
            .reservations
            .saturating_sub(before.reservations())
            .saturating_add(after.reservations());
        if let Some(due) = before.due() {
            self.due.remove(&(due, key.clone()));
        }
        if let Some(due) = after.due() {
            self.due.insert((due, key.clone()));
        }
        if after.is_empty() {
            self.seats.remove(key);
        } else {
            self.seats.insert(key.clone(), after);
        }
    }
}

fn count<K: Ord + Clone>(
    sums: &mut BTreeMap<K, Usage>,
    key: &K,
    change: impl FnOnce(Usage) -> Usage,
) {
    let sum = sums.entry(key.clone()).or_default();
    *sum = change(*sum);
    if *sum == Usage::default() {
        sums.remove(key);
    }
}

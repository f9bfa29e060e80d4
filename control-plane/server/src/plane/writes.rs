// SPDX-License-Identifier: EUPL-1.2
//! What this replica has to write to the store: leases of nodes, states and ends of rooms.
//!
//! Level-based: only the fact that something has to be written waits here, once for each node and for each room on a node; what is written
//! is the state at that time. So the view of the world never waits for the store, and a slow store is written less often instead of later
//! and later. Many things go in one call, one call after the other: nothing overtakes what was said before it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use control_core::ids::{NodeId, RoomKey, Uid};
use control_core::lease::{NodeLease, RoomLease};
use tokio::sync::Notify;

/// Rooms that wait to be written. Beyond, a state is dropped: all are written again within half a minute.
const ROOMS_MAX: usize = 400_000;

/// What is to be written of a room on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RoomWrite {
    /// Its state.
    State,
    /// It does not run there any more; with `keep_facts`, it is to be placed anew.
    End { lease: RoomLease, keep_facts: bool },
}

/// What goes in one call, or one after the other.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) leases: Vec<NodeLease>,
    pub(super) states: Vec<(RoomKey, Uid)>,
    pub(super) ends: Vec<End>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.leases.is_empty() && self.states.is_empty() && self.ends.is_empty()
    }
}

/// A room that does not run on a node any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) key: RoomKey,
    pub(super) uid: Uid,
    pub(super) lease: RoomLease,
    pub(super) keep_facts: bool,
}

#[derive(Default)]
struct Waiting {
    leases: BTreeMap<NodeId, NodeLease>,
    rooms: HashMap<(RoomKey, Uid), RoomWrite>,
    order: VecDeque<(RoomKey, Uid)>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Writes {
    waiting: Mutex<Waiting>,
    pub(super) more: Notify,
}

impl Writes {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each operation leaves map and order whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node's lease is to be refreshed.
    pub(super) fn lease(&self, lease: NodeLease) {
        self.waiting().leases.insert(lease.node.clone(), lease);
        self.more.notify_one();
    }

    /// A room is to be written. Whether there was space for it.
    pub(super) fn room(&self, key: RoomKey, uid: Uid, write: RoomWrite) -> bool {
        let mut waiting = self.waiting();
        let at = (key, uid);
        if !waiting.rooms.contains_key(&at) {
            if waiting.rooms.len() >= ROOMS_MAX {
                return false;
            }
            waiting.order.push_back(at.clone());
        }
        waiting.rooms.insert(at, write);
        drop(waiting);
        self.more.notify_one();
        true
    }

    /// It could not be written because the store is away: that is done when it is back, unless something newer is to be said of the room.
    pub(super) fn put_back(&self, end: End) {
        let mut waiting = self.waiting();
        let at = (end.key, end.uid);
        if !waiting.rooms.contains_key(&at) && waiting.rooms.len() < ROOMS_MAX {
            let (lease, keep_facts) = (end.lease, end.keep_facts);
            waiting.order.push_back(at.clone());
            waiting
                .rooms
                .insert(at, RoomWrite::End { lease, keep_facts });
        }
    }

    /// What is to be written next, at most `max` of a kind.
    pub(super) fn take(&self, max: usize) -> Batch {
        let mut waiting = self.waiting();
        let mut batch = Batch::default();
        while batch.leases.len() < max
            && let Some((_, lease)) = waiting.leases.pop_first()
        {
            batch.leases.push(lease);
        }
        while batch.states.len() + batch.ends.len() < max
            && let Some(at) = waiting.order.pop_front()
        {
            match waiting.rooms.remove(&at) {
                Some(RoomWrite::State) => batch.states.push(at),
                Some(RoomWrite::End { lease, keep_facts }) => batch.ends.push(End {
                    key: at.0,
                    uid: at.1,
                    lease,
                    keep_facts,
                }),
                None => {}
            }
        }
        batch
    }

    /// While the store is away: everything but ends of rooms is forgotten, for it is written anew when the store is back.
    pub(super) fn keep_ends(&self) {
        let mut waiting = self.waiting();
        let waiting = &mut *waiting;
        waiting.leases.clear();
        waiting
            .rooms
            .retain(|_, write| matches!(write, RoomWrite::End { .. }));
        let rooms = &waiting.rooms;
        waiting.order.retain(|at| rooms.contains_key(at));
    }
}

#[cfg(test)]
mod tests {
    use control_core::ids::{Epoch, Site};

    use super::*;

    fn key(name: &str) -> RoomKey {
        RoomKey::parse("t", name).expect("key")
    }

    fn uid() -> Uid {
        Uid::parse("u").expect("uid")
    }

    fn end(name: &str, epoch: u64) -> End {
        End {
            key: key(name),
            uid: uid(),
            lease: RoomLease {
                site: Site::parse("s").expect("site"),
                node: NodeId::parse("n1").expect("node"),
                epoch: Epoch(epoch),
            },
            keep_facts: false,
        }
    }

    fn say_end(writes: &Writes, end: &End) {
        let (lease, keep_facts) = (end.lease.clone(), end.keep_facts);
        writes.room(
            end.key.clone(),
            end.uid.clone(),
            RoomWrite::End { lease, keep_facts },
        );
    }

    #[test]
    fn a_room_waits_once_and_in_its_turn_with_what_was_said_last() {
        let writes = Writes::default();
        for name in ["a", "b", "a", "c"] {
            assert!(writes.room(key(name), uid(), RoomWrite::State));
        }
        say_end(&writes, &end("a", 1));
        let first = Batch {
            states: vec![(key("b"), uid())],
            ends: vec![end("a", 1)],
            ..Batch::default()
        };
        assert_eq!(writes.take(2), first);
        assert_eq!(writes.take(2).states, [(key("c"), uid())]);
        assert!(writes.take(2).is_empty());
    }

    #[test]
    fn an_outage_keeps_ends_and_what_is_newer() {
        let writes = Writes::default();
        writes.room(key("state"), uid(), RoomWrite::State);
        say_end(&writes, &end("end", 1));
        writes.keep_ends();
        let taken = writes.take(9);
        assert_eq!(
            taken,
            Batch {
                ends: vec![end("end", 1)],
                ..Batch::default()
            }
        );
        writes.put_back(end("end", 1));
        assert_eq!(writes.take(9), taken);
        // It was opened anew meanwhile: the end of the old lease is of no interest any more.
        writes.room(key("end"), uid(), RoomWrite::State);
        writes.put_back(end("end", 1));
        assert_eq!(writes.take(9).states, [(key("end"), uid())]);
        assert!(writes.take(9).is_empty());
    }
}

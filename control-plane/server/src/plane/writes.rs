// SPDX-License-Identifier: EUPL-1.2
//! What this replica has to write to the store: leases of nodes, states and ends of rooms.
//!
//! Level-based: only the fact that something has to be written waits here, once for each node and for each room on a node; what is written
//! is the state at that time. So the view of the world never waits for the store, a slow store is written less often instead of later and
//! later, and many writes are on their way at once.

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

/// One thing to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Write {
    Lease(NodeLease),
    Room(RoomKey, Uid, RoomWrite),
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

    /// A write failed because the store is away: the end of a room is written when it is back, unless something newer is to be said of it.
    pub(super) fn put_back(&self, write: Write) {
        if let Write::Room(key, uid, write @ RoomWrite::End { .. }) = write {
            let mut waiting = self.waiting();
            let at = (key, uid);
            if !waiting.rooms.contains_key(&at) && waiting.rooms.len() < ROOMS_MAX {
                waiting.order.push_back(at.clone());
                waiting.rooms.insert(at, write);
            }
        }
    }

    /// The next thing to write, leases first.
    pub(super) fn take(&self) -> Option<Write> {
        let mut waiting = self.waiting();
        if let Some((_, lease)) = waiting.leases.pop_first() {
            return Some(Write::Lease(lease));
        }
        let at = waiting.order.pop_front()?;
        let write = waiting.rooms.remove(&at)?;
        Some(Write::Room(at.0, at.1, write))
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

    fn end(epoch: u64) -> RoomWrite {
        RoomWrite::End {
            lease: RoomLease {
                site: Site::parse("s").expect("site"),
                node: NodeId::parse("n1").expect("node"),
                epoch: Epoch(epoch),
            },
            keep_facts: false,
        }
    }

    #[test]
    fn a_room_waits_once_and_in_its_turn_with_what_was_said_last() {
        let writes = Writes::default();
        for name in ["a", "b", "a"] {
            assert!(writes.room(key(name), uid(), RoomWrite::State));
        }
        assert!(writes.room(key("a"), uid(), end(1)));
        assert_eq!(writes.take(), Some(Write::Room(key("a"), uid(), end(1))));
        assert_eq!(
            writes.take(),
            Some(Write::Room(key("b"), uid(), RoomWrite::State))
        );
        assert_eq!(writes.take(), None);
    }

    #[test]
    fn an_outage_keeps_ends_and_what_is_newer() {
        let writes = Writes::default();
        writes.room(key("state"), uid(), RoomWrite::State);
        writes.room(key("end"), uid(), end(1));
        writes.keep_ends();
        let taken = writes.take().expect("the end");
        assert_eq!(taken, Write::Room(key("end"), uid(), end(1)));
        writes.put_back(taken.clone());
        assert_eq!(writes.take(), Some(taken.clone()));
        // It was opened anew meanwhile: the end of the old lease is of no interest any more.
        writes.room(key("end"), uid(), RoomWrite::State);
        writes.put_back(taken);
        assert_eq!(
            writes.take(),
            Some(Write::Room(key("end"), uid(), RoomWrite::State))
        );
        assert_eq!(writes.take(), None);
    }
}

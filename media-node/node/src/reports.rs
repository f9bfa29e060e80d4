// SPDX-License-Identifier: EUPL-1.2
//! What the node has to say to every control-plane replica, level-based: the present state of each room with the version of its
//! last change, tombstones of ended ones, and the outbox of room events that only the primary replica delivers.
//!
//! A stream remembers the version up to which it has spoken; one that fell behind the tombstones begins anew.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use media_core::time::Timestamp;

use plenum_proto::v1::node_report::Item;
use plenum_proto::v1::{EventAck, RoomClosed, RoomEvent, RoomKey, RoomState};
use tokio::sync::watch;

use crate::outbox::Outbox;

/// Ended rooms a slow stream may miss before it has to begin anew.
const CLOSED_MAX: usize = 4_096;
/// An end that a primary replica heard so lately is told to its successor too: it may not have come to write it.
const TOLD_AGAIN: Duration = Duration::from_secs(30);
/// Items handed to a stream at once.
const BATCH_MAX: usize = 256;

type Key = (String, String);

fn key_of(key: Option<&RoomKey>) -> Key {
    key.map(|key| (key.tenant.clone(), key.name.clone()))
        .unwrap_or_default()
}

struct Closed {
    version: u64,
    closed: RoomClosed,
    /// When a primary replica was told.
    told: Option<Timestamp>,
}

#[derive(Default)]
struct Inner {
    version: u64,
    rooms: BTreeMap<Key, (u64, RoomState)>,
    closed: VecDeque<Closed>,
    /// Version of the newest tombstone that was dropped.
    forgotten: u64,
    outbox: Outbox,
}

/// The reports of one node.
pub struct Reports {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

/// The stream fell behind and has to begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream missed rooms that ended meanwhile")]
pub struct Behind;

impl Default for Reports {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Reports {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete when the lock goes: a panic elsewhere leaves no half state.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, apply: impl FnOnce(&mut Inner, u64)) {
        let mut inner = self.lock();
        inner.version += 1;
        let version = inner.version;
        apply(&mut inner, version);
        drop(inner);
        self.changed.send_replace(version);
    }

    /// A room's new state.
    pub fn room(&self, state: RoomState) {
        self.change(|inner, version| {
            inner
                .rooms
                .insert(key_of(state.key.as_ref()), (version, state));
        });
    }

    /// A room ended. Nothing when a later epoch of it lives here already.
    pub fn closed(&self, closed: RoomClosed) {
        self.change(|inner, version| {
            let key = key_of(closed.key.as_ref());
            if inner
                .rooms
                .get(&key)
                .is_some_and(|(_, state)| state.epoch <= closed.epoch)
            {
                inner.rooms.remove(&key);
            }
            inner.closed.push_back(Closed {
                version,
                closed,
                told: None,
            });
            if inner.closed.len() > CLOSED_MAX
                && let Some(oldest) = inner.closed.pop_front()
            {
                inner.forgotten = oldest.version;
            }
        });
    }

    /// A room event for the webhooks.
    pub fn event(&self, event: RoomEvent) {
        self.change(|inner, version| inner.outbox.push(version, event));
    }

    /// The primary replica has the events of a room up to `ack.seq`.
    pub fn acknowledge(&self, ack: &EventAck) {
        self.lock().outbox.acknowledge(ack);
    }

    /// A primary replica was told everything up to `version`.
    pub fn told_primary(&self, version: u64, now: Timestamp) {
        for closed in &mut self.lock().closed {
            if closed.version <= version && closed.told.is_none() {
                closed.told = Some(now);
            }
        }
    }

    /// Ended rooms that a replica has to hear of when it becomes primary: what no primary was told, or one so lately that it may have
    /// died before it had written it.
    #[must_use]
    pub fn for_new_primary(&self, now: Timestamp) -> Vec<Item> {
        self.lock()
            .closed
            .iter()
            .filter(|closed| closed.told.is_none_or(|at| now.since(at) < TOLD_AGAIN))
            .map(|closed| Item::Closed(closed.closed.clone()))
            .collect()
    }

    /// Events dropped because nobody took them.
    #[must_use]
    pub fn events_lost(&self) -> u64 {
        self.lock().outbox.lost()
    }

    /// To wait for changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The present version: where a snapshot taken now ends.
    #[must_use]
    pub fn snapshot(&self) -> (u64, Vec<Item>) {
        let inner = self.lock();
        (
            inner.version,
            inner
                .rooms
                .values()
                .map(|(_, state)| Item::Room(state.clone()))
                .collect(),
        )
    }

    /// What changed after `version`, oldest first and in bounded portions, and the version reached. Events only when
    /// `events_after` tells up to where they were sent.
    ///
    /// # Errors
    /// [`Behind`].
    pub fn since(
        &self,
        version: u64,
        events_after: Option<u64>,
    ) -> Result<(u64, Vec<Item>), Behind> {
        let inner = self.lock();
        if version < inner.forgotten {
            return Err(Behind);
        }
        let mut items: Vec<(u64, Item)> = Vec::new();
        items.extend(
            inner
                .rooms
                .values()
                .filter(|(at, _)| *at > version)
                .map(|(at, state)| (*at, Item::Room(state.clone()))),
        );
        items.extend(
            inner
                .closed
                .iter()
                .filter(|closed| closed.version > version)
                .map(|closed| (closed.version, Item::Closed(closed.closed.clone()))),
        );
        if let Some(after) = events_after {
            items.extend(
                // One more than go, so that it shows that there are more.
                inner
                    .outbox
                    .after(after, BATCH_MAX + 1)
                    .map(|(at, event)| (at, Item::Event(event))),
            );
        }
        items.sort_by_key(|(at, _)| *at);
        let reached = if items.len() > BATCH_MAX {
            items[BATCH_MAX - 1].0
        } else {
            inner.version
        };
        items.truncate(BATCH_MAX);
        Ok((reached, items.into_iter().map(|(_, item)| item).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Option<RoomKey> {
        Some(RoomKey {
            tenant: "t".into(),
            name: name.into(),
        })
    }

    fn state(name: &str, epoch: u64) -> RoomState {
        RoomState {
            key: key(name),
            epoch,
            ..Default::default()
        }
    }

    #[test]
    fn a_stream_sees_each_room_once_and_its_end() {
        let reports = Reports::default();
        reports.room(state("a", 1));
        let (version, rooms) = reports.snapshot();
        assert_eq!(rooms.len(), 1);
        reports.room(state("b", 1));
        reports.room(state("b", 1));
        reports.closed(RoomClosed {
            key: key("a"),
            epoch: 1,
            reason: String::new(),
        });
        let (version, items) = reports.since(version, None).expect("not behind");
        assert!(
            matches!(items.as_slice(), [Item::Room(_), Item::Closed(_)]),
            "{items:?}"
        );
        assert_eq!(reports.since(version, None).expect("not behind").1.len(), 0);
        assert_eq!(reports.snapshot().1.len(), 1);
    }

    #[test]
    fn the_end_of_an_old_epoch_does_not_hide_a_later_one() {
        let reports = Reports::default();
        reports.room(state("a", 2));
        reports.closed(RoomClosed {
            key: key("a"),
            epoch: 1,
            reason: String::new(),
        });
        assert_eq!(reports.snapshot().1.len(), 1);
    }

    #[test]
    fn a_stream_behind_the_tombstones_begins_anew() {
        let reports = Reports::default();
        for number in 0..=CLOSED_MAX as u64 {
            reports.closed(RoomClosed {
                key: key("a"),
                epoch: number,
                reason: String::new(),
            });
        }
        assert_eq!(reports.since(0, None), Err(Behind));
    }

    #[test]
    fn a_new_primary_hears_of_ends_that_the_former_one_may_not_have_written() {
        let reports = Reports::default();
        let end = |name: &str| {
            reports.closed(RoomClosed {
                key: key(name),
                epoch: 1,
                reason: "Ended".into(),
            });
        };
        let second = |number: u64| Timestamp::ZERO + Duration::from_secs(number);
        let names = |now| -> Vec<String> {
            let of = |item| match item {
                Item::Closed(closed) => key_of(closed.key.as_ref()).1,
                other => panic!("{other:?}"),
            };
            reports.for_new_primary(now).into_iter().map(of).collect()
        };
        end("written long ago");
        reports.told_primary(1, second(0));
        end("just told");
        reports.told_primary(2, second(40));
        end("told to nobody");
        assert_eq!(names(second(41)), ["just told", "told to nobody"]);
        assert_eq!(names(second(3_600)), ["told to nobody"]);
        reports.told_primary(3, second(3_600));
        reports.told_primary(3, second(3_700));
        assert_eq!(
            names(second(3_701)),
            Vec::<String>::new(),
            "the first time counts"
        );
    }

    #[test]
    fn events_wait_for_their_acknowledgement() {
        let reports = Reports::default();
        for seq in 1..=3 {
            reports.event(RoomEvent {
                key: key("a"),
                epoch: 1,
                seq,
                ..Default::default()
            });
        }
        assert_eq!(reports.since(0, None).expect("not behind").1.len(), 0);
        reports.acknowledge(&EventAck {
            key: key("a"),
            epoch: 1,
            seq: 2,
            ..EventAck::default()
        });
        let (_, items) = reports.since(3, Some(0)).expect("not behind");
        assert!(matches!(items.as_slice(), [Item::Event(event)] if event.seq == 3));
    }

    #[test]
    fn portions_lose_nothing() {
        let reports = Reports::default();
        for number in 0..BATCH_MAX * 2 + 7 {
            reports.room(state(&number.to_string(), 1));
        }
        let (mut version, mut seen) = (0, 0);
        loop {
            let (next, items) = reports.since(version, Some(version)).expect("not behind");
            if items.is_empty() {
                break;
            }
            seen += items.len();
            version = next;
        }
        assert_eq!(seen, BATCH_MAX * 2 + 7);
    }
}

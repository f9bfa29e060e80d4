// SPDX-License-Identifier: EUPL-1.2
//! Who waits for what. A room's change wakes those who wait for that room, a change of the directory everybody who depends on it; nobody
//! is woken by the load of a node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use control_core::ids::RoomKey;
use tokio::sync::watch;

type Waiting = Mutex<HashMap<RoomKey, watch::Sender<u64>>>;

/// See the module.
pub(super) struct News {
    rooms: Arc<Waiting>,
    directory: watch::Sender<u64>,
}

impl Default for News {
    fn default() -> Self {
        Self {
            rooms: Arc::default(),
            directory: watch::Sender::new(0),
        }
    }
}

impl News {
    pub(super) fn of_room(&self, key: &RoomKey) -> RoomNews {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let room = rooms
            .entry(key.clone())
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe();
        drop(rooms);
        RoomNews {
            rooms: Arc::clone(&self.rooms),
            key: key.clone(),
            room,
            directory: self.directory.subscribe(),
        }
    }

    pub(super) fn of_directory(&self) -> watch::Receiver<u64> {
        self.directory.subscribe()
    }

    pub(super) fn room_changed(&self, key: &RoomKey) {
        let rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = rooms.get(key) {
            room.send_modify(|version| *version = version.wrapping_add(1));
        }
    }

    pub(super) fn directory_changed(&self) {
        self.directory
            .send_modify(|version| *version = version.wrapping_add(1));
    }

    #[cfg(test)]
    fn waited_for(&self) -> usize {
        self.rooms
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

/// Changes of one room, and of the directory.
pub struct RoomNews {
    rooms: Arc<Waiting>,
    key: RoomKey,
    room: watch::Receiver<u64>,
    directory: watch::Receiver<u64>,
}

impl RoomNews {
    /// The room.
    #[must_use]
    pub fn key(&self) -> &RoomKey {
        &self.key
    }

    /// What has changed so far is known.
    pub fn seen(&mut self) {
        self.room.borrow_and_update();
        self.directory.borrow_and_update();
    }

    /// Resolves at the next change. Whether there will be further ones: not, when the plane is gone.
    pub async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.room.changed() => changed.is_ok(),
            changed = self.directory.changed() => changed.is_ok(),
        }
    }
}

impl Drop for RoomNews {
    fn drop(&mut self) {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        // Receivers are made and dropped under this lock only: the last one takes the entry along.
        if rooms
            .get(&self.key)
            .is_some_and(|room| room.receiver_count() <= 1)
        {
            rooms.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn key(name: &str) -> RoomKey {
        RoomKey::parse("t", name).expect("key")
    }

    #[test]
    fn a_change_wakes_only_those_who_wait_for_it() {
        let news = News::default();
        let (mut a, mut b) = (news.of_room(&key("a")), news.of_room(&key("b")));
        news.room_changed(&key("a"));
        news.room_changed(&key("nobody waits"));
        assert_eq!(a.changed().now_or_never(), Some(true));
        assert_eq!(b.changed().now_or_never(), None);
        news.directory_changed();
        assert_eq!(a.changed().now_or_never(), Some(true));
        assert_eq!(b.changed().now_or_never(), Some(true));
        news.room_changed(&key("a"));
        a.seen();
        assert_eq!(a.changed().now_or_never(), None, "it was known already");
    }

    #[test]
    fn the_last_one_who_waited_leaves_nothing_behind() {
        let news = News::default();
        let (first, second) = (news.of_room(&key("a")), news.of_room(&key("a")));
        drop(first);
        assert_eq!(news.waited_for(), 1);
        drop(second);
        assert_eq!(news.waited_for(), 0);
    }
}

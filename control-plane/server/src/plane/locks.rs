// SPDX-License-Identifier: EUPL-1.2
//! One placement per room at a time within a replica; between replicas the store decides.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use control_core::ids::RoomKey;
use tokio::sync::OwnedMutexGuard;

/// See the module. Holds an entry only while somebody waits or works.
#[derive(Default)]
pub(super) struct RoomLocks(Mutex<HashMap<RoomKey, Arc<tokio::sync::Mutex<()>>>>);

/// Held while a room is placed.
pub(super) struct RoomGuard<'a> {
    locks: &'a RoomLocks,
    key: RoomKey,
    guard: Option<OwnedMutexGuard<()>>,
}

impl RoomLocks {
    pub(super) async fn lock(&self, key: &RoomKey) -> RoomGuard<'_> {
        let lock = Arc::clone(
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(key.clone())
                .or_default(),
        );
        // The guard exists before the wait, so that a waiter that is dropped cleans up too.
        let mut guard = RoomGuard {
            locks: self,
            key: key.clone(),
            guard: None,
        };
        guard.guard = Some(lock.lock_owned().await);
        guard
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Drop for RoomGuard<'_> {
    fn drop(&mut self) {
        drop(self.guard.take());
        let mut locks = self.locks.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever waits holds a clone; clones are made under the map's lock only.
        if locks
            .get(&self.key)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            locks.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn locks_exclude_each_other_and_leave_nothing_behind() {
        let locks = Arc::new(RoomLocks::default());
        let key = RoomKey::parse("t", "r").expect("key");
        let inside = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (locks, key, inside) = (Arc::clone(&locks), key.clone(), Arc::clone(&inside));
            tasks.spawn(async move {
                let _guard = locks.lock(&key).await;
                assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("no two inside");
        }
        assert_eq!(locks.len(), 0);
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_leaves_nothing_behind() {
        let locks = RoomLocks::default();
        let key = RoomKey::parse("t", "r").expect("key");
        let held = locks.lock(&key).await;
        let waited =
            tokio::time::timeout(std::time::Duration::from_millis(1), locks.lock(&key)).await;
        assert!(waited.is_err());
        drop(held);
        assert_eq!(locks.len(), 0);
    }
}

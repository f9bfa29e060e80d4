// SPDX-License-Identifier: EUPL-1.2
//! Where media nodes are reached: found out by the node controller, published by the planner.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use operator_core::NodeEndpoint;
use tokio::sync::watch;

/// Endpoints by uid of the `MediaNode`.
#[derive(Clone)]
pub struct Endpoints {
    known: Arc<Mutex<BTreeMap<String, NodeEndpoint>>>,
    changed: watch::Sender<u64>,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            known: Arc::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Endpoints {
    /// A node is reached there. Capacity and drain defaults come from its pool.
    pub fn set(&self, uid: &str, endpoint: NodeEndpoint) {
        let old = self.lock().insert(uid.to_owned(), endpoint.clone());
        if old.as_ref() != Some(&endpoint) {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// A node is gone: its record is retracted.
    pub fn remove(&self, uid: &str) {
        if self.lock().remove(uid).is_some() {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Where a node is reached.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<NodeEndpoint> {
        self.lock().get(uid).cloned()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, NodeEndpoint> {
        self.lock().clone()
    }

    /// Wakes when one changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, NodeEndpoint>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

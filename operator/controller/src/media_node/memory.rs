// SPDX-License-Identifier: EUPL-1.2
//! What is remembered of a node from pass to pass. An operator that starts anew knows none of it and says its orders again.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use operator_core::media_node::{drain::MoveTimes, status::bucket};

use crate::live::Live;

/// What is remembered of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Memory {
    /// The epoch for which the control plane has stored that the node takes no rooms.
    pub(super) closed: Option<u64>,
    /// The move that the control plane has acknowledged, how many replicas there were then, and when.
    pub(super) ordered: Option<(MoveTimes, usize, Timestamp)>,
    /// When the node was last told to open again.
    pub(super) opened: Option<Timestamp>,
    /// When its load was written.
    pub(super) load_written: Option<Timestamp>,
    /// When its certificate is to be replaced.
    pub(super) certificate_due: Option<Timestamp>,
    /// The CA that it was issued by.
    pub(super) ca: Option<String>,
    /// Since when its pod is known to be gone.
    pub(super) gone_since: Option<Timestamp>,
}

/// By uid of the node.
#[derive(Debug, Default)]
pub(super) struct Memories(Mutex<HashMap<String, Memory>>);

impl Memories {
    pub(super) fn of(&self, uid: &str) -> Memory {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    pub(super) fn keep(&self, uid: &str, memory: &Memory) {
        self.lock().insert(uid.to_owned(), memory.clone());
    }

    pub(super) fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what the control plane says of a node differs in what a pass would act upon.
pub(super) fn is_news(before: &Live, now: &Live, uid: &str) -> bool {
    let brief = |live: &Live| {
        let node = live.nodes.get(uid);
        let said = node.map(|node| {
            (
                node.registered,
                node.accepting,
                bucket(node.rooms),
                bucket(node.participants),
                node.seen_at.clone(),
            )
        });
        (live.reachable, live.replicas, said)
    };
    brief(before) != brief(now)
}

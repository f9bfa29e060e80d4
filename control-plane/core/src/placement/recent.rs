// SPDX-License-Identifier: EUPL-1.2
//! What a replica itself has put on nodes since they last reported, and which ones have just refused: it corrects the live view's reports,
//! which are a second old, until the next ones come.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use crate::ids::NodeId;
use crate::quota::Usage;
use crate::time::Moment;

/// A node reports each second; after two of them its report counts what was placed.
const REMEMBERED: Duration = Duration::from_secs(2);
/// Most placements remembered; beyond that the oldest goes.
const PLACEMENTS_MAX: usize = 10_000;

/// See the module; `K` is what it is counted for, a node or, where the store is away, a tenant.
#[derive(Debug)]
pub struct Recent<K = NodeId> {
    placed: VecDeque<(Moment, K, Usage)>,
    sums: HashMap<K, Usage>,
    refused: HashMap<K, Moment>,
}

impl<K> Default for Recent<K> {
    fn default() -> Self {
        Self {
            placed: VecDeque::new(),
            sums: HashMap::new(),
            refused: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Recent<K> {
    /// Something was put on a node.
    pub fn placed(&mut self, node: K, amount: Usage, now: Moment) {
        self.forget(now);
        if self.placed.len() >= PLACEMENTS_MAX {
            self.drop_oldest();
        }
        let sum = self.sums.entry(node.clone()).or_default();
        *sum = sum.plus(amount);
        self.placed.push_back((now, node, amount));
    }

    /// A node had no room, whatever was known of it.
    pub fn refused(&mut self, node: K, now: Moment) {
        self.forget(now);
        self.refused.insert(node, now);
    }

    /// What was put on a node lately.
    #[must_use]
    pub fn on(&self, node: &K) -> Usage {
        self.sums.get(node).copied().unwrap_or_default()
    }

    /// Has it refused lately?
    #[must_use]
    pub fn has_refused(&self, node: &K) -> bool {
        self.refused.contains_key(node)
    }

    /// Drops what is old enough to be in reports.
    pub fn forget(&mut self, now: Moment) {
        let old = |at: Moment| now.since(at) >= REMEMBERED;
        while self.placed.front().is_some_and(|(at, ..)| old(*at)) {
            self.drop_oldest();
        }
        self.refused.retain(|_, at| !old(*at));
    }

    fn drop_oldest(&mut self) {
        let Some((_, node, amount)) = self.placed.pop_front() else {
            return;
        };
        if let Some(sum) = self.sums.get_mut(&node) {
            *sum = sum.minus(amount);
            if *sum == Usage::default() {
                self.sums.remove(&node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements_count_until_reports_have_them() {
        let node = NodeId::parse("n1").expect("node id");
        let mut recent = Recent::default();
        let at = Moment::from_millis;
        recent.placed(node.clone(), Usage::of_join(true, 3), at(1_000));
        recent.placed(node.clone(), Usage::of_join(false, 1), at(2_000));
        recent.refused(node.clone(), at(2_500));
        assert_eq!(recent.on(&node), Usage::of_join(true, 4));
        recent.forget(at(3_000));
        assert_eq!(recent.on(&node), Usage::of_join(false, 1));
        assert!(recent.has_refused(&node));
        recent.forget(at(4_500));
        assert_eq!(recent.on(&node), Usage::default());
        assert!(!recent.has_refused(&node));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let node = NodeId::parse("n1").expect("node id");
        let mut recent = Recent::default();
        for _ in 0..PLACEMENTS_MAX + 5 {
            recent.placed(node.clone(), Usage::of_join(true, 0), Moment::ZERO);
        }
        assert_eq!(recent.on(&node).rooms as usize, PLACEMENTS_MAX);
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! What was written and is not seen yet. A watch is behind what its own process did; whoever decides again before it caught up would make
//! the same node twice, or ask a second one to go.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use operator_core::{
    Name,
    media_pool::{
        autoscale::{Decision, History},
        plan::NodeState,
    },
};
use plenum_api::media_node::DrainReason;
use tokio::sync::watch;

/// By pool. Pools are few, and what is remembered of one is bounded by what one pass does.
pub(super) struct Memory {
    pools: Mutex<BTreeMap<Name, Remembered>>,
    /// Counts decisions that differ from the one before.
    decisions: watch::Sender<u64>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            pools: Mutex::default(),
            decisions: watch::Sender::new(0),
        }
    }
}

#[derive(Default)]
struct Remembered {
    /// Whether the nodes were read past all caches since the lease was taken: the leader before may have made some.
    listed: bool,
    /// Nodes made, or perhaps made, that no watch has shown.
    made: BTreeMap<String, (Timestamp, NodeState)>,
    /// Nodes asked to go, or to stay (`None`), where no watch has shown it.
    asked: BTreeMap<String, (Timestamp, Option<DrainReason>)>,
    /// NodePorts that belong to somebody else.
    strange_ports: BTreeMap<u16, Timestamp>,
    /// Whether there may be Services; unknown at first.
    no_services: bool,
    usage_written: Option<Timestamp>,
    /// Budgets of others over the pool's pods, and when they were looked for.
    foreign_budgets: Option<(Timestamp, Option<Vec<String>>)>,
    decision: Option<Decision>,
    history: History,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Remembered>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, pool: &Name, change: impl FnOnce(&mut Remembered) -> T) -> T {
        change(self.lock().entry(pool.clone()).or_default())
    }

    pub(super) fn forget(&self, pool: &Name) {
        self.lock().remove(pool);
    }

    pub(super) fn is_listed(&self, pool: &Name) -> bool {
        self.with(pool, |of| of.listed)
    }

    pub(super) fn listed(&self, pool: &Name) {
        self.with(pool, |of| of.listed = true);
    }

    pub(super) fn made(&self, pool: &Name, node: NodeState, now: Timestamp) {
        self.with(pool, |of| of.made.insert(node.name.clone(), (now, node)));
    }

    pub(super) fn not_made(&self, pool: &Name, node: &str) {
        self.with(pool, |of| of.made.remove(node));
    }

    pub(super) fn asked(
        &self,
        pool: &Name,
        node: &str,
        drain: Option<DrainReason>,
        now: Timestamp,
    ) {
        self.with(pool, |of| of.asked.insert(node.to_owned(), (now, drain)));
    }

    /// Brings what the watches show up to what was written; nodes they do not show yet are added.
    pub(super) fn complete(&self, pool: &Name, seen: &mut Vec<NodeState>, now: Timestamp) {
        self.with(pool, |of| {
            of.made.retain(|name, (at, _)| {
                now.duration_since(*at) < UNSEEN_MAX && !seen.iter().any(|node| node.name == *name)
            });
            of.asked.retain(|name, (at, drain)| {
                let shown = seen.iter().find(|node| node.name == *name);
                now.duration_since(*at) < UNSEEN_MAX
                    && shown.is_some_and(|node| node.drain.is_some() != drain.is_some())
            });
            for node in seen.iter_mut() {
                if let Some((_, drain)) = of.asked.get(&node.name) {
                    node.drain = *drain;
                }
            }
            seen.extend(of.made.values().map(|(_, node)| node.clone()));
        });
    }

    /// Nodes that no watch has shown, of all pools.
    pub(super) fn unseen(&self) -> Vec<NodeState> {
        let all = self.lock();
        all.values()
            .flat_map(|of| of.made.values())
            .map(|(_, node)| node.clone())
            .collect()
    }

    pub(super) fn strange_port(&self, pool: &Name, port: u16, now: Timestamp) {
        self.with(pool, |of| of.strange_ports.insert(port, now));
    }

    /// NodePorts that belonged to others a while ago; at most as many as the range has, because only those were tried.
    pub(super) fn strange_ports(&self, pool: &Name, now: Timestamp) -> Vec<u16> {
        self.with(pool, |of| {
            of.strange_ports
                .retain(|_, at| now.duration_since(*at) < STRANGE_FOR);
            of.strange_ports.keys().copied().collect()
        })
    }

    pub(super) fn may_have_services(&self, pool: &Name) -> bool {
        self.with(pool, |of| !of.no_services)
    }

    pub(super) fn has_services(&self, pool: &Name, some: bool) {
        self.with(pool, |of| of.no_services = !some);
    }

    /// Whether numbers of load may be written; if so, not again for a while.
    pub(super) fn may_write_usage(&self, pool: &Name, now: Timestamp) -> bool {
        self.with(pool, |of| {
            let early = of
                .usage_written
                .is_some_and(|at| now.duration_since(at) < USAGE_EVERY);
            if !early {
                of.usage_written = Some(now);
            }
            !early
        })
    }

    /// What was found a moment ago; `None` where it is time to look again.
    pub(super) fn foreign_budgets(
        &self,
        pool: &Name,
        now: Timestamp,
    ) -> Option<Option<Vec<String>>> {
        self.with(pool, |of| {
            let (at, found) = of.foreign_budgets.clone()?;
            let foreign = found.as_ref().is_some_and(|names| !names.is_empty());
            let age = now.duration_since(at);
            let fresh = age < BUDGETS_EVERY && !(foreign && age.unsigned_abs() >= FOREIGN_EVERY);
            fresh.then_some(found)
        })
    }

    pub(super) fn found_budgets(&self, pool: &Name, now: Timestamp, found: Option<Vec<String>>) {
        self.with(pool, |of| of.foreign_budgets = Some((now, found)));
    }

    pub(super) fn decision(&self, pool: &Name) -> Option<Decision> {
        self.with(pool, |of| of.decision)
    }

    /// Another number, or that none is decided here, has the pools looked at again.
    pub(super) fn decided(&self, pool: &Name, decision: Option<Decision>) {
        let number = |decision: Option<Decision>| decision.map(|decision| decision.desired);
        let before = self.with(pool, |of| std::mem::replace(&mut of.decision, decision));
        if number(before) != number(decision) {
            self.decisions.send_modify(|count| *count += 1);
        }
    }

    /// Wakes when another number was decided.
    pub(super) fn decisions(&self) -> watch::Receiver<u64> {
        self.decisions.subscribe()
    }

    /// Decides with the pool's history, and adds to it.
    pub(super) fn decide(
        &self,
        pool: &Name,
        stabilization: SignedDuration,
        now: Timestamp,
        decide: impl FnOnce(&History) -> Decision,
    ) -> Decision {
        self.with(pool, |of| {
            let decision = decide(&of.history);
            of.history.record(decision.asked, stabilization, now);
            decision
        })
    }
}

/// A watch that is further behind than this is broken, and its next listing shows what there is.
const UNSEEN_MAX: SignedDuration = SignedDuration::from_secs(120);
/// How often budgets of others are looked for: a list of the namespace each time.
const BUDGETS_EVERY: SignedDuration = SignedDuration::from_secs(60);
/// The same while some were found.
pub(super) const FOREIGN_EVERY: Duration = Duration::from_secs(10);
const USAGE_EVERY: SignedDuration = SignedDuration::from_secs(30);
/// Others give ports back as well.
const STRANGE_FOR: SignedDuration = SignedDuration::from_mins(10);

// SPDX-License-Identifier: EUPL-1.2
//! The lists of nodes that are offered to the store, one after another.

use std::collections::BTreeMap;
use std::sync::Arc;

use control_core::directory::DirectoryView;
use control_core::ids::{NodeId, Uid};
use control_core::placement::{
    Candidate, Hold, NoNode, Question, Recent, Shortlist, Strategy, Unfit, Wish, plan_join, tally,
};
use control_core::record::{Conference, Tenant};

use super::candidates::random;
use super::state::Snapshot;
use crate::plane::{PlaceError, Plane};
use crate::store::Choice;

/// What has been tried for a room.
pub(super) struct Tries {
    /// Nodes that refused, with what they said.
    pub(super) refused: BTreeMap<Uid, Unfit>,
    /// Round trips of the store that are left.
    pub(super) trips: u32,
    /// The node that holds capacity for the room; `None` = not asked yet.
    pub(super) held: Option<Option<NodeId>>,
    pub(super) lists: u32,
}

impl Tries {
    pub(super) const fn new(trips: u32) -> Self {
        Self {
            refused: BTreeMap::new(),
            trips,
            held: None,
            lists: 0,
        }
    }
}

/// What is asked of nodes.
pub(super) struct Asks {
    pub(super) wish: Wish,
    pub(super) strategy: Strategy,
}

impl Asks {
    /// For capacity that is held.
    pub(super) fn of_hold(
        view: &DirectoryView,
        tenant: &Tenant,
        conference: Option<&Conference>,
        hold: &Hold,
    ) -> Self {
        let pool = conference.and_then(|conference| conference.pool.as_ref());
        Self {
            wish: Wish::of(
                tenant,
                conference,
                view.pools_for(tenant, pool),
                hold.amount,
            ),
            strategy: hold.strategy,
        }
    }

    fn question<'a>(&'a self, tries: &'a Tries, recent: &'a Recent, seed: u64) -> Question<'a> {
        Question {
            wish: &self.wish,
            strategy: self.strategy,
            held: tries.held.as_ref().and_then(Option::as_ref),
            refused: &tries.refused,
            recent,
            seed,
        }
    }
}

/// Nodes as the store is offered them.
pub(super) struct List {
    pub(super) choices: Vec<Choice>,
    pub(super) strategy: Strategy,
    pub(super) nodes: Vec<(Uid, NodeId)>,
}

impl List {
    fn of(list: Shortlist<'_>) -> Self {
        let choice = |candidate: &&Candidate| Choice {
            site: candidate.site.clone(),
            node: candidate.node.clone(),
            capacity: candidate.capacity,
        };
        let names = |candidate: &&Candidate| (candidate.uid.clone(), candidate.node.clone());
        Self {
            choices: list.choices.iter().map(choice).collect(),
            nodes: list.choices.iter().map(names).collect(),
            strategy: list.strategy,
        }
    }
}

impl Plane {
    /// Nodes to offer next.
    pub(super) fn list(
        &self,
        view: &Arc<DirectoryView>,
        asks: &Asks,
        tries: &Tries,
    ) -> Result<List, PlaceError> {
        let seed = random()?;
        let of = |snapshot: &Snapshot| {
            let mut recent = self.0.placing.recent();
            recent.forget(self.0.clock.now());
            plan_join(&asks.question(tries, &recent, seed), &snapshot.candidates).map(List::of)
        };
        let first = of(&self.candidates(view, false));
        // Nodes that came or changed a moment ago.
        Ok(first.or_else(|_| of(&self.candidates(view, true)))?)
    }

    /// The nodes of a list refused.
    pub(super) fn remember_refused(
        &self,
        tries: &mut Tries,
        nodes: Vec<(Uid, NodeId)>,
        unfit: Unfit,
    ) {
        let now = self.0.clock.now();
        let mut recent = self.0.placing.recent();
        for (uid, node) in nodes {
            recent.refused(node, now);
            tries.refused.insert(uid, unfit);
        }
    }

    /// Why no node took the room.
    pub(super) fn tally(&self, view: &Arc<DirectoryView>, asks: &Asks, tries: &Tries) -> NoNode {
        let recent = Recent::default();
        let snapshot = self.candidates(view, true);
        tally(&asks.question(tries, &recent, 0), &snapshot.candidates)
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! Where a room is, as far as the live view and the store know.

use std::time::Duration;

use control_core::ids::{NodeId, RoomKey};
use control_core::lease::Standing;

use crate::hosts::Host;
use crate::live::LiveNode;
use crate::plane::{PlaceError, Placed, Plane};
use crate::store::{ReportOutcome, RoomRecord, RoomReport};

/// A lease as young as this may belong to a room that is being opened at this moment.
const OPENING: Duration = Duration::from_secs(10);

/// What is known of a room before it is placed.
pub(super) enum Known {
    /// It runs.
    Runs(Placed),
    /// Its node has the lease and may be opening it; opening it again is harmless.
    Opening(Box<RoomRecord>, Host),
    /// Nobody has it; what is kept of it, if anything.
    Free(Option<Box<RoomRecord>>),
}

impl Plane {
    /// A room that runs, if its node can be asked.
    pub(super) fn running(&self, key: &RoomKey) -> Result<Option<Placed>, PlaceError> {
        let live = self.live();
        let Some((uid, node, entry)) = live.room(key) else {
            return Ok(None);
        };
        if node.standing != Standing::Alive {
            return Err(PlaceError::NodeSilent(key.clone()));
        }
        self.placed(key, uid, node, entry.epoch)
            .map(Some)
            .ok_or_else(|| PlaceError::NodeSilent(key.clone()))
    }

    pub(super) async fn known(&self, key: &RoomKey) -> Result<Known, PlaceError> {
        if let Some(placed) = self.running(key)? {
            return Ok(Known::Runs(placed));
        }
        let record = match self.twice(|store| store.room(key.clone())).await {
            Ok(record) => record,
            Err(error) => {
                self.store_failed(error);
                let live = self.live();
                // Begun here once more, it would have the higher epoch, and everybody would be moved to it.
                if live
                    .lost_room(key)
                    .is_some_and(|lost| lost.runs_elsewhere(self.0.clock.now()))
                {
                    return Err(PlaceError::Settling(key.clone()));
                }
                None
            }
        };
        self.judge_record(key, record.map(Box::new)).await
    }

    /// What is known of a room whose record was read at this moment.
    pub(super) async fn judge_record(
        &self,
        key: &RoomKey,
        record: Option<Box<RoomRecord>>,
    ) -> Result<Known, PlaceError> {
        let known = self.known_by_own_view(key, record)?;
        // What this replica alone does not hear may be heard by others: its lease says so.
        if let Known::Free(Some(record)) = &known
            && !self.hears(&record.lease.node)
            && self.is_held(&record.lease.node).await
        {
            return Err(PlaceError::NodeSilent(key.clone()));
        }
        Ok(match known {
            Known::Free(Some(record)) => {
                Known::Free(Some(self.brought_up_to_date(key, record).await))
            }
            known => known,
        })
    }

    /// What a lost room told last may not have reached the store: it was away, or whoever wrote it was lost together with the node. It is
    /// written now, so that the room comes back as it was for everybody.
    async fn brought_up_to_date(
        &self,
        key: &RoomKey,
        mut record: Box<RoomRecord>,
    ) -> Box<RoomRecord> {
        let newer = self.live().lost_room(key).and_then(|lost| {
            let same = lost.node == record.lease.node && lost.entry.epoch == record.lease.epoch;
            (same && lost.fresh && lost.entry.facts != record.facts)
                .then(|| lost.entry.facts.clone())
        });
        let Some(facts) = newer else {
            return record;
        };
        let report = RoomReport {
            key: key.clone(),
            lease: record.lease.clone(),
            participants: 0,
            publishers: 0,
            facts: facts.clone(),
            policy: None,
        };
        match self.0.store.report_room(report).await {
            Ok(ReportOutcome::Taken) => record.facts = facts,
            // Somebody has the room already, with what is known there.
            Ok(ReportOutcome::Fenced(_)) => {}
            Err(error) => self.store_failed(error),
        }
        record
    }

    fn hears(&self, node: &NodeId) -> bool {
        self.live()
            .node_by_id(node)
            .is_some_and(|(_, node)| node.standing == Standing::Alive)
    }

    async fn is_held(&self, node: &NodeId) -> bool {
        match self.0.store.node(node.clone()).await {
            Ok(lease) => lease.is_some(),
            Err(error) => {
                self.store_failed(error);
                false
            }
        }
    }

    fn known_by_own_view(
        &self,
        key: &RoomKey,
        record: Option<Box<RoomRecord>>,
    ) -> Result<Known, PlaceError> {
        if let Some(placed) = self.running(key)? {
            return Ok(Known::Runs(placed));
        }
        let Some(record) = record else {
            // A room that nobody knows may run on a node that has not reported yet.
            if self.settling() {
                return Err(PlaceError::Settling(key.clone()));
            }
            return Ok(Known::Free(None));
        };
        let live = self.live();
        // This very lease was reported lost, or a later one.
        if live.lost_room(key).is_some_and(|lost| {
            lost.entry.epoch > record.lease.epoch
                || (lost.entry.epoch == record.lease.epoch && lost.node == record.lease.node)
        }) {
            return Ok(Known::Free(Some(record)));
        }
        match live.node_by_id(&record.lease.node) {
            Some((uid, node))
                if node.standing == Standing::Alive && node.synced && record.age < OPENING =>
            {
                let host = self
                    .placed(key, uid, node, record.lease.epoch)
                    .map(|placed| placed.host);
                drop(live);
                match host {
                    Some(host) => Ok(Known::Opening(record, host)),
                    None => Err(PlaceError::NodeSilent(key.clone())),
                }
            }
            // Heard, all rooms named, and this one is not among them: it is gone.
            Some((_, node)) if node.standing == Standing::Alive && node.synced => {
                Ok(Known::Free(Some(record)))
            }
            Some((_, node)) if node.standing == Standing::Dead => Ok(Known::Free(Some(record))),
            Some(_) => Err(PlaceError::NodeSilent(key.clone())),
            None => {
                drop(live);
                if self.settling() {
                    Err(PlaceError::Settling(key.clone()))
                } else {
                    Ok(Known::Free(Some(record)))
                }
            }
        }
    }

    /// Less than a lease has passed since the start, a stop or the store's return, and not all published nodes have named their rooms.
    pub(in crate::plane) fn settling(&self) -> bool {
        let all_reported = || {
            let view = self.view();
            let live = self.live();
            view.nodes()
                .all(|node| live.node(&node.uid).is_some_and(LiveNode::has_reported))
        };
        self.grace().lasts(all_reported, self.0.clock.now())
    }
}

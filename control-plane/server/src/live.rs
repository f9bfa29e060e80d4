// SPDX-License-Identifier: EUPL-1.2
//! The live view: which nodes are heard and which rooms run on them, from the nodes' own reports.
//!
//! Plain state with time as an argument. It survives a lost store: what nodes report is true whatever the store says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use control_core::ids::{Epoch, NodeId, RoomKey, Site, Uid};
use control_core::lease::{
    Claim, LeaseWitness, Silence, Standing, Witnesses, compare_claims, standing,
};
use control_core::limits;
use control_core::record::RoomFacts;
use control_core::time::Moment;

#[cfg(test)]
mod tests;

/// Rooms that one node may report; beyond its own limit something is wrong with it.
pub const ROOMS_PER_NODE_MAX: usize = 10_000;
/// Rooms that wait to be placed anew.
pub const LOST_MAX: usize = 100_000;

/// One Attach stream of a node; a later one pushes an earlier one out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment(u64);

/// What a node says first, and again when that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Short id by the facts it has; `None` before it has any.
    pub node_id: Option<NodeId>,
    /// Site by the facts it has.
    pub site: Option<Site>,
    /// Epoch of the facts it has.
    pub epoch: Epoch,
    /// Where its RoomHost listens.
    pub endpoint: String,
    /// Its version.
    pub version: String,
    /// Is this replica the one that writes its lease?
    pub primary: bool,
}

/// Load of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Does the node itself take rooms?
    pub accepting: bool,
    /// Rooms.
    pub rooms: u32,
    /// Participants.
    pub participants: u32,
    /// Egress, bits per second.
    pub egress_bps: u64,
    /// Packets dropped since its start.
    pub dropped_packets: u64,
}

/// A node that has been heard since this replica started.
#[derive(Clone, Debug)]
pub struct LiveNode {
    /// What it said.
    pub hello: Hello,
    /// Its load; `None` until the first report of the present stream.
    pub load: Option<Load>,
    /// Has it named all its rooms on the present stream?
    pub synced: bool,
    /// Standing.
    pub standing: Standing,
    attachment: Option<Attachment>,
    named: BTreeSet<RoomKey>,
    silence: Silence,
    redials_failed: u32,
}

/// A room as one node reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Lease.
    pub epoch: Epoch,
    /// People in it.
    pub participants: u32,
    /// Who publish.
    pub publishers: u32,
    /// People at its door.
    pub lobby: u32,
    /// Facts.
    pub facts: RoomFacts,
    /// Revision of the rules it runs by.
    pub policy_revision: String,
}

/// A room whose node was lost, or gave it up; to be placed anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Site of the node that had it.
    pub site: Site,
    /// The node that had it.
    pub node: NodeId,
    /// What it was.
    pub entry: Entry,
    /// Since when.
    pub since: Moment,
}

/// A node that must end its room because a better claim is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loser {
    /// Whose.
    pub uid: Uid,
    /// Epochs below this one end.
    pub epoch_below: Epoch,
}

/// Why a report is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportRefusal {
    /// A later stream of the node took over.
    #[error("a later stream of this node took over")]
    Superseded,
    /// It reports a room without having facts.
    #[error("a node without facts has no rooms")]
    NoFacts,
    /// Too many rooms.
    #[error("a node reports at most {ROOMS_PER_NODE_MAX} rooms")]
    TooManyRooms,
}

/// See the module.
#[derive(Debug, Default)]
pub struct LiveView {
    nodes: BTreeMap<Uid, LiveNode>,
    by_id: BTreeMap<NodeId, Uid>,
    rooms: BTreeMap<RoomKey, BTreeMap<Uid, Entry>>,
    per_node: BTreeMap<Uid, usize>,
    lost: BTreeMap<RoomKey, Lost>,
    attachments: u64,
}

impl LiveView {
    /// A node that was heard.
    #[must_use]
    pub fn node(&self, uid: &Uid) -> Option<&LiveNode> {
        self.nodes.get(uid)
    }

    /// All nodes that were heard.
    pub fn nodes(&self) -> impl Iterator<Item = (&Uid, &LiveNode)> {
        self.nodes.iter()
    }

    /// A node by its short id.
    #[must_use]
    pub fn node_by_id(&self, id: &NodeId) -> Option<(&Uid, &LiveNode)> {
        self.nodes.get_key_value(self.by_id.get(id)?)
    }

    /// Where a room runs, by the best claim.
    #[must_use]
    pub fn room(&self, key: &RoomKey) -> Option<(&Uid, &LiveNode, &Entry)> {
        self.best(self.rooms.get(key)?)
    }

    /// Rooms that run, with their best claim, from `first` on.
    pub fn rooms_from<'a>(
        &'a self,
        first: &RoomKey,
    ) -> impl Iterator<Item = (&'a RoomKey, &'a LiveNode, &'a Entry)> {
        self.rooms
            .range(first.clone()..)
            .filter_map(|(key, claims)| {
                let (_, node, entry) = self.best(claims)?;
                Some((key, node, entry))
            })
    }

    /// All rooms that run.
    pub fn rooms(&self) -> impl Iterator<Item = (&RoomKey, &LiveNode, &Entry)> {
        self.rooms.iter().filter_map(|(key, claims)| {
            let (_, node, entry) = self.best(claims)?;
            Some((key, node, entry))
        })
    }

    /// Rooms that one node reports.
    #[must_use]
    pub fn rooms_of(&self, uid: &Uid) -> Vec<(RoomKey, Entry)> {
        let own = |(key, claims): (&RoomKey, &BTreeMap<Uid, Entry>)| {
            Some((key.clone(), claims.get(uid)?.clone()))
        };
        self.rooms.iter().filter_map(own).collect()
    }

    /// A room that waits to be placed anew.
    #[must_use]
    pub fn lost_room(&self, key: &RoomKey) -> Option<&Lost> {
        self.lost.get(key)
    }

    /// Rooms that wait to be placed anew.
    #[must_use]
    pub fn lost_rooms(&self) -> Vec<(RoomKey, Lost)> {
        self.lost
            .iter()
            .map(|(key, lost)| (key.clone(), lost.clone()))
            .collect()
    }

    /// A room does not wait any more.
    pub fn forget_lost(&mut self, key: &RoomKey) {
        self.lost.remove(key);
    }

    /// Highest epoch that a node reports of a room.
    #[must_use]
    pub fn reported_epoch(&self, key: &RoomKey) -> Option<Epoch> {
        let running = self
            .rooms
            .get(key)
            .and_then(|claims| claims.values().map(|entry| entry.epoch).max());
        running.max(self.lost.get(key).map(|lost| lost.entry.epoch))
    }

    fn best<'a>(
        &'a self,
        claims: &'a BTreeMap<Uid, Entry>,
    ) -> Option<(&'a Uid, &'a LiveNode, &'a Entry)> {
        claims
            .iter()
            .filter_map(|(uid, entry)| Some((uid, self.nodes.get(uid)?, entry)))
            .max_by(|a, b| match (claim(a.1, a.2), claim(b.1, b.2)) {
                (Some(a), Some(b)) => compare_claims(&a, &b),
                (a, b) => a.is_some().cmp(&b.is_some()),
            })
    }

    /// A node began a stream.
    pub fn attach(&mut self, uid: &Uid, hello: Hello) -> Attachment {
        self.attachments += 1;
        let attachment = Attachment(self.attachments);
        let before = self.nodes.remove(uid);
        if let Some(id) = before.as_ref().and_then(|node| node.hello.node_id.as_ref()) {
            self.by_id.remove(id);
        }
        // A process that starts anew has no facts yet; what it was known as still tells who had its rooms.
        let known_as = before.map(|node| (node.hello.node_id, node.hello.site));
        let (known_id, known_site) = known_as.unwrap_or_default();
        let hello = Hello {
            node_id: hello.node_id.or(known_id),
            site: hello.site.or(known_site),
            ..hello
        };
        if let Some(id) = &hello.node_id {
            self.by_id.insert(id.clone(), uid.clone());
        }
        let node = LiveNode {
            hello,
            load: None,
            synced: false,
            standing: Standing::Alive,
            attachment: Some(attachment),
            named: BTreeSet::new(),
            silence: Silence::default(),
            redials_failed: 0,
        };
        self.nodes.insert(uid.clone(), node);
        attachment
    }

    /// Every word of a node passes here first.
    fn hear(&mut self, uid: &Uid, attachment: Attachment) -> Result<&mut LiveNode, ReportRefusal> {
        let node = self
            .nodes
            .get_mut(uid)
            .filter(|node| node.attachment == Some(attachment));
        let node = node.ok_or(ReportRefusal::Superseded)?;
        node.silence.heard();
        node.redials_failed = 0;
        node.standing = Standing::Alive;
        Ok(node)
    }

    /// A node says again who it is. Whether this replica became its primary.
    ///
    /// # Errors
    /// [`ReportRefusal`].
    pub fn hello(
        &mut self,
        uid: &Uid,
        attachment: Attachment,
        hello: Hello,
    ) -> Result<bool, ReportRefusal> {
        let node = self.hear(uid, attachment)?;
        let became_primary = hello.primary && !node.hello.primary;
        let old = node.hello.node_id.clone();
        let new = hello.node_id.clone();
        node.hello = hello;
        if let Some(old) = old.filter(|old| Some(old) != new.as_ref()) {
            self.by_id.remove(&old);
        }
        if let Some(new) = new {
            self.by_id.insert(new, uid.clone());
        }
        Ok(became_primary)
    }

    /// A node reports its load.
    ///
    /// # Errors
    /// [`ReportRefusal`].
    pub fn load(
        &mut self,
        uid: &Uid,
        attachment: Attachment,
        load: Load,
    ) -> Result<&LiveNode, ReportRefusal> {
        let node = self.hear(uid, attachment)?;
        node.load = Some(load);
        Ok(node)
    }

    /// A node reports a room. Who has to end its own because a better claim is known.
    ///
    /// # Errors
    /// [`ReportRefusal`].
    pub fn report(
        &mut self,
        uid: &Uid,
        attachment: Attachment,
        key: &RoomKey,
        entry: Entry,
    ) -> Result<Vec<Loser>, ReportRefusal> {
        let node = self.hear(uid, attachment)?;
        if node.hello.node_id.is_none() || node.hello.site.is_none() {
            return Err(ReportRefusal::NoFacts);
        }
        if !node.synced {
            node.named.insert(key.clone());
        }
        let count = self.per_node.entry(uid.clone()).or_default();
        let claims = self.rooms.entry(key.clone()).or_default();
        if !claims.contains_key(uid) {
            if *count >= ROOMS_PER_NODE_MAX {
                if claims.is_empty() {
                    self.rooms.remove(key);
                }
                return Err(ReportRefusal::TooManyRooms);
            }
            *count += 1;
        }
        let epoch = entry.epoch;
        claims.insert(uid.clone(), entry);
        if self
            .lost
            .get(key)
            .is_some_and(|lost| lost.entry.epoch <= epoch)
        {
            self.lost.remove(key);
        }
        Ok(self.losers(key))
    }

    fn losers(&self, key: &RoomKey) -> Vec<Loser> {
        let Some(claims) = self.rooms.get(key).filter(|claims| claims.len() > 1) else {
            return Vec::new();
        };
        let Some((winner, _, best)) = self.best(claims) else {
            return Vec::new();
        };
        claims
            .iter()
            .filter(|(uid, _)| *uid != winner)
            // Equal epochs: the loser's own epoch has to go too.
            .map(|(uid, entry)| Loser {
                uid: uid.clone(),
                epoch_below: best.epoch.max(Epoch(entry.epoch.0.saturating_add(1))),
            })
            .collect()
    }

    /// A node says that a room ended. The room's entry, if that very lease was known.
    ///
    /// # Errors
    /// [`ReportRefusal`].
    pub fn closed(
        &mut self,
        uid: &Uid,
        attachment: Attachment,
        key: &RoomKey,
        epoch: Epoch,
    ) -> Result<Option<Entry>, ReportRefusal> {
        self.hear(uid, attachment)?;
        let known = self
            .rooms
            .get(key)
            .and_then(|claims| claims.get(uid))
            .is_some_and(|entry| entry.epoch <= epoch);
        Ok(if known { self.remove(uid, key) } else { None })
    }

    fn remove(&mut self, uid: &Uid, key: &RoomKey) -> Option<Entry> {
        let claims = self.rooms.get_mut(key)?;
        let entry = claims.remove(uid)?;
        if claims.is_empty() {
            self.rooms.remove(key);
        }
        if let Some(count) = self.per_node.get_mut(uid) {
            *count = count.saturating_sub(1);
        }
        Some(entry)
    }

    /// A node has named all its rooms. What it had before and did not name is lost.
    ///
    /// # Errors
    /// [`ReportRefusal`].
    pub fn end_of_rooms(
        &mut self,
        uid: &Uid,
        attachment: Attachment,
        now: Moment,
    ) -> Result<Vec<RoomKey>, ReportRefusal> {
        let node = self.hear(uid, attachment)?;
        node.synced = true;
        let named = std::mem::take(&mut node.named);
        let gone: Vec<RoomKey> = self
            .rooms_of(uid)
            .into_iter()
            .map(|(key, _)| key)
            .filter(|key| !named.contains(key))
            .collect();
        for key in &gone {
            self.lose(uid, key, now);
        }
        Ok(gone)
    }

    /// A room is not on its node any more and has to be placed anew, unless another node has it.
    pub fn lose(&mut self, uid: &Uid, key: &RoomKey, now: Moment) {
        let Some(entry) = self.remove(uid, key) else {
            return;
        };
        self.mark_lost(uid, key, entry, now);
    }

    /// As [`Self::lose`], for an entry that was removed already.
    pub fn mark_lost(&mut self, uid: &Uid, key: &RoomKey, entry: Entry, now: Moment) {
        let Some(node) = self.nodes.get(uid) else {
            return;
        };
        let (Some(id), Some(site)) = (node.hello.node_id.clone(), node.hello.site.clone()) else {
            return;
        };
        if self.rooms.contains_key(key) || self.lost.len() >= LOST_MAX {
            return;
        }
        self.lost.insert(
            key.clone(),
            Lost {
                site,
                node: id,
                entry,
                since: now,
            },
        );
    }

    /// A stream ended. The node keeps its rooms until it is dead or comes back without them.
    pub fn detach(&mut self, uid: &Uid, attachment: Attachment) -> bool {
        match self.nodes.get_mut(uid) {
            Some(node) if node.attachment == Some(attachment) => {
                node.attachment = None;
                true
            }
            _ => false,
        }
    }

    /// Whether a node has a stream to this replica.
    #[must_use]
    pub fn is_attached(&self, uid: &Uid) -> bool {
        self.nodes
            .get(uid)
            .is_some_and(|node| node.attachment.is_some())
    }

    /// A tick passed. Nodes that are silent for long enough to be dialled, with their endpoints.
    pub fn tick(&mut self, since_last_tick: Duration) -> Vec<(Uid, String)> {
        let mut silent = Vec::new();
        for (uid, node) in &mut self.nodes {
            node.silence.tick(since_last_tick);
            if node.silence.span() >= limits::SUSPECT_AFTER && node.standing != Standing::Dead {
                node.standing = Standing::Suspect;
                silent.push((uid.clone(), node.hello.endpoint.clone()));
            }
        }
        silent
    }

    /// A silent node was dialled.
    pub fn redialled(&mut self, uid: &Uid, answered: bool) {
        if let Some(node) = self.nodes.get_mut(uid) {
            node.redials_failed = if answered {
                0
            } else {
                node.redials_failed.saturating_add(1)
            };
        }
    }

    /// Decides about a silent node. Its rooms, if it is dead from now on.
    pub fn judge(
        &mut self,
        uid: &Uid,
        lease: LeaseWitness,
        in_grace: bool,
        now: Moment,
    ) -> Option<Vec<RoomKey>> {
        let node = self.nodes.get_mut(uid)?;
        if node.standing == Standing::Dead {
            return None;
        }
        let witnesses = Witnesses {
            silence: node.silence,
            redials_failed: node.redials_failed,
            lease,
            in_grace,
        };
        node.standing = standing(witnesses);
        if node.standing != Standing::Dead {
            return None;
        }
        node.attachment = None;
        node.synced = false;
        node.load = None;
        let rooms: Vec<RoomKey> = self.rooms_of(uid).into_iter().map(|(key, _)| key).collect();
        for key in &rooms {
            self.lose(uid, key, now);
        }
        Some(rooms)
    }

    /// The operator does not know a node any more: a silent one is forgotten.
    pub fn forget(&mut self, uid: &Uid, now: Moment) -> Vec<RoomKey> {
        let rooms: Vec<RoomKey> = self.rooms_of(uid).into_iter().map(|(key, _)| key).collect();
        for key in &rooms {
            self.lose(uid, key, now);
        }
        if let Some(node) = self.nodes.remove(uid)
            && let Some(id) = node.hello.node_id
        {
            self.by_id.remove(&id);
        }
        self.per_node.remove(uid);
        rooms
    }
}

fn claim(node: &LiveNode, entry: &Entry) -> Option<Claim> {
    Some(Claim {
        epoch: entry.epoch,
        participants: entry.participants,
        node: node.hello.node_id.clone()?,
    })
}

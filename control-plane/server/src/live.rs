// SPDX-License-Identifier: EUPL-1.2
//! The live view: which nodes are heard and which rooms run on them, from the nodes' own reports.
//!
//! Plain state with time as an argument. It survives a lost store: what nodes report is true whatever the store says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use control_core::ids::{Epoch, NodeId, RoomKey, Site, TenantName, Uid};
use control_core::lease::{
    self, Dialled, Dials, LeaseLooks, LeaseWitness, Silence, Standing, Witnesses, own_witness,
    standing,
};
use control_core::limits;
use control_core::time::Moment;

mod claims;
mod lost;
#[cfg(test)]
mod tests;

pub use claims::{Entry, Loser, Totals};
pub use lost::{LOST_MAX, Lost};

use claims::Rooms;
use lost::LostRooms;

/// What a node told before a silence of this length is as good as what anybody heard of it: it is dead by then for everyone.
const FRESH: Duration = Duration::from_secs(10);
/// Rooms that one node may report; beyond its own limit something is wrong with it.
pub const ROOMS_PER_NODE_MAX: usize = 10_000;

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
    /// Where STUN servers see it over IPv4.
    pub seen_at_v4: Option<Ipv4Addr>,
    /// Where STUN servers see it over IPv6.
    pub seen_at_v6: Option<Ipv6Addr>,
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
    /// How long it had been silent here before its present stream.
    silent_before: Duration,
    dials: Dials,
    looks: LeaseLooks,
    /// Is it being dialled?
    dialling: bool,
    /// Has it said anything since everybody was asked to?
    heard: bool,
}

impl LiveNode {
    /// Is what it has told complete and of the present?
    #[must_use]
    pub const fn has_reported(&self) -> bool {
        self.synced && self.heard
    }
}

/// A node to be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silent {
    /// Who.
    pub uid: Uid,
    /// Where.
    pub endpoint: String,
    /// For how long it has been silent.
    pub silence: Duration,
    /// The wake of this process after which that was observed.
    pub wake: u64,
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
    rooms: Rooms,
    lost: LostRooms,
    attachments: u64,
    wakes: u64,
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
        let (uid, entry) = self.rooms.best(key, &self.nodes)?;
        Some((uid, self.nodes.get(uid)?, entry))
    }

    /// What one node reports of a room.
    #[must_use]
    pub fn entry(&self, uid: &Uid, key: &RoomKey) -> Option<&Entry> {
        self.rooms.entry(uid, key)
    }

    /// Rooms that run, with their best claim, from `first` on.
    pub fn rooms_from<'a>(
        &'a self,
        first: &RoomKey,
    ) -> impl Iterator<Item = (&'a RoomKey, &'a LiveNode, &'a Entry)> {
        self.rooms
            .from(first, &self.nodes)
            .filter_map(|(key, uid, entry)| Some((key, self.nodes.get(uid)?, entry)))
    }

    /// All rooms that run.
    pub fn rooms(&self) -> impl Iterator<Item = (&RoomKey, &LiveNode, &Entry)> {
        self.rooms
            .all(&self.nodes)
            .filter_map(|(key, uid, entry)| Some((key, self.nodes.get(uid)?, entry)))
    }

    /// Rooms that one node reports.
    #[must_use]
    pub fn rooms_of(&self, uid: &Uid) -> Vec<(RoomKey, Entry)> {
        self.rooms
            .of(uid)
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect()
    }

    /// Names of the rooms that one node reports.
    #[must_use]
    pub fn keys_of(&self, uid: &Uid) -> Vec<RoomKey> {
        self.rooms.of(uid).map(|(key, _)| key.clone()).collect()
    }

    /// Any room that runs.
    #[must_use]
    pub fn sample(&self) -> Option<(RoomKey, Uid, Epoch)> {
        let (key, uid, entry) = self.rooms.all(&self.nodes).next()?;
        Some((key.clone(), uid.clone(), entry.epoch))
    }

    /// All rooms that run together.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.rooms.totals()
    }

    /// A tenant's rooms that run together.
    #[must_use]
    pub fn totals_of(&self, tenant: &TenantName) -> Totals {
        self.rooms.totals_of(tenant)
    }

    /// Rooms that run twice, with those who have to end theirs.
    #[must_use]
    pub fn doubles(&self) -> Vec<(RoomKey, Vec<Loser>)> {
        self.rooms.doubles(&self.nodes)
    }

    /// A room that waits to be placed anew.
    #[must_use]
    pub fn lost_room(&self, key: &RoomKey) -> Option<&Lost> {
        self.lost.get(key)
    }

    /// Rooms that wait to be placed anew and are to be looked at now.
    #[must_use]
    pub fn lost_due(&self, now: Moment) -> Vec<RoomKey> {
        self.lost.due(now)
    }

    /// When the next one that waits is to be looked at.
    #[must_use]
    pub fn lost_next(&self) -> Option<Moment> {
        self.lost.next()
    }

    /// A room that waits found no place; it is looked at again later and later.
    pub fn lost_again(&mut self, key: &RoomKey, now: Moment) {
        self.lost.again(key, now);
    }

    /// A room that waits is not looked at before then.
    pub fn lost_until(&mut self, key: &RoomKey, at: Moment) {
        self.lost.until(key, at);
    }

    /// A room was dropped because it goes on under a higher epoch where this replica may not hear it yet.
    pub fn lost_runs_elsewhere(&mut self, key: &RoomKey) {
        self.lost.runs_elsewhere(key);
    }

    /// A room does not wait any more.
    pub fn forget_lost(&mut self, key: &RoomKey) {
        self.lost.remove(key);
    }

    /// Highest epoch that a node reports of a room.
    #[must_use]
    pub fn reported_epoch(&self, key: &RoomKey) -> Option<Epoch> {
        self.rooms
            .epoch(key)
            .max(self.lost.get(key).map(|lost| lost.entry.epoch))
    }

    /// A node began a stream.
    pub fn attach(&mut self, uid: &Uid, hello: Hello) -> Attachment {
        self.attachments += 1;
        let attachment = Attachment(self.attachments);
        let before = self.nodes.remove(uid);
        if let Some(id) = before.as_ref().and_then(|node| node.hello.node_id.as_ref()) {
            self.by_id.remove(id);
        }
        let dialling = before.as_ref().is_some_and(|node| node.dialling);
        let silent_before = before
            .as_ref()
            .map_or(Duration::ZERO, |node| node.silence.span());
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
            silent_before,
            dials: Dials::default(),
            looks: LeaseLooks::default(),
            dialling,
            heard: true,
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
        node.dials = Dials::default();
        node.looks = LeaseLooks::default();
        node.standing = Standing::Alive;
        node.heard = true;
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
        let epoch = entry.epoch;
        if !self.rooms.put(uid, key, entry, &self.nodes) {
            return Err(ReportRefusal::TooManyRooms);
        }
        if self
            .lost
            .get(key)
            .is_some_and(|lost| lost.entry.epoch <= epoch)
        {
            self.lost.remove(key);
        }
        Ok(self.rooms.losers(key, &self.nodes))
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
            .entry(uid, key)
            .is_some_and(|entry| entry.epoch <= epoch);
        Ok(if known {
            self.rooms.remove(uid, key, &self.nodes)
        } else {
            None
        })
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
        let named = std::mem::take(&mut self.hear(uid, attachment)?.named);
        let gone: Vec<RoomKey> = self
            .rooms
            .of(uid)
            .map(|(key, _)| key)
            .filter(|key| !named.contains(key))
            .cloned()
            .collect();
        for key in &gone {
            self.lose(uid, key, now);
        }
        if let Some(node) = self.nodes.get_mut(uid) {
            node.synced = true;
        }
        Ok(gone)
    }

    /// A room is not on its node any more and has to be placed anew, unless another node has it.
    pub fn lose(&mut self, uid: &Uid, key: &RoomKey, now: Moment) {
        let Some(entry) = self.rooms.remove(uid, key, &self.nodes) else {
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
        let silent = node.silence.span().max(if node.synced {
            Duration::ZERO
        } else {
            node.silent_before
        });
        if self.rooms.epoch(key).is_none() {
            let fresh = silent <= FRESH;
            self.lost
                .insert(key, Lost::new(site, id, entry, now, fresh));
        }
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

    /// From now on only those count as having reported who say something.
    pub fn expect_reports(&mut self) {
        for node in self.nodes.values_mut() {
            node.heard = false;
        }
    }

    /// A tick passed. Nodes that are silent for long enough to be dialled, and those that became suspect by it. A process that was
    /// stopped begins to listen anew: what it observed before may be the stop's own doing.
    pub fn tick(&mut self, since_last_tick: Duration) -> Vec<Silent> {
        if lease::was_stopped(since_last_tick) {
            self.wakes += 1;
            for node in self.nodes.values_mut() {
                node.silence.heard();
                node.dials = Dials::default();
                node.looks = LeaseLooks::default();
                node.dialling = false;
            }
        }
        let mut silent = Vec::new();
        for (uid, node) in &mut self.nodes {
            node.silence.tick(since_last_tick);
            if node.silence.span() >= limits::SUSPECT_AFTER && node.standing != Standing::Dead {
                node.standing = Standing::Suspect;
                if !std::mem::replace(&mut node.dialling, true) {
                    silent.push(Silent {
                        uid: uid.clone(),
                        endpoint: node.hello.endpoint.clone(),
                        silence: node.silence.span(),
                        wake: self.wakes,
                    });
                }
            }
        }
        silent
    }

    /// A silent node is not dialled this time.
    pub fn skip_dial(&mut self, silent: &Silent) {
        if let Some(node) = self.nodes.get_mut(&silent.uid) {
            node.dialling = false;
        }
    }

    /// A silent node was dialled. Whether this replica has now seen enough to ask the store about it.
    pub fn dialled(&mut self, silent: &Silent, dialled: Dialled) -> bool {
        let Some(node) = self.nodes.get_mut(&silent.uid) else {
            return false;
        };
        if silent.wake != self.wakes {
            // It began before this process was stopped.
            return false;
        }
        node.dialling = false;
        if node.silence.span() < silent.silence {
            // It was heard meanwhile.
            return false;
        }
        node.dials.ended(dialled, silent.silence);
        node.standing != Standing::Dead && own_witness(node.silence, node.dials)
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
            dials: node.dials,
            lease: node.looks.look(lease, node.silence),
            in_grace,
        };
        node.standing = standing(witnesses);
        if node.standing != Standing::Dead {
            return None;
        }
        node.attachment = None;
        node.load = None;
        let rooms = self.keys_of(uid);
        for key in &rooms {
            self.lose(uid, key, now);
        }
        if let Some(node) = self.nodes.get_mut(uid) {
            node.synced = false;
        }
        Some(rooms)
    }

    /// The operator does not know a node any more: a silent one is forgotten.
    pub fn forget(&mut self, uid: &Uid, now: Moment) -> Vec<RoomKey> {
        let rooms = self.keys_of(uid);
        for key in &rooms {
            self.lose(uid, key, now);
        }
        if let Some(node) = self.nodes.remove(uid)
            && let Some(id) = node.hello.node_id
        {
            self.by_id.remove(&id);
        }
        rooms
    }
}

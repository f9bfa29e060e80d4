// SPDX-License-Identifier: EUPL-1.2
//! Rooms whose node was lost or gave them up, until somebody has placed them anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use control_core::ids::{NodeId, RoomKey, Site};
use control_core::time::Moment;

use super::Entry;

/// Rooms that wait to be placed anew.
pub const LOST_MAX: usize = 100_000;
/// A room that found no place is looked at again after this time, then after twice as long, and so on.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
/// The longest of these pauses.
const AGAIN_MAX: Duration = Duration::from_secs(16);

/// So long a room that goes on elsewhere is waited for: nodes that can be heard again are heard within it.
const ELSEWHERE: Duration = Duration::from_secs(3);

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
    /// Was its node heard here until the end? Then nobody knows better what the room was.
    pub fresh: bool,
    elsewhere: bool,
    pause: Duration,
    at: Moment,
}

impl Lost {
    pub(super) const fn new(
        site: Site,
        node: NodeId,
        entry: Entry,
        now: Moment,
        fresh: bool,
    ) -> Self {
        Self {
            site,
            node,
            entry,
            since: now,
            fresh,
            elsewhere: false,
            pause: AGAIN_FIRST,
            at: now,
        }
    }

    /// Does it go on where somebody else hears it? Believed for a moment: who said so may be out of reach for long.
    #[must_use]
    pub fn runs_elsewhere(&self, now: Moment) -> bool {
        self.elsewhere && now < self.since.after(ELSEWHERE)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct LostRooms {
    rooms: BTreeMap<RoomKey, Lost>,
    by_time: BTreeSet<(Moment, RoomKey)>,
}

impl LostRooms {
    pub(super) fn get(&self, key: &RoomKey) -> Option<&Lost> {
        self.rooms.get(key)
    }

    pub(super) fn insert(&mut self, key: &RoomKey, lost: Lost) {
        self.remove(key);
        if self.rooms.len() < LOST_MAX {
            self.by_time.insert((lost.at, key.clone()));
            self.rooms.insert(key.clone(), lost);
        }
    }

    pub(super) fn remove(&mut self, key: &RoomKey) {
        if let Some(lost) = self.rooms.remove(key) {
            self.by_time.remove(&(lost.at, key.clone()));
        }
    }

    pub(super) fn runs_elsewhere(&mut self, key: &RoomKey) {
        if let Some(lost) = self.rooms.get_mut(key) {
            lost.elsewhere = true;
        }
    }

    pub(super) fn due(&self, now: Moment) -> Vec<RoomKey> {
        self.by_time
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, key)| key.clone())
            .collect()
    }

    pub(super) fn next(&self) -> Option<Moment> {
        self.by_time.first().map(|(at, _)| *at)
    }

    pub(super) fn again(&mut self, key: &RoomKey, now: Moment) {
        let Some(lost) = self.rooms.get_mut(key) else {
            return;
        };
        let at = now.after(lost.pause);
        lost.pause = (lost.pause * 2).min(AGAIN_MAX);
        self.until(key, at);
    }

    pub(super) fn until(&mut self, key: &RoomKey, at: Moment) {
        let Some(lost) = self.rooms.get_mut(key) else {
            return;
        };
        let before = std::mem::replace(&mut lost.at, at);
        self.by_time.remove(&(before, key.clone()));
        self.by_time.insert((at, key.clone()));
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! What maintenance windows say at a moment: which media nodes are to be emptied, what is frozen, whether pools may be
//! updated, and when that changes.
//!
//! A `Freeze` wins over the other two actions wherever both select, unless the other one is `UrgentSecurity`.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use plenum_api::{
    MaintenanceWindow, Reason,
    maintenance_window::{WindowAction, WindowPhase, WindowReason, WindowSelector},
};
use plenum_schedule::Window;

use crate::{media_pool::plan::Permit, objects::Name};

/// Where a media node stands, or would stand.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its pool.
    pub pool: &'a Name,
    /// Its site.
    pub site: &'a str,
    /// Labels of its machine; `None` where it has none yet.
    pub machine: Option<&'a BTreeMap<String, String>>,
}

/// A media node, as far as a window that empties nodes has to know it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Where it stands.
    pub place: Place<'a>,
    /// Rooms on it.
    pub rooms: u32,
    /// Its part in drains.
    pub part: Part,
}

/// What a media node does about drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It serves.
    Serves,
    /// It is being emptied for maintenance.
    Maintained,
    /// It is being emptied for another reason, is empty, or gone.
    Other,
}

/// All windows at a moment.
#[derive(Clone, Debug, Default)]
pub struct Calendar {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    action: WindowAction,
    urgent: bool,
    selector: WindowSelector,
    nodes_max: u32,
    standing: Standing,
}

/// Where a window stands, before others are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its phase.
    pub phase: WindowPhase,
    /// The open time, or else the next one.
    pub time: Option<Window>,
    /// Why it has no effect: reason and text.
    pub refused: Option<(Reason, String)>,
    /// When it stands differently.
    pub changes_at: Option<Timestamp>,
}

impl Calendar {
    /// Reads windows at a moment. *Cost*: one evaluation of each schedule.
    #[must_use]
    pub fn new<'a>(
        windows: impl IntoIterator<Item = &'a MaintenanceWindow>,
        now: Timestamp,
    ) -> Self {
        let mut entries: Vec<Entry> = windows
            .into_iter()
            .take(WINDOWS_MAX)
            .map(|window| Entry {
                name: window.metadata.name.clone().unwrap_or_default(),
                action: window.spec.action,
                urgent: window.spec.reason == WindowReason::UrgentSecurity,
                selector: window.spec.selector.clone(),
                nodes_max: window.spec.max_concurrent_nodes,
                standing: standing(window, now),
            })
            .collect();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Self { entries }
    }

    /// Where a window stands.
    #[must_use]
    pub fn standing(&self, window: &str) -> Option<&Standing> {
        self.entry(window).map(|entry| &entry.standing)
    }

    /// The open window that empties what stands at a place now.
    #[must_use]
    pub fn draining(&self, place: Place<'_>) -> Option<&str> {
        let entry = self.entries.iter().find(|entry| {
            entry.is_open(WindowAction::Drain) && entry.selects(place) && !self.loses(entry, place)
        })?;
        Some(&entry.name)
    }

    /// When the next window begins, or the open one began, of which people on what stands at a place are to be told: it empties them,
    /// and its `announceBefore` has come.
    #[must_use]
    pub fn announced(&self, place: Place<'_>) -> Option<Timestamp> {
        let told = |entry: &&Entry| match entry.standing.phase {
            // Whether a freeze will still be open then, nobody knows.
            WindowPhase::Announced => true,
            WindowPhase::Active => !self.loses(entry, place),
            _ => false,
        };
        self.entries
            .iter()
            .filter(|entry| entry.action == WindowAction::Drain && entry.selects(place))
            .filter(told)
            .filter_map(|entry| entry.standing.time.map(|time| time.opens))
            .min()
    }

    /// Whether a window empties what stands at a place now.
    #[must_use]
    pub fn drains(&self, window: &str, place: Place<'_>) -> bool {
        self.entry(window).is_some_and(|entry| {
            entry.is_open(WindowAction::Drain) && entry.selects(place) && !self.loses(entry, place)
        })
    }

    /// The open freeze over a place, if any.
    #[must_use]
    pub fn freezing(&self, place: Place<'_>) -> Option<&str> {
        let frozen = |entry: &&Entry| entry.is_open(WindowAction::Freeze) && entry.selects(place);
        Some(&self.entries.iter().find(frozen)?.name)
    }

    /// Whether a window selects a place, open or not.
    #[must_use]
    pub fn selects(&self, window: &str, place: Place<'_>) -> bool {
        self.entry(window).is_some_and(|entry| entry.selects(place))
    }

    /// Whether a window is open, selects a place and has no effect there, because a freeze wins.
    #[must_use]
    pub fn is_frozen(&self, window: &str, place: Place<'_>) -> bool {
        self.entry(window).is_some_and(|entry| {
            entry.standing.phase == WindowPhase::Active
                && entry.selects(place)
                && self.loses(entry, place)
        })
    }

    /// Which media nodes a window empties next, as indices: the emptiest first, and never more at a time than it says.
    #[must_use]
    pub fn next_to_drain(&self, window: &str, nodes: &[Candidate<'_>]) -> Vec<usize> {
        let Some(entry) = self.entry(window) else {
            return Vec::new();
        };
        let selected = |node: &Candidate<'_>| self.drains(window, node.place);
        let busy = nodes
            .iter()
            .filter(|node| node.part == Part::Maintained && selected(node))
            .count();
        let free = usize::try_from(entry.nodes_max)
            .unwrap_or(usize::MAX)
            .saturating_sub(busy);
        let mut next: Vec<usize> = (0..nodes.len())
            .filter(|index| nodes[*index].part == Part::Serves && selected(&nodes[*index]))
            .collect();
        next.sort_by_key(|index| nodes[*index].rooms);
        next.truncate(free);
        next
    }

    /// What a pool may do to its nodes by itself. `places` are those where its nodes stand; a freeze over one of them holds
    /// the whole pool, because its next step may be about that one.
    #[must_use]
    pub fn permit(&self, pool: &Name, site: &str, places: &[Place<'_>]) -> Permit {
        let bare = Place {
            pool,
            site,
            machine: None,
        };
        let touches =
            |entry: &Entry| entry.selects(bare) || places.iter().any(|place| entry.selects(*place));
        let of = |action: WindowAction| {
            self.entries
                .iter()
                .filter(move |entry| entry.action == action && entry.counts())
                .filter(|entry| touches(entry))
        };
        let frozen = of(WindowAction::Freeze).any(|entry| entry.is_open(WindowAction::Freeze));
        let mut allowing = of(WindowAction::AllowUpdates).peekable();
        let bound = allowing.peek().is_some();
        let (mut inside, mut urgent) = (false, false);
        for entry in allowing.filter(|entry| entry.is_open(WindowAction::AllowUpdates)) {
            inside = true;
            urgent |= entry.urgent;
        }
        let until = of(WindowAction::Freeze)
            .chain(of(WindowAction::AllowUpdates))
            .filter_map(|entry| entry.standing.changes_at)
            .min();
        Permit {
            scale_down: !frozen,
            update: urgent || (!frozen && (inside || !bound)),
            until,
        }
    }

    /// Whether every place of a pool is being emptied, so that a new node would be emptied as well.
    #[must_use]
    pub fn closes(&self, pool: &Name, site: &str) -> Option<&str> {
        let bare = Place {
            pool,
            site,
            machine: None,
        };
        self.draining(bare)
    }

    /// When the calendar says something else.
    #[must_use]
    pub fn changes_at(&self) -> Option<Timestamp> {
        let all = self.entries.iter();
        all.filter_map(|entry| entry.standing.changes_at).min()
    }

    fn entry(&self, window: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == window)
    }

    fn loses(&self, entry: &Entry, place: Place<'_>) -> bool {
        !entry.urgent && entry.action != WindowAction::Freeze && self.freezing(place).is_some()
    }
}

impl Entry {
    fn is_open(&self, action: WindowAction) -> bool {
        self.action == action && self.standing.phase == WindowPhase::Active
    }

    /// Whether it has a say, now or at another time. An `AllowUpdates` that is over still keeps updates to its times.
    fn counts(&self) -> bool {
        !matches!(
            self.standing.phase,
            WindowPhase::Suspended | WindowPhase::Refused
        )
    }

    /// Members that are set must all hold; what has no machine yet is on none that a label selects.
    fn selects(&self, place: Place<'_>) -> bool {
        let WindowSelector {
            pools,
            nodes,
            sites,
        } = &self.selector;
        let of_pool = pools.is_empty()
            || pools
                .iter()
                .any(|pool| pool.namespace == place.pool.namespace && pool.name == place.pool.name);
        let of_site = sites.is_empty() || sites.iter().any(|site| site == place.site);
        let of_machine = nodes
            .as_ref()
            .is_none_or(|wanted| place.machine.is_some_and(|labels| wanted.matches(labels)));
        of_pool && of_site && of_machine
    }
}

fn standing(window: &MaintenanceWindow, now: Timestamp) -> Standing {
    let spec = &window.spec;
    let refused = |reason: Reason, why: String, time: Option<Window>| Standing {
        phase: WindowPhase::Refused,
        time,
        refused: Some((reason, why)),
        changes_at: None,
    };
    let schedule = match spec.schedule.to_evaluator() {
        Ok(schedule) => schedule,
        Err(error) => {
            return refused(
                Reason::ScheduleInvalid,
                format!("spec.schedule: {error}"),
                None,
            );
        }
    };
    let open = schedule.window_at(now);
    let time = open.or_else(|| schedule.next_window(now));
    if spec.suspended {
        return Standing {
            phase: WindowPhase::Suspended,
            time,
            refused: None,
            changes_at: None,
        };
    }
    let announce = spec
        .announce_before
        .as_ref()
        .and_then(|length| length.to_std().ok())
        .unwrap_or(Duration::ZERO);
    // Who promises no announcement cannot come too late for it.
    if let Some(first) = schedule.next_window(Timestamp::MIN)
        && !announce.is_zero()
        && spec.schedule.recurrence.is_none()
        && spec.override_.is_none()
        && let Some(declared) = &window.metadata.creation_timestamp
        && declared.0 > before(first.opens, announce)
    {
        let why = format!(
            "it was declared at {}, and people were to be told by {}; move spec.schedule.start, shorten spec.announceBefore, or write spec.override.reason",
            declared.0,
            before(first.opens, announce)
        );
        return refused(Reason::AnnouncedTooLate, why, time);
    }
    let (phase, changes_at) = match (open, time) {
        (Some(open), _) => (WindowPhase::Active, Some(open.closes)),
        (None, None) => (WindowPhase::Ended, None),
        (None, Some(next)) => {
            let told = before(next.opens, announce);
            if now < told {
                (WindowPhase::Scheduled, Some(told))
            } else if announce.is_zero() {
                (WindowPhase::Scheduled, Some(next.opens))
            } else {
                (WindowPhase::Announced, Some(next.opens))
            }
        }
    };
    Standing {
        phase,
        time,
        refused: None,
        changes_at,
    }
}

fn before(moment: Timestamp, length: Duration) -> Timestamp {
    let length = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
    moment.saturating_sub(length).unwrap_or(Timestamp::MIN)
}

/// Windows that are looked at; `kubernetes.md` §4.2 expects fewer than 100.
const WINDOWS_MAX: usize = 1_000;

#[cfg(test)]
mod tests;

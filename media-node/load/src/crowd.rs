// SPDX-License-Identifier: EUPL-1.2
//! Rooms full of people, and figures about them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::person::record::{Flow, Happened, Kind, Millis, Record, Window, judge};
use crate::person::retry::Policy;
use crate::person::{Person, Plan};

/// Who fills the rooms.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Rooms.
    pub rooms: u32,
    /// People in each.
    pub people: u32,
    /// Those among them who publish a camera and a microphone.
    pub cameras: u32,
    /// Those among the rest who publish a microphone.
    pub microphones: u32,
    /// Bytes of a picture.
    pub picture_bytes: usize,
    /// Patience of everybody.
    pub policy: Policy,
    /// Own address of the media sockets.
    pub address: IpAddr,
}

/// People in rooms, all of one run.
pub struct Crowd {
    origin: Instant,
    rooms: BTreeMap<String, Vec<Person>>,
    next: u32,
}

/// Smallest, middle, 99th percentile and largest of some figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// Half are at most this.
    pub p50: Duration,
    /// 99 % are at most this.
    pub p99: Duration,
    /// The largest.
    pub worst: Duration,
}

impl Spread {
    /// Of any figures.
    #[must_use]
    pub fn of(mut figures: Vec<Duration>) -> Self {
        figures.sort_unstable();
        let at = |part: usize| {
            let rank = (figures.len() * part).div_ceil(100).saturating_sub(1);
            figures.get(rank).copied().unwrap_or_default()
        };
        Self {
            count: figures.len(),
            p50: at(50),
            p99: at(99),
            worst: at(100),
        }
    }
}

/// What a crowd got in a window.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Frames that were due, over all pairs of publisher and receiver.
    pub due: u64,
    /// Those that never came.
    pub missing: u64,
    /// Longest gap of each track at each receiver.
    pub gaps: Spread,
    /// From the begin of the window until a person gets every track of its room again, per person.
    pub again: Spread,
    /// People who do not get some track again, by identity.
    pub without: Vec<String>,
    /// The worst tracks: receiver, publisher, kind and what came of it.
    pub worst: Vec<(String, String, Kind, Flow)>,
    /// Resumes, joins, attempts that failed and refusals since the begin of the window.
    pub resumed: usize,
    /// Joins.
    pub joined: usize,
    /// Joins and resumes that were refused.
    pub refused: usize,
    /// People whose policy ended.
    pub gave_up: usize,
    /// From the break of signalling until it stood again.
    pub signalling: Spread,
}

/// What people lost while nothing happened to them: what a machine loses by itself, which is normally nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undisturbed {
    missing: u64,
    due: u64,
}

/// More is missing than the same people lost undisturbed.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{missing} of {due} frames are missing, undisturbed it would be {allowed}: {worst:#?}",
    allowed = .1, missing = .0.missing, due = .0.due, worst = .0.worst
)]
pub struct Lost(Box<Figures>, u64);

impl Figures {
    /// These figures as what nothing costs.
    #[must_use]
    pub fn undisturbed(&self) -> Undisturbed {
        Undisturbed {
            missing: self.missing,
            due: self.due,
        }
    }

    /// No larger share of frames is missing than there was `undisturbed`.
    ///
    /// # Errors
    /// [`Lost`] otherwise, with the worst tracks.
    pub fn no_worse_than(&self, undisturbed: Undisturbed) -> Result<(), Lost> {
        let Undisturbed { missing, due } = undisturbed;
        let allowed = (missing * self.due).checked_div(due).unwrap_or(0);
        if self.missing > allowed {
            return Err(Lost(Box::new(self.clone()), allowed));
        }
        Ok(())
    }
}

/// Tracks named with the figures.
const WORST: usize = 8;

impl Crowd {
    /// Nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
            rooms: BTreeMap::new(),
            next: 0,
        }
    }

    /// Milliseconds since its begin.
    #[must_use]
    pub fn now(&self) -> Millis {
        Millis(u32::try_from(self.origin.elapsed().as_millis()).unwrap_or(u32::MAX))
    }

    /// Fills `shape.rooms` rooms named `<name>-<n>`, and lets everybody join at once. `token` is given identity and room.
    pub fn fill(
        &mut self,
        name: &str,
        shape: &Shape,
        gateways: &[String],
        token: impl Fn(&str, &str) -> String,
    ) {
        for room in 0..shape.rooms {
            let room = format!("{name}-{room}");
            for index in 0..shape.people {
                let publishes = if index < shape.cameras {
                    vec![Kind::Audio, Kind::Video]
                } else if index < shape.cameras + shape.microphones {
                    vec![Kind::Audio]
                } else {
                    Vec::new()
                };
                let identity = format!("{room}-{index}");
                let token = token(&identity, &room);
                self.enter(&room, &identity, token, publishes, shape, gateways);
            }
        }
    }

    /// One more person.
    pub fn enter(
        &mut self,
        room: &str,
        identity: &str,
        token: String,
        publishes: Vec<Kind>,
        shape: &Shape,
        gateways: &[String],
    ) {
        let person = Person::enter(Plan {
            gateways: gateways.to_vec(),
            token,
            identity: identity.to_owned(),
            number: self.next,
            publishes,
            picture_bytes: shape.picture_bytes,
            policy: shape.policy,
            address: shape.address,
            origin: self.origin,
        });
        self.next += 1;
        self.rooms.entry(room.to_owned()).or_default().push(person);
    }

    /// Everybody, with their room.
    pub fn people(&self) -> impl Iterator<Item = (&str, &Person)> {
        self.rooms
            .iter()
            .flat_map(|(room, people)| people.iter().map(move |person| (room.as_str(), person)))
    }

    /// Names of the rooms.
    pub fn rooms(&self) -> impl Iterator<Item = &str> {
        self.rooms.keys().map(String::as_str)
    }

    /// Somebody leaves in good order and is forgotten; false when there is no such person.
    pub async fn dismiss(&mut self, identity: &str) -> bool {
        for people in self.rooms.values_mut() {
            let found = people
                .iter()
                .position(|person| person.record().identity == identity);
            if let Some(index) = found {
                people.remove(index).leave().await;
                return true;
            }
        }
        false
    }

    /// Those who do not get every track of their room right now: the room, and who lacks what. Right now means: a frame made within
    /// the last second.
    #[must_use]
    pub fn waiting(&self) -> Vec<(String, String)> {
        let since = Millis(self.now().0.saturating_sub(1_000));
        let mut waiting = Vec::new();
        for (room, people) in &self.rooms {
            let tracks = tracks(people.iter());
            for person in people {
                let record = person.record();
                if !record.connected {
                    waiting.push((room.clone(), format!("{}: no signalling", record.identity)));
                    continue;
                }
                for (publisher, kind, produced) in &tracks {
                    if *publisher == record.number {
                        continue;
                    }
                    let newest = record
                        .arrived
                        .get(&(*publisher, *kind))
                        .and_then(|arrived| arrived.last())
                        .and_then(|(number, _)| produced.get(*number as usize));
                    if newest.is_none_or(|made| *made < since) {
                        let identity = &record.identity;
                        waiting.push((
                            room.clone(),
                            format!("{identity}: no {kind:?} of {publisher}"),
                        ));
                    }
                }
            }
        }
        waiting
    }

    /// Waits until everybody gets every track of their room, at most until `bound`; who does not then.
    pub async fn until_flowing(&self, bound: Duration) -> Vec<(String, String)> {
        let end = Instant::now() + bound;
        loop {
            let waiting = self.waiting();
            if waiting.is_empty() || Instant::now() >= end {
                return waiting;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// What everybody who was there at `from` got of each other until `to`, judged by what has come until now.
    #[must_use]
    pub fn figures(&self, from: Millis, to: Millis) -> Figures {
        self.figures_of(from, to, |_| true)
    }

    /// As [`Self::figures`], for some rooms.
    #[must_use]
    pub fn figures_of(&self, from: Millis, to: Millis, room: impl Fn(&str) -> bool) -> Figures {
        let mut figures = Figures::default();
        let (mut gaps, mut again, mut signalling) = (Vec::new(), Vec::new(), Vec::new());
        for (_, people) in self.rooms.iter().filter(|(name, _)| room(name)) {
            let there = |person: &&Person| person.record().began <= from;
            let tracks = tracks(people.iter().filter(there));
            for person in people.iter().filter(there) {
                let record = person.record();
                let mut slowest = Some(Duration::ZERO);
                for (publisher, kind, produced) in &tracks {
                    if *publisher == record.number {
                        continue;
                    }
                    let none = Vec::new();
                    let arrived = record.arrived.get(&(*publisher, *kind)).unwrap_or(&none);
                    let flow = judge(produced, arrived, Window { from, to });
                    figures.due += u64::from(flow.due);
                    figures.missing += u64::from(flow.missing);
                    gaps.push(flow.longest_gap);
                    slowest = slowest
                        .zip(flow.again)
                        .map(|(slowest, again)| slowest.max(again));
                    if flow.missing > 0 {
                        let publisher = format!("{publisher}");
                        figures
                            .worst
                            .push((record.identity.clone(), publisher, *kind, flow));
                    }
                }
                match slowest {
                    Some(slowest) => again.push(slowest),
                    None => figures.without.push(record.identity.clone()),
                }
                count(&record, from, &mut figures, &mut signalling);
            }
        }
        figures
            .worst
            .sort_by_key(|(.., flow)| std::cmp::Reverse(flow.missing));
        figures.worst.truncate(WORST);
        (figures.gaps, figures.again) = (Spread::of(gaps), Spread::of(again));
        figures.signalling = Spread::of(signalling);
        figures
    }

    /// What happened to everybody from `from` on, for those who look for a reason.
    #[must_use]
    pub fn story(&self, from: Millis) -> String {
        let mut lines = Vec::new();
        for (_, person) in self.people() {
            let record = person.record();
            for (at, happened) in record.happened.iter().filter(|(at, _)| *at >= from) {
                lines.push((
                    *at,
                    format!("{:>7} ms {}: {happened:?}", at.0, record.identity),
                ));
            }
        }
        lines.sort();
        lines
            .into_iter()
            .map(|(_, line)| line)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Everybody leaves.
    pub async fn leave(self) {
        let leaving = self.rooms.into_values().flatten().map(Person::leave);
        futures::future::join_all(leaving).await;
    }
}

impl Default for Crowd {
    fn default() -> Self {
        Self::new()
    }
}

/// What is published in a room.
fn tracks<'a>(people: impl Iterator<Item = &'a Person>) -> Vec<(u32, Kind, Vec<Millis>)> {
    let mut tracks = Vec::new();
    for person in people {
        let record = person.record();
        for (kind, produced) in &record.produced {
            tracks.push((record.number, *kind, produced.clone()));
        }
    }
    tracks
}

fn count(record: &Record, from: Millis, figures: &mut Figures, signalling: &mut Vec<Duration>) {
    figures.resumed += record.count(from, |what| *what == Happened::Resumed);
    figures.joined += record.count(from, |what| *what == Happened::Joined);
    figures.gave_up += record.count(from, |what| *what == Happened::GaveUp);
    figures.refused += record.count(from, |what| matches!(what, Happened::Refused { .. }));
    let broke = |what: &Happened| {
        matches!(
            what,
            Happened::SignallingLost | Happened::SentAway | Happened::MediaLost
        )
    };
    if let Some(broken) = record.first(from, broke)
        && let Some(stood) = record.first(broken, |what| {
            matches!(what, Happened::Resumed | Happened::Joined)
        })
    {
        signalling.push(stood.since(broken));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_figures_that_occurred() {
        let spread = Spread::of((1..=200).map(Duration::from_millis).collect());
        assert_eq!(spread.p50, Duration::from_millis(100));
        assert_eq!(spread.p99, Duration::from_millis(198));
        assert_eq!(spread.worst, Duration::from_millis(200));
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }

    #[test]
    fn as_many_may_be_missing_as_the_machine_loses_by_itself() {
        let figures = |missing, due| Figures {
            missing,
            due,
            ..Figures::default()
        };
        let quiet = figures(0, 1_000).undisturbed();
        assert!(figures(0, 500).no_worse_than(quiet).is_ok());
        let lost = figures(1, 500).no_worse_than(quiet).expect_err("one more");
        assert!(
            lost.to_string()
                .starts_with("1 of 500 frames are missing, undisturbed it would be 0"),
            "{lost}"
        );
        let noisy = figures(10, 1_000).undisturbed();
        assert!(figures(5, 500).no_worse_than(noisy).is_ok());
        assert!(figures(6, 500).no_worse_than(noisy).is_err());
        // Nothing was due: nothing is known of the machine.
        let nothing = Undisturbed::default();
        assert!(figures(0, 500).no_worse_than(nothing).is_ok());
        assert!(figures(1, 500).no_worse_than(nothing).is_err());
    }
}

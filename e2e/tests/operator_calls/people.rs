// SPDX-License-Identifier: EUPL-1.2
//! Those who talk, and what they got of each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::installed::{CONFERENCE, Installed, MACHINE, plain, token, token_to};
use plenum_load::crowd::{Crowd, Figures, Shape, Undisturbed};
use plenum_load::person::record::{Happened, Kind, Millis};
use plenum_load::person::retry::Policy;

/// Everything happens within this time, or it does not happen.
pub(crate) const LIVENESS: Duration = Duration::from_secs(90);
/// Longest gap of a move that is wanted at the 99th percentile; three times as much is borne on a busy machine.
const GAP_WANTED: Duration = Duration::from_secs(5);

/// A crowd in rooms on both media nodes.
pub(crate) struct People {
    crowd: Crowd,
    shape: Shape,
    gateways: Vec<String>,
    /// What the begin cost, in which nothing was done.
    quiet: Undisturbed,
    rows: Vec<String>,
}

impl People {
    /// Rooms of three, each with a camera and two microphones: the declared conference and four that are no objects. Then ten seconds
    /// pass in which nothing is done.
    pub(crate) async fn enter(installed: &Installed) -> Result<Self> {
        let node = installed.cluster.nodes()[0].address();
        let gateway = format!("ws://{}", plain(&installed.cluster, node).await?);
        let mut people = Self {
            crowd: Crowd::new(),
            shape: Shape {
                rooms: 4,
                people: 3,
                cameras: 1,
                microphones: 1,
                picture_bytes: 500,
                policy: Policy::Page,
                address: MACHINE,
            },
            gateways: vec![gateway],
            quiet: Undisturbed::default(),
            rows: Vec::new(),
        };
        let (crowd, shape, gateways) = (&mut people.crowd, &people.shape, &people.gateways);
        // Who opens the conference comes first; until then the door is shut.
        let opener = token("opener")?;
        crowd.enter(CONFERENCE, "opener", opener, Vec::new(), shape, gateways);
        people.flowing("the opener gets in").await?;
        let (crowd, shape, gateways) = (&mut people.crowd, &people.shape, &people.gateways);
        for (identity, publishes) in [
            ("camera", vec![Kind::Audio, Kind::Video]),
            ("microphone", vec![Kind::Audio]),
        ] {
            let token = token(identity)?;
            crowd.enter(CONFERENCE, identity, token, publishes, shape, gateways);
        }
        crowd.fill("ward", shape, gateways, |identity, room| {
            token_to(room, identity).expect("claims can be signed")
        });
        people.flowing("everybody gets every track").await?;
        let from = people.now();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let figures = people.settled(from).await;
        people.quiet = figures.undisturbed();
        people.row("nothing", from, &figures);
        Ok(people)
    }

    /// The moment, for figures from here on.
    pub(crate) fn now(&self) -> Millis {
        self.crowd.now()
    }

    /// Waits until everybody gets every track.
    pub(crate) async fn flowing(&self, claim: &str) -> Result<()> {
        let waiting = self.crowd.until_flowing(LIVENESS).await;
        ensure!(waiting.is_empty(), "{claim}: {waiting:?}");
        Ok(())
    }

    /// Two people open a room that is no object and get each other's voices.
    pub(crate) async fn meet(&mut self, room: &str) -> Result<()> {
        for number in 0..2 {
            self.join(room, &format!("{room}-{number}"))?;
        }
        self.flowing_in(room).await
    }

    /// Somebody joins a room late, and everybody there gets everybody.
    pub(crate) async fn late(&mut self, room: &str, identity: &str) -> Result<()> {
        self.join(room, identity)?;
        self.flowing_in(room).await
    }

    fn join(&mut self, room: &str, identity: &str) -> Result<()> {
        let token = token_to(room, identity)?;
        let voice = vec![Kind::Audio];
        self.crowd
            .enter(room, identity, token, voice, &self.shape, &self.gateways);
        Ok(())
    }

    async fn flowing_in(&self, room: &str) -> Result<()> {
        let end = Instant::now() + LIVENESS;
        loop {
            let mut waiting = self.crowd.waiting();
            waiting.retain(|(name, _)| name == room);
            if waiting.is_empty() {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{room} does not meet: {waiting:?}, its people are on {:?}",
                self.places().get(room)
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Everybody of a room leaves.
    pub(crate) async fn end(&mut self, room: &str) {
        let there: Vec<String> = self
            .crowd
            .people()
            .filter(|(name, _)| *name == room)
            .map(|(_, person)| person.record().identity.clone())
            .collect();
        for identity in there {
            self.crowd.dismiss(&identity).await;
        }
    }

    /// On which node each room's people are, by the node's id in their SIDs. Two nodes of one room are a move under way.
    pub(crate) fn places(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (room, person) in self.crowd.people() {
            let record = person.record();
            // Who was sent away and is not back yet is nowhere.
            let sid = record.sid.as_deref().filter(|_| record.connected);
            let node = sid.and_then(|sid| sid.split('_').nth(2));
            if let Some(node) = node {
                let place = places.entry(room.to_owned()).or_default();
                place.insert(node.to_owned());
            }
        }
        places
    }

    /// Rooms with somebody on a node.
    pub(crate) fn rooms_on(&self, node: &str) -> BTreeSet<String> {
        let places = self.places().into_iter();
        places
            .filter(|(_, nodes)| nodes.contains(node))
            .map(|(room, _)| room)
            .collect()
    }

    /// Figures from `from` until now, once what is on its way has arrived.
    async fn settled(&self, from: Millis) -> Figures {
        let to = self.now();
        tokio::time::sleep(Duration::from_millis(700)).await;
        self.crowd.figures(from, to)
    }

    /// Calls noticed nothing: no frame is missing beyond what the same people lost undisturbed, which is normally none, and nobody's
    /// signalling broke.
    pub(crate) async fn noticed_nothing(&mut self, what: &str, from: Millis) -> Result<()> {
        let figures = self.settled(from).await;
        self.row(what, from, &figures);
        self.whole(what, &figures)?;
        ensure!(
            figures.resumed == 0 && figures.joined == 0 && figures.gave_up == 0,
            "{what}: signalling broke: {}",
            self.crowd.story(from)
        );
        Ok(())
    }

    fn whole(&self, what: &str, figures: &Figures) -> Result<()> {
        figures
            .no_worse_than(self.quiet)
            .with_context(|| what.to_owned())
    }

    /// Some rooms moved, as a reconnect of everybody in them: all of them are whole again, nobody gave up, and the others missed
    /// nothing. Gives those that moved.
    pub(crate) async fn moved(&mut self, what: &str, from: Millis) -> Result<BTreeSet<String>> {
        self.flowing(&format!("{what}: everybody gets everybody again"))
            .await?;
        let to = self.now();
        let whole = self.settled(from).await;
        let joined = |happened: &Happened| *happened == Happened::Joined;
        let moved: BTreeSet<String> = self
            .crowd
            .people()
            .filter(|(_, person)| {
                let record = person.record();
                record.began <= from && record.count(from, joined) > 0
            })
            .map(|(room, _)| room.to_owned())
            .collect();
        let figures = self.crowd.figures_of(from, to, |room| moved.contains(room));
        self.row(
            &format!("{what}: the {} rooms that moved", moved.len()),
            from,
            &figures,
        );
        let stayed = self
            .crowd
            .figures_of(from, to, |room| !moved.contains(room));
        if stayed.due > 0 {
            self.row(&format!("{what}: the others"), from, &stayed);
            self.whole(what, &stayed)?;
        }
        ensure!(
            whole.gave_up == 0 && whole.without.is_empty(),
            "{what}: somebody is gone: {}",
            self.crowd.story(from)
        );
        ensure!(
            figures.gaps.p99 <= 3 * GAP_WANTED,
            "{what}: a gap of {:?}: {}",
            figures.gaps.p99,
            self.crowd.story(from)
        );
        Ok(moved)
    }

    fn row(&mut self, what: &str, from: Millis, figures: &Figures) {
        let gap = |gap: Duration| gap.as_millis();
        let row = format!(
            "| {what} | {:.1} | {} | {} | {} / {} / {} | {} | {} | {} |",
            self.now().since(from).as_secs_f64(),
            figures.due,
            figures.missing,
            gap(figures.gaps.p50),
            gap(figures.gaps.p99),
            gap(figures.gaps.worst),
            figures.resumed,
            figures.joined,
            figures.gave_up,
        );
        println!("{row}");
        self.rows.push(row);
    }

    /// Prints what everybody got, disturbance by disturbance.
    pub(crate) fn table(&self) {
        println!(
            "| disturbance | seconds | frames due | missing | longest gap per track, ms, p50 / p99 / worst | resumed | rejoined | gave up |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        println!("{}", self.rows.join("\n"));
    }

    /// What happened to everybody.
    pub(crate) fn story(&self) -> String {
        self.crowd.story(Millis(0))
    }

    /// Everybody leaves.
    pub(crate) async fn leave(self) {
        self.crowd.leave().await;
    }
}

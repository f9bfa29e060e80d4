// SPDX-License-Identifier: EUPL-1.2
//! A crowd that talks while the installation changes, and the figures of it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::installed::{Installed, MACHINE, plain, token_to};
use plenum_load::crowd::{Crowd, Figures, Shape, Undisturbed};
use plenum_load::person::record::Millis;
use plenum_load::person::retry::Policy;

/// Everything happens within this time, or it does not happen.
const LIVENESS: Duration = Duration::from_secs(90);
/// What a change of the whole installation may take.
const QUIET: Duration = Duration::from_secs(10);

/// People in rooms that are no objects, as the example's tenant allows here.
pub(crate) struct People {
    crowd: Crowd,
    gateways: [String; 1],
    /// Missing and due frames while nothing happened.
    undisturbed: Undisturbed,
}

impl People {
    /// They enter, and ten seconds pass.
    pub(crate) async fn enter(installed: &Installed) -> Result<Self> {
        let node = installed.cluster.nodes()[0].address();
        let gateways = [format!("ws://{}", plain(&installed.cluster, node).await?)];
        let mut crowd = Crowd::new();
        crowd.fill("ward", &shape(4), &gateways, |identity, room| {
            token_to(room, identity).expect("claims can be signed")
        });
        let mut people = Self {
            crowd,
            gateways,
            undisturbed: Undisturbed::default(),
        };
        people.whole("everybody gets in").await?;
        let from = people.crowd.now();
        tokio::time::sleep(QUIET).await;
        let figures = people.settled(from).await;
        people.undisturbed = figures.undisturbed();
        show("undisturbed", &figures);
        Ok(people)
    }

    /// The moment, for figures from here on.
    pub(crate) fn now(&self) -> Millis {
        self.crowd.now()
    }

    /// A room of its own is opened by new people; it stays.
    pub(crate) async fn meet(&mut self, room: &str) -> Result<()> {
        self.crowd
            .fill(room, &shape(1), &self.gateways, |identity, room| {
                token_to(room, identity).expect("claims can be signed")
            });
        self.whole(&format!("{room} meets")).await
    }

    /// Everybody's signalling broke, as whoever served it ended, and was taken up again; no frame is missing beyond what the same people
    /// lost undisturbed, which is normally none.
    pub(crate) async fn kept_media(&self, what: &str, from: Millis) -> Result<()> {
        self.whole(what).await?;
        let figures = self.settled(from).await;
        show(what, &figures);
        self.nobody_gone(what, from, &figures)?;
        ensure!(
            figures.resumed > 0,
            "{what}: nobody's replica ended: {}",
            self.crowd.story(from)
        );
        figures
            .no_worse_than(self.undisturbed)
            .with_context(|| what.to_owned())
    }

    /// Rooms moved to other media nodes: everybody came again and gets everybody.
    pub(crate) async fn moved(&self, what: &str, from: Millis) -> Result<()> {
        self.whole(what).await?;
        let figures = self.settled(from).await;
        show(what, &figures);
        self.nobody_gone(what, from, &figures)?;
        ensure!(figures.joined > 0, "{what}: nobody moved");
        Ok(())
    }

    fn nobody_gone(&self, what: &str, from: Millis, figures: &Figures) -> Result<()> {
        ensure!(
            figures.gave_up == 0 && figures.without.is_empty(),
            "{what}: people are dropped: {:?}\n{}",
            figures.without,
            self.crowd.story(from)
        );
        Ok(())
    }

    /// Waits until everybody gets everybody.
    async fn whole(&self, what: &str) -> Result<()> {
        let waiting = self.crowd.until_flowing(LIVENESS).await;
        ensure!(
            waiting.is_empty(),
            "{what}: {waiting:?}\n{}",
            self.crowd.story(Millis(0))
        );
        Ok(())
    }

    async fn settled(&self, from: Millis) -> Figures {
        let to = self.crowd.now();
        tokio::time::sleep(Duration::from_millis(700)).await;
        self.crowd.figures(from, to)
    }

    /// Everybody leaves.
    pub(crate) async fn leave(self) {
        self.crowd.leave().await;
    }
}

/// A camera and two voices in a room of three.
fn shape(rooms: u32) -> Shape {
    Shape {
        rooms,
        people: 3,
        cameras: 1,
        microphones: 1,
        picture_bytes: 500,
        policy: Policy::Page,
        address: MACHINE,
    }
}

fn show(what: &str, figures: &Figures) {
    println!(
        "figure: {what}: {} of {} frames missing, longest gap of a track {} / {} / {} ms (p50 / p99 / worst), {} resumed, {} joined again, {} refused, {} gave up, signalling away for {} / {} ms (p50 / worst)",
        figures.missing,
        figures.due,
        figures.gaps.p50.as_millis(),
        figures.gaps.p99.as_millis(),
        figures.gaps.worst.as_millis(),
        figures.resumed,
        figures.joined,
        figures.refused,
        figures.gave_up,
        figures.signalling.p50.as_millis(),
        figures.signalling.worst.as_millis(),
    );
}

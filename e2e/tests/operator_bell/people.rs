// SPDX-License-Identifier: EUPL-1.2
//! People in rooms of the example's tenant, and what they got of each other.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::installed::{Installed, MACHINE, plain, token_to};
use plenum_load::crowd::{Crowd, Figures, Shape, Undisturbed};
use plenum_load::person::record::{Happened, Millis};
use plenum_load::person::retry::Policy;

use crate::figure;

const PATIENCE: Duration = Duration::from_secs(120);
/// What is on its way has arrived by then.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// Everybody.
pub(crate) struct People {
    crowd: Crowd,
    gateways: Vec<String>,
    /// Missing and due frames while nothing happened.
    quiet: Undisturbed,
}

fn shape(rooms: u32, people: u32, cameras: u32) -> Shape {
    Shape {
        rooms,
        people,
        cameras,
        microphones: 1,
        picture_bytes: 700,
        policy: Policy::Page,
        address: MACHINE,
    }
}

impl People {
    /// Nobody yet.
    pub(crate) async fn new(installed: &Installed) -> Result<Self> {
        let node = installed.cluster.nodes()[0].address();
        let gateway = plain(&installed.cluster, node).await?;
        Ok(Self {
            crowd: Crowd::new(),
            gateways: vec![format!("ws://{gateway}")],
            quiet: Undisturbed::default(),
        })
    }

    /// Two rooms of those who are there all day.
    pub(crate) async fn early(&mut self) -> Result<()> {
        self.fill("early", &shape(2, 3, 1)).await
    }

    /// As many rooms of pairs as that.
    pub(crate) async fn late(&mut self, rooms: u32) -> Result<()> {
        self.fill("late", &shape(rooms, 2, 0)).await
    }

    async fn fill(&mut self, name: &str, shape: &Shape) -> Result<()> {
        let began = std::time::Instant::now();
        self.crowd
            .fill(name, shape, &self.gateways, |identity, room| {
                token_to(room, identity).expect("claims can be signed")
            });
        self.flow(&format!("people of {name} rooms get each other's media"))
            .await?;
        figure(
            &format!("{name}_rooms_flow_after"),
            began.elapsed().as_millis(),
            "ms",
        );
        Ok(())
    }

    /// Everybody gets every track of their room.
    pub(crate) async fn flow(&self, claim: &str) -> Result<()> {
        let without = self.crowd.until_flowing(PATIENCE).await;
        ensure!(
            without.is_empty(),
            "{claim}: {without:?}\n{}",
            self.crowd.story(Millis(0))
        );
        Ok(())
    }

    /// This moment.
    pub(crate) fn now(&self) -> Millis {
        self.crowd.now()
    }

    /// Nothing happened since then: what is missing was lost by the machine.
    pub(crate) async fn nothing_happened_since(&mut self, from: Millis) {
        let figures = self.settled(from, |_| true).await;
        figure("idle_missing", figures.missing, "frames");
        figure("idle_due", figures.due, "frames");
        self.quiet = figures.undisturbed();
    }

    /// Nobody was cut: no frame is missing beyond what the machine loses when nothing happens.
    pub(crate) async fn nobody_was_cut_since(
        &self,
        what: &str,
        from: Millis,
        room: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let figures = self.settled(from, room).await;
        figure(&format!("{what}_missing"), figures.missing, "frames");
        figure(&format!("{what}_due"), figures.due, "frames");
        figure(
            &format!("{what}_gap_worst"),
            figures.gaps.worst.as_millis(),
            "ms",
        );
        figures
            .no_worse_than(self.quiet)
            .with_context(|| format!("{what}\n{}", self.crowd.story(from)))
    }

    /// Those whose room moved: they came back, and how long it took.
    pub(crate) async fn came_back_since(&self, from: Millis, moved: &[String]) -> Result<()> {
        let figures = self
            .settled(from, |room| moved.iter().any(|one| one == room))
            .await;
        figure("moved_rooms", moved.len(), "rooms");
        figure("moved_missing", figures.missing, "frames");
        figure("moved_due", figures.due, "frames");
        figure("moved_gap_p50", figures.gaps.p50.as_millis(), "ms");
        figure("moved_gap_worst", figures.gaps.worst.as_millis(), "ms");
        ensure!(
            figures.gave_up == 0 && figures.without.is_empty(),
            "people of moved rooms are left without media: {:?}\n{}",
            figures.without,
            self.crowd.story(from)
        );
        Ok(())
    }

    /// Rooms from which people were sent to join again since then.
    pub(crate) fn moved_since(&self, from: Millis) -> Vec<String> {
        let sent = |what: &Happened| matches!(what, Happened::SentAway);
        let mut rooms: Vec<String> = self
            .crowd
            .people()
            .filter(|(_, person)| person.record().count(from, sent) > 0)
            .map(|(room, _)| room.to_owned())
            .collect();
        rooms.dedup();
        rooms
    }

    async fn settled(&self, from: Millis, room: impl Fn(&str) -> bool) -> Figures {
        let to = self.crowd.now();
        tokio::time::sleep(ON_ITS_WAY).await;
        self.crowd.figures_of(from, to, room)
    }

    /// Everybody leaves.
    pub(crate) async fn leave(self) {
        self.crowd.leave().await;
    }
}

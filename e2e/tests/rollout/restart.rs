// SPDX-License-Identifier: EUPL-1.2
//! Rolling restarts under load: people talk, and somebody joins every tenth of a second.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::system::Setup;
use plenum_load::crowd::Shape;
use plenum_load::person::record::Happened;

use crate::drain::{events, judge, plenum};
use crate::joins::Joiners;
use crate::lab::{Lab, run, shape};

/// Rooms of the crowd.
const ROOMS: u32 = 4;

fn crowd() -> Shape {
    Shape {
        rooms: ROOMS,
        ..shape()
    }
}

async fn restart(lab: &Lab, args: &[&str]) -> Result<()> {
    let all = [&["restart", "-o", "json"], args].concat();
    let said = events(&plenum(lab, &all).await?)?;
    ensure!(
        said.last().is_some_and(|last| last["event"] == "done"),
        "{said:?}"
    );
    let done = said.iter().filter(|event| event["event"] == "restarted");
    for one in done {
        let name = one["name"].as_str().unwrap_or_default();
        lab.figure(&format!("{name}_done_after"), &one["afterSeconds"], "s");
    }
    Ok(())
}

/// Every replica, one by one.
pub(crate) fn replicas(name: &'static str) -> Result<()> {
    run(name, Setup::default(), crowd(), async |lab| {
        let joiners = Joiners::begin(ROOMS);
        let from = lab.crowd.now();
        restart(lab, &["replicas"]).await?;
        joiners.end(lab).await?;
        lab.flowing("everybody has signalling and media").await?;
        let figures = lab.settled(from).await;
        lab.without_a_gap("replicas", &figures)?;
        ensure!(
            figures.joined + figures.gave_up == 0 && figures.without.is_empty(),
            "somebody did not resume: {}",
            lab.crowd.story(from)
        );
        Ok(())
    })
}

/// Every node, one by one.
pub(crate) fn nodes(name: &'static str) -> Result<()> {
    run(name, Setup::default(), crowd(), async |lab| {
        let joiners = Joiners::begin(ROOMS);
        let from = lab.crowd.now();
        restart(lab, &["nodes", "--timeout-seconds", "0"]).await?;
        joiners.end(lab).await?;
        // Visitors leave, and the crowd's rooms are whole.
        tokio::time::sleep(Duration::from_secs(1)).await;
        judge(lab, "nodes", from).await?;
        let ended = |what: &Happened| matches!(what, Happened::Ended(_));
        let over: usize = lab
            .crowd
            .people()
            .map(|(_, person)| person.record().count(from, ended))
            .sum();
        ensure!(over == 0, "a conference ended: {}", lab.crowd.story(from));
        Ok(())
    })
}

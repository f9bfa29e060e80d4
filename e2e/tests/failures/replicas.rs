// SPDX-License-Identifier: EUPL-1.2
//! Replicas of the control plane are taken away: one, and all of them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::http;
use e2e::processes::Held;
use e2e::system::{Setup, program};
use plenum_load::crowd::Shape;
use plenum_load::person::record::Happened;
use plenum_load::person::retry::Policy;
use rustix::process::Signal;

use crate::lab::{LIVENESS, Lab, replica, replicas, run, shape, until};

/// A minute in which nothing is done.
pub(crate) fn undisturbed(name: &'static str) -> Result<()> {
    run(name, Setup::default(), shape(), async |lab| {
        let from = lab.crowd.now();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let figures = lab.settled(from).await;
        lab.without_a_gap("minute", &figures)?;
        ensure!(
            figures.resumed + figures.joined == 0,
            "nobody had a reason to come back"
        );
        lab.one_state().await
    })
}

/// SIGKILL of one replica.
pub(crate) fn one_killed(name: &'static str) -> Result<()> {
    let shape = Shape {
        rooms: 4,
        ..shape()
    };
    run(name, Setup::default(), shape, async |lab| {
        let before = replica("local-0")?;
        let from = lab.crowd.now();
        before.process.signal(Signal::KILL)?;
        let after = until("plenum up starts the replica again", LIVENESS, async || {
            let after = replica("local-0")?;
            ensure!(after.process.pid != before.process.pid, "it is the old one");
            let ready = http::get(after.http, "/readyz").await?;
            ensure!(ready.status == 200, "{ready:?}");
            Ok(after)
        })
        .await?;
        lab.figure(
            "replica_ready_after",
            lab.crowd.now().since(from).as_millis(),
            "ms",
        );
        lab.flowing("everybody has signalling and media again")
            .await?;
        // Time for anything that follows late.
        tokio::time::sleep(Duration::from_secs(10)).await;
        everybody_resumed(lab, from).await?;
        // The new one takes part.
        lab.enters("room-0", "late", &after.gateway()).await?;
        lab.meet("fresh", &[after.gateway(), replica("local-1")?.gateway()])
            .await?;
        lab.one_state().await
    })
}

/// Nobody noticed but by signalling: no frame is missing, nobody joined anew, whoever lost signalling has it again.
async fn everybody_resumed(lab: &Lab, from: plenum_load::person::record::Millis) -> Result<()> {
    let figures = lab.settled(from).await;
    lab.without_a_gap("outage", &figures)?;
    let (mut lost, mut resumed) = (0, 0);
    for (_, person) in lab.crowd.people() {
        let record = person.record();
        let broke = record.count(from, |what| *what == Happened::SignallingLost);
        let back = record.count(from, |what| *what == Happened::Resumed);
        lost += usize::from(broke > 0);
        resumed += usize::from(back > 0);
        ensure!(
            record.count(from, |what| *what == Happened::Joined) == 0,
            "{} joined anew: {:?}",
            record.identity,
            record.happened
        );
    }
    ensure!(lost > 0, "nobody lost signalling: the test shows nothing");
    ensure!(lost == resumed, "{lost} lost signalling, {resumed} resumed");
    lab.figure("people_without_signalling", lost, "people");
    Ok(())
}

/// Takes all replicas away for at least `time`.
async fn all_away(lab: &Lab, time: Duration) -> Result<()> {
    let from = lab.crowd.now();
    let held = Held::down(&program("control-plane")?)?;
    let all = replicas()?;
    ensure!(all.len() == 2, "two replicas run");
    for replica in &all {
        replica.process.signal(Signal::KILL)?;
    }
    tokio::time::sleep(time).await;
    ensure!(replicas()?.is_empty(), "all replicas are away");
    drop(held);
    until("a replica serves again", LIVENESS, async || {
        let back = replicas()?;
        let first = back.first().context("a replica runs")?;
        let ready = http::get(first.http, "/readyz").await?;
        ensure!(ready.status == 200, "{ready:?}");
        Ok(())
    })
    .await?;
    lab.figure("away", lab.crowd.now().since(from).as_millis(), "ms");
    Ok(())
}

/// The own page's patience.
pub(crate) fn all_away_page(name: &'static str) -> Result<()> {
    run(name, Setup::default(), shape(), async |lab| {
        let from = lab.crowd.now();
        all_away(lab, Duration::from_secs(30)).await?;
        lab.flowing("everybody has signalling and media again")
            .await?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        everybody_resumed(lab, from).await?;
        lab.enters("room-0", "late", &crate::lab::shared()).await?;
        lab.one_state().await
    })
}

/// The SDK's own patience.
pub(crate) fn all_away_sdk(name: &'static str) -> Result<()> {
    let shape = Shape {
        policy: Policy::Sdk,
        ..shape()
    };
    run(name, Setup::default(), shape, async |lab| {
        let from = lab.crowd.now();
        all_away(lab, Duration::from_secs(15)).await?;
        lab.flowing_within("everybody has signalling and media again", 3 * LIVENESS)
            .await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        everybody_resumed(lab, from).await?;
        lab.one_state().await
    })
}

/// SIGSTOP of one replica across the ends of all leases, then SIGCONT: it has heard nobody for long, and nobody is dead.
pub(crate) fn one_paused(name: &'static str) -> Result<()> {
    run(name, Setup::default(), shape(), async |lab| {
        let from = lab.crowd.now();
        let paused = replica("local-1")?;
        paused.process.signal(Signal::STOP)?;
        tokio::time::sleep(Duration::from_secs(20)).await;
        paused.process.signal(Signal::CONT)?;
        lab.flowing_within("everybody has signalling and media again", 2 * LIVENESS)
            .await?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let figures = lab.settled(from).await;
        lab.without_a_gap("pause", &figures)?;
        ensure!(
            figures.joined == 0,
            "somebody was moved: {}",
            lab.crowd.story(from)
        );
        lab.enters("room-0", "late", &paused.gateway()).await?;
        lab.meet("fresh", &[paused.gateway(), replica("local-0")?.gateway()])
            .await?;
        lab.one_state().await
    })
}

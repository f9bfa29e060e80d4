// SPDX-License-Identifier: EUPL-1.2
//! One node is emptied: by an order, by a signal, and by a signal while nobody can help.

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::processes::{Held, Process};
use e2e::system::{Setup, program};
use plenum_load::crowd::{Figures, Shape};
use plenum_load::person::record::{Happened, Millis};
use rustix::process::Signal;
use serde_json::Value;

use crate::lab::{LIVENESS, Lab, pool, replicas, run, shape, until};

/// Eight rooms of four on two nodes.
fn crowd() -> Shape {
    Shape {
        rooms: 8,
        ..shape()
    }
}

/// Two nodes whose rooms may go on for so long after SIGTERM.
fn patient(seconds: u32) -> Setup {
    let pool = format!(
        "{}  drain:\n    timeout: {seconds}s\n    announceBefore: 5s\n",
        pool(2, 1_000)
    );
    Setup {
        manifests: vec![("pool.yaml", pool)],
        ..Setup::default()
    }
}

/// Runs a verb on the case's system without holding up the crowd.
pub(crate) async fn plenum(lab: &Lab, args: &[&str]) -> Result<Output> {
    let mut command = Command::new(program("plenum")?);
    command
        .args(args)
        .arg("--state-dir")
        .arg(lab.system.folder().join("state"))
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(
        output.status.success(),
        "plenum {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

/// Events of a verb with `--output json`.
pub(crate) fn events(output: &Output) -> Result<Vec<Value>> {
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

/// Rooms whose people had to join anew.
pub(crate) fn moved(lab: &Lab, from: Millis) -> BTreeSet<String> {
    let joined = |what: &Happened| *what == Happened::Joined;
    lab.crowd
        .people()
        .filter(|(_, person)| person.record().count(from, joined) > 0)
        .map(|(room, _)| room.to_owned())
        .collect()
}

/// Figures of the rooms that moved; the others missed nothing, and nobody gave up.
pub(crate) async fn judge(lab: &Lab, what: &str, from: Millis) -> Result<(usize, Figures)> {
    lab.flowing("everybody sees everybody again").await?;
    // What is on its way at the end of the window arrives after it.
    let to = lab.crowd.now();
    let whole = lab.settled(from).await;
    let moved = moved(lab, from);
    let figures = lab.crowd.figures_of(from, to, |room| moved.contains(room));
    lab.figure(&format!("{what}_rooms_moved"), moved.len(), "rooms");
    lab.show(what, &figures);
    let stayed = lab.crowd.figures_of(from, to, |room| !moved.contains(room));
    lab.without_a_gap(&format!("{what}_elsewhere"), &stayed)?;
    ensure!(
        whole.gave_up == 0 && whole.without.is_empty(),
        "somebody is gone: {}",
        lab.crowd.story(from)
    );
    Ok((moved.len(), figures))
}

/// `plenum drain NODE`, at once.
pub(crate) fn by_order(name: &'static str) -> Result<()> {
    run(name, Setup::default(), crowd(), async |lab| {
        let from = lab.crowd.now();
        let args = ["drain", "local-0", "--timeout-seconds", "0", "-o", "json"];
        let said = events(&plenum(lab, &args).await?)?;
        let empty = said.last().context("drain says how it ended")?;
        ensure!(
            empty["event"] == "empty" && empty["roomsWithoutPlace"] == 0,
            "{said:?}"
        );
        lab.figure("time_to_empty", &empty["seconds"], "s");
        let (rooms, _) = judge(lab, "drain", from).await?;
        ensure!(rooms > 0, "no room was on the node: {said:?}");
        lab.one_state().await?;
        // Both drained: nothing has a place, and nothing ends.
        plenum(lab, &["drain", "local-1", "--no-wait"]).await?;
        let from = lab.crowd.now();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let figures = lab.settled(from).await;
        lab.without_a_gap("both_drained", &figures)?;
        ensure!(
            figures.joined == 0,
            "somebody was sent away: {}",
            lab.crowd.story(from)
        );
        plenum(lab, &["drain", "local-0", "--undo"]).await?;
        until("local-1 is empty", LIVENESS, async || {
            let nodes = lab.system.get("nodes")?;
            ensure!(
                nodes
                    .iter()
                    .any(|node| node["status"]["drain"]["phase"] == "Drained"
                        && node["metadata"]["name"] == "local-1"),
                "{nodes:?}"
            );
            Ok(())
        })
        .await?;
        lab.flowing("everybody sees everybody on the first node")
            .await?;
        lab.one_state().await
    })
}

/// A media node that holds rooms of the crowd.
async fn busy_node(lab: &Lab) -> Result<Process> {
    let nodes = lab.system.get("nodes")?;
    let node = nodes
        .iter()
        .max_by_key(|node| node["status"]["load"]["rooms"].as_u64())
        .context("there are nodes")?;
    let uid = node["metadata"]["uid"]
        .as_str()
        .context("a node has a uid")?;
    Process::all("media-node")
        .into_iter()
        .find(|process| process.options("node-uid").any(|own| own == uid))
        .context("the node runs")
}

async fn gone(process: &Process, bound: Duration) -> Result<()> {
    until("the node ends", bound, async || {
        let running = Process::all("media-node");
        ensure!(running.iter().all(|other| other.pid != process.pid));
        Ok(())
    })
    .await
}

/// SIGTERM of a media node.
pub(crate) fn by_signal(name: &'static str) -> Result<()> {
    run(name, patient(40), crowd(), async |lab| {
        let node = busy_node(lab).await?;
        let from = lab.crowd.now();
        node.signal(Signal::TERM)?;
        gone(&node, Duration::from_secs(40)).await?;
        let took = lab.crowd.now().since(from);
        lab.figure("time_to_end", took.as_millis(), "ms");
        let (rooms, _) = judge(lab, "sigterm", from).await?;
        ensure!(rooms > 0, "no room was on the node");
        lab.one_state().await
    })
}

/// SIGTERM of a media node while no replica runs: at the deadline its people are told to come again.
pub(crate) fn by_signal_alone(name: &'static str) -> Result<()> {
    run(name, patient(8), crowd(), async |lab| {
        let node = busy_node(lab).await?;
        let held = Held::down(&program("control-plane")?)?;
        for replica in replicas()? {
            replica.process.signal(Signal::KILL)?;
        }
        let from = lab.crowd.now();
        node.signal(Signal::TERM)?;
        gone(&node, LIVENESS).await?;
        let took = lab.crowd.now().since(from);
        lab.figure("time_to_end", took.as_millis(), "ms");
        drop(held);
        lab.flowing_within("everybody sees everybody again", 2 * LIVENESS)
            .await?;
        ensure!(!moved(lab, from).is_empty(), "nobody had to come again");
        lab.one_state().await
    })
}

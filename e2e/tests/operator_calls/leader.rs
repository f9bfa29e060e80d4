// SPDX-License-Identifier: EUPL-1.2
//! The operator that leads is killed, and paused past its lease.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::cluster::AuditEntry;
use e2e::installed::{CONFERENCE, Installed};
use e2e::processes::Process;
use jiff::Timestamp;
use kube::Api;
use plenum_api::Conference;
use rustix::process::Signal;

use crate::people::People;
use crate::seen::{leader, until};

const TENANT: &str = "tenant-city";
const OPERATOR: &str = "system:serviceaccount:plenum-system:plenum-operator";
/// Key of the pod's name in what the API server knows of a ServiceAccount.
const POD: &str = "authentication.kubernetes.io/pod-name";
/// A former leader that has come back would have written by then.
const REMORSE: Duration = Duration::from_secs(6);

/// SIGKILL: another one writes once the lease has run out, and calls notice nothing.
pub(crate) async fn killed(installed: &Installed, people: &mut People) -> Result<()> {
    let before = leader(installed).await?;
    let from = people.now();
    process_of(pod_of(&before))?.signal(Signal::KILL)?;
    let began = Instant::now();
    reconciles(installed, "killed").await?;
    println!(
        "figure: another operator writes {:.1} s after the leader was killed",
        began.elapsed().as_secs_f64()
    );
    let now = leader(installed).await?;
    ensure!(now != before, "{now} leads still");
    people.noticed_nothing("leader killed", from).await
}

/// SIGSTOP until another one leads, then SIGCONT: what the former leader had in hand is never written, and calls notice nothing.
pub(crate) async fn paused(installed: &Installed, people: &mut People) -> Result<()> {
    let before = leader(installed).await?;
    let former = process_of(pod_of(&before))?;
    let from = people.now();
    let since = Timestamp::now();
    former.signal(Signal::STOP)?;
    let began = Instant::now();
    let now = until("another operator leads", async || {
        let now = leader(installed).await?;
        ensure!(now != before, "{now} leads still");
        Ok(now)
    })
    .await?;
    println!(
        "figure: another operator leads {:.1} s after the leader was paused",
        began.elapsed().as_secs_f64()
    );
    reconciles(installed, "paused").await?;
    // It comes back in the middle of changes that it believes to be its own to carry out.
    change(installed, "resuming").await?;
    former.signal(Signal::CONT)?;
    let end = Instant::now() + REMORSE;
    let mut number = 0;
    while Instant::now() < end {
        number += 1;
        reconciles(installed, &format!("resumed-{number}")).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    ensure!(leader(installed).await? == now, "the leader changed again");
    let log = installed.cluster.api().audit()?;
    let late = late_writes(&log, &before, &now, since)?;
    ensure!(
        late.is_empty(),
        "the former leader wrote after {now} led: {late:#?}"
    );
    people
        .noticed_nothing("leader paused past its lease", from)
        .await
}

/// What the former leader wrote since the first write of the next one, the Lease apart, which only one of them gets.
fn late_writes<'a>(
    log: &'a [AuditEntry],
    before: &str,
    now: &str,
    since: Timestamp,
) -> Result<Vec<&'a AuditEntry>> {
    let mut writes = Vec::new();
    for entry in log {
        let at: Timestamp = entry.request_received_timestamp.parse()?;
        if entry.is_write() && entry.user.username == OPERATOR && at >= since {
            writes.push((at, entry));
        }
    }
    let by = |entry: &AuditEntry, identity: &str| {
        let pods = entry.user.extra.get(POD).into_iter().flatten();
        pods.into_iter().any(|pod| pod == pod_of(identity))
    };
    let (taken, _) = writes
        .iter()
        .find(|(_, entry)| entry.resource() == "leases" && by(entry, now))
        .context("the next leader has written the Lease")?;
    ensure!(
        writes
            .iter()
            .any(|(at, entry)| at > taken && by(entry, now) && entry.resource() != "leases"),
        "the next leader has written nothing"
    );
    Ok(writes
        .iter()
        .filter(|(at, entry)| at >= taken && by(entry, before) && entry.resource() != "leases")
        .map(|(_, entry)| *entry)
        .collect())
}

/// The operator carries out a change of an object.
pub(crate) async fn reconciles(installed: &Installed, name: &str) -> Result<()> {
    let generation = change(installed, name).await?;
    until("the operator has seen a change", async || {
        let status = conferences(installed).get(CONFERENCE).await?.status;
        let seen = status.and_then(|status| status.observed_generation);
        ensure!(
            seen >= Some(generation),
            "generation {generation} is not seen: {seen:?}"
        );
        Ok(())
    })
    .await
}

/// Somebody renames the conference; gives the generation.
async fn change(installed: &Installed, name: &str) -> Result<i64> {
    let patch = format!(
        "-n {TENANT} patch conference {CONFERENCE} --type=merge -p {{\"spec\":{{\"displayName\":\"Council-{name}\"}}}}"
    );
    installed.kubectl(&patch).await?;
    let conference = conferences(installed).get(CONFERENCE).await?;
    conference
        .metadata
        .generation
        .context("an object has a generation")
}

fn conferences(installed: &Installed) -> Api<Conference> {
    Api::namespaced(installed.cluster.client(), TENANT)
}

/// The pod of a leader.
fn pod_of(identity: &str) -> &str {
    identity.rsplit_once('_').map_or(identity, |(pod, _)| pod)
}

/// The operator's process in a pod.
fn process_of(pod: &str) -> Result<Process> {
    let variable = format!("POD_NAME={pod}");
    Process::all("operator")
        .into_iter()
        .find(|process| {
            let all = std::fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
            all.split(|byte| *byte == 0)
                .any(|one| one == variable.as_bytes())
        })
        .with_context(|| format!("an operator runs in {pod}"))
}

// SPDX-License-Identifier: EUPL-1.2
//! A cluster in which nothing happens: conferences are declared, media nodes stand, rooms carry people, and nobody of Plenum writes
//! to the API server.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::chart;
use e2e::cluster::AuditEntry;
use e2e::installed::Installed;

use crate::figure;
use crate::people::People;

/// Nothing written for so long: what was begun has come to its end.
const SETTLED: Duration = Duration::from_secs(35);
const PATIENCE: Duration = Duration::from_secs(300);

/// Whoever acts for Plenum: the operator, and whatever runs in namespaces that are Plenum's.
fn is_plenums(entry: &AuditEntry) -> bool {
    let namespaces = [chart::NAMESPACE, "media", "tenant-city"];
    namespaces.iter().any(|namespace| {
        let accounts = format!("system:serviceaccount:{namespace}:");
        entry.user.username.starts_with(&accounts)
    })
}

/// Writes of Plenum from the entry `from` on. The lease is how replicas agree who works.
fn writes(installed: &Installed, from: usize) -> Result<Vec<String>> {
    let audit = installed.cluster.api().audit()?;
    Ok(audit
        .iter()
        .skip(from)
        .filter(|entry| is_plenums(entry) && entry.is_write() && entry.resource() != "leases")
        .map(|entry| {
            format!(
                "{} {} {} {} by {}: {}",
                entry.request_received_timestamp,
                entry.verb,
                entry.uri,
                entry.code(),
                entry.user.username,
                entry.request_object
            )
        })
        .collect())
}

pub(crate) async fn nothing_is_written(
    installed: &Installed,
    people: &mut People,
    length: Duration,
) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    let (mut known, mut last) = (0, Instant::now());
    while last.elapsed() < SETTLED {
        let writes = writes(installed, 0)?;
        if writes.len() > known {
            (known, last) = (writes.len(), Instant::now());
        }
        ensure!(
            Instant::now() < end,
            "it does not settle: {:#?}",
            &writes[writes.len().saturating_sub(10)..]
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (from, people_from) = (installed.cluster.api().audit()?.len(), people.now());
    tokio::time::sleep(length).await;
    let audit = installed.cluster.api().audit()?;
    let leases = audit
        .iter()
        .skip(from)
        .filter(|entry| is_plenums(entry) && entry.is_write() && entry.resource() == "leases")
        .count();
    ensure!(
        leases > 0,
        "the log does not even hold that the lease was renewed"
    );
    let writes = writes(installed, from)?;
    figure("idle_length", length.as_secs(), "s");
    figure("idle_writes", writes.len(), "writes");
    figure("idle_lease_renewals", leases, "writes");
    ensure!(
        writes.is_empty(),
        "nothing happened for {length:?}, and Plenum wrote: {writes:#?}"
    );
    people.nothing_happened_since(people_from).await;
    Ok(())
}

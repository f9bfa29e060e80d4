// SPDX-License-Identifier: EUPL-1.2
//! The bell: at a minute that was declared before, the pool has more nodes than its load needs, and gives them back afterwards.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::installed::Installed;
use e2e::prometheus::Prometheus;
use jiff::{Timestamp, ToSpan as _, Unit};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use plenum_api::{MediaNode, MediaPool};
use serde_json::json;

use crate::people::People;
use crate::{Day, figure};

const ZONE: &str = "Europe/Berlin";
const PATIENCE: Duration = Duration::from_secs(420);
const LOOK: Duration = Duration::from_millis(250);

/// The example with a pool that scales and a tenant whose rooms open on join. Rooms of a node that goes move at once, and people are not
/// told long before.
pub(crate) fn declared(text: &str, day: &Day) -> String {
    let autoscaling = format!(
        "autoscaling:\n    minReplicas: {}\n    maxReplicas: {}\n    buffer:\n      type: Percent\n      percent: 25\n    scaleDown:\n      \
         stabilization: 20s\n      maxConcurrentDrains: {}\n",
        day.few, day.many, day.drains
    );
    text.replace("replicas: 2\n", &autoscaling)
        .replace(
            "    timeout: 2h\n",
            "    timeout: 2h\n    announceBefore: 1s\n    strategy: Move\n",
        )
        .replace("memory: 512Mi", "memory: 96Mi")
        .replace(
            "  auth:\n    apiKeySecretRefs:",
            "  adHoc:\n    rooms: OnJoin\n    className: meeting\n  namespace:\n    deletionPolicy: Delete\n  auth:\n    apiKeySecretRefs:",
        )
}

fn pools(installed: &Installed) -> Api<MediaPool> {
    Api::namespaced(installed.cluster.client(), "media")
}

async fn nodes(installed: &Installed) -> Result<Vec<MediaNode>> {
    let api = Api::<MediaNode>::namespaced(installed.cluster.client(), "media");
    Ok(api.list(&ListParams::default()).await?.items)
}

async fn pods(installed: &Installed) -> Result<usize> {
    let api = Api::<Pod>::namespaced(installed.cluster.client(), "media");
    Ok(api.list_metadata(&ListParams::default()).await?.items.len())
}

/// Declares the floor from `start` on, for so many seconds.
async fn declare(installed: &Installed, start: Timestamp, seconds: i64, floor: u32) -> Result<()> {
    let start = start.in_tz(ZONE)?.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    let patch = json!({ "spec": { "autoscaling": { "schedule": [{
        "start": start, "timeZone": ZONE, "duration": format!("{seconds}s"), "minReplicas": floor,
    }] } } });
    installed
        .kubectl(&format!(
            "-n media patch mediapool city --type=merge -p {patch}"
        ))
        .await?;
    println!("the bell rings at {start} {ZONE}, for {seconds} s");
    Ok(())
}

/// Waits until so many nodes take rooms, and nobody goes; how many pods there were at most.
async fn until_accepting(installed: &Installed, wanted: u32) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let pool = pools(installed).get("city").await?;
        let status = pool.status.context("the pool has a status")?;
        if status.accepting_replicas == wanted && status.draining_replicas == 0 {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "{} nodes take rooms and {} drain, not {wanted} and 0",
            status.accepting_replicas,
            status.draining_replicas
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// The bell rings, and rooms that begin then find their place on the nodes that came.
pub(crate) async fn rings(
    installed: &Installed,
    prometheus: &Prometheus,
    people: &mut People,
    day: &Day,
) -> Result<()> {
    until_accepting(installed, day.few).await?;
    let old: BTreeSet<String> = names(&nodes(installed).await?);
    ensure!(old.len() == day.few as usize, "{old:?}");
    let from = people.now();
    let bell = (Timestamp::now() + day.ahead).round(Unit::Second)? + 1.second();
    // The end is not near: it is declared when everybody is there.
    declare(installed, bell, 3_600, day.many).await?;
    until_accepting(installed, day.many).await?;
    let took = Timestamp::now().duration_since(bell);
    ensure!(
        !took.is_negative(),
        "the nodes came {took:#} before the bell"
    );
    figure("nodes", day.many, "nodes");
    figure("bell_to_all_accepting", took.as_millis(), "ms");
    let came: BTreeSet<String> = names(&nodes(installed).await?);
    let new: BTreeSet<&String> = came.difference(&old).collect();
    people
        .nobody_was_cut_since("rising", from, |_| true)
        .await?;
    spread_over_machines(installed).await?;

    people.late(day.many).await?;
    let end = Instant::now() + PATIENCE;
    loop {
        let carrying = prometheus
            .query("sum by (pod) (plenum_media_rooms) > 0")
            .await?;
        let rooms = |of: &dyn Fn(&String) -> bool| -> f64 {
            let of = carrying
                .iter()
                .filter(|(labels, _)| labels.get("pod").is_some_and(of));
            of.map(|(_, rooms)| *rooms).sum()
        };
        let on_new = rooms(&|pod| new.contains(pod));
        let all = rooms(&|_| true);
        // Those of the morning are on nodes that were there before.
        if all >= f64::from(day.many + 2) {
            figure("rooms", all, "rooms");
            figure("rooms_on_new_nodes", on_new, "rooms");
            let busy = carrying
                .iter()
                .filter(|(labels, _)| labels.get("pod").is_some_and(|pod| new.contains(pod)));
            figure("new_nodes_with_rooms", busy.count(), "nodes");
            ensure!(
                on_new >= f64::from(day.many - day.few) / 2.0,
                "of {all} rooms only {on_new} are on the nodes that came: {carrying:?}"
            );
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "{all} rooms are on media nodes, not {}: {carrying:?}",
            day.many + 2
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn names(nodes: &[MediaNode]) -> BTreeSet<String> {
    nodes.iter().map(|node| node.name_any()).collect()
}

/// Both machines carry pods.
async fn spread_over_machines(installed: &Installed) -> Result<()> {
    let mut machines: Vec<String> = nodes(installed)
        .await?
        .into_iter()
        .filter_map(|node| node.status?.node_name)
        .collect();
    let all = machines.len();
    machines.sort();
    machines.dedup();
    ensure!(machines.len() == 2, "{all} nodes are on {machines:?}");
    Ok(())
}

/// The floor goes. Whoever talks on a node that stays hears nothing of it; rooms of the others move.
pub(crate) async fn is_over(installed: &Installed, people: &mut People, day: &Day) -> Result<()> {
    let from = people.now();
    let began = Timestamp::now() - 60.seconds();
    declare(installed, began, 65, day.many).await?;
    let ended = Instant::now();
    until_accepting(installed, day.few).await?;
    let end = Instant::now() + PATIENCE;
    // Nodes whose pod is gone are remembered for a while.
    loop {
        let pods = pods(installed).await?;
        if pods == day.few as usize {
            break;
        }
        ensure!(
            Instant::now() < end,
            "{pods} pods are left, not {}",
            day.few
        );
        tokio::time::sleep(LOOK).await;
    }
    figure("end_to_few_nodes", ended.elapsed().as_millis(), "ms");
    people
        .flow("everybody has media on the nodes that are left")
        .await?;
    let moved = people.moved_since(from);
    ensure!(
        !moved.is_empty(),
        "rooms were on every node, and none of them moved"
    );
    people
        .nobody_was_cut_since("staying", from, |room| !moved.iter().any(|one| one == room))
        .await?;
    people.came_back_since(from, &moved).await
}

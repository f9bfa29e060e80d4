// SPDX-License-Identifier: EUPL-1.2
//! What of maintenance windows reaches the control plane, and with it people.

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use plenum_api::{MaintenanceWindow, MediaNode};
use serde_json::json;

use crate::world::{World, eventually};

/// From its announcement on, and no more once it is taken back.
pub(crate) async fn a_media_node_is_published_with_the_window_that_will_empty_it(
    world: &World,
) -> Result<()> {
    let machine: Node = serde_json::from_value(
        json!({ "metadata": { "name": "m1", "labels": { "rack": "m1" } } }),
    )?;
    let machines = Api::<Node>::all(world.client.clone());
    machines.create(&PostParams::default(), &machine).await?;
    let nodes = world.of::<MediaNode>("media");
    let node: MediaNode = serde_json::from_value(json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": "MediaNode", "metadata": { "name": "local-1" },
        "spec": { "poolRef": { "name": "local" }, "revision": "1", "ports": { "base": 20_000, "count": 1 } },
    }))?;
    let node = nodes.create(&PostParams::default(), &node).await?;
    let status =
        json!({ "status": { "nodeName": "m1", "epoch": 1, "grpcEndpoint": "10.0.0.1:7882" } });
    let params = PatchParams::default();
    nodes
        .patch_status("local-1", &params, &Patch::Merge(&status))
        .await?;
    let uid = node.uid().context("a uid")?;
    let told = |wanted: i64| {
        let uid = uid.clone();
        async move {
            eventually("the node with its maintenance", || async {
                let seen = world.control.node(&uid);
                let at = seen.as_ref().map(|record| record.maintenance_at_unix_ms);
                Ok(if at == Some(wanted) {
                    Ok(())
                } else {
                    Err(seen)
                })
            })
            .await
        }
    };
    told(0).await?;
    let begins = Timestamp::now() + SignedDuration::from_hours(2);
    let start = begins.to_string();
    let start = start.get(..16).context("a moment")?;
    let window = |announce: &str| {
        serde_json::from_value::<MaintenanceWindow>(json!({
            "apiVersion": "plenum.dev/v1alpha1", "kind": "MaintenanceWindow", "metadata": { "name": "rack" },
            "spec": {
                "schedule": { "start": start, "timeZone": "UTC", "duration": "2h" },
                "action": "Drain", "selector": { "nodes": { "matchLabels": { "rack": "m1" } } },
                "announceBefore": announce, "override": { "reason": "agreed by telephone" },
            },
        }))
    };
    let windows = Api::<MaintenanceWindow>::all(world.client.clone());
    let made = windows
        .create(&PostParams::default(), &window("3h")?)
        .await?;
    let begins: Timestamp = format!("{start}:00Z").parse()?;
    told(begins.as_millisecond()).await?;
    // Announced later after all.
    let mut later = window("30m")?;
    later.metadata.resource_version = made.metadata.resource_version;
    windows
        .replace("rack", &PostParams::default(), &later)
        .await?;
    told(0).await?;
    windows.delete("rack", &DeleteParams::default()).await?;
    nodes.delete("local-1", &DeleteParams::default()).await?;
    machines.delete("m1", &DeleteParams::default()).await?;
    Ok(())
}

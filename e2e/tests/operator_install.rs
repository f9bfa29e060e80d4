// SPDX-License-Identifier: EUPL-1.2
//! The whole of it on a real cluster: Helm installs the chart, `kubectl apply` declares the example of the documentation, and people
//! outside of the pods' network meet through a port of a node and a media node's own.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::cluster::Cluster;
use e2e::installed::{self, CONFERENCE, Installed, MACHINE, plain, token};
use plenum_load::crowd::{Crowd, Shape};
use plenum_load::person::record::{Kind, Millis};
use plenum_load::person::retry::Policy;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn an_installed_chart_carries_the_declared_conference() -> Result<()> {
    installed::run(
        "an_installed_chart_carries_the_declared_conference",
        &json!({}),
        async |installed| {
            let done = carries(&installed).await;
            (installed, done)
        },
    )
}

async fn carries(installed: &Installed) -> Result<()> {
    installed.declare(|text| text).await?;
    println!("{}", installed.kubectl("get plenum -A -o wide").await?);
    people_meet(&installed.cluster).await
}

/// Three people join the declared conference from outside of the pods' network and get each other's media.
async fn people_meet(cluster: &Cluster) -> Result<()> {
    let node = cluster.nodes()[0].address();
    let gateway = format!("ws://{}", plain(cluster, node).await?);
    let shape = Shape {
        rooms: 1,
        people: 3,
        cameras: 2,
        microphones: 1,
        picture_bytes: 700,
        policy: Policy::Page,
        address: MACHINE,
    };
    let mut crowd = Crowd::new();
    let gateways = [gateway];
    // Who opens comes first; until then the door is shut.
    let opener = token("opener")?;
    crowd.enter(CONFERENCE, "opener", opener, Vec::new(), &shape, &gateways);
    let without = crowd.until_flowing(PATIENCE).await;
    ensure!(
        without.is_empty(),
        "{without:?}\n{}",
        crowd.story(Millis(0))
    );
    for (identity, publishes) in [
        ("camera", vec![Kind::Audio, Kind::Video]),
        ("microphone", vec![Kind::Audio]),
    ] {
        let token = token(identity)?;
        crowd.enter(CONFERENCE, identity, token, publishes, &shape, &gateways);
    }
    let without = crowd.until_flowing(PATIENCE).await;
    ensure!(
        without.is_empty(),
        "{without:?}\n{}",
        crowd.story(Millis(0))
    );
    println!("three people get each other's media");
    crowd.leave().await;
    Ok(())
}

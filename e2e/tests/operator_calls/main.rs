// SPDX-License-Identifier: EUPL-1.2
//! People talk on both machines of a cluster while it is operated: one disturbance after the other, and every missing frame is counted.
//!
//! They sit outside of the pods' network and come by the gateway's NodePort; their media take the hostPorts of the media nodes. What
//! takes nothing from calls (operator, API server) must cost no frame; what empties a media node moves its rooms, and the gap of that
//! is measured. `PLENUM_LONG=1` lets absences last for five minutes.

mod away;
mod drain;
mod leader;
mod people;
mod seen;
mod update;

use std::time::Duration;

use anyhow::Result;
use e2e::installed::{self, Installed};
use serde_json::json;

use people::People;

/// Two replicas of everything, so that a whole machine can be emptied, and a store that outlives them.
fn values() -> serde_json::Value {
    json!({
        "images": { "redis": { "repository": "plenum-redis", "tag": "dev" } },
        "controlPlane": { "replicas": 2 },
        "store": "Redis",
        "redis": { "demonstration": { "enabled": true } },
    })
}

#[test]
fn calls_go_on_while_the_cluster_is_operated() -> Result<()> {
    installed::run(
        "calls_go_on_while_the_cluster_is_operated",
        &values(),
        async |mut installed| {
            let done = goes_on(&mut installed).await;
            (installed, done)
        },
    )
}

async fn goes_on(installed: &mut Installed) -> Result<()> {
    installed.declare(declared).await?;
    seen::spread_over_both(installed).await?;
    let mut people = People::enter(installed).await?;
    let done = all(installed, &mut people).await;
    people.table();
    if done.is_err() {
        println!("{}", people.story());
    }
    people.leave().await;
    done
}

async fn all(installed: &mut Installed, people: &mut People) -> Result<()> {
    leader::killed(installed, people).await?;
    leader::paused(installed, people).await?;
    away::api_server(installed, people).await?;
    away::operator(installed, people).await?;
    let emptied = drain::machine(installed, people).await?;
    drain::deleted(installed, people, &emptied).await?;
    update::image(installed, people).await
}

/// The example, with rooms that are no objects and with drains that wait for a few seconds only. Updates may happen at any time.
fn declared(text: String) -> String {
    let spread = "template:\n    topologySpreadConstraints:\n      - topologyKey: kubernetes.io/hostname\n        maxSkew: 1\n        \
                  whenUnsatisfiable: ScheduleAnyway\n";
    text.replace(
        "  auth:\n",
        "  adHoc:\n    rooms: OnJoin\n    className: meeting\n  auth:\n",
    )
    .replace("timeout: 2h", "timeout: 10s\n    announceBefore: 5s")
    .replace("template:\n", spread)
    .replace("action: AllowUpdates", "action: Freeze")
    .replace("start: \"2026-09-06T03:00\"", "start: \"2030-09-01T03:00\"")
}

/// How long parts are away.
fn absence(short: Duration) -> Duration {
    if std::env::var_os("PLENUM_LONG").is_some_and(|long| long == "1") {
        Duration::from_secs(300)
    } else {
        short
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! The life of an installation with Redis and two replicas of the control plane: two browsers meet in a conference that `kubectl apply`
//! declared, `helm test` is content, people talk through an upgrade of the chart and its rollback, and what uninstalling leaves is what
//! the documentation says.

mod browsers;
mod people;
mod release;
mod rolling;
mod uninstall;

use anyhow::Result;
use e2e::installed::{self, Installed};
use serde_json::{Value, json};

use people::People;

#[test]
fn an_installation_lives_under_calls() -> Result<()> {
    installed::run(
        "an_installation_lives_under_calls",
        &values(),
        async |mut installed| {
            let done = life(&mut installed).await;
            (installed, done)
        },
    )
}

/// Two replicas that share the demonstration's Redis, packed from Debian's.
fn values() -> Value {
    json!({
        "controlPlane": { "replicas": 2 },
        "store": "Redis",
        "redis": { "demonstration": { "enabled": true } },
        "images": { "redis": { "repository": "plenum-redis", "tag": "dev" } },
    })
}

async fn life(installed: &mut Installed) -> Result<()> {
    installed.declare(declared).await?;
    release::test(installed)?;
    browsers::meet(installed).await?;
    let mut people = People::enter(installed).await?;
    let done = release::upgrade_and_rollback(installed, &mut people).await;
    people.leave().await;
    done?;
    uninstall::leaves_what_is_said(installed).await?;
    uninstall::begins_again_and_ends_for_good(installed).await
}

/// The example, with rooms that are no objects, with drains that wait for seconds, and with a window that does not open during a test.
fn declared(text: String) -> String {
    text.replace(
        "  auth:\n",
        "  adHoc:\n    rooms: OnJoin\n    className: meeting\n  auth:\n",
    )
    .replace("timeout: 2h", "timeout: 10s\n    announceBefore: 5s")
    .replace("2026-09-06T03:00", "2096-09-02T03:00")
}

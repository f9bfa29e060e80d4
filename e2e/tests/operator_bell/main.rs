// SPDX-License-Identifier: EUPL-1.2
//! A day of an installation: it stands idle and writes nothing, a bell rings and the pool grows, rooms land on the new nodes, the bell
//! is over and the pool shrinks while people talk. A Prometheus watches, and the audit log tells what rights were used.

mod bell;
mod boards;
mod idle;
mod people;
mod rights;
mod store;

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::chart::{self, Document, Helm};
use e2e::installed::{self, Installed};
use e2e::prometheus::Prometheus;
use serde_json::{Value, json};

use people::People;

/// Time between scrapes.
const SCRAPED: Duration = Duration::from_secs(5);

/// How much of it there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Day {
    /// How long the cluster is watched doing nothing.
    idle: Duration,
    /// Nodes without a bell.
    few: u32,
    /// Nodes that the bell calls.
    many: u32,
    /// How long before the bell it is declared.
    ahead: Duration,
    /// Nodes that are emptied at a time.
    drains: u32,
}

impl Day {
    /// Of a test run, or of the long one.
    fn of_this_run() -> Self {
        if std::env::var_os("PLENUM_LONG").is_some_and(|long| long == "1") {
            Self {
                idle: Duration::from_secs(600),
                few: 3,
                many: 30,
                ahead: Duration::from_secs(120),
                drains: 5,
            }
        } else {
            Self {
                idle: Duration::from_secs(120),
                few: 2,
                many: 6,
                ahead: Duration::from_secs(20),
                drains: 2,
            }
        }
    }
}

#[test]
fn a_bell_calls_nodes_and_sends_them_home_and_in_between_nothing_is_written() -> Result<()> {
    let values = json!({
        "images": { "redis": { "repository": "plenum-redis", "tag": "dev" } },
        "store": "Redis",
        "redis": { "demonstration": { "enabled": true } },
        "monitoring": { "serviceMonitor": { "interval": format!("{}s", SCRAPED.as_secs()) } },
    });
    installed::run(
        "a_bell_calls_nodes_and_sends_them_home_and_in_between_nothing_is_written",
        &values,
        async |installed| {
            let done = day(&installed, &values).await;
            (installed, done)
        },
    )
}

async fn day(installed: &Installed, values: &Value) -> Result<()> {
    let day = Day::of_this_run();
    let rendered = rendered(installed, values)?;
    installed
        .declare(|text| bell::declared(&text, &day))
        .await?;
    let rules = chart::folder().join("files/rules.yaml");
    let prometheus = Prometheus::start(&installed.cluster, &rendered, SCRAPED, &rules).await?;
    let mut people = People::new(installed).await?;
    people.early().await?;

    idle::nothing_is_written(installed, &mut people, day.idle).await?;
    store::only_the_control_plane_knows_it()?;
    bell::rings(installed, &prometheus, &mut people, &day).await?;
    store::only_the_control_plane_knows_it()?;
    bell::is_over(installed, &mut people, &day).await?;
    store::only_the_control_plane_knows_it()?;
    let boards = boards::have_data(&prometheus, SCRAPED).await;
    people.leave().await;
    rights::everything_goes(installed).await?;
    let rights = rights::granted_are_used(installed, &rendered);
    // A day is long: both are told.
    match (boards, rights) {
        (Err(boards), Err(rights)) => Err(boards.context(format!("{rights:#}"))),
        (boards, rights) => boards.and(rights),
    }
}

/// The objects of the chart with the values of the installation, monitors among them, whose kinds the cluster does not have.
fn rendered(installed: &Installed, values: &Value) -> Result<Vec<Document>> {
    let Some(helm) = Helm::find()? else {
        return Ok(Vec::new());
    };
    let file = installed.cluster.folder().join("rendered-values.json");
    std::fs::write(&file, installed.values(values).to_string())?;
    let rendered = helm.render(&["--values", &file.to_string_lossy()])?;
    let documents = chart::documents(&rendered)?;
    ensure!(documents.len() > 20, "the chart renders its objects");
    Ok(documents)
}

/// Prints a figure.
pub(crate) fn figure(what: &str, value: impl std::fmt::Display, unit: &str) {
    println!("figure: bell/{what} {value} {unit}");
}

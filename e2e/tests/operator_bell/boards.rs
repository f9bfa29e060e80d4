// SPDX-License-Identifier: EUPL-1.2
//! Every query of the chart's dashboards and alerts returns data from the Prometheus that scraped the run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::chart;
use e2e::prometheus::Prometheus;
use serde_json::Value;

use crate::figure;

/// Queries about what does not happen when all is well, by a part of their text.
const NOTHING: &[(&str, &str)] = &[
    (
        "plenum_control_sessions_refused",
        "every token of the run is good",
    ),
    (
        "plenum_control_door_entries",
        "people of the run bring tokens and pass no door",
    ),
    (
        "plenum_control_records_refused",
        "everything that is declared is valid",
    ),
    (
        "plenum_control_webhook_delivered",
        "the tenant has no receiver of events",
    ),
    (
        "plenum_control_webhook_failed",
        "the tenant has no receiver of events",
    ),
    (
        "plenum_control_webhook_dropped",
        "the tenant has no receiver of events",
    ),
    (
        "plenum_control_placements_refused",
        "there is a node for every room",
    ),
    (
        "plenum_control_quota_refused",
        "the tenant stays below its limits",
    ),
    (
        "plenum_control_tenant_over_limit",
        "the tenant stays below its limits",
    ),
    (
        "plenum_control_planned_held",
        "no conference of the run has a schedule",
    ),
    (
        "plenum_control_planned_unheld",
        "no conference of the run has a schedule",
    ),
    ("outcome=\"Away\"", "the store never goes away"),
    ("outcome=\"Full\"", "the store has memory left"),
    (
        "plenum_control_store_values_broken",
        "nobody else writes into the store",
    ),
    ("plenum_operator_watch_restarts", "the API server stays"),
    (
        "plenum_operator_reconcile_failures",
        "conflicts come and go",
    ),
];

/// Alerts that a machine of tests may well deserve.
const DESERVED: &[(&str, &str)] = &[
    (
        "PlenumSocketBufferSmall",
        "what a kernel grants is the machine's business",
    ),
    (
        "PlenumStoreAway",
        "Redis on a machine that is busy with other tests may answer late once",
    ),
];

const PATIENCE: Duration = Duration::from_secs(60);

/// A query and where it stands.
struct Query {
    place: String,
    expression: String,
}

impl Query {
    /// It asks for what does not happen when all is well.
    fn is_declared(&self) -> bool {
        let mut parts = NOTHING.iter().map(|(part, _)| part);
        parts.any(|part| self.expression.contains(part))
    }
}

/// Of the panels, with the interval that Grafana chooses: four scrapes.
fn of_panels(scraped: Duration) -> Result<Vec<Query>> {
    let interval = format!("{}s", 4 * scraped.as_secs());
    let mut all = Vec::new();
    for file in std::fs::read_dir(chart::folder().join("files/dashboards"))? {
        let board: Value = serde_json::from_str(&std::fs::read_to_string(file?.path())?)?;
        for panel in board["panels"].as_array().context("panels")? {
            for target in panel["targets"].as_array().context("targets")? {
                let expression = target["expr"].as_str().context("expr")?;
                all.push(Query {
                    place: format!("{} / {}", board["title"], panel["title"]),
                    expression: expression.replace("$__rate_interval", &interval),
                });
            }
        }
    }
    ensure!(all.len() > 40, "the dashboards are read: {}", all.len());
    Ok(all)
}

/// What alerts compare with a limit: the expression without its limit, so that it says something while all is well.
fn of_alerts() -> Result<Vec<Query>> {
    let rules = std::fs::read_to_string(chart::folder().join("files/rules.yaml"))?;
    let rules: Value = serde_saphyr::from_str(&rules)?;
    let groups = rules["groups"].as_array().context("groups")?;
    let rules = groups.iter().filter_map(|group| group["rules"].as_array());
    let mut all = Vec::new();
    for rule in rules.flatten() {
        let expression = rule["expr"].as_str().context("expr")?;
        all.push(Query {
            place: format!("alert {}", rule["alert"]),
            expression: watched(expression)
                .with_context(|| format!("{expression}: a comparison with a number"))?,
        });
    }
    Ok(all)
}

fn watched(expression: &str) -> Option<String> {
    if let Some(inner) = expression.strip_prefix("absent(") {
        return Some(inner.strip_suffix(')')?.to_owned());
    }
    let (left, limit) = [" > ", " < ", " == "]
        .iter()
        .filter_map(|sign| expression.rsplit_once(sign))
        .min_by_key(|(_, limit)| limit.len())?;
    limit.parse::<f64>().ok()?;
    Some(left.to_owned())
}

/// Each pod of each part is scraped, once.
async fn everything_is_scraped(prometheus: &Prometheus) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let targets = prometheus.targets().await?;
        let down: Vec<_> = targets.iter().filter(|target| !target.up).collect();
        let pods: BTreeSet<&String> = targets.iter().map(|target| &target.pod).collect();
        let mut jobs: BTreeMap<&str, usize> = BTreeMap::new();
        for target in &targets {
            *jobs.entry(&target.job).or_default() += 1;
        }
        if down.is_empty() && pods.len() == targets.len() {
            let names: Vec<&str> = jobs.keys().copied().collect();
            let wanted = [
                "plenum-control-plane",
                "plenum-media-node",
                "plenum-operator",
            ];
            ensure!(names == wanted, "{jobs:?} is scraped, not {wanted:?}");
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "not every pod is scraped once: {jobs:?}, {down:#?}"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

pub(crate) async fn have_data(prometheus: &Prometheus, scraped: Duration) -> Result<()> {
    everything_is_scraped(prometheus).await?;
    let queries: Vec<Query> = of_panels(scraped)?
        .into_iter()
        .chain(of_alerts()?)
        .collect();
    let mut empty: Vec<&Query> = queries.iter().collect();
    let end = Instant::now() + PATIENCE;
    let strange = loop {
        let mut still = Vec::new();
        for query in empty {
            if prometheus.drawn(&query.expression, scraped).await? == 0 {
                still.push(query);
            }
        }
        empty = still;
        let strange: Vec<String> = empty
            .iter()
            .filter(|query| !query.is_declared())
            .map(|query| format!("{}: {}", query.place, query.expression))
            .collect();
        if strange.is_empty() || Instant::now() > end {
            break strange;
        }
        // What happened for the first time a moment ago has no rate before it was scraped twice.
        tokio::time::sleep(scraped).await;
    };
    figure("queries", queries.len(), "queries");
    figure("queries_without_data", empty.len(), "queries");
    ensure!(
        strange.is_empty(),
        "queries draw nothing although all of it ran: {strange:#?}"
    );
    let broken = prometheus.broken_rules().await?;
    ensure!(
        broken.is_empty(),
        "rules that cannot be evaluated: {broken:?}"
    );
    let alerts: Vec<_> = prometheus
        .alerts()
        .await?
        .into_iter()
        // What has begun a moment ago is over in another, or it fires.
        .filter(|(_, state)| state == "firing")
        .filter(|(name, _)| !DESERVED.iter().any(|(deserved, _)| name == deserved))
        .collect();
    ensure!(alerts.is_empty(), "all is well, and alerts say {alerts:?}");
    Ok(())
}

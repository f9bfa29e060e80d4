// SPDX-License-Identifier: EUPL-1.2
//! The operator in release build with 2,000 media nodes and 10,000 conferences on a real API server; kwok stands in for kubelets.
//!
//! Long: `PLENUM_LONG=1`. `PLENUM_SCALE=20/100` takes other numbers of nodes and conferences. What is wanted (docs/benchmarks.md) is
//! printed beside what was measured; a failure is three times as much.

mod figures;
mod listener;
mod place;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use figures::Passes;
use place::Place;
use tokio::time::sleep;

/// Memory that the operator is to stay below, MiB.
const MEMORY: f64 = 300.0;
/// Longest start.
const START: Duration = Duration::from_secs(30);
/// What 99 of 100 passes are to stay below, seconds.
const PASS: f64 = 0.1;
/// How long an operator that has nothing to do is watched.
const IDLE: Duration = Duration::from_secs(60);

/// Numbers of media nodes and conferences.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) nodes: usize,
    pub(crate) conferences: usize,
}

impl Scale {
    /// Pools that share the nodes.
    pub(crate) const POOLS: usize = 4;
    /// Tenants that share the conferences.
    pub(crate) const TENANTS: usize = 10;
    /// Machines that share the pods.
    pub(crate) const MACHINES: usize = 100;

    fn wanted() -> Self {
        let text = std::env::var("PLENUM_SCALE").unwrap_or_default();
        let parsed = text.split_once('/').and_then(|(nodes, conferences)| {
            Some((nodes.parse().ok()?, conferences.parse().ok()?))
        });
        let (nodes, conferences) = parsed.unwrap_or((2_000, 10_000));
        // Each pool and each tenant has the same number.
        Self {
            nodes: nodes / Self::POOLS * Self::POOLS,
            conferences: conferences / Self::TENANTS * Self::TENANTS,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_nodes_and_ten_thousand_conferences_stay_within_three_times_what_is_wanted()
-> Result<()> {
    if std::env::var_os("PLENUM_LONG").is_none_or(|long| long != "1") {
        println!("SKIPPED: for the long run (PLENUM_LONG=1, make test-long)");
        return Ok(());
    }
    let scale = Scale::wanted();
    let Some(place) = Place::start(scale).await? else {
        return Ok(());
    };
    let began = Instant::now();
    let operator = place.operator().await?;
    place.listen().await?;
    place.declare_pools_and_tenants().await?;
    place.declare_conferences().await?;
    let declared = began.elapsed();
    place.settled(&operator, Duration::from_secs(3_600)).await?;
    let usage = operator.usage()?;
    let first = Passes::of(&operator.metrics().await?);
    println!("SCALE {scale:?}, {} machines", Scale::MACHINES);
    println!(
        "SCALE declared in {:.0} s, all of it in effect after {:.0} s",
        declared.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    println!(
        "SCALE until then: {:.0} MiB resident, {:.0} MiB at most, {:.0} s of a core, {:.0} passes, 99 of 100 below {} s",
        usage.resident,
        usage.most,
        usage.cpu,
        first.count(),
        first.quantile(0.99),
    );
    println!("{}", first.table());

    let writes = place.writes()?;
    let before = operator.usage()?;
    sleep(IDLE).await;
    let idle = operator.usage()?;
    let written = place.written_since(writes)?;
    println!(
        "SCALE idle for {} s: writes {written:?}, {:.1} s of a core, {:.0} MiB",
        IDLE.as_secs(),
        idle.cpu - before.cpu,
        idle.resident
    );

    operator.stop().await?;
    place.forget();
    let writes = place.writes()?;
    let began = Instant::now();
    let operator = place.operator().await?;
    place.published().await?;
    let published = began.elapsed();
    place.passed(&operator).await?;
    let started = began.elapsed();
    place.settled(&operator, START).await?;
    let usage = operator.usage()?;
    let passes = Passes::of(&operator.metrics().await?).since(&Passes::default());
    let rewritten = place.written_since(writes)?;
    println!(
        "SCALE start: everything published after {:.1} s, every object looked at after {:.1} s (wanted {} s); {:.1} s of a core, {:.0} MiB, {:.0} MiB at most (wanted {MEMORY}); {:.0} passes, 99 of 100 below {} s (wanted {PASS}); writes {rewritten:?}",
        published.as_secs_f64(),
        started.as_secs_f64(),
        START.as_secs(),
        usage.cpu,
        usage.resident,
        usage.most,
        passes.count(),
        passes.quantile(0.99),
    );
    println!("{}", passes.table());
    ensure!(written.is_empty(), "writes with nothing to do: {written:?}");
    ensure!(usage.most < 3.0 * MEMORY, "{usage:?}");
    ensure!(started < 3 * START, "{started:?}");
    ensure!(
        passes.quantile(0.99) <= 5.0 * PASS,
        "the next bucket above three times what is wanted: {passes:?}"
    );
    operator.stop().await.context("it ends in good order")
}

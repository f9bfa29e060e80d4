// SPDX-License-Identifier: EUPL-1.2
//! The API server is away, and all operators are: calls go on, and people join and open rooms as before.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::installed::Installed;

use crate::absence;
use crate::leader::reconciles;
use crate::people::People;
use crate::seen::{pods, settled, until};

/// The API server is killed and comes back; then everything is Ready again.
pub(crate) async fn api_server(installed: &mut Installed, people: &mut People) -> Result<()> {
    let from = people.now();
    installed.cluster.api_mut().kill();
    goes_on(people, "api-server-away", absence(Duration::from_secs(60))).await?;
    people.noticed_nothing("API server away", from).await?;

    let from = people.now();
    let back = Instant::now();
    installed.cluster.api_mut().run().await?;
    ready(installed).await?;
    println!(
        "figure: everything is Ready {:.1} s after the API server was started again",
        back.elapsed().as_secs_f64()
    );
    people.meet("api-server-back").await?;
    people.end("api-server-back").await;
    people.noticed_nothing("API server back", from).await
}

/// No operator runs; then both do again.
pub(crate) async fn operator(installed: &Installed, people: &mut People) -> Result<()> {
    let from = people.now();
    scale(installed, 0).await?;
    until("no operator is left", async || {
        let pods = pods(installed, "plenum-system").await?;
        ensure!(
            !pods
                .iter()
                .any(|(name, _)| name.starts_with("plenum-operator")),
            "{pods:?}"
        );
        Ok(())
    })
    .await?;
    goes_on(people, "operator-away", absence(Duration::from_secs(20))).await?;
    scale(installed, 2).await?;
    ready(installed).await?;
    people.noticed_nothing("operator away and back", from).await
}

async fn scale(installed: &Installed, replicas: u32) -> Result<()> {
    let scale = format!("-n plenum-system scale deployment/plenum-operator --replicas={replicas}");
    installed.kubectl(&scale).await?;
    Ok(())
}

/// For as long as that: somebody joins a room that runs, and people open rooms of their own.
async fn goes_on(people: &mut People, name: &str, length: Duration) -> Result<()> {
    let end = Instant::now() + length;
    tokio::time::sleep(length / 4).await;
    people.late("ward-0", &format!("{name}-late")).await?;
    people.meet(&format!("{name}-early")).await?;
    tokio::time::sleep(end.saturating_duration_since(Instant::now())).await;
    people.late("council", &format!("{name}-later")).await?;
    people.meet(name).await?;
    for room in [format!("{name}-early"), name.to_owned()] {
        people.end(&room).await;
    }
    Ok(())
}

/// Machines, parts, media nodes and what is declared are Ready, and the operator carries out changes.
async fn ready(installed: &Installed) -> Result<()> {
    for what in [
        "wait nodes --all --for=condition=Ready --timeout=180s",
        "-n plenum-system wait deployment --all --for=condition=Available --timeout=180s",
        "-n media wait mediapool/city --for=condition=Ready --timeout=180s",
        "-n tenant-city wait conference/council --for=condition=Ready --timeout=180s",
    ] {
        installed.kubectl(what).await?;
    }
    settled(installed).await?;
    reconciles(installed, "again").await
}

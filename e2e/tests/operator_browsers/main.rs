// SPDX-License-Identifier: EUPL-1.2
//! An installation with Redis and two replicas of the control plane, and what a person sees of it: two browsers meet in a conference
//! that `kubectl apply` declared, `helm test` is content.

mod browsers;

use anyhow::{Context, Result, ensure};
use e2e::chart::{self, Helm};
use e2e::installed::{self, Installed};
use serde_json::{Value, json};

#[test]
fn browsers_meet_in_a_declared_conference() -> Result<()> {
    installed::run(
        "browsers_meet_in_a_declared_conference",
        &values(),
        async |installed| {
            let done = life(&installed).await;
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

async fn life(installed: &Installed) -> Result<()> {
    installed.declare(|text| text).await?;
    helm_test(installed)?;
    browsers::meet(installed).await
}

/// The chart's own test: the gateway answers in TLS, media nodes answer to STUN.
fn helm_test(installed: &Installed) -> Result<()> {
    let helm = Helm::find()?.context("helm was found a moment ago")?;
    let output = helm
        .command(&["test", "plenum", "--logs", "--timeout", "120s"])
        .args(["--namespace", chart::NAMESPACE])
        .arg("--kubeconfig")
        .arg(installed.cluster.api().kubeconfig())
        .output()
        .context("helm starts")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "helm test: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Helm prints the pod's log once for each object of the test.
    let mut lines: Vec<&str> = said.lines().filter(|line| line.starts_with("ok")).collect();
    lines.sort_unstable();
    lines.dedup();
    ensure!(
        ["gateway", "media"]
            .iter()
            .all(|part| lines.iter().any(|line| line.contains(part))),
        "helm test asked too little: {said}"
    );
    println!("helm test passes: {lines:#?}");
    Ok(())
}

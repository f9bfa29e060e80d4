// SPDX-License-Identifier: EUPL-1.2
//! Two browsers outside of the pods' network: `e2e/browser/cluster.mjs`, which judges what they decode.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::chart;
use e2e::installed::{CONFERENCE, Installed, NODE_PORT};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use plenum_api::Conference;
use serde_json::json;

/// The example's opener key.
const OPENER_KEY: &str = "an-example-opener-key-change-it-before-use";
const NAMESPACE: &str = "tenant-city";
/// The example's pool takes its ports from these.
const PORTS: [u16; 2] = [20_000, 20_255];
const PATIENCE: Duration = Duration::from_secs(300);

/// They meet by the links that the conference's status and its Secrets hold, and decode each other's counters and tones.
pub(crate) async fn meet(installed: &Installed) -> Result<()> {
    let browser = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser");
    ensure!(
        browser.join("node_modules").exists(),
        "the browsers' packages are missing: (cd e2e/browser && npm ci), which make test does"
    );
    let cluster = &installed.cluster;
    let conferences = Api::<Conference>::namespaced(cluster.client(), NAMESPACE);
    let status = conferences.get(CONFERENCE).await?.status;
    let link = status
        .and_then(|status| status.join_url)
        .context("a Ready conference has a link")?;
    let password = secret(installed, NAMESPACE, "council-password", "password").await?;
    let authority = secret(installed, chart::NAMESPACE, "plenum-ca", "ca.crt").await?;
    let addresses: Vec<String> = cluster
        .nodes()
        .iter()
        .map(|node| node.address().to_string())
        .collect();
    let call = json!({
        "authority": authority,
        "host": format!("{}:{NODE_PORT}", addresses[0]),
        "openerLink": format!("{link}#k={OPENER_KEY}"),
        "guestLink": format!("{link}#p={password}"),
        "media": { "addresses": addresses, "ports": PORTS },
    });
    let file = cluster.folder().join("call.json");
    std::fs::write(&file, call.to_string())?;
    let began = Instant::now();
    // target/PROFILE/deps holds the test; films and pictures of failures go where those of the other browser tests do.
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().nth(3).context("a test has a target")?;
    let mut node = tokio::process::Command::new("node")
        .arg(browser.join("cluster.mjs"))
        .arg(&file)
        .env("E2E_TARGET", target.join("e2e"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("node starts")?;
    let status = tokio::time::timeout(PATIENCE, node.wait()).await;
    let status = status.context("the browsers' meeting ends")??;
    ensure!(status.success(), "the browsers' meeting: {status}");
    println!("two browsers met within {} s", began.elapsed().as_secs());
    Ok(())
}

async fn secret(installed: &Installed, namespace: &str, name: &str, key: &str) -> Result<String> {
    let secrets = Api::<Secret>::namespaced(installed.cluster.client(), namespace);
    let mut data = secrets.get(name).await?.data.unwrap_or_default();
    let value = data
        .remove(key)
        .with_context(|| format!("the Secret {name} holds {key}"))?;
    Ok(String::from_utf8(value.0)?)
}

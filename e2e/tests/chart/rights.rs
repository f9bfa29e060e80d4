// SPDX-License-Identifier: EUPL-1.2
//! The operator with the rights that the chart gives it and no others.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::chart::{self, Helm, OPERATOR};
use e2e::cluster::{ApiServer, Identity};
use e2e::system::program;
use tokio::time::sleep;

use crate::server::install;

const PATIENCE: Duration = Duration::from_secs(180);

/// The operator's process, gone with the test.
struct Operator(std::process::Child);

impl Drop for Operator {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing is left.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until kubectl finds something that says `wanted`.
async fn until(server: &ApiServer, args: &[&str], wanted: &str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let output = server.try_kubectl(args).await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains(wanted) {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "kubectl {args:?} never says {wanted:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        sleep(Duration::from_millis(500)).await;
    }
}

/// Until a quota has been counted for the first time, the API server takes nothing that it bounds. Kubernetes learns of new kinds after half a
/// minute and counts again after five; a change, which the operator takes back, makes it count at once.
async fn counted(server: &ApiServer) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    let quota = [
        "-n",
        "tenant-city",
        "get",
        "resourcequota",
        "-o",
        "jsonpath={.items[*].status.used}",
    ];
    let change = r#"{"spec":{"hard":{"count/conferences.plenum.dev":"7"}}}"#;
    while !server.kubectl(&quota).await?.contains("conferences") {
        ensure!(Instant::now() < end, "the quota is never counted");
        // It may not be there yet.
        let _ = server
            .try_kubectl(&[
                "-n",
                "tenant-city",
                "patch",
                "resourcequota",
                "plenum-conferences",
                "--type=merge",
                "-p",
                change,
            ])
            .await?;
        sleep(Duration::from_secs(2)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_needs_no_right_that_the_chart_does_not_give() -> Result<()> {
    let (Some(helm), Some(server)) = (Helm::find()?, ApiServer::start().await?) else {
        return Ok(());
    };
    install(&helm, &server, &[]).await?;
    // Groups as the token of a ServiceAccount carries them.
    let account = Identity {
        user: OPERATOR,
        groups: &[
            "system:serviceaccounts",
            "system:serviceaccounts:plenum-system",
            "system:authenticated",
        ],
    };
    let log = server.folder().join("operator.log");
    let arguments = [
        "--namespace=plenum-system",
        "--pod-name=operator-0",
        "--site=local",
        "--jurisdiction=DE",
        // Nobody answers there: what Kubernetes is asked for does not depend on it.
        "--control-plane=127.0.0.1:1",
        "--media-image=localhost/plenum-media-node:0.1.0",
        "--issue-gateway-certificate",
        "--gateway-dns=plenum-gateway",
        "--probe-listen=127.0.0.1:0",
        "--metrics-listen=127.0.0.1:0",
    ];
    let child = Command::new(program("operator")?)
        .args(arguments)
        .env("KUBECONFIG", server.kubeconfig_of(&account)?)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&log)?)
        .stderr(Stdio::null())
        .spawn()
        .context("the operator starts")?;
    let _operator = Operator(child);

    let examples = chart::folder().join("../../docs/examples/cluster");
    let file = |name: &str| examples.join(name).to_string_lossy().into_owned();
    server
        .kubectl(&["apply", "-f", &file("1-platform.yaml")])
        .await?;
    until(
        &server,
        &["get", "serviceaccount", "-n", "tenant-city", "-o", "name"],
        "default",
    )
    .await?;
    counted(&server).await?;
    let (second, third) = (file("2-tenant.yaml"), file("3-maintenance.yaml"));
    server
        .kubectl(&["apply", "-f", &second, "-f", &third])
        .await?;
    // What each controller writes in the end.
    until(
        &server,
        &["-n", chart::NAMESPACE, "get", "secret", "-o", "name"],
        "secret/plenum-gateway-tls",
    )
    .await?;
    until(
        &server,
        &["-n", "tenant-city", "get", "secret", "-o", "name"],
        "secret/council-password",
    )
    .await?;
    until(
        &server,
        &["-n", "tenant-city", "get", "rolebinding", "-o", "name"],
        "plenum-operator",
    )
    .await?;
    until(
        &server,
        &[
            "-n",
            "media",
            "get",
            "pdb",
            "city",
            "-o",
            "jsonpath={.spec.minAvailable}",
        ],
        "2",
    )
    .await?;
    let pods = [
        "-n",
        "media",
        "get",
        "pod",
        "-o",
        "jsonpath={.items[*].spec.containers[0].image}",
    ];
    until(
        &server,
        &pods,
        "plenum-media-node:0.1.0 localhost/plenum-media-node:0.1.0",
    )
    .await?;
    until(
        &server,
        &[
            "get",
            "maintenancewindow",
            "sunday",
            "-o",
            "jsonpath={.status.phase}",
        ],
        "Scheduled",
    )
    .await?;
    // And the way back.
    let fewer = r#"{"spec":{"replicas":1}}"#;
    server
        .kubectl(&[
            "-n",
            "media",
            "patch",
            "mediapool",
            "city",
            "--type=merge",
            "-p",
            fewer,
        ])
        .await?;
    until(
        &server,
        &[
            "-n",
            "media",
            "get",
            "mn",
            "-o",
            "jsonpath={.items[*].spec.drain.reason}",
        ],
        "ScaleDown",
    )
    .await?;
    server
        .kubectl(&["delete", "-f", &second, "--wait=false"])
        .await?;
    server
        .kubectl(&["delete", "tenant", "city", "--wait=false"])
        .await?;
    until(
        &server,
        &["get", "events.events.k8s.io", "-A", "-o", "name"],
        "event",
    )
    .await?;

    let refused: BTreeSet<String> = server
        .audit()?
        .into_iter()
        .filter(|entry| entry.user.username == OPERATOR && entry.code() == 403)
        // A binding that was just made takes a moment to be known; the watch begins anew.
        .filter(|entry| {
            !(entry.resource() == "secrets" && entry.uri.contains("/namespaces/tenant-city/"))
        })
        .map(|entry| format!("{} {}", entry.verb, entry.uri))
        .collect();
    ensure!(refused.is_empty(), "{refused:#?}");
    Ok(())
}

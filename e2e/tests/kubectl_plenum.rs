// SPDX-License-Identifier: EUPL-1.2
//! `kubectl plenum` as people have it: the program found by kubectl in its `PATH`, against a real API server.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::cluster::{ApiServer, Identity};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command, time::sleep};

/// A support engineer, who may read whatever the report wants, Secrets included: that none is read is up to the program.
const SUPPORT: Identity<'static> = Identity {
    user: "support",
    groups: &["system:masters"],
};
const STRANGER: Identity<'static> = Identity {
    user: "stranger",
    groups: &["nobodies"],
};
/// What must not leave the cluster.
const CANARY: &str = "canary-4b1f9c7e";

struct World {
    server: ApiServer,
    path: PathBuf,
}

impl World {
    async fn start() -> Result<Option<Self>> {
        let Some(server) = ApiServer::start().await? else {
            return Ok(None);
        };
        let path = server.folder().join("bin");
        std::fs::create_dir_all(&path)?;
        std::os::unix::fs::symlink(e2e::system::program("plenum")?, path.join("kubectl-plenum"))?;
        Ok(Some(Self { server, path }))
    }

    /// The plugin as somebody, without a PATH of its own.
    fn plugin(&self, kubeconfig: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(self.path.join("kubectl-plenum"));
        command
            .args(args)
            .env_clear()
            .env("KUBECONFIG", kubeconfig)
            .current_dir(self.server.folder())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str]) -> Result<Output> {
        Ok(self.plugin(self.server.kubeconfig(), args).output().await?)
    }

    /// Applies objects as an administrator.
    async fn apply(&self, objects: &[Value]) -> Result<()> {
        for object in objects {
            let mut kubectl = Command::from(self.server.programs().kubernetes("kubectl")?)
                .arg("--kubeconfig")
                .arg(self.server.kubeconfig())
                .args(["apply", "--server-side", "-f", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            let mut stdin = kubectl.stdin.take().context("a pipe")?;
            stdin.write_all(object.to_string().as_bytes()).await?;
            drop(stdin);
            let output = kubectl.wait_with_output().await?;
            ensure!(
                output.status.success(),
                "{object}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// Writes a status, as the operator would.
    async fn status(&self, node: &str, status: Value) -> Result<()> {
        let patch = json!({ "status": status }).to_string();
        let args = [
            "patch",
            "medianode",
            node,
            "-n",
            "media",
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ];
        self.server.kubectl(&args).await.map(drop)
    }

    async fn node(&self, name: &str) -> Result<Value> {
        let args = [
            "get",
            "medianode",
            name,
            "-n",
            "media",
            "-o",
            "json",
            "--show-managed-fields",
        ];
        Ok(serde_json::from_str(&self.server.kubectl(&args).await?)?)
    }
}

fn out(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-09-01T05:30:00Z", "observedGeneration": 1,
    })
}

fn media_node(name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": "MediaNode", "metadata": { "name": name, "namespace": "media" },
        "spec": { "poolRef": { "name": "shared" }, "revision": "abc123", "ports": { "base": port, "count": 1 } },
    })
}

/// What the tests look at.
fn objects() -> Vec<Value> {
    let namespace = |name: &str| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    vec![
        namespace("media"),
        namespace("tenant-city"),
        json!({
            "apiVersion": "plenum.dev/v1alpha1", "kind": "MediaPool", "metadata": { "name": "shared", "namespace": "media" },
            "spec": {
                "replicas": 2, "network": { "type": "HostPort", "hostPort": { "range": { "min": 20_000, "max": 20_015 } } },
                "capacity": { "rooms": 10, "participants": 100, "egressMbps": 100 },
            },
        }),
        media_node("shared-abc123-aaaaa", 20_000),
        media_node("shared-abc123-bbbbb", 20_001),
        json!({
            "apiVersion": "plenum.dev/v1alpha1", "kind": "Conference", "metadata": { "name": "council", "namespace": "tenant-city" },
            "spec": { "displayName": "Council", "openers": [{ "type": "Subject", "subject": { "id": CANARY } }] },
        }),
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "council-password", "namespace": "tenant-city" },
            "stringData": { "password": CANARY },
        }),
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "plenum-control-plane-0", "namespace": "media", "labels": { "app.kubernetes.io/part-of": "plenum" } },
            "spec": { "containers": [{
                "name": "control-plane", "image": "registry.test/control-plane:1",
                "args": ["--redis", format!("redis://user:{CANARY}@redis:6379")],
                "env": [{ "name": "PLENUM_REDIS_URL", "value": CANARY }],
            }] },
        }),
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": "one", "namespace": "media" },
            "eventTime": "2026-09-01T05:30:00.000000Z", "reportingController": "plenum.dev/operator", "reportingInstance": "operator-0",
            "action": "Reconcile", "reason": "NoPublicAddress", "type": "Warning", "note": format!("password={CANARY} is no address"),
            "regarding": { "apiVersion": "plenum.dev/v1alpha1", "kind": "MediaNode", "name": "shared-abc123-bbbbb", "namespace": "media" },
        }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_plenum_shows_drains_and_reports_a_cluster() -> Result<()> {
    let Some(world) = World::start().await? else {
        return Ok(());
    };
    remedies_are_named(&world).await?;
    world.server.install_crds().await?;
    world.apply(&objects()).await?;
    strangers_are_told(&world).await?;
    status_shows_what_hinders(&world).await?;
    a_drain_is_asked_for_and_followed(&world).await?;
    a_drain_is_taken_back_only_before_it_is_announced(&world).await?;
    a_report_holds_what_support_needs_and_no_secret(&world).await?;
    a_probe_leaves_nothing(&world).await
}

async fn remedies_are_named(world: &World) -> Result<()> {
    let output = world.run(&["status"]).await?;
    ensure!(output.status.code() == Some(1), "{}", out(&output));
    ensure!(
        out(&output).contains("knows no kinds of plenum.dev; install the chart"),
        "{}",
        out(&output)
    );

    let nowhere = world.server.folder().join("no-such-file");
    let output = world.plugin(&nowhere, &["status"]).output().await?;
    ensure!(output.status.code() == Some(1), "{}", out(&output));
    ensure!(out(&output).contains("set KUBECONFIG"), "{}", out(&output));

    let output = world.run(&["status", "--context", "other"]).await?;
    ensure!(
        out(&output).contains("no cluster to speak with"),
        "{}",
        out(&output)
    );

    let help = out(&world.run(&["--help"]).await?);
    ensure!(help.contains("Usage: kubectl plenum"), "{help}");
    ensure!(!help.contains("plenum up"), "{help}");
    Ok(())
}

async fn strangers_are_told(world: &World) -> Result<()> {
    let kubeconfig = world.server.kubeconfig_of(&STRANGER)?;
    for args in [["status", "--all"], ["drain", "shared-abc123-aaaaa"]] {
        let output = world.plugin(&kubeconfig, &args).output().await?;
        ensure!(output.status.code() == Some(1), "{}", out(&output));
        let text = out(&output);
        ensure!(
            text.contains("is forbidden") && text.contains("docs/rbac.md"),
            "{args:?}: {text}"
        );
    }
    Ok(())
}

async fn status_shows_what_hinders(world: &World) -> Result<()> {
    let well = [
        condition("Ready", "True", "Reconciled", ""),
        condition("Accepting", "True", "Reconciled", ""),
    ];
    let ill = [
        condition(
            "Ready",
            "False",
            "NoPublicAddress",
            "no source yields an IPv4 address",
        ),
        condition(
            "Stalled",
            "True",
            "NoPublicAddress",
            "no source yields an IPv4 address",
        ),
    ];
    let load = json!({ "rooms": 4, "participants": 16, "egressMbps": 8 });
    let first = json!({ "observedGeneration": 1, "nodeName": "worker-1", "load": load, "conditions": well });
    world.status("shared-abc123-aaaaa", first).await?;
    let second = json!({ "observedGeneration": 1, "conditions": ill });
    world.status("shared-abc123-bbbbb", second).await?;

    // Found by kubectl in its PATH: the way people call it.
    let mut kubectl = Command::from(world.server.programs().kubernetes("kubectl")?);
    let output = kubectl
        .args(["plenum", "status"])
        .env_clear()
        .env("PATH", &world.path)
        .env("KUBECONFIG", world.server.kubeconfig())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let text = out(&output);
    ensure!(output.status.success(), "{text}");
    ensure!(text.contains("NODES: 2, 1 hindered"), "{text}");
    let ill = text.find("shared-abc123-bbbbb").context("the ill node")?;
    let well = text.find("shared-abc123-aaaaa").context("the well node")?;
    ensure!(ill < well, "hindered first: {text}");
    ensure!(
        text.contains("NoPublicAddress: no source yields an IPv4 address"),
        "{text}"
    );
    ensure!(
        text.contains("NotObserved"),
        "no operator has seen the pool: {text}"
    );

    let output = world.run(&["status", "-o", "json"]).await?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["nodes"]["hindered"] == 1, "{report:#}");
    ensure!(
        report["conferences"]["objects"][0]["name"] == "council",
        "{report:#}"
    );
    ensure!(
        report["kubernetes"]
            .as_str()
            .is_some_and(|version| version.starts_with('v'))
    );
    Ok(())
}

async fn a_drain_is_asked_for_and_followed(world: &World) -> Result<()> {
    let node = "shared-abc123-aaaaa";
    let output = world.run(&["drain", "shared-abc123-xxxxx"]).await?;
    ensure!(
        out(&output).contains("no media node is called"),
        "{}",
        out(&output)
    );

    let drain = world
        .plugin(
            world.server.kubeconfig(),
            &["drain", node, "--deadline", "10m", "--wait", "-o", "json"],
        )
        .stdout(Stdio::piped())
        .spawn()?;
    let end = Instant::now() + Duration::from_secs(60);
    while !world.node(node).await?["spec"]["drain"].is_object() {
        ensure!(Instant::now() < end, "nobody asks for the drain");
        sleep(Duration::from_millis(100)).await;
    }
    let asked = world.node(node).await?;
    let wish = &asked["spec"]["drain"];
    ensure!(
        wish["reason"] == "Manual" && wish["deadline"].is_string(),
        "{wish}"
    );
    let managers = asked["metadata"]["managedFields"]
        .as_array()
        .context("managers")?;
    ensure!(
        managers
            .iter()
            .any(|manager| manager["manager"] == "plenum-drain" && manager["operation"] == "Apply"),
        "{managers:?}"
    );
    let waiting = json!({ "drain": { "phase": "Waiting", "deadline": wish["deadline"] } });
    world.status(node, waiting).await?;
    sleep(Duration::from_secs(2)).await;
    let done = json!({
        "load": { "rooms": 0, "participants": 0, "egressMbps": 0 }, "drain": { "phase": "Drained" },
        "conditions": [condition("Drained", "True", "Empty", "")],
    });
    world.status(node, done).await?;
    let output = tokio::time::timeout(Duration::from_secs(60), drain.wait_with_output()).await??;
    let text = out(&output);
    ensure!(output.status.success(), "{text}");
    let events: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(
        events
            .first()
            .is_some_and(|event| event["event"] == "draining"),
        "{text}"
    );
    ensure!(
        events.iter().any(|event| event["phase"] == "Waiting"),
        "{text}"
    );
    ensure!(
        events.last().is_some_and(|event| event["event"] == "empty"),
        "{text}"
    );
    Ok(())
}

async fn a_drain_is_taken_back_only_before_it_is_announced(world: &World) -> Result<()> {
    let node = "media/shared-abc123-bbbbb";
    let output = world.run(&["drain", node, "--no-wait"]).await?;
    ensure!(output.status.success(), "{}", out(&output));
    let output = world.run(&["drain", node, "--timeout", "1s"]).await?;
    ensure!(output.status.code() == Some(1), "{}", out(&output));
    ensure!(
        out(&output).contains("its drain goes on"),
        "{}",
        out(&output)
    );
    let output = world.run(&["uncordon", node]).await?;
    ensure!(output.status.success(), "{}", out(&output));
    let spec = world.node("shared-abc123-bbbbb").await?["spec"].clone();
    ensure!(
        spec["drain"].is_null() && spec["unschedulable"] == false,
        "{spec}"
    );

    ensure!(
        world
            .run(&["drain", node, "--no-wait"])
            .await?
            .status
            .success()
    );
    let announced =
        json!({ "drain": { "phase": "Announced", "announcedAt": "2026-09-01T05:30:00Z" } });
    world.status("shared-abc123-bbbbb", announced).await?;
    let output = world.run(&["cancel", node]).await?;
    ensure!(output.status.code() == Some(1), "{}", out(&output));
    ensure!(out(&output).contains("no way back"), "{}", out(&output));
    // The API server holds the same line, whoever asks.
    let patch = [
        "patch",
        "medianode",
        "shared-abc123-bbbbb",
        "-n",
        "media",
        "--type=merge",
        "-p",
        r#"{"spec":{"drain":null}}"#,
    ];
    let refused = world.server.try_kubectl(&patch).await?;
    ensure!(
        out(&refused).contains("only before it is announced"),
        "{}",
        out(&refused)
    );
    Ok(())
}

async fn a_report_holds_what_support_needs_and_no_secret(world: &World) -> Result<()> {
    let kubeconfig = world.server.kubeconfig_of(&SUPPORT)?;
    let listed = world
        .plugin(&kubeconfig, &["report", "--list"])
        .output()
        .await?;
    ensure!(listed.status.success(), "{}", out(&listed));
    let output = world
        .plugin(&kubeconfig, &["report", "--output-file", "bundle.tar.gz"])
        .output()
        .await?;
    let text = out(&output);
    ensure!(output.status.success(), "{text}");
    ensure!(
        text.contains("plenum/medianode.yaml"),
        "what is in it is said: {text}"
    );
    let again = world
        .plugin(&kubeconfig, &["report", "--output-file", "bundle.tar.gz"])
        .output()
        .await?;
    ensure!(!again.status.success(), "a bundle is not written over");

    let folder = world.server.folder().join("bundle");
    std::fs::create_dir_all(&folder)?;
    let unpacked = Command::new("tar")
        .arg("-xzf")
        .arg(world.server.folder().join("bundle.tar.gz"))
        .arg("-C")
        .arg(&folder)
        .output()
        .await?;
    ensure!(unpacked.status.success(), "{}", out(&unpacked));
    let mut whole = String::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                whole.push_str(&std::fs::read_to_string(path)?);
            }
        }
    }
    ensure!(!whole.contains(CANARY), "a secret is in the bundle");
    for wanted in [
        "shared-abc123-bbbbb",
        "NoPublicAddress",
        "plenum-control-plane-0",
        "gitVersion\\|v1.",
        "list medianodes.plenum.dev: yes",
    ] {
        let found = wanted.split("\\|").any(|part| whole.contains(part));
        ensure!(found, "{wanted} is missing in the bundle");
    }
    let read: Vec<String> = world
        .server
        .audit()?
        .into_iter()
        .filter(|entry| entry.user.username == SUPPORT.user)
        .map(|entry| entry.uri)
        .collect();
    ensure!(
        read.iter().any(|uri| uri.contains("/mediapools")),
        "{read:?}"
    );
    let secrets = |uri: &&String| uri.contains("/secrets") || uri.contains("/configmaps");
    ensure!(!read.iter().any(|uri| secrets(&uri)), "{read:?}");
    Ok(())
}

async fn a_probe_leaves_nothing(world: &World) -> Result<()> {
    let output = world
        .run(&[
            "probe",
            "--dry-run-namespace",
            "tenant-city",
            "--timeout",
            "1s",
        ])
        .await?;
    ensure!(output.status.success(), "{}", out(&output));
    ensure!(
        out(&output).contains("accepted as a dry run"),
        "{}",
        out(&output)
    );
    let conferences = world
        .server
        .kubectl(&["get", "conferences", "-A", "-o", "name"])
        .await?;
    ensure!(conferences.lines().count() == 1, "{conferences}");
    let output = world
        .run(&["probe", "--media-from-cluster", "--timeout", "1s"])
        .await?;
    ensure!(output.status.code() == Some(1), "{}", out(&output));
    ensure!(
        out(&output).contains("no media node is ready with an address"),
        "{}",
        out(&output)
    );
    Ok(())
}

// SPDX-License-Identifier: EUPL-1.2
//! The release: its two versions of the chart, `helm test`, upgrade and rollback while people talk.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::chart::{self, Helm};
use e2e::installed::Installed;
use serde_json::json;

use crate::people::People;
use crate::rolling::{MEDIA, Pods, Rolling, pods};
use crate::values;

/// The second version of the chart; the first is that of the work tree.
const SECOND: &str = "0.99.0";
const PARTS: [&str; 4] = ["operator", "control-plane", "media-node", "tools"];
/// Secrets that Helm makes once: whoever made them anew would end all calls.
const MADE_ONCE: [&str; 2] = ["plenum-installation-key", "plenum-seal-key"];
/// Likewise, but it goes with the demonstration's Redis.
const PASSWORD: &str = "plenum-redis";
/// Two nodes are emptied, one after the other, and three processes of debug builds begin: three times what it takes on two cores.
const PATIENCE: Duration = Duration::from_secs(240);

/// The chart's own test: the gateway answers in TLS, media nodes answer to STUN.
pub(crate) fn test(installed: &Installed) -> Result<()> {
    let said = helm(installed, &["test", "plenum", "--timeout", "120s"])?;
    ensure!(
        ["gateway https://", "media udp "]
            .iter()
            .all(|part| said.contains(&format!("ok      {part}"))),
        "helm test asked too little: {said}"
    );
    println!("helm test passes");
    Ok(())
}

/// To the second version and back, each time with people in calls.
pub(crate) async fn upgrade_and_rollback(installed: &Installed, people: &mut People) -> Result<()> {
    for part in PARTS {
        let image = format!("localhost/plenum-{part}");
        for node in installed.cluster.nodes() {
            node.tag(&format!("{image}:dev"), &format!("{image}:dev2"))?;
        }
    }
    let keys = (keys(installed).await?, secret(installed, PASSWORD).await?);
    let media = media_pods(installed).await?;

    // Media nodes wait for a window of maintenance, everything else rolls.
    let archive = package(installed)?;
    let from = people.now();
    let rolling = Rolling::watch(installed.cluster.client());
    upgrade(installed, &archive)?;
    rolled(installed, "dev2").await?;
    rolling.end().await?.one_at_a_time()?;
    installed
        .kubectl("-n media wait mediapool/city --for=condition=UpdateBlocked --timeout=90s")
        .await?;
    ensure!(
        media_pods(installed).await? == media,
        "an upgrade of the chart replaced media pods in spite of the window"
    );
    people.kept_media("upgrade", from).await?;
    people.meet("upgraded").await?;
    let now = (
        self::keys(installed).await?,
        secret(installed, PASSWORD).await?,
    );
    ensure!(keys == now, "a key was made anew");

    // Then they may be replaced: by the rules of their pool.
    let from = people.now();
    let rolling = Rolling::watch(installed.cluster.client());
    installed.kubectl("delete maintenancewindow sunday").await?;
    media_rolled(installed, "dev2").await?;
    rolling.end().await?.surges()?;
    people.moved("media nodes replaced", from).await?;

    // Back, with nothing that holds media nodes.
    let from = people.now();
    let rolling = Rolling::watch(installed.cluster.client());
    helm(installed, &["rollback", "plenum", "1"])?;
    rolled(installed, "dev").await?;
    media_rolled(installed, "dev").await?;
    let seen = rolling.end().await?;
    seen.one_at_a_time()?;
    seen.surges()?;
    people
        .moved("rollback, media nodes replaced with it", from)
        .await?;
    people.meet("rolled-back").await?;
    let now = (
        self::keys(installed).await?,
        secret(installed, PASSWORD).await?,
    );
    ensure!(keys == now, "a key was made anew");
    let history = helm(installed, &["history", "plenum"])?;
    ensure!(
        history.contains("Rollback to 1") && history.contains(SECOND),
        "{history}"
    );
    Ok(())
}

/// The chart of the work tree as another version, as a registry would hand it out.
fn package(installed: &Installed) -> Result<PathBuf> {
    let folder = installed.cluster.folder();
    let to = folder.to_str().context("the folder's path is UTF-8")?;
    let chart = chart::folder();
    let chart = chart.to_str().context("the chart's path is UTF-8")?;
    let words = [
        "package",
        chart,
        "--version",
        SECOND,
        "--app-version",
        SECOND,
        "--destination",
        to,
    ];
    run(helm_command(&words)?)?;
    Ok(folder.join(format!("plenum-{SECOND}.tgz")))
}

fn upgrade(installed: &Installed, archive: &std::path::Path) -> Result<()> {
    let image = json!({ "tag": "dev2" });
    let mut own = values();
    for part in ["operator", "controlPlane", "mediaNode", "tools"] {
        own["images"][part] = image.clone();
    }
    let file = installed.cluster.folder().join("second.json");
    std::fs::write(&file, installed.values(&own).to_string())?;
    let words = [
        "upgrade",
        "plenum",
        archive.to_str().context("the archive's path is UTF-8")?,
        "--values",
        file.to_str().context("the file's path is UTF-8")?,
    ];
    helm(installed, &words)?;
    Ok(())
}

/// Waits until both Deployments consist of pods with that tag and none of the old ones is left.
async fn rolled(installed: &Installed, tag: &str) -> Result<()> {
    let began = Instant::now();
    for deployment in ["plenum-control-plane", "plenum-operator"] {
        let wait =
            format!("-n plenum-system rollout status deployment/{deployment} --timeout=240s");
        installed.kubectl(&wait).await?;
    }
    only(
        installed,
        chart::NAMESPACE,
        &["operator", "control-plane"],
        tag,
    )
    .await?;
    println!(
        "figure: operator and control plane are of {tag} after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn media_rolled(installed: &Installed, tag: &str) -> Result<()> {
    let began = Instant::now();
    only(installed, MEDIA, &["media-node"], tag).await?;
    println!(
        "figure: media nodes are of {tag} after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Waits until two pods of each part are ready, of that tag, and nothing else is left of the part.
async fn only(installed: &Installed, namespace: &str, parts: &[&str], tag: &str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let all = pods(&installed.cluster.client(), namespace).await?;
        let done = parts.iter().all(|part| {
            let own: Vec<_> = all.iter().filter(|pod| pod.part == *part).collect();
            let suffix = format!(":{tag}");
            own.len() == 2
                && own
                    .iter()
                    .all(|pod| pod.ready && !pod.ending && pod.image.ends_with(&suffix))
        });
        if done {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("{parts:?} do not get to {tag}: {all:#?}");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn media_pods(installed: &Installed) -> Result<Vec<String>> {
    let all: Pods = pods(&installed.cluster.client(), MEDIA).await?;
    let mut uids: Vec<String> = all.into_iter().map(|pod| pod.uid).collect();
    uids.sort();
    Ok(uids)
}

/// What Helm made once and keeps.
pub(crate) async fn keys(installed: &Installed) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for name in MADE_ONCE {
        all.push(secret(installed, name).await?);
    }
    Ok(all)
}

async fn secret(installed: &Installed, name: &str) -> Result<String> {
    let get = format!("-n plenum-system get secret {name} -o jsonpath={{.data}}");
    let data = installed.kubectl(&get).await?;
    ensure!(data.len() > 10, "{name} holds nothing");
    Ok(data)
}

fn helm_command(words: &[&str]) -> Result<Command> {
    let helm = Helm::find()?.context("helm was found a moment ago")?;
    Ok(helm.command(words))
}

/// Runs Helm on the release's namespace.
pub(crate) fn helm(installed: &Installed, words: &[&str]) -> Result<String> {
    let mut command = helm_command(words)?;
    command
        .args(["--namespace", chart::NAMESPACE, "--kubeconfig"])
        .arg(installed.cluster.api().kubeconfig());
    run(command)
}

/// Both of what Helm says and what it shows of pods, which goes to the other stream.
fn run(mut command: Command) -> Result<String> {
    let output = command.output().context("helm starts")?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(said)
}

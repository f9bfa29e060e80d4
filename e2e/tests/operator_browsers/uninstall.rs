// SPDX-License-Identifier: EUPL-1.2
//! What stays when the release goes, against the list of docs/install.md.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::installed::Installed;
use serde_json::Value;

use crate::release::{self, helm};
use crate::{declared, values};

/// What is not looked at: what Kubernetes makes by itself, and what it tells of what happened.
const KUBERNETES: [&str; 4] = [
    "ConfigMap kube-root-ca.crt",
    "ServiceAccount default",
    "APIService ",
    "Event ",
];
/// Namespaces of the installation.
const OWN: [&str; 2] = ["plenum-system", "media"];
/// Namespaces of tenants belong to what is declared, which stays.
const TENANTS: &str = "tenant-";
const PATIENCE: Duration = Duration::from_secs(90);

/// The steps of docs/install.md: pools are drained and deleted, the release goes, and what is left is what is said there.
pub(crate) async fn leaves_what_is_said(installed: &Installed) -> Result<()> {
    steps(installed, &["delete mediapool --all -A --timeout=120s"]).await?;
    uninstall(installed)?;
    let said = said()?;
    until_left(installed, &said).await?;
    println!("what uninstalling leaves: {said:#?}");
    let declared = installed.kubectl("get plenum -A -o name").await?;
    for object in ["tenant.plenum.dev/city", "conference.plenum.dev/council"] {
        ensure!(declared.contains(object), "{object} is gone: {declared}");
    }
    Ok(())
}

/// A new installation goes on with what was left: its keys, its authority, what was declared. Then all of it is removed for good.
pub(crate) async fn begins_again_and_ends_for_good(installed: &mut Installed) -> Result<()> {
    let keys = release::keys(installed).await?;
    // As docs/install.md says: an API server that has lost the last binding with parameters finds no parameters again.
    installed.cluster.api_mut().kill();
    installed.cluster.api_mut().run().await?;
    let values = installed.values(&values());
    installed.helm(&["install", "plenum"], &[], &values)?;
    steps(
        installed,
        &["-n plenum-system wait deployment --all --for=condition=Available --timeout=180s"],
    )
    .await?;
    // The pool went by hand; the rest of it is there.
    installed.declare(declared).await?;
    ensure!(
        keys == release::keys(installed).await?,
        "a new installation made keys anew"
    );
    let end = [
        "delete tenant --all --timeout=120s",
        "delete mediapool --all -A --timeout=120s",
    ];
    steps(installed, &end).await?;
    uninstall(installed)?;
    let rest = [
        "delete crd -l app.kubernetes.io/part-of=plenum --timeout=120s",
        "delete namespace media plenum-system tenant-city --timeout=120s",
    ];
    steps(installed, &rest).await?;
    until_left(installed, &BTreeSet::new()).await?;
    println!("nothing is left");
    Ok(())
}

async fn steps(installed: &Installed, lines: &[&str]) -> Result<()> {
    for line in lines {
        installed.kubectl(line).await?;
    }
    Ok(())
}

fn uninstall(installed: &Installed) -> Result<()> {
    helm(
        installed,
        &["uninstall", "plenum", "--wait", "--timeout", "120s"],
    )?;
    Ok(())
}

/// Waits until exactly this is left: what Kubernetes collects goes a moment later.
async fn until_left(installed: &Installed, said: &BTreeSet<String>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let left = left(installed).await?;
        if left == *said {
            return Ok(());
        }
        if Instant::now() > end {
            let more: Vec<_> = left.difference(said).collect();
            let fewer: Vec<_> = said.difference(&left).collect();
            bail!("left and not said: {more:#?}; said and gone: {fewer:#?}");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The list of the documentation, between its marks: a kind, and names behind it.
fn said() -> Result<BTreeSet<String>> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/install.md");
    let text = std::fs::read_to_string(file)?;
    let (_, from) = text
        .split_once("<!-- left -->\n")
        .context("docs/install.md marks its list")?;
    let (table, _) = from
        .split_once("<!-- /left -->")
        .context("docs/install.md ends its list")?;
    let mut said = BTreeSet::new();
    for row in table.lines().filter(|row| row.starts_with("| ")).skip(1) {
        let mut cells = row.split('|').skip(1).map(str::trim);
        let (kind, names) = (cells.next(), cells.next());
        let kind = kind.context("a row names a kind")?;
        for name in names
            .context("a row holds names")?
            .split('`')
            .skip(1)
            .step_by(2)
        {
            said.insert(format!("{kind} {name}"));
        }
    }
    Ok(said)
}

/// Everything in the cluster that is Plenum's by its name, its namespace or its labels.
async fn left(installed: &Installed) -> Result<BTreeSet<String>> {
    let kinds = installed
        .kubectl("api-resources --verbs=list -o name")
        .await?;
    let kinds: Vec<&str> = kinds
        .lines()
        .filter(|kind| !kind.ends_with(".plenum.dev"))
        .collect();
    let get = format!("get {} -A -o json", kinds.join(","));
    let all: Value = serde_json::from_str(&installed.kubectl(&get).await?)?;
    let items = all["items"].as_array().context("a list has items")?;
    let mut left = BTreeSet::new();
    for item in items {
        let text = |path: &str| item.pointer(path).and_then(Value::as_str).unwrap_or("");
        let (kind, name) = (text("/kind"), text("/metadata/name"));
        let namespace = text("/metadata/namespace");
        let part = text("/metadata/labels/app.kubernetes.io~1part-of");
        let named = name.contains("plenum") || part == "plenum" || OWN.contains(&name);
        let of_tenant =
            namespace.starts_with(TENANTS) || (kind == "Namespace" && name.starts_with(TENANTS));
        let own = OWN.contains(&namespace) || (named && !of_tenant);
        let object = format!("{kind} {name}");
        if own && !KUBERNETES.iter().any(|known| object.starts_with(known)) {
            left.insert(object);
        }
    }
    Ok(left)
}

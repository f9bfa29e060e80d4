// SPDX-License-Identifier: EUPL-1.2
//! The API server that tests of the operator run against.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::cluster::{ApiServer, Identity};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::sleep;

fn config_map(name: &str) -> Result<ConfigMap> {
    Ok(serde_json::from_value(
        json!({ "metadata": { "name": name } }),
    )?)
}

async fn until<F: Future<Output = Result<bool>>>(what: &str, holds: impl Fn() -> F) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds().await? {
        ensure!(Instant::now() < end, "never: {what}");
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_takes_objects_judges_them_and_leaves_nothing_behind() -> Result<()> {
    let Some(server) = ApiServer::start_with_crds().await? else {
        return Ok(());
    };
    controllers_work(&server.client()).await?;
    pod_security_is_on(&server.client()).await?;
    kinds_are_judged(&server).await?;
    identities_hold(&server).await?;

    let folder = server.folder().to_owned();
    let part = folder.to_string_lossy().into_owned();
    ensure!(processes_with(&part)? >= 3, "etcd, API server, controllers");
    drop(server);
    ensure!(!folder.exists(), "the folder is left");
    ensure!(processes_with(&part)? == 0, "processes are left");
    Ok(())
}

/// A Deployment gets its pods (which nobody schedules), and a namespace is emptied when it goes.
async fn controllers_work(client: &Client) -> Result<()> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let namespace = serde_json::from_value(json!({ "metadata": { "name": "work" } }))?;
    namespaces
        .create(&PostParams::default(), &namespace)
        .await?;
    let deployment = serde_json::from_value(json!({
        "metadata": { "name": "two" },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": "two" } },
            "template": {
                "metadata": { "labels": { "app": "two" } },
                "spec": { "containers": [{ "name": "main", "image": "none" }] },
            },
        },
    }))?;
    Api::<Deployment>::namespaced(client.clone(), "work")
        .create(&PostParams::default(), &deployment)
        .await?;
    let pods = Api::<Pod>::namespaced(client.clone(), "work");
    until("two pods", || async {
        Ok(pods.list(&ListParams::default()).await?.items.len() == 2)
    })
    .await?;
    namespaces.delete("work", &DeleteParams::default()).await?;
    until("the namespace is gone", || async {
        Ok(namespaces.get_opt("work").await?.is_none())
    })
    .await
}

async fn pod_security_is_on(client: &Client) -> Result<()> {
    let namespace = serde_json::from_value(json!({ "metadata": {
        "name": "strict",
        "labels": { "pod-security.kubernetes.io/enforce": "restricted" },
    }}))?;
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    let pod = serde_json::from_value(json!({
        "metadata": { "name": "loose" },
        "spec": { "containers": [{ "name": "main", "image": "none" }] },
    }))?;
    let refused = Api::<Pod>::namespaced(client.clone(), "strict")
        .create(&PostParams::default(), &pod)
        .await
        .err()
        .context("a pod that asks for nothing is not restricted")?;
    ensure!(refused.to_string().contains("PodSecurity"), "{refused}");
    Ok(())
}

async fn kinds_are_judged(server: &ApiServer) -> Result<()> {
    let kinds = server.kubectl(&["api-resources", "-o", "name"]).await?;
    for plural in ["conferences", "mediapools", "tenants"] {
        ensure!(
            kinds.contains(&format!("{plural}.plenum.dev")),
            "{plural} in {kinds}"
        );
    }
    let folder = server.folder().join("wrong.json");
    std::fs::write(
        &folder,
        json!({ "apiVersion": "plenum.dev/v1alpha1", "kind": "Tenant", "metadata": { "name": "x" }, "spec": { "noSuchField": 1 } })
            .to_string(),
    )?;
    let file = folder.to_str().context("the folder's path is UTF-8")?;
    let refused = server
        .try_kubectl(&["apply", "--validate=strict", "-f", file])
        .await?;
    ensure!(!refused.status.success(), "an unknown field is taken");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(said.contains("noSuchField"), "{said}");
    Ok(())
}

/// Somebody without a role may nothing, and the audit log tells who was refused what.
async fn identities_hold(server: &ApiServer) -> Result<()> {
    let nobody = Identity {
        user: "system:serviceaccount:default:nobody",
        groups: &["system:serviceaccounts"],
    };
    let client = server.client_of(&nobody).await?;
    let maps = Api::<ConfigMap>::namespaced(client, "default");
    let refused = maps
        .create(&PostParams::default(), &config_map("refused")?)
        .await;
    ensure!(refused.is_err(), "nobody may make a ConfigMap");
    let maps = Api::<ConfigMap>::namespaced(server.client(), "default");
    maps.create(&PostParams::default(), &config_map("made")?)
        .await?;

    let audit = server.audit()?;
    let codes: Vec<(&str, u16)> = audit
        .iter()
        .filter(|entry| entry.is_write() && entry.resource() == "configmaps")
        .filter(|entry| {
            entry
                .object_ref
                .as_ref()
                .is_some_and(|object| object.namespace == "default")
        })
        .filter(|entry| ["admin", nobody.user].contains(&entry.user.username.as_str()))
        .map(|entry| (entry.user.username.as_str(), entry.code()))
        .collect();
    ensure!(
        codes == [(nobody.user, 403), ("admin", 201)],
        "the audit log says {codes:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_was_away_is_there_again_with_its_objects() -> Result<()> {
    let Some(mut server) = ApiServer::start().await? else {
        return Ok(());
    };
    let maps = Api::<ConfigMap>::namespaced(server.client(), "default");
    maps.create(&PostParams::default(), &config_map("kept")?)
        .await?;
    server.kill();
    ensure!(maps.get("kept").await.is_err(), "a killed server answers");
    server.run().await?;
    maps.get("kept").await?;
    Ok(())
}

/// Processes whose arguments name a folder.
fn processes_with(part: &str) -> Result<usize> {
    let output = Command::new("ps").args(["-eo", "pid,args"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.contains(part))
        .count())
}

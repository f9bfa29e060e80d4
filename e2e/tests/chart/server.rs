// SPDX-License-Identifier: EUPL-1.2
//! The chart on a real API server.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::chart::{self, Helm, OPERATOR};
use e2e::cluster::{ApiServer, Identity};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cases::{Case, NAMESPACES, VALUES, cases, labels_of};

/// A policy takes effect some time after it was written.
const PATIENCE: Duration = Duration::from_secs(60);

fn helm(helm: &Helm, server: &ApiServer, args: &[&str]) -> Result<Output> {
    let mut command = helm.command(args);
    command
        .env("KUBECONFIG", server.kubeconfig())
        .args(["--namespace", chart::NAMESPACE]);
    let output = command.output().context("helm starts")?;
    ensure!(
        output.status.success(),
        "helm {args:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

fn chart_path() -> String {
    chart::folder().to_string_lossy().into_owned()
}

pub(crate) async fn make_namespace(client: &Client, name: &str, labels: &Value) -> Result<()> {
    let namespace: Namespace =
        serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } }))?;
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    Ok(())
}

/// Installs under Pod Security restricted.
pub(crate) async fn install(program: &Helm, server: &ApiServer, more: &[&str]) -> Result<()> {
    let restricted = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
    make_namespace(&server.client(), chart::NAMESPACE, &restricted).await?;
    let path = chart_path();
    helm(
        program,
        server,
        &[&["install", "plenum", &path], more].concat(),
    )?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_runs_restricted_keeps_its_keys_and_leaves_nothing_but_what_is_kept()
-> Result<()> {
    let (Some(program), Some(server)) = (Helm::find()?, ApiServer::start().await?) else {
        return Ok(());
    };
    install(&program, &server, &[]).await?;
    let wanted = pods_pass_pod_security(&server).await?;
    ensure!(wanted == 5, "two operators, two replicas, Redis: {wanted}");

    let key = |name: &'static str| async { secret(&server, name).await };
    let before = (
        key("plenum-seal-key").await?,
        key("plenum-installation-key").await?,
        key("plenum-redis").await?,
    );
    let path = chart_path();
    helm(
        &program,
        &server,
        &[
            "upgrade",
            "plenum",
            &path,
            "--set",
            "controlPlane.replicas=3",
        ],
    )?;
    let after = (
        key("plenum-seal-key").await?,
        key("plenum-installation-key").await?,
        key("plenum-redis").await?,
    );
    ensure!(before == after, "an upgrade makes new keys");
    helm(&program, &server, &["rollback", "plenum", "1"])?;
    ensure!(
        before.0 == key("plenum-seal-key").await?,
        "a rollback makes new keys"
    );

    let tenant = serde_json::to_string(
        &cases()
            .into_iter()
            .find(|case| case.resource == "tenants")
            .context("a tenant")?
            .object,
    )?;
    let file = server.folder().join("tenant.json");
    std::fs::write(&file, tenant)?;
    server
        .kubectl(&["apply", "-f", &file.to_string_lossy()])
        .await?;
    helm(&program, &server, &["uninstall", "plenum", "--wait"])?;
    ensure!(
        server
            .kubectl(&["get", "tenant", "case", "-o", "name"])
            .await?
            .contains("case"),
        "the tenant went with the release"
    );
    ensure!(
        before.0 == key("plenum-seal-key").await?,
        "the seal key went with the release"
    );
    let left = left_behind(&server).await?;
    let kept: BTreeSet<&str> = ["secret/plenum-installation-key", "secret/plenum-seal-key"].into();
    ensure!(
        left == kept.iter().map(|name| (*name).to_owned()).collect(),
        "{left:?}"
    );
    let roles = server
        .kubectl(&["get", "clusterrole,clusterrolebinding,validatingadmissionpolicy,validatingadmissionpolicybinding", "-l", "app.kubernetes.io/part-of=plenum", "-o", "name"])
        .await?;
    ensure!(roles.trim().is_empty(), "{roles}");

    // And again, in the place it left.
    helm(&program, &server, &["install", "plenum", &path])?;
    ensure!(
        before.0 == key("plenum-seal-key").await?,
        "a second installation makes new keys"
    );
    Ok(())
}

async fn secret(server: &ApiServer, name: &str) -> Result<String> {
    let data = server
        .kubectl(&[
            "-n",
            chart::NAMESPACE,
            "get",
            "secret",
            name,
            "-o",
            "jsonpath={.data}",
        ])
        .await?;
    ensure!(data.len() > 40, "{name}: {data}");
    Ok(data)
}

/// What the release made and the uninstallation left in the namespace.
async fn left_behind(server: &ApiServer) -> Result<BTreeSet<String>> {
    let kinds = "deployment,service,secret,configmap,serviceaccount,role,rolebinding,networkpolicy,poddisruptionbudget";
    let names = server
        .kubectl(&[
            "-n",
            chart::NAMESPACE,
            "get",
            kinds,
            "-l",
            "app.kubernetes.io/part-of=plenum",
            "-o",
            "name",
        ])
        .await?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// Waits until the controllers have made every pod that the Deployments ask for; Pod Security would stop them.
async fn pods_pass_pod_security(server: &ApiServer) -> Result<usize> {
    let deployments: Value = serde_json::from_str(
        &server
            .kubectl(&["-n", chart::NAMESPACE, "get", "deployment", "-o", "json"])
            .await?,
    )?;
    let items = deployments["items"].as_array().context("items")?;
    let wanted: usize = items
        .iter()
        .filter_map(|item| item["spec"]["replicas"].as_u64())
        .map(|n| n as usize)
        .sum();
    let pods = Api::<Pod>::namespaced(server.client(), chart::NAMESPACE);
    let end = Instant::now() + PATIENCE;
    loop {
        let found = pods.list(&ListParams::default()).await?.items.len();
        if found == wanted {
            break;
        }
        if Instant::now() >= end {
            let events = server
                .kubectl(&["-n", chart::NAMESPACE, "get", "events"])
                .await?;
            anyhow::bail!("{found} of {wanted} pods are made:\n{events}");
        }
        sleep(Duration::from_millis(200)).await;
    }
    // The pod of `helm test` is made by Helm itself.
    let Some(program) = Helm::find()? else {
        return Ok(wanted);
    };
    let all = chart::documents(&program.profile("default")?)?;
    let test: Pod =
        serde_json::from_value(chart::of_kind(&all, "Pod")["plenum-test"].value.clone())?;
    let mut test = test;
    if let Some(spec) = test.spec.as_mut() {
        // Its account lives as long as the test.
        spec.service_account_name = None;
    }
    pods.create(
        &PostParams {
            dry_run: true,
            ..PostParams::default()
        },
        &test,
    )
    .await
    .context("the pod of helm test")?;
    Ok(wanted)
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_take_and_refuse_on_the_api_server_as_in_the_evaluator() -> Result<()> {
    let (Some(program), Some(server)) = (Helm::find()?, ApiServer::start_with_crds().await?) else {
        return Ok(());
    };
    let mut more = VALUES.to_vec();
    more.extend(["--set", "mediaNamespaces=null"]);
    install(&program, &server, &more).await?;
    let operator = server
        .client_of(&Identity {
            user: OPERATOR,
            groups: &["system:masters"],
        })
        .await?;
    for name in NAMESPACES {
        make_namespace(&operator, name, &labels_of(name)).await?;
    }
    let mut clients = BTreeMap::new();
    for user in ["alice", "backup", OPERATOR] {
        clients.insert(
            user,
            server
                .client_of(&Identity {
                    user,
                    groups: &["system:masters"],
                })
                .await?,
        );
    }
    until_in_force(&clients["alice"]).await?;
    for case in cases() {
        let result = attempt(&operator, &clients[case.user], &case).await?;
        match (case.refused, result) {
            (None, Ok(())) => {}
            // Rules of the definition are asked before the policies are.
            (Some(_), Err(message)) if message.contains(" immutable") => {}
            (Some(part), Err(message)) => {
                ensure!(
                    message.contains(part),
                    "{}: {part:?} is not in {message:?}",
                    case.name
                );
                ensure!(
                    message.contains(&format!("{}.plenum.dev", case.policy)),
                    "{}: {message}",
                    case.name
                );
            }
            (None, Err(message)) => anyhow::bail!("{}: refused: {message}", case.name),
            (Some(_), Ok(())) => anyhow::bail!("{}: taken", case.name),
        }
    }
    let warnings = server
        .kubectl(&[
            "get",
            "validatingadmissionpolicy",
            "-o",
            "jsonpath={range .items[*]}{.status.typeChecking.expressionWarnings}{end}",
        ])
        .await?;
    ensure!(warnings.trim().is_empty(), "{warnings}");
    Ok(())
}

/// A refusal of each policy shows that all are in force.
async fn until_in_force(client: &Client) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    for case in cases()
        .into_iter()
        .filter(|case| case.refused.is_some() && case.old.is_none())
    {
        while attempt(client, client, &case).await?.is_ok() {
            ensure!(Instant::now() < end, "{} is never in force", case.policy);
            sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

fn url(case: &Case, named: bool) -> String {
    let (resource, subresource) = case.resource.split_once('/').unwrap_or((case.resource, ""));
    let mut url = match case.group() {
        "" => "/api/v1".to_owned(),
        "policy" => "/apis/policy/v1".to_owned(),
        group => format!("/apis/{group}/v1alpha1"),
    };
    if !case.namespace.is_empty() {
        url.push_str(&format!("/namespaces/{}", case.namespace));
    }
    url.push_str(&format!("/{resource}"));
    if named {
        url.push_str("/case");
        if !subresource.is_empty() {
            url.push_str(&format!("/{subresource}"));
        }
    }
    url
}

/// Makes the request, with what is there before made by the operator; the message when it is refused.
async fn attempt(
    operator: &Client,
    client: &Client,
    case: &Case,
) -> Result<std::result::Result<(), String>> {
    async fn send(
        client: &Client,
        method: &str,
        url: &str,
        object: &Value,
    ) -> Result<std::result::Result<Value, String>> {
        let request = http_request(method, url, object)?;
        match client.request::<Value>(request).await {
            Ok(answer) => Ok(Ok(answer)),
            Err(kube::Error::Api(status)) => Ok(Err(status.message)),
            Err(error) => Err(error.into()),
        }
    }
    let Some(old) = &case.old else {
        let answer = send(
            client,
            "POST",
            &format!("{}?dryRun=All", url(case, false)),
            &case.object,
        )
        .await?;
        return Ok(answer.map(|_| ()));
    };
    let old = send(operator, "POST", &url(case, false), old).await?;
    let old = old.map_err(|message| {
        anyhow::anyhow!("{}: what is there before is refused: {message}", case.name)
    })?;
    let mut object = case.object.clone();
    object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
    if case.resource == "pods" {
        // What the API server has filled in cannot be taken away again.
        let image = case.object["spec"]["containers"][0]["image"].clone();
        let labels = case.object["metadata"]["labels"].clone();
        object = old.clone();
        object["spec"]["containers"][0]["image"] = image;
        object["metadata"]["labels"] = labels;
    }
    let answer = send(
        client,
        "PUT",
        &format!("{}?dryRun=All", url(case, true)),
        &object,
    )
    .await?;
    let plain = url(case, true).trim_end_matches("/status").to_owned();
    let finalizers = old["metadata"]["finalizers"].is_array();
    if finalizers {
        let mut bare = old.clone();
        bare["metadata"]["finalizers"] = json!([]);
        send(operator, "PUT", &plain, &bare)
            .await?
            .map_err(|message| anyhow::anyhow!("{}: {message}", case.name))?;
    }
    send(
        operator,
        "DELETE",
        &format!("{plain}?gracePeriodSeconds=0"),
        &json!({}),
    )
    .await?
    .map_err(|message| anyhow::anyhow!("{}: {message}", case.name))?;
    gone(operator, &plain).await?;
    Ok(answer.map(|_| ()))
}

fn http_request(method: &str, url: &str, object: &Value) -> Result<http::Request<Vec<u8>>> {
    Ok(http::Request::builder()
        .method(method)
        .uri(url)
        .header("Content-Type", "application/json")
        .body(if method == "GET" {
            Vec::new()
        } else {
            serde_json::to_vec(object)?
        })?)
}

async fn gone(client: &Client, url: &str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while client
        .request::<Value>(http_request("GET", url, &Value::Null)?)
        .await
        .is_ok()
    {
        ensure!(Instant::now() < end, "{url} does not go");
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

// SPDX-License-Identifier: EUPL-1.2
//! kubeconform judges every profile by the schemas that a real API server publishes; for kinds of other projects by those of `tests/schemas`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::chart::{self, Helm, PROFILES};
use e2e::cluster::{ApiServer, Programs};
use serde_json::{Map, Value, json};

/// Place of a schema by kind; for the core group the group is the version too.
const TEMPLATE: &str = "{{ .ResourceKind }}-{{ .Group }}-{{ .ResourceAPIVersion }}.json";
const REFERENCE: &str = "#/definitions/";

/// Names of definitions that a schema refers to, directly or by others.
fn reach(schema: &Value, all: &Map<String, Value>, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            let target = members.get("$ref").and_then(Value::as_str);
            if let Some(name) = target.and_then(|target| target.strip_prefix(REFERENCE))
                && found.insert(name.to_owned())
            {
                reach(&all[name], all, found);
            }
            members.values().for_each(|inner| reach(inner, all, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| reach(inner, all, found)),
        _ => {}
    }
}

/// Refuses what is not declared, and takes numbers where Kubernetes does.
fn strict(name: &str, schema: &mut Value) {
    if name.ends_with("util.intstr.IntOrString") || name.ends_with("api.resource.Quantity") {
        *schema = json!({ "type": ["string", "number"] });
        return;
    }
    let Some(members) = schema.as_object_mut() else {
        return;
    };
    if members.get("properties").is_some_and(Value::is_object) {
        let open = members.contains_key("additionalProperties")
            || members.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
        if let Some(properties) = members.get_mut("properties").and_then(Value::as_object_mut) {
            properties.values_mut().for_each(|inner| strict("", inner));
        }
        if !open {
            members.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
    }
    if let Some(items) = members.get_mut("items") {
        strict("", items);
    }
}

/// Writes a schema for every kind.
async fn write_schemas(server: &ApiServer, folder: &Path) -> Result<()> {
    let published: Value =
        serde_json::from_str(&server.kubectl(&["get", "--raw", "/openapi/v2"]).await?)?;
    let mut all = published["definitions"]
        .as_object()
        .context("definitions")?
        .clone();
    for (name, schema) in &mut all {
        strict(name, schema);
    }
    std::fs::create_dir_all(folder)?;
    let mut written = 0;
    for (name, schema) in &all {
        let kinds = schema
            .get("x-kubernetes-group-version-kind")
            .and_then(Value::as_array);
        for kind in kinds.into_iter().flatten() {
            let text = |field: &str| kind[field].as_str().unwrap_or_default().to_lowercase();
            let (group, version) = (text("group"), text("version"));
            let group = if group.is_empty() {
                version.clone()
            } else {
                group
            };
            let mut found = BTreeSet::from([name.clone()]);
            reach(schema, &all, &mut found);
            let definitions: Map<String, Value> = found
                .into_iter()
                .map(|name| (name.clone(), all[&name].clone()))
                .collect();
            let whole = json!({ "$ref": format!("{REFERENCE}{name}"), "definitions": definitions });
            let file = folder.join(format!("{}-{group}-{version}.json", text("kind")));
            std::fs::write(file, serde_json::to_vec(&whole)?)?;
            written += 1;
        }
    }
    ensure!(written > 100, "kinds are published: {written}");
    Ok(())
}

/// Says what is wrong; empty = nothing.
fn judge(kubeconform: &Path, schemas: &Path, text: &str, file: &Path) -> Result<String> {
    std::fs::write(file, text)?;
    let location = |folder: &Path| format!("{}/{TEMPLATE}", folder.display());
    let output = Command::new(kubeconform)
        .arg("-schema-location")
        .arg(location(schemas))
        .arg("-schema-location")
        .arg(location(&chart::folder().join("tests/schemas")))
        .arg(file)
        .stdin(Stdio::null())
        .output()?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(
        output.status.success() || !said.is_empty(),
        "kubeconform fails without a word"
    );
    Ok(if output.status.success() {
        String::new()
    } else {
        said
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn kubeconform_finds_nothing_in_any_profile() -> Result<()> {
    let (Some(helm), Some(programs)) = (Helm::find()?, Programs::find(&["kubeconform"])?) else {
        return Ok(());
    };
    let Some(server) = ApiServer::start_with_crds().await? else {
        return Ok(());
    };
    let (kubeconform, schemas) = (
        programs.path("kubeconform")?,
        server.folder().join("schemas"),
    );
    write_schemas(&server, &schemas).await?;
    let file = server.folder().join("rendered.yaml");
    let mut last = String::new();
    for profile in ["default"].into_iter().chain(PROFILES) {
        last = helm.profile(profile)?;
        let said = judge(kubeconform, &schemas, &last, &file)?;
        ensure!(said.is_empty(), "{profile}: {said}");
    }
    let issuer = helm.render(&["--set", "crds.install=false", "--set", "certManager.enabled=true,certManager.issuerRef.name=x,certManager.issuerRef.kind=ClusterIssuer"])?;
    let said = judge(kubeconform, &schemas, &issuer, &file)?;
    ensure!(
        issuer.contains("kind: ClusterIssuer") && said.is_empty(),
        "{said}"
    );
    // And it does find what is wrong.
    for (right, wrong) in [
        ("replicas: 2", "replicas: two"),
        ("serviceAccountName:", "serviceAcountName:"),
    ] {
        ensure!(last.contains(right), "{right}");
        let said = judge(kubeconform, &schemas, &last.replace(right, wrong), &file)?;
        ensure!(!said.is_empty(), "{wrong} is taken");
    }
    Ok(())
}

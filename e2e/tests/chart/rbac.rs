// SPDX-License-Identifier: EUPL-1.2
//! Rights: each with the code that needs it, none by wildcard, Secrets only where they must be.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::chart::{self, Document, Helm};
use serde_json::Value;

fn roles(helm: &Helm) -> Result<Vec<Document>> {
    let mut all = chart::documents(&helm.render(&[
        "--set",
        "crds.install=false",
        "--set",
        "tests.tenantNamespace=tenant-city",
    ])?)?;
    all.retain(|document| ["Role", "ClusterRole"].contains(&document.kind()));
    ensure!(all.len() >= 9, "roles are found");
    Ok(all)
}

fn strings(rule: &Value, field: &str) -> Vec<String> {
    let all = rule[field].as_array().cloned().unwrap_or_default();
    all.iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

#[test]
fn each_rule_says_which_code_needs_it() -> Result<()> {
    let Some(helm) = Helm::find()? else {
        return Ok(());
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/controller/src");
    for role in roles(&helm)? {
        let lines: Vec<&str> = role.text.lines().collect();
        let mut rules = 0;
        for (index, line) in lines.iter().enumerate() {
            if !line.starts_with("  - apiGroups:") {
                continue;
            }
            rules += 1;
            let comment = index
                .checked_sub(1)
                .and_then(|above| lines[above].strip_prefix("  # "));
            let comment =
                comment.with_context(|| format!("{}: no comment above {line}", role.id()))?;
            let (code, why) = comment
                .split_once(": ")
                .with_context(|| format!("{}: {comment}", role.id()))?;
            ensure!(why.len() > 3, "{}: {comment}", role.id());
            if code.starts_with("people") || code == "plenum probe" {
                continue;
            }
            for place in code.split(", ") {
                let place = place.trim_end_matches('/');
                ensure!(
                    source.join(place).exists() || source.join(format!("{place}.rs")).exists(),
                    "{}: {place} is no module of the operator",
                    role.id()
                );
            }
        }
        let declared = role.value["rules"].as_array().map_or(0, Vec::len);
        ensure!(
            rules == declared && rules > 0,
            "{}: {rules} of {declared} rules",
            role.id()
        );
    }
    Ok(())
}

#[test]
fn no_right_is_a_wildcard_and_none_escalates() -> Result<()> {
    let Some(helm) = Helm::find()? else {
        return Ok(());
    };
    for role in roles(&helm)? {
        for rule in role.value["rules"].as_array().context("rules")? {
            for field in ["apiGroups", "resources", "verbs"] {
                ensure!(
                    !strings(rule, field).iter().any(|text| text.contains('*')),
                    "{}: {rule}",
                    role.id()
                );
            }
            let verbs = strings(rule, "verbs");
            ensure!(
                !verbs
                    .iter()
                    .any(|verb| ["escalate", "impersonate"].contains(&verb.as_str())),
                "{}: {rule}",
                role.id()
            );
            if verbs.iter().any(|verb| verb == "bind") {
                ensure!(
                    !strings(rule, "resourceNames").is_empty(),
                    "{}: binds any role: {rule}",
                    role.id()
                );
            }
        }
    }
    Ok(())
}

#[test]
fn the_operator_reads_secrets_only_where_it_must() -> Result<()> {
    let Some(helm) = Helm::find()? else {
        return Ok(());
    };
    let roles = roles(&helm)?;
    let rules_on_secrets = |id: &str| -> Result<Vec<Value>> {
        let role = roles
            .iter()
            .find(|role| role.id() == id)
            .with_context(|| format!("{id} is rendered"))?;
        let rules = role.value["rules"].as_array().context("rules")?;
        Ok(rules
            .iter()
            .filter(|rule| strings(rule, "resources").contains(&"secrets".to_owned()))
            .cloned()
            .collect())
    };
    ensure!(
        rules_on_secrets("ClusterRole plenum-operator")?.is_empty(),
        "in all namespaces"
    );
    for rule in rules_on_secrets("Role plenum-system/plenum-operator")? {
        let names = strings(&rule, "resourceNames");
        ensure!(
            !names.is_empty() || strings(&rule, "verbs") == ["create"],
            "{rule}"
        );
        for foreign in ["plenum-seal-key", "plenum-installation-key", "plenum-redis"] {
            ensure!(!names.contains(&foreign.to_owned()), "{rule}");
        }
    }
    // In media namespaces by name alone: who cannot list does not find what it did not make.
    for rule in rules_on_secrets("ClusterRole plenum-media-namespace")? {
        let verbs = strings(&rule, "verbs");
        ensure!(
            !verbs.iter().any(|verb| verb == "list" || verb == "watch"),
            "{rule}"
        );
    }
    // The same holds for a tenant's people.
    for rule in rules_on_secrets("ClusterRole plenum-tenant-admin")? {
        ensure!(
            strings(&rule, "verbs") == ["get", "create", "update", "delete"],
            "{rule}"
        );
    }
    Ok(())
}

#[test]
fn only_who_speaks_to_the_api_server_has_a_token() -> Result<()> {
    let Some(helm) = Helm::find()? else {
        return Ok(());
    };
    let all = chart::documents(&helm.profile("default")?)?;
    for (name, deployment) in chart::of_kind(&all, "Deployment") {
        let token = deployment
            .value
            .pointer("/spec/template/spec/automountServiceAccountToken");
        let wanted = (name != "plenum-operator").then_some(Value::Bool(false));
        ensure!(token == wanted.as_ref(), "{name}: {token:?}");
    }
    Ok(())
}

// SPDX-License-Identifier: EUPL-1.2
//! Alerts fire and stay silent as their tests say, and nothing asks for a metric that is not in docs/metrics.md.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::chart;
use serde_json::Value;

#[test]
fn alerts_fire_on_what_they_are_for_and_stay_silent_otherwise() -> Result<()> {
    let tests = chart::folder().join("tests/rules.test.yaml");
    let output = Command::new("promtool")
        .args(["test", "rules"])
        .arg(&tests)
        .output();
    let Ok(output) = output else {
        ensure!(
            std::env::var_os("PLENUM_KUBERNETES").is_none(),
            "promtool is not installed: apt-get install prometheus"
        );
        eprintln!("SKIPPED: promtool is not installed; apt-get install prometheus");
        return Ok(());
    };
    ensure!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn rules() -> Result<Vec<Value>> {
    let rules: Value = serde_saphyr::from_str(&std::fs::read_to_string(
        chart::folder().join("files/rules.yaml"),
    )?)?;
    let groups = rules["groups"].as_array().context("groups")?;
    Ok(groups
        .iter()
        .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
        .collect())
}

#[test]
fn each_alert_has_a_test_for_firing_and_one_for_silence() -> Result<()> {
    let tests: Value = serde_saphyr::from_str(&std::fs::read_to_string(
        chart::folder().join("tests/rules.test.yaml"),
    )?)?;
    let checks: Vec<Value> = tests["tests"]
        .as_array()
        .context("tests")?
        .iter()
        .flat_map(|test| {
            test["alert_rule_test"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        })
        .collect();
    for rule in rules()? {
        let of_rule: Vec<&Value> = checks
            .iter()
            .filter(|check| check["alertname"] == rule["alert"])
            .collect();
        let fires = |wanted: bool| {
            of_rule.iter().any(|check| {
                check["exp_alerts"]
                    .as_array()
                    .is_some_and(|all| all.is_empty() != wanted)
            })
        };
        ensure!(fires(true) && fires(false), "{}", rule["alert"]);
        for field in ["summary", "description"] {
            ensure!(
                rule["annotations"][field].is_string(),
                "{}: {field}",
                rule["alert"]
            );
        }
    }
    Ok(())
}

/// Names of Plenum's metrics in an expression.
fn metrics(expression: &str) -> impl Iterator<Item = &str> {
    expression
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("plenum_"))
}

fn queries() -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for rule in rules()? {
        all.push((
            rule["alert"].to_string(),
            rule["expr"].as_str().context("expr")?.to_owned(),
        ));
    }
    for file in std::fs::read_dir(chart::folder().join("files/dashboards"))? {
        let path = file?.path();
        let board: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        for panel in board["panels"].as_array().context("panels")? {
            for target in panel["targets"].as_array().context("targets")? {
                let place = format!("{}: {}", path.display(), panel["title"]);
                all.push((place, target["expr"].as_str().context("expr")?.to_owned()));
            }
        }
    }
    Ok(all)
}

#[test]
fn alerts_and_dashboards_ask_only_for_metrics_that_there_are() -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = std::fs::read_to_string(docs)?;
    let known: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    let mut asked = BTreeSet::new();
    for (place, expression) in queries()? {
        for name in metrics(&expression) {
            let plain = ["_total", "_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            ensure!(
                known.contains(plain) || known.contains(name),
                "{place}: {name} is not in docs/metrics.md"
            );
            asked.insert(plain.to_owned());
        }
    }
    ensure!(asked.len() > 30, "expressions are read: {asked:?}");
    Ok(())
}

#[test]
fn panels_have_ids_and_places_of_their_own() -> Result<()> {
    for file in std::fs::read_dir(chart::folder().join("files/dashboards"))? {
        let board: Value = serde_json::from_str(&std::fs::read_to_string(file?.path())?)?;
        let panels = board["panels"].as_array().context("panels")?;
        let ids: BTreeSet<String> = panels.iter().map(|panel| panel["id"].to_string()).collect();
        let places: BTreeSet<String> = panels
            .iter()
            .map(|panel| panel["gridPos"].to_string())
            .collect();
        ensure!(
            ids.len() == panels.len() && places.len() == panels.len(),
            "{}",
            board["title"]
        );
    }
    Ok(())
}

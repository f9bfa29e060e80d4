// SPDX-License-Identifier: EUPL-1.2
//! Files that are written from others: README.md from the comments of values.yaml, images.txt from the images.

use anyhow::{Context, Result, ensure};
use e2e::chart::{self, Helm};
use serde_json::Value;

/// Where the table goes in the text.
const MARK: &str = "<!-- values -->";

/// Rows of the table: every value with a comment `# --`, in the order of the file.
fn rows(text: &str) -> Result<Vec<(String, String, String)>> {
    let values: Value = serde_saphyr::from_str(text)?;
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut comment: Option<String> = None;
    let mut rows = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some(begin) = trimmed.strip_prefix("# -- ") {
            comment = Some(begin.to_owned());
            continue;
        }
        if let (Some(more), Some(text)) = (trimmed.strip_prefix("# "), comment.as_mut()) {
            text.push(' ');
            text.push_str(more);
            continue;
        }
        let Some((key, _)) = trimmed.split_once(':').filter(|(key, _)| is_key(key)) else {
            comment = None;
            continue;
        };
        let depth = line.len() - trimmed.len();
        while path.last().is_some_and(|(last, _)| *last >= depth) {
            path.pop();
        }
        path.push((depth, key.to_owned()));
        let names: Vec<&str> = path.iter().map(|(_, name)| name.as_str()).collect();
        if let Some(comment) = comment.take() {
            let value = values
                .pointer(&format!("/{}", names.join("/")))
                .with_context(|| format!("{} is a value", names.join(".")))?;
            rows.push((names.join("."), value.to_string(), comment));
        }
    }
    Ok(rows)
}

fn is_key(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"./_-".contains(&byte))
        && !text.starts_with('-')
}

/// Does every scalar have a comment, its own or that of an object above it?
fn undocumented(values: &Value, path: &str, rows: &[(String, String, String)]) -> Vec<String> {
    if rows.iter().any(|(name, _, _)| name == path) {
        return Vec::new();
    }
    match values.as_object() {
        Some(members) if !members.is_empty() => members
            .iter()
            .flat_map(|(name, inner)| {
                let dot = if path.is_empty() { "" } else { "." };
                undocumented(inner, &format!("{path}{dot}{name}"), rows)
            })
            .collect(),
        _ => vec![path.to_owned()],
    }
}

#[test]
fn the_readme_lists_every_value_as_its_comment_says() -> Result<()> {
    let values = std::fs::read_to_string(chart::folder().join("values.yaml"))?;
    let rows = rows(&values)?;
    let missing = undocumented(&serde_saphyr::from_str(&values)?, "", &rows);
    ensure!(missing.is_empty(), "values without a comment: {missing:?}");
    let mut table = "| value | default | meaning |\n|---|---|---|\n".to_owned();
    for (name, default, comment) in rows {
        let default = default.replace('|', "\\|");
        table.push_str(&format!(
            "| `{name}` | `{default}` | {} |\n",
            comment.replace('|', "\\|")
        ));
    }
    let text = std::fs::read_to_string(chart::folder().join("tests/README.md"))?;
    ensure!(text.contains(MARK));
    chart::same_as_file("README.md", &text.replace(MARK, table.trim_end()))
}

#[test]
fn images_txt_lists_what_a_cluster_may_pull() -> Result<()> {
    let Some(helm) = Helm::find()? else {
        return Ok(());
    };
    let values: Value = serde_saphyr::from_str(&std::fs::read_to_string(
        chart::folder().join("values.yaml"),
    )?)?;
    let file: Value = serde_saphyr::from_str(&std::fs::read_to_string(
        chart::folder().join("Chart.yaml"),
    )?)?;
    let version = file["appVersion"].as_str().context("appVersion")?;
    let rendered = helm.profile("default")?;
    let mut lines = String::new();
    for (part, image) in values["images"].as_object().context("images")? {
        let Some(repository) = image["repository"].as_str() else {
            continue;
        };
        let tag = image["tag"]
            .as_str()
            .filter(|tag| !tag.is_empty())
            .unwrap_or(version);
        let name = format!("{repository}:{tag}");
        ensure!(
            rendered.contains(&format!("localhost/{name}")),
            "{part} is not used: {name}"
        );
        lines.push_str(&format!("{name}\n"));
    }
    chart::same_as_file("images.txt", &lines)
}

#[test]
fn the_version_of_the_chart_is_that_of_the_programs() -> Result<()> {
    let file: Value = serde_saphyr::from_str(&std::fs::read_to_string(
        chart::folder().join("Chart.yaml"),
    )?)?;
    for field in ["version", "appVersion"] {
        ensure!(
            file[field] == env!("CARGO_PKG_VERSION"),
            "{field}: {}",
            file[field]
        );
    }
    Ok(())
}

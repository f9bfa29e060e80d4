// SPDX-License-Identifier: EUPL-1.2
//! One set of wrong manifests, judged by a real API server and by `plenum validate`: the same field, and the same remedy as far as
//! the API server can say it.
//!
//! What `plenum validate` says stands beside each manifest, and a test of its own holds it to every word; here the API server is held to
//! the same text.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::cluster::ApiServer;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../operator/cli/tests/wrong");
/// Namespaces that the manifests stand in; even a dry run wants them.
const NAMESPACES: [&str; 4] = ["tenant-town", "tenant-school", "tenant-twon", "media"];
/// No API server sees these at all: they are no YAML, or kubectl stops before it asks.
const BEFORE_THE_SERVER: [&str; 6] = [
    "YAML",
    "kind",
    "scope",
    "unique name",
    "format",
    "duplicate",
];

/// Decoded before fields are looked at: the API server names no field.
const NOT_DECODED: [&str; 2] = ["secret-no-base64", "wrong-version"];

/// What `plenum validate` says of one mistake.
#[derive(Debug)]
struct Said {
    field: String,
    message: String,
    rule: String,
    remedy: String,
}

/// How early the API server looks for it: what comes later is not reported together with what comes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Decoding,
    Schema,
    Rules,
}

impl Said {
    /// `None` for what only a look at all objects finds, or nobody but a person.
    fn stage(&self) -> Option<Stage> {
        match self.rule.as_str() {
            "unknownField" => Some(Stage::Decoding),
            "enum" | "minimum" | "maximum" | "required" | "pattern" | "type" | "maxLength"
            | "minItems" => Some(Stage::Schema),
            rule if rule.contains(' ') => Some(Stage::Rules),
            _ => None,
        }
    }

    /// What the API server's answer has to hold: the field, and what the remedy is made of.
    fn parts(&self) -> Vec<String> {
        let number = |text: &str| {
            let words = text.split(|letter: char| !letter.is_ascii_digit());
            words
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .next_back()
        };
        let mut parts = vec![self.field.clone()];
        match self.rule.as_str() {
            "enum" => {
                let allowed = self.remedy.split_once("Allowed are ").map(|(_, all)| all);
                parts.extend(
                    allowed
                        .into_iter()
                        .flat_map(|all| all.split(", "))
                        .map(str::to_owned),
                );
            }
            // The bound itself.
            "maximum" | "minimum" | "maxLength" | "minItems" => parts.extend(number(&self.message)),
            "required" => parts.push("Required value".to_owned()),
            rule if rule.contains(' ') => parts.push(self.message.clone()),
            _ => {}
        }
        parts
    }
}

/// The problems of a text, as `file:line: Kind/name: field: message`, rule and remedy.
fn read(text: &str) -> Vec<Said> {
    let mut all = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let rule = lines
            .peek()
            .and_then(|next| next.trim().strip_prefix("rule:"));
        let Some(rule) = rule.map(|rule| rule.trim().to_owned()) else {
            continue;
        };
        lines.next();
        let remedy = lines
            .next()
            .and_then(|line| line.trim().strip_prefix("remedy:"));
        let rest: Vec<&str> = line.splitn(4, ": ").collect();
        let [_, _, field, message] = rest[..] else {
            continue;
        };
        all.push(Said {
            field: field.to_owned(),
            message: message.to_owned(),
            rule,
            remedy: remedy.unwrap_or_default().trim().to_owned(),
        });
    }
    all
}

async fn dry_run(server: &ApiServer, path: &Path) -> Result<(bool, String)> {
    let path = path.to_str().context("a path")?;
    let args = [
        "create",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        path,
    ];
    let output = server.try_kubectl(&args).await?;
    let said = [output.stdout, output.stderr].concat();
    Ok((
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

#[tokio::test]
async fn an_api_server_refuses_what_plenum_validate_refuses_at_the_same_field() -> Result<()> {
    let Some(server) = ApiServer::start_with_crds().await? else {
        return Ok(());
    };
    for namespace in NAMESPACES {
        server.kubectl(&["create", "namespace", namespace]).await?;
    }
    // kubectl checks against what the server publishes of the kinds, which follows the kinds after a moment.
    let base = Path::new(FOLDER).join("base");
    let end = std::time::Instant::now() + Duration::from_secs(90);
    loop {
        let (accepted, said) = dry_run(&server, &base).await?;
        if accepted {
            break;
        }
        ensure!(
            std::time::Instant::now() < end,
            "what is right is refused: {said}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let mut judged = BTreeSet::new();
    let (mut unseen, mut failures) = (0, Vec::new());
    let mut names: Vec<String> = std::fs::read_dir(FOLDER)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned))
        .collect();
    names.sort();
    for name in names {
        let folder = Path::new(FOLDER);
        let problems = read(&std::fs::read_to_string(
            folder.join(format!("{name}.txt")),
        )?);
        let before = |said: &Said| BEFORE_THE_SERVER.contains(&said.rule.as_str());
        if problems.is_empty() || problems.iter().any(before) {
            continue;
        }
        let first = problems.iter().filter_map(Said::stage).min();
        let (accepted, said) = dry_run(&server, &folder.join(format!("{name}.yaml"))).await?;
        let Some(first) = first else {
            // Only a look at all objects shows it: that is the operator's, in the status, with the same words.
            unseen += 1;
            if !accepted {
                failures.push(format!(
                    "{name}: refused although only the operator can see it: {said}"
                ));
            }
            continue;
        };
        if accepted {
            failures.push(format!("{name}: accepted: {problems:#?}"));
            continue;
        }
        if NOT_DECODED.contains(&name.as_str()) {
            continue;
        }
        for problem in problems.iter().filter(|said| said.stage() == Some(first)) {
            judged.insert(problem.rule.clone());
            for part in problem.parts() {
                if !said.contains(&part) {
                    failures.push(format!("{name}: no `{part}` in: {said}"));
                }
            }
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    ensure!(
        judged.len() >= 20,
        "only {} rules were compared: {judged:?}",
        judged.len()
    );
    ensure!(
        unseen >= 15,
        "only {unseen} manifests that the schema accepts"
    );
    Ok(())
}

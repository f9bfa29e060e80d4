// SPDX-License-Identifier: EUPL-1.2
//! `plenum validate`: judges manifests by the rules an API server would run, all errors at once.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use plenum_api::{KINDS, check, names};
use serde::Serialize;
use serde_json::Value;

use crate::manifest::{self, Document};

/// One thing that is wrong in a file.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Finding {
    /// Path as it was reached from the command line.
    pub(crate) file: String,
    /// Line, from 1.
    pub(crate) line: u64,
    /// Kind and name of the object, where they could be read.
    pub(crate) object: String,
    /// Field path, `spec.openers[0].type`.
    pub(crate) field: String,
    /// Keyword of the schema or text of the CEL rule.
    pub(crate) rule: String,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: ", self.file, self.line)?;
        for part in [&self.object, &self.field] {
            if !part.is_empty() {
                write!(out, "{part}: ")?;
            }
        }
        writeln!(out, "{}", self.message)?;
        writeln!(out, "    rule:   {}", self.rule)?;
        write!(out, "    remedy: {}", self.remedy)
    }
}

/// What was read, and what is wrong with it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Objects read.
    pub(crate) objects: usize,
    /// Ordered by file and line.
    pub(crate) findings: Vec<Finding>,
}

/// The manifests of a file or a directory (`*.yaml`, `*.yml`, sorted by name, not recursive).
///
/// # Errors
/// Where the path cannot be read.
pub(crate) fn manifests(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        fs::metadata(path)?;
        return Ok(vec![path.to_owned()]);
    }
    let mut files: Vec<PathBuf> = fs::read_dir(path)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|file| {
        matches!(
            file.extension().and_then(|end| end.to_str()),
            Some("yaml" | "yml")
        )
    });
    files.sort();
    Ok(files)
}

/// Judges files by schema, CEL rules and schedules, and looks for two documents of one name.
///
/// # Errors
/// Where a file cannot be read.
pub(crate) fn validate(files: &[PathBuf]) -> std::io::Result<Report> {
    let mut report = Report::default();
    let mut seen = BTreeMap::new();
    for file in files {
        let shown = file.display().to_string();
        let bytes = fs::metadata(file)?.len();
        if bytes > manifest::FILE_BYTES_MAX {
            report.findings.push(Finding {
                file: shown,
                line: 1,
                object: String::new(),
                field: String::new(),
                rule: "size".into(),
                message: format!(
                    "the file has {bytes} bytes, at most {} are read",
                    manifest::FILE_BYTES_MAX
                ),
                remedy: "split it".into(),
            });
            continue;
        }
        match manifest::parse(&String::from_utf8_lossy(&fs::read(file)?)) {
            Ok(documents) => {
                for document in &documents {
                    report.objects += 1;
                    judge(&shown, document, &mut seen, &mut report.findings);
                }
            }
            Err(error) => report.findings.push(Finding {
                file: shown,
                line: error.line,
                object: String::new(),
                field: String::new(),
                rule: "YAML".into(),
                message: error.message,
                remedy: "correct the YAML; nothing after this line was read".into(),
            }),
        }
    }
    report.findings.sort();
    Ok(report)
}

type Seen = BTreeMap<(String, String, String), String>;

fn judge(file: &str, document: &Document, seen: &mut Seen, findings: &mut Vec<Finding>) {
    let text = |pointer: &str| {
        document
            .value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    let object = if name.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind}/{name}")
    };
    let mut found = |pointer: &str, rule: &str, message: String, remedy: &str| {
        findings.push(Finding {
            file: file.to_owned(),
            line: document.line(pointer),
            object: object.clone(),
            field: field_path(pointer),
            rule: rule.to_owned(),
            message,
            remedy: remedy.to_owned(),
        });
    };
    if !name.is_empty() {
        let key = (
            kind.to_owned(),
            text("/metadata/namespace").to_owned(),
            name.to_owned(),
        );
        let place = format!("{file}:{}", document.line("/metadata/name"));
        if let Some(first) = seen.get(&key) {
            found(
                "/metadata/name",
                "unique name",
                format!("stands at {first} already"),
                "rename or remove one of the two",
            );
        } else {
            seen.insert(key, place);
        }
    }
    if text("/apiVersion") == "v1" && kind == "Secret" {
        return judge_secret(document, &mut found);
    }
    if !KINDS.contains(&kind) {
        let known = format!("use one of {}, or a v1 Secret", KINDS.join(", "));
        return found(
            "/kind",
            "kind",
            format!("`{kind}` is no kind of {}", names::GROUP),
            &known,
        );
    }
    for violation in check::validate(kind, &document.value, None) {
        found(
            &violation.pointer,
            &violation.rule,
            violation.message,
            &violation.remedy,
        );
    }
}

fn judge_secret(document: &Document, found: &mut impl FnMut(&str, &str, String, &str)) {
    let value = &document.value;
    if value.get("type").and_then(Value::as_str) != Some(names::SECRET_TYPE_API_KEY) {
        return;
    }
    for (key, bytes_min) in [
        (names::SECRET_KEY_API_KEY, 1),
        (names::SECRET_KEY_API_SECRET, names::API_SECRET_BYTES_MIN),
    ] {
        // Only plain text can be measured here; `data` is decoded where it is used.
        if value.pointer(&format!("/data/{key}")).is_some() {
            continue;
        }
        let pointer = format!("/stringData/{key}");
        let bytes = value
            .pointer(&pointer)
            .and_then(Value::as_str)
            .map_or(0, str::len);
        if bytes < bytes_min {
            let message = format!("has {bytes} bytes, an API key needs at least {bytes_min}");
            found(
                &pointer,
                "api key",
                message,
                "give the key and a random secret under stringData or data",
            );
        }
    }
}

/// `/spec/openers/0/type` as people write it: `spec.openers[0].type`.
fn field_path(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if part.parse::<usize>().is_ok() {
            path.push_str(&format!("[{part}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&part);
        }
    }
    path
}

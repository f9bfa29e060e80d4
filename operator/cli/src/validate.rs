// SPDX-License-Identifier: EUPL-1.2
//! Manifests judged as a cluster would: schema and CEL rules first, then names, references, bounds and schedules. All
//! errors at once, each with file, line, field, rule and remedy.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
};

use operator_core::{
    AbsentOpenerKeys, ObjectKey, Objects, Problem,
    inert::{Inert, Shell, inert},
    objects::{CLUSTER_KINDS, key_of},
    validate,
};
use plenum_api::{KINDS, check, names};
use serde::Serialize;
use serde_json::Value;

use crate::manifest::{self, Document};

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Finding {
    /// Path as it was reached from the command line.
    pub(crate) file: String,
    /// Line, from 1.
    pub(crate) line: u64,
    /// Kind and name of the object, where they could be read.
    pub(crate) object: String,
    /// Field path, `spec.openers[0].type`.
    pub(crate) field: String,
    /// Keyword of the schema, text of the CEL rule, or reason as it stands in conditions.
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
    /// What is wrong, ordered by file and line.
    pub(crate) findings: Vec<Finding>,
    /// What is valid and waits for something all the same.
    pub(crate) warnings: Vec<Finding>,
    /// Fields without effect, each once.
    pub(crate) notes: Vec<String>,
}

/// A set of files, judged.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// For people and programs.
    pub(crate) report: Report,
    /// The objects, as far as they could be read.
    pub(crate) objects: Objects,
    /// The same as they stand in the files.
    pub(crate) values: BTreeMap<ObjectKey, Value>,
    /// Hash over everything that was read.
    pub(crate) content: [u8; 32],
    places: BTreeMap<ObjectKey, Place>,
}

#[derive(Debug)]
struct Place {
    file: String,
    document: Document,
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
        let hidden = file
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with('.'));
        let end = file.extension().and_then(|end| end.to_str());
        !hidden && matches!(end, Some("yaml" | "yml"))
    });
    files.sort();
    Ok(files)
}

/// The manifests of several paths, each once.
///
/// # Errors
/// The first path that cannot be read, with the reason.
pub(crate) fn manifests_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut all = BTreeSet::new();
    for path in paths {
        all.extend(manifests(path).map_err(|error| format!("{}: {error}", path.display()))?);
    }
    Ok(all.into_iter().collect())
}

/// Judges files. With `before`, rules about changes hold as well.
///
/// # Errors
/// Where a file cannot be read.
pub(crate) fn check(
    files: &[PathBuf],
    before: Option<&BTreeMap<ObjectKey, Value>>,
) -> Result<Checked, String> {
    let mut checked = Checked::default();
    for file in files {
        let shown = file.display().to_string();
        let text = read(file).map_err(|error| format!("{shown}: {error}"))?;
        let mut content = checked.content.to_vec();
        content.extend(shown.as_bytes());
        match text {
            Ok(text) => {
                content.extend(text.as_bytes());
                checked.read(&shown, &text, before);
            }
            Err((rule, message, remedy)) => checked
                .report
                .findings
                .push(of_file(&shown, 1, rule, message, remedy)),
        }
        checked.content = operator_core::digest::sha256(&content);
    }
    match validate(&checked.objects, AbsentOpenerKeys::AreGenerated) {
        Ok(valid) => {
            let found = valid
                .warnings
                .iter()
                .map(|problem| checked.finding(problem));
            checked.report.warnings = found.collect();
        }
        Err(problems) => {
            // What a part that could not be read may have declared is not missed.
            let unread = checked
                .report
                .findings
                .iter()
                .any(|finding| UNREAD.contains(&finding.rule.as_str()));
            let said = problems
                .iter()
                .filter(|problem| !(unread && MISSING.contains(&problem.rule.as_str())));
            let found: Vec<Finding> = said.map(|problem| checked.finding(problem)).collect();
            checked.report.findings.extend(found);
        }
    }
    checked.report.findings.sort();
    checked.report.findings.dedup();
    let fields = inert(&checked.objects, Shell::OneMachine);
    let kinds = UNUSED_KINDS
        .iter()
        .filter(|(kind, _)| checked.values.keys().any(|key| key.kind == *kind));
    checked.report.notes = fields
        .iter()
        .map(note)
        .chain(kinds.map(|(kind, why)| format!("{kind} has no effect here: {why}")))
        .collect();
    Ok(checked)
}

/// Kinds that a cluster's manifests may hold and that one machine has no use for.
const UNUSED_KINDS: &[(&str, &str)] = &[
    ("MediaNode", "pools make their nodes"),
    (
        "MaintenanceWindow",
        "windows steer the drains and updates of a cluster's media nodes",
    ),
    (
        "Namespace",
        "the namespaces of tenants are there by themselves",
    ),
];
/// Rules that leave a document or the rest of a file unread.
const UNREAD: &[&str] = &["YAML", "size", "encoding", "kind"];
/// Reasons that speak of an object that is not there.
const MISSING: &[&str] = &[
    "TenantNotFound",
    "NamespaceWithoutTenant",
    "ClassNotFound",
    "PoolNotFound",
    "SecretNotFound",
];

/// A field without effect, for people.
fn note(inert: &Inert) -> String {
    let Inert {
        field,
        why,
        first,
        objects,
    } = inert;
    let others = match objects {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    format!("{field} has no effect yet: {why} (used by {first}{others})")
}

type Refusal = (&'static str, String, &'static str);

/// The text of a file; the inner error is one of its content.
fn read(file: &Path) -> std::io::Result<Result<String, Refusal>> {
    let bytes = fs::metadata(file)?.len();
    if bytes > manifest::FILE_BYTES_MAX {
        let most = manifest::FILE_BYTES_MAX;
        return Ok(Err((
            "size",
            format!("the file has {bytes} bytes, at most {most} are read"),
            "split it",
        )));
    }
    Ok(String::from_utf8(fs::read(file)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        (
            "encoding",
            format!("the file is no UTF-8 from byte {at} on"),
            "save it as UTF-8",
        )
    }))
}

fn of_file(file: &str, line: u64, rule: &str, message: String, remedy: &str) -> Finding {
    Finding {
        file: file.to_owned(),
        line,
        object: String::new(),
        field: String::new(),
        rule: rule.to_owned(),
        message,
        remedy: remedy.to_owned(),
    }
}

impl Checked {
    fn read(&mut self, file: &str, text: &str, before: Option<&BTreeMap<ObjectKey, Value>>) {
        match manifest::parse(text) {
            Ok(documents) => documents
                .into_iter()
                .for_each(|document| self.take(file, document, before)),
            Err(error) => {
                let remedy = "correct the YAML; nothing after this line was read";
                self.report
                    .findings
                    .push(of_file(file, error.line, "YAML", error.message, remedy));
            }
        }
    }

    fn take(
        &mut self,
        file: &str,
        document: Document,
        before: Option<&BTreeMap<ObjectKey, Value>>,
    ) {
        self.report.objects += 1;
        let key = key_of(&document.value);
        let mut wrong = Vec::new();
        if let Some(first) = self.places.get(&key).filter(|_| !key.name.name.is_empty()) {
            let line = first.document.line("/metadata/name");
            wrong.push(violation(
                "/metadata/name",
                "unique name",
                format!(
                    "{} `{}` stands at {}:{line} already",
                    key.kind, key.name, first.file
                ),
                "rename or remove one of the two",
            ));
        }
        let twice = !wrong.is_empty();
        judge(&key, &document.value, before, &mut wrong);
        let sound = wrong.is_empty();
        let found = wrong.into_iter().map(|violation| {
            let check::Violation {
                pointer,
                rule,
                message,
                remedy,
            } = violation;
            locate(file, &document, &key, &pointer, rule, message, remedy)
        });
        self.report.findings.extend(found);
        if twice || key.name.name.is_empty() {
            return;
        }
        let mut value = document.value.clone();
        let place = Place {
            file: file.to_owned(),
            document,
        };
        if sound {
            check::default_in_place(&key.kind, &mut value);
            if let Err(problem) = self.objects.insert(&value) {
                let Problem {
                    pointer,
                    rule,
                    message,
                    remedy,
                    ..
                } = *problem;
                let finding = locate(file, &place.document, &key, &pointer, rule, message, remedy);
                self.report.findings.push(finding);
            }
        } else {
            self.objects.unreadable.insert(key.clone());
        }
        self.values.insert(key.clone(), value);
        self.places.insert(key, place);
    }

    fn finding(&self, problem: &Problem) -> Finding {
        let Problem {
            object,
            pointer,
            rule,
            message,
            remedy,
        } = problem;
        match self.places.get(object) {
            Some(place) => locate(
                &place.file,
                &place.document,
                object,
                pointer,
                rule.clone(),
                message.clone(),
                remedy.clone(),
            ),
            None => of_file("", 1, rule, message.clone(), remedy),
        }
    }
}

fn locate(
    file: &str,
    document: &Document,
    key: &ObjectKey,
    pointer: &str,
    rule: String,
    message: String,
    remedy: String,
) -> Finding {
    let parts = [key.kind.as_str(), key.name.name.as_str()];
    let object = parts
        .iter()
        .filter(|part| !part.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join("/");
    Finding {
        file: file.to_owned(),
        line: document.line(pointer),
        object,
        field: field_path(pointer),
        rule,
        message,
        remedy,
    }
}

fn violation(pointer: &str, rule: &str, message: String, remedy: &str) -> check::Violation {
    check::Violation {
        pointer: pointer.to_owned(),
        rule: rule.to_owned(),
        message,
        remedy: remedy.to_owned(),
    }
}

/// What an API server would say of one document.
fn judge(
    key: &ObjectKey,
    value: &Value,
    before: Option<&BTreeMap<ObjectKey, Value>>,
    wrong: &mut Vec<check::Violation>,
) {
    let version = value
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or_default();
    match key.kind.as_str() {
        "Secret" if version == "v1" => wrong.extend(judge_secret(value)),
        // A cluster's manifests hold them; the namespaces of tenants exist by themselves here.
        "Namespace" if version == "v1" => {}
        kind if KINDS.contains(&kind) => {
            wrong.extend(check::validate(
                kind,
                value,
                before.and_then(|before| before.get(key)),
            ));
            if CLUSTER_KINDS.contains(&kind)
                && value
                    .pointer("/metadata/namespace")
                    .is_some_and(|name| !name.is_null())
            {
                wrong.push(violation(
                    "/metadata/namespace",
                    "scope",
                    format!("a {kind} stands in no namespace"),
                    "remove metadata.namespace",
                ));
            }
        }
        "" => wrong.push(violation(
            "/kind",
            "kind",
            "the document has no kind".to_owned(),
            &format!(
                "write apiVersion: {} and kind: one of {}",
                names::API_VERSION,
                KINDS.join(", ")
            ),
        )),
        kind => wrong.push(violation(
            "/kind",
            "kind",
            format!("`{kind}` is no kind of {}", names::GROUP),
            &format!("use one of {}, or a v1 Secret", KINDS.join(", ")),
        )),
    }
}

/// The shape of a Secret; what Plenum's types must hold is judged with the references.
fn judge_secret(value: &Value) -> Vec<check::Violation> {
    const MEMBERS: &[&str] = &[
        "apiVersion",
        "kind",
        "metadata",
        "type",
        "data",
        "stringData",
        "immutable",
    ];
    let mut wrong = Vec::new();
    for member in value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(member, _)| member)
    {
        if !MEMBERS.contains(&member.as_str()) {
            wrong.push(violation(
                &format!("/{}", member.replace('~', "~0").replace('/', "~1")),
                "unknownField",
                format!("unknown field \"{member}\""),
                &format!("known here are {}", MEMBERS.join(", ")),
            ));
        }
    }
    if value
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .is_none_or(str::is_empty)
    {
        wrong.push(violation(
            "/metadata/name",
            "required",
            "name is missing".to_owned(),
            "add metadata.name",
        ));
    }
    wrong
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

/// The report for people.
pub(crate) fn print_report(report: &Report, files: usize) {
    for finding in &report.findings {
        sayln!("{finding}");
    }
    for finding in &report.warnings {
        sayln!("warning: {finding}");
    }
    if report.findings.is_empty() {
        for note in &report.notes {
            sayln!("note: {note}");
        }
    }
    let count =
        |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    sayln!(
        "{} in {}: {}, {}",
        count(report.objects, "object"),
        count(files, "file"),
        count(report.findings.len(), "error"),
        count(report.warnings.len(), "warning"),
    );
}

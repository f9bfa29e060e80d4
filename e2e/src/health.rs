// SPDX-License-Identifier: EUPL-1.2
//! What GitOps tools make of an object's status: kstatus (Flux, `kubectl wait` of the CLI tools, Helm) written again from its
//! rules, and the health script for Argo CD that `docs/gitops.md` ships, run by the interpreter that Argo CD embeds.

use std::fmt::Debug;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cluster::Programs;

/// Outcomes of kstatus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kstatus {
    /// As it was declared.
    Current,
    /// On its way.
    InProgress,
    /// Somebody has to do something.
    Failed,
    /// Being deleted.
    Terminating,
    /// The object cannot be judged.
    Unknown,
}

/// What kstatus makes of an object of a kind that it does not know.
#[must_use]
pub fn kstatus(object: &Value) -> Kstatus {
    let (Some(metadata), status) = (object["metadata"].as_object(), &object["status"]) else {
        return Kstatus::Unknown;
    };
    if !(status.is_null() || status.is_object()) {
        return Kstatus::Unknown;
    }
    match metadata.get("deletionTimestamp") {
        None | Some(Value::Null) => {}
        Some(Value::String(_)) => return Kstatus::Terminating,
        Some(_) => return Kstatus::Unknown,
    }
    // Only where the object says which generation it is about.
    if let (Some(is), Some(seen)) = (metadata.get("generation"), status.get("observedGeneration"))
        && is != seen
    {
        return Kstatus::InProgress;
    }
    let conditions = status["conditions"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    for condition in conditions {
        match (condition["type"].as_str(), condition["status"].as_str()) {
            (Some("Reconciling"), Some("True")) => return Kstatus::InProgress,
            (Some("Stalled"), Some("True")) => return Kstatus::Failed,
            _ => {}
        }
    }
    let ready = conditions
        .iter()
        .find(|condition| condition["type"] == "Ready");
    match ready.map(|condition| condition["status"] == "True") {
        Some(false) => Kstatus::InProgress,
        // Without any condition that it knows, it takes the object for current.
        Some(true) | None => Kstatus::Current,
    }
}

/// An answer of a health script.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Health {
    /// `Healthy`, `Progressing`, `Degraded` or `Suspended`.
    pub status: String,
    /// Text for people.
    pub message: String,
}

/// The health script for Argo CD.
pub struct ArgoCd {
    script: String,
    programs: Programs,
}

#[derive(Serialize)]
struct Work<'a> {
    script: &'a str,
    objects: &'a [Value],
}

impl ArgoCd {
    /// The script as the documentation has it; `None` where its interpreter is not built and the test may be skipped.
    ///
    /// # Errors
    /// When the documentation holds no script, or the program is missing and must not be.
    pub fn find() -> Result<Option<Self>> {
        let Some(programs) = Programs::find(&["health"])? else {
            return Ok(None);
        };
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gitops.md");
        let page = std::fs::read_to_string(page)?;
        let script = script_of(&page).context("docs/gitops.md holds a health script")?;
        Ok(Some(Self { script, programs }))
    }

    /// What the script says to each object.
    ///
    /// # Errors
    /// When it fails or says something that Argo CD does not know.
    pub fn judge(&self, objects: &[Value]) -> Result<Vec<Health>> {
        let mut child = Command::new(self.programs.path("health")?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let work = serde_json::to_vec(&Work {
            script: &self.script,
            objects,
        })?;
        // It reads everything before it writes anything.
        child.stdin.take().context("a pipe")?.write_all(&work)?;
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let answers: Vec<Health> = serde_json::from_slice(&output.stdout)?;
        let known = ["Healthy", "Progressing", "Degraded", "Suspended"];
        for answer in &answers {
            ensure!(known.contains(&answer.status.as_str()), "{answer:?}");
        }
        Ok(answers)
    }
}

/// What both make of an object that an API server gave; `None` where the interpreter is missing and may be.
///
/// # Errors
/// When the script fails.
pub fn outcome(object: &impl Serialize) -> Result<Option<(Kstatus, String)>> {
    let Some(argo_cd) = ArgoCd::find()? else {
        return Ok(None);
    };
    let object = serde_json::to_value(object)?;
    let health = argo_cd.judge(std::slice::from_ref(&object))?;
    let health = health.into_iter().next().context("an answer")?;
    Ok(Some((kstatus(&object), health.status)))
}

/// Fails unless both say of an object what is expected.
///
/// # Errors
/// With what they say instead.
pub fn expect(object: &(impl Serialize + Debug), flux: Kstatus, argo_cd: &str) -> Result<()> {
    if let Some(said) = outcome(object)? {
        ensure!(
            said == (flux, argo_cd.to_owned()),
            "{said:?} instead of {flux:?} and {argo_cd}: {object:#?}"
        );
    }
    Ok(())
}

/// The block of a page that a ConfigMap of Argo CD holds under the key of a kind.
fn script_of(page: &str) -> Option<String> {
    let (_, after) = page.split_once("resource.customizations.health.plenum.dev_Tenant: |\n")?;
    let lines = after.lines().take_while(|line| line.starts_with("    "));
    Some(lines.map(|line| format!("{}\n", &line[4..])).collect())
}

/// An object with a status, as a test makes one up.
#[must_use]
pub fn object(generation: i64, observed: Option<i64>, conditions: &[(&str, &str)]) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|(type_, status)| json!({ "type": type_, "status": status, "message": format!("{type_} is {status}") }))
        .collect();
    let mut object = json!({
        "metadata": { "name": "x", "generation": generation }, "spec": {}, "status": { "conditions": conditions },
    });
    if let Some(observed) = observed {
        object["status"]["observedGeneration"] = observed.into();
    }
    object
}

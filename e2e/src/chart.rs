// SPDX-License-Identifier: EUPL-1.2
//! The chart as Helm renders it, for the tests that judge what it says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::Programs;

/// Namespace of the release in all renders.
pub const NAMESPACE: &str = "plenum-system";
/// User name of the operator in the policies.
pub const OPERATOR: &str = "system:serviceaccount:plenum-system:plenum-operator";
/// The Kubernetes that is rendered for.
const KUBERNETES: &str = "1.35.0";
/// Groups of kinds that the chart looks for before it makes objects of them.
const GROUPS: [&str; 2] = ["monitoring.coreos.com/v1", "cert-manager.io/v1"];
/// Profiles of values beside the default.
pub const PROFILES: [&str; 4] = ["hardened", "single-node", "lb", "airgap"];

/// Folder of the chart.
#[must_use]
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../charts/plenum")
}

/// Helm, as built from its module.
#[derive(Clone, Debug)]
pub struct Helm(PathBuf);

impl Helm {
    /// Finds it; `None` when it is not built and the test may be skipped.
    ///
    /// # Errors
    /// When it is not built and tests must not be skipped.
    pub fn find() -> Result<Option<Self>> {
        let Some(programs) = Programs::find(&["helm"])? else {
            return Ok(None);
        };
        Ok(Some(Self(programs.path("helm")?.to_owned())))
    }

    /// Helm with arguments, its own folders out of the way of the person who runs the tests.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.0);
        let nowhere = std::env::temp_dir().join("plenum-helm");
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, &nowhere);
        }
        command.args(args);
        command
    }

    /// Renders with further arguments, whether it succeeds or not.
    ///
    /// # Errors
    /// When Helm does not start.
    pub fn try_render(&self, args: &[&str]) -> Result<Output> {
        let chart = folder();
        let mut command = self.command(&["template", "plenum"]);
        command.arg(&chart).args(["--namespace", NAMESPACE]);
        command.args(["--kube-version", KUBERNETES]);
        for group in GROUPS {
            command.args(["--api-versions", group]);
        }
        command.args(args).output().context("helm starts")
    }

    /// Renders with further arguments.
    ///
    /// # Errors
    /// When the chart refuses them.
    pub fn render(&self, args: &[&str]) -> Result<String> {
        let output = self.try_render(args)?;
        ensure!(
            output.status.success(),
            "helm template {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Renders a profile without the kinds; `default` is the one without a file.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn profile(&self, profile: &str) -> Result<String> {
        let mut args = vec!["--set", "crds.install=false"];
        let file = folder().join(format!("values-{profile}.yaml"));
        let file = file.to_string_lossy().into_owned();
        if profile != "default" {
            args.extend(["--values", &file]);
        }
        self.render(&args)
    }
}

/// A rendered object with its text, comments included.
#[derive(Clone, Debug)]
pub struct Document {
    /// As written.
    pub text: String,
    /// As read.
    pub value: Value,
}

impl Document {
    /// Kind and name.
    #[must_use]
    pub fn id(&self) -> String {
        let namespace = self
            .text_at("/metadata/namespace")
            .map_or_else(String::new, |namespace| format!("{namespace}/"));
        format!(
            "{} {namespace}{}",
            self.kind(),
            self.text_at("/metadata/name").unwrap_or_default()
        )
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text_at("/kind").unwrap_or_default()
    }

    /// A string at a JSON pointer.
    #[must_use]
    pub fn text_at(&self, pointer: &str) -> Option<&str> {
        self.value.pointer(pointer).and_then(Value::as_str)
    }
}

/// Reads the objects of a render.
///
/// # Errors
/// When one is no YAML.
pub fn documents(rendered: &str) -> Result<Vec<Document>> {
    let mut all = Vec::new();
    for text in format!("\n{rendered}").split("\n---\n") {
        let value: Option<Value> =
            serde_saphyr::from_str(text).with_context(|| format!("not YAML:\n{text}"))?;
        if let Some(value) = value.filter(|value| !value.is_null()) {
            all.push(Document {
                text: text.to_owned(),
                value,
            });
        }
    }
    Ok(all)
}

/// The objects of one kind by name.
#[must_use]
pub fn of_kind<'a>(all: &'a [Document], kind: &str) -> BTreeMap<String, &'a Document> {
    all.iter()
        .filter(|document| document.kind() == kind)
        .map(|document| {
            let name = document.text_at("/metadata/name").unwrap_or_default();
            (name.to_owned(), document)
        })
        .collect()
}

/// Is what is asked for to be written instead of compared? (`PLENUM_BLESS=1`)
#[must_use]
pub fn bless() -> bool {
    std::env::var_os("PLENUM_BLESS").is_some_and(|value| value == "1")
}

/// Compares a file of the chart with what it should be, or writes it (see [`bless`]).
///
/// # Errors
/// When it differs, with the first line that does.
pub fn same_as_file(path: &str, wanted: &str) -> Result<()> {
    let file = folder().join(path);
    if bless() {
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&file, wanted)?;
        return Ok(());
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    if found == wanted {
        return Ok(());
    }
    let (mut have, mut want) = (found.lines(), wanted.lines());
    let mut number = 1_u32;
    let (is, should) = loop {
        match (have.next(), want.next()) {
            (Some(is), Some(should)) if is == should => number += 1,
            (is, should) => break (is, should),
        }
    };
    anyhow::bail!(
        "charts/plenum/{path}:{number} differs: it says {is:?} and should say {should:?}; look at the change and take it over with \
         PLENUM_BLESS=1 cargo test -p e2e --test chart"
    )
}

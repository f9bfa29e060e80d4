// SPDX-License-Identifier: EUPL-1.2
//! The programs that a cluster is made of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Set to `required` (as `make test` does), a program that has not been built fails a test; else the test is skipped, and says so.
const POLICY: &str = "PLENUM_KUBERNETES";
/// Names another version of Kubernetes, such as `1.33`: then what is asked for as `kubernetes` is `kubernetes-1.33`, which has no part of
/// a node.
const VERSION: &str = "PLENUM_KUBERNETES_VERSION";

/// Programs in the cache of `.ci/kubernetes`.
#[derive(Clone, Debug)]
pub struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// Finds programs by their folders' names under `e2e/kubernetes`; `None` when one is missing and the test may be skipped.
    ///
    /// # Errors
    /// When one is missing and tests must not be skipped.
    pub fn find(names: &[&str]) -> Result<Option<Self>> {
        let version = std::env::var(VERSION).ok();
        let folders: Vec<String> = names
            .iter()
            .map(|name| folder(name, version.as_deref()))
            .collect();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/kubernetes");
        let output = Command::new(&script)
            .arg("--print")
            .args(&folders)
            .output()
            .with_context(|| format!("{} starts", script.display()))?;
        if !output.status.success() {
            bail!(
                "{}: {}",
                script.display(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let built: BTreeMap<&str, &str> = printed
            .lines()
            .filter_map(|line| line.split_once(' '))
            .collect();
        let mut found = BTreeMap::new();
        let mut missing = Vec::new();
        for (name, folder) in names.iter().zip(&folders) {
            match built.get(folder.as_str()) {
                Some(path) => drop(found.insert((*name).to_owned(), PathBuf::from(path))),
                None => missing.push(folder.as_str()),
            }
        }
        if missing.is_empty() {
            return Ok(Some(Self(found)));
        }
        let missing = missing.join(" ");
        if std::env::var_os(POLICY).is_some_and(|policy| policy == "required") {
            bail!(
                "{missing} is not built: `.ci/kubernetes {missing}` builds it (minutes, the first time)"
            );
        }
        eprintln!("SKIPPED: {missing} is not built; `.ci/kubernetes {missing}` builds it");
        Ok(None)
    }

    /// Where a program is.
    ///
    /// # Errors
    /// When it was not asked for.
    pub fn path(&self, name: &str) -> Result<&Path> {
        self.0
            .get(name)
            .map(PathBuf::as_path)
            .with_context(|| format!("{name} was not asked for"))
    }

    /// A part of the multi-call binary, as a command.
    ///
    /// # Errors
    /// When the binary was not asked for.
    pub fn kubernetes(&self, part: &str) -> Result<Command> {
        let mut command = Command::new(self.path("kubernetes")?);
        command.arg(part);
        Ok(command)
    }
}

/// The folder under `e2e/kubernetes` that a program is built in.
fn folder(name: &str, version: Option<&str>) -> String {
    match version {
        Some(version) if name == "kubernetes" => format!("{name}-{version}"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_takes_the_place_of_kubernetes_alone() {
        assert_eq!(folder("kubernetes", Some("1.33")), "kubernetes-1.33");
        assert_eq!(folder("etcd", Some("1.33")), "etcd");
        assert_eq!(folder("kubernetes", None), "kubernetes");
    }
}

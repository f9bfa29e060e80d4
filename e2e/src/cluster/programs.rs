// SPDX-License-Identifier: EUPL-1.2
//! The programs that a cluster is made of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Set to `required` (as `make test` does), a program that has not been built fails a test; else the test is skipped, and says so.
const POLICY: &str = "PLENUM_KUBERNETES";

/// Programs in the cache of `.ci/kubernetes`.
#[derive(Clone, Debug)]
pub struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// Finds programs by their folders' names under `e2e/kubernetes`; `None` when one is missing and the test may be skipped.
    ///
    /// # Errors
    /// When one is missing and tests must not be skipped.
    pub fn find(names: &[&str]) -> Result<Option<Self>> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/kubernetes");
        let output = Command::new(&script)
            .arg("--print")
            .args(names)
            .output()
            .with_context(|| format!("{} starts", script.display()))?;
        if !output.status.success() {
            bail!(
                "{}: {}",
                script.display(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let found: BTreeMap<String, PathBuf> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, path)| (name.to_owned(), PathBuf::from(path)))
            .collect();
        let missing: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| !found.contains_key(*name))
            .collect();
        if missing.is_empty() {
            return Ok(Some(Self(found)));
        }
        let missing = missing.join(", ");
        if std::env::var_os(POLICY).is_some_and(|policy| policy == "required") {
            bail!(
                "{missing} is not built: `make kubernetes` builds it (10 minutes the first time)"
            );
        }
        eprintln!("SKIPPED: {missing} is not built; `make kubernetes` builds it");
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

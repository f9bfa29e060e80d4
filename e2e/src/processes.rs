// SPDX-License-Identifier: EUPL-1.2
//! Processes of the namespace a test runs in: found by what they were started with, stopped, continued, killed, held down.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// A process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its id in this namespace.
    pub pid: i32,
    /// Arguments after the program.
    pub args: Vec<String>,
}

impl Process {
    /// Running processes of a program.
    #[must_use]
    pub fn all(program: &str) -> Vec<Self> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let mut words = line
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned());
            let own = words.next().unwrap_or_default();
            if Path::new(&own)
                .file_name()
                .is_some_and(|name| name == program)
            {
                found.push(Self {
                    pid,
                    args: words.collect(),
                });
            }
        }
        found
    }

    /// All values of an option that is written `--name value`.
    pub fn options(&self, name: &str) -> impl Iterator<Item = &str> {
        let name = format!("--{name}");
        self.args
            .windows(2)
            .filter(move |pair| pair[0] == name)
            .map(|pair| pair[1].as_str())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal_to(self.pid, signal)
    }
}

/// Sends a signal to a process.
///
/// # Errors
/// When it is gone.
pub fn signal_to(pid: i32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(pid).context("a process id is not 0")?;
    kill_process(pid, signal).with_context(|| format!("process {pid:?} takes {signal:?}"))
}

/// A program that cannot be started while this lives: something that is no program lies over its file, in this mount namespace alone.
/// Those that run go on.
pub struct Held(PathBuf);

impl Held {
    /// Holds a program down.
    ///
    /// # Errors
    /// When nothing can be mounted.
    pub fn down(program: &Path) -> Result<Self> {
        mount(Path::new("/dev/null"), program)?;
        Ok(Self(program.to_owned()))
    }

    /// Lays another program over it.
    ///
    /// # Errors
    /// When nothing can be mounted.
    pub fn replaced(program: &Path, by: &Path) -> Result<Self> {
        mount(by, program)?;
        Ok(Self(program.to_owned()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Lazily: a script that was started from it may still be read.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Lets a file be reached under another path too.
///
/// # Errors
/// When it cannot be mounted.
pub fn mount(file: &Path, at: &Path) -> Result<()> {
    let status = Command::new("mount")
        .arg("--bind")
        .arg(file)
        .arg(at)
        .status()
        .context("mount (util-linux) starts")?;
    ensure!(
        status.success(),
        "{} lies over {}",
        file.display(),
        at.display()
    );
    Ok(())
}

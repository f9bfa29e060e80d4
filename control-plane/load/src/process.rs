// SPDX-License-Identifier: EUPL-1.2
//! Children: started so that they cannot outlive this process, measured through `/proc`, killed by pid.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

/// A child that has not said that it is ready by then will not.
pub(crate) const READY: Duration = Duration::from_secs(180);

/// A child process; it is killed when this is dropped, and by the kernel if this process dies first.
pub(crate) struct Process {
    child: Child,
    pid: u32,
}

/// What a child needs to be started.
pub(crate) struct Launch<'a> {
    /// The program.
    pub(crate) program: &'a Path,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// Variables on top of this process's.
    pub(crate) env: Vec<(&'static str, String)>,
}

impl Process {
    /// Starts a child; `stdout` and `stderr` can be read, `stdin` stays open for as long as it lives.
    pub(crate) fn start(launch: &Launch<'_>) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command
            .args([
                OsStr::new("--pdeathsig"),
                OsStr::new("KILL"),
                OsStr::new("--"),
            ])
            .arg(launch.program)
            .args(&launch.args)
            .envs(launch.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| {
            format!(
                "{} cannot be started with setpriv",
                launch.program.display()
            )
        })?;
        let pid = child.id().context("a child that is started has a pid")?;
        Ok(Self { child, pid })
    }

    /// Lines of its output.
    pub(crate) fn stdout(&mut self) -> Result<Lines<BufReader<ChildStdout>>> {
        let out = self.child.stdout.take().context("taken once")?;
        Ok(BufReader::new(out).lines())
    }

    /// Lines of its log.
    pub(crate) fn stderr(&mut self) -> Result<Lines<BufReader<ChildStderr>>> {
        let log = self.child.stderr.take().context("taken once")?;
        Ok(BufReader::new(log).lines())
    }

    /// Sends it an empty line.
    pub(crate) async fn ask(&mut self) -> Result<()> {
        let input = self.child.stdin.as_mut().context("its input is open")?;
        input.write_all(b"\n").await?;
        Ok(input.flush().await?)
    }

    /// CPU time so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu_of(self.pid)
    }

    /// Memory that is its own share.
    pub(crate) fn pss_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.pid);
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib: u64 = line
            .and_then(|line| line.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("{path} has no Pss"))?;
        Ok(kib * 1024)
    }

    /// Kills it and waits.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("a child cannot be killed")
    }
}

/// CPU time of a process, children without.
fn cpu_of(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name is in parentheses and may hold anything, spaces too.
    let Some((_, fields)) = text.rsplit_once(')') else {
        bail!("{path} has no name");
    };
    let ticks: Vec<u64> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    let [user, system] = ticks[..] else {
        bail!("{path} has no times");
    };
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_secs_f64(
        (user + system) as f64 / per_second as f64,
    ))
}

/// Reads lines until `find` finds something; says the last ones when it never does.
pub(crate) async fn until_said<R, T>(
    lines: &mut Lines<R>,
    what: &str,
    mut find: impl FnMut(&str) -> Option<T>,
) -> Result<T>
where
    R: tokio::io::AsyncBufRead + Unpin,
{
    let mut said = Vec::new();
    let found = timeout(READY, async {
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(found) = find(&line) {
                return Some(found);
            }
            said.push(line);
            if said.len() > 20 {
                said.remove(0);
            }
        }
        None
    })
    .await;
    match found {
        Ok(Some(found)) => Ok(found),
        Ok(None) => bail!("{what} ended; it said: {}", said.join("\n")),
        Err(_) => bail!("{what} is not ready in time; it said: {}", said.join("\n")),
    }
}

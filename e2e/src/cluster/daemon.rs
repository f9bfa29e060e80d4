// SPDX-License-Identifier: EUPL-1.2
//! Programs that run beside a test and never outlive it.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::processes::signal_to;

/// A command and where its child is to be sent.
type Order = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Starts a command on a thread that lives as long as this process: the kernel ends a child with the *thread* that started it.
fn start(command: Command) -> Result<Child> {
    static STARTER: Mutex<Option<mpsc::Sender<Order>>> = Mutex::new(None);
    let mut starter = STARTER.lock().unwrap_or_else(PoisonError::into_inner);
    let orders = starter.get_or_insert_with(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in orders {
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, child) = mpsc::channel();
    orders
        .send((command, answer))
        .ok()
        .context("the thread that starts programs lives")?;
    drop(starter);
    child
        .recv()
        .context("the thread that starts programs answers")?
        .context("setpriv (Debian: util-linux) starts")
}

/// A running program; killed when dropped, and by the kernel when the test's process dies.
pub(crate) struct Daemon {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts a command, which logs into `folder`; `within` is the network namespace it is started in, by path.
    pub(crate) fn start(
        name: &str,
        command: &Command,
        folder: &Path,
        within: Option<&Path>,
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let out = File::options()
            .append(true)
            .create(true)
            .open(&log)
            .with_context(|| format!("the log {} opens", log.display()))?;
        let mut wrapped = match within {
            Some(network) => {
                let mut enter = Command::new("nsenter");
                // `ip netns exec` would mount /sys anew and hide the control groups.
                enter.arg(format!("--net={}", network.display()));
                enter.arg("setpriv");
                enter
            }
            None => Command::new("setpriv"),
        };
        wrapped
            .args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .envs(command.get_envs().filter_map(|(key, value)| {
                value.map(|value: &OsStr| (key.to_owned(), value.to_owned()))
            }))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        let child = start(wrapped).with_context(|| format!("{name} starts"))?;
        Ok(Self {
            name: name.to_owned(),
            log,
            child,
        })
    }

    /// Has it ended?
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Fails when it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} ended with {status}:\n{}", self.name, self.tail(30));
        }
        Ok(())
    }

    /// The end of its log.
    pub(crate) fn tail(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let text: Vec<&str> = text.lines().collect();
        format!(
            "--- {}\n{}\n",
            self.name,
            text[text.len().saturating_sub(lines)..].join("\n")
        )
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        signal_to(i32::try_from(self.child.id())?, signal)
    }

    /// Asks it to end, and kills it when it does not within `patience`.
    pub(crate) fn stop(&mut self, patience: Duration) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let end = Instant::now() + patience;
        if self.signal(Signal::TERM).is_ok() {
            while Instant::now() < end {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

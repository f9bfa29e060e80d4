// SPDX-License-Identifier: EUPL-1.2
//! Child processes: started, watched, started again with back-off, stopped in good order.
//!
//! A child is first this program itself, which asks the kernel for a signal at the death of its parent and then becomes
//! the real program: that needs no code between fork and exec. The signal follows the *thread* that started the child, so
//! everything here runs on the one thread of the runtime, which lives as long as the process.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::{
    process::{Child, Command},
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

/// First wait before a child is started again; it doubles with each failure in a row.
const BACK_OFF_MIN: Duration = Duration::from_millis(200);
/// Longest wait.
const BACK_OFF_MAX: Duration = Duration::from_secs(10);
/// A child that has lived that long has not failed in a row.
const STEADY_AFTER: Duration = Duration::from_secs(30);
/// How long a child may take to stop in good order.
const GRACE: Duration = Duration::from_secs(6);
/// A log above this size is begun anew at the start of its child.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// How much of the end of a log is shown when a child dies.
const TAIL_BYTES: u64 = 2048;
const TAIL_LINES: usize = 6;

/// The hidden verb: becomes `command`, which then dies with `parent`.
pub(crate) fn become_child(parent: i32, command: &[OsString]) -> ExitCode {
    let Some((program, args)) = command.split_first() else {
        return ExitCode::from(2);
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::INT)) {
        eprintln!("plenum: cannot follow the parent: {error}");
        return ExitCode::FAILURE;
    }
    // The parent may have gone before the kernel was asked.
    if getppid()
        .map(Pid::as_raw_nonzero)
        .map(std::num::NonZero::get)
        != Some(parent)
    {
        return ExitCode::FAILURE;
    }
    let error = std::process::Command::new(program).args(args).exec();
    eprintln!("plenum: {}: {error}", Path::new(program).display());
    ExitCode::FAILURE
}

/// What to run.
pub(crate) struct Launch {
    /// Name for people, logs and events.
    pub(crate) name: String,
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments, which may differ from start to start.
    pub(crate) args: Box<dyn FnMut() -> std::io::Result<Vec<OsString>> + Send>,
    /// What it is told by its environment, because others can read arguments.
    pub(crate) env: Vec<(&'static str, OsString)>,
    /// Where its output goes.
    pub(crate) log: PathBuf,
}

/// Held by this process's environment perhaps, and nothing to children that are not told.
const REDIS_URL: &str = "PLENUM_REDIS_URL";

/// Something happened to a child.
#[derive(Debug)]
pub(crate) enum ChildEvent {
    /// It runs.
    Started {
        /// Its name.
        name: String,
        /// Process id.
        pid: u32,
        /// Starts so far, this one included.
        starts: u64,
        /// Its arguments.
        args: Vec<OsString>,
    },
    /// It is gone without having been asked to.
    Died {
        /// Its name.
        name: String,
        /// How.
        how: String,
        /// When it is started again.
        again_in: Duration,
        /// End of its log.
        tail: String,
    },
}

/// A child under supervision.
pub(crate) struct Supervised {
    /// Gone: stop. A message: start again.
    orders: Option<mpsc::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Supervised {
    /// Starts a child and keeps it running.
    pub(crate) fn start(launch: Launch, events: mpsc::Sender<ChildEvent>) -> Self {
        let (orders, obeyed) = mpsc::channel(1);
        Self {
            orders: Some(orders),
            task: tokio::spawn(supervise(launch, events, obeyed)),
        }
    }

    /// Stops the child in good order and starts it again, with what its arguments are then.
    pub(crate) fn restart(&self) {
        if let Some(orders) = &self.orders {
            // One is on its way already: that one is enough.
            let _ = orders.try_send(());
        }
    }

    /// Asks the child to stop, without waiting.
    pub(crate) fn ask_to_stop(&mut self) {
        drop(self.orders.take());
    }

    /// Waits until it is gone.
    pub(crate) async fn stopped(mut self) {
        self.ask_to_stop();
        // It panicked or was cancelled: either way it runs no longer.
        let _ = self.task.await;
    }
}

async fn supervise(
    mut launch: Launch,
    events: mpsc::Sender<ChildEvent>,
    mut orders: mpsc::Receiver<()>,
) {
    let mut back_off = BACK_OFF_MIN;
    let mut starts = 0;
    loop {
        starts += 1;
        let began = Instant::now();
        let how = match spawn(&mut launch) {
            Ok((mut child, args)) => {
                let pid = child.id().unwrap_or_default();
                let started = ChildEvent::Started {
                    name: launch.name.clone(),
                    pid,
                    starts,
                    args,
                };
                // Nobody listening: the whole is ending, and the stop signal comes.
                let _ = events.send(started).await;
                tokio::select! {
                    status = child.wait() => describe(status),
                    order = orders.recv() => {
                        stop_in_good_order(child).await;
                        match order {
                            Some(()) => continue,
                            None => return,
                        }
                    }
                }
            }
            Err(error) => format!("could not be started: {error}"),
        };
        if began.elapsed() >= STEADY_AFTER {
            back_off = BACK_OFF_MIN;
        }
        let tail = tail(&launch.log);
        let _ = events
            .send(ChildEvent::Died {
                name: launch.name.clone(),
                how,
                again_in: back_off,
                tail,
            })
            .await;
        tokio::select! {
            () = sleep(back_off) => {}
            order = orders.recv() => if order.is_none() {
                return;
            },
        }
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}

fn spawn(launch: &mut Launch) -> std::io::Result<(Child, Vec<OsString>)> {
    let args = (launch.args)()?;
    let full = std::fs::metadata(&launch.log).is_ok_and(|log| log.len() > LOG_BYTES_MAX);
    let mut log = OpenOptions::new();
    log.create(true).mode(0o600);
    let log = if full {
        log.write(true).truncate(true)
    } else {
        log.append(true)
    }
    .open(&launch.log)?;
    let own = std::process::id();
    let child = Command::new(std::env::current_exe()?)
        .arg("child")
        .arg(format!("--parent={own}"))
        .arg("--")
        .arg(&launch.program)
        .args(&args)
        // Logs are files.
        .env("NO_COLOR", "1")
        .env_remove(REDIS_URL)
        .envs(launch.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C in a terminal goes to its whole process group; the children are stopped by us, in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, args))
}

async fn stop_in_good_order(mut child: Child) {
    if let Some(pid) = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw)
    {
        // It may be gone already, which is what is wanted. SIGTERM would let a media node wait for its rooms.
        let _ = kill_process(pid, Signal::INT);
    }
    if timeout(GRACE, child.wait()).await.is_err() {
        let _ = child.start_kill();
        let _ = child.wait().await;
    }
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(log)?;
        let bytes = file.metadata()?.len();
        file.seek(SeekFrom::Start(bytes.saturating_sub(TAIL_BYTES)))?;
        let mut content = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut content)?;
        Ok(String::from_utf8_lossy(&content).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

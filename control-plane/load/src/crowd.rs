// SPDX-License-Identifier: EUPL-1.2
//! Open sessions, held in child processes: one process may have fewer files open than a replica has people.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::sync::{Semaphore, mpsc};

use crate::people::Session;
use crate::process::{Launch, Process};
use crate::target::{Person, Target};

/// Sessions of one child: descriptors of a process are limited to 20,000 on many machines.
const PER_CHILD_MAX: usize = 8_000;
/// Joins at a time of one child.
const JOINS_MAX: usize = 16;

/// What a child is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct CrowdArgs {
    #[command(flatten)]
    target: Target,
    /// Number of the first session.
    #[arg(long)]
    first: usize,
    /// How many.
    #[arg(long)]
    count: usize,
    /// People of a room.
    #[arg(long)]
    per_room: usize,
    /// Begins the names of the rooms.
    #[arg(long)]
    prefix: String,
}

/// The child: opens its sessions, says so, and holds them until its input ends. What it says are the numbers of sessions that stand and of
/// those that broke.
pub(crate) async fn run(args: CrowdArgs) -> Result<()> {
    let gateways = Arc::new(args.target.gateways()?);
    let backends = Arc::new(crate::target::backends());
    let turns = Arc::new(Semaphore::new(JOINS_MAX));
    let broken = Arc::new(AtomicU64::new(0));
    let (opened, mut told) = mpsc::channel(64);
    for number in args.first..args.first + args.count {
        let person = Person::of(&args.prefix, number / args.per_room.max(1), number);
        let (gateways, backends) = (Arc::clone(&gateways), Arc::clone(&backends));
        let (turns, opened, broken) = (Arc::clone(&turns), opened.clone(), Arc::clone(&broken));
        tokio::spawn(async move {
            let session = {
                let Ok(_turn) = turns.acquire().await else {
                    return;
                };
                let token = person.token(&backends);
                Session::join_patiently(&gateways, &token, number).await
            };
            match session {
                Ok((mut session, _)) => {
                    let _ = opened.send(Ok(())).await;
                    if let Err(error) = session.hold().await
                        && broken.fetch_add(1, Ordering::Relaxed) < 3
                    {
                        tracing::warn!(number, "a held session broke: {error:#}");
                    }
                }
                Err(error) => {
                    let _ = opened.send(Err(error)).await;
                }
            }
        });
    }
    drop(opened);
    let (mut open, mut failed) = (0_usize, 0_usize);
    while open + failed < args.count
        && let Some(told) = told.recv().await
    {
        match told {
            Ok(()) => open += 1,
            Err(error) => {
                if failed < 3 {
                    tracing::warn!("a session is not opened: {error:#}");
                }
                failed += 1;
            }
        }
    }
    println!("open {open} {failed}");
    // Each line asks how many have broken; the end of the input is the end.
    tokio::task::spawn_blocking(move || {
        for _ in std::io::stdin().lines().map_while(Result::ok) {
            println!("broken {}", broken.load(Ordering::Relaxed));
        }
    })
    .await?;
    Ok(())
}

/// All children.
pub(crate) struct Crowd {
    children: Vec<(Process, Lines)>,
    /// Sessions that stand.
    pub(crate) open: usize,
    /// Sessions that could not be opened.
    pub(crate) failed: usize,
}

impl Crowd {
    /// Opens `count` sessions, `per_room` of them in each room.
    pub(crate) async fn open(
        target: &Target,
        count: usize,
        per_room: usize,
        prefix: &str,
    ) -> Result<Self> {
        let program = std::env::current_exe()?;
        let mut crowd = Self {
            children: Vec::new(),
            open: 0,
            failed: 0,
        };
        let mut first = 0;
        while first < count {
            let size = PER_CHILD_MAX.min(count - first);
            let mut child = start(&program, target, (first, size, per_room), prefix)?;
            let (lines, mut log) = (child.stdout()?, child.stderr()?);
            tokio::spawn(async move {
                while let Ok(Some(line)) = log.next_line().await {
                    eprintln!("crowd: {line}");
                }
            });
            crowd.children.push((child, lines));
            first += size;
        }
        for (_, lines) in &mut crowd.children {
            // Bounded by the time that each join may take.
            let [open, failed] = numbers(lines).await?[..] else {
                bail!("a crowd does not say how many sessions it has");
            };
            crowd.open += open;
            crowd.failed += failed;
        }
        Ok(crowd)
    }

    /// Sessions that broke since they were opened.
    pub(crate) async fn broken(&mut self) -> Result<usize> {
        let mut broken = 0;
        for (child, lines) in &mut self.children {
            child.ask().await?;
            broken += numbers(lines).await?.first().copied().unwrap_or_default();
        }
        Ok(broken)
    }

    /// Ends all sessions at once.
    pub(crate) async fn end(self) -> Result<()> {
        for (child, _) in self.children {
            child.kill().await?;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(())
    }
}

type Lines = tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStdout>>;

/// Numbers of the next line.
async fn numbers(lines: &mut Lines) -> Result<Vec<usize>> {
    let line = lines.next_line().await?.context("a crowd ended")?;
    Ok(line
        .split(' ')
        .filter_map(|number| number.parse().ok())
        .collect())
}

fn start(
    program: &Path,
    target: &Target,
    (first, count, per_room): (usize, usize, usize),
    prefix: &str,
) -> Result<Process> {
    let mut args = vec!["crowd".to_owned()];
    args.extend(target.to_args());
    for (name, value) in [("first", first), ("count", count), ("per-room", per_room)] {
        args.extend([format!("--{name}"), value.to_string()]);
    }
    args.extend(["--prefix".to_owned(), prefix.to_owned()]);
    Process::start(&Launch {
        program,
        args,
        env: Vec::new(),
    })
}

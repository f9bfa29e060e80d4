// SPDX-License-Identifier: EUPL-1.2
//! A cluster for a person: up until it is taken down, in namespaces of its own, with the API server at a free port of loopback.
//!
//! Outside of the namespaces waits a host: it passes connections on to the API server through a Unix socket, because the cluster's
//! network knows no way in or out, and ends the cluster when it is told to. Inside runs the cluster until its input ends.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::inside::{Outside, namespaced, sweep};
use super::node::ctr;
use super::whole::Cluster;
use crate::processes::signal_to;

/// Longest wait for a cluster that starts.
const START: Duration = Duration::from_secs(300);
/// Longest wait for one that ends.
const END: Duration = Duration::from_secs(60);
/// A line of progress that says it is there.
const READY: &str = "ready";

/// A cluster's files, in a folder that the person names.
#[derive(Clone, Debug)]
pub struct State(PathBuf);

/// What it takes to end a cluster, whatever has become of its processes.
#[derive(Debug, Serialize, Deserialize)]
struct Host {
    pid: i32,
    /// The program that holds the namespaces.
    unshare: i32,
    cgroup: String,
    folder: PathBuf,
}

impl State {
    /// In a folder.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<T> {
        let text =
            std::fs::read(self.file(name)).context("no cluster runs: `make cluster` starts one")?;
        Ok(serde_json::from_slice(&text)?)
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        Ok(std::fs::write(
            self.file(name),
            serde_json::to_vec_pretty(value)?,
        )?)
    }

    /// Starts a cluster, says what is being waited for, and how to use it once it is there.
    ///
    /// # Errors
    /// When it does not start.
    pub fn up(&self) -> Result<()> {
        if self.read::<Host>("host.json").is_ok_and(|host| host.runs()) {
            println!("the cluster runs already");
            self.say();
            return Ok(());
        }
        self.down()?;
        std::fs::create_dir_all(&self.0)?;
        let log = std::fs::File::create(self.file("log"))?;
        let begin = Instant::now();
        // A session of its own: it outlives the terminal.
        let mut host = Command::new("setsid")
            .arg(std::env::current_exe()?)
            .arg("--state")
            .arg(&self.0)
            .arg("host")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("setsid (Debian: util-linux) starts")?;
        let mut said = 0;
        loop {
            let progress = std::fs::read_to_string(self.file("progress")).unwrap_or_default();
            for line in progress.lines().skip(said) {
                said += 1;
                if line == READY {
                    println!("ready after {} s", begin.elapsed().as_secs());
                    self.say();
                    return Ok(());
                }
                println!("{:>3} s  waiting for {line}", begin.elapsed().as_secs());
            }
            if let Some(status) = host.try_wait()? {
                let log = std::fs::read_to_string(self.file("log")).unwrap_or_default();
                self.down()?;
                bail!("the cluster did not start ({status}):\n{log}");
            }
            if begin.elapsed() > START {
                self.down()?;
                bail!("the cluster did not start in {} s", START.as_secs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn say(&self) {
        println!("\nexport KUBECONFIG={}", self.file("kubeconfig").display());
        println!("make cluster-down ends it");
    }

    /// Ends the cluster and leaves nothing behind; without one there is nothing to do.
    ///
    /// # Errors
    /// When something is left.
    pub fn down(&self) -> Result<()> {
        if let Ok(host) = self.read::<Host>("host.json") {
            host.end()?;
        }
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Brings the images of archives (OCI or Docker) onto both nodes.
    ///
    /// # Errors
    /// When a node refuses one.
    pub fn load(&self, archives: &[PathBuf]) -> Result<()> {
        let sockets: Vec<PathBuf> = self.read("sockets.json")?;
        for archive in archives {
            let archive = archive.to_str().context("the archive's path is UTF-8")?;
            for socket in &sockets {
                ctr(socket, &["images", "import", archive])?;
            }
            println!("{archive} is on both nodes");
        }
        Ok(())
    }

    /// Becomes a program in the cluster's network, outside of the pods': the nodes are at 10.99.0.11 and 10.99.0.12.
    ///
    /// # Errors
    /// When there is no cluster or no such program.
    pub fn exec(&self, program: &[OsString]) -> Result<()> {
        let host: Host = self.read("host.json")?;
        let children = format!("/proc/{0}/task/{0}/children", host.unshare);
        let children = std::fs::read_to_string(children)
            .context("no cluster runs: `make cluster` starts one")?;
        let first = children
            .split_whitespace()
            .next()
            .context("the cluster's namespaces hold no process")?;
        let error = Command::new("nsenter")
            .args(["--target", first, "--net", "--mount", "--"])
            .args(program)
            .env("KUBECONFIG", self.file("kubeconfig"))
            .exec();
        Err(error).context("nsenter (Debian: util-linux) starts")
    }

    /// What runs outside of the namespaces.
    ///
    /// # Errors
    /// When the cluster does not start.
    pub async fn host(&self) -> Result<()> {
        let mut stop = signal(SignalKind::terminate())?;
        let outside = Outside::new()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let mut command = namespaced(&std::env::current_exe()?);
        command
            .arg("--state")
            .arg(&self.0)
            .args(["inside", &port.to_string()])
            .stdin(Stdio::piped());
        let mut cluster = tokio::process::Command::from(outside_told(&outside, command))
            .kill_on_drop(true)
            .spawn()
            .context("unshare (Debian: util-linux) starts")?;
        let input = cluster.stdin.take();
        self.write(
            "host.json",
            &Host {
                pid: i32::try_from(std::process::id())?,
                unshare: i32::try_from(cluster.id().context("the cluster runs")?)?,
                cgroup: outside.cgroup().to_owned(),
                folder: outside.folder().to_owned(),
            },
        )?;
        let socket = self.file("api.sock");
        let ended = loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (outer, _) = accepted?;
                    let socket = socket.clone();
                    tokio::spawn(async move { pass(outer, UnixStream::connect(socket).await).await });
                }
                status = cluster.wait() => break Some(status?),
                _ = stop.recv() => break None,
            }
        };
        // The cluster ends itself when its input does.
        drop(input);
        let status = match ended {
            Some(status) => status,
            None => timeout(END, cluster.wait())
                .await
                .context("the cluster does not end")??,
        };
        drop(cluster);
        sweep(outside.cgroup())?;
        ensure!(status.success(), "the cluster ended with {status}");
        Ok(())
    }

    /// What runs inside: the cluster, until the input ends. The API server is at `port` of loopback outside.
    ///
    /// # Errors
    /// When it does not start, or a part of it ends.
    pub async fn inside(&self, port: u16) -> Result<()> {
        let cluster = Cluster::start_with(|step| {
            if let Err(error) = self.progress(step) {
                eprintln!("{error:#}");
            }
        })
        .await?;
        let mut cluster = cluster.context("`make kubernetes` builds what is missing")?;
        let mut config: Value =
            serde_json::from_slice(&std::fs::read(cluster.api().kubeconfig())?)?;
        config["clusters"][0]["cluster"]["server"] = format!("https://127.0.0.1:{port}").into();
        self.write("kubeconfig", &config)?;
        self.write("sockets.json", &cluster.sockets())?;
        let listener = UnixListener::bind(self.file("api.sock"))?;
        let address = cluster.api().address();
        self.progress(READY)?;

        let (ended, mut end) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let _ = ended.send(());
        });
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (outer, _) = accepted?;
                    tokio::spawn(async move { pass(outer, TcpStream::connect(address).await).await });
                }
                () = sleep(Duration::from_secs(2)) => cluster.check()?,
                _ = &mut end => return Ok(()),
            }
        }
    }

    fn progress(&self, step: &str) -> Result<()> {
        let mut file = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.file("progress"))?;
        Ok(writeln!(file, "{step}")?)
    }
}

impl Host {
    fn runs(&self) -> bool {
        // The number may be another program's by now.
        std::fs::read_to_string(format!("/proc/{}/cmdline", self.pid))
            .is_ok_and(|line| line.split('\0').any(|word| word == "host"))
    }

    fn end(&self) -> Result<()> {
        if self.runs() {
            signal_to(self.pid, Signal::TERM)?;
            let end = Instant::now() + END + Duration::from_secs(10);
            while self.runs() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(50));
            }
            if self.runs() {
                signal_to(self.pid, Signal::KILL)?;
            }
        }
        let line = std::fs::read_to_string(format!("/proc/{}/cmdline", self.unshare));
        if line.is_ok_and(|line| line.starts_with("unshare\0")) {
            signal_to(self.unshare, Signal::KILL)?;
        }
        sweep(&self.cgroup)?;
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn outside_told(outside: &Outside, mut command: Command) -> Command {
    outside.tell(&mut command);
    command
}

/// Passes on what two ends say to each other.
async fn pass<A, B>(mut outer: A, inner: std::io::Result<B>)
where
    A: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    B: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    if let Ok(mut inner) = inner {
        // One end gone is the other's end too.
        let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
    }
}

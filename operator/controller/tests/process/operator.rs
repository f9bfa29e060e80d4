// SPDX-License-Identifier: EUPL-1.2
//! The operator's own process, as a test sees it: by its log, its probes and its metrics.

use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

/// A generous bound: nothing here depends on how fast something is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A running operator; it ends with the test.
pub(crate) struct Operator {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Operator {
    /// Starts one and waits until it listens.
    pub(crate) async fn start(
        name: &str,
        namespace: &str,
        kubeconfig: &Path,
        args: &[&str],
    ) -> Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_operator"))
            .args(["--namespace", namespace, "--pod-name", name])
            .args(["--probe-listen", "127.0.0.1:0"])
            .args(["--metrics-listen", "127.0.0.1:0"])
            .args(["--log-format", "json"])
            .args(args)
            .env("KUBECONFIG", kubeconfig)
            .env("RUST_LOG", "info,operator=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the operator starts")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = child.stderr.take().context("it has a log")?;
        tokio::spawn({
            let lines = Arc::clone(&lines);
            async move {
                let mut log = BufReader::new(log).lines();
                while let Ok(Some(line)) = log.next_line().await {
                    let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                    lines
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(value);
                }
            }
        });
        let operator = Self {
            name: name.to_owned(),
            child,
            lines,
        };
        operator.event("Listening").await?;
        Ok(operator)
    }

    /// All lines of an event so far.
    pub(crate) fn events(&self, event: &str) -> Vec<Value> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .filter(|line| line["event"] == event)
            .cloned()
            .collect()
    }

    /// Waits for the first line of an event.
    pub(crate) async fn event(&self, event: &str) -> Result<Value> {
        self.nth_event(event, 1).await
    }

    /// Waits until an event was logged so many times; gives the last of them.
    pub(crate) async fn nth_event(&self, event: &str, count: usize) -> Result<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.events(event).into_iter().nth(count - 1) {
                return Ok(line);
            }
            ensure!(
                Instant::now() < end,
                "{} did not log {event} {count} times:\n{}",
                self.name,
                self.log()
            );
            sleep(Duration::from_millis(30)).await;
        }
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        lines.join("\n")
    }

    /// Status and body of a path of its probes.
    pub(crate) async fn probe(&self, path: &str) -> Result<(u16, String)> {
        self.ask("probes", path).await
    }

    /// What Prometheus would read.
    pub(crate) async fn metrics(&self) -> Result<String> {
        Ok(self.ask("metrics", "/metrics").await?.1)
    }

    /// The value of a metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> Result<f64> {
        let text = self.metrics().await?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.with_context(|| format!("{name} in\n{text}"))?;
        Ok(value.trim().parse()?)
    }

    /// Waits until a counter has come so far.
    pub(crate) async fn counts(&self, name: &str, wanted: u32) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let value = self.metric(name).await.unwrap_or_default();
            if value >= f64::from(wanted) {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{name} is {value}\n{}", self.log());
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn ask(&self, listener: &str, path: &str) -> Result<(u16, String)> {
        let line = self.events("Listening").pop().context("it listens")?;
        let address: SocketAddr = line[listener].as_str().context("an address")?.parse()?;
        let exchange = async {
            let mut stream = TcpStream::connect(address).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            anyhow::Ok(answer)
        };
        let answer = timeout(PATIENCE, exchange).await.context("an answer")??;
        let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        Ok((status, body.to_owned()))
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(&self) -> Result<()> {
        self.probed("/readyz", 200).await
    }

    /// Waits until a probe answers with a status.
    pub(crate) async fn probed(&self, path: &str, wanted: u16) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let (status, body) = self.probe(path).await?;
            if status == wanted {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{path} of {} says {status} {body}\n{}",
                self.name,
                self.log()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id().context("it runs")?)?;
        e2e::processes::signal_to(pid, signal)
    }

    /// Asks it to stop, as the kubelet does, and waits until it did.
    pub(crate) async fn terminate(mut self) -> Result<()> {
        self.signal(rustix::process::Signal::TERM)?;
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .context("it ends")??;
        if !status.success() {
            bail!("{} ended with {status}\n{}", self.name, self.log());
        }
        Ok(())
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("it is killed")
    }
}

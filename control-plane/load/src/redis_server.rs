// SPDX-License-Identifier: EUPL-1.2
//! A real `redis-server` of this run alone, and what it says of itself.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep};

use crate::process::{Launch, Process, READY};

/// The server.
pub(crate) struct RedisServer {
    process: Process,
    connection: MultiplexedConnection,
    url: String,
}

/// What `INFO` counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Scripts called from outside.
    pub(crate) scripts: u64,
    /// Reads of sockets: one round trip of one connection, or several that came together.
    pub(crate) reads: u64,
    /// Bytes in.
    pub(crate) bytes_in: u64,
    /// Bytes out.
    pub(crate) bytes_out: u64,
    /// Memory in use.
    pub(crate) memory_bytes: u64,
    /// Keys.
    pub(crate) keys: u64,
    /// CPU time, microseconds.
    pub(crate) cpu_micros: u64,
}

impl Counts {
    /// What was added since `earlier`; memory and keys only if they grew.
    pub(crate) const fn since(self, earlier: Self) -> Self {
        Self {
            scripts: self.scripts.saturating_sub(earlier.scripts),
            reads: self.reads.saturating_sub(earlier.reads),
            bytes_in: self.bytes_in.saturating_sub(earlier.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(earlier.bytes_out),
            memory_bytes: self.memory_bytes.saturating_sub(earlier.memory_bytes),
            keys: self.keys.saturating_sub(earlier.keys),
            cpu_micros: self.cpu_micros.saturating_sub(earlier.cpu_micros),
        }
    }
}

impl RedisServer {
    /// Starts it on a free port of loopback, without a file.
    pub(crate) async fn start(program: &Path, folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let args = [
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ];
        let mut args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        args.extend(["--dir".to_owned(), folder.display().to_string()]);
        let process = Process::start(&Launch {
            program,
            args,
            env: Vec::new(),
        })?;
        let url = format!("redis://127.0.0.1:{port}");
        let client = redis::Client::open(url.as_str())?;
        let end = Instant::now() + READY;
        let connection = loop {
            match client.get_multiplexed_async_connection().await {
                Ok(connection) => break connection,
                Err(error) if Instant::now() > end => {
                    return Err(error).context("redis-server does not answer");
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        };
        Ok(Self {
            process,
            connection,
            url,
        })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// CPU time so far, system calls included.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.process.cpu()
    }

    /// What it counts at this moment.
    pub(crate) async fn counts(&self) -> Result<Counts> {
        counts(&mut self.connection.clone()).await
    }

    /// Kills it.
    pub(crate) async fn kill(self) -> Result<()> {
        self.process.kill().await
    }
}

/// Asks a server what it counts.
pub(crate) async fn counts(connection: &mut MultiplexedConnection) -> Result<Counts> {
    let text: String = redis::cmd("INFO")
        .arg("everything")
        .query_async(connection)
        .await?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let number = |name: &str| -> Result<u64> {
        field(name)
            .parse()
            .with_context(|| format!("INFO has no {name}"))
    };
    let calls = |command: &str| -> u64 {
        field(&format!("cmdstat_{command}"))
            .split(',')
            .find_map(|part| part.strip_prefix("calls=")?.parse().ok())
            .unwrap_or_default()
    };
    let seconds = |name: &str| -> Result<f64> {
        field(name)
            .parse()
            .with_context(|| format!("INFO has no {name}"))
    };
    let keys = field("db0")
        .split(',')
        .find_map(|part| part.strip_prefix("keys=")?.parse().ok())
        .unwrap_or_default();
    let cpu = seconds("used_cpu_user")? + seconds("used_cpu_sys")?;
    Ok(Counts {
        scripts: [
            "eval",
            "evalsha",
            "evalsha_ro",
            "eval_ro",
            "fcall",
            "fcall_ro",
        ]
        .into_iter()
        .map(calls)
        .sum(),
        reads: number("total_reads_processed")?,
        bytes_in: number("total_net_input_bytes")?,
        bytes_out: number("total_net_output_bytes")?,
        memory_bytes: number("used_memory")?,
        keys,
        cpu_micros: (cpu * 1e6) as u64,
    })
}

/// A port of loopback that nobody has at this moment.
pub(crate) fn free_port() -> Result<u16> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    if port == 0 {
        bail!("no free port");
    }
    Ok(port)
}

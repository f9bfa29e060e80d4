// SPDX-License-Identifier: EUPL-1.2
//! A real `redis-server` of a test, and everything that can be done to it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::processes::signal_to;

/// A server; it is killed when dropped.
pub struct Redis {
    folder: PathBuf,
    port: u16,
    extra: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    /// Starts one on a free port of loopback, and waits until it answers.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::start_with(folder, &[])
    }

    /// As [`Self::start`], as a replica of another.
    ///
    /// # Errors
    /// When it does not start.
    pub fn replica_of(folder: &Path, primary: &Self) -> Result<Self> {
        let port = primary.port.to_string();
        Self::start_with(folder, &["--replicaof", "127.0.0.1", &port])
    }

    fn start_with(folder: &Path, extra: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut redis = Self {
            folder: folder.to_owned(),
            port: free_port()?,
            extra: extra.iter().map(|word| (*word).to_owned()).collect(),
            child: None,
        };
        redis.run()?;
        Ok(redis)
    }

    /// Starts it again, empty, on the same port.
    ///
    /// # Errors
    /// When it does not start.
    pub fn run(&mut self) -> Result<()> {
        let log = std::fs::File::create(self.folder.join("redis.log"))?;
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(&self.folder)
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("redis-server (Debian: redis-server) starts")?;
        self.child = Some(child);
        let end = Instant::now() + Duration::from_secs(10);
        while self.command(&["PING"]).is_err() {
            ensure!(Instant::now() < end, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    fn pid(&self) -> Result<i32> {
        let child = self.child.as_ref().context("redis-server runs")?;
        Ok(i32::try_from(child.id())?)
    }

    /// Kills it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("redis-server runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops it in its tracks: connections stay, nothing is answered.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        signal_to(self.pid()?, Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        signal_to(self.pid()?, Signal::CONT)
    }

    /// Sends one command; the simple answer, or the number of elements or bytes of a longer one.
    ///
    /// # Errors
    /// When there is no answer or it is an error.
    pub fn command(&self, words: &[&str]) -> Result<String> {
        command(self.port, words)
    }

    /// All keys.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn keys(&self) -> Result<Vec<String>> {
        let mut stream = connect(self.port)?;
        stream.write_all(&encode(&["KEYS", "*"]))?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let count: usize = line.trim().trim_start_matches('*').parse()?;
        let mut keys = Vec::new();
        for _ in 0..count {
            let mut key = String::new();
            reader.read_line(&mut line)?;
            reader.read_line(&mut key)?;
            keys.push(key.trim().to_owned());
        }
        keys.sort();
        Ok(keys)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have been killed by its test.
        let _ = self.kill();
    }
}

/// A Sentinel that watches one primary named `plenum`; it is killed when dropped.
pub struct Sentinel {
    port: u16,
    child: Child,
}

impl Sentinel {
    /// Starts one that decides alone and fast.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(folder: &Path, primary: &Redis) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let port = free_port()?;
        let file = folder.join("sentinel.conf");
        std::fs::write(
            &file,
            format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor plenum 127.0.0.1 {} 1\n\
                 sentinel down-after-milliseconds plenum 3000\nsentinel failover-timeout plenum 10000\n",
                primary.port
            ),
        )?;
        let log = std::fs::File::create(folder.join("sentinel.log"))?;
        let child = Command::new("redis-server")
            .arg(&file)
            .args(["--sentinel", "--dir"])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("redis-server --sentinel starts")?;
        let sentinel = Self { port, child };
        let end = Instant::now() + Duration::from_secs(10);
        while command(port, &["PING"]).is_err() {
            ensure!(Instant::now() < end, "the Sentinel does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(sentinel)
    }

    /// Port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

fn encode(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

fn command(port: u16, words: &[&str]) -> Result<String> {
    let mut stream = connect(port)?;
    stream.write_all(&encode(words))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    match line.trim().split_at_checked(1) {
        Some(("+" | ":" | "$" | "*", answer)) => Ok(answer.to_owned()),
        Some(("-", error)) => bail!("redis-server says {error}"),
        _ => bail!("redis-server closed the connection"),
    }
}

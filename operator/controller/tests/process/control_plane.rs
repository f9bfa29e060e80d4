// SPDX-License-Identifier: EUPL-1.2
//! A replica of the control plane, as a process that keeps everything in memory.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Duration, Instant, sleep},
};

use crate::operator::PATIENCE;

/// What a replica is started with; its folder goes with it.
pub(crate) struct ControlPlane {
    program: PathBuf,
    folder: PathBuf,
    http: SocketAddr,
    grpc: SocketAddr,
}

impl ControlPlane {
    /// `None` where its program is not built and the test may be skipped.
    pub(crate) fn new(name: &str) -> Result<Option<Self>> {
        let program = Path::new(env!("CARGO_BIN_EXE_operator")).with_file_name("control-plane");
        if !program.is_file() {
            if std::env::var_os("PLENUM_KUBERNETES").is_some_and(|policy| policy == "required") {
                bail!("control-plane is not built: cargo build -p control-plane");
            }
            eprintln!(
                "SKIPPED: control-plane is not built; `cargo build -p control-plane` builds it"
            );
            return Ok(None);
        }
        let folder = std::env::temp_dir().join(format!("plenum-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("installation.key"), [7; 32])?;
        Ok(Some(Self {
            program,
            folder,
            http: free()?,
            grpc: free()?,
        }))
    }

    /// Where the operator reaches it.
    pub(crate) fn grpc(&self) -> String {
        self.grpc.to_string()
    }

    /// Writes one of its files.
    pub(crate) fn write(&self, file: &str, content: &str) -> Result<()> {
        Ok(std::fs::write(self.folder.join(file), content)?)
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn start(&self) -> Result<Running> {
        let mut child = Command::new(&self.program)
            .args(["--replica-id", "only", "--store", "memory"])
            .args(["--http-listen", &self.http.to_string()])
            .args(["--grpc-listen", &self.grpc.to_string()])
            .arg("--tls-dir")
            .arg(&self.folder)
            .arg("--installation-key-file")
            .arg(self.folder.join("installation.key"))
            .stdin(Stdio::null())
            .stderr(Stdio::from(std::fs::File::create(self.folder.join("log"))?))
            .kill_on_drop(true)
            .spawn()
            .context("the control plane starts")?;
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(self.grpc).await.is_err() {
            let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            ensure!(
                child.try_wait()?.is_none(),
                "the control plane ended\n{}",
                log()
            );
            ensure!(
                Instant::now() < end,
                "the control plane does not listen\n{}",
                log()
            );
            sleep(Duration::from_millis(50)).await;
        }
        Ok(Running(child))
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A running replica; it ends with the test.
pub(crate) struct Running(Child);

impl Running {
    /// Kills it and waits until it is gone.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.0.kill().await.context("it is killed")
    }
}

/// An address of loopback that is free now.
fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

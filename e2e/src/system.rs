// SPDX-License-Identifier: EUPL-1.2
//! `plenum up` on a copy of the quickstart, in namespaces of its own.

use std::hash::{Hash as _, Hasher as _};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The variable that tells a test it already runs inside its namespaces.
const INSIDE: &str = "PLENUM_E2E_INSIDE";
/// Where the gateway listens in every namespace.
pub const GATEWAY: &str = "127.0.0.1:7880";
/// The namespace's own address, at which media nodes are reached.
pub const MACHINE: &str = "10.99.0.1";

/// Runs `body` in network and process namespaces of its own: outside of them this starts the test's binary anew for the one test
/// `name`, and fails where that fails.
///
/// # Errors
/// When the namespaces cannot be made (it takes root) or the test inside fails.
pub fn in_namespace(name: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    if is_inside(name) {
        return body();
    }
    let status = namespaced(name)?
        .status()
        .context("unshare (util-linux) starts the test's namespaces")?;
    if !status.success() {
        bail!("{name} failed in its namespaces ({status}); they need root, iproute2 and nftables");
    }
    Ok(())
}

/// Does this process run inside the namespaces made for the test `name`?
#[must_use]
pub fn is_inside(name: &str) -> bool {
    std::env::var_os(INSIDE).is_some_and(|inside| inside == name)
}

/// The test's binary once more, in network, mount and process namespaces of its own, for the one test `name`.
///
/// # Errors
/// When the own binary is unknown.
pub fn namespaced(name: &str) -> Result<Command> {
    let mut command = Command::new("unshare");
    command
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("inside.sh"))
        .arg(std::env::current_exe()?)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .stdin(Stdio::null());
    Ok(command)
}

/// A program of this workspace.
///
/// # Errors
/// When it has not been built.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?
        .parent()
        .and_then(Path::parent)
        .context("a test lies in target/PROFILE/deps")?
        .join(name);
    if !path.exists() {
        bail!(
            "{} is missing: cargo build --workspace --bins (make build) makes it",
            path.display()
        );
    }
    Ok(path)
}

/// A conference as `plenum up` printed it.
#[derive(Clone, Debug)]
pub struct Conference {
    /// Identifier in links.
    pub room_id: String,
    /// Link of guests, with the password.
    pub guest_link: String,
    /// Link of openers, with the key.
    pub opener_link: String,
}

/// A folder of one case. Short: the path of a Unix socket has a bound of 108 bytes. Cases run at once in process namespaces of their own,
/// where process ids are the same.
#[must_use]
pub fn folder(name: &str) -> PathBuf {
    let mut hasher = std::hash::DefaultHasher::new();
    name.hash(&mut hasher);
    let number = hasher.finish() as u32;
    std::env::temp_dir().join(format!("plenum-{number:08x}-{}", std::process::id()))
}

/// What `plenum up` is given.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// URL of a Redis.
    pub redis: Option<String>,
    /// Replicas of the control plane; 0 = as many as there are by default.
    pub replicas: u32,
    /// Manifests in place of those of the quickstart: file name and text.
    pub manifests: Vec<(&'static str, String)>,
}

/// A running system; it is killed when dropped.
pub struct System {
    child: Child,
    folder: PathBuf,
    block: serde_json::Value,
}

impl System {
    /// Starts the quickstart and waits until it is ready.
    ///
    /// # Errors
    /// When a binary is missing or the system is not ready within the liveness bound.
    pub fn start(name: &str) -> Result<Self> {
        Self::start_with(name, &Setup::default())
    }

    /// As [`Self::start`], with options.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(name: &str, setup: &Setup) -> Result<Self> {
        let binary = program("plenum")?;
        let folder = folder(name);
        let manifests = folder.join("manifests");
        std::fs::create_dir_all(&manifests)?;
        let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/quickstart");
        for entry in std::fs::read_dir(quickstart)? {
            let entry = entry?;
            std::fs::copy(entry.path(), manifests.join(entry.file_name()))?;
        }
        for (file, text) in &setup.manifests {
            std::fs::write(manifests.join(file), text)?;
        }
        let log = std::fs::File::create(folder.join("log"))?;
        let mut command = Command::new(binary);
        command
            .args(["up", "--output", "json", "-f"])
            .arg(&manifests)
            .arg("--state-dir")
            .arg(folder.join("state"));
        if let Some(url) = &setup.redis {
            command.args(["--redis", url]);
        }
        if setup.replicas > 0 {
            command.args(["--replicas", &setup.replicas.to_string()]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("plenum up starts")?;
        let out = child.stdout.take().context("stdout is piped")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut system = Self {
            child,
            folder,
            block: serde_json::Value::Null,
        };
        let end = Instant::now() + Duration::from_secs(30);
        let mut text = String::new();
        while system.block.is_null() {
            match lines.recv_timeout(Duration::from_millis(200)) {
                Ok(line) => {
                    text.push_str(&line);
                    text.push('\n');
                    if let Some(block) = ready_block(&text) {
                        system.block = block;
                    }
                }
                Err(_) if Instant::now() < end && system.child.try_wait()?.is_none() => {}
                Err(_) => bail!("plenum up printed no block: {text}\n{}", system.log()),
            }
        }
        Ok(system)
    }

    /// What `plenum up` printed of a conference.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn conference(&self, name: &str) -> Result<Conference> {
        let found = self.block["conferences"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|entry| entry["name"] == name)
            .with_context(|| format!("plenum up printed no conference {name}: {}", self.block))?;
        let text = |field: &str| {
            found[field]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("{name} has no {field}"))
        };
        let guest_link = text("guestLink")?;
        let room_id = guest_link
            .split_once("/c/")
            .and_then(|(_, rest)| rest.split(['#', '?']).next())
            .context("a link has a room id")?
            .to_owned();
        Ok(Conference {
            room_id,
            guest_link,
            opener_link: found["openerLinks"][0]
                .as_str()
                .with_context(|| format!("{name} has no opener link"))?
                .to_owned(),
        })
    }

    /// Objects as `plenum get KIND -o json` prints them.
    ///
    /// # Errors
    /// When the command fails or prints something else.
    pub fn get(&self, kind: &str) -> Result<Vec<serde_json::Value>> {
        let output = Command::new(program("plenum")?)
            .args(["get", kind, "-o", "json", "--state-dir"])
            .arg(self.folder.join("state"))
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            bail!(
                "plenum get {kind}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let list: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Folder of this system; it goes with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The last lines of every child's log.
    #[must_use]
    pub fn logs(&self, lines: usize) -> String {
        let mut all = String::new();
        let files = std::fs::read_dir(self.folder.join("state/logs")).ok();
        for entry in files.into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let text: Vec<&str> = text.lines().collect();
            let tail = &text[text.len().saturating_sub(lines)..];
            all.push_str(&format!(
                "--- {}\n{}\n",
                entry.file_name().to_string_lossy(),
                tail.join("\n")
            ));
        }
        all
    }

    /// The log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Stops it in good order and checks that it ends with 0.
    ///
    /// # Errors
    /// When it does not end, or ends with an error.
    pub fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    bail!("plenum up ended with {status}\n{}", self.log());
                }
                return Ok(());
            }
            if Instant::now() > end {
                bail!("plenum up does not end on SIGINT\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The block that says that the system is ready. Others may come before it, such as that of a child that died at its start because a
/// port was taken meanwhile, and is started again.
fn ready_block(text: &str) -> Option<serde_json::Value> {
    let begin = text.find('{')?;
    serde_json::Deserializer::from_str(&text[begin..])
        .into_iter::<serde_json::Value>()
        .map_while(Result::ok)
        .find(|block| block.get("conferences").is_some())
}

impl Drop for System {
    fn drop(&mut self) {
        // Ends what a failed test has left; after `stop` there is nothing to end.
        if matches!(self.child.try_wait(), Ok(None)) {
            eprintln!("{}", self.log());
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::ready_block;

    #[test]
    fn a_child_that_died_before_is_not_taken_for_the_system_being_ready() {
        let died = "{\"event\":\"died\",\"process\":\"local-0\"}\n";
        assert_eq!(ready_block(died), None);
        let both = format!("{died}{{\n \"event\": \"ready\",\n \"conferences\": []\n}}\n");
        assert_eq!(
            ready_block(&both).map(|block| block["event"].clone()),
            Some("ready".into())
        );
    }
}

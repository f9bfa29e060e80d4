// SPDX-License-Identifier: EUPL-1.2
//! A running system for tests: real processes, a folder of its own, and nothing left behind.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        OnceLock,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

use serde_json::Value;

const QUICKSTART: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/examples/quickstart"
);
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// Whether something happens at all; how fast is measured elsewhere.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The command, with the programs it runs beside it. Whoever builds the workspace has them; where they are missing they are
/// built with the same selection of packages and targets as `make` uses, so that nothing is built twice.
pub(crate) fn plenum() -> Command {
    static BUILT: OnceLock<()> = OnceLock::new();
    let program = Path::new(env!("CARGO_BIN_EXE_plenum"));
    BUILT.get_or_init(|| {
        let folder = program.parent().expect("a folder");
        if ["control-plane", "media-node"]
            .iter()
            .all(|name| folder.join(name).is_file())
        {
            return;
        }
        let name = folder.file_name().and_then(|name| name.to_str());
        let profile = match name {
            None | Some("debug") => "dev",
            Some(profile) => profile,
        };
        let built = Command::new(env!("CARGO"))
            .current_dir(ROOT)
            .args([
                "build",
                "--quiet",
                "--locked",
                "--workspace",
                "--bins",
                "--tests",
            ])
            .args(["--profile", profile])
            .status()
            .expect("cargo runs");
        assert!(built.success(), "the workspace builds");
    });
    Command::new(program)
}

/// A folder that goes when the test ends.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    /// A folder with a short path: a socket's has 107 bytes at most.
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("plenum-{name}-{}", std::process::id()));
        // An earlier run with the same process id may have been killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    /// The quickstart, with media ports from a range of its own.
    pub(crate) fn with_quickstart(self, first_port: u16) -> Self {
        fs::create_dir_all(self.manifests()).expect("a folder for the manifests");
        for entry in fs::read_dir(QUICKSTART).expect("the quickstart") {
            let path = entry.expect("an entry").path();
            let text = fs::read_to_string(&path).expect("a manifest");
            let text = text
                .replace("min: 20000", &format!("min: {first_port}"))
                .replace("max: 20255", &format!("max: {}", first_port + 255));
            fs::write(
                self.manifests().join(path.file_name().expect("a name")),
                text,
            )
            .expect("a copy");
        }
        self
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.0.join("manifests")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// Replaces part of a manifest.
    pub(crate) fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.manifests().join(file);
        let text = fs::read_to_string(&path).expect("the manifest");
        assert!(text.contains(from), "{file} holds {from}");
        fs::write(&path, text.replace(from, to)).expect("the manifest is written");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder left behind is harmless: it lies among temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running `plenum up --output json`.
pub(crate) struct Up {
    pub(crate) child: Child,
    pub(crate) folder: Folder,
    events: Receiver<Value>,
}

impl Up {
    /// Starts one on a free port.
    pub(crate) fn start(folder: Folder, more: &[&str]) -> Self {
        Self::start_on(folder, "0", more)
    }

    /// Starts one on a port.
    pub(crate) fn start_on(folder: Folder, port: &str, more: &[&str]) -> Self {
        let mut child = plenum()
            .args(["up", "--output", "json", "--http-port", port, "-f"])
            .arg(folder.manifests())
            .arg("--state-dir")
            .arg(folder.state())
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .expect("plenum up runs");
        let (send, events) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let event =
                    serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
                if send.send(event).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            folder,
            events,
        }
    }

    /// The next event of a kind; others are passed over.
    pub(crate) fn event(&self, wanted: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            match self
                .events
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(event) if event["event"] == wanted => return event,
                Ok(event) => eprintln!("passed over: {event}"),
                Err(RecvTimeoutError::Timeout) => panic!("no event `{wanted}`; {}", self.logs()),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("ended without `{wanted}`; {}", self.logs())
                }
            }
        }
    }

    fn logs(&self) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(self.folder.state().join("logs"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let log = fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            text.push_str(&format!("\n{}:\n", entry.path().display()));
            text.push_str(&lines[lines.len().saturating_sub(15)..].join("\n"));
        }
        text
    }

    /// Another verb on the same state directory.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut args = args.iter();
        let verb = args.next().expect("a verb");
        plenum()
            .arg(verb)
            .args(args)
            .arg("--state-dir")
            .arg(self.folder.state())
            .output()
            .expect("plenum runs")
    }

    /// Objects of a kind.
    pub(crate) fn get(&self, kind: &str) -> Vec<Value> {
        let output = self.run(&["get", kind, "-o", "json"]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        list["items"].as_array().expect("a list").clone()
    }

    /// Waits until something holds of the objects of a kind.
    pub(crate) fn until(
        &self,
        kind: &str,
        what: &str,
        holds: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let objects = self.get(kind);
            if holds(&objects) {
                return objects;
            }
            assert!(
                Instant::now() < until,
                "never {what}: {objects:#?}{}",
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// All processes below this one.
    pub(crate) fn processes(&self) -> Vec<u32> {
        children_of(self.child.id())
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&mut self) -> std::process::ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return status;
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // The children follow their parent; that it has ended already is the normal case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Children of a process, by the kernel's own list.
pub(crate) fn children_of(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Command line of a process; empty when it is gone.
pub(crate) fn command_of(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Waits until processes are gone.
pub(crate) fn assert_gone(pids: &[u32]) {
    let until = Instant::now() + PATIENCE;
    while let Some(pid) = pids.iter().find(|pid| !command_of(**pid).is_empty()) {
        assert!(
            Instant::now() < until,
            "{pid} still runs: {}",
            command_of(*pid)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What Ctrl-C does.
pub(crate) fn interrupt(pid: u32) {
    let asked = Command::new("kill")
        .args(["-INT", &pid.to_string()])
        .status()
        .expect("kill runs");
    assert!(asked.success());
}

/// Kills a process without asking.
pub(crate) fn kill(pid: u32) {
    let killed = Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status()
        .expect("kill runs");
    assert!(killed.success());
}

/// Status and body of a plain HTTP request.
pub(crate) fn http_get(url: &str) -> (u16, String) {
    try_http_get(url).expect("an answer")
}

/// As [`http_get`], where nobody may answer.
pub(crate) fn try_http_get(url: &str) -> std::io::Result<(u16, String)> {
    let rest = url.strip_prefix("http://").expect("plain HTTP");
    let (host, path) = rest.split_once('/').expect("a path");
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| std::io::Error::other("no status"))?;
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .unwrap_or_default();
    Ok((status, body))
}

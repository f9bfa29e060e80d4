// SPDX-License-Identifier: EUPL-1.2
//! Real Redis servers for tests: one, with TLS and ACL, watched by Sentinels, as a cluster. They end with the value that stands for them,
//! and with the thread that started them.

#![allow(dead_code, unreachable_pub)]

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub mod cluster;
pub mod sentinel;

/// Everything that is waited for happens within this time, on a loaded machine too.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A directory that goes with its value.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("plenum-redis-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

/// Waits until something is so.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "never came to pass: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A wall clock that stands still until it is moved.
pub struct Clock {
    file: fs::File,
    path: PathBuf,
    micros: AtomicI64,
}

impl Clock {
    /// Begins in 2030.
    fn start(dir: &Path) -> Self {
        let path = dir.join("clock");
        let file = fs::File::create(&path).expect("a file");
        let clock = Self {
            file,
            path,
            micros: AtomicI64::new(1_893_456_000_000_000),
        };
        clock.write();
        clock
    }

    fn write(&self) {
        let micros = self.micros.load(Ordering::SeqCst);
        self.file
            .write_all_at(&micros.to_ne_bytes(), 0)
            .expect("the clock is set");
    }

    pub fn advance(&self, span: Duration) {
        let micros = i64::try_from(span.as_micros()).expect("short");
        self.micros.fetch_add(micros, Ordering::SeqCst);
        self.write();
    }
}

/// Compiles the library that puts a server on a [`Clock`].
fn clock_library(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/redis/clock.c");
    let library = dir.join("clock.so");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([library.as_os_str(), source.as_os_str()])
        .status()
        .expect("a C compiler");
    assert!(status.success());
    library
}

/// What a server is like beside the usual.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Its clock is held by the test.
    pub clock: bool,
    /// A certificate: directory with ca.crt, tls.crt, tls.key; TLS only.
    pub tls: Option<PathBuf>,
    /// Lines of an ACL file; the user of the fixture is added.
    pub acl: Option<String>,
    /// Further options.
    pub options: Vec<String>,
}

/// A running server.
pub struct Server {
    child: Option<Child>,
    command: Vec<String>,
    library: Option<PathBuf>,
    pub dir: Dir,
    pub port: u16,
    pub clock: Option<Clock>,
    tls: Option<PathBuf>,
}

/// User and password of the fixture where there is an ACL.
const ADMIN: &str = "fixture";

impl Server {
    pub fn start() -> Self {
        Self::with(Setup::default())
    }

    pub fn with(setup: Setup) -> Self {
        let dir = Dir::new();
        let port = free_port();
        let clock = setup.clock.then(|| Clock::start(dir.path()));
        let library = setup.clock.then(|| clock_library(dir.path()));
        let mut command: Vec<String> = [
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
        ]
        .map(str::to_owned)
        .to_vec();
        command.push(dir.path().display().to_string());
        match &setup.tls {
            Some(tls) => {
                let port = port.to_string();
                command.extend(["--port", "0", "--tls-port", &port].map(str::to_owned));
                for (option, file) in [
                    ("--tls-ca-cert-file", "ca.crt"),
                    ("--tls-cert-file", "tls.crt"),
                    ("--tls-key-file", "tls.key"),
                ] {
                    command.extend([option.into(), tls.join(file).display().to_string()]);
                }
                command.extend(["--tls-auth-clients", "no"].map(str::to_owned));
            }
            None => command.extend(["--port".to_owned(), port.to_string()]),
        }
        if let Some(acl) = &setup.acl {
            let file = dir.path().join("users.acl");
            let admin = format!("user {ADMIN} on >{ADMIN} ~* &* +@all\nuser default off\n");
            fs::write(&file, format!("{admin}{acl}\n")).expect("written");
            command.extend(["--aclfile".into(), file.display().to_string()]);
        }
        command.extend(setup.options);
        let mut server = Self {
            child: None,
            command,
            library,
            dir,
            port,
            clock,
            tls: setup.tls,
        };
        server.restart();
        server
    }

    /// Starts it again, with nothing in it.
    pub fn restart(&mut self) {
        self.spawn();
        until("the server answers", || self.try_run(&["PING"]).is_ok());
    }

    /// Starts it again, and waits only until it takes connections.
    pub fn spawn(&mut self) {
        self.kill();
        let mut command = bound_to_this_thread("redis-server");
        command.args(&self.command);
        if let (Some(library), Some(clock)) = (&self.library, &self.clock) {
            command.env("LD_PRELOAD", library);
            command.env("PLENUM_TEST_CLOCK", &clock.path);
        }
        let mut child = command.spawn().expect("redis-server");
        until("the server takes connections", || {
            if let Some(status) = child.try_wait().expect("its state") {
                panic!("redis-server ended at once, {status}: {:?}", self.command);
            }
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
        self.child = Some(child);
    }

    /// It is gone, from one moment to the next.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        let status = Command::new("kill").args([name, &id]).status();
        assert!(status.expect("kill").success());
    }

    /// It takes connections, and says nothing more.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// Everything in it is gone, the scripts too.
    pub fn flush(&self) {
        self.run(&["FLUSHALL"]);
        self.run(&["SCRIPT", "FLUSH"]);
    }

    /// Where a store finds it.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() {
            "rediss"
        } else {
            "redis"
        };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// With a user.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        self.url().replace("://", &format!("://{user}:{password}@"))
    }

    pub fn run(&self, words: &[&str]) -> redis::Value {
        self.try_run(words).expect("the server does as it is told")
    }

    pub fn try_run(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        let admin = self.command.iter().any(|word| word == "--aclfile");
        let url = if admin {
            self.url_of(ADMIN, ADMIN)
        } else {
            self.url()
        };
        run(&url, self.tls.as_deref(), words)
    }

    /// What it was given behind an option.
    pub fn option(&self, name: &str) -> String {
        let at = self.command.iter().position(|word| word == name);
        at.and_then(|at| self.command.get(at + 1))
            .cloned()
            .expect("it was given")
    }

    /// Keys that are there.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> =
            redis::from_redis_value(self.run(&["KEYS", "*"])).expect("names");
        keys.sort();
        keys
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command whose process ends with this thread, whatever becomes of it.
pub fn bound_to_this_thread(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Runs a command on a server.
pub fn run(url: &str, tls: Option<&Path>, words: &[&str]) -> redis::RedisResult<redis::Value> {
    let client = match tls {
        Some(dir) => {
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let root_cert = Some(fs::read(dir.join("ca.crt"))?);
            let certificates = redis::TlsCertificates {
                client_tls: None,
                root_cert,
            };
            redis::Client::build_with_tls(url, certificates)?
        }
        None => redis::Client::open(url)?,
    };
    let mut connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    let (name, args) = words.split_first().expect("a command");
    redis::cmd(name).arg(args).query(&mut connection)
}

/// Writes the certificates of a server on 127.0.0.1, and of the authority that signs them.
pub fn certificates(dir: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&key).expect("signed");
    let issuer = Issuer::new(authority, key);
    let own = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .expect("parameters")
        .signed_by(&own, &issuer)
        .expect("signed");
    for (file, text) in [
        ("ca.crt", root.pem()),
        ("tls.crt", leaf.pem()),
        ("tls.key", own.serialize_pem()),
    ] {
        fs::write(dir.join(file), text).expect("written");
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! Whether a process lives and is ready says nothing of Redis: absent from the start, killed, standing still, back again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::redis::{Dir, Server, bound_to_this_thread, free_port};
use crate::world::pki::Ca;

/// The binary as it is started, over a Redis.
struct Process {
    child: Child,
    http: String,
    _dir: Dir,
}

impl Process {
    fn start(redis: &str) -> Self {
        let dir = Dir::new();
        let (ca, certificate, key) =
            Ca::new().pem_of("control-plane.plenum.internal", "control-plane");
        for (name, bytes) in [
            ("ca.crt", ca.as_bytes()),
            ("tls.crt", certificate.as_bytes()),
            ("tls.key", key.as_bytes()),
            ("key", &[9; 32]),
            ("seal", &[7; 32]),
        ] {
            std::fs::write(dir.path().join(name), bytes).expect("written");
        }
        let http = format!("127.0.0.1:{}", free_port());
        let mut child = bound_to_this_thread(env!("CARGO_BIN_EXE_control-plane"))
            .args(["--replica-id", "r1", "--grpc-listen", "127.0.0.1:0"])
            .args([
                "--http-listen",
                &http,
                "--store",
                "redis",
                "--redis-url",
                redis,
            ])
            .arg("--tls-dir")
            .arg(dir.path())
            .arg("--installation-key-file")
            .arg(dir.path().join("key"))
            .arg("--seal-key-file")
            .arg(dir.path().join("seal"))
            .env("RUST_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        // What is not read would block the process in the end.
        let (listens, listening) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if line.contains("control plane listens") {
                    let _ = listens.send(());
                }
                println!("{line}");
            }
        });
        listening
            .recv_timeout(Duration::from_secs(60))
            .expect("it listens");
        Self {
            child,
            http,
            _dir: dir,
        }
    }

    fn status(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.http).expect("connected");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("set");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            self.http
        )
        .expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer.lines().next().unwrap_or_default().to_owned()
    }

    /// Asked again and again for a while, it says the same each time.
    fn is_well(&self, when: &str) {
        for _ in 0..30 {
            for path in ["/livez", "/readyz"] {
                assert_eq!(self.status(path), "HTTP/1.1 200 OK", "{path}, {when}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn liveness_and_readiness_do_not_depend_on_redis() {
    let absent = Process::start(&format!("redis://127.0.0.1:{}", free_port()));
    absent.is_well("never there");
    drop(absent);

    let mut server = Server::start();
    let process = Process::start(&server.url());
    process.is_well("there");
    server.pause();
    process.is_well("standing still");
    server.resume();
    server.kill();
    process.is_well("gone");
    server.restart();

    process.is_well("back, and empty");
}

// SPDX-License-Identifier: EUPL-1.2
//! The binary with a store in Redis, as it is started.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use control_plane::store::redis::acl;
use control_plane::store::redis::keys::Namespace;

use crate::servers::{Dir, bound_to_this_thread, certificates, free_port};

const BINARY: &str = env!("CARGO_BIN_EXE_control-plane");

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn replica(dir: &Dir) -> Command {
    certificates(dir.path());
    std::fs::write(dir.path().join("key"), [9; 32]).expect("written");
    let mut command = bound_to_this_thread(BINARY);
    command
        .args(["--replica-id", "r1", "--http-listen", "127.0.0.1:0"])
        .args(["--grpc-listen", "127.0.0.1:0", "--store", "redis"])
        .arg("--tls-dir")
        .arg(dir.path())
        .arg("--installation-key-file")
        .arg(dir.path().join("key"))
        .arg("--seal-key-file")
        .arg(dir.path().join("key"))
        .env("RUST_LOG", "debug")
        .stderr(Stdio::piped());
    command
}

#[test]
fn it_starts_while_redis_is_away_and_never_shows_the_password() {
    let dir = Dir::new();
    let url = format!("redis://plenum:hunter2@127.0.0.1:{}", free_port());
    let mut running = Running(
        replica(&dir)
            .env("PLENUM_REDIS_URL", url)
            .spawn()
            .expect("started"),
    );
    let log = BufReader::new(running.0.stderr.take().expect("piped"));
    let (mut listens, mut sought) = (false, false);
    for line in log.lines().map_while(Result::ok) {
        assert!(!line.contains("hunter2"), "{line}");
        listens |= line.contains("control plane listens");
        sought |= line.contains("Redis cannot be reached");
        if listens && sought {
            return;
        }
    }
    panic!("it ended: listening {listens}, seeking {sought}");
}

#[test]
fn a_wrong_address_ends_the_start_with_its_name_and_without_the_password() {
    for (url, named) in [
        ("redis://plenum:hunter2@a,b", "--redis-url names several"),
        (
            "redis+sentinel://:hunter2@a",
            "--redis-url names no service",
        ),
        ("", "--redis-url begins with none"),
    ] {
        let dir = Dir::new();
        let output = replica(&dir)
            .env("PLENUM_REDIS_URL", url)
            .output()
            .expect("started");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(named) && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn it_prints_the_rule_for_its_user() {
    let run = |name: &str| {
        Command::new(BINARY)
            .args(["redis-acl", "--redis-namespace", name])
            .output()
            .expect("started")
    };
    let namespace = Namespace::parse("berlin").expect("a name");
    let printed = String::from_utf8(run("berlin").stdout).expect("text");
    assert_eq!(printed.trim_end(), acl::rule(&namespace));
    let wrong = run("a*");
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(2), "{said}");
    assert!(said.contains("--redis-namespace"), "{said}");
}

// SPDX-License-Identifier: EUPL-1.2
//! The binary as it is started: its command line, its services, its end.

#[allow(dead_code)]
mod world;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use plenum_proto::v1::Publication;
use plenum_proto::v1::directory_client::DirectoryClient;
use plenum_proto::v1::publication::Item;
use world::pki::{self, Ca};
use world::{LIVENESS, operator};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("plenum-binary-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("made");
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.join(name), bytes).expect("written");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind, it is only litter.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_control-plane"));
    command
        .args([
            "--replica-id",
            "r1",
            "--http-listen",
            "127.0.0.1:0",
            "--grpc-listen",
            "127.0.0.1:0",
        ])
        .arg("--tls-dir")
        .arg(folder)
        .arg("--installation-key-file")
        .arg(folder.join("key"))
        .env("RUST_LOG", "info")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Kills the process if the test does not get to its end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_process_serves_and_stops_in_good_order() {
    let folder = Folder::new("serves");
    let ca = Ca::new();
    let (ca_pem, certificate, key) = ca.pem_of("control-plane.plenum.internal", "control-plane");
    folder.write("ca.crt", ca_pem.as_bytes());
    folder.write("tls.crt", certificate.as_bytes());
    folder.write("tls.key", key.as_bytes());
    folder.write("key", &[9; 32]);
    let mut running = Running(
        command(&folder.0)
            .args(["--log-format", "json"])
            .spawn()
            .expect("started"),
    );
    let log = BufReader::new(running.0.stderr.take().expect("piped"));
    let address = tokio::task::spawn_blocking(move || {
        log.lines().map_while(Result::ok).find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line).expect("each line is JSON");
            Some(line["grpc"].as_str()?.to_owned())
        })
    });
    let address = tokio::time::timeout(LIVENESS, address)
        .await
        .expect("it says where it listens")
        .expect("read")
        .expect("listens");

    let channel = pki::dial(&address, &ca.operator()).await.expect("dialled");
    let publication = |item| Publication {
        epoch: 1,
        item: Some(item),
    };
    let items = [
        publication(Item::Tenant(operator::tenant())),
        publication(Item::EndOfSnapshot(true)),
    ];
    let mut acks = DirectoryClient::new(channel)
        .publish(tokio_stream::iter(items))
        .await
        .expect("called")
        .into_inner();
    let mut applied = false;
    while let Some(ack) = acks.message().await.expect("answered") {
        assert_eq!(ack.refused_reason, "", "{}", ack.message);
        applied |= ack.snapshot_applied;
    }
    assert!(applied);

    let pid = running.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("ran")
            .success()
    );
    let ended = async {
        loop {
            if let Some(status) = running.0.try_wait().expect("waited") {
                return status;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let status = tokio::time::timeout(LIVENESS, ended)
        .await
        .expect("it ends");
    assert_eq!(status.code(), Some(0));
}

/// Status and body; `None` while nobody listens.
async fn ask(at: SocketAddr, path: &str) -> Option<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(at).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: pod\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
}

/// As a pod is started: TLS on all addresses, plaintext for the kubelet alone, its name and address from the environment. It is alive at
/// once, and ready although neither operator nor node nor Redis have come.
#[tokio::test]
async fn a_pod_answers_probes_and_the_scraper_in_plaintext_beside_its_gateway() {
    let folder = Folder::new("pod");
    let ca = Ca::new();
    let (ca_pem, certificate, key) = ca.pem_of("control-plane.plenum.internal", "control-plane");
    folder.write("ca.crt", ca_pem.as_bytes());
    folder.write("tls.crt", certificate.as_bytes());
    folder.write("tls.key", key.as_bytes());
    folder.write("key", &[9; 32]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let probes = listener.local_addr().expect("an address");
    drop(listener);
    let file = |name: &str| folder.0.join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_control-plane"));
    command
        .args(["--http-listen", "[::]:0", "--grpc-listen", "[::]:0"])
        .args(["--store", "redis", "--redis-url", "redis://127.0.0.1:1"])
        .args([OsStr::new("--http-tls-dir"), folder.0.as_os_str()])
        .args([OsStr::new("--tls-dir"), folder.0.as_os_str()])
        .args([
            OsStr::new("--installation-key-file"),
            file("key").as_os_str(),
        ])
        .args([OsStr::new("--seal-key-file"), file("key").as_os_str()])
        .args(["--probe-listen", &probes.to_string()])
        .env("POD_NAME", "plenum-control-plane-7d9c-abcde")
        .env("POD_IP", "127.0.0.1")
        .stdin(Stdio::null());
    let running = Running(command.spawn().expect("started"));
    let until = async |path: &str| {
        let well = async {
            while !matches!(ask(probes, path).await, Some((200, _))) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIVENESS, well).await.expect(path);
    };
    until("/livez").await;
    until("/readyz").await;
    let (status, text) = ask(probes, "/metrics").await.expect("answered");
    assert_eq!(status, 200);
    assert!(text.contains("plenum_control_rooms "), "{text}");
    assert_eq!(ask(probes, "/api/v1/c/x").await.expect("answered").0, 404);
    drop(running);
}

#[test]
fn a_wrong_command_line_names_the_option_and_ends_with_2() {
    let folder = Folder::new("wrong");
    folder.write("key", &[9; 31]);
    let refuse = |extra: &[&str], text: &str| {
        let output = command(&folder.0).args(extra).output().expect("ran");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(text), "{said}");
    };
    refuse(&[], "31 bytes");
    refuse(&["--http-listen", "192.0.2.1:80"], "--http-tls-dir");
    refuse(&["--no-such-option"], "--no-such-option");
    refuse(&["--store", "papyrus"], "memory");
}

#[test]
fn missing_certificates_are_named() {
    let folder = Folder::new("missing");
    folder.write("key", &[9; 32]);
    let output = command(&folder.0).output().expect("ran");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("ca.crt") && said.contains("--tls-dir"),
        "{said}"
    );
}

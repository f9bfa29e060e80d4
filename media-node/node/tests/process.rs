// SPDX-License-Identifier: EUPL-1.2
//! The binary: command line, start, signal, exit codes.

mod world;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use media_core::io::Protocol;
use plenum_load::headless::Source;
use plenum_proto::v1::node_report::Item as Report;
use world::{
    Call, ControlPlane, LIVENESS, Pki, Role, Setting, act_until, eventually, facts, key,
    session_start,
};

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("media-node-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("writable");
        Self(path)
    }

    fn text(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that goes with the test.
struct Process(Child);

impl Process {
    fn start(line: &[String]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_media-node"))
            .args(&line[1..])
            .stderr(Stdio::inherit())
            .spawn();
        Self(child.expect("the binary runs"))
    }

    fn terminate(&self) {
        let pid = i32::try_from(self.0.id()).expect("a pid");
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
    }

    async fn exit_code(&mut self) -> Option<i32> {
        let until = Instant::now() + LIVENESS;
        loop {
            if let Some(status) = self.0.try_wait().expect("own child") {
                return status.code();
            }
            assert!(Instant::now() < until, "the process goes on");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_sends_everybody_elsewhere_and_ends_well() {
    let pki = Pki::new();
    let directory = Directory::new("sigterm");
    pki.write(Role::Node, &directory.0);
    let plane = ControlPlane::start(&pki, Some(facts(true))).await;
    let started = Instant::now();
    let setting = Setting {
        control_planes: vec![plane.endpoint()],
        ..Setting::default()
    };
    let mut process = Process::start(&setting.line(directory.text()));
    plane.wait_accepting().await;
    eprintln!(
        "from exec to accepting: {} ms",
        started.elapsed().as_millis()
    );

    let node = plane
        .hello()
        .expect("hello")
        .grpc_endpoint
        .parse()
        .expect("an address");
    let call = Call::connect(&pki, node, Role::ControlPlane).await;
    call.open("a", 1, None).await.expect("opened");
    let mut people = Vec::new();
    for identity in ["alice", "bob"] {
        let mut person = call
            .join(
                session_start("a", 1, identity),
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                Protocol::Udp,
            )
            .await;
        person.publish(Source::Microphone);
        people.push(person);
    }
    act_until("people meet", &mut people, |people| {
        people.iter_mut().all(|person| person.received(1) >= 10)
    })
    .await;

    process.terminate();
    act_until("everybody is told to come again", &mut people, |people| {
        people.iter().all(|person| {
            person.left.as_ref().is_some_and(|leave| {
                leave.action == livekit_protocol::leave_request::Action::Reconnect as i32
            })
        })
    })
    .await;
    assert_eq!(process.exit_code().await, Some(0));
    eventually("the last words: takes nothing, has nothing", async || {
        let reports = plane.reports();
        plane.accepting() == Some(false)
            && reports.iter().any(
                |report| matches!(report, Report::Closed(closed) if closed.key == Some(key("a"))),
            )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_patience_says_how_long_it_stays_and_a_second_signal_hurries_it() {
    let pki = Pki::new();
    let directory = Directory::new("patience");
    pki.write(Role::Node, &directory.0);
    let patient = plenum_proto::v1::NodeFacts {
        drain_timeout_ms: 3_600_000,
        ..facts(true)
    };
    let plane = ControlPlane::start(&pki, Some(patient)).await;
    let setting = Setting {
        control_planes: vec![plane.endpoint()],
        ..Setting::default()
    };
    let mut process = Process::start(&setting.line(directory.text()));
    plane.wait_accepting().await;
    let node = plane
        .hello()
        .expect("hello")
        .grpc_endpoint
        .parse()
        .expect("an address");
    let call = Call::connect(&pki, node, Role::ControlPlane).await;
    call.open("a", 1, None).await.expect("opened");
    process.terminate();
    eventually("it says that it leaves within the hour", async || {
        plane.reports().iter().any(|report| {
            matches!(report, Report::Load(load)
                if !load.accepting && (3_000_000..=3_600_000).contains(&load.leaving_ms))
        })
    })
    .await;
    assert!(
        call.open("b", 1, None).await.is_err(),
        "it takes no more rooms"
    );
    assert_eq!(process.0.try_wait().expect("own child"), None, "it stays");
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));

    // Without a room there is nothing to wait for.
    let patient = plenum_proto::v1::NodeFacts {
        drain_timeout_ms: 3_600_000,
        ..facts(true)
    };
    let plane = ControlPlane::start(&pki, Some(patient)).await;
    let setting = Setting {
        control_planes: vec![plane.endpoint()],
        ..Setting::default()
    };
    let mut process = Process::start(&setting.line(directory.text()));
    plane.wait_accepting().await;
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_wrong_command_line_ends_with_2_and_a_taken_port_with_1() {
    let pki = Pki::new();
    let directory = Directory::new("refused");
    let setting = Setting {
        control_planes: vec!["127.0.0.1:1".into()],
        ..Setting::default()
    };
    let line = setting.line(directory.text());
    assert_eq!(
        Process::start(&line).exit_code().await,
        Some(2),
        "no certificates"
    );
    pki.write(Role::Node, &directory.0);
    let mut wrong = line.clone();
    wrong.extend(["--control-plane".to_owned(), "http://nonsense/".to_owned()]);
    assert_eq!(Process::start(&wrong).exit_code().await, Some(2));
    let port = line[line
        .iter()
        .position(|part| part == "--media-port")
        .expect("there")
        + 1]
    .clone();
    let _taken = std::net::UdpSocket::bind(format!("127.0.0.1:{port}")).expect("free");
    assert_eq!(Process::start(&line).exit_code().await, Some(1));
}

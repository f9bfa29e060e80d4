// SPDX-License-Identifier: EUPL-1.2
//! The binary: command line, start, signal, exit codes.

mod world;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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

/// Status and body of a probe; `None` while nobody listens.
async fn probe(at: SocketAddr, path: &str) -> Option<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(at).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: pod\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
}

/// As a pod is started: what only the pod knows comes from its environment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_ready_without_a_control_plane_and_stays_so_while_it_drains() {
    let pki = Pki::new();
    let directory = Directory::new("pod");
    pki.write(Role::Node, &directory.0);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let probes = listener.local_addr().expect("an address");
    drop(listener);
    // Nobody listens there yet.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let replica = silent.local_addr().expect("an address").to_string();
    let setting = Setting {
        control_planes: vec![replica],
        ..Setting::default()
    };
    let mut line = setting.line(directory.text());
    for option in ["--node-uid", "--media-address", "--metrics-listen"] {
        let at = line.iter().position(|part| part == option).expect("there");
        line.drain(at..at + 2);
    }
    line.extend(["--probe-listen".to_owned(), probes.to_string()]);
    line.extend(["--metrics-listen".to_owned(), probes.to_string()]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_media-node"));
    command
        .args(&line[1..])
        .env("NODE_UID", world::UID)
        .env("POD_IPS", "127.0.0.1,127.0.0.2");
    let mut process = Process(command.spawn().expect("the binary runs"));
    eventually("the pod is ready", async || {
        matches!(probe(probes, "/readyz").await, Some((200, _)))
    })
    .await;
    let (status, metrics) = probe(probes, "/metrics").await.expect("answered");
    assert_eq!(status, 200);
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    drop(silent);

    let facts = plenum_proto::v1::NodeFacts {
        drain_timeout_ms: 3_600_000,
        ..facts(true)
    };
    let plane = ControlPlane::start(&pki, Some(facts)).await;
    let mut setting = Setting {
        addresses: ["127.0.0.1", "127.0.0.2"]
            .map(|ip| ip.parse().expect("an address"))
            .into(),
        ..Setting::default()
    };
    setting.control_planes.push(plane.endpoint());
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));

    let mut line = setting.line(directory.text());
    line.extend(["--probe-listen".to_owned(), probes.to_string()]);
    let mut process = Process::start(&line);
    plane.wait_accepting().await;
    let node = plane.hello().expect("hello").grpc_endpoint;
    let call = Call::connect(&pki, node.parse().expect("an address"), Role::ControlPlane).await;
    call.open("a", 1, None).await.expect("opened");
    process.terminate();
    eventually("it drains", async || plane.accepting() == Some(false)).await;
    for path in ["/readyz", "/livez"] {
        let (status, body) = probe(probes, path).await.expect("answered");
        assert_eq!((status, body.as_str()), (200, "ok\n"), "{path}");
    }
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
}

/// Of an authority that the node has not heard of when it starts: whoever is of the new one gets through only once the files are read
/// again, as caller and as called.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_are_replaced_on_disk_are_used_without_a_restart() {
    let (former, next) = (Pki::new(), Pki::new());
    let directory = Directory::new("rotation");
    former.write(Role::Node, &directory.0);
    let known = ControlPlane::start(&former, Some(facts(true))).await;
    let stranger = ControlPlane::start(&next, Some(facts(true))).await;
    let setting = Setting {
        control_planes: vec![known.endpoint(), stranger.endpoint()],
        ..Setting::default()
    };
    let mut process = Process::start(&setting.line(directory.text()));
    known.wait_accepting().await;
    let node = known.hello().expect("hello").grpc_endpoint;
    let node = node.parse().expect("an address");
    let refused = Call::try_connect(&next, node, Some(Role::ControlPlane)).await;
    assert!(
        refused.is_err(),
        "nobody of the new authority is let in yet"
    );
    assert!(!stranger.attached());

    next.write(Role::Node, &directory.0);
    stranger.wait_accepting().await;
    let call = Call::connect(&next, node, Role::ControlPlane).await;
    call.open("a", 1, None).await.expect("opened");
    assert!(known.attached(), "what was connected stays");
    assert_eq!(known.streams(), 1, "and did not have to come again");
    process.terminate();
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

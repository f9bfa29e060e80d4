// SPDX-License-Identifier: EUPL-1.2
//! Times of a real node process over loopback: from its start to taking rooms, from a person's session to the first media.
//! `cargo bench -p media-node --bench start`.

#[path = "../tests/world/mod.rs"]
mod world;

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use media_core::io::Protocol;
use plenum_load::headless::Source;
use world::{Call, ControlPlane, Pki, Role, Setting, act_until, facts, session_start};

const STARTS: usize = 10;
const JOINS: usize = 20;
/// Pause between joins.
const APART: Duration = Duration::from_secs(1);
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let last = times.len() - 1;
    println!(
        "{what}: median {:.1} ms, 90 % {:.1} ms, worst {:.1} ms ({} runs)",
        times[last / 2].as_secs_f64() * 1e3,
        times[last * 9 / 10].as_secs_f64() * 1e3,
        times[last].as_secs_f64() * 1e3,
        times.len()
    );
}

/// A node process that takes rooms, and how long that took.
async fn start(
    pki: &Pki,
    plane: &ControlPlane,
    directory: &std::path::Path,
) -> (Process, Duration) {
    let setting = Setting {
        control_planes: vec![plane.endpoint()],
        ..Setting::default()
    };
    let line = setting.line(directory.to_str().expect("UTF-8"));
    pki.write(Role::Node, directory);
    let began = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_media-node"))
        .args(&line[1..])
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let process = Process(child);
    plane.wait_accepting().await;
    (process, began.elapsed())
}

/// People come to a room where one publishes already, far enough apart that each finds the publisher free to be asked for a key frame;
/// times to the first packet of any track and to the first packets of both.
async fn first_media(call: &Call, protocol: Protocol) -> (Vec<Duration>, Vec<Duration>) {
    let room = format!("{protocol:?}");
    call.open(&room, 1, None).await.expect("opened");
    let mut people = vec![
        call.join(session_start(&room, 1, "speaker"), LOCALHOST, protocol)
            .await,
    ];
    people[0].publish(Source::Microphone);
    people[0].publish(Source::Camera);
    act_until("the speaker is connected", &mut people, |people| {
        people[0]
            .driver
            .client()
            .publisher()
            .is_some_and(|leg| leg.is_connected())
    })
    .await;
    let (mut any, mut both) = (Vec::new(), Vec::new());
    for number in 0..JOINS {
        let apart = Instant::now() + APART;
        act_until("a pause", &mut people, |_| Instant::now() >= apart).await;
        let began = Instant::now();
        people.push(
            call.join(
                session_start(&room, 1, &format!("p{number}")),
                LOCALHOST,
                protocol,
            )
            .await,
        );
        act_until("the first media", &mut people, |people| {
            people[1].received(1) >= 1
        })
        .await;
        any.push(began.elapsed());
        act_until("media of both tracks", &mut people, |people| {
            people[1].received(2) >= 1
        })
        .await;
        both.push(began.elapsed());
        people[1].cut();
        people.truncate(1);
    }
    (any, both)
}

#[tokio::main]
async fn main() {
    let pki = Pki::new();
    let directory = std::env::temp_dir().join(format!("media-node-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("writable");
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let plane = ControlPlane::start(&pki, Some(facts(true))).await;
        let (_process, took) = start(&pki, &plane, &directory).await;
        starts.push(took);
    }
    print("start of the process to taking rooms", starts);
    let plane = ControlPlane::start(&pki, Some(facts(true))).await;
    let (_process, _) = start(&pki, &plane, &directory).await;
    let node = plane
        .hello()
        .expect("hello")
        .grpc_endpoint
        .parse()
        .expect("an address");
    let call = Call::connect(&pki, node, Role::ControlPlane).await;
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let (any, both) = first_media(&call, protocol).await;
        print(&format!("session to first media, {protocol:?}"), any);
        print(&format!("session to audio and video, {protocol:?}"), both);
    }
    let _ = std::fs::remove_dir_all(&directory);
}

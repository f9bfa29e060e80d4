// SPDX-License-Identifier: EUPL-1.2
//! A real node, a real control-plane service over mTLS, people on real sockets: calls in every arrangement of ports.

mod world;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use media_core::io::Protocol;
use plenum_load::headless::Source;
use world::{
    Session, Setting, World, act_until, eventually, loopbacks, scrape, scrape_text, session_start,
};

/// Two people per shard and room; everybody hears and sees the other.
async fn meet(ports: &str, shards: u8, ip: IpAddr, protocol: Protocol) {
    let what = format!("{ports} with {shards} shards over {protocol:?} on {ip}");
    let world = World::start(Setting {
        ports,
        shards,
        addresses: vec![ip],
        ..Setting::default()
    })
    .await;
    let call = world.call().await;
    let mut people: Vec<Session> = Vec::new();
    for room in 0..shards {
        let room = format!("room-{room}");
        let opened = call.open(&room, 1, None).await.expect("opened");
        let facts = opened.facts.expect("facts");
        assert!(facts.room_sid.starts_with("RM_"), "{facts:?}");
        for identity in ["alice", "bob"] {
            let mut person = call
                .join(session_start(&room, 1, identity), ip, protocol)
                .await;
            person.publish(Source::Microphone);
            person.publish(Source::Camera);
            people.push(person);
        }
    }
    act_until(&what, &mut people, |people| {
        people.iter_mut().all(|person| person.received(2) >= 30)
    })
    .await;
    eventually("loads tell the people", async || {
        world.plane.reports().into_iter().any(|report| {
            matches!(report, plenum_proto::v1::node_report::Item::Load(load)
                if load.participants == 2 * u32::from(shards) && load.rooms == u32::from(shards) && load.egress_bps > 0)
        })
    })
    .await;
    run_lengths(&world, &what).await;
    world.node.stop().await;
}

/// Prints how many packets leave together; each frame here is four packets.
async fn run_lengths(world: &World, what: &str) {
    let metrics = world.node.metrics_address().expect("metrics");
    let series = async |name: &str| {
        scrape(
            metrics,
            &format!("plenum_media_shard_{name}_total{{shard=\"0\"}}"),
        )
        .await
        .expect("the series exists")
    };
    let media = series("forwarded_packets").await / series("media_runs").await;
    let all = series("sent_datagrams").await / series("sends").await;
    let wakeups = series("wakeups").await / series("received_datagrams").await;
    eprintln!(
        "{what}: {media:.2} packets per run of media, {all:.2} datagrams per send, {wakeups:.2} wake-ups per datagram"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_meet_over_udp_on_one_shard() {
    for ip in loopbacks() {
        for ports in ["SinglePort", "PortPerShard"] {
            meet(ports, 1, ip, Protocol::Udp).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_meet_over_udp_on_two_shards() {
    for ip in loopbacks() {
        for ports in ["SinglePort", "PortPerShard"] {
            meet(ports, 2, ip, Protocol::Udp).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_meet_over_tcp_on_one_shard() {
    for ip in loopbacks() {
        for ports in ["SinglePort", "PortPerShard"] {
            meet(ports, 1, ip, Protocol::Tcp).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_meet_over_tcp_on_two_shards() {
    for ip in loopbacks() {
        for ports in ["SinglePort", "PortPerShard"] {
            meet(ports, 2, ip, Protocol::Tcp).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_of_both_families_and_protocols_meet_in_one_room() {
    let addresses = loopbacks();
    let world = World::start(Setting {
        shards: 2,
        addresses: addresses.clone(),
        ..Setting::default()
    })
    .await;
    let call = world.call().await;
    call.open("a", 1, None).await.expect("opened");
    let mut people: Vec<Session> = Vec::new();
    for ip in addresses {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let identity = format!("{protocol:?} on {ip}");
            let mut person = call
                .join(session_start("a", 1, &identity), ip, protocol)
                .await;
            person.publish(Source::Microphone);
            people.push(person);
        }
    }
    let others = people.len() - 1;
    act_until("everybody hears everybody", &mut people, |people| {
        people
            .iter_mut()
            .all(|person| person.received(others) >= 20)
    })
    .await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_lists_every_metric_of_a_node() {
    let world = World::start(Setting::default()).await;
    let metrics = world.node.metrics_address().expect("metrics");
    let served: BTreeMap<String, String> = scrape_text(metrics)
        .await
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP "))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, help)| (name.to_owned(), help.trim_end_matches('.').to_owned()))
        .collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let text = std::fs::read_to_string(path).expect("docs/metrics.md");
    let documented: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `plenum_media_"))
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let name = cells[0].trim_end_matches('`');
            (format!("plenum_media_{name}"), cells[2].to_owned())
        })
        .collect();
    world.node.stop().await;
    assert_eq!(documented, served);
}

// SPDX-License-Identifier: EUPL-1.2
//! A node behind an address that is not its own, as a pod is behind its machine's port: clients are told the address of the facts,
//! and media find their way there and back.

mod world;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use media_core::io::Protocol;
use plenum_load::headless::Source;
use plenum_proto::v1::NodeFacts;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tonic::Code;
use world::{
    Call, ControlPlane, Pki, Role, Setting, act_until, address, eventually, facts, session_start,
    start_node,
};

/// Where clients come from and go to: an address that the node has not bound.
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

/// A machine's port that leads to a pod, with the client's address rewritten on the way: the hardest case, as in a hairpin.
struct Nat {
    outside: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Nat {
    async fn start(pod: SocketAddr) -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind((OUTSIDE, 0)).await.expect("bound");
            let at = tcp.local_addr().expect("an address");
            if let Ok(udp) = UdpSocket::bind(at).await {
                break (Arc::new(udp), tcp);
            }
        };
        let outside = udp.local_addr().expect("an address");
        let mut tasks = JoinSet::new();
        tasks.spawn(translate(udp, pod));
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((mut client, _)) = tcp.accept().await {
                streams.spawn(async move {
                    let mut inside = TcpStream::connect(pod).await.expect("the node listens");
                    let _ = copy_bidirectional(&mut client, &mut inside).await;
                });
            }
        });
        Self {
            outside,
            _tasks: tasks,
        }
    }
}

/// One flow per client. What comes from any other address than the pod's own is no answer of the flow and is dropped, as by conntrack.
async fn translate(outside: Arc<UdpSocket>, pod: SocketAddr) {
    let mut flows: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut back = JoinSet::new();
    let mut bytes = [0; 2_048];
    while let Ok((length, client)) = outside.recv_from(&mut bytes).await {
        let flow = match flows.get(&client) {
            Some(flow) => Arc::clone(flow),
            None => {
                let flow = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
                    .await
                    .expect("bound");
                flow.connect(pod).await.expect("connected");
                let flow = Arc::new(flow);
                flows.insert(client, Arc::clone(&flow));
                let (inside, outside) = (Arc::clone(&flow), Arc::clone(&outside));
                back.spawn(async move {
                    let mut bytes = [0; 2_048];
                    while let Ok(length) = inside.recv(&mut bytes).await {
                        let _ = outside.send_to(&bytes[..length], client).await;
                    }
                });
                flow
            }
        };
        let _ = flow.send(&bytes[..length]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_meet_through_a_port_of_the_machine_that_leads_to_the_pod() {
    let pki = Pki::new();
    let plane = ControlPlane::start(&pki, None).await;
    let node = start_node(
        &pki,
        &Setting {
            shards: 2,
            control_planes: vec![plane.endpoint()],
            ..Setting::default()
        },
    )
    .await;
    let pod = node.media_addresses()[0];
    let nat = Nat::start(pod).await;
    eventually("the node attaches", async || plane.attached()).await;
    let named = NodeFacts {
        addresses: vec![address(nat.outside)],
        ..facts(true)
    };
    plane
        .order(plenum_proto::v1::node_order::Item::Facts(named))
        .await;
    plane.wait_accepting().await;
    let call = Call::connect(&pki, node.grpc_address(), Role::ControlPlane).await;
    call.open("a", 1, None).await.expect("opened");
    let mut people = Vec::new();
    for (identity, protocol) in [
        ("udp", Protocol::Udp),
        ("udp-too", Protocol::Udp),
        ("tcp", Protocol::Tcp),
    ] {
        let mut person = call
            .join(session_start("a", 1, identity), OUTSIDE, protocol)
            .await;
        person.publish(Source::Microphone);
        person.publish(Source::Camera);
        people.push(person);
    }
    act_until(
        "everybody hears and sees everybody",
        &mut people,
        |people| people.iter_mut().all(|person| person.received(4) >= 30),
    )
    .await;
    for person in &mut people {
        let leg = person.driver.client().publisher().expect("a leg");
        assert_eq!(
            leg.path().remote,
            nat.outside,
            "the offered address, no other"
        );
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_facts_name_no_address_takes_no_room_rather_than_guess_one() {
    let pki = Pki::new();
    let nowhere = NodeFacts {
        addresses: Vec::new(),
        ..facts(true)
    };
    let plane = ControlPlane::start(&pki, Some(nowhere)).await;
    let node = start_node(
        &pki,
        &Setting {
            control_planes: vec![plane.endpoint()],
            ..Setting::default()
        },
    )
    .await;
    plane.wait_accepting().await;
    let call = Call::connect(&pki, node.grpc_address(), Role::ControlPlane).await;
    let refused = call.open("a", 1, None).await.expect_err("no address");
    let reason = refused.metadata().get("plenum-reason");
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(reason.expect("a reason"), "NoAddress");
    node.stop().await;
}

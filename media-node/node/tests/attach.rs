// SPDX-License-Identifier: EUPL-1.2
//! The node's streams to the control plane: whom it attaches to, what it says, what it obeys.

mod world;

use media_core::io::Protocol;
use plenum_load::headless::Source;
use plenum_proto::v1::node_order::Item as Order;
use plenum_proto::v1::node_report::Item as Report;
use plenum_proto::v1::{
    AcceptingOrder, DropRoom, EventAck, MoveOrder, OpenRequest, ReplicaList, RoomFacts, RoomPolicy,
};
use tonic::Code;
use world::{
    Call, ControlPlane, Pki, Role, Setting, UID, World, act_until, address, eventually, facts, key,
    policy, session_start, start_node,
};

fn reason(status: &tonic::Status) -> Option<&str> {
    status.metadata().get("plenum-reason")?.to_str().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_room_opens_before_facts_nor_while_not_accepting() {
    let pki = Pki::new();
    let plane = ControlPlane::start(&pki, None).await;
    let node = start_node(
        &pki,
        &Setting {
            control_planes: vec![plane.endpoint()],
            ..Setting::default()
        },
    )
    .await;
    eventually("a load without facts", async || {
        plane.accepting() == Some(false)
    })
    .await;
    let hello = plane.hello().expect("hello");
    assert_eq!((hello.uid.as_str(), hello.node_id.as_str()), (UID, ""));
    assert_eq!(hello.grpc_endpoint, node.grpc_address().to_string());
    let call = Call::connect(&pki, node.grpc_address(), Role::ControlPlane).await;
    let refused = call.open("a", 1, None).await.expect_err("no facts");
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::Unavailable, Some("NoFacts"))
    );

    plane.order(Order::Facts(facts(true))).await;
    plane.wait_accepting().await;
    eventually("a hello with facts", async || {
        plane.hello().is_some_and(|hello| hello.node_id == "n1")
    })
    .await;
    call.open("a", 1, None).await.expect("opened");

    let order = AcceptingOrder {
        node_uid: UID.into(),
        epoch: 1,
        accepting: false,
        reason: "Drain".into(),
    };
    plane.order(Order::Accepting(order)).await;
    eventually("not accepting", async || plane.accepting() == Some(false)).await;
    let refused = call.open("b", 1, None).await.expect_err("not accepting");
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::Unavailable, Some("NotAccepting"))
    );
    call.open("a", 1, None)
        .await
        .expect("a room that lives is confirmed all the same");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_hears_and_one_is_primary() {
    let pki = Pki::new();
    let first = ControlPlane::start(&pki, Some(facts(true))).await;
    let second = ControlPlane::start(&pki, Some(facts(true))).await;
    let node = start_node(
        &pki,
        &Setting {
            control_planes: vec![first.endpoint()],
            ..Setting::default()
        },
    )
    .await;
    first.wait_accepting().await;
    assert!(
        first.hello().expect("hello").primary,
        "the only one is primary"
    );
    // The second is learnt from the first.
    first
        .order(Order::Replicas(ReplicaList {
            endpoints: vec![first.endpoint(), second.endpoint()],
            ..ReplicaList::default()
        }))
        .await;
    second.wait_accepting().await;
    let primary =
        |plane: &ControlPlane| plane.attached() && plane.hello().is_some_and(|hello| hello.primary);
    eventually("exactly one is primary", async || {
        u8::from(primary(&first)) + u8::from(primary(&second)) == 1
    })
    .await;

    let (gone, left) = if primary(&first) {
        (first, second)
    } else {
        (second, first)
    };
    let streams = left.streams();
    drop(gone);
    eventually("the other one takes over", async || primary(&left)).await;
    assert_eq!(left.streams(), streams, "on the same stream");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_restarts_hears_everything_again() {
    let mut world = World::start(Setting::default()).await;
    let call = world.call().await;
    let facts_before = RoomFacts {
        room_sid: "RM_kept".into(),
        opened: true,
        ..Default::default()
    };
    let opened = call
        .open("a", 7, Some(facts_before))
        .await
        .expect("opened")
        .facts
        .expect("facts");
    assert_eq!(opened.room_sid, "RM_kept", "fail-over keeps the sid");
    world.plane = world.plane.restart(&world.pki, Some(facts(true))).await;
    eventually("the room, and the end of the rooms, on the new stream", async || {
        let reports = world.plane.reports();
        let room = reports.iter().position(|report| {
            matches!(report, Report::Room(room) if room.key == Some(key("a")) && room.epoch == 7
                && room.facts.as_ref().is_some_and(|facts| facts.room_sid == "RM_kept" && facts.opened))
        });
        let end = reports.iter().position(|report| matches!(report, Report::EndOfRooms(true)));
        matches!((room, end), (Some(room), Some(end)) if room < end)
    })
    .await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_with_a_higher_epoch_elsewhere_is_given_up() {
    let world = World::start(Setting::default()).await;
    let call = world.call().await;
    call.open("a", 3, None).await.expect("opened");
    let ip = "127.0.0.1".parse().expect("address");
    let mut people = vec![
        call.join(session_start("a", 3, "alice"), ip, Protocol::Udp)
            .await,
    ];
    people[0].publish(Source::Microphone);
    act_until("alice is in", &mut people, |people| {
        people[0].driver.client().sid().is_some()
    })
    .await;

    let stale = call.open("a", 2, None).await.expect_err("an older lease");
    assert_eq!(
        (stale.code(), reason(&stale)),
        (Code::FailedPrecondition, Some("StaleEpoch"))
    );
    let mut stranger = call
        .join(session_start("a", 2, "bob"), ip, Protocol::Udp)
        .await;
    eventually("a session under another lease is refused", async || {
        matches!(stranger.ending(), Some(plenum_proto::v1::session_down::Item::Refused(refused))
            if refused.reason == "WrongEpoch" && refused.retry)
    })
    .await;

    world
        .plane
        .order(Order::Drop(DropRoom {
            key: Some(key("a")),
            epoch_below: 3,
        }))
        .await;
    world
        .plane
        .order(Order::Drop(DropRoom {
            key: Some(key("a")),
            epoch_below: 4,
        }))
        .await;
    act_until("alice is told to come again", &mut people, |people| {
        people[0].left.as_ref().is_some_and(|leave| {
            leave.action == livekit_protocol::leave_request::Action::Reconnect as i32
        })
    })
    .await;
    eventually("the end is reported", async || {
        world.plane.reports().iter().any(|report| {
            matches!(report, Report::Closed(closed) if closed.key == Some(key("a")) && closed.epoch == 3)
        })
    })
    .await;
    // Under the next lease it may come back here.
    call.open("a", 4, None).await.expect("opened again");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ad_hoc_room_reports_the_rules_it_was_opened_with() {
    let world = World::start(Setting::default()).await;
    let mut call = world.call().await;
    for (room, declared) in [("adhoc", false), ("declared", true)] {
        let rules = RoomPolicy {
            declared,
            max_participants: 7,
            ..policy()
        };
        let request = OpenRequest {
            key: Some(key(room)),
            epoch: 1,
            policy: Some(rules.clone()),
            facts: None,
        };
        call.client.open(request).await.expect("opened");
        let wanted = (!declared).then_some(rules);
        eventually("it is reported", async || {
            world.plane.reports().iter().any(|report| {
                matches!(report, Report::Room(state) if state.key == Some(key(room)) && state.policy == wanted)
            })
        })
        .await;
    }
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_repeated_until_they_are_acknowledged() {
    let mut world = World::start(Setting::default()).await;
    let call = world.call().await;
    call.open("a", 1, None).await.expect("opened");
    let ip = "127.0.0.1".parse().expect("address");
    let mut people = vec![
        call.join(session_start("a", 1, "alice"), ip, Protocol::Udp)
            .await,
    ];
    people[0].publish(Source::Microphone);
    let events = |plane: &ControlPlane| -> Vec<(u64, String)> {
        plane
            .reports()
            .into_iter()
            .filter_map(|report| match report {
                Report::Event(event) => Some((event.seq, event.name)),
                _ => None,
            })
            .collect()
    };
    act_until("two events", &mut people, |_| {
        events(&world.plane).len() >= 2
    })
    .await;
    let before = events(&world.plane);
    assert_eq!(before[0], (1, "room_started".to_owned()));
    let (sid, again) = world
        .plane
        .reports()
        .into_iter()
        .find_map(|report| match report {
            Report::Event(event) => Some((event.room_sid, event.again)),
            _ => None,
        })
        .expect("an event");
    assert!(sid.starts_with("RM_") && again, "{sid}");
    world
        .plane
        .order(Order::EventAck(EventAck {
            key: Some(key("a")),
            epoch: 1,
            seq: 1,
            room_sid: sid,
        }))
        .await;
    // Orders are obeyed in their turn: what follows the facts of a second order has seen the first.
    world
        .plane
        .order(Order::Facts(plenum_proto::v1::NodeFacts {
            revision: "2".into(),
            ..facts(true)
        }))
        .await;
    let hellos = async || {
        world
            .plane
            .reports()
            .iter()
            .filter(|report| matches!(report, Report::Hello(_)))
            .count()
    };
    let said = hellos().await;
    eventually("the second order is obeyed", async || {
        hellos().await > said.min(1)
    })
    .await;
    let first_again = || {
        let reports = world.plane.reports();
        let again = reports.iter().filter_map(|report| match report {
            Report::Event(event) if event.again => Some(event.seq),
            _ => None,
        });
        again.collect::<Vec<_>>()
    };
    assert_eq!(first_again(), [1]);
    world.plane.order(Order::EventsAgain(true)).await;
    eventually("a replica that asks is told the rest again", async || {
        first_again() == [1, 2]
    })
    .await;
    world.plane = world.plane.restart(&world.pki, Some(facts(true))).await;
    eventually("only what was not acknowledged comes again", async || {
        let again = events(&world.plane);
        !again.is_empty() && again.iter().all(|(seq, _)| *seq >= 2)
    })
    .await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_transports_follow_the_addresses_of_the_facts_without_a_restart() {
    let [first, second] = ["127.0.0.1", "127.0.0.2"].map(|ip| ip.parse().expect("address"));
    let world = World::start(Setting {
        addresses: vec![first, second],
        ..Setting::default()
    })
    .await;
    let call = world.call().await;
    call.open("a", 1, None).await.expect("opened");
    let port = world.node.media_addresses()[0].port();
    let mut people = Vec::new();
    for (epoch, ip) in [(2, second), (3, first)] {
        let named = plenum_proto::v1::NodeFacts {
            epoch,
            addresses: vec![address(std::net::SocketAddr::new(ip, port))],
            ..facts(true)
        };
        world.plane.order(Order::Facts(named)).await;
        eventually("the facts are taken", async || {
            world
                .plane
                .hello()
                .is_some_and(|hello| hello.epoch == epoch)
        })
        .await;
        let mut person = call
            .join(session_start("a", 1, &ip.to_string()), first, Protocol::Udp)
            .await;
        person.publish(Source::Microphone);
        people.push(person);
        act_until("connected where the facts say", &mut people, |people| {
            let publisher = people
                .last_mut()
                .and_then(|person| person.driver.client().publisher());
            publisher.is_some_and(|leg| leg.is_connected() && leg.path().remote.ip() == ip)
        })
        .await;
    }
    act_until(
        "who came before goes on where they were",
        &mut people,
        |people| people.iter_mut().all(|person| person.received(1) >= 10),
    )
    .await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_sends_the_people_of_every_room_elsewhere() {
    let world = World::start(Setting::default()).await;
    let call = world.call().await;
    let ip = "127.0.0.1".parse().expect("address");
    let mut people = Vec::new();
    for room in ["a", "b", "c"] {
        call.open(room, 1, None).await.expect("opened");
        people.push(
            call.join(session_start(room, 1, "alice"), ip, Protocol::Udp)
                .await,
        );
    }
    act_until("all are in", &mut people, |people| {
        people
            .iter_mut()
            .all(|person| person.driver.client().sid().is_some())
    })
    .await;
    let order = |uid: &str| {
        Order::Move(MoveOrder {
            node_uid: uid.into(),
            epoch: 1,
            deadline_unix_ms: 0,
            ..Default::default()
        })
    };
    world.plane.order(order("somebody-else")).await;
    world.plane.order(order(UID)).await;
    act_until("all are told to come again", &mut people, |people| {
        people.iter().all(|person| {
            person.left.as_ref().is_some_and(|leave| {
                leave.action == livekit_protocol::leave_request::Action::Reconnect as i32
            })
        })
    })
    .await;
    eventually("all rooms are reported as closed", async || {
        let closed = world
            .plane
            .reports()
            .into_iter()
            .filter(|report| matches!(report, Report::Closed(_)));
        closed.count() == 3
    })
    .await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_reports_where_a_stun_server_sees_it() {
    let server = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("a socket");
    let address = server.local_addr().expect("an address");
    // XOR-MAPPED-ADDRESS of 203.0.113.7, as RFC 8489 §14.2 has it.
    let answering = tokio::spawn(async move {
        let mut request = [0; 1500];
        while let Ok((_, from)) = server.recv_from(&mut request).await {
            let mut answer = vec![0x01, 0x01, 0x00, 0x0c];
            answer.extend_from_slice(&request[4..20]);
            answer.extend_from_slice(&[0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0x00, 0x00]);
            answer.extend([203 ^ 0x21, 0x12, 113 ^ 0xa4, 7 ^ 0x42]);
            let _ = server.send_to(&answer, from).await;
        }
    });
    let pki = Pki::new();
    let plane = ControlPlane::start(&pki, None).await;
    let _node = start_node(
        &pki,
        &Setting {
            control_planes: vec![plane.endpoint()],
            stun_servers: vec![address.to_string()],
            ..Setting::default()
        },
    )
    .await;
    eventually("a report of it, before there are facts", async || {
        plane
            .reports()
            .iter()
            .any(|report| matches!(report, Report::Load(load) if load.seen_at == ["203.0.113.7"]))
    })
    .await;
    answering.abort();
}

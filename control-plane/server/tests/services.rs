// SPDX-License-Identifier: EUPL-1.2
//! The real gRPC server with mTLS, spoken to as the operator and media nodes do: who may say what, what a publication does, where rooms
//! go, and what follows from the loss of a node.

#[path = "services/chaos.rs"]
mod chaos;
#[path = "services/cluster.rs"]
mod cluster;
#[path = "services/drain.rs"]
mod drain;
#[path = "services/health.rs"]
mod health;
#[path = "services/loss.rs"]
mod loss;
#[path = "services/network.rs"]
mod network;
#[path = "services/outage.rs"]
mod outage;
mod redis;
#[path = "services/redis_outage.rs"]
mod redis_outage;
#[path = "services/replicas.rs"]
mod replicas;
mod world;

use std::collections::BTreeMap;

use control_core::ids::{Epoch, Uid};
use control_plane::hosts::SessionSays;
use control_plane::plane::{PlaceError, Plane};
use plenum_proto::v1::conference_state::Phase;
use plenum_proto::v1::directory_client::DirectoryClient;
use plenum_proto::v1::node_control_client::NodeControlClient;
use plenum_proto::v1::node_order::Item as Order;
use plenum_proto::v1::node_report::Item as Report;
use plenum_proto::v1::observation::Item as Seen;
use plenum_proto::v1::publication::Item;
use plenum_proto::v1::{
    Frame, NodeHello, NodeReport, Publication, RecordKind, Retraction, RoomEvent, RoomKey,
    SessionStart, admin_request, session_down,
};
use tonic::Code;

use world::node::{Node, Room};
use world::operator::{self, Publisher};
use world::pki::{self, Ca};
use world::{LIVENESS, Replica, key, request};

/// A replica that knows the school, its council and these nodes.
async fn published(nodes: &[&str]) -> (Replica, Publisher) {
    let replica = Replica::start().await;
    let mut publisher = Publisher::connect(&replica, 1).await;
    let mut items = vec![
        Item::Tenant(operator::tenant()),
        Item::Conference(operator::conference("council")),
    ];
    items.extend(nodes.iter().map(|id| Item::Node(operator::node(id))));
    publisher.snapshot(items).await;
    (replica, publisher)
}

/// Places a room as a client does that is told to come again while nodes are still expected to report, or have not named their rooms
/// to this replica yet.
async fn place(plane: &Plane, room: &str) -> control_plane::plane::Placed {
    let placed = async {
        loop {
            match plane.place(request(room)).await {
                Err(PlaceError::Settling(_) | PlaceError::NodeSilent(_)) => {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await
                }
                placed => return placed.expect("placed"),
            }
        }
    };
    tokio::time::timeout(LIVENESS, placed)
        .await
        .expect("nodes report or are not waited for any more")
}

/// Attaches a node and waits until rooms may be placed on it.
async fn ready(replica: &Replica, id: &str) -> Node {
    let node = Node::start(replica, id).await;
    accepting(&replica.plane, id).await;
    node
}

async fn accepting(plane: &Plane, id: &str) {
    let uid = Uid::parse(&format!("u-{id}")).expect("uid");
    world::until(plane, "the node accepts", |plane| {
        plane.accepts(&uid).then_some(())
    })
    .await;
}

#[tokio::test]
async fn peers_are_told_apart_by_their_certificates() {
    let (replica, _publisher) = published(&["n1"]).await;
    let publish = async |tls| {
        let channel = pki::dial(&replica.address, &tls).await?;
        let call = DirectoryClient::new(channel)
            .publish(tokio_stream::once(Publication::default()))
            .await;
        Ok::<_, tonic::transport::Error>(call.err().map(|status| status.code()))
    };
    let refused = Some(Code::PermissionDenied);
    assert_eq!(
        publish(replica.ca.node("u-n1")).await.expect("dialled"),
        refused
    );
    assert_eq!(
        publish(replica.ca.control_plane()).await.expect("dialled"),
        refused
    );
    assert_eq!(
        publish(replica.ca.issue("x", "operator/x"))
            .await
            .expect("dialled"),
        refused
    );
    assert_eq!(publish(replica.ca.operator()).await.expect("dialled"), None);
    let stranger = Ca::new();
    let outside = publish(stranger.operator()).await;
    assert!(outside.is_err(), "a certificate of another CA: {outside:?}");

    let attach = async |tls, uid: &str| {
        let channel = pki::dial(&replica.address, &tls).await.expect("dialled");
        let hello = NodeHello {
            uid: uid.into(),
            grpc_endpoint: "127.0.0.1:9".into(),
            ..Default::default()
        };
        let report = NodeReport {
            item: Some(Report::Hello(hello)),
        };
        NodeControlClient::new(channel)
            .attach(tokio_stream::once(report))
            .await
            .err()
            .map(|status| status.code())
    };
    assert_eq!(attach(replica.ca.operator(), "u-n1").await, refused);
    assert_eq!(attach(replica.ca.node("u-other"), "u-n1").await, refused);
    assert_eq!(attach(replica.ca.node("u-n1"), "u-n1").await, None);
    replica.stop().await;
}

#[tokio::test]
async fn a_snapshot_is_shown_whole_and_retracts_what_it_omits() {
    let replica = Replica::start().await;
    let mut publisher = Publisher::connect(&replica, 1).await;
    publisher.publish(Item::Tenant(operator::tenant())).await;
    assert!(!replica.plane.is_loaded());
    assert!(replica.plane.view().tenant_of_key("key").is_none());
    publisher
        .snapshot(vec![
            Item::Conference(operator::conference("council")),
            Item::Conference(operator::conference("class")),
        ])
        .await;
    assert!(replica.plane.is_loaded());
    let view = replica.plane.view();
    assert!(
        view.tenant_of_key("key").is_some() && view.conference_of_room(&key("class")).is_some()
    );

    publisher
        .publish(operator::retract(RecordKind::Conference, "c-class"))
        .await;
    assert!(
        replica
            .plane
            .view()
            .conference_of_room(&key("class"))
            .is_none()
    );

    // A publisher that cannot make a record now keeps what was published of it; one that is gone goes.
    let mut keeps = Publisher::connect(&replica, 1).await;
    let keep = |kind: RecordKind, uid: &str| {
        Item::Keep(Retraction {
            kind: kind.into(),
            uid: uid.to_owned(),
        })
    };
    let (tenant, never) = (operator::tenant().uid, "never-published");
    keeps
        .snapshot(vec![
            keep(RecordKind::Tenant, &tenant),
            keep(RecordKind::Conference, "c-council"),
            keep(RecordKind::Conference, never),
        ])
        .await;
    let view = replica.plane.view();
    assert!(view.conference_of_room(&key("council")).is_some());
    assert_eq!(view.tenants().count(), 1);
    drop(keeps);

    // A broken record among good ones: its answer names the field, the last good one stays.
    let mut again = Publisher::connect(&replica, 1).await;
    let broken = plenum_proto::v1::ConferenceRecord {
        room_id: "short".into(),
        ..operator::conference("council")
    };
    again.publish(Item::Tenant(operator::tenant())).await;
    let ack = again
        .send(Item::Conference(broken))
        .await
        .expect("the stream lives");
    assert_eq!(
        (ack.refused_reason.as_str(), ack.uid.as_str()),
        ("InvalidId", "c-council")
    );
    assert!(ack.message.starts_with("room_id"), "{}", ack.message);
    again.snapshot(vec![]).await;
    assert!(
        replica
            .plane
            .view()
            .conference_of_room(&key("council"))
            .is_some()
    );
    replica.stop().await;
}

#[tokio::test]
async fn an_older_publisher_is_ended_and_a_later_stream_takes_over() {
    let (replica, mut first) = published(&[]).await;
    let mut newer = Publisher::connect(&replica, 2).await;
    newer.snapshot(vec![Item::Tenant(operator::tenant())]).await;
    let ended = first
        .send(Item::Conference(operator::conference("late")))
        .await
        .expect_err("ended");
    assert_eq!(ended.code(), Code::Aborted);
    let mut older = Publisher::connect(&replica, 1).await;
    assert_eq!(
        older
            .send(Item::EndOfSnapshot(true))
            .await
            .expect_err("fenced")
            .code(),
        Code::Aborted
    );
    assert!(
        replica
            .plane
            .view()
            .conference_of_room(&key("late"))
            .is_none()
    );
    let mut nobody = Publisher::connect(&replica, 0).await;
    assert_eq!(
        nobody
            .send(Item::EndOfSnapshot(true))
            .await
            .expect_err("no epoch")
            .code(),
        Code::InvalidArgument
    );
    replica.stop().await;
}

#[tokio::test]
async fn a_room_is_placed_once_and_found_afterwards() {
    let replica = Replica::start().await;
    let refusal = replica
        .plane
        .place(request("council"))
        .await
        .expect_err("nothing is known");
    assert!(matches!(refusal, PlaceError::NotLoaded), "{refusal}");
    assert_eq!((refusal.status(), refusal.retry_after_s()), (503, Some(1)));

    let mut publisher = Publisher::connect(&replica, 1).await;
    publisher
        .snapshot(vec![
            Item::Tenant(operator::tenant()),
            Item::Conference(operator::conference("council")),
            Item::Node(operator::node("n1")),
        ])
        .await;
    let node = ready(&replica, "n1").await;
    let facts = node
        .until("facts come", |_, orders| orders.iter().find_map(facts_of))
        .await;
    assert_eq!((facts.node_id.as_str(), facts.epoch), ("n1", 1));
    let replicas = node
        .until("replicas come", |_, orders| {
            orders.iter().find_map(replicas_of)
        })
        .await;
    assert_eq!(replicas, std::slice::from_ref(&replica.address));

    // Many at once: one opens it, the others find it.
    let mut places = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let plane = replica.plane.clone();
        places.spawn(async move { plane.place(request("council")).await });
    }
    while let Some(placed) = places.join_next().await {
        let placed = placed.expect("no panic").expect("placed");
        assert_eq!((placed.node_id.as_str(), placed.epoch), ("n1", Epoch(1)));
    }
    assert_eq!(node.opens(), 1);
    assert_eq!(node.room("council").expect("runs").policy.revision, "p1");
    let live = replica.plane.room(&key("council")).expect("reported");
    assert!(live.running);
    assert_eq!(live.facts.room_sid, "RM_council");
    assert_eq!(replica.plane.rooms(&key("council").tenant).len(), 1);
    assert_eq!(
        replica
            .plane
            .host_of(&key("council"))
            .await
            .expect("found")
            .node_id
            .as_str(),
        "n1"
    );

    // The tenant's ceiling is 20: ten places are held, eleven more are one too many.
    let more = control_plane::plane::PlaceRequest {
        participants: 11,
        ..request("council")
    };
    let refusal = replica.plane.place(more).await.expect_err("too many");
    assert_eq!(
        (refusal.reason(), refusal.status()),
        ("TenantParticipants", 503)
    );
    replica.stop().await;
}

fn facts_of(order: &Order) -> Option<plenum_proto::v1::NodeFacts> {
    match order {
        Order::Facts(facts) => Some(facts.clone()),
        _ => None,
    }
}

fn replicas_of(order: &Order) -> Option<Vec<String>> {
    match order {
        Order::Replicas(list) => Some(list.endpoints.clone()),
        _ => None,
    }
}

#[tokio::test]
async fn a_node_that_has_its_facts_from_another_replica_is_known_once_they_come_here() {
    let (replica, mut publisher) = published(&[]).await;
    let council = Room {
        epoch: 7,
        participants: 3,
        policy: operator::policy(),
        ..Room::default()
    };
    let rooms = BTreeMap::from([("council".to_owned(), council)]);
    // It names itself and its rooms; this replica cannot know yet that it may.
    let _node = Node::start_with(&replica, "n1", rooms).await;
    let dropped = "plenum_control_reports_dropped_total{reason=\"NoFacts\"} 1";
    replica
        .until("its room is not taken yet", |plane| {
            plane.metrics().encode().contains(dropped).then_some(())
        })
        .await;
    assert!(replica.plane.room(&key("council")).is_none());
    publisher.publish(Item::Node(operator::node("n1"))).await;
    let live = replica
        .until("its room is known", |plane| plane.room(&key("council")))
        .await;
    assert_eq!((live.node_id.as_str(), live.epoch), ("n1", Epoch(7)));
    replica.stop().await;
}

#[tokio::test]
async fn a_node_that_refuses_is_passed_over_and_nothing_stays_behind() {
    let (replica, _publisher) = published(&["n1", "n2"]).await;
    let (first, second) = (ready(&replica, "n1").await, ready(&replica, "n2").await);
    first.refuse_open(true);
    second.refuse_open(true);
    let refusal = replica
        .plane
        .place(request("council"))
        .await
        .expect_err("both refuse");
    assert_eq!(refusal.status(), 503);
    second.refuse_open(false);
    let placed = replica
        .plane
        .place(request("council"))
        .await
        .expect("the other one takes it");
    assert_eq!(placed.node_id.as_str(), "n2");
    assert!(first.room("council").is_none());
    replica.stop().await;
}

#[tokio::test]
async fn nobody_takes_a_room_where_no_node_may() {
    let (replica, mut publisher) = published(&["n1"]).await;
    let _node = ready(&replica, "n1").await;
    publisher.publish(operator::accepting("n1", false)).await;
    let refusal = replica
        .plane
        .place(request("council"))
        .await
        .expect_err("not accepting");
    assert_eq!((refusal.reason(), refusal.status()), ("NoCapacity", 503));
    publisher.publish(operator::accepting("n1", true)).await;
    accepting(&replica.plane, "n1").await;
    replica
        .plane
        .place(request("council"))
        .await
        .expect("accepting again");
    let unknown = control_plane::plane::PlaceRequest {
        tenant: control_core::ids::TenantName::parse("nobody").expect("name"),
        ..request("council")
    };
    assert!(matches!(
        replica.plane.place(unknown).await,
        Err(PlaceError::UnknownTenant(_))
    ));
    replica.stop().await;
}

#[tokio::test]
async fn frames_cross_the_session_unchanged() {
    let (replica, _publisher) = published(&["n1"]).await;
    let _node = ready(&replica, "n1").await;
    let placed = replica
        .plane
        .place(request("council"))
        .await
        .expect("placed");
    let (says, receiver) = tokio::sync::mpsc::channel(4);
    let mut down = placed
        .host
        .session(SessionStart::default(), receiver)
        .await
        .expect("attached");
    let frame = Frame {
        kind: plenum_proto::v1::frame::Kind::Binary.into(),
        data: vec![0, 255, 7],
    };
    says.send(SessionSays::Frame(frame.clone()))
        .await
        .expect("queued");
    let echoed = down.message().await.expect("lives").expect("a frame");
    assert_eq!(echoed.item, Some(session_down::Item::Frame(frame)));

    // A resume finds its node by site and id, and only nodes of the live view.
    assert!(replica.plane.host_by_node("local", "n1").is_some());
    for (site, id) in [("other", "n1"), ("local", "n2"), ("local", "127.0.0.1:9")] {
        assert!(
            replica.plane.host_by_node(site, id).is_none(),
            "{site} {id}"
        );
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_conference_that_is_suspended_or_retracted_ends_and_new_rules_are_told() {
    let (replica, mut publisher) = published(&["n1"]).await;
    publisher
        .publish(Item::Conference(operator::conference("class")))
        .await;
    let node = ready(&replica, "n1").await;
    for room in ["council", "class"] {
        replica.plane.place(request(room)).await.expect("placed");
    }
    let mut changed = operator::conference("class");
    changed.revision = "2".into();
    changed.policy = Some(plenum_proto::v1::RoomPolicy {
        max_participants: 5,
        revision: "p2".into(),
        ..operator::policy()
    });
    publisher.publish(Item::Conference(changed)).await;
    node.until("the class is told its rules", |rooms, _| {
        rooms
            .get("class")
            .filter(|room| room.policy.revision == "p2" && room.policy.max_participants == 5)
            .map(|_| ())
    })
    .await;
    assert!(
        node.admin()
            .iter()
            .all(|call| call.key.as_ref().is_some_and(|key| key.name == "class")),
        "the council is left alone"
    );

    publisher
        .publish(operator::retract(RecordKind::Conference, "c-class"))
        .await;
    node.until("the class ends", |rooms, _| {
        (!rooms.contains_key("class")).then_some(())
    })
    .await;
    assert!(node.room("council").is_some());
    let suspended = plenum_proto::v1::ConferenceRecord {
        suspended: true,
        revision: "2".into(),
        ..operator::conference("council")
    };
    publisher.publish(Item::Conference(suspended)).await;
    node.until("the council ends", |rooms, _| {
        rooms.is_empty().then_some(())
    })
    .await;
    let ends = node
        .admin()
        .iter()
        .filter(|call| matches!(call.call, Some(admin_request::Call::End(true))))
        .count();
    assert!(ends >= 2, "{ends}");
    replica.stop().await;
}

#[tokio::test]
async fn the_operator_sees_the_present_state_and_then_its_changes() {
    let (replica, mut publisher) = published(&["n1"]).await;
    let mut seen = operator::observe(&replica).await;
    let mut nodes = 0;
    loop {
        match seen
            .message()
            .await
            .expect("lives")
            .expect("more")
            .item
            .expect("known")
        {
            Seen::Node(node) => {
                assert!(!node.registered);
                nodes += 1;
            }
            Seen::Conference(conference) => assert_eq!(conference.phase, i32::from(Phase::Open)),
            Seen::Tenant(tenant) => assert_eq!((tenant.name.as_str(), tenant.rooms), ("school", 0)),
            Seen::EndOfSnapshot(_) => break,
            Seen::NodeGone(uid) => panic!("{uid} was never there"),
        }
    }
    assert_eq!(nodes, 1);
    let node = ready(&replica, "n1").await;
    replica
        .plane
        .place(request("council"))
        .await
        .expect("placed");
    node.change("council", |room| {
        room.participants = 2;
        room.facts.opened = true;
    })
    .await;
    let (mut registered, mut active, mut tenant_counts) = (false, false, false);
    while !(registered && active && tenant_counts) {
        let item = tokio::time::timeout(LIVENESS, seen.message())
            .await
            .expect("it is seen")
            .expect("lives")
            .expect("more")
            .item;
        match item.expect("known") {
            Seen::Node(node) => registered |= node.registered && node.accepting,
            Seen::Conference(state) => {
                active |= state.phase == i32::from(Phase::Active)
                    && state.opened
                    && state.participants == 2
                    && state.node_id == "n1";
            }
            Seen::Tenant(state) => tenant_counts |= state.rooms == 1 && state.participants == 2,
            Seen::EndOfSnapshot(_) | Seen::NodeGone(_) => {}
        }
    }
    publisher
        .publish(operator::retract(RecordKind::Node, "u-n1"))
        .await;
    loop {
        let item = tokio::time::timeout(LIVENESS, seen.message())
            .await
            .expect("it is seen")
            .expect("lives")
            .expect("more")
            .item;
        if item == Some(Seen::NodeGone("u-n1".into())) {
            break;
        }
    }
    replica.stop().await;
}

#[tokio::test]
async fn events_are_acknowledged_and_malformed_reports_harm_nobody() {
    let (replica, _publisher) = published(&["n1"]).await;
    let node = ready(&replica, "n1").await;
    replica
        .plane
        .place(request("council"))
        .await
        .expect("placed");
    let nowhere = plenum_proto::v1::RoomState {
        key: Some(RoomKey {
            tenant: "A B".into(),
            name: String::new(),
        }),
        ..Default::default()
    };
    node.say(Report::Room(nowhere)).await;
    node.say(Report::Room(plenum_proto::v1::RoomState::default()))
        .await;
    node.say(Report::Hello(NodeHello {
        uid: "u-other".into(),
        ..Default::default()
    }))
    .await;
    let event = RoomEvent {
        key: Some(RoomKey {
            tenant: "school".into(),
            name: "council".into(),
        }),
        epoch: 1,
        seq: 5,
        name: "participant_joined".into(),
        body: b"{}".to_vec(),
        room_sid: "RM_council".into(),
        ..RoomEvent::default()
    };
    node.say(Report::Event(event)).await;
    let seq = node
        .until("it is acknowledged", |_, orders| {
            orders.iter().find_map(|order| match order {
                Order::EventAck(ack) => Some(ack.seq),
                _ => None,
            })
        })
        .await;
    assert_eq!(seq, 5);
    assert!(
        replica
            .plane
            .room(&key("council"))
            .is_some_and(|room| room.running),
        "the stream goes on"
    );
    let metrics = replica.plane.metrics().encode();
    assert!(metrics.contains("reports_dropped_total"), "{metrics}");
    replica.stop().await;
}

#[tokio::test]
async fn a_node_cannot_pass_for_another_one() {
    let (replica, _publisher) = published(&["n1", "n2"]).await;
    let honest = ready(&replica, "n1").await;
    place(&replica.plane, "council").await;
    let forged = Room {
        epoch: 99,
        participants: 50,
        ..Room::default()
    };
    let liar = Node::start_with(&replica, "n2", BTreeMap::new()).await;
    accepting(&replica.plane, "n2").await;
    // It calls itself by the other one's id; from then on it has none.
    let hello = NodeHello {
        uid: "u-n2".into(),
        node_id: "n1".into(),
        site: "local".into(),
        epoch: 1,
        grpc_endpoint: "127.0.0.1:9".into(),
        ..Default::default()
    };
    liar.say(Report::Hello(hello)).await;
    liar.say(Report::Room(plenum_proto::v1::RoomState {
        key: Some(RoomKey {
            tenant: "school".into(),
            name: "council".into(),
        }),
        epoch: forged.epoch,
        participants: forged.participants,
        ..Default::default()
    }))
    .await;
    let dropped = "plenum_control_reports_dropped_total{reason=\"NoFacts\"} 1";
    replica
        .until("its report is dropped", |plane| {
            plane.metrics().encode().contains(dropped).then_some(())
        })
        .await;
    let live = replica.plane.room(&key("council")).expect("runs");
    assert_eq!((live.node_id.as_str(), live.epoch), ("n1", Epoch(1)));
    assert!(replica.plane.host_by_node("local", "n1").is_some());
    assert!(honest.room("council").is_some());
    replica.stop().await;
}

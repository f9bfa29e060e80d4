// SPDX-License-Identifier: EUPL-1.2
//! What a tenant may have in use, under many joins at once from two replicas.

use std::collections::BTreeMap;

use control_core::quota::{Limit, QuotaRefusal};
use control_plane::plane::{PlaceError, PlaceRequest, Placed};
use plenum_proto::v1::node_report::Item as Report;
use plenum_proto::v1::publication::Item;
use plenum_proto::v1::{Limits, RoomState, TenantRecord};
use tokio::task::JoinSet;

use crate::world::node::Node;
use crate::world::operator;
use crate::world::{key, request, until};
use crate::{Town, node, place, school};

fn directory(limits: Limits, rooms: usize) -> Vec<Item> {
    let mut items = vec![Item::Tenant(TenantRecord {
        limits: Some(limits),
        ..school()
    })];
    items.extend((0..rooms).map(|number| Item::Conference(operator::conference(&name(number)))));
    items.extend(["n1", "n2", "n3"].map(|id| Item::Node(node(id, 100, 1_000))));
    items
}

fn name(number: usize) -> String {
    format!("room-{number:03}")
}

/// Sends joins through both replicas at once. Who got in, and how often each limit refused.
async fn joins(
    town: &Town,
    requests: impl IntoIterator<Item = PlaceRequest>,
) -> (Vec<Placed>, BTreeMap<&'static str, usize>) {
    let mut all = JoinSet::new();
    for (number, request) in requests.into_iter().enumerate() {
        let plane = town.plane(number % town.replicas.len()).clone();
        all.spawn(async move { place(&plane, request).await });
    }
    let (mut inside, mut refused) = (Vec::new(), BTreeMap::new());
    while let Some(joined) = all.join_next().await {
        match joined.expect("no panic") {
            Ok(placed) => inside.push(placed),
            Err(error) => {
                assert_eq!(error.status(), 503, "{error}");
                *refused.entry(error.reason()).or_default() += 1;
            }
        }
    }
    (inside, refused)
}

/// People who got in are in, as nodes report.
async fn enter(nodes: &[Node], inside: &[Placed]) {
    for placed in inside {
        let at = nodes
            .iter()
            .find(|node| node.id == placed.node_id.as_str())
            .expect("a node of this test");
        at.change(placed.key.name.as_str(), |room| room.participants += 1)
            .await;
    }
}

async fn hundreds_of_joins_at_once_fill_a_tenant_exactly(town: Town) {
    let nodes = [
        town.node("n1").await,
        town.node("n2").await,
        town.node("n3").await,
    ];
    let crowd = |people: usize| (0..people).map(|number| request(&name(number % 10)));
    let (inside, refused) = joins(&town, crowd(400)).await;
    assert_eq!(inside.len(), 150);
    assert_eq!(refused, BTreeMap::from([("TenantParticipants", 250)]));
    enter(&nodes, &inside).await;

    // Reports settle reservations: nobody counts twice, and nobody is forgotten.
    let all_in = |plane: &control_plane::plane::Plane| {
        let rooms = plane.rooms(&key("x").tenant);
        let people: u32 = rooms.iter().map(|room| room.participants).sum();
        (people == 150).then_some(())
    };
    for replica in &town.replicas {
        until(&replica.plane, "all are reported", all_in).await;
    }
    let (inside_now, refused) = joins(&town, crowd(40)).await;
    assert_eq!(
        (inside_now.len(), refused.get("TenantParticipants")),
        (0, Some(&40))
    );

    // Thirty leave, and as many may come.
    let left = nodes
        .iter()
        .find(|node| node.room(&name(0)).is_some())
        .expect("room 0 runs");
    let before = left.room(&name(0)).expect("runs").participants;
    let gone = before.min(30);
    left.change(&name(0), |room| room.participants -= gone)
        .await;
    let mut came = 0;
    let again = async {
        loop {
            let (inside, _) = joins(&town, crowd(40)).await;
            came += u32::try_from(inside.len()).expect("few");
            if came >= gone {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), again)
        .await
        .expect("places of those who left are given again");
    assert_eq!(came, gone);
    town.stop().await;
}

async fn rooms_of_a_tenant_are_limited_exactly_and_each_has_one_node(town: Town) {
    let nodes = [
        town.node("n1").await,
        town.node("n2").await,
        town.node("n3").await,
    ];
    // Each room is asked for through both replicas.
    let requests = (0..160).map(|number| request(&name(number / 4)));
    let (inside, refused) = joins(&town, requests).await;
    let mut at: BTreeMap<String, String> = BTreeMap::new();
    for placed in &inside {
        let before = at.insert(placed.key.name.to_string(), placed.node_id.to_string());
        assert!(before.is_none_or(|before| before == placed.node_id.as_str()));
    }
    assert_eq!(at.len(), 12, "{refused:?}");
    assert_eq!(inside.len(), 48, "everybody of these rooms, {refused:?}");
    assert_eq!(refused, BTreeMap::from([("TenantRooms", 112)]));
    let open: usize = nodes
        .iter()
        .map(|node| {
            (0..40)
                .filter(|number| node.room(&name(*number)).is_some())
                .count()
        })
        .sum();
    assert_eq!(open, 12);
    town.stop().await;
}

async fn what_nodes_take_is_filled_exactly_wherever_it_is_free(town: Town) {
    let _nodes = [town.node("n1").await, town.node("n2").await];
    let (inside, refused) = joins(&town, (0..300).map(|number| request(&name(number)))).await;
    assert_eq!(inside.len(), 200, "{refused:?}");
    assert_eq!(refused, BTreeMap::from([("NoCapacity", 100)]));
    let on = |id: &str| {
        inside
            .iter()
            .filter(|placed| placed.node_id.as_str() == id)
            .count()
    };
    assert_eq!((on("n1"), on("n2")), (60, 140));
    town.stop().await;
}

#[tokio::test]
async fn egress_and_publishers_of_a_tenant_are_limits_of_their_own() {
    let limits = Limits {
        egress_mbps: Some(30),
        publishers: Some(3),
        ..Limits::default()
    };
    let town = Town::start(1, directory(limits, 4)).await;
    let nodes = [
        town.node("n1").await,
        town.node("n2").await,
        town.node("n3").await,
    ];
    let people = |participants, publishers| PlaceRequest {
        participants,
        publishers,
        ..request(&name(0))
    };
    // 1.5 Mbit/s each by estimate.
    let placed = place(town.plane(0), people(20, 0)).await.expect("fits");
    let refusal = place(town.plane(0), people(1, 0)).await.expect_err("full");
    assert!(matches!(
        refusal,
        PlaceError::Quota(QuotaRefusal::Reached {
            limit: Limit::TenantEgress,
            used: 30_000,
            max: 30_000
        })
    ));
    town.metric(
        0,
        "plenum_control_quota_refused_total{tenant=\"school\",limit=\"TenantEgress\"} 1",
    )
    .await;
    let at = nodes
        .iter()
        .find(|node| node.id == placed.node_id.as_str())
        .expect("a node of this test");
    let three_publish = RoomState {
        key: Some(plenum_proto::v1::RoomKey {
            tenant: "school".into(),
            name: name(0),
        }),
        epoch: placed.epoch.0,
        participants: 5,
        publishers: 3,
        facts: Some(at.room(&name(0)).expect("runs").facts),
        policy_revision: "p1".into(),
        ..RoomState::default()
    };
    at.say(Report::Room(three_publish)).await;
    let may_publish = || place(town.plane(0), people(1, 1));
    let refused = async {
        loop {
            // Until the report is in the store, the reservations of the twenty count.
            match may_publish().await {
                Err(PlaceError::Quota(QuotaRefusal::Reached {
                    limit: Limit::TenantPublishers,
                    ..
                })) => return,
                _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(crate::world::LIVENESS, refused)
        .await
        .expect("publishers are counted from reports");
    town.stop().await;
}

/// Three hundred rooms for two nodes that take two hundred people.
fn three_hundred() -> Vec<Item> {
    let mut items = vec![Item::Tenant(school())];
    items.extend((0..300).map(|number| Item::Conference(operator::conference(&name(number)))));
    items.push(Item::Node(node("n1", 300, 60)));
    items.push(Item::Node(node("n2", 300, 140)));
    items
}

fn people(participants: u32) -> Limits {
    Limits {
        participants: Some(participants),
        ..Limits::default()
    }
}

fn of_rooms(rooms: u32) -> Limits {
    Limits {
        concurrent_rooms: Some(rooms),
        ..Limits::default()
    }
}

over_both! {
    hundreds_of_joins_at_once_fill_a_tenant_exactly(2, directory(people(150), 10));
    rooms_of_a_tenant_are_limited_exactly_and_each_has_one_node(2, directory(of_rooms(12), 40));
    what_nodes_take_is_filled_exactly_wherever_it_is_free(2, three_hundred());
}

// SPDX-License-Identifier: EUPL-1.2
//! Where rooms may run.

use control_plane::plane::PlaceError;
use control_plane::store::{Store, StoreError};
use plenum_proto::v1::node_report::Item as Report;
use plenum_proto::v1::publication::Item;
use plenum_proto::v1::{NodeFacts, RoomState, TenantRecord};

use crate::world::operator;
use crate::world::{key, request, until};
use crate::{Town, node, place, school};

fn at(id: &str, site: &str, jurisdiction: &str) -> Item {
    Item::Node(NodeFacts {
        site: site.into(),
        jurisdiction: jurisdiction.into(),
        ..node(id, 2, 100)
    })
}

fn rooms(count: usize) -> impl Iterator<Item = Item> {
    (0..count).map(|number| Item::Conference(operator::conference(&format!("room-{number}"))))
}

#[tokio::test]
async fn rooms_stay_in_their_jurisdiction_and_prefer_their_sites() {
    let tenant = TenantRecord {
        sites_preferred: vec!["kiel".into(), "bremen".into()],
        jurisdictions: vec!["DE".into()],
        ..school()
    };
    let mut items = vec![
        Item::Tenant(tenant),
        at("n1", "paris", "FR"),
        at("n2", "kiel", "DE-SH"),
        at("n3", "bremen", "DE-HB"),
        at("n4", "berlin", "DE-BE"),
    ];
    items.extend(rooms(7));
    let town = Town::start(1, items).await;
    let mut nodes = Vec::new();
    for id in ["n1", "n2", "n3", "n4"] {
        nodes.push(town.node(id).await);
    }
    // Each node takes two rooms.
    let mut order = Vec::new();
    for number in 0..6 {
        let placed = place(town.plane(0), request(&format!("room-{number}"))).await;
        order.push(placed.expect("there is room").site.to_string());
    }
    assert_eq!(
        order,
        ["kiel", "kiel", "bremen", "bremen", "berlin", "berlin"]
    );
    let refusal = place(town.plane(0), request("room-6"))
        .await
        .expect_err("all of Germany is full");
    let PlaceError::NoCapacity(none) = refusal else {
        panic!("{refusal}");
    };
    assert_eq!((none.elsewhere, none.full), (1, 3), "{none}");
    town.stop().await;
}

#[tokio::test]
async fn without_the_store_residency_holds_and_replicas_agree() {
    let tenant = TenantRecord {
        sites_allowed: vec!["kiel".into(), "bremen".into()],
        ..school()
    };
    let mut items = vec![
        Item::Tenant(tenant),
        at("n1", "paris", "FR"),
        at("n2", "kiel", "DE-SH"),
        at("n3", "bremen", "DE-HB"),
        at("n4", "bremen", "DE-HB"),
    ];
    items.extend(rooms(5));
    let town = Town::start(2, items).await;
    let mut nodes = Vec::new();
    for id in ["n1", "n2", "n3", "n4"] {
        nodes.push(town.node(id).await);
    }
    place(town.plane(0), request("room-0"))
        .await
        .expect("placed");
    for number in 1..5 {
        let name = format!("room-{number}");
        // The answers of both questions are lost: what the store did, it did for nobody.
        town.store
            .lose_places
            .store(4, std::sync::atomic::Ordering::SeqCst);
        let (one, two) = tokio::join!(
            place(town.plane(0), request(&name)),
            place(town.plane(1), request(&name)),
        );
        let (one, two) = (one.expect("placed"), two.expect("placed"));
        assert_eq!(one.node_id, two.node_id, "{name}");
        assert_ne!(one.site.as_str(), "paris");
        town.store
            .lose_places
            .store(0, std::sync::atomic::Ordering::SeqCst);
    }
    town.stop().await;
}

/// A room of another tenant, as a node reports it.
fn of_another(name: &str) -> Report {
    Report::Room(RoomState {
        key: Some(plenum_proto::v1::RoomKey {
            tenant: "council".into(),
            name: name.into(),
        }),
        epoch: 1,
        facts: Some(Default::default()),
        ..RoomState::default()
    })
}

fn two_tenants() -> Vec<Item> {
    let council = TenantRecord {
        uid: "t-council".into(),
        name: "council".into(),
        api_keys: vec![plenum_proto::v1::ApiKey {
            key: "council-key".into(),
            secret: vec![3; 32],
        }],
        ad_hoc: plenum_proto::v1::tenant_record::AdHoc::OnJoin.into(),
        ad_hoc_policy: Some(operator::policy()),
        ..school()
    };
    let dedicated = TenantRecord {
        dedicated_nodes: true,
        ..school()
    };
    let mut items = vec![
        Item::Tenant(council),
        Item::Tenant(dedicated),
        Item::Node(node("n1", 50, 1_000)),
        Item::Node(node("n2", 50, 1_000)),
    ];
    items.extend(rooms(12));
    items
}

#[tokio::test]
async fn a_tenant_with_nodes_of_its_own_meets_no_other_there() {
    let town = Town::start(1, two_tenants()).await;
    let (one, two) = (town.node("n1").await, town.node("n2").await);
    one.say(of_another("hall")).await;
    let hall = control_core::ids::RoomKey::parse("council", "hall").expect("key");
    until(town.plane(0), "the hall is known", |plane| {
        plane.room(&hall)
    })
    .await;
    for number in 0..12 {
        let name = format!("room-{number}");
        let placed = place(town.plane(0), request(&name)).await.expect("placed");
        assert_eq!(placed.node_id.as_str(), "n2");
    }
    two.say(of_another("cellar")).await;
    drop((one, two));
    town.stop().await;
}

#[tokio::test]
async fn a_room_that_meets_another_tenant_on_its_node_moves_on_before_anybody_enters() {
    let town = Town::start(1, two_tenants()).await;
    let nodes = std::sync::Arc::new([town.node("n1").await, town.node("n2").await]);
    place(town.plane(0), request("room-0"))
        .await
        .expect("placed");
    let first = nodes
        .iter()
        .position(|node| node.room("room-0").is_some())
        .expect("runs");
    nodes[first].close("room-0", "Ended").await;
    until(town.plane(0), "it ended", |plane| {
        plane.room(&key("room-0")).is_none().then_some(())
    })
    .await;

    // Another replica gives the same empty node to another tenant in the same moment.
    let (says, store, plane) = (nodes.clone(), town.store.clone(), town.plane(0).clone());
    town.store.after_place(Box::pin(async move {
        let record: Result<_, StoreError> = store.room(key("room-1")).await;
        let lease = record.expect("answers").expect("placed").lease;
        let at = says
            .iter()
            .find(|node| node.id == lease.node.as_str())
            .expect("a node");
        at.say(of_another("hall")).await;
        let hall = control_core::ids::RoomKey::parse("council", "hall").expect("key");
        until(&plane, "the hall is known", |plane| plane.room(&hall)).await;
    }));
    let placed = place(town.plane(0), request("room-1"))
        .await
        .expect("placed");
    let hall = control_core::ids::RoomKey::parse("council", "hall").expect("key");
    let hall = town.plane(0).room(&hall).expect("runs");
    assert_ne!(placed.node_id, hall.node_id);
    let at_hall = nodes
        .iter()
        .find(|node| node.id == hall.node_id.as_str())
        .expect("a node");
    assert!(at_hall.room("room-1").is_none(), "it does not stay behind");
    town.metric(0, "plenum_control_rooms_kept_apart_total 1")
        .await;
    town.stop().await;
}

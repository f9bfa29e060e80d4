// SPDX-License-Identifier: EUPL-1.2
//! Records for tests.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::{Epoch, NodeId, Pool, RoomId, RoomName, Secret, Site, TenantName, Uid};
use crate::placement::Strategy;
use crate::record::{
    AdHoc, Capacity, Conference, LobbyRule, Node, Residency, RoomPolicy, Tenant, TenantLimits,
};

/// A policy that allows everything.
pub(crate) fn policy() -> RoomPolicy {
    RoomPolicy {
        declared: true,
        lobby: LobbyRule::Off,
        guests_allowed: true,
        permissions: BTreeMap::new(),
        max_participants: 100,
        max_publishers: 10,
        empty_timeout: Duration::from_secs(300),
        departure_timeout: Duration::from_secs(20),
        max_duration: Duration::ZERO,
        max_bitrate_kbps: 0,
        screen_share: true,
        e2ee_required: false,
        codecs: Vec::new(),
        revision: "p1".into(),
    }
}

pub(crate) fn tenant(name: &str) -> Tenant {
    Tenant {
        uid: Uid::parse(&format!("t-{name}")).expect("uid"),
        name: TenantName::parse(name).expect("name"),
        revision: "1".into(),
        display_name: name.into(),
        api_keys: Vec::new(),
        suspended: false,
        suspend_terminate: false,
        active_from: None,
        ad_hoc: AdHoc::Forbidden,
        ad_hoc_policy: None,
        branding_name: String::new(),
        branding_colour: String::new(),
        branding_texts: Vec::new(),
        limits: TenantLimits::default(),
        link_key: Secret::new(&[1; 32]),
        pools: Vec::new(),
        residency: Residency::default(),
        dedicated_nodes: false,
        webhooks: Vec::new(),
    }
}

/// Room id made of a name, unique enough for tests.
pub(crate) fn room_id(name: &str) -> RoomId {
    let letters: String = name
        .bytes()
        .map(|byte| char::from(b'a' + byte % 26))
        .cycle()
        .take(26)
        .collect();
    RoomId::parse(&letters).expect("room id")
}

pub(crate) fn conference(tenant: &str, name: &str) -> Conference {
    Conference {
        uid: Uid::parse(&format!("c-{tenant}-{name}")).expect("uid"),
        revision: "1".into(),
        tenant: TenantName::parse(tenant).expect("name"),
        namespace: format!("tenant-{tenant}"),
        name: name.into(),
        room_name: RoomName::parse(name).expect("name"),
        room_id: room_id(name),
        display_name: name.into(),
        openers: Vec::new(),
        password_hash: String::new(),
        roles: Vec::new(),
        notices: Vec::new(),
        schedule: None,
        policy: policy(),
        suspended: false,
        pool: None,
        sites: Vec::new(),
        strategy: Strategy::default(),
        reserve_participants: 0,
    }
}

pub(crate) fn node(id: &str) -> Node {
    Node {
        uid: Uid::parse(&format!("n-{id}")).expect("uid"),
        node_id: NodeId::parse(id).expect("node id"),
        site: Site::parse("local").expect("site"),
        pool: Pool::parse("media/default").expect("pool"),
        jurisdiction: None,
        epoch: Epoch(1),
        addresses: Vec::new(),
        capacity: Capacity {
            rooms: 10,
            participants: 100,
            egress_mbps: 1_000,
        },
        drain_timeout: Duration::from_secs(60),
        grpc_endpoint: String::new(),
        accepting: true,
        srtp_legacy_allowed: false,
        maintenance_at_unix_ms: 0,
        revision: "1".into(),
    }
}

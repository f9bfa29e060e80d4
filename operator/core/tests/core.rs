// SPDX-License-Identifier: EUPL-1.2
//! What the two stages promise, on objects as they come out of manifests.

mod town;

use std::collections::{BTreeMap, BTreeSet};

use operator_core::{
    AbsentOpenerKeys, Confidential, Generated, Name, NodeEndpoint, Objects, Plan, Record,
    RecordKind, diff,
    inert::{Shell, inert},
    plan, validate, wants,
};
use plenum_api::{
    conference::{Lobby, Topology},
    conference_class::{Chat, Role},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use town::{conference, objects, pool, secret, tenant};

fn generated(objects: &Objects) -> Generated {
    let valid = validate(objects, AbsentOpenerKeys::AreGenerated).expect("valid");
    let wants = wants(&valid);
    Generated {
        link_keys: wants
            .link_keys
            .into_iter()
            .map(|name| (name.clone(), Confidential(name.into_bytes())))
            .collect(),
        passwords: wants
            .passwords
            .into_iter()
            .map(|name| (name.clone(), Confidential(format!("password-of-{name}"))))
            .collect(),
        opener_keys: wants
            .opener_keys
            .into_iter()
            .map(|key| {
                (
                    key.clone(),
                    Confidential(format!("opener-key-{}", key.secret)),
                )
            })
            .collect(),
    }
}

fn endpoints(objects: &Objects) -> BTreeMap<String, NodeEndpoint> {
    let valid = validate(objects, AbsentOpenerKeys::AreGenerated).expect("valid");
    let endpoint = NodeEndpoint {
        epoch: 1,
        addresses: vec![("127.0.0.1".parse().expect("an address"), 20_000)],
        grpc_endpoint: "127.0.0.1:1".to_owned(),
        accepting: true,
    };
    wants(&valid)
        .nodes
        .into_iter()
        .map(|node| (node.uid, endpoint.clone()))
        .collect()
}

fn planned(values: &[Value]) -> Plan {
    let objects = objects(values);
    let valid = validate(&objects, AbsentOpenerKeys::AreGenerated).expect("valid");
    plan(&valid, &generated(&objects), &endpoints(&objects)).expect("a plan")
}

fn reasons(values: &[Value]) -> Vec<String> {
    let objects = objects(values);
    let problems = validate(&objects, AbsentOpenerKeys::AreGenerated)
        .err()
        .unwrap_or_default();
    problems
        .into_iter()
        .map(|problem| {
            format!(
                "{} {} {}",
                problem.object.name, problem.pointer, problem.rule
            )
        })
        .collect()
}

#[test]
fn a_declared_conference_becomes_a_complete_record() {
    let plan = planned(&town::all());
    let record = plan.conferences.values().next().expect("one conference");
    assert_eq!(
        (record.tenant.as_str(), record.room_name.as_str()),
        ("town", "council")
    );
    assert_eq!(
        record.room_id,
        operator_core::digest::room_id(b"town", "council")
    );
    assert_eq!(record.pool, "media/local");
    assert!(record.policy.declared);
    assert_eq!(record.policy.lobby, Lobby::Guests);
    assert_eq!(record.policy.permissions.len(), Role::ALL.len());
    let guest = record
        .policy
        .permissions
        .iter()
        .find(|cells| cells.role == Role::Guest)
        .expect("guests");
    assert!(guest.microphone && !guest.screen_share && !guest.moderate && guest.enter_muted);
    let key = operator_core::digest::sha256(b"opener-key-tenant-town/opener");
    assert_eq!(
        record.openers,
        [operator_core::records::OpenerRecord::KeySha256(key)]
    );
    assert_eq!(plan.nodes.len(), 2);
    assert!(
        plan.nodes
            .values()
            .all(|node| node.site == "local" && node.drain_timeout_ms == 4 * 3_600_000)
    );
    let tenant = plan.tenants.values().next().expect("one tenant");
    assert_eq!(tenant.pools, ["media/local"]);
    assert_eq!(tenant.api_keys[0].key, "town-key");
}

#[test]
fn opener_keys_that_nobody_declared_are_an_error_only_where_nobody_makes_them() {
    let objects = objects(&town::all());
    let problems = validate(&objects, AbsentOpenerKeys::AreErrors).expect_err("the key is absent");
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].rule, "SecretNotFound");
    assert_eq!(problems[0].pointer, "/spec/openers/0/key/name");
}

#[test]
fn groups_wait_with_a_warning_and_are_no_error() {
    let mut values = town::all();
    values[2]["spec"]["openers"] = json!([{ "type": "Group", "group": { "name": "teachers" } }]);
    let objects = objects(&values);
    let valid = validate(&objects, AbsentOpenerKeys::AreErrors).expect("valid");
    assert_eq!(valid.warnings.len(), 1);
    assert_eq!(
        (
            valid.warnings[0].rule.as_str(),
            valid.warnings[0].pointer.as_str()
        ),
        ("IssuerMissing", "/spec/openers/0")
    );
}

#[test]
fn what_cannot_be_read_is_not_reported_as_missing() {
    let mut objects = objects(&[conference("council")]);
    assert_eq!(
        validate(&objects, AbsentOpenerKeys::AreGenerated)
            .expect_err("no tenant, no class")
            .len(),
        2
    );
    for (kind, name) in [("Tenant", "town"), ("ConferenceClass", "meeting")] {
        let key = operator_core::ObjectKey {
            kind: kind.to_owned(),
            name: Name::new("", name),
        };
        objects.unreadable.insert(key);
    }
    assert!(validate(&objects, AbsentOpenerKeys::AreGenerated).is_ok());
}

#[test]
fn all_errors_come_at_once_and_name_their_places() {
    let mut values = town::all();
    values[2]["spec"]["className"] = json!("lecture");
    values[2]["spec"]["guests"] = json!("Allowed");
    values[0]["spec"]["policy"] = json!({ "guests": "Forbidden" });
    values[0]["spec"]["pools"] = json!([{ "namespace": "media", "name": "absent" }]);
    assert_eq!(
        reasons(&values),
        [
            "tenant-town/council /spec/className ClassNotFound",
            "tenant-town/council /spec/guests GuestsForbiddenByTenant",
            "town /spec/pools/0 PoolNotFound",
        ]
    );
}

#[test]
fn names_and_keys_are_unique_where_they_tell_apart() {
    let mut values = town::all();
    let mut other = conference("committee");
    other["spec"]["roomName"] = json!("council");
    values.push(other);
    values.push(tenant("borough"));
    values[0]["spec"]["namespace"] = json!({ "name": "tenant-shared" });
    values[6]["spec"]["namespace"] = json!({ "name": "tenant-shared" });
    values.push(secret(
        "other",
        "plenum.dev/api-key",
        json!({ "apiKey": "town-key", "apiSecret": "x".repeat(32) }),
    ));
    let said = reasons(&values);
    for wanted in [
        "town /spec/namespace/name NamespaceNotAdoptable",
        "tenant-town/council /metadata/name RoomNameTaken",
        "tenant-town/other /stringData/apiKey KeyReused",
    ] {
        assert!(
            said.iter().any(|said| said == wanted),
            "{wanted}: {said:#?}"
        );
    }
}

#[test]
fn a_class_narrows_and_a_tenant_narrows_further() {
    let mut values = town::all();
    values[0]["spec"]["limits"] = json!({ "participantsPerRoom": 40, "publishersPerRoom": 5 });
    values[0]["spec"]["policy"] =
        json!({ "guests": "Forbidden", "e2ee": "Required", "codecs": ["Opus", "VP8"] });
    values[1]["spec"] = json!({
        "preset": "Classroom",
        "permissions": [{ "role": "Participant", "chat": "Moderators", "screenShare": true }],
        "capacity": { "maxParticipants": 100 },
        "media": { "screenShare": false },
        "lifecycle": { "emptyTimeout": "2m" },
    });
    let plan = planned(&values);
    let policy = &plan.conferences.values().next().expect("one").policy;
    assert_eq!((policy.max_participants, policy.max_publishers), (40, 5));
    assert!(!policy.guests_allowed && policy.e2ee_required && !policy.screen_share);
    assert_eq!(policy.codecs, ["opus", "vp8"]);
    assert_eq!(
        (policy.empty_timeout_ms, policy.departure_timeout_ms),
        (120_000, 120_000)
    );
    let cells = policy
        .permissions
        .iter()
        .find(|cells| cells.role == Role::Participant)
        .expect("a row");
    assert_eq!(cells.chat, Chat::Moderators);
    // The override allows the screen to the role, the class forbids it to the room.
    assert!(!cells.screen_share);
}

#[test]
fn recording_takes_all_three_and_an_override() {
    let allow = |values: &mut Vec<Value>| {
        values[0]["spec"]["policy"]["recording"] = json!("Allowed");
        values[1]["spec"]["recording"] = json!("Allowed");
        values[1]["spec"]["permissions"] = json!([{ "role": "Moderator", "record": true }]);
        values[2]["spec"]["recording"] = json!("Allowed");
    };
    let records = |values: &[Value]| {
        let plan = planned(values);
        let policy = plan
            .conferences
            .values()
            .next()
            .expect("one")
            .policy
            .clone();
        policy
            .permissions
            .iter()
            .filter(|cells| cells.record)
            .map(|cells| cells.role)
            .collect::<Vec<_>>()
    };
    let mut values = town::all();
    allow(&mut values);
    assert_eq!(records(&values), [Role::Moderator]);
    values[2]["spec"]["recording"] = json!("Forbidden");
    assert_eq!(records(&values), []);
}

#[test]
fn fields_without_effect_are_named_once() {
    let mut values = town::all();
    values.push(tenant("borough"));
    for index in [0, 5] {
        values[index]["spec"]["retention"] = json!({ "chat": "P10D" });
    }
    let found = inert(&objects(&values), Shell::OneMachine);
    let retention: Vec<_> = found
        .iter()
        .filter(|inert| inert.field == "Tenant spec.retention")
        .collect();
    assert_eq!(retention.len(), 1);
    assert_eq!(retention[0].objects, 2);
    assert!(
        !found
            .iter()
            .any(|inert| inert.field.contains("displayName"))
    );
}

#[test]
fn where_a_room_runs_and_who_is_told_of_it_reaches_the_records() {
    let mut values = town::all();
    values[0]["spec"]["isolation"] = json!("DedicatedNodes");
    values[0]["spec"]["limits"] = json!({ "publishers": 7 });
    values[0]["spec"]["sites"] = json!({
        "allowed": ["kiel", "bonn"], "preferred": ["bonn"], "jurisdictions": ["DE-SH"],
    });
    values[0]["spec"]["webhooks"] = json!([
        { "name": "archive", "url": "https://archive.example/hook", "events": ["room_finished"], "caSecretRef": { "name": "ca" } },
    ]);
    values[1]["spec"]["capacity"] = json!({ "reserve": true });
    values[2]["spec"]["capacity"] = json!({ "expectedParticipants": 30, "maxParticipants": 40 });
    values[2]["spec"]["schedule"] =
        json!({ "start": "2026-09-01T08:00", "timeZone": "Europe/Berlin", "duration": "90m" });
    values[2]["spec"]["placement"] = json!({ "sites": ["kiel"], "topology": "Pack" });
    let pem = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
    values.push(secret("ca", "Opaque", json!({ "ca.crt": pem })));
    let plan = planned(&values);
    let tenant = plan.tenants.values().next().expect("one tenant");
    assert!(tenant.dedicated_nodes);
    assert_eq!(tenant.limits.publishers, Some(7));
    assert_eq!(tenant.sites_allowed, ["kiel", "bonn"]);
    assert_eq!(tenant.sites_preferred, ["bonn"]);
    assert_eq!(tenant.jurisdictions, ["DE-SH"]);
    let webhook = &tenant.webhooks[0];
    assert_eq!(
        (webhook.signing_key.as_str(), webhook.ca_pem.as_str()),
        ("town-key", pem)
    );
    let conference = plan.conferences.values().next().expect("one conference");
    assert_eq!(conference.sites, ["kiel"]);
    assert_eq!(conference.topology, Some(Topology::Pack));
    assert_eq!(conference.reserve_participants, 30);
    // The tenant has no more publishers than seven, so no room has.
    assert_eq!(conference.policy.max_publishers, 7);
    values[2]["spec"]["capacity"]["reserve"] = json!(false);
    let plan = planned(&values);
    let conference = plan.conferences.values().next().expect("one conference");
    assert_eq!(conference.reserve_participants, 0);
}

#[test]
fn a_place_outside_the_tenants_and_a_hold_for_nobody_are_errors() {
    let mut values = town::all();
    values[0]["spec"]["sites"] = json!({ "allowed": ["bonn"] });
    values[0]["spec"]["webhooks"] = json!([
        { "name": "archive", "url": "https://archive.example/hook", "caSecretRef": { "name": "ca" } },
    ]);
    values[2]["spec"]["capacity"] = json!({ "reserve": true });
    values[2]["spec"]["placement"] = json!({ "sites": ["bonn", "kiel"] });
    values.push(secret("ca", "Opaque", json!({ "ca.crt": "none" })));
    assert_eq!(
        reasons(&values),
        [
            "tenant-town/council /spec/capacity NoCapacity",
            "tenant-town/council /spec/capacity/reserve NoCapacity",
            "tenant-town/council /spec/placement/sites/1 UnknownSite",
            "town /spec/webhooks/0/caSecretRef SecretInvalid",
        ]
    );
}

#[test]
fn one_machine_says_so_where_no_room_of_a_tenant_finds_a_node_on_it() {
    let mut values = town::all();
    values[0]["spec"]["sites"] = json!({ "allowed": ["kiel"], "jurisdictions": ["DE"] });
    let fields = |values: &[Value], shell| -> Vec<String> {
        let found = inert(&objects(values), shell);
        found
            .into_iter()
            .map(|inert| inert.field)
            .filter(|field| field.contains("sites"))
            .collect()
    };
    assert_eq!(
        fields(&values, Shell::OneMachine),
        [
            "Tenant spec.sites.allowed",
            "Tenant spec.sites.jurisdictions"
        ]
    );
    assert_eq!(fields(&values, Shell::Cluster), Vec::<String>::new());
    values[0]["spec"]["sites"] = json!({ "allowed": ["local"] });
    assert_eq!(fields(&values, Shell::OneMachine), Vec::<String>::new());
}

#[test]
fn ports_of_a_pool_and_shards_of_its_nodes_follow_the_manifest() {
    let mut values = town::all();
    values[3]["spec"]["template"] = json!({ "resources": { "requests": { "cpu": "4" } } });
    values[3]["spec"]["network"]["mux"] = json!("PortPerShard");
    let objects = objects(&values);
    let valid = validate(&objects, AbsentOpenerKeys::AreGenerated).expect("valid");
    let nodes = wants(&valid).nodes;
    assert_eq!(
        (nodes.len(), nodes[0].shards, nodes[0].ports_needed()),
        (2, 3, 3)
    );
    assert_eq!((nodes[0].ports.min, nodes[0].ports.max), (20_000, 20_255));
}

#[test]
fn nothing_prints_a_secret() {
    let plan = planned(&town::all());
    let text = format!("{plan:?}");
    for secret in ["password-of", "opener-key", "0123456789abcdef"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

/// A town with conferences of some names, some of them suspended, and a number of nodes.
fn town_with(rooms: &BTreeMap<String, bool>, nodes: u32) -> Vec<Value> {
    let mut values: Vec<Value> = town::all()
        .into_iter()
        .filter(|value| value["kind"] != "Conference")
        .collect();
    for (name, suspended) in rooms {
        let mut value = conference(name);
        value["spec"]["suspended"] = json!(suspended);
        values.push(value);
    }
    if let Some(value) = values.iter_mut().find(|value| value["kind"] == "MediaPool") {
        *value = pool("local", nodes);
    }
    values
}

fn rooms() -> impl Strategy<Value = BTreeMap<String, bool>> {
    prop::collection::btree_map("[a-f]", any::<bool>(), 0..6)
}

/// What a control plane does with a difference.
fn apply(held: &Plan, new: &Plan) -> Plan {
    let mut held = held.clone();
    let diff = diff(&held, new);
    for (kind, uid) in &diff.retract {
        match kind {
            RecordKind::Tenant => drop(held.tenants.remove(uid)),
            RecordKind::Conference => drop(held.conferences.remove(uid)),
            RecordKind::Node => drop(held.nodes.remove(uid)),
        }
    }
    for record in &diff.publish {
        match record {
            Record::Tenant(record) => {
                drop(held.tenants.insert(record.uid.clone(), (*record).clone()))
            }
            Record::Conference(record) => drop(
                held.conferences
                    .insert(record.uid.clone(), (*record).clone()),
            ),
            Record::Node(record) => drop(held.nodes.insert(record.uid.clone(), (*record).clone())),
        }
    }
    held
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_difference_leads_from_one_plan_to_the_other_and_nothing_more(
        before in rooms(), after in rooms(), nodes in 0_u32..4, later in 0_u32..4,
    ) {
        let (old, new) = (planned(&town_with(&before, nodes)), planned(&town_with(&after, later)));
        prop_assert_eq!(apply(&old, &new), new.clone());
        prop_assert!(diff(&new, &new).is_empty());
        let unchanged = before.iter().filter(|(name, suspended)| after.get(*name) == Some(*suspended)).count();
        let published = diff(&old, &new).publish.iter().filter(|record| matches!(record, Record::Conference(_))).count();
        prop_assert_eq!(published, after.len() - unchanged);
    }

    #[test]
    fn what_is_kept_is_retracted_with_its_object_and_not_before(
        before in rooms(), after in rooms(), waits in prop::collection::btree_set("[a-f]", 0..6),
    ) {
        let all = planned(&town_with(&before, 1));
        let uid = |name: &String| {
            let mut records = all.conferences.values();
            records.find(|record| record.name == *name).map(|record| record.uid.clone())
        };
        // Some of them cannot be made for a while.
        let kept: BTreeSet<(RecordKind, String)> =
            waits.iter().filter_map(uid).map(|uid| (RecordKind::Conference, uid)).collect();
        let mut some = all.clone();
        some.conferences.retain(|uid, _| !kept.contains(&(RecordKind::Conference, uid.clone())));
        some.kept = kept.clone();
        let retracted = diff(&all, &some).retract;
        prop_assert!(retracted.is_empty(), "{retracted:?}");
        let new = planned(&town_with(&after, 1));
        let retracted: BTreeSet<_> = diff(&some, &new).retract.into_iter().collect();
        let gone: BTreeSet<_> = all
            .conferences
            .keys()
            .filter(|uid| !new.conferences.contains_key(*uid))
            .map(|uid| (RecordKind::Conference, uid.clone()))
            .collect();
        prop_assert_eq!(retracted, gone);
        let again = diff(&some, &all);
        prop_assert_eq!(again.publish.len(), kept.len());
    }

    #[test]
    fn the_order_of_files_does_not_matter(all in rooms(), seed in any::<prop::sample::Index>()) {
        let values = town_with(&all, 2);
        let mut turned = values.clone();
        turned.rotate_left(seed.index(values.len()));
        prop_assert_eq!(planned(&values), planned(&turned));
    }

    #[test]
    fn no_policy_exceeds_its_tenant(
        tenants in prop::option::of(0_u32..200),
        of_class in prop::option::of(1_u32..200),
        own in prop::option::of(1_u32..200),
        forbidden in any::<bool>(),
    ) {
        let mut values = town::all();
        values[0]["spec"]["limits"] = json!({ "participantsPerRoom": tenants });
        values[0]["spec"]["policy"] = json!({ "guests": if forbidden { "Forbidden" } else { "Allowed" } });
        values[1]["spec"]["capacity"] = json!({ "maxParticipants": of_class });
        values[2]["spec"]["capacity"] = json!({ "maxParticipants": own });
        let objects = objects(&values);
        match validate(&objects, AbsentOpenerKeys::AreGenerated) {
            Ok(valid) => {
                let plan = plan(&valid, &generated(&objects), &endpoints(&objects)).expect("a plan");
                let policy = &plan.conferences.values().next().expect("one").policy;
                prop_assert!(tenants.is_none_or(|most| policy.max_participants <= most));
                prop_assert!(own.is_none_or(|own| policy.max_participants == own));
                prop_assert_eq!(policy.guests_allowed, !forbidden);
            }
            Err(problems) => {
                prop_assert!(own > tenants && tenants.is_some());
                prop_assert!(problems.iter().all(|problem| problem.rule == "LimitExceeded"));
            }
        }
    }
}

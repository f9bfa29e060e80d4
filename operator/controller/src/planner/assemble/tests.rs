// SPDX-License-Identifier: EUPL-1.2
//! One thing that is wrong takes nothing else along.

use operator_core::SecretData;
use serde_json::{Value, json};

use super::*;

fn secret(type_: &str, values: &[(&str, &str)]) -> SecretData {
    SecretData {
        type_: type_.to_owned(),
        data: values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Confidential(value.as_bytes().to_vec())))
            .collect(),
        encoded: BTreeSet::new(),
    }
}

fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": names::API_VERSION,
        "kind": kind,
        "metadata": { "name": name, "namespace": namespace, "uid": format!("{kind}-{namespace}-{name}") },
        "spec": spec,
    })
}

/// Two towns with a conference each, everything in place.
fn two_towns() -> Snapshot {
    let mut snapshot = Snapshot::default();
    let mut add = |value: Value| snapshot.objects.insert(&value).expect("an object");
    let mut class = object(
        "ConferenceClass",
        "",
        "meeting",
        json!({ "displayName": "Meeting", "preset": "Meeting" }),
    );
    class["metadata"]["annotations"] = json!({ names::ANNOTATION_DEFAULT_CLASS: "true" });
    add(class);
    let network = json!({ "type": "None" });
    add(object(
        "MediaPool",
        "media",
        "local",
        json!({ "replicas": 1, "network": network }),
    ));
    for town in ["north", "south"] {
        let contacts = json!([
            { "type": "Technical", "mailbox": "it@town.example" },
            { "type": "Functional", "mailbox": "office@town.example" },
        ]);
        let keys = json!({ "apiKeySecretRefs": [{ "name": "backend" }] });
        add(object(
            "Tenant",
            "",
            town,
            json!({ "displayName": town, "contacts": contacts, "auth": keys }),
        ));
        let opener = json!([{ "type": "Key", "key": { "name": "opener" } }]);
        add(object(
            "Conference",
            &format!("tenant-{town}"),
            "council",
            json!({ "openers": opener }),
        ));
    }
    for town in ["north", "south"] {
        let namespace = format!("tenant-{town}");
        let key = format!("an-api-secret-of-{town}-that-is-long-enough");
        let of_opener = format!("an-opener-key-of-{town}");
        for (name, data) in [
            (
                "backend",
                secret(
                    names::SECRET_TYPE_API_KEY,
                    &[("apiKey", town), ("apiSecret", &key)],
                ),
            ),
            (
                "opener",
                secret(names::SECRET_TYPE_OPENER_KEY, &[("key", &of_opener)]),
            ),
            (
                tenant::LINK_KEY_SECRET,
                secret("Opaque", &[(tenant::LINK_KEY, &key)]),
            ),
            (
                "council-password",
                secret("Opaque", &[("password", "badu-kelo-mona-tigu")]),
            ),
        ] {
            snapshot
                .objects
                .secrets
                .insert(Name::new(&*namespace, name), data);
        }
        snapshot
            .tenant_of_namespace
            .insert(namespace, town.to_owned());
    }
    snapshot
}

fn council(town: &str) -> ObjectKey {
    key("Conference", Name::new(format!("tenant-{town}"), "council"))
}

fn published(planned: &Planned) -> Vec<&str> {
    let records = planned.plan.conferences.values();
    let mut tenants: Vec<&str> = records.map(|record| &*record.tenant).collect();
    tenants.sort_unstable();
    tenants
}

#[test]
fn valid_objects_are_all_planned() {
    let planned = assemble(two_towns()).expect("a plan");
    assert!(planned.problems.is_empty(), "{:?}", planned.problems);
    assert!(planned.waiting.is_empty() && planned.ready);
    assert_eq!(published(&planned), ["north", "south"]);
    assert_eq!(planned.plan.tenants.len(), 2);
}

#[test]
fn a_conference_that_is_wrong_is_left_out_with_its_problem_and_the_other_stays() {
    let mut snapshot = two_towns();
    let secrets = &mut snapshot.objects.secrets;
    secrets.remove(&Name::new("tenant-north", "opener"));
    let planned = assemble(snapshot).expect("a plan");
    assert_eq!(published(&planned), ["south"]);
    let problems = &planned.problems[&council("north")];
    assert_eq!(problems[0].rule, Reason::SecretNotFound.as_str());
    assert_eq!(planned.plan.tenants.len(), 2, "its tenant is not at fault");
}

#[test]
fn a_tenant_that_is_wrong_takes_its_conferences_along_and_they_say_why() {
    let mut snapshot = two_towns();
    let secrets = &mut snapshot.objects.secrets;
    secrets.remove(&Name::new("tenant-north", "backend"));
    let planned = assemble(snapshot).expect("a plan");
    assert_eq!(published(&planned), ["south"]);
    assert!(
        planned
            .problems
            .contains_key(&key("Tenant", Name::new("", "north")))
    );
    assert_eq!(
        planned.problems[&council("north")][0].rule,
        Reason::TenantNotFound.as_str()
    );
}

#[test]
fn what_waits_for_a_secret_of_the_operators_own_is_not_wrong() {
    let mut snapshot = two_towns();
    let secrets = &mut snapshot.objects.secrets;
    secrets.remove(&Name::new("tenant-north", "council-password"));
    secrets.remove(&Name::new("tenant-south", tenant::LINK_KEY_SECRET));
    let planned = assemble(snapshot).expect("a plan");
    assert!(planned.problems.is_empty(), "{:?}", planned.problems);
    assert!(published(&planned).is_empty());
    assert!(planned.waiting.contains(&council("north")));
    assert!(planned.waiting.contains(&council("south")));
    assert_eq!(planned.plan.tenants.len(), 1);
}

#[test]
fn what_waits_stays_published_and_what_leaves_does_not() {
    let kept = |change: &dyn Fn(&mut Snapshot)| {
        let mut snapshot = two_towns();
        change(&mut snapshot);
        let planned = assemble(snapshot).expect("a plan");
        planned.plan.kept.into_iter().collect::<Vec<_>>()
    };
    let north = [
        (RecordKind::Tenant, "Tenant--north".to_owned()),
        (
            RecordKind::Conference,
            "Conference-tenant-north-council".to_owned(),
        ),
    ];
    // Nobody knows whether it is there: after a start whose reads fail, or because it was deleted a moment ago.
    let link_key = Name::new("tenant-north", tenant::LINK_KEY_SECRET);
    let unknown = |snapshot: &mut Snapshot| {
        snapshot.objects.secrets.remove(&link_key);
        snapshot.unknown_secrets.insert(link_key.clone());
    };
    let absent = |snapshot: &mut Snapshot| drop(snapshot.objects.secrets.remove(&link_key));
    assert_eq!(kept(&unknown), north);
    assert_eq!(kept(&absent), north);
    assert_eq!(kept(&|_| {}), []);
    // Whose object is wrong was left out on purpose.
    assert_eq!(
        kept(&|snapshot| drop(
            snapshot
                .objects
                .secrets
                .remove(&Name::new("tenant-north", "backend"))
        )),
        []
    );
    let leaving = kept(&|snapshot| {
        unknown(snapshot);
        let tenant = snapshot.objects.tenants.get_mut("north").expect("a tenant");
        tenant.metadata.deletion_timestamp = Some(
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH),
        );
    });
    assert_eq!(leaving, [], "and its conferences with it");
}

#[test]
fn nothing_is_concluded_before_it_is_known_whether_a_secret_is_there() {
    let mut snapshot = two_towns();
    let name = Name::new("tenant-north", "backend");
    snapshot.objects.secrets.remove(&name);
    snapshot.unknown_secrets.insert(name);
    let planned = assemble(snapshot).expect("a plan");
    assert!(planned.problems.is_empty() && !planned.ready);
    assert_eq!(published(&planned), ["south"]);
}

#[test]
fn a_namespace_that_is_only_named_like_a_tenants_has_no_conferences() {
    let mut snapshot = two_towns();
    snapshot.tenant_of_namespace.remove("tenant-north");
    let planned = assemble(snapshot).expect("a plan");
    assert_eq!(published(&planned), ["south"]);
    let problems = &planned.problems[&council("north")];
    assert_eq!(problems[0].rule, Reason::NamespaceWithoutTenant.as_str());
}

#[test]
fn nodes_are_planned_where_their_pool_is_wrong_too() {
    let mut snapshot = two_towns();
    snapshot.nodes.push(DeclaredNode {
        uid: "u".into(),
        pool: Name::new("media", "gone"),
        site: "north".into(),
        jurisdiction: "DE".into(),
        endpoint: NodeEndpoint {
            epoch: 7,
            addresses: vec![([192, 0, 2, 1].into(), 20_000)],
            grpc_endpoint: "10.0.0.1:7882".into(),
            accepting: true,
        },
        maintenance_at: None,
    });
    let planned = assemble(snapshot).expect("a plan");
    let node = &planned.plan.nodes["u"];
    assert_eq!(
        (node.epoch, &*node.site, &*node.jurisdiction),
        (7, "north", "DE")
    );
}

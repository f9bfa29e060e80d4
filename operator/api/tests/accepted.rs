// SPDX-License-Identifier: EUPL-1.2
//! What the check accepts, the types can read: the two descriptions of one object never disagree.

use plenum_api::{
    Conference, ConferenceClass, MaintenanceWindow, MediaNode, MediaPool, Tenant, check,
};
use proptest::prelude::*;
use serde_json::{Value, json};

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn accepted_object_is_readable(index in 0..6usize, steps in prop::collection::vec(any::<prop::sample::Index>(), 1..7), value in values()) {
        let (kind, mut object) = full().swap_remove(index);
        *pick(&mut object, &steps) = value;
        let found = check::validate(kind, &object, None);
        prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "sorted and without repetition");
        prop_assert!(found.iter().all(|v| !v.message.is_empty() && !v.remedy.is_empty()));
        if found.is_empty() {
            check::default_in_place(kind, &mut object);
            prop_assert!(read(kind, &object).is_ok(), "{kind}: {object} is accepted but {:?}", read(kind, &object));
        }
    }
}

#[test]
fn full_objects_are_accepted() {
    for (kind, object) in full() {
        assert_eq!(check::validate(kind, &object, None), [], "{kind}");
        read(kind, &object).unwrap_or_else(|error| panic!("{kind}: {error}"));
    }
}

fn read(kind: &str, object: &Value) -> Result<(), serde_json::Error> {
    let object = object.clone();
    match kind {
        "Tenant" => serde_json::from_value::<Tenant>(object).map(drop),
        "ConferenceClass" => serde_json::from_value::<ConferenceClass>(object).map(drop),
        "Conference" => serde_json::from_value::<Conference>(object).map(drop),
        "MediaPool" => serde_json::from_value::<MediaPool>(object).map(drop),
        "MediaNode" => serde_json::from_value::<MediaNode>(object).map(drop),
        "MaintenanceWindow" => serde_json::from_value::<MaintenanceWindow>(object).map(drop),
        other => panic!("no type for {other}"),
    }
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![Just(0i64), Just(1), Just(2000), -5i64..70_000, any::<i64>()]
            .prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "a",
            "1h",
            "High",
            "2026-09-01T05:30:00Z",
            "https://example.org",
            "50%",
            "P1M",
            "Key"
        ])
        .prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([{}])),
        Just(json!({ "a": "b" })),
    ]
}

/// A value inside an object, chosen by steps; stops at a leaf.
fn pick<'a>(value: &'a mut Value, steps: &[prop::sample::Index]) -> &'a mut Value {
    let Some((step, rest)) = steps.split_first() else {
        return value;
    };
    let length = match value {
        Value::Object(members) => members.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    if length == 0 {
        return value;
    }
    let below = match value {
        Value::Object(members) => members.values_mut().nth(step.index(length)),
        Value::Array(items) => items.get_mut(step.index(length)),
        _ => None,
    };
    pick(below.expect("the index is below the length"), rest)
}

fn full() -> Vec<(&'static str, Value)> {
    let specs = [
        (
            "Tenant",
            json!({
                "displayName": "City", "orderers": { "name": "orderers" }, "admins": ["city-admins"], "activeFrom": "2026-09-01T05:30:00Z",
                "contacts": [
                    { "type": "Technical", "mailbox": "it@example.org", "phone": "+49 431 1", "group": { "name": "it" }, "detailsSecretRef": { "name": "it" } },
                    { "type": "Functional", "mailbox": "office@example.org" },
                ],
                "protectionNeed": "Normal", "namespace": { "name": "city", "mode": "Adopt", "deletionPolicy": "Delete" },
                "isolation": "DedicatedPool", "pools": [{ "namespace": "media", "name": "own" }],
                "sites": { "allowed": ["kiel"], "preferred": ["kiel"], "jurisdictions": ["DE-SH"] },
                "limits": { "concurrentRooms": 10, "participants": 100, "participantsPerRoom": 50, "publishersPerRoom": 20, "publishers": 40, "egressMbps": 500 },
                "auth": {
                    "issuers": [{ "name": "main", "issuer": "https://id.example.org", "audience": "plenum", "jwks": { "type": "Url", "url": "https://id.example.org/jwks" } }],
                    "apiKeySecretRefs": [{ "name": "key-a" }],
                },
                "policy": { "e2ee": "Allowed", "recording": "Forbidden", "guests": "Allowed", "codecs": ["Opus", "VP8"] },
                "adHoc": { "rooms": "OnJoin", "className": "meeting", "maxDuration": "4h" },
                "retention": { "chat": "P0D", "audit": "P1Y" },
                "branding": { "name": "City", "colour": "#00aa11", "texts": [{ "key": "Welcome", "lang": "de", "text": "Moin" }] },
                "webhooks": [{ "name": "hook", "url": "https://example.org/h", "events": ["room_started"], "signingKeyRef": { "name": "key-a" }, "caSecretRef": { "name": "ca" } }],
                "serviceLevelName": "gold", "suspended": false, "suspendMode": "Terminate",
            }),
        ),
        (
            "ConferenceClass",
            json!({
                "displayName": "Lesson", "preset": "Classroom", "openers": [{ "type": "Group", "group": { "name": "teachers" } }],
                "permissions": [{ "role": "Guest", "microphone": true, "chat": "Off", "onEntry": "Muted" }],
                "lobby": "Guests", "guests": "Forbidden", "recording": "Allowed",
                "notices": [{ "id": "rules", "texts": [{ "lang": "de", "text": "Regeln" }], "acknowledge": true }],
                "retention": { "recordings": "P1M" }, "capacity": { "maxPublishers": 12 }, "media": { "profile": "Standard" },
                "lifecycle": { "emptyTimeout": "10m" },
                "poolSelector": { "matchLabels": { "tier": "shared" }, "matchExpressions": [{ "key": "zone", "operator": "Exists" }] },
            }),
        ),
        (
            "Conference",
            json!({
                "displayName": "Council", "openers": [{ "type": "Key", "key": { "name": "opener" } }, { "type": "Subject", "subject": { "id": "7f3a" } }],
                "roles": [{ "role": "Presenter", "groups": [{ "name": "board" }], "subjects": [{ "id": "7f3b" }] }],
                "schedule": { "start": "2026-09-01T18:00", "timeZone": "Europe/Berlin", "until": "21:00", "recurrence": "FREQ=DAILY", "except": ["2026-09-02"] },
                "placement": { "poolRef": { "namespace": "media", "name": "a" }, "sites": ["kiel"], "topology": "Spread", "maxNodes": 2 },
            }),
        ),
        (
            "MediaPool",
            json!({
                "autoscaling": {
                    "minReplicas": 1, "maxReplicas": 4, "buffer": { "type": "Rooms", "rooms": 5 },
                    "schedule": [{ "start": "2026-09-01T07:30", "timeZone": "Europe/Berlin", "duration": "6h", "minReplicas": 3 }],
                    "scaleDown": { "stabilization": "5m" },
                },
                "network": {
                    "type": "HostPort", "hostPort": { "range": { "min": 20000, "max": 20255 } }, "mux": "PortPerShard",
                    "addressSources": [{ "type": "Static", "addresses": ["192.0.2.1"] }, { "type": "PodIP" }], "ipFamilies": ["IPv4"],
                },
                "security": { "srtpLegacy": "Allowed" }, "capacity": { "rooms": 10 }, "drain": { "timeout": "1h" },
                "update": { "maxSurge": 1, "maxUnavailable": "10%" }, "disruption": { "protect": "Never" },
                "tenancy": { "allowedTenants": { "selector": {} } },
                "template": {
                    "metadata": { "labels": { "a": "b" }, "annotations": { "c": "d" } },
                    "resources": { "requests": { "cpu": 4, "memory": "2Gi" }, "limits": { "memory": "2Gi" } },
                    "nodeSelector": { "media": "yes" }, "tolerations": [{ "key": "media", "operator": "Exists", "effect": "NoSchedule" }],
                    "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway" }],
                    "priorityClassName": "media", "image": "", "imagePullSecrets": [{ "name": "registry" }],
                },
            }),
        ),
        (
            "MediaNode",
            json!({
                "poolRef": { "name": "a" }, "revision": "abc123", "ports": { "base": 20000, "count": 1 }, "unschedulable": true,
                "drain": { "requestedAt": "2026-09-01T05:30:00Z", "reason": "Update", "onDeadline": "Move" },
            }),
        ),
        (
            "MaintenanceWindow",
            json!({
                "schedule": { "start": "2026-09-01T19:00", "timeZone": "Europe/Berlin", "until": "06:00", "recurrence": "FREQ=WEEKLY;BYDAY=SA" },
                "action": "Drain", "reason": "Agreed", "announceBefore": "72h", "override": { "reason": "agreed by telephone" },
                "selector": {
                    "pools": [{ "namespace": "media", "name": "a" }], "sites": ["kiel"],
                    "nodes": { "matchLabels": { "rack": "r1" }, "matchExpressions": [{ "key": "zone", "operator": "Exists" }] },
                },
                "maxConcurrentNodes": 3, "suspended": false,
            }),
        ),
    ];
    specs
        .into_iter()
        .map(|(kind, spec)| {
            (kind, json!({ "apiVersion": "plenum.dev/v1alpha1", "kind": kind, "metadata": { "name": "example", "labels": { "a": "b" } }, "spec": spec }))
        })
        .collect()
}

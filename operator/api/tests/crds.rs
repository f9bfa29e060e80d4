// SPDX-License-Identifier: EUPL-1.2
//! The committed definitions are those of the types, and what they say holds for the types.

use std::path::Path;

use plenum_api::{KINDS, check, crd, schema::crd_yaml, schema_of};
use serde_json::{Value, json};

#[test]
fn committed_definitions_do_not_drift() {
    for kind in KINDS {
        let (name, text) = crd_yaml(kind).expect("a kind has a definition");
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../crds")
            .join(&name);
        let found =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("crds/{name}: {error}"));
        assert!(
            found == text,
            "crds/{name} differs from the types; run crdgen"
        );
    }
}

#[test]
fn every_string_list_and_number_is_bounded() {
    fn walk(schema: &Value, at: &str, missing: &mut Vec<String>) {
        let has = |name: &str| schema.get(name).is_some();
        let bounded = match schema["type"].as_str() {
            Some("string") => has("maxLength") || has("enum") || schema["format"] == "date-time",
            Some("array") => has("maxItems"),
            Some("integer") => has("minimum") && (has("maximum") || schema["format"] == "int64"),
            Some("object") => has("properties") || has("maxProperties"),
            _ => true,
        };
        if !bounded {
            missing.push(at.to_owned());
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(property, &format!("{at}/{name}"), missing);
        }
        for below in ["items", "additionalProperties"] {
            if schema[below].is_object() {
                walk(&schema[below], &format!("{at}/{below}"), missing);
            }
        }
    }
    let mut missing = Vec::new();
    for kind in KINDS {
        walk(
            schema_of(kind).expect("a kind has a schema"),
            kind,
            &mut missing,
        );
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn definitions_are_structural_and_small() {
    for kind in KINDS {
        let text = schema_of(kind).expect("a kind has a schema").to_string();
        for word in [
            "oneOf",
            "anyOf",
            "allOf",
            "$ref",
            "nullable",
            "uint",
            "preserve-unknown",
        ] {
            assert!(!text.contains(word), "{kind} has {word}");
        }
        assert!(text.len() < 100_000, "{kind}: {} bytes", text.len());
    }
}

#[test]
fn conditions_are_a_map_by_type() {
    for kind in KINDS {
        let conditions = &schema_of(kind).expect("a kind has a schema")["properties"]["status"]["properties"]
            ["conditions"];
        assert_eq!(conditions["x-kubernetes-list-type"], "map", "{kind}");
        assert_eq!(
            conditions["x-kubernetes-list-map-keys"],
            json!(["type"]),
            "{kind}"
        );
    }
}

#[test]
fn names_scopes_and_subresources_are_as_published() {
    let wanted = [
        ("Tenant", "tn", "Cluster"),
        ("ConferenceClass", "confclass", "Cluster"),
        ("Conference", "conf", "Namespaced"),
        ("MediaPool", "mp", "Namespaced"),
        ("MediaNode", "mn", "Namespaced"),
        ("MaintenanceWindow", "mw", "Cluster"),
    ];
    for (kind, short, scope) in wanted {
        let spec = &crd(kind).expect("a kind has a definition").spec;
        assert_eq!(
            spec.names.short_names.as_deref(),
            Some(&[short.to_owned()][..])
        );
        assert_eq!(
            spec.names.categories.as_deref(),
            Some(&["plenum".to_owned()][..])
        );
        assert_eq!(spec.scope, scope);
        let subresources = spec.versions[0]
            .subresources
            .as_ref()
            .expect("a status subresource");
        assert!(subresources.status.is_some());
        assert_eq!(subresources.scale.is_some(), kind == "MediaPool");
    }
}

#[test]
fn defaulted_objects_are_valid_and_read_back_the_same() {
    let mut pool = json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": "MediaPool", "metadata": { "name": "local" },
        "spec": { "replicas": 2, "network": { "type": "None", "hostPort": null } },
    });
    check::default_in_place("MediaPool", &mut pool);
    assert_eq!(pool["spec"]["drain"]["timeout"], "4h");
    assert!(
        pool["spec"]["network"].get("hostPort").is_none(),
        "an explicit null means not set"
    );
    assert_eq!(check::validate("MediaPool", &pool, None), []);
    let typed: plenum_api::MediaPool =
        serde_json::from_value(pool.clone()).expect("a valid object is readable");
    let back = serde_json::to_value(&typed).expect("a readable object is writable");
    assert_eq!(back["spec"], pool["spec"]);
}

#[test]
fn all_errors_come_at_once_and_in_order() {
    let tenant = json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": "Tenant", "metadata": { "name": "stadt" },
        "spec": {
            "displayname": "Stadt",
            "contacts": [
                { "type": "Technical", "mailbox": "it@example.org" },
                { "type": "Technical", "mailbox": "nobody" },
            ],
            "policy": { "guests": "allowed" },
            "limits": { "participants": 5, "participantsPerRoom": 6, "conferences": "many" },
            "sites": { "preferred": ["kiel"] },
        },
    });
    let found = check::validate("Tenant", &tenant, None);
    let brief: Vec<_> = found
        .iter()
        .map(|v| (v.pointer.as_str(), v.remedy.as_str()))
        .collect();
    assert_eq!(
        found,
        check::validate("Tenant", &tenant, None),
        "the order is the same each time"
    );
    let pointers: Vec<_> = brief.iter().map(|(pointer, _)| *pointer).collect();
    assert_eq!(
        pointers,
        [
            "/spec/contacts/1",
            "/spec/contacts/1/mailbox",
            "/spec/displayName",
            "/spec/displayname",
            "/spec/limits",
            "/spec/limits/conferences",
            "/spec/policy/guests",
            "/spec/sites",
        ]
    );
    assert!(brief.contains(&("/spec/displayname", "did you mean displayName?")));
    assert!(
        brief.iter().any(|(at, remedy)| *at == "/spec/policy/guests"
            && remedy.starts_with("did you mean Allowed?"))
    );
}

#[test]
fn one_typing_error_is_one_violation() {
    let pool = json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": "MediaPool", "metadata": { "name": "local" },
        "spec": { "replicas": 2, "network": { "type": "HostPort", "hostport": { "range": { "min": 20000, "max": 20255 } } } },
    });
    let found = check::validate("MediaPool", &pool, None);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].remedy, "did you mean hostPort?");
}

#[test]
fn largest_valid_objects_stay_within_their_budget() {
    // The more objects of a kind there are, the smaller the budget. Notices of a class and the maps of a pool's template
    // are wide by design; there are fewer than 50 of either.
    let budgets = [
        ("Conference", 60_000),
        ("MediaNode", 15_000),
        ("MaintenanceWindow", 50_000),
        ("Tenant", 60_000),
        ("ConferenceClass", 75_000),
        ("MediaPool", 110_000),
    ];
    for (kind, budget) in budgets {
        let properties = &schema_of(kind).expect("a kind has a schema")["properties"];
        let size = largest(&properties["spec"]) + largest(&properties["status"]);
        assert!(size <= budget, "{kind}: {size} bytes, {budget} allowed");
    }
}

/// Upper bound of the JSON text of a value, one byte per character.
fn largest(schema: &Value) -> u64 {
    let number = |name: &str| schema[name].as_u64().unwrap_or(0);
    if schema["x-kubernetes-int-or-string"] == true {
        return number("maxLength") + 2;
    }
    match schema["type"].as_str() {
        Some("string") => match schema["enum"].as_array() {
            Some(values) => values
                .iter()
                .map(|value| value.to_string().len() as u64)
                .max()
                .unwrap_or(0),
            None if schema["format"] == "date-time" => 22,
            None => number("maxLength") + 2,
        },
        Some("array") => 2 + number("maxItems") * (largest(&schema["items"]) + 1),
        Some("object") => {
            let members = schema["properties"].as_object().into_iter().flatten();
            let sizes =
                members.map(|(name, property)| (name, name.len() as u64 + 4 + largest(property)));
            let rules = schema["x-kubernetes-validations"].to_string();
            // Of a union only one member is set beside its type.
            let fixed: u64 = if rules.contains("set exactly the member") {
                let (discriminator, members): (Vec<_>, Vec<_>) =
                    sizes.partition(|(name, _)| *name == "type");
                let sum =
                    |sizes: &[(&String, u64)]| sizes.iter().map(|(_, size)| size).sum::<u64>();
                sum(&discriminator) + members.iter().map(|(_, size)| *size).max().unwrap_or(0)
            } else {
                sizes.map(|(_, size)| size).sum()
            };
            let keys = if schema["additionalProperties"].is_object() {
                number("maxProperties") * (317 + 4 + largest(&schema["additionalProperties"]))
            } else {
                0
            };
            2 + fixed + keys
        }
        Some("boolean") => 5,
        _ => 20,
    }
}

#[test]
fn realistic_full_conference_fits_into_ten_kilobytes() {
    let group = |name: &str| json!({ "name": name, "issuer": "main" });
    let people = |role: &str| json!({ "role": role, "groups": [group("staff"), group("board")], "subjects": [{ "id": "7f3a-11" }, { "id": "7f3a-12" }] });
    let condition = |type_: &str| {
        json!({
            "type": type_, "status": "True", "reason": "Reconciled", "observedGeneration": 3,
            "lastTransitionTime": "2026-09-01T05:30:00Z", "message": "everything that was declared is in effect",
        })
    };
    let conditions = [
        "Ready",
        "Reconciling",
        "Stalled",
        "Admitted",
        "Published",
        "CapacityReserved",
        "Placed",
        "Active",
    ]
    .map(condition);
    let conference = json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": "Conference", "metadata": { "name": "council", "namespace": "tenant-city" },
        "spec": {
            "displayName": "Council", "className": "meeting", "roomName": "council",
            "openers": [{ "type": "Group", "group": group("board") }, { "type": "Key", "key": { "name": "council-opener" } }],
            "passwordSecretRef": { "name": "council-password" }, "lobby": "Guests", "guests": "Allowed",
            "roles": [people("Moderator"), people("Presenter"), people("Participant")],
            "notices": [{
                "id": "privacy", "acknowledge": true,
                "texts": [{ "lang": "de", "text": "ä".repeat(400) }, { "lang": "en", "text": "a".repeat(400) }],
            }],
            "retention": { "chat": "P0D", "userActions": "P10D" },
            "schedule": {
                "start": "2026-09-01T18:00", "timeZone": "Europe/Berlin", "until": "21:00",
                "recurrence": "FREQ=MONTHLY;BYDAY=1TU;COUNT=12", "except": ["2027-01-05"],
            },
            "capacity": { "maxParticipants": 200, "expectedParticipants": 60, "maxPublishers": 30, "reserve": true },
            "media": { "profile": "Standard", "maxBitrateKbps": 2500, "screenShare": true, "e2ee": "Allowed" },
            "placement": { "poolRef": { "namespace": "media", "name": "shared" }, "sites": ["kiel"], "topology": "Pack", "maxNodes": 2 },
            "lifecycle": { "emptyTimeout": "10m", "maxDuration": "6h", "ttlAfterEnd": "720h" },
        },
        "status": {
            "observedGeneration": 3, "phase": "Active", "tenant": "city", "roomId": "abcdefghijklmnopqrstuvwxyz",
            "joinURL": "https://meet.example.org/c/abcdefghijklmnopqrstuvwxyz",
            "window": { "opensAt": "2026-09-01T15:45:00Z", "closesAt": "2026-09-01T19:15:00Z" },
            "assignment": { "site": "kiel", "pool": "shared", "epoch": 4, "nodes": [{ "name": "shared-abc123-x1y2z" }] },
            "class": { "name": "meeting", "revision": "abc123" }, "peakParticipants": 61,
            "conditions": conditions,
        },
    });
    assert_eq!(check::validate("Conference", &conference, None), []);
    assert!(
        conference.to_string().len() < 8_000,
        "{} bytes, and managedFields come on top",
        conference.to_string().len()
    );
    let typed: plenum_api::Conference =
        serde_json::from_value(conference.clone()).expect("a valid object is readable");
    typed
        .spec
        .schedule
        .as_ref()
        .expect("a schedule")
        .schedule
        .to_evaluator()
        .expect("a schedule that can be evaluated");
    let mut defaulted = conference;
    check::default_in_place("Conference", &mut defaulted);
    assert_eq!(
        serde_json::to_value(&typed).expect("writable")["spec"],
        defaulted["spec"]
    );
}

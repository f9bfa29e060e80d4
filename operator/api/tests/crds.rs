// SPDX-License-Identifier: EUPL-1.2
//! The committed definitions are those of the types, and what they say holds for the types.

use std::path::Path;

use plenum_api::{KINDS, check, crd, schema::crd_yaml, schema_of};
use serde_json::{Value, json};

#[test]
fn committed_definitions_do_not_drift() {
    for kind in KINDS {
        let (name, text) = crd_yaml(kind).expect("a kind has a definition");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds").join(&name);
        let found = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("crds/{name}: {error}"));
        assert!(found == text, "crds/{name} differs from the types; run crdgen");
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
        walk(schema_of(kind).expect("a kind has a schema"), kind, &mut missing);
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn definitions_are_structural_and_small() {
    for kind in KINDS {
        let text = schema_of(kind).expect("a kind has a schema").to_string();
        for word in ["oneOf", "anyOf", "allOf", "$ref", "nullable", "uint", "preserve-unknown"] {
            assert!(!text.contains(word), "{kind} has {word}");
        }
        assert!(text.len() < 100_000, "{kind}: {} bytes", text.len());
    }
}

#[test]
fn conditions_are_a_map_by_type() {
    for kind in KINDS {
        let conditions = &schema_of(kind).expect("a kind has a schema")["properties"]["status"]["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-type"], "map", "{kind}");
        assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]), "{kind}");
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
    ];
    for (kind, short, scope) in wanted {
        let spec = &crd(kind).expect("a kind has a definition").spec;
        assert_eq!(spec.names.short_names.as_deref(), Some(&[short.to_owned()][..]));
        assert_eq!(spec.names.categories.as_deref(), Some(&["plenum".to_owned()][..]));
        assert_eq!(spec.scope, scope);
        let subresources = spec.versions[0].subresources.as_ref().expect("a status subresource");
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
    assert!(pool["spec"]["network"].get("hostPort").is_none(), "an explicit null means not set");
    assert_eq!(check::validate("MediaPool", &pool, None), []);
    let typed: plenum_api::MediaPool = serde_json::from_value(pool.clone()).expect("a valid object is readable");
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
    let brief: Vec<_> = found.iter().map(|v| (v.pointer.as_str(), v.remedy.as_str())).collect();
    assert_eq!(found, check::validate("Tenant", &tenant, None), "the order is the same each time");
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
    assert!(brief.iter().any(|(at, remedy)| *at == "/spec/policy/guests" && remedy.starts_with("did you mean Allowed?")));
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

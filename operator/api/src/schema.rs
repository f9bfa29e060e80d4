// SPDX-License-Identifier: EUPL-1.2
//! The resource definitions as they are installed.
//!
//! Some things are changed after the derive. `nullable` goes: without it an API server prunes an explicit `null` before
//! defaulting, so `x: null` means "not set", as people expect of a manifest. And the formats `uint8` to `uint64` go,
//! because Kubernetes knows none of them; the bounds say the same.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{Conference, ConferenceClass, MaintenanceWindow, MediaNode, MediaPool, Tenant};

/// The kinds, in the order in which they depend on each other.
pub const KINDS: &[&str] = &[
    "Tenant",
    "ConferenceClass",
    "Conference",
    "MediaPool",
    "MediaNode",
    "MaintenanceWindow",
];

/// The definition of a kind.
#[must_use]
pub fn crd(kind: &str) -> Option<&'static CustomResourceDefinition> {
    Some(&entry(kind)?.definition)
}

/// The structural schema of a kind (`openAPIV3Schema`).
#[must_use]
pub fn schema_of(kind: &str) -> Option<&'static Value> {
    Some(&entry(kind)?.schema)
}

struct Entry {
    kind: &'static str,
    definition: CustomResourceDefinition,
    schema: Value,
}

fn entry(kind: &str) -> Option<&'static Entry> {
    static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
        [
            ("Tenant", Tenant::crd()),
            ("ConferenceClass", ConferenceClass::crd()),
            ("Conference", Conference::crd()),
            ("MediaPool", MediaPool::crd()),
            ("MediaNode", MediaNode::crd()),
            ("MaintenanceWindow", MaintenanceWindow::crd()),
        ]
        .map(|(kind, derived)| finish(kind, derived))
        .into()
    });
    ENTRIES.iter().find(|entry| entry.kind == kind)
}

fn finish(kind: &'static str, mut definition: CustomResourceDefinition) -> Entry {
    let version = definition
        .spec
        .versions
        .first_mut()
        .expect("invariant: the derive emits one version");
    let validation = version
        .schema
        .as_mut()
        .expect("invariant: the derive emits a schema");
    let mut schema = serde_json::to_value(
        validation
            .open_api_v3_schema
            .as_ref()
            .expect("invariant: the derive emits a schema"),
    )
    .expect("invariant: a schema is JSON");
    tidy(&mut schema);
    // Names of objects and namespaces end up in DNS; the bound also lets rules over the name stay within their budget.
    if let Some(metadata) = schema.pointer_mut("/properties/metadata") {
        *metadata = serde_json::json!({ "type": "object", "properties": { "name": { "type": "string", "maxLength": 253 } } });
    }
    // A new object has no status, and without one kstatus (Flux, Helm) takes it for done. No generation is 0: "not looked at yet".
    if let Some(status) = schema.pointer_mut("/properties/status") {
        status["default"] = serde_json::json!({ "observedGeneration": 0 });
    }
    validation.open_api_v3_schema = Some(
        serde_json::from_value(schema.clone())
            .expect("invariant: tidying keeps the shape of a schema"),
    );
    Entry {
        kind,
        definition,
        schema,
    }
}

fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.remove("nullable");
            if members
                .get("format")
                .and_then(Value::as_str)
                .is_some_and(|format| format.starts_with("uint"))
            {
                members.remove("format");
            }
            members.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        // The type of a definition keeps bounds as floats; integers read better and compare the same.
        Value::Number(number) => {
            if let Some(whole) = number
                .as_f64()
                .filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15)
            {
                *number = serde_json::Number::from(whole as i64);
            }
        }
        _ => {}
    }
}

/// File name and text of a kind's definition.
#[must_use]
pub fn crd_yaml(kind: &str) -> Option<(String, String)> {
    let definition = crd(kind)?;
    let mut tree = serde_json::to_value(definition).expect("invariant: a definition is plain data");
    tidy(&mut tree);
    let text = serde_saphyr::to_string(&tree).expect("invariant: JSON is YAML");
    let name = format!(
        "{}.{}.yaml",
        definition.spec.names.plural, definition.spec.group
    );
    Some((
        name,
        format!("# SPDX-License-Identifier: EUPL-1.2\n# Written by crdgen; do not edit.\n{text}"),
    ))
}

// SPDX-License-Identifier: EUPL-1.2
//! A small town as manifests declare it.

use operator_core::Objects;
use serde_json::{Value, json};

/// Tenant, class, conference, pool, API key; in this order.
pub(crate) fn all() -> Vec<Value> {
    vec![
        tenant("town"),
        json!({
            "apiVersion": "plenum.dev/v1alpha1", "kind": "ConferenceClass",
            "metadata": { "name": "meeting", "annotations": { "plenum.dev/is-default-class": "true" } },
            "spec": { "preset": "Meeting" },
        }),
        conference("council"),
        pool("local", 2),
        secret(
            "backend",
            "plenum.dev/api-key",
            json!({
                "apiKey": "town-key", "apiSecret": "0123456789abcdef0123456789abcdef",
            }),
        ),
    ]
}

pub(crate) fn tenant(name: &str) -> Value {
    let keys = if name == "town" {
        json!([{ "name": "backend" }])
    } else {
        json!([])
    };
    json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": "Tenant", "metadata": { "name": name },
        "spec": {
            "displayName": name,
            "contacts": [
                { "type": "Technical", "mailbox": "it@town.example" },
                { "type": "Functional", "mailbox": "office@town.example" },
            ],
            "auth": { "apiKeySecretRefs": keys },
        },
    })
}

pub(crate) fn conference(name: &str) -> Value {
    json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": "Conference",
        "metadata": { "name": name, "namespace": "tenant-town" },
        "spec": { "openers": [{ "type": "Key", "key": { "name": "opener" } }] },
    })
}

pub(crate) fn pool(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": "MediaPool",
        "metadata": { "name": name, "namespace": "media" },
        "spec": { "replicas": replicas, "network": { "type": "None" } },
    })
}

pub(crate) fn secret(name: &str, type_: &str, data: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "namespace": "tenant-town" },
        "type": type_, "stringData": data,
    })
}

pub(crate) fn objects(values: &[Value]) -> Objects {
    let mut objects = Objects::default();
    for value in values {
        objects.insert(value).expect("a readable object");
    }
    objects
}

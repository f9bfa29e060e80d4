// SPDX-License-Identifier: EUPL-1.2

use serde_json::{Value, json};

use super::*;

fn read<K: Watched>(value: &Value) -> K {
    serde_json::from_value(value.clone()).expect("an object")
}

/// Whether a change of one member makes a new plan.
fn plans_anew<K: Watched>(object: &Value, pointer: &str, new: Value) -> bool {
    let mut changed = object.clone();
    *changed.pointer_mut(pointer).expect("a member") = new;
    changed["metadata"]["resourceVersion"] = "2".into();
    !read::<K>(&changed).plans_as(&read::<K>(object))
}

#[test]
fn what_operators_and_kubelets_write_makes_no_new_plan() {
    let conference = json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": "Conference",
        "metadata": { "name": "x", "namespace": "y", "uid": "u", "generation": 1, "resourceVersion": "1", "labels": { "a": "b" } },
        "spec": {}, "status": { "roomId": "r" },
    });
    let anew = |pointer: &str, new: Value| plans_anew::<Conference>(&conference, pointer, new);
    assert!(!anew("/status/roomId", json!("s")));
    assert!(anew("/metadata/generation", json!(2)));
    assert!(anew("/metadata/labels/a", json!("c")));
    assert!(anew("/metadata/uid", json!("v")));

    let machine = json!({
        "metadata": { "name": "m", "uid": "u", "labels": { "zone": "a" } },
        "status": { "conditions": [{ "type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z" }] },
    });
    let anew = |pointer: &str, new: Value| plans_anew::<Node>(&machine, pointer, new);
    let beat = "/status/conditions/0/lastHeartbeatTime";
    assert!(!anew(beat, json!("2026-01-01T00:05:00Z")));
    assert!(anew("/metadata/labels/zone", json!("b")));
}

#[test]
fn where_a_media_node_is_makes_a_new_plan_and_its_load_none() {
    let node = json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": "MediaNode",
        "metadata": { "name": "x", "namespace": "y", "uid": "u", "generation": 1 },
        "spec": { "poolRef": { "name": "p" }, "revision": "r", "ports": { "base": 20000, "count": 1 } },
        "status": {
            "epoch": 1, "nodeName": "m", "grpcEndpoint": "192.0.2.1:7882", "addresses": [],
            "load": { "rooms": 1, "participants": 2, "egressMbps": 4 },
        },
    });
    let anew = |pointer: &str, new: Value| plans_anew::<MediaNode>(&node, pointer, new);
    assert!(!anew("/status/load/rooms", json!(8)));
    assert!(anew("/status/epoch", json!(2)));
    assert!(anew("/status/grpcEndpoint", json!("192.0.2.2:7882")));
    assert!(anew("/status/nodeName", json!("n")));
    assert!(anew("/spec/revision", json!("s")));
}

// SPDX-License-Identifier: EUPL-1.2
//! What stands around the nodes of a pool.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use operator_core::{
    Name,
    media_pool::{
        network::{ControlPlane, policy, service},
        port_count,
    },
};
use plenum_api::{MediaPoolSpec, media_node::NodePorts};
use serde_json::json;

fn pool(network: serde_json::Value) -> MediaPoolSpec {
    serde_json::from_value(json!({ "replicas": 1, "network": network })).expect("a pool")
}

fn service_of(spec: &MediaPoolSpec, ports: NodePorts) -> Option<serde_json::Value> {
    service(&Name::new("media", "a"), spec, "a-123456-bcdfg", ports)
        .map(|service| serde_json::to_value(service).expect("JSON"))
}

#[test]
fn a_node_port_is_the_port_that_is_offered_and_the_clients_address_arrives() {
    let spec = pool(
        json!({ "type": "NodePort", "nodePort": { "range": { "min": 30000, "max": 30010 } } }),
    );
    let service = service_of(
        &spec,
        NodePorts {
            base: 30_003,
            count: 1,
        },
    )
    .expect("a Service");
    let spec = &service["spec"];
    assert_eq!(spec["type"], "NodePort");
    assert_eq!(spec["externalTrafficPolicy"], "Local");
    assert_eq!(spec["publishNotReadyAddresses"], true);
    assert_eq!(
        spec["selector"],
        json!({ "plenum.dev/node": "a-123456-bcdfg" })
    );
    for (port, protocol) in spec["ports"]
        .as_array()
        .expect("ports")
        .iter()
        .zip(["UDP", "TCP"])
    {
        assert_eq!(
            (&port["port"], &port["nodePort"], &port["targetPort"]),
            (&json!(30_003), &json!(30_003), &json!(30_003))
        );
        assert_eq!(port["protocol"], protocol);
    }
    assert_eq!(spec["ipFamilyPolicy"], "PreferDualStack");
}

#[test]
fn a_shared_address_has_its_keys_and_no_local_policy() {
    let shared = pool(json!({ "type": "LoadBalancer", "loadBalancer": {
        "sharedAddress": true, "class": "metallb", "annotations": { "example.org/pool": "public" } } }));
    let service = service_of(
        &shared,
        NodePorts {
            base: 20_000,
            count: 1,
        },
    )
    .expect("a Service");
    assert_eq!(service["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(service["spec"]["loadBalancerClass"], "metallb");
    let annotations = &service["metadata"]["annotations"];
    assert_eq!(annotations["metallb.io/allow-shared-ip"], "plenum-media-a");
    assert_eq!(
        annotations["lbipam.cilium.io/sharing-key"],
        "plenum-media-a"
    );
    assert_eq!(annotations["example.org/pool"], "public");
    let own = pool(json!({ "type": "LoadBalancer", "loadBalancer": {}, "ipFamilies": ["IPv6"] }));
    let service = service_of(
        &own,
        NodePorts {
            base: 20_000,
            count: 1,
        },
    )
    .expect("a Service");
    assert_eq!(service["spec"]["externalTrafficPolicy"], "Local");
    assert_eq!(service["spec"]["ipFamilies"], json!(["IPv6"]));
    assert_eq!(service["spec"]["ipFamilyPolicy"], "SingleStack");
    assert_eq!(service["spec"]["ports"][0].get("nodePort"), None);
}

#[test]
fn what_is_reached_through_its_machine_needs_no_service() {
    for network in [
        json!({ "type": "None" }),
        json!({ "type": "HostPort", "hostPort": { "range": { "min": 20000, "max": 20255 } } }),
        json!({ "type": "HostNetwork", "hostNetwork": { "range": { "min": 20000, "max": 20255 } } }),
    ] {
        let spec = pool(network);
        assert_eq!(
            service_of(
                &spec,
                NodePorts {
                    base: 20_000,
                    count: port_count(&spec)
                }
            ),
            None
        );
    }
}

#[test]
fn a_block_of_ports_has_a_pair_of_service_ports_each() {
    let mut spec = pool(
        json!({ "type": "NodePort", "mux": "PortPerShard", "nodePort": { "range": { "min": 30000, "max": 30010 } } }),
    );
    spec.template = serde_json::from_value(json!({ "resources": { "requests": { "cpu": "4" } } }))
        .expect("a template");
    let count = port_count(&spec);
    assert_eq!(count, 3);
    let service = service_of(
        &spec,
        NodePorts {
            base: 30_003,
            count,
        },
    )
    .expect("a Service");
    assert_eq!(service["spec"]["ports"].as_array().map(Vec::len), Some(6));
    assert_eq!(service["spec"]["ports"][5]["nodePort"], 30_005);
}

#[test]
fn the_policy_lets_media_in_from_anywhere_and_calls_from_the_control_plane_only() {
    let spec = pool(
        json!({ "type": "HostPort", "hostPort": { "range": { "min": 20000, "max": 20255 } } }),
    );
    let labels = [(
        "app.kubernetes.io/component".to_owned(),
        "control-plane".to_owned(),
    )]
    .into();
    let control_plane = ControlPlane {
        namespace: "plenum-system",
        labels: &labels,
    };
    let policy = policy(&Name::new("media", "a"), &spec, &control_plane);
    let spec = policy.spec.expect("a spec");
    let selected = spec
        .pod_selector
        .and_then(|selector| selector.match_labels)
        .expect("labels");
    assert_eq!(
        selected.get("plenum.dev/pool").map(String::as_str),
        Some("a")
    );
    let ingress = spec.ingress.expect("rules");
    let media = ingress.first().expect("media");
    assert_eq!(media.from, None);
    let ports = media.ports.as_ref().expect("ports");
    assert!(
        ports.iter().all(
            |port| port.port == Some(IntOrString::Int(20_000)) && port.end_port == Some(20_255)
        )
    );
    let calls = ingress.iter().filter(|rule| {
        rule.ports
            .iter()
            .flatten()
            .any(|port| port.port == Some(IntOrString::Int(7882)))
    });
    for rule in calls {
        let from = rule.from.as_ref().expect("peers");
        assert!(from.iter().all(|peer| peer.pod_selector.is_some()
            && peer.namespace_selector.is_some()
            && peer.ip_block.is_none()));
    }
}

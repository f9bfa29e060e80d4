// SPDX-License-Identifier: EUPL-1.2

use serde_json::{Value, json};

use super::*;
use crate::media_pool::{port_count, revision::revision};

const SETTINGS: PodSettings<'static> = PodSettings {
    image: "registry.example/media-node@sha256:00",
    control_plane: "plenum-control-plane-replicas.plenum-system.svc:7882",
    site: "kiel",
    version: "0.1.0",
};

fn pool(spec: Value) -> MediaPool {
    let mut pool = json!({ "replicas": 1, "network": { "type": "HostPort", "hostPort": { "range": { "min": 20000, "max": 20255 } } } });
    for (key, value) in spec.as_object().expect("members") {
        pool[key] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": "MediaPool",
        "metadata": { "name": "a", "namespace": "media" }, "spec": pool,
    }))
    .expect("a pool")
}

fn node(pool: &MediaPool) -> MediaNode {
    serde_json::from_value(json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": "MediaNode",
        "metadata": { "name": "a-abc123-x1y2z", "namespace": "media", "uid": "6f1c0000-0000-4000-8000-000000000000" },
        "spec": { "poolRef": { "name": "a" }, "revision": "abc123", "ports": { "base": 20010, "count": port_count(&pool.spec) } },
    }))
    .expect("a node")
}

fn rendered(spec: Value) -> Value {
    let pool = pool(spec);
    serde_json::to_value(pod_of(&pool, &node(&pool), &SETTINGS)).expect("JSON")
}

fn arguments(pod: &Value) -> Vec<&str> {
    let all = pod["spec"]["containers"][0]["args"].as_array();
    all.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

#[test]
fn a_pod_is_what_it_was_when_its_pool_did_not_change() {
    // Golden: if this changes, every pool of every cluster is replaced at the next upgrade. That may be right; then change it.
    let pool = pool(json!({}));
    assert_eq!(revision(&pod_of(&pool, &node(&pool), &SETTINGS)), "69d6af");
}

#[test]
fn a_pod_is_restricted_but_for_its_ports_and_mounts_nothing_that_kubectl_drain_refuses() {
    let pod = rendered(json!({}));
    let spec = &pod["spec"];
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        spec["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    assert_eq!(spec["automountServiceAccountToken"], false);
    let container = &spec["containers"][0]["securityContext"];
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["capabilities"]["drop"], json!(["ALL"]));
    let volumes = spec["volumes"].as_array().expect("volumes");
    assert_eq!(volumes.len(), 1);
    assert_eq!(volumes[0]["secret"]["secretName"], "a-abc123-x1y2z-tls");
    assert!(!pod.to_string().contains("emptyDir"));
    assert!(!pod.to_string().contains("preStop"));
}

#[test]
fn a_pod_says_who_it_belongs_to_and_that_it_is_protected() {
    let pod = rendered(json!({
        "template": { "metadata": {
            "labels": { "team": "media", "plenum.dev/pool": "other", "plenum.dev/protected": "false" },
            "annotations": { "note": "x", "karpenter.sh/do-not-disrupt": "false" },
        } },
    }));
    let labels = &pod["metadata"]["labels"];
    for (key, value) in [
        (names::LABEL_POOL, "a"),
        (names::LABEL_NODE, "a-abc123-x1y2z"),
        (names::LABEL_REVISION, "abc123"),
        (names::LABEL_SITE, "kiel"),
        (names::LABEL_PROTECTED, "true"),
        ("team", "media"),
        ("app.kubernetes.io/component", "media-node"),
        ("app.kubernetes.io/version", "0.1.0"),
    ] {
        assert_eq!(labels[key], value, "{key}");
    }
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(
        annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"],
        "false"
    );
    assert_eq!(
        annotations["karpenter.sh/do-not-disrupt"], "true",
        "ours wins"
    );
    assert_eq!(annotations["note"], "x");
    let owner = &pod["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["controller"]),
        (&json!("MediaNode"), &json!(true))
    );
}

#[test]
fn pods_of_a_pool_that_protects_never_carry_no_label_and_no_annotation() {
    let pod = rendered(json!({ "disruption": { "protect": "Never" } }));
    assert!(
        pod["metadata"]["labels"]
            .get(names::LABEL_PROTECTED)
            .is_none()
    );
    assert_eq!(pod["metadata"]["annotations"], json!({}));
}

#[test]
fn a_pod_may_take_as_long_as_its_drain_and_a_minute_unless_it_hangs() {
    let pod = rendered(json!({ "drain": { "timeout": "2h", "announceBefore": "5m" } }));
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 7260);
    let liveness = &pod["spec"]["containers"][0]["livenessProbe"];
    assert_eq!(liveness["terminationGracePeriodSeconds"], 10);
}

#[test]
fn exposure_decides_about_the_ports_of_the_machine() {
    let range = json!({ "range": { "min": 20000, "max": 20255 } });
    let node_ports = json!({ "range": { "min": 30000, "max": 30255 } });
    let table = [
        (
            json!({ "type": "HostPort", "hostPort": range }),
            false,
            true,
            7882,
            7881,
        ),
        (
            json!({ "type": "HostNetwork", "hostNetwork": range }),
            true,
            true,
            20011,
            20012,
        ),
        (
            json!({ "type": "NodePort", "nodePort": node_ports }),
            false,
            false,
            7882,
            7881,
        ),
        (
            json!({ "type": "LoadBalancer", "loadBalancer": {} }),
            false,
            false,
            7882,
            7881,
        ),
        (json!({ "type": "None" }), false, false, 7882, 7881),
    ];
    for (network, host_network, host_port, grpc, probes) in table {
        let pod = rendered(json!({ "network": network }));
        let spec = &pod["spec"];
        assert_eq!(spec["hostNetwork"] == true, host_network, "{network}");
        assert_eq!(
            spec["dnsPolicy"] == "ClusterFirstWithHostNet",
            host_network,
            "{network}"
        );
        let ports = spec["containers"][0]["ports"].as_array().expect("ports");
        let of = |port: u16| {
            ports
                .iter()
                .filter(move |entry| entry["containerPort"] == port)
        };
        assert_eq!(of(20010).count(), 2, "UDP and TCP: {network}");
        for entry in of(20010) {
            assert_eq!(
                entry.get("hostPort"),
                host_port.then_some(&json!(20010)),
                "{network}"
            );
        }
        for (port, name) in [(grpc, "grpc"), (probes, "probes")] {
            assert!(
                of(port).any(|entry| entry["name"] == name),
                "{name} {network}"
            );
        }
        assert!(
            arguments(&pod).contains(&format!("--grpc-listen=[::]:{grpc}").as_str()),
            "{network}"
        );
        assert_eq!(
            spec["containers"][0]["readinessProbe"]["httpGet"]["port"], probes,
            "{network}"
        );
        for entry in ports {
            assert!(
                entry["name"].as_str().is_some_and(|name| name.len() <= 15),
                "{entry}"
            );
        }
    }
}

#[test]
fn shards_come_from_the_request_and_have_a_port_each_where_the_pool_says_so() {
    let pod = rendered(json!({
        "network": { "type": "None", "mux": "PortPerShard", "ipFamilies": ["IPv4"] },
        "template": { "resources": { "requests": { "cpu": "4" }, "limits": { "memory": "2Gi" } } },
    }));
    let all = arguments(&pod);
    for wanted in [
        "--shards=3",
        "--ports=PortPerShard",
        "--media-port=20010",
        "--metrics-listen=0.0.0.0:7881",
    ] {
        assert!(all.contains(&wanted), "{wanted}: {all:?}");
    }
    let ports = pod["spec"]["containers"][0]["ports"]
        .as_array()
        .expect("ports");
    assert_eq!(ports.len(), 3 * 2 + 2);
    assert_eq!(
        pod["spec"]["containers"][0]["resources"]["requests"]["cpu"],
        "4"
    );
}

#[test]
fn the_template_reaches_the_pod() {
    let pod = rendered(json!({
        "template": {
            "nodeSelector": { "media": "yes" }, "tolerations": [{ "key": "media", "operator": "Exists", "effect": "NoSchedule" }],
            "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway" }],
            "priorityClassName": "media-critical", "image": "registry.example/own@sha256:11", "imagePullSecrets": [{ "name": "registry" }],
        },
    }));
    let spec = &pod["spec"];
    assert_eq!(spec["nodeSelector"]["media"], "yes");
    assert_eq!(spec["tolerations"][0]["operator"], "Exists");
    assert_eq!(
        spec["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"][names::LABEL_POOL],
        "a"
    );
    assert_eq!(spec["priorityClassName"], "media-critical");
    assert_eq!(
        spec["containers"][0]["image"],
        "registry.example/own@sha256:11"
    );
    assert_eq!(spec["imagePullSecrets"][0]["name"], "registry");
    assert_eq!(
        rendered(json!({}))["spec"]["containers"][0]["image"],
        SETTINGS.image
    );
}

#[test]
fn a_pod_can_be_kept_away_from_machines() {
    let pool = pool(json!({}));
    let plain = pod_of(&pool, &node(&pool), &SETTINGS);
    assert_eq!(avoiding(plain.clone(), &[]), plain);
    let kept =
        serde_json::to_value(avoiding(plain, &["m1".to_owned(), "m2".to_owned()])).expect("JSON");
    let terms = &kept["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        ["nodeSelectorTerms"];
    assert_eq!(
        terms.as_array().map(Vec::len),
        Some(1),
        "terms are alternatives"
    );
    assert_eq!(
        terms[0]["matchFields"][1],
        json!({ "key": "metadata.name", "operator": "NotIn", "values": ["m2"] })
    );
}

#[test]
fn the_endpoint_of_a_node_is_an_address_with_the_port_of_its_exposure() {
    let pool = pool(json!({}));
    let ports = node(&pool).spec.ports;
    assert_eq!(
        grpc_endpoint(&pool.spec, ports, "10.0.0.7".parse().expect("an address")),
        "10.0.0.7:7882"
    );
    assert_eq!(
        grpc_endpoint(&pool.spec, ports, "fd00::7".parse().expect("an address")),
        "[fd00::7]:7882"
    );
}

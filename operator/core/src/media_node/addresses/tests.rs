// SPDX-License-Identifier: EUPL-1.2

use serde_json::{Value, json};

use super::*;

const PORTS: NodePorts = NodePorts {
    base: 20_010,
    count: 1,
};

fn network(sources: Value) -> Network {
    serde_json::from_value(json!({ "type": "None", "addressSources": sources })).expect("a network")
}

fn machine() -> Node {
    serde_json::from_value(json!({
        "metadata": {
            "labels": { "example.org/ip": "198.51.100.1", "example.org/ip6": "2001-db8--1", "example.org/bad": "none" },
            "annotations": { "example.org/ips": "198.51.100.2, 2001:db8::2" },
        },
        "status": { "addresses": [
            { "type": "InternalIP", "address": "10.0.0.1" }, { "type": "InternalIP", "address": "fd00::1" },
            { "type": "ExternalIP", "address": "203.0.113.1" }, { "type": "Hostname", "address": "m1" },
        ] },
    }))
    .expect("a machine")
}

fn pod() -> Pod {
    serde_json::from_value(json!({ "status": { "podIP": "10.1.0.7", "podIPs": [{ "ip": "10.1.0.7" }, { "ip": "fd01::7" }] } })).expect("a pod")
}

fn service(ingress: Value) -> Service {
    serde_json::from_value(json!({ "status": { "loadBalancer": { "ingress": ingress } } }))
        .expect("a Service")
}

/// What is offered, or what was tried.
fn offers(sources: Value, service: Option<&Service>) -> Result<Vec<String>, Vec<String>> {
    let (machine, pod) = (machine(), pod());
    let around = Surroundings {
        machine: Some(&machine),
        pod: Some(&pod),
        service,
        seen_at: &[],
    };
    resolve(&network(sources), PORTS, around)
        .map(|all| all.into_iter().map(|one| one.address).collect())
        .map_err(|error| error.tried)
}

#[test]
fn each_source_yields_what_it_says() {
    let balancer = service(json!([{ "ip": "192.0.2.9" }, { "ip": "2001:db8::9" }]));
    let table = [
        (
            json!({ "type": "NodeLabel", "key": "example.org/ip" }),
            vec!["198.51.100.1"],
        ),
        (
            json!({ "type": "NodeLabel", "key": "example.org/ip6" }),
            vec!["2001:db8::1"],
        ),
        (
            json!({ "type": "NodeAnnotation", "key": "example.org/ips" }),
            vec!["198.51.100.2", "2001:db8::2"],
        ),
        (json!({ "type": "NodeExternalIP" }), vec!["203.0.113.1"]),
        (
            json!({ "type": "NodeInternalIP" }),
            vec!["10.0.0.1", "fd00::1"],
        ),
        (json!({ "type": "PodIP" }), vec!["10.1.0.7", "fd01::7"]),
        (
            json!({ "type": "ServiceStatus" }),
            vec!["192.0.2.9", "2001:db8::9"],
        ),
        (
            json!({ "type": "Static", "addresses": ["192.0.2.1"] }),
            vec!["192.0.2.1"],
        ),
    ];
    for (source, wanted) in table {
        let found = offers(json!([source]), Some(&balancer));
        assert_eq!(
            found,
            Ok(wanted.into_iter().map(str::to_owned).collect()),
            "{source}"
        );
    }
}

#[test]
fn the_first_source_wins_family_by_family() {
    let sources = json!([
        { "type": "NodeLabel", "key": "example.org/absent" }, { "type": "NodeExternalIP" }, { "type": "NodeInternalIP" },
    ]);
    assert_eq!(
        offers(sources, None),
        Ok(vec!["203.0.113.1".to_owned(), "fd00::1".to_owned()])
    );
}

#[test]
fn families_that_the_pool_leaves_out_are_not_offered() {
    let mut only_six = network(json!([{ "type": "NodeInternalIP" }]));
    only_six.ip_families = vec![IpFamily::IPv6];
    let machine = machine();
    let around = Surroundings {
        machine: Some(&machine),
        ..Surroundings::default()
    };
    let found = resolve(&only_six, PORTS, around).expect("an address");
    assert_eq!(
        found,
        [NodeAddress {
            family: IpFamily::IPv6,
            address: "fd00::1".to_owned(),
            port: 20_010
        }]
    );
    assert_eq!(
        parsed(&found),
        [("fd00::1".parse().expect("an address"), 20_010)]
    );
}

#[test]
fn without_an_address_every_source_says_why() {
    let sources = json!([
        { "type": "NodeLabel", "key": "example.org/bad" }, { "type": "ServiceStatus" }, { "type": "Stun", "server": "stun.example.org:3478" },
    ]);
    let balancer = service(json!([{ "hostname": "lb.example.org" }]));
    let tried = offers(sources.clone(), Some(&balancer)).expect_err("nothing to offer");
    assert_eq!(tried.len(), 3);
    assert!(tried[0].contains("example.org/bad"), "{tried:?}");
    assert!(tried[1].contains("host name only"), "{tried:?}");
    assert!(tried[2].contains("NodeNotSeen"), "{tried:?}");
    let tried = offers(sources, None).expect_err("nothing to offer");
    assert!(tried[1].contains("no Service yet"), "{tried:?}");
}

#[test]
fn what_a_stun_server_sees_is_offered_where_no_source_before_it_yields_any() {
    let seen = ["203.0.113.7".parse().expect("an address")];
    let machine = machine();
    let around = Surroundings {
        machine: Some(&machine),
        seen_at: &seen,
        ..Surroundings::default()
    };
    let stun = json!({ "type": "Stun", "server": "stun.example.org:3478" });
    let of = |sources: Value| {
        let offered = resolve(&network(sources), PORTS, around).expect("an address");
        let texts = offered.into_iter().map(|offered| offered.address);
        texts.collect::<Vec<String>>()
    };
    assert_eq!(of(json!([stun])), ["203.0.113.7"]);
    assert_eq!(of(json!([{ "type": "PodIP" }, stun])), ["203.0.113.7"]);
    assert_eq!(
        of(json!([{ "type": "NodeLabel", "key": "example.org/ip" }, stun])),
        ["198.51.100.1"]
    );
}

#[test]
fn what_nobody_can_send_to_is_not_offered() {
    for address in [
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "169.254.1.1",
        "fe80::1",
    ] {
        assert!(
            offers(json!([{ "type": "Static", "addresses": [address] }]), None).is_err(),
            "{address}"
        );
    }
}

#[test]
fn no_more_addresses_than_the_status_takes() {
    let many = json!([{ "type": "Static", "addresses": ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"] }]);
    assert_eq!(offers(many, None).map(|all| all.len()), Ok(4));
}

// SPDX-License-Identifier: EUPL-1.2
//! What the network policies let through, for every pair of parts and every port.
//!
//! Whether a cluster enforces policies is its network plugin's business; what they say is settled here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use e2e::chart::{self, Document, Helm};
use serde_json::{Value, json};

/// One end of a connection.
struct Part {
    name: &'static str,
    namespace: &'static str,
    namespace_labels: Value,
    labels: Value,
    address: &'static str,
    /// Ports with the names that policies may use.
    ports: &'static [(&'static str, u16)],
}

impl Part {
    fn pod(
        name: &'static str,
        namespace: &'static str,
        namespace_labels: Value,
        labels: Value,
        ports: &'static [(&'static str, u16)],
    ) -> Self {
        Self {
            name,
            namespace,
            namespace_labels,
            labels,
            address: "10.97.0.9",
            ports,
        }
    }

    /// Outside the cluster's pods.
    fn outside(name: &'static str, address: &'static str) -> Self {
        Self {
            name,
            namespace: "",
            namespace_labels: json!({}),
            labels: json!({}),
            address,
            ports: &[],
        }
    }

    fn is_pod(&self) -> bool {
        !self.namespace.is_empty()
    }
}

fn parts() -> Vec<Part> {
    let plenum = |component: &str| json!({ "app.kubernetes.io/name": "plenum", "app.kubernetes.io/component": component });
    let own = || json!({ "kubernetes.io/metadata.name": chart::NAMESPACE });
    let named = |name: &str| json!({ "kubernetes.io/metadata.name": name });
    vec![
        Part::pod(
            "operator",
            chart::NAMESPACE,
            own(),
            plenum("operator"),
            &[("probes", 8081), ("metrics", 9090)],
        ),
        Part::pod(
            "control-plane",
            chart::NAMESPACE,
            own(),
            plenum("control-plane"),
            &[("https", 7880), ("probes", 7881), ("grpc", 7882)],
        ),
        Part::pod(
            "redis",
            chart::NAMESPACE,
            own(),
            plenum("redis"),
            &[("redis", 6379)],
        ),
        Part::pod("test", chart::NAMESPACE, own(), plenum("test"), &[]),
        Part::pod(
            "neighbour",
            chart::NAMESPACE,
            own(),
            json!({ "app": "other" }),
            &[],
        ),
        Part::pod(
            "media-node",
            "media",
            json!({ "plenum.dev/media": "true" }),
            plenum("media-node"),
            &[("probes", 7881), ("grpc", 7882)],
        ),
        // Whoever may make pods in some namespace can label them as he likes.
        Part::pod(
            "impostor",
            "tenant-city",
            named("tenant-city"),
            plenum("media-node"),
            &[],
        ),
        Part::pod(
            "prometheus",
            "monitoring",
            named("monitoring"),
            json!({ "app": "prometheus" }),
            &[],
        ),
        Part::pod(
            "dns",
            "kube-system",
            named("kube-system"),
            json!({ "k8s-app": "kube-dns" }),
            &[],
        ),
        Part::outside("api-server", "192.0.2.10"),
        Part::outside("host", "192.0.2.77"),
        Part::outside("internet", "203.0.113.5"),
    ]
}

/// Parts that the release makes.
const RELEASE: [&str; 4] = ["operator", "control-plane", "redis", "test"];
const TCP: [u16; 10] = [53, 443, 6379, 6443, 7880, 7881, 7882, 8081, 9090, 20_100];

fn selects(selector: &Value, labels: &Value) -> bool {
    let equal = selector["matchLabels"].as_object().is_none_or(|wanted| {
        wanted
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    });
    let expressions = selector["matchExpressions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    equal
        && expressions.iter().all(|expression| {
            let found = expression["key"].as_str().and_then(|key| labels.get(key));
            let among = expression["values"]
                .as_array()
                .is_some_and(|values| found.is_some_and(|found| values.contains(found)));
            match expression["operator"].as_str() {
                Some("In") => among,
                Some("NotIn") => !among,
                Some("Exists") => found.is_some(),
                Some("DoesNotExist") => found.is_none(),
                other => panic!("operator {other:?} is not known here"),
            }
        })
}

fn contains(cidr: &str, address: &str) -> bool {
    let bits = |text: &str| match text.parse::<IpAddr>().expect("an address") {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    };
    let (network, prefix) = cidr.split_once('/').expect("a prefix");
    let prefix: u32 = prefix.parse().expect("a number");
    prefix == 0 || (bits(network) ^ bits(address)) >> (128 - prefix) == 0
}

fn is_peer(peer: &Value, policy_namespace: &str, other: &Part) -> bool {
    if let Some(cidr) = peer.pointer("/ipBlock/cidr").and_then(Value::as_str) {
        return contains(cidr, other.address);
    }
    let namespace = match peer.get("namespaceSelector") {
        Some(selector) => selects(selector, &other.namespace_labels),
        None => other.namespace == policy_namespace,
    };
    other.is_pod()
        && namespace
        && peer
            .get("podSelector")
            .is_none_or(|selector| selects(selector, &other.labels))
}

/// Does a rule let a connection to a port of `target` through? `other` is the end that the rule's peers name.
fn lets_through(
    rule: &Value,
    peers: &str,
    namespace: &str,
    other: &Part,
    target: &Part,
    protocol: &str,
    port: u16,
) -> bool {
    let peers = rule[peers].as_array().cloned().unwrap_or_default();
    let ports = rule["ports"].as_array().cloned().unwrap_or_default();
    (peers.is_empty() || peers.iter().any(|peer| is_peer(peer, namespace, other)))
        && (ports.is_empty()
            || ports.iter().any(|wanted| {
                wanted["protocol"].as_str().unwrap_or("TCP") == protocol
                    && match (&wanted["port"], wanted["endPort"].as_u64()) {
                        (Value::Number(first), last) => {
                            let first = first.as_u64().unwrap_or_default();
                            (first..=last.unwrap_or(first)).contains(&u64::from(port))
                        }
                        (Value::String(name), _) => target.ports.contains(&(name.as_str(), port)),
                        _ => true,
                    }
            }))
}

/// One direction: is `subject` free of policies, or does one let the connection through?
fn allows(
    policies: &[Document],
    direction: &str,
    subject: &Part,
    other: &Part,
    target: &Part,
    protocol: &str,
    port: u16,
) -> bool {
    let (rules, peers) = if direction == "Ingress" {
        ("ingress", "from")
    } else {
        ("egress", "to")
    };
    let of_subject: Vec<&Document> = policies
        .iter()
        .filter(|policy| policy.text_at("/metadata/namespace") == Some(subject.namespace))
        .filter(|policy| selects(&policy.value["spec"]["podSelector"], &subject.labels))
        .filter(|policy| {
            policy.value["spec"]["policyTypes"]
                .as_array()
                .is_some_and(|types| types.contains(&direction.into()))
        })
        .collect();
    of_subject.is_empty()
        || of_subject.iter().any(|policy| {
            let rules = policy.value["spec"][rules]
                .as_array()
                .cloned()
                .unwrap_or_default();
            rules.iter().any(|rule| {
                lets_through(
                    rule,
                    peers,
                    subject.namespace,
                    other,
                    target,
                    protocol,
                    port,
                )
            })
        })
}

/// Every connection that passes and touches a part of the release, as `from to protocol/port`.
fn table(helm: &Helm, args: &[&str]) -> Result<BTreeSet<String>> {
    let mut policies =
        chart::documents(&helm.render(&[&["--set", "crds.install=false"], args].concat())?)?;
    policies.retain(|document| document.kind() == "NetworkPolicy");
    let parts = parts();
    let mut open = BTreeSet::new();
    for from in &parts {
        for to in parts
            .iter()
            .filter(|to| to.name != from.name || to.name == "control-plane")
        {
            if ![from.name, to.name]
                .iter()
                .any(|name| RELEASE.contains(name))
            {
                continue;
            }
            let ports = TCP
                .iter()
                .map(|port| ("TCP", *port))
                .chain([("UDP", 53), ("UDP", 20_100)]);
            for (protocol, port) in ports {
                if allows(&policies, "Egress", from, to, to, protocol, port)
                    && allows(&policies, "Ingress", to, from, to, protocol, port)
                {
                    open.insert(format!("{} {} {protocol}/{port}", from.name, to.name));
                }
            }
        }
    }
    Ok(open)
}

/// To whom a part may speak on some ports.
fn expand(lines: &[(&str, &[&str], &[&str])]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (from, to, ports) in lines {
        for to in *to {
            for port in *ports {
                all.insert(format!("{from} {to} {port}"));
            }
        }
    }
    all
}

#[test]
fn exactly_the_declared_connections_are_open() -> Result<()> {
    let Some(helm) = Helm::find()? else {
        return Ok(());
    };
    let networks = "networkPolicies.apiServerCidrs={192.0.2.10/32},networkPolicies.nodeCidrs={192.0.2.64/26},networkPolicies.gatewayCidrs={203.0.113.0/24}";
    let open = table(&helm, &["--set", networks])?;
    // A port without a peer is open to whoever listens there: names are asked of any address, and tenants' receivers may be anywhere.
    let names: &[&str] = &["UDP/53", "TCP/53"];
    let strangers: &[&str] = &[
        "media-node",
        "impostor",
        "prometheus",
        "dns",
        "api-server",
        "host",
        "internet",
        "neighbour",
    ];
    let mut wanted = expand(&[
        ("operator", strangers, names),
        ("control-plane", strangers, names),
        ("test", strangers, names),
        ("operator", &["control-plane"], &["TCP/7882"]),
        ("operator", &["api-server"], &["TCP/443", "TCP/6443"]),
        ("test", &["api-server"], &["TCP/443", "TCP/6443"]),
        ("test", &["control-plane"], &["TCP/7880", "TCP/7882"]),
        ("test", strangers, &["UDP/20100"]),
        ("control-plane", &["redis"], &["TCP/6379"]),
        ("control-plane", &["media-node"], &["TCP/7882"]),
        ("control-plane", strangers, &["TCP/443"]),
        ("media-node", &["control-plane"], &["TCP/7882"]),
        ("host", &["control-plane"], &["TCP/7882"]),
        ("prometheus", &["control-plane"], &["TCP/7881"]),
        ("prometheus", &["operator"], &["TCP/9090"]),
        ("internet", &["control-plane"], &["TCP/7880"]),
    ]);
    // Media nodes on the host's network answer on a port of their pool's range.
    for port in TCP.iter().filter(|port| **port >= 1024) {
        wanted.insert(format!("control-plane host TCP/{port}"));
    }
    let (more, less): (Vec<_>, Vec<_>) = (
        open.difference(&wanted).collect(),
        wanted.difference(&open).collect(),
    );
    ensure!(
        more.is_empty() && less.is_empty(),
        "open and not declared: {more:#?}\ndeclared and not open: {less:#?}"
    );
    Ok(())
}

#[test]
fn the_operator_has_no_way_to_redis_in_any_profile() -> Result<()> {
    let Some(helm) = Helm::find()? else {
        return Ok(());
    };
    for profile in chart::PROFILES {
        let file = chart::folder().join(format!("values-{profile}.yaml"));
        let open = table(&helm, &["--values", &file.to_string_lossy()])?;
        // An external Redis may be at any address of these.
        for line in &open {
            ensure!(
                !(line.starts_with("operator ") && line.ends_with("/6379")),
                "{profile}: {line}"
            );
            ensure!(
                !line.contains(" redis ") || line.starts_with("control-plane "),
                "{profile}: {line}"
            );
        }
        ensure!(
            open.contains("operator control-plane TCP/7882"),
            "{profile}"
        );
    }
    Ok(())
}

#[test]
fn without_policies_everything_is_open() -> Result<()> {
    // The evaluator itself: it must not find things closed that nobody closes.
    let Some(helm) = Helm::find()? else {
        return Ok(());
    };
    let open = table(&helm, &["--set", "networkPolicies.enabled=false"])?;
    let by_pair: BTreeMap<&str, usize> = open.iter().fold(BTreeMap::new(), |mut all, line| {
        let pair = line.rsplit_once(' ').map_or("", |(pair, _)| pair);
        *all.entry(pair).or_default() += 1;
        all
    });
    let redis = by_pair.get("operator redis").context("the pair is there")?;
    ensure!(*redis == TCP.len() + 2, "{redis}");
    Ok(())
}

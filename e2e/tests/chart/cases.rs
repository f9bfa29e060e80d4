// SPDX-License-Identifier: EUPL-1.2
//! What each admission policy takes and refuses: one set for the evaluator without an API server and for the real one.

use e2e::chart::OPERATOR;
use serde_json::{Value, json};

/// Values under which the cases hold.
pub(crate) const VALUES: &[&str] = &[
    "--set",
    "crds.install=false",
    "--set",
    "global.imageRegistry=registry.example/plenum",
    "--set",
    "admission.mediaImages.requireDigest=Always",
    "--set",
    "admission.restoreUsers={backup}",
    "--set",
    "admission.ceiling.participants=5000",
    "--set",
    "admission.retention.usage=P1Y",
    "--set",
    "admission.retention.chat=P30D",
];

/// One request.
pub(crate) struct Case {
    /// Policy that it is about, without the suffix.
    pub(crate) policy: &'static str,
    /// What is tried.
    pub(crate) name: &'static str,
    /// Who asks.
    pub(crate) user: &'static str,
    /// Resource, with a subresource where it is one.
    pub(crate) resource: &'static str,
    /// One of [`NAMESPACES`], or empty.
    pub(crate) namespace: &'static str,
    /// What is there before; `None` = a creation.
    pub(crate) old: Option<Value>,
    /// What is asked for.
    pub(crate) object: Value,
    /// Part of the message; `None` = taken.
    pub(crate) refused: Option<&'static str>,
}

/// Namespaces of the cases.
pub(crate) const NAMESPACES: [&str; 4] = ["plain", "tenant-town", "media", "media-closed"];

/// Labels of a namespace of the cases.
pub(crate) fn labels_of(namespace: &str) -> Value {
    match namespace {
        "tenant-town" => json!({ "plenum.dev/tenant": "town" }),
        "media" => {
            json!({ "plenum.dev/media": "true", "pod-security.kubernetes.io/enforce": "privileged" })
        }
        "media-closed" => {
            json!({ "plenum.dev/media": "true", "pod-security.kubernetes.io/enforce": "restricted" })
        }
        _ => json!({}),
    }
}

impl Case {
    /// API group of the resource.
    pub(crate) fn group(&self) -> &'static str {
        match self.resource.split('/').next() {
            Some("namespaces" | "pods") => "",
            Some("poddisruptionbudgets") => "policy",
            _ => "plenum.dev",
        }
    }

    /// As in a request.
    pub(crate) fn operation(&self) -> &'static str {
        if self.old.is_some() {
            "UPDATE"
        } else {
            "CREATE"
        }
    }

    /// Labels of its namespace.
    pub(crate) fn namespace_labels(&self) -> Value {
        labels_of(self.namespace)
    }
}

/// The same object with another value at a JSON pointer; null takes it away.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let name = name.replace("~1", "/");
    let mut at = &mut object;
    for part in parent.split('/').skip(1) {
        at = match part.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[part.replace("~1", "/")],
        };
    }
    match value {
        Value::Null => {
            at.as_object_mut().expect("an object").remove(&name);
        }
        value => at[name.as_str()] = value,
    }
    object
}

fn namespace(labels: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "case", "labels": labels } })
}

fn tenant() -> Value {
    json!({
        "apiVersion": "plenum.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": { "name": "case" },
        "spec": {
            "displayName": "Stadt",
            "contacts": [{ "type": "Technical", "mailbox": "it@town.example" }, { "type": "Functional", "mailbox": "office@town.example" }],
            "limits": { "participants": 4000 },
            "retention": { "usage": "P12M" },
        },
    })
}

fn pool(network: &str) -> Value {
    let member = match network {
        "HostPort" => {
            json!({ "type": network, "hostPort": { "range": { "min": 20_000, "max": 20_255 } } })
        }
        "HostNetwork" => {
            json!({ "type": network, "hostNetwork": { "range": { "min": 20_000, "max": 20_255 } } })
        }
        _ => json!({ "type": network }),
    };
    let network = with(
        json!({ "network": member }),
        "/network/addressSources",
        json!([{ "type": "NodeInternalIP" }]),
    );
    json!({
        "apiVersion": "plenum.dev/v1alpha1",
        "kind": "MediaPool",
        "metadata": { "name": "case", "labels": {} },
        "spec": with(network, "/replicas", json!(1)),
    })
}

fn node() -> Value {
    json!({
        "apiVersion": "plenum.dev/v1alpha1",
        "kind": "MediaNode",
        "metadata": { "name": "case", "labels": { "plenum.dev/pool": "a", "team": "x" }, "finalizers": ["plenum.dev/node", "example.org/other"] },
        "spec": { "poolRef": { "name": "a" }, "revision": "3f9c21", "ports": { "base": 20_000, "count": 1 } },
    })
}

fn budget(selector: Value) -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": { "name": "case" },
        "spec": { "minAvailable": 1, "selector": selector },
    })
}

fn pod() -> Value {
    let image = format!(
        "registry.example/plenum/plenum-media-node@sha256:{}",
        "0".repeat(64)
    );
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "case" },
        "spec": {
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "media-node",
                "image": image,
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
            }],
        },
    })
}

/// Cases in short: who, what is tried, before, after, and part of the message.
type Short = (
    &'static str,
    &'static str,
    Option<Value>,
    Value,
    Option<&'static str>,
);

fn cases_of(
    policy: &'static str,
    resource: &'static str,
    namespace: &'static str,
    all: Vec<Short>,
) -> impl Iterator<Item = Case> {
    all.into_iter()
        .map(move |(user, name, old, object, refused)| Case {
            policy,
            name,
            user,
            resource,
            namespace,
            old,
            object,
            refused,
        })
}

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let town = || json!({ "plenum.dev/tenant": "town" });
    let both = || json!({ "plenum.dev/tenant": "town", "team": "x" });
    let conference = || json!({ "apiVersion": "plenum.dev/v1alpha1", "kind": "Conference", "metadata": { "name": "case" }, "spec": { "displayName": "Rat" } });
    let mut all = Vec::new();
    let fence = Some("metadata.labels[plenum.dev/tenant]: only the operator");
    all.extend(cases_of(
        "tenant-label-fence",
        "namespaces",
        "",
        vec![
            (
                "alice",
                "a namespace without the label",
                None,
                namespace(json!({ "team": "x" })),
                None,
            ),
            (
                "alice",
                "a namespace that calls itself a tenant's",
                None,
                namespace(town()),
                fence,
            ),
            (
                OPERATOR,
                "the operator's namespace of a tenant",
                None,
                namespace(town()),
                None,
            ),
            (
                "backup",
                "a backup that is restored",
                None,
                namespace(town()),
                None,
            ),
            (
                "alice",
                "another label beside it",
                Some(namespace(town())),
                namespace(both()),
                None,
            ),
            (
                "alice",
                "the label taken away",
                Some(namespace(town())),
                namespace(json!({})),
                fence,
            ),
            (
                "alice",
                "the label of another tenant",
                Some(namespace(town())),
                namespace(json!({ "plenum.dev/tenant": "city" })),
                fence,
            ),
            (
                "alice",
                "a namespace taken over",
                Some(namespace(json!({}))),
                namespace(town()),
                fence,
            ),
        ],
    ));
    all.extend(cases_of(
        "tenant-label-fence",
        "namespaces/status",
        "",
        vec![(
            "alice",
            "the label by way of the status",
            Some(namespace(json!({}))),
            namespace(town()),
            fence,
        )],
    ));
    all.extend(cases_of(
        "conference-namespace",
        "conferences",
        "tenant-town",
        vec![(
            "alice",
            "a conference in a tenant's namespace",
            None,
            conference(),
            None,
        )],
    ));
    all.extend(cases_of(
        "conference-namespace",
        "conferences",
        "plain",
        vec![(
            "alice",
            "a conference of nobody",
            None,
            conference(),
            Some("plain belongs to no tenant"),
        )],
    ));
    all.extend(cases_of(
        "medianode-human-fields",
        "medianodes",
        "media",
        vec![
            (OPERATOR, "a node made by the operator", None, node(), None),
            (
                "alice",
                "a node made by hand",
                None,
                node(),
                Some("raise spec.replicas of the MediaPool"),
            ),
            (
                "alice",
                "a cordon",
                Some(node()),
                with(node(), "/spec/unschedulable", json!(true)),
                None,
            ),
            (
                "alice",
                "a drain",
                Some(node()),
                with(node(), "/spec/drain", json!({ "reason": "Manual" })),
                None,
            ),
            (
                "alice",
                "another pool",
                Some(node()),
                with(node(), "/spec/poolRef/name", json!("b")),
                Some("only spec.unschedulable and spec.drain"),
            ),
            (
                "alice",
                "another port",
                Some(node()),
                with(node(), "/spec/ports/base", json!(20_002)),
                Some("only spec.unschedulable and spec.drain"),
            ),
            (
                "alice",
                "another revision",
                Some(node()),
                with(node(), "/spec/revision", json!("1")),
                Some("only spec.unschedulable and spec.drain"),
            ),
            (
                OPERATOR,
                "a finalizer taken by the operator",
                Some(node()),
                with(node(), "/metadata/finalizers", json!(["example.org/other"])),
                None,
            ),
            (
                "alice",
                "a finalizer taken by hand",
                Some(node()),
                with(node(), "/metadata/finalizers", json!(["example.org/other"])),
                Some("metadata.finalizers"),
            ),
            (
                "alice",
                "a foreign finalizer taken by hand",
                Some(node()),
                with(node(), "/metadata/finalizers", json!(["plenum.dev/node"])),
                None,
            ),
            (
                "alice",
                "a label of the operator changed",
                Some(node()),
                with(node(), "/metadata/labels/plenum.dev~1pool", json!("b")),
                Some("those of plenum.dev are the operator's"),
            ),
            (
                "alice",
                "an own label changed",
                Some(node()),
                with(node(), "/metadata/labels/team", json!("y")),
                None,
            ),
        ],
    ));
    all.extend(cases_of(
        "mediapool-privileged-namespace",
        "mediapools",
        "media",
        vec![
            (
                "alice",
                "ports of the host in a media namespace",
                None,
                pool("HostPort"),
                None,
            ),
            (
                "alice",
                "the network of the host in a media namespace",
                None,
                pool("HostNetwork"),
                None,
            ),
        ],
    ));
    all.extend(cases_of(
        "mediapool-privileged-namespace",
        "mediapools",
        "media-closed",
        vec![
            (
                "alice",
                "no port of the host in a restricted namespace",
                None,
                pool("None"),
                None,
            ),
            (
                "alice",
                "ports of the host in a restricted namespace",
                None,
                pool("HostPort"),
                Some("enforce=privileged"),
            ),
            (
                "alice",
                "a turn to ports of the host",
                Some(pool("None")),
                pool("HostPort"),
                Some("enforce=privileged"),
            ),
        ],
    ));
    all.extend(cases_of(
        "mediapool-privileged-namespace",
        "mediapools",
        "plain",
        vec![(
            "alice",
            "ports of the host anywhere",
            None,
            pool("HostPort"),
            Some("plenum.dev/media=true"),
        )],
    ));
    let limit = Some("spec.limits.participants: this installation gives a tenant at most 5000");
    let usage = Some("spec.retention.usage: this installation keeps it at most P1Y");
    let chat = Some("spec.retention.chat: this installation keeps it at most P30D");
    let kept = |class: &str, period: &str| {
        with(tenant(), &format!("/spec/retention/{class}"), json!(period))
    };
    all.extend(cases_of(
        "tenant-limits-ceiling",
        "tenants",
        "",
        vec![
            ("alice", "a tenant within the ceiling", None, tenant(), None),
            (
                "alice",
                "as many as there may be",
                None,
                with(tenant(), "/spec/limits/participants", json!(5000)),
                None,
            ),
            (
                "alice",
                "one too many",
                None,
                with(tenant(), "/spec/limits/participants", json!(5001)),
                limit,
            ),
            (
                "alice",
                "a limit left out below a ceiling",
                None,
                with(tenant(), "/spec/limits", Value::Null),
                limit,
            ),
            (
                "alice",
                "a period left out whose default is too long",
                None,
                with(tenant(), "/spec/retention", Value::Null),
                usage,
            ),
            (
                "alice",
                "a year of 12 months",
                None,
                kept("usage", "P1Y"),
                None,
            ),
            ("alice", "13 months", None, kept("usage", "P13M"), usage),
            (
                "alice",
                "336 days, which 12 short months have",
                None,
                kept("usage", "P336D"),
                None,
            ),
            (
                "alice",
                "337 days, which they may not have",
                None,
                kept("usage", "P337D"),
                usage,
            ),
            (
                "alice",
                "30 days under 30",
                None,
                kept("chat", "P30D"),
                None,
            ),
            ("alice", "31 days over 30", None, kept("chat", "P31D"), chat),
            (
                "alice",
                "a month, which may have 31",
                None,
                kept("chat", "P1M"),
                chat,
            ),
            (
                "alice",
                "a change to what is within the ceiling",
                Some(tenant()),
                with(tenant(), "/spec/displayName", json!("Stadt am See")),
                None,
            ),
        ],
    ));
    let two = Some("must not have two");
    all.extend(cases_of("media-budget-fence", "poddisruptionbudgets", "media", vec![
        (OPERATOR, "the budget of the pool", None, budget(json!({ "matchLabels": { "plenum.dev/protected": "true" } })), None),
        ("alice", "a budget for media pods", None, budget(json!({ "matchLabels": { "app.kubernetes.io/name": "plenum" } })), two),
        ("alice", "a budget for everything", None, budget(json!({})), two),
        ("alice", "a budget by another label", None, budget(json!({ "matchLabels": { "plenum.dev/pool": "a" } })), two),
        ("alice", "a budget by an expression", None, budget(json!({ "matchExpressions": [{ "key": "app.kubernetes.io/name", "operator": "Exists" }] })), two),
        ("alice", "a budget for one's own pods", None, budget(json!({ "matchLabels": { "app.kubernetes.io/name": "cache" } })), None),
    ]));
    all.extend(cases_of(
        "media-budget-fence",
        "poddisruptionbudgets",
        "plain",
        vec![("alice", "a budget elsewhere", None, budget(json!({})), None)],
    ));
    let container =
        |field: &str, value: Value| with(pod(), &format!("/spec/containers/0/{field}"), value);
    let security =
        |field: &str, value: Value| container(&format!("securityContext/{field}"), value);
    let second = |kind: &str| {
        let plain = json!([{ "name": "other", "image": "registry.example/plenum/other@sha256:1" }]);
        with(pod(), &format!("/spec/{kind}"), plain)
    };
    all.extend(cases_of(
        "media-image-pin",
        "pods",
        "media",
        vec![
            (OPERATOR, "a media pod", None, pod(), None),
            (
                OPERATOR,
                "another registry",
                None,
                container(
                    "image",
                    json!(format!("docker.example/x@sha256:{}", "0".repeat(64))),
                ),
                Some("must begin with one of registry.example/plenum/"),
            ),
            (
                OPERATOR,
                "a registry that begins alike",
                None,
                container(
                    "image",
                    json!(format!(
                        "registry.example/plenum-evil/x@sha256:{}",
                        "0".repeat(64)
                    )),
                ),
                Some("must begin with one of"),
            ),
            (
                OPERATOR,
                "a tag",
                None,
                container(
                    "image",
                    json!("registry.example/plenum/plenum-media-node:latest"),
                ),
                Some("by digest"),
            ),
            (
                OPERATOR,
                "half a digest",
                None,
                container(
                    "image",
                    json!("registry.example/plenum/plenum-media-node@sha256:00"),
                ),
                Some("by digest"),
            ),
            (
                OPERATOR,
                "a privileged container",
                None,
                with(
                    security("privileged", json!(true)),
                    "/spec/containers/0/securityContext/allowPrivilegeEscalation",
                    Value::Null,
                ),
                Some("allowPrivilegeEscalation"),
            ),
            (
                OPERATOR,
                "escalation left open",
                None,
                security("allowPrivilegeEscalation", Value::Null),
                Some("allowPrivilegeEscalation"),
            ),
            (
                OPERATOR,
                "a root file system to write on",
                None,
                security("readOnlyRootFilesystem", json!(false)),
                Some("readOnlyRootFilesystem"),
            ),
            (
                OPERATOR,
                "capabilities kept",
                None,
                security("capabilities", json!({ "drop": ["NET_RAW"] })),
                Some("drop ALL"),
            ),
            (
                OPERATOR,
                "a capability added",
                None,
                security(
                    "capabilities",
                    json!({ "drop": ["ALL"], "add": ["NET_ADMIN"] }),
                ),
                Some("add none"),
            ),
            (
                OPERATOR,
                "perhaps root",
                None,
                with(pod(), "/spec/securityContext/runAsNonRoot", Value::Null),
                Some("runAsNonRoot"),
            ),
            (
                OPERATOR,
                "root by number",
                None,
                security("runAsUser", json!(0)),
                Some("runAsUser"),
            ),
            (
                OPERATOR,
                "root by number, for the pod",
                None,
                with(pod(), "/spec/securityContext/runAsUser", json!(0)),
                Some("runAsUser"),
            ),
            (
                OPERATOR,
                "a container that undoes the pod's word",
                None,
                security("runAsNonRoot", json!(false)),
                Some("runAsNonRoot"),
            ),
            (
                OPERATOR,
                "no seccomp",
                None,
                security("seccompProfile", json!({ "type": "Unconfined" })),
                Some("RuntimeDefault"),
            ),
            (
                OPERATOR,
                "seccomp left out",
                None,
                with(pod(), "/spec/securityContext/seccompProfile", Value::Null),
                Some("RuntimeDefault"),
            ),
            (
                OPERATOR,
                "a path of the host",
                None,
                with(
                    pod(),
                    "/spec/volumes",
                    json!([{ "name": "h", "hostPath": { "path": "/" } }]),
                ),
                Some("hostPath"),
            ),
            (
                OPERATOR,
                "processes of the host",
                None,
                with(pod(), "/spec/hostPID", json!(true)),
                Some("hostPID"),
            ),
            (
                OPERATOR,
                "ports of the host",
                None,
                container(
                    "ports",
                    json!([{ "containerPort": 20_000, "hostPort": 20_000, "protocol": "UDP" }]),
                ),
                None,
            ),
            (
                "alice",
                "a second container that is not pinned",
                None,
                second("initContainers"),
                Some("spec.initContainers"),
            ),
            (
                "alice",
                "another image put in later",
                Some(pod()),
                container(
                    "image",
                    json!("registry.example/plenum/plenum-media-node:latest"),
                ),
                Some("by digest"),
            ),
            (
                "alice",
                "a label put on later",
                Some(pod()),
                with(pod(), "/metadata/labels", json!({ "a": "b" })),
                None,
            ),
        ],
    ));
    all.extend(cases_of(
        "media-image-pin",
        "pods",
        "plain",
        vec![(
            "alice",
            "any image elsewhere",
            None,
            container("image", json!("docker.example/x")),
            None,
        )],
    ));
    all
}

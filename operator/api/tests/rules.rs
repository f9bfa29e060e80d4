// SPDX-License-Identifier: EUPL-1.2
//! Every CEL rule of the schemas accepts what it should and rejects what it should, with its message.

use std::collections::{BTreeMap, BTreeSet};

use plenum_api::{KINDS, check, schema_of};
use serde_json::{Value, json};

/// One rule on one base object: a change that it must let pass, and one that only it must refuse.
struct Case {
    kind: &'static str,
    /// Message of the rule.
    rule: &'static str,
    /// Where the rule stands and must be reported.
    at: &'static str,
    accept: Value,
    reject: Value,
    /// The object before the change, for transition rules.
    old: Option<Value>,
    /// Message of another rule that cannot but fail on the same object.
    also: Option<&'static str>,
}

#[test]
fn every_rule_accepts_and_rejects() {
    for case in cases() {
        let accepted = check::validate(
            case.kind,
            &object(case.kind, &case.accept),
            old(&case).as_ref(),
        );
        assert_eq!(
            accepted,
            [],
            "{} {}: must be accepted",
            case.kind,
            case.rule
        );
        let rejected = check::validate(
            case.kind,
            &object(case.kind, &case.reject),
            old(&case).as_ref(),
        );
        let (others, wanted): (Vec<_>, Vec<_>) = rejected
            .iter()
            .partition(|v| Some(v.message.as_str()) == case.also);
        assert_eq!(
            wanted.len(),
            1,
            "{} {}: exactly one violation, got {rejected:#?}",
            case.kind,
            case.rule
        );
        assert_eq!(
            others.len(),
            usize::from(case.also.is_some()),
            "{} {}",
            case.kind,
            case.rule
        );
        assert_eq!(wanted[0].message, case.rule);
        assert_eq!(wanted[0].pointer, case.at, "{} {}", case.kind, case.rule);
        assert!(!wanted[0].remedy.is_empty());
    }
}

#[test]
fn no_rule_is_without_cases() {
    let tested: BTreeSet<(String, String, String)> = cases()
        .iter()
        .map(|case| {
            (
                case.kind.to_owned(),
                without_indices(case.at),
                case.rule.to_owned(),
            )
        })
        .collect();
    let mut missing = Vec::new();
    let mut found = 0;
    for kind in KINDS {
        let mut rules = Vec::new();
        collect(
            schema_of(kind).expect("a kind has a schema"),
            String::new(),
            &mut rules,
        );
        found += rules.len();
        for (at, rule) in rules {
            let message = rule["message"]
                .as_str()
                .unwrap_or_else(|| panic!("{kind}{at}: {rule} has no message"));
            let known = tested.contains(&((*kind).to_owned(), at.clone(), message.to_owned()));
            if !known {
                missing.push(format!("{kind} {at}: {message}"));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
    assert!(
        found >= 30,
        "only {found} rules found: does the walk still see them?"
    );
}

#[test]
fn rules_stay_within_scope_and_budget() {
    for kind in KINDS {
        let mut rules = Vec::new();
        let schema = schema_of(kind).expect("a kind has a schema");
        collect(schema, String::new(), &mut rules);
        for (at, rule) in rules {
            let text = rule["rule"].as_str().expect("a rule has a text");
            let node = at
                .split('/')
                .filter(|part| !part.is_empty())
                .fold(schema, |node, part| match part {
                    "*" => &node["items"],
                    name => &node["properties"][name],
                });
            let compiled = kube_cel::compile_schema(node);
            let warnings =
                kube_cel::analyze_rule(text, &compiled, kube_cel::ScopeContext::CrdValidation);
            // The analysis takes the variable of a comprehension for a foreign one.
            let own = |message: &str| {
                [" 'w' ", " 'k' ", " 's' ", " 'o' "]
                    .iter()
                    .any(|name| message.contains(name))
            };
            let warnings: Vec<_> = warnings
                .into_iter()
                .filter(|w| w.kind != kube_cel::WarningKind::WrongScope || !own(&w.message))
                .collect();
            assert!(warnings.is_empty(), "{kind}{at}: {warnings:#?}");
        }
    }
}

/// All rules below a schema, with the place they stand at; `*` is any item of a list.
fn collect(schema: &Value, at: String, rules: &mut Vec<(String, Value)>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        rules.push((at.clone(), rule.clone()));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        collect(property, format!("{at}/{name}"), rules);
    }
    if schema["items"].is_object() {
        collect(&schema["items"], format!("{at}/*"), rules);
    }
}

fn without_indices(pointer: &str) -> String {
    let parts = pointer.split('/').map(|part| {
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            "*"
        } else {
            part
        }
    });
    parts.collect::<Vec<_>>().join("/")
}

fn old(case: &Case) -> Option<Value> {
    case.old.as_ref().map(|change| object(case.kind, change))
}

/// The smallest valid object of a kind with a change merged in.
fn object(kind: &str, change: &Value) -> Value {
    let spec = match kind {
        "Tenant" => json!({
            "displayName": "Stadt Beispiel",
            "contacts": [
                { "type": "Technical", "mailbox": "it@example.org" },
                { "type": "Functional", "mailbox": "office@example.org" },
            ],
        }),
        "ConferenceClass" => json!({ "preset": "Meeting" }),
        "Conference" => json!({}),
        "MediaPool" => json!({ "replicas": 2, "network": { "type": "None" } }),
        "MediaNode" => {
            json!({ "poolRef": { "name": "pool" }, "revision": "abc123", "ports": { "base": 20000, "count": 1 } })
        }
        "MaintenanceWindow" => json!({
            "schedule": { "start": "2026-09-01T19:00", "timeZone": "Europe/Berlin", "until": "06:00" },
            "action": "Drain", "selector": { "sites": ["kiel"] },
        }),
        other => panic!("no base for {other}"),
    };
    let mut object = json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": kind, "metadata": { "name": "example" }, "spec": spec,
    });
    merge(&mut object, change);
    object
}

/// JSON merge patch (RFC 7386).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().expect("made an object above");
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

fn case(
    kind: &'static str,
    rule: &'static str,
    at: &'static str,
    accept: Value,
    reject: Value,
) -> Case {
    Case {
        kind,
        rule,
        at,
        accept: json!({ "spec": accept }),
        reject: json!({ "spec": reject }),
        old: None,
        also: None,
    }
}

fn change(
    kind: &'static str,
    rule: &'static str,
    at: &'static str,
    old: Value,
    accept: Value,
    reject: Value,
) -> Case {
    let spec = |value| json!({ "spec": value });
    Case {
        kind,
        rule,
        at,
        accept: spec(accept),
        reject: spec(reject),
        old: Some(spec(old)),
        also: None,
    }
}

fn cases() -> Vec<Case> {
    [tenant(), class(), conference(), pool(), node(), window()]
        .into_iter()
        .flatten()
        .collect()
}

fn tenant() -> Vec<Case> {
    let issuer = |issuer: &str, jwks: Value| json!({ "auth": { "issuers": [{ "name": "main", "issuer": issuer, "audience": "plenum", "jwks": jwks }] } });
    let keys = || json!({ "type": "Url", "url": "https://id.example.org/jwks" });
    let webhook = |url: &str, key: &str| json!({ "auth": { "apiKeySecretRefs": [{ "name": "key-a" }] }, "webhooks": [{ "name": "hook", "url": url, "signingKeyRef": { "name": key } }] });
    let mut cases = vec![
        case(
            "Tenant",
            "protectionNeed High requires dedicated nodes or pool, e2ee Required and recording Forbidden",
            "/spec",
            json!({ "protectionNeed": "High", "isolation": "DedicatedNodes", "policy": { "e2ee": "Required" } }),
            json!({ "protectionNeed": "High", "isolation": "SharedPool", "policy": { "e2ee": "Required" } }),
        ),
        case(
            "Tenant",
            "DedicatedPool needs at least one pool",
            "/spec",
            json!({ "isolation": "DedicatedPool", "pools": [{ "namespace": "media", "name": "own" }] }),
            json!({ "isolation": "DedicatedPool" }),
        ),
        change(
            "Tenant",
            "namespace.name is immutable once set",
            "/spec",
            json!({ "namespace": { "name": "stadt" } }),
            json!({ "namespace": { "name": "stadt", "deletionPolicy": "Delete" } }),
            json!({}),
        ),
        case(
            "Tenant",
            "a webhook's signingKeyRef must be one of auth.apiKeySecretRefs",
            "/spec",
            webhook("https://example.org/hook", "key-a"),
            webhook("https://example.org/hook", "key-b"),
        ),
        case(
            "Tenant",
            "a webhook's url must be an https URL",
            "/spec/webhooks/0/url",
            webhook("https://example.org/hook", "key-a"),
            webhook("http://example.org/hook", "key-a"),
        ),
        case(
            "Tenant",
            "every preferred site must also be allowed",
            "/spec/sites",
            json!({ "sites": { "allowed": ["kiel", "bonn"], "preferred": ["kiel"] } }),
            json!({ "sites": { "allowed": ["bonn"], "preferred": ["kiel"] } }),
        ),
        case(
            "Tenant",
            "participantsPerRoom must not exceed participants",
            "/spec/limits",
            json!({ "limits": { "participants": 10, "participantsPerRoom": 10 } }),
            json!({ "limits": { "participants": 10, "participantsPerRoom": 11 } }),
        ),
        case(
            "Tenant",
            "publishersPerRoom must not exceed publishers",
            "/spec/limits",
            json!({ "limits": { "publishers": 10, "publishersPerRoom": 10 } }),
            json!({ "limits": { "publishers": 10, "publishersPerRoom": 11 } }),
        ),
        case(
            "Tenant",
            "issuer must be an https URL",
            "/spec/auth/issuers/0/issuer",
            issuer("https://id.example.org", keys()),
            issuer("http://id.example.org", keys()),
        ),
        case(
            "Tenant",
            "set exactly the member that type names: url for Url, secretRef for Secret",
            "/spec/auth/issuers/0/jwks",
            issuer(
                "https://id.example.org",
                json!({ "type": "Secret", "secretRef": { "name": "jwks" } }),
            ),
            issuer(
                "https://id.example.org",
                json!({ "type": "Secret", "url": "https://id.example.org/jwks" }),
            ),
        ),
        case(
            "Tenant",
            "url must be an https URL",
            "/spec/auth/issuers/0/jwks",
            issuer("https://id.example.org", keys()),
            issuer(
                "https://id.example.org",
                json!({ "type": "Url", "url": "http://id.example.org/jwks" }),
            ),
        ),
    ];
    cases.push(Case {
        kind: "MediaPool",
        rule: "a pool's name has at most 63 characters, because it is a label of its nodes",
        at: "",
        accept: json!({ "metadata": { "name": "a".repeat(63) } }),
        reject: json!({ "metadata": { "name": "a".repeat(64) } }),
        old: None,
        also: None,
    });
    cases.push(Case {
        kind: "Tenant",
        rule: "a tenant's name has at most 56 characters, because tenant-<name> is a namespace",
        at: "",
        accept: json!({ "metadata": { "name": "a".repeat(56) } }),
        reject: json!({ "metadata": { "name": "a".repeat(57) } }),
        old: None,
        also: None,
    });
    cases
}

fn opener_union(kind: &'static str) -> Case {
    case(
        kind,
        "set exactly the member that type names",
        "/spec/openers/0",
        json!({ "openers": [{ "type": "Group", "group": { "name": "teachers" } }] }),
        json!({ "openers": [{ "type": "Group", "subject": { "id": "7f3a" } }] }),
    )
}

fn expected_participants(kind: &'static str) -> Case {
    case(
        kind,
        "expectedParticipants must not exceed maxParticipants",
        "/spec/capacity",
        json!({ "capacity": { "maxParticipants": 30, "expectedParticipants": 30 } }),
        json!({ "capacity": { "maxParticipants": 30, "expectedParticipants": 31 } }),
    )
}

fn selector(kind: &'static str, at: &'static str, within: fn(Value) -> Value) -> Case {
    case(
        kind,
        "set values exactly when operator is In or NotIn",
        at,
        within(
            json!({ "matchExpressions": [{ "key": "tier", "operator": "In", "values": ["shared"] }] }),
        ),
        within(
            json!({ "matchExpressions": [{ "key": "tier", "operator": "Exists", "values": ["shared"] }] }),
        ),
    )
}

fn class() -> Vec<Case> {
    vec![
        opener_union("ConferenceClass"),
        expected_participants("ConferenceClass"),
        selector(
            "ConferenceClass",
            "/spec/poolSelector/matchExpressions/0",
            |selector| json!({ "poolSelector": selector }),
        ),
        case(
            "ConferenceClass",
            "openers of a class are subjects or groups; a key belongs to one conference",
            "/spec",
            json!({ "openers": [{ "type": "Subject", "subject": { "id": "7f3a" } }] }),
            json!({ "openers": [{ "type": "Key", "key": { "name": "opener" } }] }),
        ),
        case(
            "ConferenceClass",
            "a guest never moderates or records",
            "/spec/permissions/0",
            json!({ "permissions": [{ "role": "Guest", "record": false, "camera": true }] }),
            json!({ "permissions": [{ "role": "Guest", "record": true }] }),
        ),
    ]
}

fn conference() -> Vec<Case> {
    let schedule = |members: Value| {
        let mut schedule =
            json!({ "start": "2026-09-01T08:00", "timeZone": "Europe/Berlin", "duration": "1h" });
        merge(&mut schedule, &members);
        json!({ "schedule": schedule })
    };
    let with_ttl = |mut spec: Value| {
        spec["lifecycle"] = json!({ "ttlAfterEnd": "24h" });
        spec
    };
    vec![
        opener_union("Conference"),
        expected_participants("Conference"),
        case(
            "Conference",
            "ttlAfterEnd needs a schedule that ends",
            "/spec",
            with_ttl(schedule(json!({ "recurrence": "FREQ=DAILY;COUNT=3" }))),
            with_ttl(schedule(json!({ "recurrence": "FREQ=DAILY" }))),
        ),
        change(
            "Conference",
            "roomName is immutable once set",
            "/spec",
            json!({ "roomName": "rat" }),
            json!({ "roomName": "rat", "displayName": "Rat" }),
            json!({}),
        ),
        case(
            "Conference",
            "set exactly one of duration and until",
            "/spec/schedule",
            schedule(json!({ "duration": null, "until": "09:00" })),
            schedule(json!({ "until": "09:00" })),
        ),
        case(
            "Conference",
            "openBefore must not exceed 24h",
            "/spec/schedule",
            schedule(json!({ "openBefore": "1440m" })),
            schedule(json!({ "openBefore": "1441m" })),
        ),
        case(
            "Conference",
            "closeAfter must not exceed 24h",
            "/spec/schedule",
            schedule(json!({ "closeAfter": "24h" })),
            schedule(json!({ "closeAfter": "24h1s" })),
        ),
    ]
}

fn pool() -> Vec<Case> {
    let range = |min: u32, max: u32| json!({ "range": { "min": min, "max": max } });
    let network = |type_: &str, member: &str, value: Value| json!({ "network": { "type": type_, member: value } });
    let scaling = |members: Value| {
        let mut scaling = json!({ "minReplicas": 2, "maxReplicas": 4 });
        merge(&mut scaling, &members);
        json!({ "autoscaling": scaling })
    };
    let floor = |members: Value| {
        let mut floor = json!({ "start": "2026-09-01T07:30", "timeZone": "Europe/Berlin", "until": "13:30", "minReplicas": 4 });
        merge(&mut floor, &members);
        json!({ "schedule": [floor] })
    };
    let source = |source: Value| json!({ "network": { "addressSources": [source] } });
    let mut cases = vec![
        case(
            "MediaPool",
            "set replicas or autoscaling",
            "/spec",
            scaling(json!({})),
            json!({ "replicas": null }),
        ),
        case(
            "MediaPool",
            "minReplicas must not exceed maxReplicas",
            "/spec/autoscaling",
            scaling(json!({ "minReplicas": 4 })),
            scaling(json!({ "minReplicas": 5 })),
        ),
        case(
            "MediaPool",
            "minReplicas of a schedule must not exceed maxReplicas",
            "/spec/autoscaling",
            scaling(floor(json!({}))),
            scaling(floor(json!({ "minReplicas": 5 }))),
        ),
        case(
            "MediaPool",
            "set exactly one of duration and until",
            "/spec/autoscaling/schedule/0",
            scaling(floor(json!({}))),
            scaling(floor(json!({ "until": null }))),
        ),
        case(
            "MediaPool",
            "set exactly the member that type names",
            "/spec/autoscaling/buffer",
            scaling(json!({ "buffer": { "type": "Rooms", "rooms": 200 } })),
            scaling(json!({ "buffer": { "type": "Rooms", "percent": 25 } })),
        ),
        case(
            "MediaPool",
            "set exactly the member that type needs: key for NodeLabel and NodeAnnotation, addresses for Static, server for Stun",
            "/spec/network/addressSources/0",
            source(json!({ "type": "NodeLabel", "key": "example.org/ip" })),
            source(json!({ "type": "Static", "key": "example.org/ip" })),
        ),
        case(
            "MediaPool",
            "announceBefore must not exceed timeout",
            "/spec/drain",
            json!({ "drain": { "timeout": "1h", "announceBefore": "60m" } }),
            json!({ "drain": { "timeout": "1h", "announceBefore": "61m" } }),
        ),
        case(
            "MediaPool",
            "timeout must not exceed 24h",
            "/spec/drain",
            json!({ "drain": { "timeout": "24h" } }),
            json!({ "drain": { "timeout": "25h" } }),
        ),
        case(
            "MediaPool",
            "maxSurge and maxUnavailable must not both be 0",
            "/spec/update",
            json!({ "update": { "maxSurge": "0%", "maxUnavailable": 1 } }),
            json!({ "update": { "maxSurge": "0%" } }),
        ),
        selector(
            "MediaPool",
            "/spec/tenancy/allowedTenants/selector/matchExpressions/0",
            |selector| json!({ "tenancy": { "allowedTenants": { "selector": selector } } }),
        ),
        case(
            "MediaPool",
            "loadBalancer must be set exactly when type is LoadBalancer",
            "/spec/network",
            network(
                "LoadBalancer",
                "loadBalancer",
                json!({ "class": "metallb" }),
            ),
            network("LoadBalancer", "mux", json!("SinglePort")),
        ),
        case(
            "MediaPool",
            "nodePort.range must lie inside 30000-32767",
            "/spec/network",
            network("NodePort", "nodePort", range(30_000, 32_767)),
            network("NodePort", "nodePort", range(29_999, 30_100)),
        ),
        case(
            "MediaPool",
            "hostPort.range must lie outside 30000-32767, which belongs to NodePorts",
            "/spec/network",
            network("HostPort", "hostPort", range(20_000, 20_255)),
            network("HostPort", "hostPort", range(29_000, 30_000)),
        ),
        case(
            "MediaPool",
            "hostNetwork.range must lie outside 30000-32767, which belongs to NodePorts",
            "/spec/network",
            network("HostNetwork", "hostNetwork", range(32_768, 33_000)),
            network("HostNetwork", "hostNetwork", range(32_767, 33_000)),
        ),
    ];
    let members = [
        (
            "HostPort",
            "hostPort",
            "hostPort must be set exactly when type is HostPort",
            "/spec/network/hostPort/range",
        ),
        (
            "HostNetwork",
            "hostNetwork",
            "hostNetwork must be set exactly when type is HostNetwork",
            "/spec/network/hostNetwork/range",
        ),
        (
            "NodePort",
            "nodePort",
            "nodePort must be set exactly when type is NodePort",
            "/spec/network/nodePort/range",
        ),
    ];
    for (type_, member, rule, at) in members {
        let base = if type_ == "NodePort" { 30_000 } else { 20_000 };
        let fine = network(type_, member, range(base, base + 255));
        cases.push(case(
            "MediaPool",
            rule,
            "/spec/network",
            fine.clone(),
            network("None", member, range(base, base + 255)),
        ));
        cases.push(case(
            "MediaPool",
            "min must not exceed max",
            at,
            fine,
            network(type_, member, range(base + 1, base)),
        ));
        let (widest, wider) = (range(base, base + 2_767), range(base, base + 4_096));
        // The NodePorts are fewer than 4096, so there the rule of the place fails as well.
        let also = (type_ == "NodePort").then_some("nodePort.range must lie inside 30000-32767");
        let width = case(
            "MediaPool",
            "a range has at most 4096 ports",
            at,
            network(type_, member, widest),
            network(type_, member, wider),
        );
        cases.push(Case { also, ..width });
    }
    cases
}

fn node() -> Vec<Case> {
    let status = |phase: &str| json!({ "drain": { "phase": phase } });
    let mut cases: Vec<Case> = [
        (
            "poolRef is immutable",
            json!({ "poolRef": { "name": "other" } }),
        ),
        ("revision is immutable", json!({ "revision": "def456" })),
        ("ports are immutable", json!({ "ports": { "base": 20001 } })),
    ]
    .into_iter()
    .map(|(rule, reject)| {
        change(
            "MediaNode",
            rule,
            "/spec",
            json!({}),
            json!({ "unschedulable": true }),
            reject,
        )
    })
    .collect();
    for phase in ["Announced", "Waiting", "Moving", "Drained"] {
        cases.push(Case {
            kind: "MediaNode",
            rule: "a drain can be cancelled only before it is announced",
            at: "",
            accept: json!({ "spec": { "drain": { "reason": "Update" } }, "status": status(phase) }),
            reject: json!({ "spec": {}, "status": status(phase) }),
            old: Some(json!({ "spec": { "drain": {} }, "status": status(phase) })),
            also: None,
        });
    }
    cases
}

fn window() -> Vec<Case> {
    const KIND: &str = "MaintenanceWindow";
    vec![
        case(
            KIND,
            "announceBefore must not exceed 2160h",
            "/spec",
            json!({ "announceBefore": "2160h" }),
            json!({ "announceBefore": "2160h1s" }),
        ),
        case(
            KIND,
            "a Freeze cannot be UrgentSecurity, which overrules a Freeze",
            "/spec",
            json!({ "action": "AllowUpdates", "reason": "UrgentSecurity" }),
            json!({ "action": "Freeze", "reason": "UrgentSecurity" }),
        ),
        case(
            KIND,
            "select something by pools, nodes or sites",
            "/spec/selector",
            json!({ "selector": { "sites": null, "nodes": {} } }),
            json!({ "selector": { "sites": null } }),
        ),
        case(
            KIND,
            "set exactly one of duration and until",
            "/spec/schedule",
            json!({ "schedule": { "until": null, "duration": "2h" } }),
            json!({ "schedule": { "duration": "2h" } }),
        ),
        selector(
            KIND,
            "/spec/selector/nodes/matchExpressions/0",
            |selector| json!({ "selector": { "nodes": selector } }),
        ),
    ]
}

#[test]
fn drain_in_phase_closing_can_be_cancelled() {
    let with = |spec: Value| {
        object(
            "MediaNode",
            &json!({ "spec": spec, "status": { "drain": { "phase": "Closing" } } }),
        )
    };
    assert_eq!(
        check::validate(
            "MediaNode",
            &with(json!({})),
            Some(&with(json!({ "drain": {} })))
        ),
        []
    );
}

#[test]
fn hour_range_wants_from_before_to() {
    let mut generator = schemars::generate::SchemaSettings::openapi3()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let schema = generator
        .root_schema_for::<plenum_api::HourRange>()
        .to_value();
    let judge = |from: &str, to: &str| {
        kube_cel::Validator::new().validate(
            &schema,
            &json!({ "days": ["MO"], "from": from, "to": to }),
            None,
        )
    };
    assert!(judge("08:00", "24:00").is_ok());
    let refused = judge("22:00", "06:00").expect_err("a range over midnight");
    assert_eq!(
        refused[0].message,
        "from must be before to; write a range over midnight as two"
    );
}

#[test]
fn messages_of_a_place_are_unique() {
    for kind in KINDS {
        let mut rules = Vec::new();
        collect(
            schema_of(kind).expect("a kind has a schema"),
            String::new(),
            &mut rules,
        );
        let mut seen = BTreeMap::new();
        for (at, rule) in rules {
            let message = rule["message"].as_str().unwrap_or_default().to_owned();
            assert!(
                seen.insert((at.clone(), message.clone()), ()).is_none(),
                "{kind}{at}: {message} stands twice"
            );
        }
    }
}

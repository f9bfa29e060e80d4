// SPDX-License-Identifier: EUPL-1.2

use serde_json::{Value, json};

use super::*;

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({ "type": type_, "status": status, "reason": reason, "message": message })
}

fn node(name: &str, generation: i64, conditions: &[Value]) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "media", "generation": generation },
        "spec": { "poolRef": { "name": "shared" } },
        "status": {
            "observedGeneration": 1, "nodeName": "worker-1", "load": { "rooms": 4, "participants": 16 },
            "conditions": conditions,
        },
    })
}

fn facts(kind: &'static str, items: Vec<Value>) -> Facts {
    let mut facts = Facts {
        server: "https://api.example.org:6443".to_owned(),
        version: Some("v1.35.8".to_owned()),
        ..Facts::default()
    };
    facts.objects.insert(kind, Listed { items, cut: false });
    facts
}

#[test]
fn hindered_objects_stand_first_with_the_worst_reason() {
    let well = [
        condition("Ready", "True", "Reconciled", ""),
        condition("Accepting", "True", "Reconciled", ""),
        condition("Drained", "False", "Progressing", ""),
    ];
    let ill = [
        condition(
            "Accepting",
            "False",
            "NodeNotRegistered",
            "it has not registered",
        ),
        condition(
            "Ready",
            "False",
            "NoPublicAddress",
            "no source yields an address",
        ),
        condition(
            "Stalled",
            "True",
            "NoPublicAddress",
            "no source yields an address",
        ),
    ];
    let report = judge(&facts(
        "MediaNode",
        vec![node("a-well", 1, &well), node("z-ill", 1, &ill)],
    ));
    let text = text::render(&report, false);
    let wanted = "\nNODES: 2, 1 hindered\n\
        NAMESPACE   NAME     POOL     MACHINE    READY   ACCEPTING   DRAIN   ROOMS   PEOPLE   WHY\n\
        media       z-ill    shared   worker-1   False   False       -       4       16       NoPublicAddress: no source yields an address (+1)\n\
        media       a-well   shared   worker-1   True    True        -       4       16       -\n";
    assert!(text.contains(wanted), "{text}");
    let (_, nodes) = &report.sections.0[0];
    assert_eq!(nodes.objects[0].hindrances[0].condition, "Stalled");
    assert_eq!(
        nodes.objects[0].hindrances.len(),
        2,
        "Ready says the same as Stalled"
    );
}

#[test]
fn an_object_nobody_has_looked_at_says_so() {
    let fresh = json!({ "metadata": { "name": "city", "generation": 1 }, "spec": {} });
    let stale = node("n", 3, &[condition("Ready", "True", "Reconciled", "")]);
    assert_eq!(hindrances(&fresh)[0].reason, "NotObserved");
    assert!(hindrances(&stale)[0].message.contains("generation 1 of 3"));
    assert_eq!(
        hindrances(&node(
            "n",
            1,
            &[condition("Ready", "True", "Reconciled", "")]
        )),
        []
    );
}

#[test]
fn a_deletion_that_waits_names_what_holds_it() {
    let mut object = node("n", 1, &[condition("Ready", "True", "Reconciled", "")]);
    object["metadata"]["deletionTimestamp"] = json!("2026-09-01T05:30:00Z");
    object["metadata"]["finalizers"] = json!(["plenum.dev/node"]);
    assert_eq!(
        hindrances(&object)[0].message,
        "since 2026-09-01T05:30:00Z, held by plenum.dev/node"
    );
}

#[test]
fn an_update_that_is_blocked_hinders_and_one_that_is_not_does_not() {
    let pool = |status: &str| {
        node(
            "p",
            1,
            &[
                condition("Ready", "True", "Reconciled", ""),
                condition("UpdateBlocked", status, "Frozen", "a freeze forbids it"),
            ],
        )
    };
    assert_eq!(hindrances(&pool("True"))[0].condition, "UpdateBlocked");
    assert_eq!(hindrances(&pool("False")), []);
}

#[test]
fn tables_are_bounded_and_json_is_not() {
    let many: Vec<Value> = (0..40)
        .map(|at| {
            node(
                &format!("n-{at:02}"),
                1,
                &[condition("Ready", "True", "Reconciled", "")],
            )
        })
        .collect();
    let report = judge(&facts("MediaNode", many));
    let short = text::render(&report, false);
    assert!(short.contains("… and 15 more; --all shows them"), "{short}");
    assert!(!short.contains("n-39"));
    assert!(text::render(&report, true).contains("n-39"));
    let tree = json!(report);
    assert_eq!(tree["nodes"]["objects"].as_array().map(Vec::len), Some(40));
    assert_eq!(tree["nodes"]["objects"][0]["participants"], 16);
}

#[test]
fn messages_of_others_cannot_steer_a_terminal() {
    let ill = [condition("Ready", "False", "X", "\u{1b}[2Jred\nalert")];
    let report = judge(&facts("MediaNode", vec![node("n", 1, &ill)]));
    let text = text::render(&report, false);
    assert!(!text.contains('\u{1b}'));
    assert!(text.contains("X:  [2Jred alert"), "{text}");
}

#[test]
fn a_deployment_without_all_replicas_is_hindered() {
    let mut facts = facts("Tenant", Vec::new());
    facts.deployments.push(json!({
        "metadata": { "name": "plenum-operator", "namespace": "plenum-system" },
        "spec": { "replicas": 2, "template": { "spec": { "containers": [{ "image": "example.org/operator:1" }] } } },
        "status": { "readyReplicas": 1, "updatedReplicas": 2 },
    }));
    let text = text::render(&judge(&facts), false);
    assert!(
        text.contains("ReplicasMissing: 1 of 2 replicas are ready"),
        "{text}"
    );
    assert!(text.contains("TENANTS: none"));
}

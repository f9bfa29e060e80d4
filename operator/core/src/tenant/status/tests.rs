// SPDX-License-Identifier: EUPL-1.2

use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::{conference_status::Answer, objects::ObjectKey};

fn tenant(spec: serde_json::Value) -> Tenant {
    let mut value = json!({
        "metadata": { "name": "town", "generation": 1 },
        "spec": { "displayName": "Town", "contacts": [] },
    });
    for (key, member) in spec.as_object().expect("members") {
        value["spec"][key] = member.clone();
    }
    serde_json::from_value(value).expect("a tenant")
}

fn start() -> Timestamp {
    "2026-11-25T08:00:00Z".parse().expect("a moment")
}

fn facts(answer: Option<&Answer>) -> Facts<'_> {
    Facts {
        namespace: "tenant-town",
        namespace_state: NamespaceState::Ready,
        problems: &[],
        publication: Publication {
            planned: Some("r1"),
            answer,
            silent_since: None,
        },
        conferences: 1,
        usage: Some(Usage::default()),
        leaving: None,
        now: start(),
    }
}

fn taken() -> Answer {
    Answer::Taken {
        revision: "r1".to_owned(),
    }
}

fn is(status: &TenantStatus, type_: ConditionType) -> (ConditionStatus, &str) {
    let condition = find(&status.conditions, type_).expect("a condition");
    (condition.status, &condition.reason)
}

#[test]
fn a_tenant_is_ready_when_its_namespace_stands_and_the_control_plane_has_it() {
    let answer = taken();
    let object = tenant(json!({}));
    let seen = status(&object, &facts(Some(&answer))).status;
    assert_eq!(
        is(&seen, ConditionType::Ready),
        (ConditionStatus::True, "Reconciled")
    );
    assert_eq!(seen.policy_revision.as_deref(), Some("r1"));
    let mut without = facts(Some(&answer));
    without.namespace_state = NamespaceState::Progressing {
        message: "is being made".to_owned(),
    };
    let seen = status(&object, &without).status;
    assert_eq!(is(&seen, ConditionType::Ready).0, ConditionStatus::False);
    assert_eq!(
        is(&seen, ConditionType::Reconciling).0,
        ConditionStatus::True
    );
    let seen = status(&object, &facts(None)).status;
    assert_eq!(
        is(&seen, ConditionType::Ready),
        (ConditionStatus::False, "Progressing")
    );
    assert_eq!(seen.policy_revision, None);
}

#[test]
fn a_tenant_whose_quota_is_not_counted_says_so_and_is_published_all_the_same() {
    let answer = taken();
    let mut uncounted = facts(Some(&answer));
    uncounted.namespace_state = NamespaceState::Uncounted;
    let seen = status(&tenant(json!({})), &uncounted).status;
    for type_ in [ConditionType::Ready, ConditionType::NamespaceReady] {
        assert_eq!(is(&seen, type_), (ConditionStatus::False, "Progressing"));
        let condition = find(&seen.conditions, type_).expect("a condition");
        assert!(condition.message.contains("ResourceQuota"), "{condition:?}");
        assert!(condition.message.contains("kube-controller-manager"));
    }
    assert_eq!(is(&seen, ConditionType::Published).0, ConditionStatus::True);
    assert_eq!(is(&seen, ConditionType::Stalled).0, ConditionStatus::False);
}

#[test]
fn a_tenant_of_tomorrow_is_ready_and_not_active_until_then() {
    let answer = taken();
    let object = tenant(json!({ "activeFrom": "2026-11-26T08:00:00Z" }));
    let seen = status(&object, &facts(Some(&answer)));
    assert_eq!(
        is(&seen.status, ConditionType::Ready),
        (ConditionStatus::True, "Prepared")
    );
    assert_eq!(
        is(&seen.status, ConditionType::Active),
        (ConditionStatus::False, "NotYetActive")
    );
    assert_eq!(
        seen.again_at,
        Some(start() + SignedDuration::from_hours(24))
    );
}

#[test]
fn usage_is_written_once_a_minute_and_only_for_another_bucket() {
    let answer = taken();
    let mut object = tenant(json!({}));
    let mut writes = 0;
    let mut facts = facts(Some(&answer));
    for second in 0..300_i64 {
        facts.now = start() + SignedDuration::from_secs(second);
        let count = u32::try_from(second).expect("small");
        facts.usage = Some(Usage {
            rooms: 1,
            participants: count,
        });
        let seen = status(&object, &facts).status;
        if object.status.as_ref() != Some(&seen) {
            writes += 1;
            object.status = Some(seen);
        }
    }
    // At 0, 60 and 120 seconds, and at 200, when the next bucket begins.
    assert_eq!(writes, 4);
    let usage = object.status.expect("a status").usage.expect("usage");
    assert_eq!((usage.rooms, usage.participants), (1, 200));
}

#[test]
fn buckets_have_one_significant_digit() {
    for (count, wanted) in [
        (0, 0),
        (9, 9),
        (10, 10),
        (17, 10),
        (431, 400),
        (u32::MAX, 4_000_000_000),
    ] {
        assert_eq!(bucket(count), wanted);
    }
}

#[test]
fn a_limit_that_is_reached_is_told() {
    let answer = taken();
    let object = tenant(json!({ "limits": { "concurrentRooms": 2, "conferences": 5 } }));
    let mut facts = facts(Some(&answer));
    facts.usage = Some(Usage {
        rooms: 2,
        participants: 3,
    });
    let seen = status(&object, &facts).status;
    assert_eq!(
        is(&seen, ConditionType::WithinLimits),
        (ConditionStatus::False, "LimitExceeded")
    );
    let message = &find(&seen.conditions, ConditionType::WithinLimits)
        .expect("it")
        .message;
    assert!(message.contains("spec.limits.concurrentRooms"), "{message}");
}

#[test]
fn a_key_that_is_missing_is_a_matter_of_credentials() {
    let problem = Problem {
        object: ObjectKey::default(),
        pointer: "/spec/auth/apiKeySecretRefs/0/name".to_owned(),
        rule: "SecretNotFound".to_owned(),
        message: "there is no Secret `backend` in namespace `tenant-town`".to_owned(),
        remedy: "declare it".to_owned(),
    };
    let problems = [&problem];
    let mut facts = facts(None);
    facts.problems = &problems;
    facts.publication.planned = None;
    let seen = status(&tenant(json!({})), &facts).status;
    assert_eq!(
        is(&seen, ConditionType::CredentialsValid),
        (ConditionStatus::False, "SecretNotFound")
    );
    assert_eq!(
        is(&seen, ConditionType::Stalled),
        (ConditionStatus::True, "SecretNotFound")
    );
    assert_eq!(
        is(&seen, ConditionType::NamespaceReady).0,
        ConditionStatus::True
    );
}

#[test]
fn the_first_pass_turns_ready_off_and_keeps_what_else_is_known() {
    let answer = taken();
    let mut object = tenant(json!({}));
    assert!(wants_first_pass(&object));
    object.status = Some(status(&object, &facts(Some(&answer))).status);
    assert!(!wants_first_pass(&object));
    object.metadata.generation = Some(2);
    assert!(wants_first_pass(&object));
    let first = first_pass(&object, "tenant-town", start());
    assert_eq!(first.observed_generation, Some(2));
    assert_eq!(
        is(&first, ConditionType::Ready),
        (ConditionStatus::False, "Progressing")
    );
    assert_eq!(
        is(&first, ConditionType::Reconciling).0,
        ConditionStatus::True
    );
    assert_eq!(
        is(&first, ConditionType::NamespaceReady).0,
        ConditionStatus::True
    );
}

#[test]
fn a_deletion_that_waits_for_rooms_says_how_to_force_it() {
    let answer = taken();
    let mut facts = facts(Some(&answer));
    facts.leaving = Some(Step::WaitForRooms { rooms: 2 });
    let seen = status(&tenant(json!({})), &facts).status;
    assert_eq!(
        is(&seen, ConditionType::Ready),
        (ConditionStatus::False, "RoomsActive")
    );
    assert_eq!(
        is(&seen, ConditionType::Active),
        (ConditionStatus::False, "Deleting")
    );
    let message = &find(&seen.conditions, ConditionType::Ready)
        .expect("it")
        .message;
    assert!(
        message.contains("plenum.dev/force-delete=true"),
        "{message}"
    );
}

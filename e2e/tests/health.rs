// SPDX-License-Identifier: EUPL-1.2
//! What Flux (kstatus) and Argo CD (the script of docs/gitops.md) make of every state that a status can be in. What they make of
//! statuses that the operator wrote is asked where the operator runs: `-p operator --test tenants`, `--test operator_media_node`.

use anyhow::{Result, ensure};
use e2e::health::{ArgoCd, Kstatus, kstatus, object};
use serde_json::{Value, json};

use Kstatus::{Current, Failed, InProgress, Terminating, Unknown};

/// State, object, what kstatus says, what Argo CD shows, and (where it shows one) the message.
type Row = (&'static str, Value, Kstatus, &'static str, &'static str);

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    object.pointer_mut(parent).expect("a parent")[key] = value;
    object
}

fn table() -> Vec<Row> {
    let waiting = "waiting for the operator";
    let ready = [
        ("Ready", "True"),
        ("Reconciling", "False"),
        ("Stalled", "False"),
    ];
    let going = [
        ("Ready", "False"),
        ("Reconciling", "True"),
        ("Stalled", "False"),
    ];
    let stalled = [
        ("Ready", "False"),
        ("Reconciling", "False"),
        ("Stalled", "True"),
    ];
    let updating = [
        ("Ready", "True"),
        ("Reconciling", "True"),
        ("Stalled", "False"),
    ];
    let unknown = [
        ("Ready", "Unknown"),
        ("Reconciling", "False"),
        ("Stalled", "False"),
    ];
    let good = || object(3, Some(3), &ready);
    vec![
        (
            "as the API server gives a new one",
            object(1, Some(-1), &[]),
            InProgress,
            "Progressing",
            waiting,
        ),
        (
            "of an earlier generation",
            object(3, Some(2), &ready),
            InProgress,
            "Progressing",
            waiting,
        ),
        (
            "of an earlier generation, stalled",
            object(3, Some(2), &stalled),
            InProgress,
            "Progressing",
            waiting,
        ),
        ("good", good(), Current, "Healthy", "Ready is True"),
        (
            "on its way",
            object(1, Some(1), &going),
            InProgress,
            "Progressing",
            "Ready is False",
        ),
        (
            "stalled",
            object(1, Some(1), &stalled),
            Failed,
            "Degraded",
            "Stalled is True",
        ),
        // A pool that is updated serves: Argo CD may go on with the next wave, Flux waits for the end.
        (
            "good, and changing",
            object(2, Some(2), &updating),
            InProgress,
            "Healthy",
            "Ready is True",
        ),
        (
            "nobody knows",
            object(1, Some(1), &unknown),
            InProgress,
            "Progressing",
            "Ready is Unknown",
        ),
        (
            "no condition yet",
            object(1, Some(1), &[]),
            Current,
            "Progressing",
            waiting,
        ),
        (
            "suspended",
            with(good(), "/spec/suspended", json!(true)),
            Current,
            "Suspended",
            "Ready is True",
        ),
        (
            "paused",
            with(good(), "/spec/paused", json!(true)),
            Current,
            "Suspended",
            "Ready is True",
        ),
        (
            "not suspended",
            with(good(), "/spec/suspended", json!(false)),
            Current,
            "Healthy",
            "Ready is True",
        ),
        (
            "suspended and stalled",
            with(object(1, Some(1), &stalled), "/spec/suspended", json!(true)),
            Failed,
            "Degraded",
            "Stalled is True",
        ),
        (
            "going, and well",
            with(
                good(),
                "/metadata/deletionTimestamp",
                json!("2026-01-01T00:00:00Z"),
            ),
            Terminating,
            "Healthy",
            "Ready is True",
        ),
        (
            "no status at all",
            json!({ "metadata": { "generation": 1 }, "spec": {} }),
            Current,
            "Progressing",
            waiting,
        ),
        (
            "not an object of Kubernetes",
            json!({ "metadata": { "generation": 1 }, "status": "good" }),
            Unknown,
            "",
            "",
        ),
    ]
}

#[test]
fn kstatus_judges_every_state_as_documented() {
    for (state, object, expected, ..) in table() {
        assert_eq!(kstatus(&object), expected, "{state}");
    }
}

#[test]
fn the_script_for_argo_cd_judges_every_state_as_documented() -> Result<()> {
    let Some(argo_cd) = ArgoCd::find()? else {
        return Ok(());
    };
    // An API server never gives what Argo CD has no answer for here.
    let rows: Vec<Row> = table()
        .into_iter()
        .filter(|row| !row.3.is_empty())
        .collect();
    let objects: Vec<Value> = rows.iter().map(|row| row.1.clone()).collect();
    let answers = argo_cd.judge(&objects)?;
    ensure!(answers.len() == rows.len(), "{answers:#?}");
    for ((state, _, _, status, message), answer) in rows.iter().zip(&answers) {
        ensure!(
            answer.status == *status && answer.message == *message,
            "{state}: {answer:?}"
        );
    }
    Ok(())
}

#[test]
fn a_script_that_is_wrong_is_told() -> Result<()> {
    let Some(argo_cd) = ArgoCd::find()? else {
        return Ok(());
    };
    // `ipairs` over something that is no list.
    let wrong = json!({ "metadata": { "generation": 1 }, "status": { "observedGeneration": 1, "conditions": 7 } });
    let refused = argo_cd.judge(&[wrong]);
    ensure!(refused.is_err(), "{refused:?}");
    Ok(())
}

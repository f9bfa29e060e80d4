// SPDX-License-Identifier: EUPL-1.2

use super::*;
use crate::args::Output;
use plenum_api::media_pool::OnDeadline;

fn options(deadline: Option<u64>) -> Options {
    Options {
        node: "n".to_owned(),
        deadline: deadline.map(Duration::from_secs),
        on_deadline: None,
        wait: false,
        no_wait: false,
        timeout: None,
        output: Output::Text,
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a moment")
}

fn node(drain: Value, status: Value) -> Value {
    json!({
        "metadata": { "name": "n", "namespace": "media", "uid": "u-1", "resourceVersion": "7" },
        "spec": { "poolRef": { "name": "p" }, "drain": drain },
        "status": status,
    })
}

#[test]
fn the_wish_names_the_node_it_was_made_for_and_fits_the_schema() {
    let body = request(
        &node(Value::Null, json!({})),
        &options(Some(90)),
        at("2026-09-01T05:30:00.7Z"),
    )
    .expect("a wish");
    assert_eq!(body["metadata"]["uid"], "u-1");
    assert_eq!(
        body["spec"]["drain"],
        json!({ "requestedAt": "2026-09-01T05:30:00Z", "reason": "Manual", "deadline": "2026-09-01T05:31:30Z" })
    );
    let mut whole = body;
    whole["metadata"] = json!({ "name": "n", "namespace": "media" });
    whole["spec"]["poolRef"] = json!({ "name": "p" });
    whole["spec"]["revision"] = json!("abc123");
    whole["spec"]["ports"] = json!({ "base": 20_000, "count": 1 });
    let found = plenum_api::check::validate("MediaNode", &whole, None);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_drain_that_runs_is_followed_and_only_changed_where_asked() {
    let drains = node(
        json!({ "reason": "Update", "requestedAt": "2026-09-01T05:00:00Z" }),
        json!({}),
    );
    let now = at("2026-09-01T05:30:00Z");
    assert_eq!(request(&drains, &options(None), now), None);
    let mut sooner = options(Some(60));
    sooner.on_deadline = Some(OnDeadline::Terminate);
    let wish = &request(&drains, &sooner, now).expect("a wish")["spec"]["drain"];
    assert_eq!(wish["reason"], "Update", "the cause stays");
    assert_eq!(wish["onDeadline"], "Terminate");
    assert_eq!(wish["deadline"], "2026-09-01T05:31:00Z");
}

#[test]
fn a_name_in_two_namespaces_must_be_said_in_full() {
    let mut other = node(Value::Null, json!({}));
    other["metadata"]["namespace"] = json!("media-b");
    let both = [node(Value::Null, json!({})), other];
    let error = pick(&both, "n").expect_err("two").to_string();
    assert_eq!(
        error,
        "several media nodes are called n; name one of media/n, media-b/n"
    );
    let error = pick(&both[..1], "x").expect_err("none").to_string();
    assert_eq!(error, "no media node is called x; there are media/n");
    assert!(
        pick(&[], "x")
            .expect_err("none")
            .to_string()
            .ends_with("there is none at all")
    );
}

#[test]
fn progress_reads_like_the_phase_and_names_what_hinders() {
    let now = at("2026-09-01T05:30:00Z");
    let drain = json!({ "reason": "Manual" });
    let line = |status: Value| match progress(&node(drain.clone(), status), 1.0, now) {
        Progress::On(_, line) | Progress::Over { line, .. } => line,
    };
    assert_eq!(line(json!({})), "waits for the operator");
    let stuck = json!({
        "drain": { "phase": "Closing" },
        "conditions": [{ "type": "Accepting", "status": "Unknown", "reason": "ControlPlaneUnreachable", "message": "no replica answers" }],
    });
    assert!(line(stuck).ends_with("(ControlPlaneUnreachable: no replica answers)"));
    let waiting = json!({
        "load": { "rooms": 2, "participants": 8 },
        "drain": { "phase": "Waiting", "deadline": "2026-09-01T05:40:00Z" },
        "conditions": [{ "type": "Accepting", "status": "False", "reason": "Draining", "message": "" }],
    });
    assert_eq!(
        line(waiting),
        "people are told; about 2 rooms with 8 people may go on for 600 s"
    );
    let done = json!({ "conditions": [{ "type": "Drained", "status": "True", "reason": "Empty", "message": "" }] });
    assert_eq!(line(done), "n is empty after 1 s");
    assert_eq!(
        progress(&node(Value::Null, json!({})), 1.0, now),
        Progress::Over {
            event: "calledOff",
            fields: json!({ "node": "n" }),
            line: "the drain of n was called off".to_owned(),
            good: false,
        }
    );
}

#[test]
fn only_a_drain_nobody_was_told_of_is_taken_back() {
    let drain = json!({ "reason": "Manual" });
    let closing = node(drain.clone(), json!({ "drain": { "phase": "Closing" } }));
    let body = take_back(&closing)
        .expect("allowed")
        .expect("something to do");
    assert_eq!(
        body["spec"],
        json!({ "drain": null, "unschedulable": false })
    );
    assert_eq!(body["metadata"]["resourceVersion"], "7");
    let announced = node(drain, json!({ "drain": { "phase": "Announced" } }));
    let error = take_back(&announced).expect_err("too late").to_string();
    assert!(error.contains("no way back"), "{error}");
    assert_eq!(
        take_back(&node(Value::Null, json!({}))).expect("fine"),
        None
    );
    let mut closed = node(Value::Null, json!({}));
    closed["spec"]["unschedulable"] = json!(true);
    assert!(take_back(&closed).expect("fine").is_some());
}

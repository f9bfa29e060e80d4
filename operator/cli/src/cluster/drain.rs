// SPDX-License-Identifier: EUPL-1.2
//! `kubectl plenum drain` and `uncordon`: they write what a person would write into the MediaNode, and show what comes of it.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use plenum_api::{
    media_node::{DrainPhase, DrainReason},
    names::{API_VERSION, MANAGER_DRAIN},
};
use serde_json::{Value, json};

use super::{
    Cluster, ClusterError,
    args::{Drain as Options, Uncordon},
    collection, escaped,
    status::hindrances,
    text,
};
use crate::{
    FAILED,
    follow::{Out, rooms_and_people, seconds},
};

/// How often the node is read while somebody waits.
const PERIOD: Duration = Duration::from_secs(1);
/// Failed reads in a row that are borne: an API server may restart while a node drains.
const FAILURES_MAX: u32 = 30;
/// Names offered when one is not found.
const NAMES_MAX: usize = 8;

/// Asks for the drain and follows it.
pub(crate) async fn run(cluster: &Cluster, options: &Options) -> Result<ExitCode, ClusterError> {
    let began = Instant::now();
    let mut out = Out::new(options.output);
    let found = find(cluster, &options.node).await?;
    let asked = match request(&found, options, Timestamp::now()) {
        Some(body) => apply(cluster, &found, &body).await?,
        None => found.clone(),
    };
    let (fields, line) = begun(&asked, found["spec"]["drain"].is_object(), Timestamp::now());
    out.say("draining", fields, &line);
    if options.no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    follow(cluster, &asked, options, began, &mut out).await
}

/// The node by its name, or by `NAMESPACE/NAME`.
async fn find(cluster: &Cluster, named: &str) -> Result<Value, ClusterError> {
    let (namespace, name) = match named.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (cluster.namespace.as_deref(), named),
    };
    let path = collection("MediaNode", namespace)
        .ok_or_else(|| ClusterError::Asked("this plenum knows no MediaNodes".to_owned()))?;
    let listed = match cluster
        .list("kind MediaNode", &path, "", super::OBJECTS_MAX)
        .await
    {
        Ok(listed) => listed,
        Err(ClusterError::NotFound(_)) => {
            return Err(ClusterError::NotInstalled(cluster.server.clone()));
        }
        // Whoever may see one namespace only has it in the context.
        Err(ClusterError::Forbidden(message)) if namespace.is_none() => {
            let own = collection("MediaNode", Some(&cluster.default_namespace));
            match cluster
                .list(
                    "kind MediaNode",
                    &own.unwrap_or(path),
                    "",
                    super::OBJECTS_MAX,
                )
                .await
            {
                Ok(listed) => listed,
                Err(_) => return Err(ClusterError::Forbidden(message)),
            }
        }
        Err(error) => return Err(error),
    };
    pick(&listed.items, name).cloned()
}

/// The one node of a name.
fn pick<'a>(nodes: &'a [Value], name: &str) -> Result<&'a Value, ClusterError> {
    let named: Vec<&Value> = nodes
        .iter()
        .filter(|node| text(node, "/metadata/name") == name)
        .collect();
    let full = |node: &&Value| {
        format!(
            "{}/{}",
            text(node, "/metadata/namespace"),
            text(node, "/metadata/name")
        )
    };
    match named.as_slice() {
        [one] => Ok(one),
        [] => {
            let mut names: Vec<String> = nodes
                .iter()
                .take(NAMES_MAX)
                .map(|node| full(&node))
                .collect();
            if nodes.len() > NAMES_MAX {
                names.push("…".to_owned());
            }
            let there = if names.is_empty() {
                "there is none at all".to_owned()
            } else {
                format!("there are {}", names.join(", "))
            };
            Err(ClusterError::Asked(format!(
                "no media node is called {name}; {there}"
            )))
        }
        several => {
            let names: Vec<String> = several.iter().map(full).collect();
            Err(ClusterError::Asked(format!(
                "several media nodes are called {name}; name one of {}",
                names.join(", ")
            )))
        }
    }
}

/// The wish to write; `None` where the node drains already and nothing else is asked.
///
/// What another wish says stays where this one says nothing: a person may shorten the deadline of an update.
fn request(node: &Value, options: &Options, now: Timestamp) -> Option<Value> {
    let present = &node["spec"]["drain"];
    if present.is_object() && options.deadline.is_none() && options.on_deadline.is_none() {
        return None;
    }
    let mut wish = if present.is_object() {
        present.clone()
    } else {
        json!({ "requestedAt": whole_seconds(now), "reason": DrainReason::Manual.as_str() })
    };
    if let Some(after) = options.deadline {
        let at = now
            .checked_add(jiff::SignedDuration::try_from(after).ok()?)
            .ok()?;
        wish["deadline"] = json!(whole_seconds(at));
    }
    if let Some(then) = options.on_deadline {
        wish["onDeadline"] = json!(then.as_str());
    }
    Some(json!({
        "apiVersion": API_VERSION, "kind": "MediaNode",
        // With the id, a node that went meanwhile is a conflict and not made anew.
        "metadata": { "name": node["metadata"]["name"], "uid": node["metadata"]["uid"] },
        "spec": { "drain": wish },
    }))
}

/// RFC 3339 as the API server writes it.
fn whole_seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

async fn apply(cluster: &Cluster, node: &Value, body: &Value) -> Result<Value, ClusterError> {
    let path = format!(
        "{}?fieldManager={}&force=true",
        path_of(node),
        escaped(MANAGER_DRAIN)
    );
    cluster
        .send(
            "PATCH",
            &shown(node),
            &path,
            "application/apply-patch+yaml",
            body,
        )
        .await
}

fn path_of(node: &Value) -> String {
    let namespace = text(node, "/metadata/namespace");
    let base = collection("MediaNode", Some(namespace)).unwrap_or_default();
    format!("{base}/{}", text(node, "/metadata/name"))
}

fn shown(node: &Value) -> String {
    format!(
        "medianode {}/{}",
        text(node, "/metadata/namespace"),
        text(node, "/metadata/name")
    )
}

fn load(node: &Value) -> (u64, u64) {
    let number = |pointer: &str| node.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    (
        number("/status/load/rooms"),
        number("/status/load/participants"),
    )
}

/// Seconds until the deadline, as the status or else the wish has it.
fn left(node: &Value, now: Timestamp) -> Option<i64> {
    let at = ["/status/drain/deadline", "/spec/drain/deadline"]
        .iter()
        .find_map(|pointer| text(node, pointer).parse::<Timestamp>().ok())?;
    let exact = at.duration_since(now).as_secs().max(0);
    // Each change is a line: the last two minutes in steps of 10 s, before that one a minute.
    let step = if exact > 120 { 60 } else { 10 };
    Some((exact + step - 1) / step * step)
}

fn begun(node: &Value, already: bool, now: Timestamp) -> (Value, String) {
    let name = text(node, "/metadata/name");
    let (rooms, people) = load(node);
    let left = left(node, now);
    let reason = text(node, "/spec/drain/reason");
    let mut line = if already {
        format!("{name} drains already (reason {reason})")
    } else {
        format!("{name} is asked to drain")
    };
    line.push_str(&match (rooms, left) {
        (0, _) => "; it reports no rooms".to_owned(),
        (_, None) => format!("; it reports about {}", rooms_and_people(rooms, people)),
        (_, Some(left)) => format!(
            "; about {} may go on for {left} s",
            rooms_and_people(rooms, people)
        ),
    });
    let fields = json!({
        "node": name, "namespace": node["metadata"]["namespace"], "reason": reason,
        "rooms": rooms, "participants": people, "secondsLeft": left,
    });
    (fields, line)
}

/// How far a drain is.
#[derive(Debug, PartialEq)]
enum Progress {
    /// It goes on: event, fields, text.
    On(Value, String),
    /// It is over.
    Over {
        event: &'static str,
        fields: Value,
        line: String,
        good: bool,
    },
}

/// What the node says about its drain.
fn progress(node: &Value, took: f64, now: Timestamp) -> Progress {
    let name = text(node, "/metadata/name");
    let (rooms, people) = load(node);
    let phase = text(node, "/status/drain/phase");
    let drained = super::status::condition(node, "Drained")
        .is_some_and(|condition| condition["status"] == "True");
    if drained || phase == DrainPhase::Drained.as_str() {
        return Progress::Over {
            event: "empty",
            fields: json!({ "node": name, "seconds": took }),
            line: format!("{name} is empty after {took} s"),
            good: true,
        };
    }
    if !node["spec"]["drain"].is_object() && node["metadata"]["deletionTimestamp"].is_null() {
        return Progress::Over {
            event: "calledOff",
            fields: json!({ "node": name }),
            line: format!("the drain of {name} was called off"),
            good: false,
        };
    }
    let about = rooms_and_people(rooms, people);
    let left = left(node, now);
    let mut line = match phase {
        "" => "waits for the operator".to_owned(),
        "Closing" => "closing: no new rooms once the control plane has stored it".to_owned(),
        "Moving" => format!("about {about} left to move"),
        _ => match left {
            Some(left) => format!("people are told; about {about} may go on for {left} s"),
            None => format!("people are told; about {about} left"),
        },
    };
    let hindrance = hindrances(node).into_iter().find(|hindrance| {
        !matches!(
            hindrance.reason.as_str(),
            "Draining" | "Deleting" | "Unschedulable"
        )
    });
    if let Some(hindrance) = &hindrance {
        line.push_str(&format!(" ({}: {})", hindrance.reason, hindrance.message));
    }
    let fields = json!({
        "node": name, "phase": phase, "rooms": rooms, "participants": people,
        "secondsLeft": left, "hindrance": hindrance,
    });
    Progress::On(fields, line)
}

async fn follow(
    cluster: &Cluster,
    node: &Value,
    options: &Options,
    began: Instant,
    out: &mut Out,
) -> Result<ExitCode, ClusterError> {
    let (path, uid) = (path_of(node), text(node, "/metadata/uid").to_owned());
    let name = text(node, "/metadata/name");
    let mut failures = 0;
    loop {
        match cluster.get(&shown(node), &path).await {
            Err(ClusterError::NotFound(_)) => return Ok(gone(name, began, out)),
            Err(ClusterError::Unreachable { server, why }) => {
                failures += 1;
                if failures > FAILURES_MAX {
                    return Err(ClusterError::Unreachable { server, why });
                }
            }
            Err(error) => return Err(error),
            Ok(seen) if text(&seen, "/metadata/uid") != uid => {
                return Ok(gone(name, began, out));
            }
            Ok(seen) => {
                failures = 0;
                match progress(&seen, seconds(began), Timestamp::now()) {
                    Progress::On(fields, line) => out.say("progress", fields, &line),
                    Progress::Over {
                        event,
                        fields,
                        line,
                        good,
                    } => {
                        out.say(event, fields, &line);
                        return Ok(ExitCode::from(if good { 0 } else { FAILED }));
                    }
                }
            }
        }
        if options.timeout.is_some_and(|most| began.elapsed() >= most) {
            let line = format!(
                "{name} is not empty after {} s; its drain goes on, the same command shows it again",
                seconds(began)
            );
            out.say(
                "timeout",
                json!({ "node": name, "seconds": seconds(began) }),
                &line,
            );
            return Ok(ExitCode::from(FAILED));
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn gone(name: &str, began: Instant, out: &mut Out) -> ExitCode {
    let took = seconds(began);
    let line = format!("{name} is empty and gone after {took} s");
    out.say("gone", json!({ "node": name, "seconds": took }), &line);
    ExitCode::SUCCESS
}

/// Lets a node take rooms again.
pub(crate) async fn uncordon(
    cluster: &Cluster,
    options: &Uncordon,
) -> Result<ExitCode, ClusterError> {
    let mut out = Out::new(options.output);
    let node = find(cluster, &options.node).await?;
    let name = text(&node, "/metadata/name");
    let Some(body) = take_back(&node)? else {
        out.say(
            "unchanged",
            json!({ "node": name }),
            &format!("{name} takes new rooms already"),
        );
        return Ok(ExitCode::SUCCESS);
    };
    let path = format!("{}?fieldManager={}", path_of(&node), escaped(MANAGER_DRAIN));
    cluster
        .send(
            "PATCH",
            &shown(&node),
            &path,
            "application/merge-patch+json",
            &body,
        )
        .await?;
    let mut line = format!("{name} takes new rooms again");
    let reason = text(&node, "/spec/drain/reason");
    if !matches!(reason, "" | "Manual") {
        line.push_str(&format!(
            "; the operator had asked for the drain ({reason}) and asks again while its cause lasts"
        ));
    }
    out.say("undone", json!({ "node": name, "reason": reason }), &line);
    Ok(ExitCode::SUCCESS)
}

/// What takes back a drain and `unschedulable`; `None` where there is nothing to take back.
fn take_back(node: &Value) -> Result<Option<Value>, ClusterError> {
    let name = text(node, "/metadata/name");
    let wished = node["spec"]["drain"].is_object();
    if !node["metadata"]["deletionTimestamp"].is_null() {
        return Err(ClusterError::Asked(format!(
            "{name} is being deleted; its pool makes another one"
        )));
    }
    if !wished && node["spec"]["unschedulable"] != true {
        return Ok(None);
    }
    let phase = text(node, "/status/drain/phase");
    if wished && !matches!(phase, "" | "Closing") {
        return Err(ClusterError::Asked(format!(
            "the drain of {name} is {phase}: people have been told that their room moves, and there is no way back; \
             the pool replaces the node"
        )));
    }
    Ok(Some(json!({
        // Whoever changed the node meanwhile is not overruled.
        "metadata": { "resourceVersion": node["metadata"]["resourceVersion"] },
        "spec": { "drain": null, "unschedulable": false },
    })))
}

#[cfg(test)]
mod tests;

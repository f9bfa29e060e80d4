// SPDX-License-Identifier: EUPL-1.2
//! The verbs that begin something and follow it: what is left is shown whenever it changes.

use std::{
    path::Path,
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    FAILED, WRONG,
    args::{Kind, Output},
    client::{CallError, call},
    cluster::args::{Drain, Uncordon},
    fail,
    up::protocol::Request,
};

/// How often the running system is asked.
const PERIOD: Duration = Duration::from_millis(250);

/// Prints for people or for programs.
pub(crate) struct Out {
    output: Output,
    /// What was told last: the same is not told again.
    last: Value,
}

impl Out {
    pub(crate) fn new(output: Output) -> Self {
        Self {
            output,
            last: Value::Null,
        }
    }

    pub(crate) fn say(&mut self, event: &str, mut fields: Value, text: &str) {
        if self.last == fields {
            return;
        }
        self.last.clone_from(&fields);
        match self.output {
            Output::Text => sayln!("{text}"),
            Output::Json => {
                if let Some(fields) = fields.as_object_mut() {
                    fields.insert("event".to_owned(), event.into());
                }
                sayln!("{fields}");
            }
        }
    }
}

fn ask(state_dir: &Path, request: &Request) -> Result<Value, CallError> {
    call(state_dir, request).map(|(value, _)| value)
}

pub(crate) fn seconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 10.0).round() / 10.0
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// `3 rooms with 12 people`, in the right number.
pub(crate) fn rooms_and_people(rooms: u64, people: u64) -> String {
    let rooms = match rooms {
        1 => "1 room".to_owned(),
        more => format!("{more} rooms"),
    };
    match people {
        0 => rooms,
        1 => format!("{rooms} with 1 person"),
        more => format!("{rooms} with {more} people"),
    }
}

/// `plenum drain`.
pub(crate) fn drain(state_dir: &Path, options: &Drain, undo: bool) -> ExitCode {
    let began = Instant::now();
    let node = options.node.as_str();
    if undo {
        let taken_back = Uncordon {
            node: options.node.clone(),
            output: options.output,
        };
        return self::undo(state_dir, &taken_back);
    }
    if options.on_deadline.is_some() {
        return fail(
            WRONG,
            "--on-deadline is for a cluster; here the pool's drain.onDeadline holds",
        );
    }
    let mut out = Out::new(options.output);
    let request = Request::Drain {
        node: node.to_owned(),
        timeout_seconds: options.deadline.map(|after| after.as_secs()),
        undo,
    };
    let value = match ask(state_dir, &request) {
        Ok(value) => value,
        Err(error) => return fail(FAILED, &error.to_string()),
    };
    let (rooms, people) = (number(&value["rooms"]), number(&value["participants"]));
    let text = match (rooms, number(&value["seconds"])) {
        (0, _) => format!("{node} takes no new rooms; it has none"),
        (_, 0) => format!(
            "{node} takes no new rooms; {} move",
            rooms_and_people(rooms, people)
        ),
        (_, left) => format!(
            "{node} takes no new rooms; {} may go on for {left} s, then they move",
            rooms_and_people(rooms, people)
        ),
    };
    let begun = json!({
        "node": node, "rooms": rooms, "participants": people, "movesInSeconds": value["seconds"],
    });
    out.say("draining", begun, &text);
    if options.no_wait {
        return ExitCode::SUCCESS;
    }
    loop {
        match look(state_dir, node, began, &mut out) {
            Ok(None) if options.timeout.is_some_and(|most| began.elapsed() >= most) => {
                let took = seconds(began);
                let text = format!(
                    "{node} is not empty after {took} s; its drain goes on, the same command shows it again"
                );
                out.say("timeout", json!({ "node": node, "seconds": took }), &text);
                return ExitCode::from(FAILED);
            }
            Ok(None) => sleep(PERIOD),
            Ok(Some(code)) => return code,
            Err(error) => return fail(FAILED, &error.to_string()),
        }
    }
}

/// `plenum uncordon`, and `plenum drain --undo`.
pub(crate) fn undo(state_dir: &Path, options: &Uncordon) -> ExitCode {
    let node = options.node.as_str();
    let request = Request::Drain {
        node: node.to_owned(),
        timeout_seconds: None,
        undo: true,
    };
    match ask(state_dir, &request) {
        Ok(_) => {
            let text = format!("{node} takes new rooms again");
            Out::new(options.output).say("undone", json!({ "node": node }), &text);
            ExitCode::SUCCESS
        }
        Err(error) => fail(FAILED, &error.to_string()),
    }
}

/// Shows how far a drain is; gives the exit code once it is over.
fn look(
    state_dir: &Path,
    node: &str,
    began: Instant,
    out: &mut Out,
) -> Result<Option<ExitCode>, CallError> {
    let list = Request::List {
        kind: Kind::Nodes,
        name: None,
    };
    let nodes = ask(state_dir, &list)?;
    let plain = node.rsplit('/').next().unwrap_or(node);
    let found = nodes
        .as_array()
        .into_iter()
        .flatten()
        .find(|object| object["metadata"]["name"] == plain);
    let Some(object) = found else {
        let text = format!("{node} is gone: the manifests want it no longer");
        out.say("gone", json!({ "node": node }), &text);
        return Ok(Some(ExitCode::SUCCESS));
    };
    let (load, drain) = (&object["status"]["load"], &object["status"]["drain"]);
    let (rooms, people) = (number(&load["rooms"]), number(&load["participants"]));
    let fields =
        json!({ "node": node, "phase": drain["phase"], "rooms": rooms, "participants": people });
    let left = rooms_and_people(rooms, people);
    match drain["phase"].as_str() {
        None => {
            let text = format!("the drain of {node} was called off");
            out.say("calledOff", json!({ "node": node }), &text);
            return Ok(Some(ExitCode::from(FAILED)));
        }
        Some("Drained") => {
            let lost = number(&drain["roomsWithoutPlace"]);
            let lost_people = number(&drain["participantsWithoutPlace"]);
            let took = seconds(began);
            let mut text = format!("{node} is empty after {took} s");
            if lost > 0 {
                text.push_str(&format!(
                    "; {} found no place on another node in time and were told to come again",
                    rooms_and_people(lost, lost_people)
                ));
            }
            let fields = json!({
                "node": node, "seconds": took, "roomsWithoutPlace": lost, "participantsWithoutPlace": lost_people,
            });
            out.say("empty", fields, &text);
            return Ok(Some(ExitCode::SUCCESS));
        }
        Some("Waiting") => {
            let text = format!("{left}, moving in {} s", drain["movesInSeconds"]);
            out.say("progress", fields, &text);
        }
        Some("Moving") => out.say("progress", fields, &format!("{left} left to move")),
        Some(_) => {
            let text =
                format!("{left} found no place on another node, they are told to come again");
            out.say("progress", fields, &text);
        }
    }
    Ok(None)
}

/// `plenum restart`; without a target, follows the one that is under way.
pub(crate) fn restart(
    state_dir: &Path,
    what: Option<String>,
    timeout_seconds: Option<u64>,
    no_wait: bool,
    output: Output,
) -> ExitCode {
    let mut out = Out::new(output);
    if let Some(what) = what {
        let request = Request::Restart {
            what,
            timeout_seconds,
        };
        let begun = match ask(state_dir, &request) {
            Ok(begun) => begun,
            Err(error) => return fail(FAILED, &error.to_string()),
        };
        let names: Vec<&str> = begun["targets"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        out.say(
            "restarting",
            begun.clone(),
            &format!("restarting {}", names.join(", ")),
        );
    }
    let mut told = 0;
    loop {
        let state = match ask(state_dir, &Request::RestartState) {
            Ok(state) => state,
            Err(error) => return fail(FAILED, &error.to_string()),
        };
        let done = state["done"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        for one in done.get(told..).unwrap_or_default() {
            let name = one["name"].as_str().unwrap_or_default();
            let text = format!("{name} serves again after {} s", one["afterSeconds"]);
            out.say("restarted", one.clone(), &text);
        }
        told = done.len();
        if state["finished"] == true {
            return finish(&state, &mut out);
        }
        if no_wait {
            return ExitCode::SUCCESS;
        }
        progress(&state["current"], &mut out);
        sleep(PERIOD);
    }
}

fn progress(current: &Value, out: &mut Out) {
    let name = current["name"].as_str().unwrap_or_default();
    let text = match current["stage"].as_str() {
        Some("Draining") => format!(
            "{name}: {} left",
            rooms_and_people(number(&current["rooms"]), number(&current["participants"]))
        ),
        Some("Restarting") => format!("{name} restarts"),
        Some("Returning") => format!("{name} takes rooms again"),
        _ => format!("{name} waits until the others serve"),
    };
    out.say("progress", current.clone(), &text);
}

fn finish(state: &Value, out: &mut Out) -> ExitCode {
    if let Some(why) = state["failed"].as_str() {
        out.say(
            "failed",
            json!({ "message": why }),
            &format!("stopped at {why}"),
        );
        return ExitCode::from(FAILED);
    }
    let lost = number(&state["roomsWithoutPlace"]);
    let people = number(&state["participantsWithoutPlace"]);
    let mut text = "all serve again".to_owned();
    if lost > 0 {
        text.push_str(&format!(
            "; {} found no place meanwhile and were told to come again",
            rooms_and_people(lost, people)
        ));
    }
    let fields = json!({ "roomsWithoutPlace": lost, "participantsWithoutPlace": people });
    out.say("done", fields, &text);
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_like_language() {
        assert_eq!(rooms_and_people(1, 1), "1 room with 1 person");
        assert_eq!(rooms_and_people(3, 12), "3 rooms with 12 people");
        assert_eq!(rooms_and_people(2, 0), "2 rooms");
    }
}

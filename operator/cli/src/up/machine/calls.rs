// SPDX-License-Identifier: EUPL-1.2
//! What `plenum get`, `describe`, `drain` and `down` ask.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Machine, drain::load_on};
use crate::{
    args::Kind,
    up::{
        protocol::{Answer, Request},
        view::View,
    },
};

impl Machine {
    /// Answers a caller; `true` asks for the end.
    pub(super) async fn call(&mut self, request: Request) -> (Answer, bool) {
        match request {
            Request::List { kind, name } => (self.list(kind, name.as_deref()), false),
            Request::Describe { kind, name } => (self.describe(kind, &name), false),
            Request::Drain {
                node,
                timeout_seconds,
                undo,
            } => (
                self.drain(&node, timeout_seconds.map(Duration::from_secs), undo)
                    .await,
                false,
            ),
            Request::Restart {
                what,
                timeout_seconds,
            } => (
                self.restart(&what, timeout_seconds.map(Duration::from_secs)),
                false,
            ),
            Request::RestartState => (self.restart_state(), false),
            Request::Down => (Answer::Done(json!({ "pid": std::process::id() })), true),
        }
    }

    fn list(&self, kind: Kind, name: Option<&str>) -> Answer {
        let said = self.said();
        let all = objects(&self.view(&said), kind);
        match name {
            None => Answer::Done(Value::Array(all)),
            Some(name) => one_of(all, kind, name)
                .map_or_else(|refused| refused, |one| Answer::Done(json!([one]))),
        }
    }

    fn describe(&self, kind: Kind, name: &str) -> Answer {
        let said = self.said();
        let view = self.view(&said);
        let object = match one_of(objects(&view, kind), kind, name) {
            Ok(object) => object,
            Err(refused) => return refused,
        };
        let text = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let access = view.access().into_iter().find(|access| {
            kind == Kind::Conferences && (&access.namespace, &access.name) == (&namespace, &name)
        });
        let about = [format!("{}/{name}", text("/kind")), name];
        let events: Vec<Value> = self
            .events
            .iter()
            .filter(|event| about.contains(&event.about))
            .map(|event| json!({ "at": event.at.to_string(), "reason": event.reason, "message": event.message }))
            .collect();
        Answer::Done(json!({ "object": object, "access": access, "events": events }))
    }

    async fn drain(&mut self, name: &str, asked: Option<Duration>, undo: bool) -> Answer {
        let found = self.nodes.iter().find(|(_, node)| {
            node.wanted.name == name
                || format!("{}/{}", node.wanted.pool.namespace, node.wanted.name) == name
        });
        let Some((uid, node)) = found else {
            let mut known: Vec<&str> = self
                .nodes
                .values()
                .map(|node| node.wanted.name.as_str())
                .collect();
            known.sort_unstable();
            return Answer::refused(
                format!("there is no node `{name}`"),
                format!("use one of {}", known.join(", ")),
            );
        };
        if node.goes() {
            return Answer::refused(
                format!("{name} is on its way out already"),
                "wait until it is gone",
            );
        }
        let uid = uid.clone();
        if let Some(node) = self.nodes.get_mut(&uid) {
            node.drained = !undo;
        }
        if undo {
            self.publish().await;
            self.stop_emptying(&uid, "Manual").await;
            self.note(name, "Undrained", "it takes new rooms again");
            return Answer::Done(json!({ "node": name, "accepting": true }));
        }
        if asked.is_none()
            && let Some(left) = self.left_of_drain(&uid)
        {
            return self.draining(name, &uid, left);
        }
        // The order before the facts: what is asked last of a control plane that was away is what holds.
        let patience = self.empty(&uid, asked, false, "Manual").await;
        let seconds = patience.as_secs();
        self.note(
            name,
            "Draining",
            format!("its rooms may go on for {seconds} s, then they move"),
        );
        self.publish().await;
        self.draining(name, &uid, patience)
    }

    /// Time that the rooms of a node have that is drained already: asked again, it goes on.
    fn left_of_drain(&self, uid: &str) -> Option<Duration> {
        let emptying = self.nodes.get(uid).filter(|node| node.drained)?.emptying?;
        Some(emptying.left(Instant::now()).0)
    }

    fn draining(&self, name: &str, uid: &str, left: Duration) -> Answer {
        let load = load_on(&self.replicas, uid).unwrap_or_default();
        Answer::Done(json!({
            "node": name,
            "accepting": false,
            "rooms": load.rooms,
            "participants": load.participants,
            "seconds": left.as_secs(),
        }))
    }
}

fn objects(view: &View<'_>, kind: Kind) -> Vec<Value> {
    match kind {
        Kind::Tenants => view.tenants(),
        Kind::Conferences => view.conferences(),
        Kind::Pools => view.pools(),
        Kind::Nodes => view.nodes(),
        Kind::Replicas => view.replicas(),
    }
}

/// The object of a name, or of `namespace/name`.
fn one_of(all: Vec<Value>, kind: Kind, wanted: &str) -> Result<Value, Answer> {
    let text = |object: &Value, pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let full = |object: &Value| {
        format!(
            "{}/{}",
            text(object, "/metadata/namespace"),
            text(object, "/metadata/name")
        )
    };
    let known: Vec<String> = all
        .iter()
        .map(|object| text(object, "/metadata/name"))
        .collect();
    let mut found: Vec<Value> = all
        .into_iter()
        .filter(|object| text(object, "/metadata/name") == wanted || full(object) == wanted)
        .collect();
    let what = match kind {
        Kind::Tenants => "tenant",
        Kind::Conferences => "conference",
        Kind::Pools => "pool",
        Kind::Nodes => "node",
        Kind::Replicas => "replica",
    };
    match (found.len(), found.pop()) {
        (1, Some(object)) => Ok(object),
        (0, _) if known.is_empty() => Err(Answer::refused(
            format!("there is no {what}"),
            "declare one in the manifests",
        )),
        (0, _) => Err(Answer::refused(
            format!("there is no {what} `{wanted}`"),
            format!("use one of {}", known.join(", ")),
        )),
        _ => Err(Answer::refused(
            format!("{what} `{wanted}` stands in several namespaces"),
            "write NAMESPACE/NAME",
        )),
    }
}

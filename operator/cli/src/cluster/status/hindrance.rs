// SPDX-License-Identifier: EUPL-1.2
//! What hinders an object, read from its conditions. The vocabulary is that of all kinds, so one reading serves all.

use plenum_api::ConditionType;
use serde::Serialize;
use serde_json::Value;

/// One thing that hinders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Hindrance {
    /// Condition that says so.
    pub(crate) condition: String,
    /// Its status.
    pub(crate) status: String,
    /// Why, in one word.
    pub(crate) reason: String,
    /// Why, for people.
    pub(crate) message: String,
}

/// What hinders, the worst first.
///
/// `Stalled` and `UpdateBlocked` hinder when they are true, everything else when it is not. Left out is what describes the
/// course of things: nobody is in, the room is not placed yet, the node is not drained, work goes on.
pub(crate) fn hindrances(object: &Value) -> Vec<Hindrance> {
    let mut found = Vec::new();
    if let Some(since) = object
        .pointer("/metadata/deletionTimestamp")
        .and_then(Value::as_str)
    {
        let finalizers = object.pointer("/metadata/finalizers");
        let finalizers: Vec<&str> = finalizers
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        found.push(Hindrance {
            condition: "Deleting".to_owned(),
            status: "True".to_owned(),
            reason: "Deleting".to_owned(),
            message: format!("since {since}, held by {}", finalizers.join(", ")),
        });
    }
    let generation = object
        .pointer("/metadata/generation")
        .and_then(Value::as_i64);
    let observed = object
        .pointer("/status/observedGeneration")
        .and_then(Value::as_i64);
    if let Some(generation) = generation.filter(|generation| observed < Some(*generation)) {
        found.push(Hindrance {
            condition: "Observed".to_owned(),
            status: "False".to_owned(),
            reason: "NotObserved".to_owned(),
            message: match observed {
                None | Some(0) => "the operator has not looked at it yet; does it run?".to_owned(),
                Some(observed) => format!(
                    "the operator has seen generation {observed} of {generation}; does it run?"
                ),
            },
        });
    }
    let mut judged: Vec<(u8, Hindrance)> = conditions(object)
        .filter_map(|condition| {
            let text = |name: &str| condition[name].as_str().unwrap_or_default();
            let rank = rank(text("type"), text("status"))?;
            let hindrance = Hindrance {
                condition: text("type").to_owned(),
                status: text("status").to_owned(),
                reason: text("reason").to_owned(),
                message: text("message").to_owned(),
            };
            Some((rank, hindrance))
        })
        .collect();
    judged.sort_by_key(|(rank, _)| *rank);
    for (_, hindrance) in judged {
        // What stalls an object also stands in its Ready condition: once is enough.
        let known = |other: &Hindrance| {
            other.reason == hindrance.reason && other.message == hindrance.message
        };
        if !found.iter().any(known) {
            found.push(hindrance);
        }
    }
    found
}

/// A condition of an object.
pub(crate) fn condition<'a>(object: &'a Value, wanted: &str) -> Option<&'a Value> {
    conditions(object).find(|condition| condition["type"] == wanted)
}

fn conditions(object: &Value) -> impl Iterator<Item = &Value> {
    object
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// How bad it is, 0 the worst; `None` where nothing is wrong.
fn rank(type_: &str, status: &str) -> Option<u8> {
    let known = ConditionType::ALL
        .iter()
        .find(|known| known.as_str() == type_);
    match (known, status) {
        (Some(ConditionType::Stalled), "True") => Some(0),
        (Some(ConditionType::Ready), "False" | "Unknown") => Some(1),
        (Some(ConditionType::UpdateBlocked), "True") => Some(3),
        (
            Some(
                ConditionType::Stalled
                | ConditionType::UpdateBlocked
                | ConditionType::Reconciling
                | ConditionType::Active
                | ConditionType::Placed
                | ConditionType::Drained,
            ),
            _,
        ) => None,
        (Some(_), "False" | "Unknown") => Some(2),
        _ => None,
    }
}

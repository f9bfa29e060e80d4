// SPDX-License-Identifier: EUPL-1.2
//! `docs/conditions.md`: the types and reasons of conditions, from the enums that the code uses.

use std::fmt::Write as _;

use plenum_api::{ConditionType, Reason};
use schemars::JsonSchema;
use serde_json::Value;

use crate::{WRITTEN, cell};

/// The page.
pub(crate) fn page() -> String {
    let mut text = format!(
        "{WRITTEN}# Conditions and their reasons\n\n\
        The status of every kind follows kstatus: `observedGeneration`, and conditions of which `Ready`, `Reconciling` and \
        `Stalled` are common to all. `kubectl wait --for=condition=Ready` works on each, `kubectl plenum status` shows what \
        hinders. Types and reasons are a closed set and stable across releases; the message is for people and may change.\n\n\
        ## Types\n\n\
        Good is `True`, except where it says otherwise.\n\n| type | true means |\n|---|---|\n"
    );
    for (name, meaning) in values::<ConditionType>() {
        let note = match name.as_str() {
            "Stalled" | "UpdateBlocked" => " Good is `False`.",
            "Reconciling" => " Neither good nor bad.",
            "Active" | "Placed" | "Drained" => " Says what is, not whether it is well.",
            _ => "",
        };
        let _ = writeln!(text, "| `{name}` | {}{note} |", cell(&meaning));
    }
    text.push_str(
        "\n## Reasons\n\nOf conditions and of Events; where a metric has the label `reason`, it is one of these.\n\n\
        | reason | meaning |\n|---|---|\n",
    );
    for (name, meaning) in values::<Reason>() {
        let _ = writeln!(text, "| `{name}` | {} |", cell(&meaning));
    }
    text
}

/// Names and descriptions of an enum's variants.
pub(crate) fn values<T: JsonSchema>() -> Vec<(String, String)> {
    let schema = Value::from(schemars::schema_for!(T));
    schema["oneOf"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| {
            Some((
                one["const"].as_str()?.to_owned(),
                one["description"].as_str()?.to_owned(),
            ))
        })
        .collect()
}

// SPDX-License-Identifier: EUPL-1.2
//! The reference pages are those of the types and of the chart, and every field is described by a sentence.

use std::{path::Path, process::Command};

use plenum_api::{KINDS, schema_of};
use serde_json::Value;

/// Fewer words say nothing that the name of the field does not say.
const WORDS_MIN: usize = 4;

#[test]
fn reference_pages_do_not_drift() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let checked = Command::new(env!("CARGO_BIN_EXE_crdgen"))
        .arg("--check")
        .arg(&root)
        .output()
        .expect("crdgen runs");
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}

#[test]
fn every_field_is_described_by_a_sentence() {
    fn walk(schema: &Value, at: &str, wrong: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{at}.{name}");
            let text = property["description"].as_str().unwrap_or_default();
            let begins = text
                .chars()
                .next()
                .is_some_and(|first| first.is_uppercase() || first == '`');
            if !begins || !text.ends_with('.') || text.split_whitespace().count() < WORDS_MIN {
                wrong.push(format!("{path}: {text:?}"));
            }
            walk(property, &path, wrong);
            walk(&property["items"], &format!("{path}[]"), wrong);
        }
    }
    let mut wrong = Vec::new();
    for kind in KINDS {
        let schema = schema_of(kind).expect("a kind has a schema");
        for part in ["spec", "status"] {
            walk(
                &schema["properties"][part],
                &format!("{kind}.{part}"),
                &mut wrong,
            );
        }
    }
    assert!(
        wrong.is_empty(),
        "write a sentence for a platform engineer above the field:\n{}",
        wrong.join("\n")
    );
}

// SPDX-License-Identifier: EUPL-1.2
//! Manifests as people and accidents make them: the examples with parts replaced, removed and doubled. Whatever comes out,
//! judging it ends, and what is accepted can be planned. A failing case prints its seed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use operator_core::{AbsentOpenerKeys, Objects, plan, validate, wants};
use plenum_api::check;
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Value, json};

use crate::{generated::generated, manifest::parse};

/// All documents of all examples.
fn examples() -> Vec<Value> {
    folders()
        .iter()
        .flat_map(|folder| example(folder))
        .collect()
}

/// Each is an example of its own: all of them at once have two default classes.
fn folders() -> Vec<PathBuf> {
    let all: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../docs/examples"]
        .iter()
        .collect();
    let entries = fs::read_dir(all).expect("examples");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

fn example(folder: &Path) -> Vec<Value> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("an example")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let texts = files
        .iter()
        .map(|file| fs::read_to_string(file).expect("a manifest"));
    texts
        .flat_map(|text| parse(&text).expect("YAML"))
        .map(|document| document.value)
        .collect()
}

/// What a place in a document becomes.
#[derive(Clone, Debug)]
enum Change {
    Remove,
    Double,
    Become(Value),
}

fn change() -> impl Strategy<Value = Change> {
    let values = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        (-1.0e12..1.0e12).prop_map(|value| json!(value)),
        "[ -~äö€]{0,80}".prop_map(|value| json!(value)),
        prop::sample::select(vec![
            "Meeting",
            "Group",
            "Key",
            "Subject",
            "0s",
            "999999h",
            "P9999Y",
            "FREQ=DAILY;COUNT=0",
            "tenant-lab",
            "local",
            "devkey",
            "24:00",
            "Europe/Berlin",
            "2026-02-30T25:61",
            "True",
            "-",
            "~",
            "",
        ])
        .prop_map(|value| json!(value)),
        Just(json!([])),
        Just(json!({})),
        Just(json!([{}, null, "x"])),
    ];
    prop_oneof![
        Just(Change::Remove),
        Just(Change::Double),
        values.prop_map(Change::Become)
    ]
}

/// Pointers to everything in a document.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(members) => {
            let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
            members
                .iter()
                .map(|(key, member)| (escaped(key), member))
                .collect()
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| (index.to_string(), item))
            .collect(),
        _ => Vec::new(),
    };
    for (step, value) in below {
        let place = format!("{at}/{step}");
        places(value, &place, found);
        found.push(place);
    }
}

fn mutate(document: &mut Value, at: Index, change: &Change) {
    let mut all = Vec::new();
    places(document, "", &mut all);
    if all.is_empty() {
        return;
    }
    let place = at.get(&all).clone();
    match change {
        Change::Become(value) => {
            if let Some(slot) = document.pointer_mut(&place) {
                *slot = value.clone();
            }
        }
        Change::Remove | Change::Double => {
            let Some((parent, step)) = place.rsplit_once('/') else {
                return;
            };
            let step = step.replace("~1", "/").replace("~0", "~");
            match document.pointer_mut(parent) {
                Some(Value::Object(members)) => {
                    let value = members.remove(&step);
                    if let (Change::Double, Some(value)) = (change, value) {
                        members.insert(format!("{step}2"), value.clone());
                        members.insert(step, value);
                    }
                }
                Some(Value::Array(items)) => {
                    let Some(index) = step
                        .parse::<usize>()
                        .ok()
                        .filter(|index| *index < items.len())
                    else {
                        return;
                    };
                    if matches!(change, Change::Double) {
                        items.push(items[index].clone());
                    } else {
                        items.remove(index);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Judges documents as the command does, without files; says whether they were accepted.
fn accepted(documents: &[Value]) -> bool {
    let mut objects = Objects::default();
    let mut sound = true;
    for document in documents {
        let kind = document
            .get("kind")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        if kind != "Secret" && !check::validate(&kind, document, None).is_empty() {
            sound = false;
            continue;
        }
        let mut value = document.clone();
        check::default_in_place(&kind, &mut value);
        sound &= objects.insert(&value).is_ok();
    }
    let Ok(valid) = validate(&objects, AbsentOpenerKeys::AreGenerated) else {
        return false;
    };
    let generated = generated(wants(&valid), &"p".repeat(20));
    let nodes = std::collections::BTreeMap::new();
    let plan = plan(&valid, &generated, &nodes).expect("what is valid can be planned");
    for record in plan.conferences.values() {
        assert!(!record.room_name.is_empty() && record.room_id.len() == 26);
        assert!(record.policy.max_participants <= operator_core::limits::PARTICIPANTS_PER_ROOM_MAX);
    }
    sound
}

#[test]
fn the_examples_are_accepted() {
    for folder in folders() {
        assert!(accepted(&example(&folder)), "{}", folder.display());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn broken_examples_are_judged_to_the_end(
        changes in vec((any::<Index>(), any::<Index>(), change()), 1..6),
    ) {
        let mut documents = examples();
        for (which, at, change) in &changes {
            let which = which.index(documents.len());
            mutate(&mut documents[which], *at, change);
        }
        accepted(&documents);
    }

    #[test]
    fn no_text_breaks_the_reader(text in "[ -~\\n\\t{}\\[\\]:&*!|>'\"#,?-]{0,200}") {
        for document in parse(&text).unwrap_or_default() {
            prop_assert!(document.line("/spec/openers/0") >= 1);
        }
    }

    #[test]
    fn every_member_remembers_its_line(names in vec("k[a-z]{0,8}", 1..20)) {
        let mut names = names;
        names.sort();
        names.dedup();
        let text: String = names.iter().map(|name| format!("{name}:\n  inner: 1\n")).collect();
        let documents = parse(&text).expect("YAML");
        for (index, name) in names.iter().enumerate() {
            let line = u64::try_from(index * 2 + 1).expect("small");
            prop_assert_eq!(documents[0].line(&format!("/{name}")), line);
            prop_assert_eq!(documents[0].line(&format!("/{name}/inner")), line + 1);
            prop_assert_eq!(documents[0].line(&format!("/{name}/absent/deep")), line);
        }
    }
}

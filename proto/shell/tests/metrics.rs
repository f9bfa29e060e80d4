// SPDX-License-Identifier: EUPL-1.2
//! `docs/metrics.md` lists what control plane and operator count, and no label can grow without a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a label may be named after: things of which there is a small, declared number.
const LABELS: [&str; 14] = [
    "reason",
    "tenant",
    "limit",
    "script",
    "outcome",
    "family",
    "receiver",
    "kind",
    "result",
    "verb",
    "resource",
    "code",
    "pool_namespace",
    "pool",
];

/// Sources of the parts, and what the names of their metrics begin with.
const PARTS: [(&str, &str); 2] = [
    ("control-plane/server/src", "plenum_control_"),
    ("operator/controller/src", "plenum_operator_"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(folder: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(std::fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// The first two string literals after each registration: name and help.
fn registered(folder: &str, prefix: &str) -> BTreeMap<String, String> {
    let mut texts = Vec::new();
    sources(&root().join(folder), &mut texts);
    let mut found = BTreeMap::new();
    for text in &texts {
        for call in ["registry.register(", "register!("] {
            for (at, _) in text.match_indices(call) {
                let rest = text[at + call.len()..].trim_start();
                let Some((name, rest)) = rest
                    .strip_prefix('"')
                    .and_then(|rest| rest.split_once("\","))
                else {
                    // The macro's own definition.
                    continue;
                };
                let help = rest
                    .trim_start()
                    .strip_prefix('"')
                    .and_then(|rest| rest.split_once('"'))
                    .map(|(help, _)| help)
                    .expect("a metric has a help text");
                found.insert(format!("{prefix}{name}"), help.to_owned());
            }
        }
    }
    found
}

#[test]
fn the_documentation_lists_every_metric_of_control_plane_and_operator() {
    let text = std::fs::read_to_string(root().join("docs/metrics.md")).expect("docs/metrics.md");
    for (folder, prefix) in PARTS {
        let start = format!("| `{prefix}");
        let documented: BTreeMap<String, String> = text
            .lines()
            .filter_map(|line| line.strip_prefix(&start))
            .map(|row| {
                let cells: Vec<&str> = row.split('|').map(str::trim).collect();
                let name = cells[0].trim_end_matches('`');
                (format!("{prefix}{name}"), cells[2].to_owned())
            })
            .collect();
        assert!(documented.len() > 10, "the table of {folder} is there");
        assert_eq!(documented, registered(folder, prefix));
    }
}

#[test]
fn no_label_names_a_room_or_a_person() {
    let mut texts = Vec::new();
    for (folder, _) in PARTS {
        sources(&root().join(folder), &mut texts);
    }
    let mut labels = BTreeSet::new();
    for text in &texts {
        for (at, _) in text.match_indices("EncodeLabelSet)]") {
            let (_, rest) = text[at..].split_once('{').expect("a struct");
            let (fields, _) = rest.split_once('}').expect("a struct ends");
            labels.extend(
                fields
                    .lines()
                    .map(str::trim)
                    .filter(|line| !line.starts_with("//"))
                    .filter_map(|line| line.split_once(": "))
                    .map(|(name, _)| name.rsplit(' ').next().unwrap_or(name).to_owned()),
            );
        }
    }
    assert!(labels.contains("reason"), "labels are found: {labels:?}");
    let strange: Vec<&String> = labels
        .iter()
        .filter(|label| !LABELS.contains(&label.as_str()))
        .collect();
    assert!(
        strange.is_empty(),
        "new labels need a bound and a place in LABELS: {strange:?}"
    );
}

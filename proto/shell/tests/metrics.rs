// SPDX-License-Identifier: EUPL-1.2
//! `docs/metrics.md` lists what the control plane counts, and no label can grow without a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a label may be named after: things of which there is a small, declared number.
const LABELS: [&str; 7] = [
    "reason", "tenant", "limit", "script", "outcome", "family", "receiver",
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
fn registered() -> BTreeMap<String, String> {
    let mut texts = Vec::new();
    sources(&root().join("control-plane/server/src"), &mut texts);
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
                found.insert(format!("plenum_control_{name}"), help.to_owned());
            }
        }
    }
    found
}

#[test]
fn the_documentation_lists_every_metric_of_the_control_plane() {
    let text = std::fs::read_to_string(root().join("docs/metrics.md")).expect("docs/metrics.md");
    let documented: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `plenum_control_"))
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let name = cells[0].trim_end_matches('`');
            (format!("plenum_control_{name}"), cells[2].to_owned())
        })
        .collect();
    assert!(documented.len() > 30, "the table is there");
    assert_eq!(documented, registered());
}

#[test]
fn no_label_names_a_room_or_a_person() {
    let mut texts = Vec::new();
    sources(&root().join("control-plane/server/src"), &mut texts);
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

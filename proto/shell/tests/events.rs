// SPDX-License-Identifier: EUPL-1.2
//! Every line of the log from INFO up has a stable name in its field `event`, and `docs/logs.md` lists them: whoever collects logs
//! filters by the name, and the words behind it may change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Sources of the parts that run as services.
const PARTS: [(&str, &[&str]); 3] = [
    ("control-plane", &["control-plane/server/src"]),
    ("media-node", &["media-node/node/src", "media-node/net/src"]),
    ("operator", &["operator/controller/src"]),
];
const LEVELS: [&str; 3] = ["info", "warn", "error"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Arguments of the macro call that begins right before `text`, up to its closing parenthesis.
fn arguments(text: &str) -> &str {
    let mut depth = 0_u32;
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'(' if !quoted => depth += 1,
            b')' if !quoted && depth == 0 => return &text[..at],
            b')' if !quoted => depth -= 1,
            _ => {}
        }
    }
    text
}

/// Event names with part and level, as the sources have them; and the calls without one.
fn in_sources() -> (BTreeMap<String, (String, String)>, Vec<String>) {
    let mut named = BTreeMap::new();
    let mut nameless = Vec::new();
    for (part, folders) in PARTS {
        let mut files = Vec::new();
        for folder in folders {
            sources(&root().join(folder), &mut files);
        }
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a source");
            for level in LEVELS {
                let call = format!("tracing::{level}!(");
                for (at, _) in text.match_indices(&call) {
                    let arguments = arguments(&text[at + call.len()..]);
                    let event = arguments
                        .split_once("event = \"")
                        .and_then(|(_, rest)| rest.split_once('"'));
                    match event {
                        Some((event, _)) => {
                            named.insert(event.to_owned(), (part.to_owned(), level.to_uppercase()));
                        }
                        None => nameless.push(format!("{}: {arguments}", file.display())),
                    }
                }
            }
        }
    }
    (named, nameless)
}

/// Rows of the tables of `docs/logs.md`: event, part, level.
fn in_documentation() -> BTreeMap<String, (String, String)> {
    let text = std::fs::read_to_string(root().join("docs/logs.md")).expect("docs/logs.md");
    text.lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            assert!(
                cells.len() >= 4,
                "a row has event, part, level, meaning: {row}"
            );
            let event = cells[0].trim_end_matches('`').to_owned();
            (event, (cells[1].to_owned(), cells[2].to_owned()))
        })
        .collect()
}

#[test]
fn every_line_of_the_log_has_a_stable_name() {
    let (named, nameless) = in_sources();
    assert!(nameless.is_empty(), "without event = \"…\": {nameless:#?}");
    for event in named.keys() {
        let camel = event.starts_with(|first: char| first.is_ascii_uppercase())
            && event.bytes().all(|byte| byte.is_ascii_alphanumeric());
        assert!(camel, "{event} is not in CamelCase");
    }
}

#[test]
fn the_documentation_lists_every_event() {
    let (named, _) = in_sources();
    assert!(named.len() > 20, "the sources have few events: {named:?}");
    assert_eq!(in_documentation(), named);
}

#[test]
fn an_argument_may_hold_parentheses_and_quotes() {
    assert_eq!(
        arguments("a = f(1), \"x) \\\" y\"); rest"),
        "a = f(1), \"x) \\\" y\""
    );
}

// SPDX-License-Identifier: EUPL-1.2
//! No person stands in an object: neither in the examples nor in tests and docs is there a personal name or an e-mail address of a
//! person. Objects are copied from examples, so what stands there ends up in clusters.

use std::path::{Path, PathBuf};

/// Folders that hold what others wrote, or what is built.
const FOREIGN: &[&str] = &[
    "target",
    "node_modules",
    ".git",
    "dist",
    "vendor",
    "crds",
    "images",
];
/// Frequent given names, as a whole word with a capital: nobody's own, everybody's mistake.
const GIVEN_NAMES: &[&str] = &[
    "Alexander",
    "Alice",
    "Andreas",
    "Anna",
    "Barbara",
    "Bernd",
    "Birgit",
    "Christian",
    "Claudia",
    "Daniel",
    "David",
    "Elizabeth",
    "Emma",
    "Felix",
    "Frank",
    "Gabriele",
    "Hannah",
    "Hans",
    "Heike",
    "James",
    "Jan",
    "Jennifer",
    "John",
    "Jonas",
    "Julia",
    "Jürgen",
    "Karin",
    "Katharina",
    "Klaus",
    "Laura",
    "Lea",
    "Leon",
    "Linda",
    "Lukas",
    "Manfred",
    "Maria",
    "Markus",
    "Martin",
    "Mary",
    "Michael",
    "Monika",
    "Nicole",
    "Paul",
    "Peter",
    "Petra",
    "Robert",
    "Sabine",
    "Sarah",
    "Sophie",
    "Stefan",
    "Susanne",
    "Thomas",
    "Tim",
    "Ursula",
    "Uwe",
    "William",
    "Wolfgang",
];
/// What stands before a person's name.
const TITLES: &[&str] = &["Frau", "Herr", "Herrn", "Mr", "Mrs", "Ms", "Dr", "Prof"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Files with one of these endings, below some folders.
fn files(below: &[&str], endings: &[&str]) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = below.iter().map(|name| root().join(name)).collect();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.expect("an entry").path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if path.is_symlink() || FOREIGN.contains(&name) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Lines of objects: of a manifest all, of a page those between the fences of a block of YAML. Comments are left out.
fn object_lines(path: &Path, text: &str) -> Vec<(usize, String)> {
    let page = path.extension().is_some_and(|ending| ending == "md");
    let mut inside = !page;
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if page && line.trim_start().starts_with("```") {
            inside = line.trim_start().starts_with("```yaml");
        } else if inside {
            let plain = if line.trim_start().starts_with('#') {
                ""
            } else {
                line.split(" #").next().unwrap_or(line)
            };
            lines.push((at + 1, plain.to_owned()));
        }
    }
    lines
}

/// A domain that nobody has (RFC 2606).
fn is_example(domain: &str) -> bool {
    let domain = domain.trim_end_matches('.');
    [
        "example",
        "test",
        "invalid",
        "example.org",
        "example.com",
        "example.net",
    ]
    .iter()
    .any(|reserved| domain == *reserved || domain.ends_with(&format!(".{reserved}")))
}

/// A mailbox of a role: at an example domain, and not `given.family@`.
fn is_role_mailbox(address: &str) -> bool {
    address.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !local.contains('.') && is_example(domain)
    })
}

/// What is wrong with a line of an object.
fn wrong_in_object(line: &str) -> Option<&'static str> {
    // A digest of an image, and credentials of a service in its URL, are no addresses.
    let address =
        |token: &str| token.contains('@') && !token.contains("@sha256:") && !token.contains("://");
    if line.split_whitespace().any(address) {
        let value = line.split_once("mailbox:").map(|(_, value)| value);
        let value = value.map(|value| value.trim().trim_matches(['"', '\'', '}', ' ']));
        match value {
            None => return Some("an @ stands only in mailbox"),
            Some(value) if !is_role_mailbox(value) => {
                return Some("a mailbox is that of a role, at an example domain");
            }
            Some(_) => {}
        }
    }
    let words: Vec<&str> = line
        .split(|char: char| !char.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    if words.iter().any(|word| GIVEN_NAMES.contains(word)) {
        return Some("a given name stands here");
    }
    let titled = words.windows(2).any(|pair| {
        TITLES.contains(&pair[0]) && pair[1].chars().next().is_some_and(char::is_uppercase)
    });
    titled.then_some("a title before a name stands here")
}

/// Addresses in a text that look like somebody's.
fn addresses(line: &str) -> impl Iterator<Item = &str> {
    line.split(|char: char| char.is_whitespace() || "\"'`<>()[]{},;|".contains(char))
        .filter(|token| !token.contains("://"))
        .filter(|token| {
            let Some((local, domain)) = token.split_once('@') else {
                return false;
            };
            let domain = domain.trim_end_matches(['.', ':', '!', '?']);
            let plain = |text: &str, others: &str| {
                !text.is_empty()
                    && text
                        .chars()
                        .all(|char| char.is_ascii_alphanumeric() || others.contains(char))
            };
            let ending = domain.rsplit_once('.').map(|(_, ending)| ending);
            plain(local, "._%+-")
                && plain(domain, "-.")
                && ending.is_some_and(|ending| {
                    ending.len() >= 2 && ending.chars().all(|char| char.is_ascii_alphabetic())
                })
        })
}

#[test]
fn no_object_of_examples_tests_and_docs_holds_a_person() {
    let found = files(
        &["docs", "operator", "charts", "e2e"],
        &[".yaml", ".yml", ".md"],
    );
    assert!(
        found
            .iter()
            .any(|path| path.ends_with("docs/examples/school/school.yaml")),
        "the examples are looked at"
    );
    let mut wrong = Vec::new();
    for path in found {
        let text = std::fs::read_to_string(&path).expect("a text");
        for (at, line) in object_lines(&path, &text) {
            if let Some(why) = wrong_in_object(&line) {
                wrong.push(format!("{}:{at}: {why}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn addresses_in_code_and_pages_are_at_example_domains() {
    let found = files(
        &[
            "docs",
            "operator",
            "charts",
            "e2e",
            "control-plane",
            "media-node",
            "proto",
        ],
        &[".rs", ".md", ".yaml", ".yml", ".go", ".ts", ".mjs"],
    );
    let mut wrong = Vec::new();
    for path in found {
        // These two are about what is wrong.
        if path.ends_with("tests/no_people.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for (at, line) in text.lines().enumerate() {
            for address in addresses(line) {
                let domain = address.split_once('@').map_or("", |(_, domain)| domain);
                let domain = domain.trim_end_matches(['.', ':', '!', '?']);
                if !is_example(domain) {
                    wrong.push(format!("{}:{}: {address}", path.display(), at + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_check_itself_finds_what_it_looks_for() {
    for line in [
        "  mailbox: erika.muster@town.example",
        "  mailbox: office@town.de",
        "  id: somebody@town.example",
        "  displayName: Sprechstunde Frau Beispiel",
        "  displayName: Termin mit Sabine",
    ] {
        assert!(wrong_in_object(line).is_some(), "{line}");
    }
    for line in [
        "  mailbox: office@town.example",
        "  - { type: Technical, mailbox: it@town.example }",
        "  image: registry.example/media@sha256:abc",
        "  displayName: Gemeinderat",
    ] {
        assert_eq!(wrong_in_object(line), None, "{line}");
    }
    assert_eq!(addresses("write to office@town.de.").count(), 1);
    assert_eq!(
        addresses("redis://user@host.de, eslint@9.1.0, @scope/name").count(),
        0
    );
}

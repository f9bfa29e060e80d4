// SPDX-License-Identifier: EUPL-1.2
//! The list of what is proven (docs/acceptance.md) names tests that there are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// Points of the list that must have a row; 14 belongs to a later kind.
const POINTS: [u32; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15];

/// A test by its name and its file.
type Named<'a> = (&'a str, &'a str);

/// Rows: the point, and the tests that its third column links.
fn rows(page: &str) -> Vec<(u32, Vec<Named<'_>>)> {
    page.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line
                .strip_prefix('|')?
                .split(" | ")
                .map(str::trim)
                .collect();
            let point = cells.first()?.parse().ok()?;
            Some((point, links(cells.get(2)?)))
        })
        .collect()
}

/// `[name](../file)`, as many as there are.
fn links(cell: &str) -> Vec<Named<'_>> {
    let pieces = cell.split('[').skip(1);
    pieces
        .filter_map(|piece| {
            let (name, rest) = piece.split_once("](../")?;
            Some((name, rest.split_once(')')?.0))
        })
        .collect()
}

/// Whether a file holds a test of that name: an annotated function, a case of a list, or a step of a test that lies in the same file.
fn is_test(text: &str, siblings: &str, name: &str) -> bool {
    let Some(at) = text.find(&format!("fn {name}(")) else {
        return false;
    };
    let above: Vec<&str> = text[..at].lines().rev().take(6).collect();
    let annotated = above
        .iter()
        .any(|line| line.contains("#[test]") || line.contains("#[tokio::test"));
    let called = |text: &str| {
        text.match_indices(name).any(|(found, _)| {
            !text[..found].ends_with("fn ")
                && text[found + name.len()..].starts_with(['(', ',', '\n'])
        })
    };
    annotated || called(text) || called(siblings)
}

#[test]
fn every_point_names_tests_that_there_are() -> Result<()> {
    let page = std::fs::read_to_string(docs().join("acceptance.md"))?;
    let rows = rows(&page);
    let points: Vec<u32> = rows.iter().map(|(point, _)| *point).collect();
    ensure!(points == POINTS, "{points:?}");
    for (point, tests) in &rows {
        ensure!(!tests.is_empty(), "point {point} names no test");
        for (name, file) in tests {
            let path = docs().join("..").join(file);
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("point {point}: {file}"))?;
            let main = path.with_file_name("main.rs");
            let siblings = std::fs::read_to_string(main).unwrap_or_default();
            let there = if file.ends_with(".mjs") {
                text.contains(name)
            } else {
                is_test(&text, &siblings, name)
            };
            ensure!(there, "point {point}: {file} holds no test {name}");
        }
    }
    Ok(())
}

#[test]
fn a_function_that_nobody_runs_is_no_test() {
    let text =
        "#[test]\nfn one() {}\n\n\n\n\n\n\nfn two() {}\n\nfn three() { four(); }\nfn four() {}\n";
    for (name, expected) in [
        ("one", true),
        ("two", false),
        ("four", true),
        ("five", false),
    ] {
        assert_eq!(is_test(text, "", name), expected, "{name}");
    }
    assert!(is_test(text, "cases![\n    main::two,\n]", "two"));
}

#[test]
fn links_are_read_from_a_cell() {
    let cell = "[a_b](../x/y.rs), and [c](../z.mjs) but not [d](e.md)";
    assert_eq!(links(cell), [("a_b", "x/y.rs"), ("c", "z.mjs")]);
}

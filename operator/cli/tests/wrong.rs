// SPDX-License-Identifier: EUPL-1.2
//! Wrong manifests and what `plenum validate` says of them, word for word.
//!
//! Each `wrong/*.yaml` is judged together with `wrong/base`; the text beside it is the whole answer. After a wanted change
//! of messages: `PLENUM_BLESS=1 cargo test -p plenum --test wrong`, then read the difference.

use std::{fs, path::Path, process::Command};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wrong");
/// The least number of cases; one that gets lost is noticed.
const CASES_MIN: usize = 40;

fn validate(paths: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_plenum"))
        .current_dir(FOLDER)
        .arg("validate")
        .args(paths.iter().flat_map(|path| ["-f", path]))
        .output()
        .expect("plenum runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn what_the_wrong_manifests_refer_to_is_valid() {
    let (code, said, _) = validate(&["base"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn every_wrong_manifest_is_refused_in_the_words_beside_it() {
    let bless = std::env::var_os("PLENUM_BLESS").is_some();
    let mut names: Vec<String> = fs::read_dir(FOLDER)
        .expect("the folder")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    names.sort();
    assert!(names.len() >= CASES_MIN, "{} cases", names.len());
    let mut failures = Vec::new();
    for name in names {
        let (code, said, problems) = validate(&["base", &name]);
        let beside = Path::new(FOLDER).join(name.replace(".yaml", ".txt"));
        if bless {
            fs::write(&beside, &said).expect("the text is written");
        }
        let wanted = fs::read_to_string(&beside).unwrap_or_default();
        if code != Some(2) || said != wanted || !problems.is_empty() {
            failures.push(format!(
                "{name}: exit code {code:?}\n--- wanted\n{wanted}--- said\n{said}{problems}"
            ));
        }
        for part in ["rule:", "remedy:", &name] {
            assert!(said.contains(part), "{name}: no {part} in\n{said}");
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

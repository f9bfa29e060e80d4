// SPDX-License-Identifier: EUPL-1.2
//! `plenum validate` as a person runs it: exit codes, places and remedies.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

const QUICKSTART: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/examples/quickstart"
);

#[test]
fn every_example_is_valid_by_itself() {
    let examples = Path::new(QUICKSTART)
        .parent()
        .expect("a folder of examples");
    for entry in fs::read_dir(examples).expect("examples") {
        let path = entry.expect("an entry").path();
        let (code, report) = validate(&path);
        assert_eq!(
            report["findings"],
            serde_json::json!([]),
            "{}",
            path.display()
        );
        assert_eq!(code, 0);
    }
}

#[test]
fn quickstart_is_valid() {
    let (code, report) = validate(Path::new(QUICKSTART));
    assert_eq!(report["findings"], serde_json::json!([]));
    assert_eq!((code, &report["objects"]), (0, &9.into()));
}

#[test]
fn all_errors_of_all_files_come_at_once() {
    let folder = Folder::new("all");
    for (file, from, to) in [
        ("pool.yaml", "replicas: 2", "replicas: -1"),
        ("conferences.yaml", "type: Key", "type: Door"),
    ] {
        let text = fs::read_to_string(Path::new(QUICKSTART).join(file)).expect("an example");
        folder.write(file, &text.replacen(from, to, 1));
    }
    let (code, report) = validate(&folder.0);
    let files: Vec<&Value> = report["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|found| &found["file"])
        .collect();
    assert_eq!(code, 2);
    for file in ["pool.yaml", "conferences.yaml"] {
        assert!(
            files
                .iter()
                .any(|name| name.as_str().is_some_and(|name| name.ends_with(file))),
            "{files:?}"
        );
    }
}

#[test]
fn alias_bomb_and_deep_nesting_are_refused() {
    let folder = Folder::new("bombs");
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let below = format!("*a{}", level - 1);
        bomb.push_str(&format!(
            "a{level}: &a{level} [{}]\n",
            [below.as_str(); 10].join(", ")
        ));
    }
    let deep = format!("a: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (name, text) in [("bomb.yaml", bomb), ("deep.yaml", deep)] {
        let (code, report) = validate(&folder.write(name, &text));
        assert_eq!(
            (code, &report["findings"][0]["rule"]),
            (2, &"YAML".into()),
            "{name}"
        );
    }
}

#[test]
fn what_has_no_effect_is_named_once() {
    let folder = Folder::new("notes");
    for name in ["tenant.yaml", "lab.yaml", "class.yaml", "pool.yaml"] {
        let text = fs::read_to_string(Path::new(QUICKSTART).join(name)).expect("an example");
        folder.write(
            name,
            &text.replace("  contacts:", "  retention:\n    chat: P10D\n  contacts:"),
        );
    }
    folder.write(
        "namespace.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: tenant-lab\n",
    );
    let (code, report) = validate(&folder.0);
    let notes: Vec<&str> = report["notes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(code, 0, "{report}");
    for (part, count) in [
        ("Tenant spec.retention ", 1),
        ("Namespace ", 1),
        ("displayName", 0),
    ] {
        assert_eq!(
            notes.iter().filter(|note| note.contains(part)).count(),
            count,
            "{part}: {notes:?}"
        );
    }
    assert!(
        notes
            .iter()
            .any(|note| note.ends_with("(used by lab and 1 more)")),
        "{notes:?}"
    );
}

#[test]
fn help_teaches_by_example() {
    for verb in [
        &["up"][..],
        &["validate"],
        &["get"],
        &["describe"],
        &["down"],
        &["drain"],
        &["uncordon"],
        &["probe"],
        &[],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_plenum"))
            .args(verb)
            .arg("--help")
            .output()
            .expect("plenum runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{verb:?}");
        let example = format!("  plenum {}", verb.first().unwrap_or(&"up"));
        assert!(text.contains(&example), "{verb:?} has no example:\n{text}");
        assert!(
            !text.contains("child"),
            "what is for the inside is not shown"
        );
    }
}

#[test]
fn wrong_manifests_start_nothing() {
    let folder = Folder::new("up-wrong");
    let text = fs::read_to_string(Path::new(QUICKSTART).join("class.yaml")).expect("an example");
    let manifest = folder.write(
        "class.yaml",
        &text.replace("preset: Meeting", "preset: Meting"),
    );
    let state = folder.0.join("state");
    let output = Command::new(env!("CARGO_BIN_EXE_plenum"))
        .args(["up", "--http-port", "0", "-f"])
        .arg(manifest)
        .arg("--state-dir")
        .arg(&state)
        .output()
        .expect("plenum runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said.contains("class.yaml:10: ConferenceClass/meeting: spec.preset"),
        "{said}"
    );
    assert!(said.contains("did you mean Meeting?"), "{said}");
    assert!(said.ends_with("nothing was started\n"), "{said}");
    assert!(!state.exists(), "nothing was begun");
}

#[test]
fn nothing_to_read_is_an_error() {
    let folder = Folder::new("empty");
    assert_eq!(validate(&folder.0).0, 2);
    let output = run(&folder.0.join("absent.yaml"));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("absent.yaml"));
}

fn validate(path: &Path) -> (i32, Value) {
    let output = run(path);
    let report = serde_json::from_slice(&output.stdout).expect("JSON on standard output");
    (output.status.code().expect("an exit code"), report)
}

fn run(path: &Path) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_plenum"))
        .args(["validate", "--output", "json", "-f"])
        .arg(path)
        .output()
        .expect("plenum runs")
}

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file for the test");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder left behind is harmless: it lies in the build directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

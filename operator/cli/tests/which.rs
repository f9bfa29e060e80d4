// SPDX-License-Identifier: EUPL-1.2
//! Which system a verb speaks with: the one of the state directory, or a cluster. The same rule for all verbs.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

/// A folder of its own, gone in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("plenum-which-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// Runs the program under a name, with neither kubeconfig nor state.
    fn run(&self, name: &str, args: &[&str]) -> Output {
        let link = self.0.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_plenum"), &link).expect("a link");
        }
        Command::new(link)
            .args(args)
            .env_clear()
            .env("HOME", &self.0)
            .env("KUBECONFIG", self.0.join("no-kubeconfig"))
            .output()
            .expect("plenum runs")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn plenum_means_the_state_directory_and_says_how_to_mean_a_cluster() {
    let folder = Folder::new("local");
    for args in [
        &["status"][..],
        &["drain", "local-0"],
        &["uncordon", "local-0"],
        &["cancel", "local-0"],
    ] {
        let output = folder.run("plenum", args);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert!(
            text.contains("no system is running with --state-dir"),
            "{text}"
        );
        assert!(text.contains("`kubectl plenum`"), "{text}");
    }
}

#[test]
fn a_named_cluster_and_the_name_of_the_plugin_mean_a_cluster() {
    let folder = Folder::new("cluster");
    for (name, args) in [
        ("plenum", &["status", "--context", "production"][..]),
        ("plenum", &["drain", "n", "--context", "production"]),
        ("plenum", &["drain", "n", "--undo", "--kubeconfig", "none"]),
        ("plenum", &["uncordon", "n", "--kubeconfig", "none"]),
        ("plenum", &["report"]),
        ("kubectl-plenum", &["status"]),
        ("kubectl-plenum", &["drain", "n"]),
        ("kubectl-plenum", &["uncordon", "n"]),
        ("kubectl-plenum", &["report", "--list"]),
        ("kubectl-plenum", &["probe", "--media-from-cluster"]),
    ] {
        let output = folder.run(name, args);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{name} {args:?}: {text}");
        assert!(
            text.contains("no cluster to speak with") && text.contains("set KUBECONFIG"),
            "{name} {args:?}: {text}"
        );
    }
}

#[test]
fn the_plugin_shows_its_own_verbs_under_its_own_name() {
    let folder = Folder::new("help");
    let help = said(&folder.run("kubectl-plenum", &["--help"]));
    assert!(help.contains("Usage: kubectl plenum <COMMAND>"), "{help}");
    let drain = said(&folder.run("kubectl-plenum", &["drain", "--help"]));
    assert!(drain.contains("Usage: kubectl plenum drain"), "{drain}");
    let up = folder.run("kubectl-plenum", &["up", "-f", "."]);
    assert_eq!(up.status.code(), Some(2), "{}", said(&up));
}

#[test]
fn what_a_mode_cannot_do_is_said() {
    let folder = Folder::new("wrong");
    let output = folder.run("plenum", &["drain", "local-0", "--on-deadline", "Move"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("the pool's drain.onDeadline holds"));
    let output = folder.run("kubectl-plenum", &["probe"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("nothing to check"));
    let output = folder.run("kubectl-plenum", &["drain", "n", "--deadline", "soon"]);
    assert!(
        said(&output).contains("write it as 90s, 15m, 2h"),
        "{}",
        said(&output)
    );
}

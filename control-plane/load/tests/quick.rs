// SPDX-License-Identifier: EUPL-1.2
//! The load program with small numbers: everything it measures happens, and nothing is left behind.

use std::path::Path;
use std::process::Command;

/// Figures, as the program prints them.
fn run(extra: &[&str]) -> serde_json::Value {
    let program = Path::new(env!("CARGO_BIN_EXE_control-load"));
    let replica = program.with_file_name("control-plane");
    assert!(
        replica.is_file(),
        "{} is not there: build it first (cargo build --package control-plane)",
        replica.display()
    );
    let output = Command::new(program)
        .args(["run", "--quick", "--output", "json"])
        .args(extra)
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("figures are JSON")
}

fn number(figures: &serde_json::Value, pointer: &str) -> f64 {
    figures
        .pointer(pointer)
        .and_then(serde_json::Value::as_f64)
        .unwrap_or_else(|| panic!("{pointer} is missing in {figures}"))
}

#[test]
fn a_small_run_on_a_real_redis_measures_everything() {
    let figures = run(&[]);
    assert_eq!(number(&figures, "/joins/joins"), 60.0);
    assert_eq!(number(&figures, "/joins/failed"), 0.0);
    assert_eq!(number(&figures, "/sessions/open"), 20.0);
    assert_eq!(number(&figures, "/half_load/failed"), 0.0);
    // Round trips are counts, not times. What nodes report meanwhile is taken out as it was a moment before; the bounds have room for that.
    let new = number(&figures, "/plan/new_room_round_trips");
    assert!(
        (0.9..=4.0).contains(&new),
        "a join that opens a room makes {new} round trips"
    );
    let running = number(&figures, "/plan/running_room_round_trips");
    assert!(
        (0.7..=1.5).contains(&running),
        "a join to a room that runs makes {running} round trips"
    );
    assert!(number(&figures, "/key_space/keys") >= 20.0);
}

#[test]
fn a_size_that_cannot_be_is_refused_by_name() {
    let output = Command::new(env!("CARGO_BIN_EXE_control-load"))
        .args(["run", "--nodes", "2001"])
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("--nodes 2001"), "{said}");
}

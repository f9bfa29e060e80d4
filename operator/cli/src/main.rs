// SPDX-License-Identifier: EUPL-1.2
//! The `plenum` command.

/// As `print!`, for whoever reads; that nobody does any more (`| head`) is no error.
macro_rules! say {
    ($($part:tt)*) => { $crate::write_out(&format!($($part)*)) };
}
/// As `println!`, likewise.
macro_rules! sayln {
    () => { $crate::write_out("\n") };
    ($($part:tt)*) => { $crate::write_out(&(format!($($part)*) + "\n")) };
}

mod args;
mod client;
mod follow;
mod manifest;
#[cfg(test)]
mod mutations;
mod table;
mod up;
mod validate;

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use args::{Cli, Output, Verb};
use clap::Parser as _;

/// Something could not be done.
const FAILED: u8 = 1;
/// What was given is wrong.
const WRONG: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().verb {
        Verb::Up(options) => up::run(&options),
        Verb::Validate { files, output } => run_validate(&files, output),
        Verb::Get {
            kind,
            name,
            output,
            state,
        } => client::get(&state.path(), kind, name.as_deref(), output),
        Verb::Describe { kind, name, state } => client::describe(&state.path(), kind, &name),
        Verb::Down { state } => client::down(&state.path()),
        Verb::Drain {
            node,
            timeout_seconds,
            undo,
            no_wait,
            output,
            state,
        } => follow::drain(&state.path(), &node, timeout_seconds, undo, no_wait, output),
        Verb::Restart {
            what,
            timeout_seconds,
            no_wait,
            status: _,
            output,
            state,
        } => follow::restart(&state.path(), what, timeout_seconds, no_wait, output),
        Verb::Child { parent, command } => up::child(parent, &command),
    }
}

fn run_validate(paths: &[PathBuf], output: Output) -> ExitCode {
    let checked = validate::manifests_of(paths).and_then(|files| {
        let checked = validate::check(&files, None)?;
        Ok((files, checked.report))
    });
    let (files, report) = match checked {
        Ok(checked) => checked,
        Err(error) => return fail(WRONG, &error),
    };
    match output {
        Output::Json => sayln!("{}", serde_json::json!(report)),
        Output::Text => validate::print_report(&report, files.len()),
    }
    if report.objects == 0 && report.findings.is_empty() {
        return fail(
            WRONG,
            "no manifest found; -f takes a file or a directory with *.yaml",
        );
    }
    ExitCode::from(if report.findings.is_empty() { 0 } else { WRONG })
}

fn write_out(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Says why on standard error.
fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("plenum: {message}");
    ExitCode::from(code)
}

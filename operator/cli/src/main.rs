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
mod cluster;
mod follow;
#[cfg(test)]
mod generated;
mod manifest;
#[cfg(test)]
mod mutations;
mod readyz;
mod table;
mod up;
mod validate;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use args::{Cli, Output, Verb};
use clap::Parser as _;
use cluster::args::KubectlVerb;

/// Something could not be done.
const FAILED: u8 = 1;
/// What was given is wrong.
const WRONG: u8 = 2;

fn main() -> ExitCode {
    if as_plugin() {
        return plugin(cluster::args::Kubectl::parse().verb);
    }
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
        Verb::Status {
            options,
            access,
            state,
        } => match access.named() {
            true => cluster::status(&access, &options),
            false => client::status(&state.path(), &options),
        },
        Verb::Drain {
            options,
            timeout_seconds,
            undo,
            state,
            access,
        } => match access.named() {
            true if undo => cluster::uncordon(&access, &options.taken_back()),
            true => cluster::drain(&access, &options.within(timeout_seconds)),
            false => follow::drain(&state.path(), &options.within(timeout_seconds), undo),
        },
        Verb::Uncordon {
            options,
            state,
            access,
        } => match access.named() {
            true => cluster::uncordon(&access, &options),
            false => follow::undo(&state.path(), &options),
        },
        Verb::Report { options, access } => cluster::report(&access, &options),
        Verb::Probe { options, access } => cluster::probe(&access, &options),
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

/// kubectl runs a program of its `PATH` called `kubectl-plenum` as `kubectl plenum`.
fn as_plugin() -> bool {
    std::env::args_os().next().is_some_and(|program| {
        Path::new(&program)
            .file_stem()
            .is_some_and(|name| name == "kubectl-plenum")
    })
}

fn plugin(verb: KubectlVerb) -> ExitCode {
    match verb {
        KubectlVerb::Status { options, access } => cluster::status(&access, &options),
        KubectlVerb::Drain { options, access } => cluster::drain(&access, &options),
        KubectlVerb::Uncordon { options, access } => cluster::uncordon(&access, &options),
        KubectlVerb::Report { options, access } => cluster::report(&access, &options),
        KubectlVerb::Probe { options, access } => cluster::probe(&access, &options),
        KubectlVerb::Validate { files, output } => run_validate(&files, output),
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

// SPDX-License-Identifier: EUPL-1.2
//! `plenum up`: the operator of one machine. Files instead of an API server, child processes instead of pods; validation,
//! plan and publication are those of a cluster.

mod children;
mod machine;
mod net;
mod options;
mod pki;
mod probe;
pub(crate) mod protocol;
#[cfg(test)]
mod published;
mod report;
mod secrets;
mod socket;
pub(crate) mod state_dir;
mod store;
mod view;
mod watch;

use std::{ffi::OsString, io::IsTerminal as _, process::ExitCode};

use tracing_subscriber::EnvFilter;

use crate::{FAILED, WRONG, args, fail, validate};

pub(crate) use children::become_child as child;

/// Runs the system until it is told to stop.
pub(crate) fn run(args: &args::Up) -> ExitCode {
    let filter = EnvFilter::try_from_env("PLENUM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        // Whoever read the log may be gone; a complaint about it on the same closed pipe would be a panic.
        .log_internal_errors(false)
        .init();
    let began = std::time::Instant::now();
    let options = match options::Options::new(args) {
        Ok(options) => options,
        Err(error) => return fail(WRONG, &error.to_string()),
    };
    let checked = validate::manifests_of(&options.paths)
        .and_then(|files| Ok((validate::check(&files, None)?, files)));
    let (checked, files) = match checked {
        Ok(checked) => checked,
        Err(error) => return fail(WRONG, &error),
    };
    let reporter = report::Reporter::new(args.output);
    if !checked.report.findings.is_empty() {
        reporter.rejected(&checked.report, files.len(), "nothing was started");
        return ExitCode::from(WRONG);
    }
    if checked.report.objects == 0 {
        return fail(
            WRONG,
            "no manifest found; -f takes a file or a directory with *.yaml",
        );
    }
    if let Err(error) = options.judge(&checked.objects) {
        return fail(WRONG, &error.to_string());
    }
    // One thread: the kernel ties children to the thread that started them, and there is little to do.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(machine::run(options, checked, reporter, began)),
        Err(error) => return fail(FAILED, &format!("cannot start the runtime: {error}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &format!("{error:#}")),
    }
}

/// Arguments as the children take them.
fn argument(name: &str, value: impl Into<OsString>) -> [OsString; 2] {
    [format!("--{name}").into(), value.into()]
}

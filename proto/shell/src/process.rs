// SPDX-License-Identifier: EUPL-1.2
//! How a process of Plenum begins: its threads, then its log. What goes wrong before there is a log is said on standard error.

use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};

use crate::telemetry::{self, Options, Telemetry};

/// Wrong command line or surroundings: starting again does not help.
pub const EXIT_CONFIG: u8 = 2;

/// A runtime over all processors; its threads are called `threads`, where that is given.
///
/// # Errors
/// The code to end with.
pub fn runtime(threads: Option<&str>) -> Result<Runtime, ExitCode> {
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.thread_name(threads);
    }
    builder.enable_all().build().map_err(|error| {
        eprintln!("the runtime does not start: {error}");
        ExitCode::FAILURE
    })
}

/// Log and traces of the part `service` with the name `instance`, as [`telemetry::start`].
///
/// # Errors
/// The code to end with.
pub fn telemetry(
    runtime: &Runtime,
    options: &Options,
    service: &'static str,
    instance: &str,
) -> Result<Telemetry, ExitCode> {
    let _context = runtime.enter();
    telemetry::start(options, service, instance).map_err(|error| {
        eprintln!("{:#}", anyhow::Error::from(error));
        ExitCode::from(EXIT_CONFIG)
    })
}

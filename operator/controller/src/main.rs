// SPDX-License-Identifier: EUPL-1.2
//! The operator's process.

use std::process::ExitCode;

use clap::Parser as _;
use operator::{args::Args, run::run};
use plenum_shell::process::{self, EXIT_CONFIG};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let args = Args::parse();
    // Before any TLS: with two providers in the tree rustls would not choose one.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("another TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    begin(&args).unwrap_or_else(|code| code)
}

fn begin(args: &Args) -> Result<ExitCode, ExitCode> {
    let runtime = process::runtime(None)?;
    let telemetry = process::telemetry(&runtime, &args.telemetry, "operator", &args.pod_name)?;
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signal(&stop)?;
        run(args, stop).await.map_err(anyhow::Error::from)
    });
    telemetry.stop();
    outcome.map(|()| ExitCode::SUCCESS).map_err(|error| {
        tracing::error!(event = "OperatorFailed", "{error:#}");
        ExitCode::from(EXIT_CONFIG)
    })
}

fn stop_on_signal(stop: &CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}

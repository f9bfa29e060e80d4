// SPDX-License-Identifier: EUPL-1.2
//! The operator's process.

use std::process::ExitCode;

use clap::Parser as _;
use operator::{args::Args, run::run};
use plenum_shell::telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Wrong command line or surroundings, as the other binaries say it.
const EXIT_CONFIG: u8 = 2;

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
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the runtime does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let started = {
        let _context = runtime.enter();
        telemetry::start(&args.telemetry, "operator", &args.pod_name)
    };
    let telemetry = match started {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("{:#}", anyhow::Error::from(error));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signal(&stop)?;
        run(&args, stop).await.map_err(anyhow::Error::from)
    });
    telemetry.stop();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(event = "OperatorFailed", "{error:#}");
            ExitCode::from(EXIT_CONFIG)
        }
    }
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

// SPDX-License-Identifier: EUPL-1.2
//! `media-node`: reads the command line, runs a node until a signal, stops in good order.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use media_node::config::{Args, LogFormat};
use media_node::identity::Tls;
use media_node::node::Node;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The command line or a file it names is wrong: starting again does not help.
const EXIT_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // Whoever read the log may be gone; a complaint about it on the same closed pipe would be a panic.
        .log_internal_errors(false);
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    if let Err(error) = args.check() {
        tracing::error!("{error}");
        return ExitCode::from(EXIT_CONFIG);
    }
    let tls = match Tls::read(&args.tls_dir) {
        Ok(tls) => tls,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "--tls-dir");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match run(&args, tls) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args, tls: Tls) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("rooms")
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let mut node = Node::start(args, tls).await?;
        let failed = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            part = node.failed() => Some(part),
        };
        node.stop().await;
        match failed {
            None => Ok(()),
            Some(part) => Err(anyhow::anyhow!("{part} ended unasked")),
        }
    });
    // A name that is being resolved holds a thread of the runtime.
    runtime.shutdown_background();
    outcome
}

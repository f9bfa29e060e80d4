// SPDX-License-Identifier: EUPL-1.2
//! `media-node`: reads the command line, runs a node until a signal, stops in good order.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use media_node::config::Args;
use media_node::identity::Tls;
use media_node::node::Node;
use plenum_shell::process::{self, EXIT_CONFIG};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let args = Args::parse();
    begin(&args).unwrap_or_else(|code| code)
}

fn begin(args: &Args) -> Result<ExitCode, ExitCode> {
    let runtime = process::runtime(Some("rooms"))?;
    let telemetry = process::telemetry(&runtime, &args.telemetry, "media-node", &args.node_uid)?;
    if let Err(error) = args.check() {
        tracing::error!(event = "ArgumentsRefused", "{error}");
        return Err(ExitCode::from(EXIT_CONFIG));
    }
    let tls = match Tls::read(&args.tls_dir) {
        Ok(tls) => tls,
        Err(error) => {
            tracing::error!(
                event = "CertificatesUnreadable",
                error = &error as &dyn std::error::Error,
                "--tls-dir"
            );
            return Err(ExitCode::from(EXIT_CONFIG));
        }
    };
    let outcome = run(&runtime, args, tls);
    telemetry.stop();
    // A name that is being resolved holds a thread of the runtime.
    runtime.shutdown_background();
    outcome.map(|()| ExitCode::SUCCESS).map_err(|error| {
        tracing::error!(event = "NodeFailed", "{error:#}");
        ExitCode::FAILURE
    })
}

/// What ends the node: SIGTERM lets its rooms end or move first, SIGINT does not.
enum Asked {
    ToLeave,
    ToStop,
    Failed(&'static str),
}

fn run(runtime: &Runtime, args: &Args, tls: Tls) -> anyhow::Result<()> {
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let mut node = Node::start(args, tls).await?;
        let asked = tokio::select! {
            _ = terminate.recv() => Asked::ToLeave,
            _ = interrupt.recv() => Asked::ToStop,
            part = node.failed() => Asked::Failed(part),
        };
        let failed = match asked {
            Asked::ToStop => None,
            Asked::Failed(part) => Some(part),
            Asked::ToLeave => {
                // Who asks twice does not want to wait.
                let hurry = async {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                };
                node.drain(hurry).await
            }
        };
        node.stop().await;
        match failed {
            None => Ok(()),
            Some(part) => Err(anyhow::anyhow!("{part} ended unasked")),
        }
    })
}

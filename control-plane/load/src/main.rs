// SPDX-License-Identifier: EUPL-1.2
//! Load on the control plane: real replicas, a real Redis, real mTLS streams and WebSockets; only nodes and people are simulated.
//!
//! `run` is the conductor. Children are replicas, `redis-server`, and this program again: [`crowd`] holds open sessions, [`plan`] measures
//! plan and store without HTTP, [`floor`] is the barest server to compare with. Everything listens on loopback and ends with this process.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

mod crowd;
mod figures;
mod floor;
mod joins;
mod nodes;
mod operator;
mod people;
mod pki;
mod plan;
mod process;
mod redis_server;
mod replica;
mod run;
mod target;

#[derive(Debug, Parser)]
#[command(
    name = "control-load",
    version,
    about = "Load on Plenum's control plane: prints what joins, sessions and reports of nodes cost"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts everything, measures, prints.
    Run(run::RunArgs),
    /// Holds open sessions; started by `run`.
    #[command(hide = true)]
    Crowd(crowd::CrowdArgs),
    /// Measures plan and store; started by `run`.
    #[command(hide = true)]
    Plan(plan::PlanArgs),
    /// The barest WebSocket server; started by `run`.
    #[command(hide = true)]
    Floor(floor::FloorArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| EnvFilter::new("warn,control_load=info")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .log_internal_errors(false)
        .init();
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
    let result = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(args).await,
            Command::Crowd(args) => crowd::run(args).await,
            Command::Plan(args) => plan::run(args).await,
            Command::Floor(args) => floor::run(args).await,
        }
    });
    // Simulated nodes and sessions have no end of their own.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("control-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! A real Kubernetes of two nodes for a person to try things in: `make cluster`, `make cluster-down`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Parser, Subcommand};
use e2e::cluster::State;

#[derive(Parser)]
struct Args {
    /// Where the cluster's files are.
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Starts it and prints KUBECONFIG.
    Up,
    /// Ends it and leaves nothing behind.
    Down,
    /// Brings images onto both nodes.
    Load {
        /// Archives, OCI or Docker.
        #[arg(required = true, value_name = "ARCHIVE")]
        archives: Vec<PathBuf>,
    },
    /// Runs a program in the cluster's network, outside of the pods': the nodes are at 10.99.0.11 and 10.99.0.12.
    Exec {
        /// The program and its arguments.
        #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
        program: Vec<OsString>,
    },
    /// Waits outside of the namespaces.
    #[command(hide = true)]
    Host,
    /// Runs in the namespaces.
    #[command(hide = true)]
    Inside {
        /// Port of loopback outside.
        port: u16,
    },
}

fn main() -> Result<()> {
    let args = Args::parse();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let folder = args
        .state
        .or_else(|| Some(repository?.join(".state/cluster")))
        .unwrap_or_else(|| PathBuf::from(".state/cluster"));
    let state = State::new(std::path::absolute(folder)?);
    match args.verb {
        Verb::Up => state.up(),
        Verb::Down => state.down(),
        Verb::Load { archives } => state.load(&archives),
        Verb::Exec { program } => state.exec(&program),
        Verb::Host => tokio::runtime::Runtime::new()?.block_on(state.host()),
        Verb::Inside { port } => tokio::runtime::Runtime::new()?.block_on(state.inside(port)),
    }
}

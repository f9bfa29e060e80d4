// SPDX-License-Identifier: EUPL-1.2
//! The `plenum` command.

mod manifest;
mod validate;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};

/// Sovereign video conferencing as declared objects.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Checks manifests by the schema and the rules an API server would run; starts nothing.
    ///
    /// All errors are shown at once. Exit code 0: valid; 2: something is wrong. References between objects are not
    /// followed. Example: plenum validate -f docs/examples/quickstart
    Validate {
        /// A file, or a directory whose *.yaml and *.yml are read; may be repeated.
        #[arg(short = 'f', long = "filename", required = true)]
        files: Vec<PathBuf>,
        /// `text` is for people, `json` for programs.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    let Verb::Validate { files, output } = Args::parse().verb;
    let mut all = Vec::new();
    for path in &files {
        match validate::manifests(path) {
            Ok(found) => all.extend(found),
            Err(error) => {
                eprintln!("plenum: {}: {error}", path.display());
                return ExitCode::from(2);
            }
        }
    }
    all.sort();
    all.dedup();
    let report = match validate::validate(&all) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("plenum: {error}");
            return ExitCode::from(2);
        }
    };
    match output {
        Output::Json => println!("{}", serde_json::json!(report)),
        Output::Text => {
            for finding in &report.findings {
                println!("{finding}");
            }
            let (files, wrong) = (all.len(), report.findings.len());
            println!(
                "{} objects in {files} files, {wrong} errors",
                report.objects
            );
        }
    }
    if report.objects == 0 && report.findings.is_empty() {
        eprintln!("plenum: no manifest found; -f takes a file or a directory with *.yaml");
        return ExitCode::from(2);
    }
    ExitCode::from(if report.findings.is_empty() { 0 } else { 2 })
}

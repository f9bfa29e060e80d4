// SPDX-License-Identifier: EUPL-1.2
//! One replica of the control plane as it is shipped: the binary, as a child process.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};

use crate::process::{Launch, Process, until_said};

/// A replica that listens.
pub(crate) struct Replica {
    /// Its process.
    pub(crate) process: Process,
    /// Where its gateway listens.
    pub(crate) http: SocketAddr,
    /// Where it takes nodes and the operator.
    pub(crate) grpc: String,
}

/// How replicas are started.
pub(crate) struct Options<'a> {
    /// The binary.
    pub(crate) program: &'a Path,
    /// Certificates and the installation key.
    pub(crate) folder: &'a Path,
    /// Redis; `None` = in memory.
    pub(crate) redis_url: Option<&'a str>,
    /// Does the gateway speak TLS?
    pub(crate) tls: bool,
}

impl Replica {
    /// Starts it and waits until it listens.
    pub(crate) async fn start(options: &Options<'_>, number: usize) -> Result<Self> {
        let folder = options.folder.display().to_string();
        let mut args: Vec<String> = [
            "--replica-id",
            &format!("load-{number}"),
            "--http-listen",
            "127.0.0.1:0",
            "--grpc-listen",
            "127.0.0.1:0",
            "--tls-dir",
            &folder,
            "--installation-key-file",
            &format!("{folder}/installation.key"),
            "--log-format",
            "json",
        ]
        .map(str::to_owned)
        .into();
        if options.tls {
            args.extend(["--http-tls-dir".to_owned(), folder.clone()]);
        }
        match options.redis_url {
            None => args.extend(["--store", "memory"].map(str::to_owned)),
            Some(url) => {
                let seal = format!("{folder}/seal.key");
                let redis = [
                    "--store",
                    "redis",
                    "--redis-url",
                    url,
                    "--seal-key-file",
                    &seal,
                ];
                args.extend(redis.map(str::to_owned));
            }
        }
        let mut process = Process::start(&Launch {
            program: options.program,
            args,
            // What a replica says of each node that attaches is of no interest here.
            env: vec![("RUST_LOG", "warn,control_plane=info".to_owned())],
        })?;
        let mut log = process.stderr()?;
        let (http, grpc) = until_said(&mut log, "a replica", listens).await?;
        let http = http.parse().context("address of the gateway")?;
        tokio::spawn(async move {
            // Read to the end, so that it never waits for its log; what is worth reading is passed on.
            while let Ok(Some(line)) = log.next_line().await {
                if line.contains("\"level\":\"WARN\"") || line.contains("\"level\":\"ERROR\"") {
                    tracing::warn!(replica = number, "{line}");
                }
            }
        });
        Ok(Self {
            process,
            http,
            grpc,
        })
    }
}

/// Gateway and gRPC address of the line that says so.
fn listens(line: &str) -> Option<(String, String)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let grpc = line["grpc"].as_str()?.to_owned();
    let http = line["http"].as_str()?;
    let first = http.trim_matches(['[', ']']).split(',').next()?.trim();
    Some((first.to_owned(), grpc))
}

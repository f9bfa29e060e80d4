// SPDX-License-Identifier: EUPL-1.2
//! The floor under a join: the barest server of the same libraries that upgrades a connection and sends one frame.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::any;
use clap::Args;
use tokio::net::TcpListener;

use crate::process::{Launch, Process, until_said};

/// What the child is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct FloorArgs {
    /// Bytes of the frame.
    #[arg(long)]
    frame_bytes: usize,
}

/// The child.
pub(crate) async fn run(args: FloorArgs) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listens {}", listener.local_addr()?);
    let frame = axum::body::Bytes::from(vec![7; args.frame_bytes]);
    let upgrade = move |upgrade: WebSocketUpgrade| {
        let frame = frame.clone();
        async move { answer(upgrade, frame) }
    };
    axum::serve(listener, Router::new().route("/rtc", any(upgrade))).await?;
    Ok(())
}

fn answer(upgrade: WebSocketUpgrade, frame: axum::body::Bytes) -> Response {
    upgrade
        .read_buffer_size(4 * 1024)
        .write_buffer_size(0)
        .on_upgrade(async move |mut socket| {
            if socket.send(Message::Binary(frame)).await.is_ok() {
                while let Some(Ok(_)) = socket.recv().await {}
            }
        })
}

/// Starts the child; where it listens.
pub(crate) async fn start(frame_bytes: usize) -> Result<(Process, SocketAddr)> {
    let program = std::env::current_exe()?;
    let mut process = Process::start(&Launch {
        program: &program,
        args: vec![
            "floor".to_owned(),
            "--frame-bytes".to_owned(),
            frame_bytes.to_string(),
        ],
        env: Vec::new(),
    })?;
    let mut lines = process.stdout()?;
    let address = until_said(&mut lines, "the floor", |line| {
        line.strip_prefix("listens ").map(str::to_owned)
    })
    .await?;
    Ok((process, address.parse().context("address of the floor")?))
}

// SPDX-License-Identifier: EUPL-1.2
//! A network that can fail: connections between two parts go through links that pass bytes, hold them back, or break.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Bytes pass.
    Whole,
    /// Nothing passes, nothing is lost: what was sent arrives when the line is whole again. Connections are taken and not answered. So
    /// does a network that drops packets look, and a process that is stopped.
    Held,
    /// Connections break, new ones too.
    Broken,
}

/// Lines that are switched together.
#[derive(Clone)]
pub struct Switch(watch::Sender<Line>);

impl Default for Switch {
    fn default() -> Self {
        Self(watch::Sender::new(Line::Whole))
    }
}

impl Switch {
    pub fn set(&self, line: Line) {
        self.0.send_replace(line);
    }
}

/// A way to `target`; gone when dropped.
pub struct Link {
    pub address: String,
    _tasks: JoinSet<()>,
}

impl Link {
    pub async fn to(target: &str, switch: &Switch) -> Self {
        let target: SocketAddr = target.parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address").to_string();
        let line = switch.0.subscribe();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.expect("accepted");
                connections.spawn(carry(near, target, line.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            _tasks: tasks,
        }
    }
}

/// Waits while the line is held. Whether it is whole then.
async fn passes(line: &mut watch::Receiver<Line>) -> bool {
    line.wait_for(|line| *line != Line::Held)
        .await
        .is_ok_and(|line| *line == Line::Whole)
}

async fn carry(near: TcpStream, target: SocketAddr, mut line: watch::Receiver<Line>) {
    if !passes(&mut line).await {
        return;
    }
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let mut broken = line.clone();
    tokio::select! {
        // The end of one direction is the end of the connection: all that goes over it is gRPC.
        () = pump(near_in, far_out, line.clone()) => {}
        () = pump(far_in, near_out, line) => {}
        _ = broken.wait_for(|line| *line == Line::Broken) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut line: watch::Receiver<Line>) {
    let mut buffer = vec![0; 16_384];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 || !passes(&mut line).await || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

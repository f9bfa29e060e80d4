// SPDX-License-Identifier: EUPL-1.2
//! ICE-TCP acceptor: takes connections, reads their first frame and hands them to the shard that its user fragment names.
//!
//! A stranger can do no more here than hold one of [`PENDING_MAX`] places for [`FIRST_FRAME`]: whoever sends no connectivity check is
//! closed, and the shard closes in turn what it does not answer with success (`crate::stream::PROOF`).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use media_core::io::{DATAGRAM_BYTES_MAX, Path, Protocol};
use media_core::transport::stun;
use media_net::frame::{Deframer, HEADER_BYTES};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::steer::shard_of_ufrag;
use crate::stream::Connection;
use crate::worker::ShardPort;

/// Connections that have not sent their first frame.
pub const PENDING_MAX: usize = 1_024;
/// Of those from one address; a whole school comes from one, but each for a moment only.
pub const PENDING_PER_ADDRESS_MAX: usize = 128;
/// Time for the first frame.
pub const FIRST_FRAME: Duration = Duration::from_secs(5);
/// Wait after an error of accepting (descriptors are used up, say).
const BACK_OFF: Duration = Duration::from_millis(50);

/// What is counted.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    handed_over: AtomicU64,
}

impl Counters {
    /// Connections taken.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections closed at once because too many were waiting.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections closed because they sent no check of ours in time.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Connections given to a shard.
    #[must_use]
    pub fn handed_over(&self) -> u64 {
        self.handed_over.load(Ordering::Relaxed)
    }
}

/// Waiting connections by address.
#[derive(Default)]
struct Pending {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One place among the waiting ones, given back when dropped.
struct Place {
    pending: Arc<Mutex<Pending>>,
    ip: IpAddr,
}

impl Place {
    fn take(pending: &Arc<Mutex<Pending>>, ip: IpAddr) -> Option<Self> {
        let mut counts = pending.lock().unwrap_or_else(PoisonError::into_inner);
        let own = counts.by_address.get(&ip).copied().unwrap_or(0);
        if counts.all >= PENDING_MAX || own >= PENDING_PER_ADDRESS_MAX {
            return None;
        }
        counts.all += 1;
        counts.by_address.insert(ip, own + 1);
        Some(Self {
            pending: Arc::clone(pending),
            ip,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(own) = counts.by_address.get_mut(&self.ip) {
            *own -= 1;
            if *own == 0 {
                counts.by_address.remove(&self.ip);
            }
        }
    }
}

/// The acceptor of all listeners of a node.
#[derive(Clone)]
pub struct Acceptor {
    shards: Arc<[ShardPort]>,
    clock: Clock,
    pending: Arc<Mutex<Pending>>,
    counters: Arc<Counters>,
}

impl Acceptor {
    /// In front of these shards.
    #[must_use]
    pub fn new(shards: Vec<ShardPort>, clock: Clock) -> Self {
        Self {
            shards: shards.into(),
            clock,
            pending: Arc::default(),
            counters: Arc::default(),
        }
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Accepts until the task is dropped.
    pub async fn run(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => {
                    let Some(place) = Place::take(&self.pending, remote.ip().to_canonical()) else {
                        self.counters.refused.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    self.counters.accepted.fetch_add(1, Ordering::Relaxed);
                    let acceptor = self.clone();
                    tokio::spawn(async move {
                        let counter = match acceptor.introduce(stream, remote).await {
                            Some(()) => &acceptor.counters.handed_over,
                            None => &acceptor.counters.dropped,
                        };
                        counter.fetch_add(1, Ordering::Relaxed);
                        drop(place);
                    });
                }
                // The peer gave up while waiting to be accepted, or a limit of the system is reached.
                Err(error) => {
                    tracing::debug!(%error, "accepting an ICE-TCP connection failed");
                    sleep(BACK_OFF).await;
                }
            }
        }
    }

    async fn introduce(&self, mut stream: TcpStream, remote: SocketAddr) -> Option<()> {
        let (shard, early) = timeout(FIRST_FRAME, first_check(&mut stream, self.shards.len()))
            .await
            .ok()?
            .ok()??;
        let local = stream.local_addr().ok()?;
        let path = Path {
            protocol: Protocol::Tcp,
            local: canonical(local),
            remote: canonical(remote),
        };
        let connection =
            Connection::new(stream.into_std().ok()?, path, early, self.clock.now()).ok()?;
        self.shards.get(shard)?.stream(connection).then_some(())
    }
}

/// Reads up to the end of the first frame. The shard it names and everything read; `None` when it is no check of ours.
async fn first_check(
    stream: &mut TcpStream,
    shards: usize,
) -> io::Result<Option<(usize, Vec<u8>)>> {
    let mut early = Vec::with_capacity(256);
    let mut deframer = Deframer::new(DATAGRAM_BYTES_MAX);
    // Beyond the first frame nothing is wanted: it ends within this many bytes.
    while early.len() < HEADER_BYTES + DATAGRAM_BYTES_MAX {
        let at = early.len();
        if stream.read_buf(&mut early).await? == 0 {
            return Ok(None);
        }
        let mut shard = None;
        let mut seen = false;
        let sound = deframer.push(&early[at..], |datagram| {
            if !seen {
                seen = true;
                shard = stun::username(datagram).and_then(|(local, _)| {
                    shard_of_ufrag(local, u8::try_from(shards).unwrap_or(u8::MAX))
                });
            }
        });
        if seen {
            // What follows the first frame is judged by the shard.
            return Ok(shard.map(|shard| (usize::from(shard.0), early)));
        }
        if sound.is_err() {
            return Ok(None);
        }
    }
    Ok(None)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn introduced(bytes: &[u8]) -> Option<usize> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let mut client = TcpStream::connect(listener.local_addr().expect("address"))
            .await
            .expect("connect");
        let (mut server, _) = listener.accept().await.expect("accept");
        client.write_all(bytes).await.expect("write");
        client.shutdown().await.expect("shutdown");
        first_check(&mut server, 4)
            .await
            .expect("read")
            .map(|(shard, early)| {
                assert!(bytes.starts_with(&early));
                shard
            })
    }

    fn check(username: &str) -> Vec<u8> {
        let padded = username.len().next_multiple_of(4);
        let mut message = vec![0, 1];
        message.extend((4 + padded as u16).to_be_bytes());
        message.extend([0x21, 0x12, 0xa4, 0x42]);
        message.extend([7; 12]);
        message.extend([0, 6]);
        message.extend((username.len() as u16).to_be_bytes());
        message.extend(username.as_bytes());
        message.resize(24 + padded, 0);
        [(message.len() as u16).to_be_bytes().to_vec(), message].concat()
    }

    #[tokio::test]
    async fn the_first_check_names_the_shard() {
        assert_eq!(introduced(&check("03abcd:peer")).await, Some(3));
        let more = [check("01abcd:peer"), vec![0xff; 9000]].concat();
        assert_eq!(introduced(&more).await, Some(1));
    }

    #[tokio::test]
    async fn whoever_does_not_begin_with_a_check_goes_no_further() {
        for hostile in [
            b"GET / HTTP/1.1\r\n\r\n".as_slice(),
            &[0xff, 0xff],
            &[0, 3, 1, 2, 3],
            &[0, 0, 0, 0],
            &[0],
            &check("04abcd:peer"),
            &check("nocolon"),
            &check("03abcd:peer")[..20],
        ] {
            assert_eq!(introduced(hostile).await, None, "{hostile:?}");
        }
        assert_eq!(
            introduced(&[0; 5000]).await,
            None,
            "empty frames without end"
        );
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let pending = Arc::new(Mutex::new(Pending::default()));
        let ip: IpAddr = "192.0.2.1".parse().expect("address");
        let places: Vec<Place> = (0..PENDING_PER_ADDRESS_MAX)
            .map(|_| Place::take(&pending, ip).expect("free"))
            .collect();
        assert!(Place::take(&pending, ip).is_none());
        assert!(Place::take(&pending, "192.0.2.2".parse().expect("address")).is_some());
        drop(places);
        assert!(Place::take(&pending, ip).is_some());
        assert!(pending.lock().expect("lock").by_address.is_empty());
    }
}

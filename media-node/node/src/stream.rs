// SPDX-License-Identifier: EUPL-1.2
//! ICE-TCP (RFC 6544) connections of one shard: RFC 4571 frames in and out of non-blocking streams.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use media_core::io::{DATAGRAM_BYTES_MAX, Path, RecvBatch};
use media_core::time::Timestamp;
use media_net::frame::{self, Deframer};

/// A connection whose checks the shard has not answered with success within this time is closed.
pub const PROOF: Duration = Duration::from_secs(5);
/// Bytes that wait for a slow receiver; what comes beyond is dropped, as a full router would.
const SEND_BYTES_MAX: usize = 256 * 1024;
/// Bytes read in one go before other work has its turn.
const READ_BYTES_MAX: usize = 64 * 1024;

/// One connection.
pub struct Connection {
    stream: TcpStream,
    path: Path,
    /// Bytes read before the shard had it.
    early: Vec<u8>,
    deframer: Deframer,
    waiting: VecDeque<u8>,
    /// Did the shard answer a check here?
    pub proved: bool,
    /// When it came.
    pub since: Timestamp,
}

/// What reading found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Nothing more for now.
    Drained,
    /// There may be more.
    More,
    /// The other side closed, sent nonsense, or the stream broke.
    Ended,
}

impl Connection {
    /// Takes over a stream; `early` are bytes read before.
    ///
    /// # Errors
    /// When it cannot be made non-blocking.
    pub fn new(
        stream: TcpStream,
        path: Path,
        early: Vec<u8>,
        now: Timestamp,
    ) -> std::io::Result<Self> {
        media_net::stream::tune(&stream)?;
        Ok(Self {
            stream,
            path,
            early,
            deframer: Deframer::new(DATAGRAM_BYTES_MAX),
            waiting: VecDeque::new(),
            proved: false,
            since: now,
        })
    }

    /// The stream, to wait on.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> Path {
        self.path
    }

    /// Are bytes waiting to be sent?
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Reads frames into `batch`.
    pub fn read(&mut self, batch: &mut RecvBatch) -> Readiness {
        let mut buffer = [0; 4096];
        let mut total = 0;
        let mut state = Readiness::More;
        while total < READ_BYTES_MAX {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    state = Readiness::Ended;
                    break;
                }
                Ok(read) => {
                    total += read;
                    if !self.take(&buffer[..read], batch) {
                        return Readiness::Ended;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    state = Readiness::Drained;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    state = Readiness::Ended;
                    break;
                }
            }
        }
        state
    }

    /// Moves the frames that were read before into `batch`; false on nonsense.
    pub fn take_early(&mut self, batch: &mut RecvBatch) -> bool {
        let early = std::mem::take(&mut self.early);
        self.take(&early, batch)
    }

    fn take(&mut self, bytes: &[u8], batch: &mut RecvBatch) -> bool {
        let path = self.path;
        self.deframer
            .push(bytes, |datagram| batch.push(path, datagram))
            .is_ok()
    }

    /// Frames and sends datagrams of `segment` bytes each; false when the stream broke. A datagram that does not fit the bound of
    /// waiting bytes is dropped whole; `dropped` counts them.
    pub fn send(&mut self, bytes: &[u8], segment: usize, dropped: &mut u64) -> bool {
        for datagram in bytes.chunks(segment.max(1)) {
            let Some(header) = frame::header(datagram) else {
                *dropped += 1;
                continue;
            };
            if self.waiting.len() + datagram.len() + header.len() > SEND_BYTES_MAX {
                *dropped += 1;
                continue;
            }
            self.waiting.extend(header);
            self.waiting.extend(datagram);
        }
        self.flush()
    }

    /// Writes what waits; false when the stream broke.
    pub fn flush(&mut self) -> bool {
        while !self.waiting.is_empty() {
            let (front, _) = self.waiting.as_slices();
            match self.stream.write(front) {
                Ok(0) => return false,
                Ok(written) => {
                    self.waiting.drain(..written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use media_core::io::Protocol;

    use super::*;

    fn pair() -> (TcpStream, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let local = listener.local_addr().expect("address");
        let client = TcpStream::connect(local).expect("connect");
        let (server, remote) = listener.accept().expect("accept");
        let path = Path {
            protocol: Protocol::Tcp,
            local,
            remote,
        };
        (
            client,
            Connection::new(server, path, Vec::new(), Timestamp::ZERO).expect("connection"),
        )
    }

    /// Reads until `frames` frames are there or the stream ends.
    fn read_frames(connection: &mut Connection, frames: usize) -> (RecvBatch, Readiness) {
        let mut batch = RecvBatch::default();
        loop {
            let readiness = connection.read(&mut batch);
            if batch.metas.len() >= frames || readiness == Readiness::Ended {
                return (batch, readiness);
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn frames_cut_anywhere_arrive_whole() {
        let (mut client, mut connection) = pair();
        client.write_all(&[0, 3, b'a']).expect("write");
        client.write_all(&[b'b', b'c', 0, 0, 0]).expect("write");
        client.write_all(&[1, b'd']).expect("write");
        let (batch, _) = read_frames(&mut connection, 2);
        let frames: Vec<&[u8]> = batch
            .metas
            .iter()
            .map(|meta| &batch.buffer[meta.offset..meta.offset + meta.len])
            .collect();
        assert_eq!(frames, [b"abc".as_slice(), b"d"]);
    }

    #[test]
    fn a_frame_longer_than_a_datagram_ends_the_connection() {
        let (mut client, mut connection) = pair();
        client.write_all(&[0xff, 0xff, 0]).expect("write");
        let (batch, readiness) = read_frames(&mut connection, 1);
        assert!(batch.metas.is_empty());
        assert_eq!(readiness, Readiness::Ended);
    }

    #[test]
    fn a_receiver_that_never_reads_bounds_what_waits() {
        let (_client, mut connection) = pair();
        let mut dropped = 0;
        for _ in 0..20_000 {
            assert!(connection.send(&[7; 2400], 1200, &mut dropped));
        }
        assert!(dropped > 0);
        assert!(connection.waiting.len() <= SEND_BYTES_MAX);
    }
}

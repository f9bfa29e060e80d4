// SPDX-License-Identifier: EUPL-1.2
//! What crosses the border between sockets and the core: datagrams with their path, and batches of them.

use std::net::SocketAddr;

/// Transport protocol of a media path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// ICE-TCP with the framing of RFC 4571; the shell adds and strips the frame.
    Tcp,
}

/// A 5-tuple: where a datagram came from and where it arrived. Addresses are canonical (an IPv4-mapped IPv6 address is IPv4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// Protocol.
    pub protocol: Protocol,
    /// Own address.
    pub local: SocketAddr,
    /// The other side's address.
    pub remote: SocketAddr,
}

/// Largest datagram that is read; what is longer is dropped and counted by the shell.
pub const DATAGRAM_BYTES_MAX: usize = 2048;

/// One received datagram within a [`RecvBatch`].
#[derive(Clone, Copy, Debug)]
pub struct RecvMeta {
    /// Where it came from.
    pub path: Path,
    /// Offset into the batch's buffer.
    pub offset: usize,
    /// Length in bytes; with `segment < len` the range holds several datagrams of `segment` bytes, the last may be shorter (GRO).
    pub len: usize,
    /// Bytes per datagram; equals `len` for a single one.
    pub segment: usize,
}

/// Datagrams read in one go. The buffer is owned by the caller and decrypted in place.
#[derive(Debug, Default)]
pub struct RecvBatch {
    /// Bytes of all datagrams.
    pub buffer: Vec<u8>,
    /// One entry per read, in order of arrival.
    pub metas: Vec<RecvMeta>,
}

impl RecvBatch {
    /// Forgets the datagrams, keeps the memory.
    pub fn clear(&mut self) {
        self.metas.clear();
    }

    /// Appends one datagram by copying it; for tests, TCP and hand-off between shards.
    pub fn push(&mut self, path: Path, datagram: &[u8]) {
        let offset = self.metas.last().map_or(0, |last| last.offset + last.len);
        let end = offset + datagram.len();
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        self.buffer[offset..end].copy_from_slice(datagram);
        self.metas.push(RecvMeta {
            path,
            offset,
            len: datagram.len(),
            segment: datagram.len(),
        });
    }
}

/// One send: a run of datagrams to one destination.
///
/// `bytes` holds `ceil(len / segment)` datagrams back to back, all of `segment` bytes but the last, which may be shorter: the
/// shape of `UDP_SEGMENT`. At most 64 datagrams and 65,000 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// From where to where.
    pub path: Path,
    /// The datagrams.
    pub bytes: &'a [u8],
    /// Bytes per datagram.
    pub segment: usize,
}

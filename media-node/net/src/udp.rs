// SPDX-License-Identifier: EUPL-1.2
//! One UDP socket of one shard, bound to one address.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use media_core::io::{DATAGRAM_BYTES_MAX, RecvBatch, Transmit};
use socket2::{Domain, Protocol, Socket, Type};

use crate::option;
use crate::receive::{self, COALESCED_BYTES, READS};
use crate::send::{self, Refusal, Sent};

/// Socket buffers as the kernel granted them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// Asked for, each way.
    pub asked: usize,
    /// Granted for receiving.
    pub receive: usize,
    /// Granted for sending.
    pub send: usize,
}

impl Buffers {
    /// Did the kernel grant less than was asked for?
    #[must_use]
    pub fn are_short(&self) -> bool {
        self.receive < self.asked || self.send < self.asked
    }
}

/// A bound, non-blocking UDP socket.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    local: SocketAddr,
    buffers: Buffers,
    /// Bytes per read: one datagram, or a coalesced run.
    slot: usize,
    segmentation: bool,
    overflow_last: u32,
    overflowed: u64,
    unusable: u64,
}

impl UdpSocket {
    /// Binds `address`; `shared` lets the sockets of sibling shards bind it too (`SO_REUSEPORT`). Asks for `buffer_bytes` each way.
    ///
    /// Offloads that the kernel lacks are left out: what they do is done datagram by datagram then.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(address: SocketAddr, shared: bool, buffer_bytes: usize) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM.nonblocking().cloexec(),
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            // Each family has its own socket: no mapped addresses.
            socket.set_only_v6(true)?;
        }
        if shared {
            socket.set_reuse_port(true)?;
        }
        let fd = socket.as_fd();
        let wanted = i32::try_from(buffer_bytes).unwrap_or(i32::MAX);
        // The forced form passes the sysctl's limit where the process may; the plain one is cut to it.
        if option::set(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, wanted).is_err() {
            option::set(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, wanted)?;
        }
        if option::set(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, wanted).is_err() {
            option::set(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, wanted)?;
        }
        // The kernel doubles the value for its own bookkeeping (socket(7)).
        let granted = |name| {
            option::get(fd, libc::SOL_SOCKET, name)
                .map(|bytes| usize::try_from(bytes / 2).unwrap_or(0))
        };
        let buffers = Buffers {
            asked: buffer_bytes,
            receive: granted(libc::SO_RCVBUF)?,
            send: granted(libc::SO_SNDBUF)?,
        };
        let coalesces = option::set(fd, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        let segmentation = option::get(fd, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
        let _ = option::set(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
        socket.bind(&address.into())?;
        let local = socket
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "not an IP address"))?;
        Ok(Self {
            socket,
            local,
            buffers,
            slot: if coalesces {
                COALESCED_BYTES
            } else {
                DATAGRAM_BYTES_MAX
            },
            segmentation,
            overflow_last: 0,
            overflowed: 0,
            unusable: 0,
        })
    }

    /// Address it is bound to.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Socket buffers.
    #[must_use]
    pub fn buffers(&self) -> Buffers {
        self.buffers
    }

    /// Do runs leave as one buffer?
    #[must_use]
    pub fn segments(&self) -> bool {
        self.segmentation
    }

    /// Does without `UDP_SEGMENT` from here on, as on a kernel that lacks it.
    pub fn disable_segmentation(&mut self) {
        self.segmentation = false;
    }

    /// Datagrams the kernel dropped because the receive buffer was full (`SO_RXQ_OVFL`). Known with the next datagram that fits.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Datagrams read and dropped: longer than [`DATAGRAM_BYTES_MAX`].
    #[must_use]
    pub fn unusable(&self) -> u64 {
        self.unusable
    }

    /// Replaces the content of `batch` by what waits; never blocks. True: more may wait.
    ///
    /// # Errors
    /// A pending error of the socket (an ICMP message about an earlier send); the socket stays usable.
    pub fn recv(&mut self, batch: &mut RecvBatch) -> io::Result<bool> {
        let found = receive::receive(self.socket.as_fd(), self.local, self.slot, batch)?;
        self.unusable += found.unusable;
        if let Some(overflow) = found.overflow {
            self.overflowed += u64::from(overflow.wrapping_sub(self.overflow_last));
            self.overflow_last = overflow;
        }
        Ok(found.reads == READS)
    }

    /// Sends a run, as one segmented buffer where that is possible. What the kernel does not take at once is lost.
    pub fn send(&mut self, transmit: &Transmit<'_>) -> Sent {
        let (remote, bytes, segment) = (
            transmit.path.remote,
            transmit.bytes,
            transmit.segment.max(1),
        );
        if bytes.is_empty() {
            return Sent::default();
        }
        let datagrams = bytes.len().div_ceil(segment) as u64;
        if datagrams == 1 || self.segmentation {
            match send::run(self.socket.as_fd(), remote, bytes, segment) {
                Ok(Ok(())) => {
                    return Sent {
                        datagrams,
                        sends: 1,
                        segmented: datagrams > 1,
                    };
                }
                Ok(Err(Refusal::Run)) => {}
                Ok(Err(Refusal::Socket)) => {
                    tracing::warn!(event = "SegmentationRefused", local = %self.local, "the kernel refuses UDP segmentation here; datagrams are sent one by one");
                    self.segmentation = false;
                }
                Err(_) => return Sent::default(),
            }
        }
        let taken = send::one_by_one(self.socket.as_fd(), remote, bytes, segment);
        Sent {
            datagrams: taken,
            sends: taken,
            segmented: false,
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! `recvmmsg(2)` with `UDP_GRO`: many datagrams per call, runs of one flow as one buffer.
#![allow(unsafe_code, reason = "recvmmsg of libc; the one place for it")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;

use media_core::io::{DATAGRAM_BYTES_MAX, Path, Protocol, RecvBatch, RecvMeta};

use crate::address::{self, ADDRESS_BYTES};
use crate::control::{self, CONTROL_BYTES, Control};

/// Reads per call: with coalesced runs of up to 64 datagrams this is plenty for one tick; more would only grow the buffer.
pub(crate) const READS: usize = 16;
/// Bytes of one read: with `UDP_GRO` the kernel coalesces up to the largest IP packet.
pub(crate) const COALESCED_BYTES: usize = 65_536;

/// What a receive found beside the datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Reads, also of those that were dropped.
    pub(crate) reads: usize,
    /// Datagrams longer than [`DATAGRAM_BYTES_MAX`], or without a readable address.
    pub(crate) unusable: u64,
    /// The kernel's counter of datagrams that did not fit the receive buffer.
    pub(crate) overflow: Option<u32>,
}

/// Replaces the content of `batch` by what waits on `socket`; never blocks. `slot` is the room for each read.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    local: SocketAddr,
    slot: usize,
    batch: &mut RecvBatch,
) -> io::Result<Found> {
    batch.metas.clear();
    if batch.buffer.len() < READS * slot {
        batch.buffer.resize(READS * slot, 0);
    }
    let mut names = [[0_u8; ADDRESS_BYTES]; READS];
    let mut controls = [Control::EMPTY; READS];
    // SAFETY: `iovec` and `mmsghdr` are plain C structures of numbers and pointers, for which all zeroes are valid values.
    let (mut vectors, mut messages) = unsafe {
        (
            std::mem::zeroed::<[libc::iovec; READS]>(),
            std::mem::zeroed::<[libc::mmsghdr; READS]>(),
        )
    };
    for (index, chunk) in batch.buffer.chunks_exact_mut(slot).take(READS).enumerate() {
        vectors[index].iov_base = chunk.as_mut_ptr().cast();
        vectors[index].iov_len = slot;
        let header = &mut messages[index].msg_hdr;
        header.msg_name = names[index].as_mut_ptr().cast();
        header.msg_namelen = ADDRESS_BYTES as libc::socklen_t;
        header.msg_iov = &raw mut vectors[index];
        header.msg_iovlen = 1;
        header.msg_control = controls[index].0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_BYTES as _;
    }
    // SAFETY: the descriptor is borrowed, hence open. Every header points to a name, a vector and a control buffer of its own that
    // live to the end of this function and whose true sizes are given; each vector covers its own `slot` bytes of the batch's buffer,
    // which is not touched otherwise during the call. No timeout is passed.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            READS as _,
            libc::MSG_DONTWAIT as _,
            null_mut(),
        )
    };
    let Ok(received) = usize::try_from(received) else {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(Found::default()),
            _ => Err(error),
        };
    };
    let mut found = Found {
        reads: received,
        ..Found::default()
    };
    for index in 0..received.min(READS) {
        let message = &messages[index];
        let (length, header) = (message.msg_len as usize, &message.msg_hdr);
        let mut segment = length;
        #[allow(clippy::unnecessary_cast, reason = "a 32-bit number in musl's msghdr")]
        let control_length = header.msg_controllen as usize;
        let controls = controls[index].0.get(..control_length).unwrap_or_default();
        for message in control::messages(controls) {
            match (message.level, message.kind) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    segment = message.number().map_or(segment, |size| size as usize);
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    found.overflow = message.number().or(found.overflow)
                }
                _ => {}
            }
        }
        let remote = names[index]
            .get(..header.msg_namelen as usize)
            .and_then(address::read);
        let whole = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) == 0;
        let segment = segment.clamp(1, length.max(1));
        match remote {
            Some(remote) if whole && segment <= DATAGRAM_BYTES_MAX && length <= slot => {
                if length > 0 {
                    let path = Path {
                        protocol: Protocol::Udp,
                        local,
                        remote,
                    };
                    batch.metas.push(RecvMeta {
                        path,
                        offset: index * slot,
                        len: length,
                        segment,
                    });
                }
            }
            _ => found.unusable += 1,
        }
    }
    Ok(found)
}

// SPDX-License-Identifier: EUPL-1.2
//! `sendmsg(2)` with `UDP_SEGMENT` for a run of datagrams, `sendmmsg(2)` where the kernel or the route refuses it.
#![allow(
    unsafe_code,
    reason = "sendmsg and sendmmsg of libc; the one place for them"
)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use media_core::limits::RUN_DATAGRAMS_MAX;

use crate::address::{self, ADDRESS_BYTES};
use crate::control::{self, Control};

/// What became of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams the kernel took; the rest of the run is lost, as in a full router.
    pub datagrams: u64,
    /// Buffers handed to the kernel: 1 for a segmented run, one per datagram otherwise.
    pub sends: u64,
    /// Did several datagrams leave as one buffer?
    pub segmented: bool,
}

/// Why segmentation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// This run only (a segment above the route's MTU, say).
    Run,
    /// Whatever is sent on this socket (a device without checksum offload, an old kernel).
    Socket,
}

/// Sends `bytes` as one buffer, with `segment` as `UDP_SEGMENT` when it holds several datagrams.
///
/// `Ok(Err(_))`: the kernel refuses segmentation and nothing was sent.
pub(crate) fn run(
    socket: BorrowedFd<'_>,
    remote: SocketAddr,
    bytes: &[u8],
    segment: usize,
) -> io::Result<Result<(), Refusal>> {
    let mut name = [0; ADDRESS_BYTES];
    let name_length = address::write(remote, &mut name);
    let mut control = Control::EMPTY;
    let segmented = bytes.len() > segment;
    let control_length = match u16::try_from(segment) {
        Ok(segment) if segmented => control::write(
            &mut control,
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            &segment.to_ne_bytes(),
        )
        .unwrap_or(0),
        _ => 0,
    };
    if segmented && control_length == 0 {
        return Ok(Err(Refusal::Run));
    }
    let mut vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: `msghdr` is a plain C structure of numbers and pointers, for which all zeroes are valid values.
    let mut header = unsafe { std::mem::zeroed::<libc::msghdr>() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = name_length as libc::socklen_t;
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    if control_length > 0 {
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control_length as _;
    }
    loop {
        // SAFETY: the descriptor is borrowed, hence open. The header points to a name, a vector and control bytes that live to the end
        // of this function and whose true sizes are given; a send only reads through the vector, so the shared slice stays unchanged.
        let sent = unsafe {
            libc::sendmsg(
                socket.as_raw_fd(),
                &raw const header,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        if sent >= 0 {
            return Ok(Ok(()));
        }
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::EINTR) => continue,
            Some(libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT) if segmented => {
                Ok(Err(Refusal::Socket))
            }
            Some(libc::EINVAL | libc::EMSGSIZE) if segmented => Ok(Err(Refusal::Run)),
            _ => Err(error),
        };
    }
}

/// Sends each datagram of the run as a buffer of its own. Datagrams taken.
pub(crate) fn one_by_one(
    socket: BorrowedFd<'_>,
    remote: SocketAddr,
    bytes: &[u8],
    segment: usize,
) -> u64 {
    let mut name = [0; ADDRESS_BYTES];
    let name_length = address::write(remote, &mut name);
    let mut taken = 0;
    for block in bytes.chunks(segment.max(1).saturating_mul(RUN_DATAGRAMS_MAX)) {
        // SAFETY: `iovec` and `mmsghdr` are plain C structures of numbers and pointers, for which all zeroes are valid values.
        let (mut vectors, mut messages) = unsafe {
            (
                std::mem::zeroed::<[libc::iovec; RUN_DATAGRAMS_MAX]>(),
                std::mem::zeroed::<[libc::mmsghdr; RUN_DATAGRAMS_MAX]>(),
            )
        };
        let mut count = 0;
        for datagram in block.chunks(segment.max(1)) {
            vectors[count].iov_base = datagram.as_ptr().cast_mut().cast();
            vectors[count].iov_len = datagram.len();
            let header = &mut messages[count].msg_hdr;
            header.msg_name = name.as_mut_ptr().cast();
            header.msg_namelen = name_length as libc::socklen_t;
            header.msg_iov = &raw mut vectors[count];
            header.msg_iovlen = 1;
            count += 1;
        }
        let mut at = 0;
        while at < count {
            // SAFETY: the descriptor is borrowed, hence open. `messages[at..count]` are filled in above; they point to the name and
            // to vectors that live to the end of this block and give their true sizes; a send only reads through them.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    messages[at..count].as_mut_ptr(),
                    (count - at) as _,
                    (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
                )
            };
            match usize::try_from(sent) {
                Ok(0) => break,
                Ok(sent) => {
                    taken += sent as u64;
                    at += sent;
                }
                Err(_) => match io::Error::last_os_error().raw_os_error() {
                    Some(libc::EINTR) => {}
                    // The buffer is full: the rest would fare no better.
                    Some(libc::EAGAIN | libc::ENOBUFS) => return taken,
                    // This datagram alone is refused.
                    _ => at += 1,
                },
            }
        }
    }
    taken
}

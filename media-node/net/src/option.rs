// SPDX-License-Identifier: EUPL-1.2
//! Socket options that the safe wrappers lack: `UDP_GRO`, `UDP_SEGMENT` (probe), `SO_RXQ_OVFL`, `SO_RCVBUFFORCE`, `SO_SNDBUFFORCE`.
#![allow(
    unsafe_code,
    reason = "setsockopt and getsockopt of libc; the one place for them"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_void, socklen_t};

/// Sets an option whose value is a C `int`.
pub(crate) fn set(
    socket: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed, hence open; the value outlives the call and its true size is passed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast::<c_void>(),
            size_of::<c_int>() as socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads an option whose value is a C `int`.
pub(crate) fn get(socket: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value = MaybeUninit::<c_int>::zeroed();
    let mut length = size_of::<c_int>() as socklen_t;
    // SAFETY: the descriptor is borrowed, hence open; the kernel writes at most `length` bytes into memory of that size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast::<c_void>(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed at first, so initialised whatever the kernel wrote; every bit pattern is an `int`.
    Ok(unsafe { value.assume_init() })
}

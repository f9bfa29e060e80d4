// SPDX-License-Identifier: EUPL-1.2
//! Ends the wait of a shard's thread from another one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes a worker out of its wait.
#[derive(Clone)]
pub struct Waker {
    fd: Arc<OwnedFd>,
    /// Set while a wake-up is on its way: saves the system call for all but the first.
    pending: Arc<AtomicBool>,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            fd: Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?),
            pending: Arc::new(AtomicBool::new(false)),
        })
    }

    /// Ends the wait.
    pub fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // It fails only when the counter is full, and then the worker is awake anyway.
            let _ = rustix::io::write(&*self.fd, &1_u64.to_ne_bytes());
        }
    }

    /// To be called before the queues are looked at: whatever is queued later wakes again.
    pub(super) fn clear(&self) {
        if self.pending.load(Ordering::Acquire) {
            let mut counter = [0; 8];
            let _ = rustix::io::read(&*self.fd, &mut counter);
            // After the read, or a wake-up in between would be swallowed; a swap, so that what was queued before it is seen.
            self.pending.swap(false, Ordering::AcqRel);
        }
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

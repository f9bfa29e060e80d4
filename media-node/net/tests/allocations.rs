// SPDX-License-Identifier: EUPL-1.2
//! Sending and receiving allocate nothing once the batch's buffer is there.
#![allow(
    unsafe_code,
    reason = "a global allocator that counts; the crate that holds unsafe code may"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use media_core::io::{Path, Protocol, RecvBatch, Transmit};
use media_net::UdpSocket;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; the counter is a constant-initialised thread-local without a
// destructor, so that touching it allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, which is the same; the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn sending_and_receiving_allocate_nothing() {
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into(), false, 1 << 20).expect("bind");
    for segmented in [true, false] {
        let (mut from, mut to) = (bind(), bind());
        if !segmented {
            from.disable_segmentation();
        }
        let path = Path {
            protocol: Protocol::Udp,
            local: from.local_addr(),
            remote: to.local_addr(),
        };
        let bytes = vec![7; 8 * 1200];
        let mut batch = RecvBatch::default();
        let mut received = 0;
        let mut exchange = |times: usize| {
            let until = Instant::now() + Duration::from_secs(20);
            for round in 1..=times {
                let sent = from.send(&Transmit {
                    path,
                    bytes: &bytes,
                    segment: 1200,
                });
                assert_eq!(sent.datagrams, 8);
                let goal = received + bytes.len();
                while received < goal {
                    to.recv(&mut batch).expect("receive");
                    received += batch.metas.iter().map(|meta| meta.len).sum::<usize>();
                    assert!(
                        Instant::now() < until,
                        "round {round}: the datagrams did not come"
                    );
                }
            }
        };
        exchange(10);
        let before = COUNT.with(Cell::get);
        exchange(1_000);
        assert_eq!(COUNT.with(Cell::get) - before, 0, "segmented: {segmented}");
    }
}

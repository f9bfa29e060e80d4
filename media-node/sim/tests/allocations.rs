// SPDX-License-Identifier: EUPL-1.2
//! Forwarding allocates nothing per packet: audio, video in layers and RED, to ten subscribers.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use media_core::api::Codec;
use media_sim::world::{World, payloads};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts allocations of the running thread.
struct Counting;

#[expect(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; this one only counts"
)]
// SAFETY: everything is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn forwarding_allocates_nothing_per_packet() {
    for (codec, layers) in [
        (Codec::Vp8, 1),
        (Codec::Vp8, 3),
        (Codec::H264, 3),
        (Codec::Av1, 1),
        (Codec::Opus, 1),
        (Codec::Red, 1),
    ] {
        let mut world = World::new(1);
        let publisher = world.join();
        let subscribers: Vec<_> = (0..10).map(|_| world.join()).collect();
        world.open();
        let track = world.publish(publisher, codec, layers);
        for (position, subscriber) in subscribers.into_iter().enumerate() {
            if position % 2 == 0 {
                world.subscribe(subscriber, track);
            } else {
                world.subscribe_with(subscriber, track, payloads());
            }
        }
        world.run(Duration::from_secs(3));
        let (mut packets, mut allocations) = (0, 0);
        for _ in 0..100 {
            let mut batch = world.prepared(publisher, 1);
            let now = world.now();
            let shard = &mut world.shards[0];
            let (before, forwarded) = (
                ALLOCATIONS.with(Cell::get),
                shard.counters().forwarded_packets,
            );
            shard.handle_datagrams(now, &mut batch);
            while let Some(transmit) = shard.poll_transmit() {
                std::hint::black_box(transmit.bytes);
            }
            allocations += ALLOCATIONS.with(Cell::get) - before;
            packets += shard.counters().forwarded_packets - forwarded;
        }
        assert!(packets >= 1000, "{codec:?}: {packets} packets");
        assert_eq!(
            allocations, 0,
            "{codec:?} in {layers} layers: {allocations} allocations for {packets} packets"
        );
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! What a shard's thread counts and copies out.

use media_core::shard::Counters;
use media_net::Buffers;

/// What a worker copies out for metrics.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// The shard's counters.
    pub shard: Counters,
    /// The worker's own.
    pub worker: WorkerCounters,
    /// Socket buffers as granted.
    pub buffers: Option<Buffers>,
}

impl Published {
    /// Everything that went no further, for whatever reason.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let worker = &self.worker;
        self.shard.drops.iter().sum::<u64>()
            + worker.send_failed
            + worker.hand_over_dropped
            + worker.overflowed
            + worker.stream_dropped
            + worker.oversized
    }
}

/// What the worker itself counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerCounters {
    /// Sends, one per run.
    pub sends: u64,
    /// Datagrams in them.
    pub sent_datagrams: u64,
    /// Bytes in them.
    pub sent_bytes: u64,
    /// Sends of more than one datagram.
    pub segmented_sends: u64,
    /// Datagrams the kernel did not take.
    pub send_failed: u64,
    /// Datagrams received.
    pub received_datagrams: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Datagrams handed to a sibling shard.
    pub handed_over: u64,
    /// Datagrams dropped because a sibling's queue was full.
    pub hand_over_dropped: u64,
    /// Datagrams the kernel dropped because the receive buffer was full.
    pub overflowed: u64,
    /// Datagrams dropped for slow ICE-TCP receivers.
    pub stream_dropped: u64,
    /// ICE-TCP connections.
    pub streams: u64,
    /// ICE-TCP connections not taken because there were too many.
    pub streams_refused: u64,
    /// Data messages and levels that nobody took.
    pub events_lost: u64,
    /// Datagrams longer than any of ours may be.
    pub oversized: u64,
    /// Times the loop woke up.
    pub wakeups: u64,
}

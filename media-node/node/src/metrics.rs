// SPDX-License-Identifier: EUPL-1.2
//! `/metrics` in OpenMetrics text: counters of the shards, copied out by their threads, and of the node.

use std::fmt;
use std::sync::Arc;

use media_core::shard::DROP_REASONS;
use media_room::counters::DROPPED;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::acceptor;
use crate::link;
use crate::reports::Reports;
use crate::rooms::Rooms;
use crate::state::State;
use crate::worker::{Published, ShardPort};

/// What is measured.
pub struct Sources {
    /// The shards.
    pub shards: Vec<ShardPort>,
    /// The rooms.
    pub rooms: Rooms,
    /// The node's standing.
    pub state: Arc<State>,
    /// The outbox.
    pub reports: Arc<Reports>,
    /// The ICE-TCP acceptor's.
    pub tcp: Arc<acceptor::Counters>,
    /// The links'.
    pub links: Arc<link::Counters>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

/// Name, help and reading of a counter of each shard.
type ShardCounter = (&'static str, &'static str, fn(&Published) -> u64);

const SHARD_COUNTERS: [ShardCounter; 19] = [
    ("received_datagrams", "Datagrams received.", |all| {
        all.worker.received_datagrams
    }),
    (
        "received_wire_bytes",
        "Bytes of datagrams received.",
        |all| all.worker.received_bytes,
    ),
    (
        "received_packets",
        "Authentic media packets received.",
        |all| all.shard.received_packets,
    ),
    (
        "forwarded_packets",
        "Media packets sealed for subscribers.",
        |all| all.shard.forwarded_packets,
    ),
    (
        "forwarded_payload_bytes",
        "Bytes of media packets sealed for subscribers.",
        |all| all.shard.forwarded_bytes,
    ),
    ("media_runs", "Runs of media to one subscriber.", |all| {
        all.shard.runs
    }),
    (
        "segmented_media_runs",
        "Runs of more than one packet.",
        |all| all.shard.segmented_runs,
    ),
    ("retransmitted_packets", "Packets sent again.", |all| {
        all.shard.retransmitted_packets
    }),
    (
        "nacked_packets",
        "Packets asked for again from publishers.",
        |all| all.shard.nacked_packets,
    ),
    (
        "key_frame_requests",
        "Key frames asked for from publishers.",
        |all| all.shard.key_frame_requests,
    ),
    ("data_messages", "Data messages sent.", |all| {
        all.shard.data_messages
    }),
    (
        "connected_transports",
        "Transports that completed DTLS.",
        |all| all.shard.connected_transports,
    ),
    (
        "sends",
        "Buffers handed to the kernel: sent_datagrams / sends is the mean run length.",
        |all| all.worker.sends,
    ),
    (
        "segmented_sends",
        "Buffers of more than one datagram (UDP_SEGMENT).",
        |all| all.worker.segmented_sends,
    ),
    ("sent_datagrams", "Datagrams sent.", |all| {
        all.worker.sent_datagrams
    }),
    ("sent_wire_bytes", "Bytes of datagrams sent.", |all| {
        all.worker.sent_bytes
    }),
    (
        "streams_refused",
        "ICE-TCP connections not taken because there were too many.",
        |all| all.worker.streams_refused,
    ),
    (
        "handed_over_datagrams",
        "Datagrams handed to a sibling shard.",
        |all| all.worker.handed_over,
    ),
    ("wakeups", "Wake-ups of the shard's thread.", |all| {
        all.worker.wakeups
    }),
];

/// Reason and reading.
type WorkerDrop = (&'static str, fn(&Published) -> u64);

/// Drops that the shell itself counts, by reason.
const WORKER_DROPS: [WorkerDrop; 5] = [
    ("hand_over_full", |all| all.worker.hand_over_dropped),
    ("receive_buffer_full", |all| all.worker.overflowed),
    ("stream_buffer_full", |all| all.worker.stream_dropped),
    ("oversized", |all| all.worker.oversized),
    ("send_refused", |all| all.worker.send_failed),
];

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let shards: Vec<(String, Published)> = self
            .shards
            .iter()
            .map(|shard| (shard.id.to_string(), shard.published()))
            .collect();
        for (name, help, read) in SHARD_COUNTERS {
            let name = format!("plenum_media_shard_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for (shard, published) in &shards {
                ConstCounter::new(read(published))
                    .encode(family.encode_family(&[("shard", shard.as_str())])?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "plenum_media_shard_dropped_packets",
            "Packets that went no further, by reason.",
            None,
            MetricType::Counter,
        )?;
        for (shard, published) in &shards {
            for (reason, label) in DROP_REASONS {
                let labels = [("shard", shard.as_str()), ("reason", label)];
                ConstCounter::new(published.shard.dropped(reason))
                    .encode(family.encode_family(&labels)?)?;
            }
            for (label, read) in WORKER_DROPS {
                let labels = [("shard", shard.as_str()), ("reason", label)];
                ConstCounter::new(read(published)).encode(family.encode_family(&labels)?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "plenum_media_shard_streams",
            "ICE-TCP connections.",
            None,
            MetricType::Gauge,
        )?;
        for (shard, published) in &shards {
            ConstGauge::new(published.worker.streams as i64)
                .encode(family.encode_family(&[("shard", shard.as_str())])?)?;
        }
        let (rooms, participants) = self.rooms.counts();
        let mut gauge =
            |name: &str, help: &str, unit: Option<&Unit>, value: i64| -> Result<(), fmt::Error> {
                let metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
                ConstGauge::new(value).encode(metric)
            };
        gauge(
            "plenum_media_rooms",
            "Rooms of this node.",
            None,
            i64::from(rooms),
        )?;
        gauge(
            "plenum_media_participants",
            "Participants of this node.",
            None,
            i64::from(participants),
        )?;
        gauge(
            "plenum_media_accepting",
            "1 while new rooms are taken.",
            None,
            i64::from(self.state.standing().accepts()),
        )?;
        gauge(
            "plenum_media_replicas",
            "Control-plane replicas attached to.",
            None,
            self.state.watch_attached().borrow().len() as i64,
        )?;
        let mut family = encoder.encode_descriptor(
            "plenum_media_tcp_connections",
            "ICE-TCP connections by what became of them.",
            None,
            MetricType::Counter,
        )?;
        for (outcome, count) in [
            ("handed_over", self.tcp.handed_over()),
            ("dropped", self.tcp.dropped()),
            ("refused", self.tcp.refused()),
        ] {
            ConstCounter::new(count).encode(family.encode_family(&[("outcome", outcome)])?)?;
        }
        let mut family = encoder.encode_descriptor(
            "plenum_media_shard_socket_buffer",
            "Socket buffer granted by the kernel; 8 MiB are asked for.",
            Some(&Unit::Bytes),
            MetricType::Gauge,
        )?;
        for (shard, published) in &shards {
            let Some(buffers) = published.buffers else {
                continue;
            };
            for (direction, bytes) in [("receive", buffers.receive), ("send", buffers.send)] {
                let labels = [("shard", shard.as_str()), ("direction", direction)];
                ConstGauge::new(bytes as i64).encode(family.encode_family(&labels)?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "plenum_media_room_dropped",
            "What rooms dropped, by reason.",
            None,
            MetricType::Counter,
        )?;
        for reason in DROPPED {
            let labels = [("reason", reason.label())];
            ConstCounter::new(self.rooms.dropped(reason)).encode(family.encode_family(&labels)?)?;
        }
        let mut counter = |name: &str, help: &str, value: u64| -> Result<(), fmt::Error> {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)
        };
        counter(
            "plenum_media_room_events_lost",
            "Room events dropped because no replica took them.",
            self.reports.events_lost(),
        )?;
        let shards_lost: u64 = shards
            .iter()
            .map(|(_, published)| published.worker.events_lost)
            .sum();
        counter(
            "plenum_media_shard_events_lost",
            "Data messages and levels that a room did not take in time.",
            self.links.lost() + shards_lost,
        )?;
        counter(
            "plenum_media_data_flooders",
            "Transports ended because their room had no place for more reliable data.",
            self.links.flooders(),
        )?;
        counter(
            "plenum_media_room_panics",
            "Rooms that ended by a bug.",
            self.rooms.panics(),
        )
    }
}

/// Text of one scrape.
///
/// # Errors
/// When the encoder fails, which formatting into memory does not.
pub fn render(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::with_capacity(16 * 1024);
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(text)
}

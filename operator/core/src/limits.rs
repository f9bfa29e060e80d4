// SPDX-License-Identifier: EUPL-1.2
//! Every bound of the core, and the values that hold where a manifest names none.

/// Most objects of one set; twice what `kubernetes.md` §4.12 sets for a cluster.
pub const OBJECTS_MAX: usize = 20_000;
/// Most participants of a room where nobody sets fewer; the schema's ceiling.
pub const PARTICIPANTS_PER_ROOM_MAX: u32 = 10_000;
/// Most publishers of a room where nobody sets fewer; the schema's ceiling.
pub const PUBLISHERS_PER_ROOM_MAX: u32 = 1_000;
/// How long an empty room stays open; what clients of LiveKit are used to.
pub const EMPTY_TIMEOUT_MS: u64 = 300_000;
/// How long an ad-hoc room stays after its last participant left; likewise. A declared one stays for its empty timeout.
pub const DEPARTURE_TIMEOUT_MS: u64 = 20_000;
/// Rooms of a node whose pool names no capacity.
pub const NODE_ROOMS: u32 = 200;
/// Participants of a node whose pool names no capacity.
pub const NODE_PARTICIPANTS: u32 = 1_000;
/// Egress of a node whose pool names no capacity.
pub const NODE_EGRESS_MBPS: u32 = 2_000;
/// Site of nodes where none is declared.
pub const SITE_DEFAULT: &str = "local";
/// Most shards of a node; as many as its command line takes.
pub const SHARDS_MAX: u64 = 64;
/// Longest certificates of a webhook's host, as PEM; as many as the control plane takes.
pub const WEBHOOK_CA_BYTES_MAX: usize = 16 * 1024;
/// Longest password that the gateway reads.
pub const PASSWORD_BYTES_MAX: usize = 256;

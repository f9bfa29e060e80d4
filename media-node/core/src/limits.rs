// SPDX-License-Identifier: EUPL-1.2
//! Every bound of the packet path in one place. Reaching one is a counted drop or a typed refusal, never growth.

/// Rooms per shard.
pub const ROOMS_MAX: usize = 2_000;
/// Transports per shard: two per participant.
pub const TRANSPORTS_MAX: usize = 4_096;
/// Publications per shard.
pub const PUBLICATIONS_MAX: usize = 4_096;
/// Subscriptions per shard.
pub const SUBSCRIPTIONS_MAX: usize = 65_536;
/// Publications per transport: microphone, camera, screen, screen audio and room to spare.
pub const PUBLICATIONS_PER_TRANSPORT_MAX: usize = 16;
/// Simulcast layers per publication.
pub const ENCODINGS_MAX: usize = 3;
/// Films that one participant is given at once; more than any page shows.
pub const SUBSCRIPTIONS_PER_TRANSPORT_MAX: usize = 256;
/// Qualities of one film: encodings times temporal layers.
pub const RUNGS_MAX: usize = ENCODINGS_MAX * 3;
/// Payload types per m-section.
pub const PAYLOADS_MAX: usize = 32;
/// Paths a transport may have proved at once: candidates of both families, of several interfaces, UDP and TCP.
pub const PATHS_PER_TRANSPORT_MAX: usize = 16;
/// Datagrams of a handshake kept until the path is proved and the fingerprint known.
pub const EARLY_DATAGRAMS_MAX: usize = 8;
/// Largest data-channel message: LiveKit's clients split at 15 kB and refuse above 64 kB.
pub const DATA_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Bytes waiting on a reliable channel before further messages are refused.
pub const RELIABLE_BUFFER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes waiting on a lossy channel before further messages are dropped.
pub const LOSSY_BUFFER_BYTES_MAX: usize = 128 * 1024;
/// Data channels a client may open on one transport.
pub const CHANNELS_MAX: usize = 16;
/// Retransmissions a subscriber may ask for beyond one per forwarded packet: a request of four bytes names seventeen packets.
pub const RTX_BUDGET_MAX: u16 = 512;
/// Datagrams in one run to one destination (the kernel takes 64 with `UDP_SEGMENT`).
pub const RUN_DATAGRAMS_MAX: usize = 64;
/// Bytes in one run.
pub const RUN_BYTES_MAX: usize = 60_000;

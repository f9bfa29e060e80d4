// SPDX-License-Identifier: EUPL-1.2
//! What a shard counts: plain numbers, copied out by the shell at most once per tick.

/// Why a datagram or packet went no further. Small and without text: one counter per variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DropReason {
    /// Neither STUN, DTLS, RTP nor RTCP (RFC 7983).
    UnknownProtocol,
    /// From an address that no check has proved.
    UnknownPath,
    /// STUN for no user fragment of this shard.
    UnknownFragment,
    /// Header or compound packet malformed.
    Malformed,
    /// No keys yet.
    NoKeys,
    /// Not authentic.
    Unauthentic,
    /// Seen before, or too old.
    Replay,
    /// SSRC that no description declares.
    UndeclaredSource,
    /// Payload type that no description declares.
    UndeclaredPayload,
    /// The room's gate is closed.
    GateClosed,
    /// The publication is muted.
    Muted,
    /// A bound was reached.
    Limit,
    /// A data message that could not be handed on.
    DataNotSent,
    /// A retransmission that is no longer in the ring.
    RetransmissionGone,
}

/// All reasons, in the order of their numbers.
pub const DROP_REASONS: [(DropReason, &str); 14] = [
    (DropReason::UnknownProtocol, "unknown_protocol"),
    (DropReason::UnknownPath, "unknown_path"),
    (DropReason::UnknownFragment, "unknown_fragment"),
    (DropReason::Malformed, "malformed"),
    (DropReason::NoKeys, "no_keys"),
    (DropReason::Unauthentic, "unauthentic"),
    (DropReason::Replay, "replay"),
    (DropReason::UndeclaredSource, "undeclared_source"),
    (DropReason::UndeclaredPayload, "undeclared_payload"),
    (DropReason::GateClosed, "gate_closed"),
    (DropReason::Muted, "muted"),
    (DropReason::Limit, "limit"),
    (DropReason::DataNotSent, "data_not_sent"),
    (DropReason::RetransmissionGone, "retransmission_gone"),
];

/// Counters of one shard since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams read.
    pub received_datagrams: u64,
    /// Authentic media packets, retransmissions included.
    pub received_packets: u64,
    /// Bytes of those.
    pub received_bytes: u64,
    /// Media packets sealed for subscribers.
    pub forwarded_packets: u64,
    /// Bytes of those.
    pub forwarded_bytes: u64,
    /// Sends of more than one datagram.
    pub segmented_runs: u64,
    /// Sends of media.
    pub runs: u64,
    /// Packets sent again.
    pub retransmitted_packets: u64,
    /// Packets asked for again.
    pub nacked_packets: u64,
    /// Key frames asked for.
    pub key_frame_requests: u64,
    /// Data messages sent.
    pub data_messages: u64,
    /// Transports that got keys.
    pub connected_transports: u64,
    /// Those of them whose media is protected by the SHA1 profile, which a pool must allow.
    pub legacy_transports: u64,
    /// Timers that were due: what an idle shard still does.
    pub fired_timers: u64,
    /// Drops by [`DropReason`].
    pub drops: [u64; DROP_REASONS.len()],
}

impl Counters {
    /// Counts one drop.
    pub fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Drops of one reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_at_their_numbers() {
        for (index, (reason, _)) in DROP_REASONS.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! Identities on the media side: small integers that the node hands out, never names.
//!
//! Names (tenant, room, identity, SIDs) stay with `media-room`; the packet path indexes slabs by these numbers. A number
//! is used once per process, so that a late event can never be taken for one of a successor.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// Index of a shard within its node, from 0.
    ShardId(u8)
}
id! {
    /// One room on one node.
    RoomIndex(u32)
}
id! {
    /// One participant of one room; a rejoin is another participant.
    ParticipantId(u64)
}
id! {
    /// One peer connection: an ICE, DTLS and SCTP association. A participant has one per [`crate::api::Side`].
    TransportId(u64)
}
id! {
    /// One published track with all its simulcast encodings.
    PublicationId(u64)
}
id! {
    /// One publication forwarded to one transport.
    SubscriptionId(u64)
}
id! {
    /// Synchronisation source (RFC 3550 §3).
    Ssrc(u32)
}
id! {
    /// RTP payload type, 0..=127 (RFC 3550 §5.1).
    PayloadType(u8)
}
id! {
    /// Sequence number with its rollover count: `roc << 16 | seq`.
    ExtSeq(u64)
}
id! {
    /// Id of a header extension in its one-byte or two-byte form, 1..=255 (RFC 8285); 0 stands for "not negotiated".
    ExtensionId(u8)
}

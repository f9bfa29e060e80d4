// SPDX-License-Identifier: EUPL-1.2
//! What a room dropped, and why.

/// Why something was dropped. Metric labels derive from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// A signalling frame that cannot be read or is too long.
    Frame,
    /// A session description that cannot be used.
    Description,
    /// A frame of a session that is not (or no longer) there.
    UnknownSession,
    /// A request that the grants do not allow.
    NotAllowed,
    /// A bound was reached.
    Limit,
    /// A data message that cannot be read.
    Data,
    /// A data message that the sender may not send.
    DataNotAllowed,
    /// A data message that came before.
    DataRepeated,
    /// The shard refused a command.
    CommandRefused,
}

/// All of them.
pub const DROPPED: [Dropped; 9] = [
    Dropped::Frame,
    Dropped::Description,
    Dropped::UnknownSession,
    Dropped::NotAllowed,
    Dropped::Limit,
    Dropped::Data,
    Dropped::DataNotAllowed,
    Dropped::DataRepeated,
    Dropped::CommandRefused,
];

impl Dropped {
    /// Metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::Description => "description",
            Self::UnknownSession => "unknown_session",
            Self::NotAllowed => "not_allowed",
            Self::Limit => "limit",
            Self::Data => "data",
            Self::DataNotAllowed => "data_not_allowed",
            Self::DataRepeated => "data_repeated",
            Self::CommandRefused => "command_refused",
        }
    }
}

/// Counters since the room's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    dropped: [u64; DROPPED.len()],
}

impl Counters {
    pub(crate) fn drop(&mut self, why: Dropped) {
        self.dropped[why as usize] += 1;
    }

    /// How often.
    #[must_use]
    pub fn dropped(&self, why: Dropped) -> u64 {
        self.dropped[why as usize]
    }
}

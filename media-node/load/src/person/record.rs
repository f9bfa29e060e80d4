// SPDX-License-Identifier: EUPL-1.2
//! What a person sent and got, frame by frame, and what follows from it: pure.

use std::collections::BTreeMap;
use std::time::Duration;

/// Begins what a frame of ours carries.
const MARK: &[u8; 4] = b"plnm";
/// Bytes of a [`Stamp`].
pub const STAMP_BYTES: usize = 13;
/// A stamp stands behind the codec's own bytes, which are at most so many.
const SEARCHED_BYTES: usize = 32;

/// Milliseconds since the begin of a run, the same for everybody in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u32);

impl Millis {
    /// Time from `earlier` to this, or nothing.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::from(self.0.saturating_sub(earlier.0)))
    }
}

/// What is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A packet each 20 ms.
    Audio,
    /// A picture each 33 ms.
    Video,
}

impl Kind {
    /// From one frame to the next.
    #[must_use]
    pub fn interval(self) -> Duration {
        match self {
            Self::Audio => Duration::from_millis(20),
            Self::Video => Duration::from_millis(33),
        }
    }

    /// RTP ticks from one frame to the next.
    #[must_use]
    pub fn ticks(self) -> u32 {
        match self {
            Self::Audio => 960,
            Self::Video => 2_970,
        }
    }
}

/// Names a frame: it is carried in the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Who published it.
    pub publisher: u32,
    /// Of which track.
    pub kind: Kind,
    /// Counted from 0, one per interval whether or not it could be sent.
    pub number: u32,
}

impl Stamp {
    /// As it stands in the payload.
    #[must_use]
    pub fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..4].copy_from_slice(MARK);
        bytes[4..8].copy_from_slice(&self.publisher.to_be_bytes());
        bytes[8] = u8::from(self.kind == Kind::Video);
        bytes[9..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    /// Finds the stamp behind the codec's own bytes.
    #[must_use]
    pub fn find(payload: &[u8]) -> Option<Self> {
        let searched = &payload[..payload.len().min(SEARCHED_BYTES)];
        let at = searched
            .windows(MARK.len())
            .position(|window| window == MARK)?;
        let bytes = payload.get(at..at + STAMP_BYTES)?;
        let word = |from: usize| {
            let word = bytes.get(from..from + 4)?;
            Some(u32::from_be_bytes(word.try_into().ok()?))
        };
        Some(Self {
            publisher: word(4)?,
            kind: match bytes[8] {
                0 => Kind::Audio,
                1 => Kind::Video,
                _ => return None,
            },
            number: word(9)?,
        })
    }
}

/// What happened to a person's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// The room let it in, as if for the first time.
    Joined,
    /// A resume was accepted: the same participant, the same media.
    Resumed,
    /// Signalling broke.
    SignallingLost,
    /// The gateway said no.
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        text: String,
    },
    /// No WebSocket.
    Unreachable,
    /// The node or the gateway said to join anew.
    SentAway,
    /// A media connection fell silent or failed.
    MediaLost,
    /// The policy has no further attempt: the person sees an error and comes back by hand.
    GaveUp,
    /// It is over: what the server said.
    Ended(String),
}

/// Everything a person sent and got.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Identity.
    pub identity: String,
    /// Number in stamps.
    pub number: u32,
    /// When it began to join for the first time.
    pub began: Millis,
    /// Participant SID of the current session.
    pub sid: Option<String>,
    /// Token for the next join: the newest one that was sent.
    pub token: String,
    /// Does signalling stand?
    pub connected: bool,
    /// When each frame was due, by number.
    pub produced: BTreeMap<Kind, Vec<Millis>>,
    /// Frames of others in order of arrival.
    pub arrived: BTreeMap<(u32, Kind), Vec<(u32, Millis)>>,
    /// What happened when.
    pub happened: Vec<(Millis, Happened)>,
}

impl Record {
    /// How often something happened from `from` on.
    #[must_use]
    pub fn count(&self, from: Millis, what: impl Fn(&Happened) -> bool) -> usize {
        self.happened
            .iter()
            .filter(|(at, happened)| *at >= from && what(happened))
            .count()
    }

    /// When something happened first, from `from` on.
    #[must_use]
    pub fn first(&self, from: Millis, what: impl Fn(&Happened) -> bool) -> Option<Millis> {
        self.happened
            .iter()
            .find(|(at, happened)| *at >= from && what(happened))
            .map(|(at, _)| *at)
    }
}

/// A stretch of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First moment.
    pub from: Millis,
    /// Last moment.
    pub to: Millis,
}

/// What one person got of one track of another in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Frames that were due.
    pub due: u32,
    /// Those that never came.
    pub missing: u32,
    /// Longest time without a frame.
    pub longest_gap: Duration,
    /// From the begin of the window to the first frame made after it; `None` = none came.
    pub again: Option<Duration>,
}

/// Compares what was due with what came. Frames may arrive after the window's end.
#[must_use]
pub fn judge(produced: &[Millis], arrived: &[(u32, Millis)], window: Window) -> Flow {
    let mut came = vec![false; produced.len()];
    let mut flow = Flow::default();
    let mut before = None;
    for &(number, at) in arrived {
        let Some(made) = produced.get(number as usize) else {
            continue;
        };
        if let Some(mark) = came.get_mut(number as usize) {
            *mark = true;
        }
        if *made >= window.from && flow.again.is_none() {
            flow.again = Some(at.since(window.from));
        }
        if at <= window.from {
            before = Some(window.from);
        } else {
            let last = before.unwrap_or(window.from);
            if last < window.to {
                flow.longest_gap = flow.longest_gap.max(at.since(last));
            }
            before = Some(at);
        }
    }
    let last = before.unwrap_or(window.from);
    flow.longest_gap = flow.longest_gap.max(window.to.since(last));
    for (number, made) in produced.iter().enumerate() {
        if (window.from..=window.to).contains(made) {
            flow.due += 1;
            flow.missing += u32::from(!came[number]);
        }
    }
    flow
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(step: u32, count: u32) -> Vec<Millis> {
        (0..count).map(|number| Millis(number * step)).collect()
    }

    #[test]
    fn a_stamp_is_found_behind_the_bytes_of_its_codec() {
        let stamp = Stamp {
            publisher: 7,
            kind: Kind::Video,
            number: 123_456,
        };
        for before in [0, 1, 5, 14] {
            let payload = [vec![0x90; before], stamp.to_bytes().to_vec(), vec![0; 80]].concat();
            assert_eq!(Stamp::find(&payload), Some(stamp));
        }
        assert_eq!(Stamp::find(&stamp.to_bytes()[..12]), None);
        assert_eq!(Stamp::find(b"nothing of ours"), None);
    }

    #[test]
    fn a_gap_counts_the_frames_that_were_due_in_it() {
        let produced = every(20, 500);
        // Two seconds are missing; the network takes 5 ms.
        let arrived: Vec<(u32, Millis)> = (0..500)
            .filter(|number| !(200..300).contains(number))
            .map(|number| (number, Millis(number * 20 + 5)))
            .collect();
        let window = Window {
            from: Millis(4_000),
            to: Millis(9_000),
        };
        let flow = judge(&produced, &arrived, window);
        assert_eq!((flow.due, flow.missing), (251, 100));
        assert_eq!(flow.longest_gap, Duration::from_millis(2_005));
        assert_eq!(flow.again, Some(Duration::from_millis(2_005)));
    }

    #[test]
    fn nothing_at_all_is_one_long_gap() {
        let window = Window {
            from: Millis(1_000),
            to: Millis(3_000),
        };
        let flow = judge(&every(20, 500), &[], window);
        assert_eq!((flow.due, flow.missing), (101, 101));
        assert_eq!(flow.longest_gap, Duration::from_secs(2));
        assert_eq!(flow.again, None);
    }

    #[test]
    fn an_undisturbed_stream_misses_nothing_and_a_late_frame_still_counts() {
        let produced = every(33, 300);
        let arrived: Vec<(u32, Millis)> = (0..300)
            .map(|number| (number, Millis(number * 33 + 200)))
            .collect();
        let window = Window {
            from: Millis(3_000),
            to: Millis(9_000),
        };
        let flow = judge(&produced, &arrived, window);
        assert_eq!(flow.missing, 0);
        assert!(flow.longest_gap <= Duration::from_millis(34), "{flow:?}");
    }
}

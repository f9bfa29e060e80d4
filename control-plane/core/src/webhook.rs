// SPDX-License-Identifier: EUPL-1.2
//! What is decided about webhooks: which event goes next, when a failed one is tried again, which answer means what, and which
//! addresses may be called.
//!
//! Events of one room go one after the other; rooms do not wait for each other. A receiver that does not answer at all is asked with one
//! event at a time until it does. Time and randomness are arguments.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::limits;
use crate::time::Moment;

mod address;
#[cfg(test)]
mod tests;

pub use address::{Network, NetworkError, may_call};

/// What an answer of a receiver means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has the event.
    Taken,
    /// The receiver takes nothing at the moment, for this long if it said so; the event stays.
    Unavailable(Option<Duration>),
    /// The receiver does not want this event as it is: it is offered a limited number of times, for whoever sits in front may be wrong.
    Refused,
}

/// Verdict on a status code. Redirects are refusals: only the declared address is called.
#[must_use]
pub const fn judge(status: u16, retry_after: Option<Duration>) -> Verdict {
    match status {
        200..=299 => Verdict::Taken,
        408 | 425 | 429 | 502..=504 => Verdict::Unavailable(retry_after),
        _ => Verdict::Refused,
    }
}

/// Wait after so many failures in a row: doubling up to its bound, of which between a half and all is waited, so that receivers that came
/// back together are not asked together.
#[must_use]
pub fn back_off(failures: u32, random: u32) -> Duration {
    let doubled = limits::WEBHOOK_BACK_OFF_FIRST
        .saturating_mul(1_u32 << failures.saturating_sub(1).min(16))
        .min(limits::WEBHOOK_BACK_OFF_MAX);
    let half = doubled / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Did an event wait for too long? A clock that was set back makes nothing old.
#[must_use]
pub fn too_old(queued_unix_ms: i64, now_unix_ms: i64) -> bool {
    u64::try_from(now_unix_ms.saturating_sub(queued_unix_ms))
        .is_ok_and(|age| Duration::from_millis(age) > limits::WEBHOOK_AGE_MAX)
}

/// Why an event is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// Newer ones pushed it out of the queue.
    QueueFull,
    /// It waited for too long.
    TooOld,
    /// The receiver refused it every time.
    Refused,
    /// The tenant is suspended.
    Suspended,
    /// Tenant or receiver are not declared any more.
    Removed,
    /// It is no event.
    Malformed,
}

impl Loss {
    /// For logs and metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::QueueFull => "QueueFull",
            Self::TooOld => "TooOld",
            Self::Refused => "Refused",
            Self::Suspended => "Suspended",
            Self::Removed => "Removed",
            Self::Malformed => "Malformed",
        }
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send the event with this id.
    Send(String),
    /// Nothing before this moment.
    At(Moment),
    /// Nothing before an answer or a new event comes.
    Idle,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Delivered: out of the queue with it.
    Done,
    /// It is tried again.
    Again,
    /// Given up: out of the queue with it.
    Lost,
}

#[derive(Clone, Debug)]
struct Waiting {
    id: String,
    room: String,
    sent: bool,
}

/// Attempts of one room or of the whole receiver that failed in a row.
#[derive(Clone, Copy, Debug, Default)]
struct Failing {
    count: u32,
    not_before: Moment,
}

/// The events at the head of one receiver's queue.
#[derive(Debug, Default)]
pub struct Delivery {
    /// In the order of the queue.
    waiting: VecDeque<Waiting>,
    rooms: BTreeMap<String, Failing>,
    receiver: Failing,
    /// Ids that left the queue lately, oldest first: whoever pushed them again did not know.
    gone: VecDeque<String>,
    gone_ids: BTreeSet<String>,
}

impl Delivery {
    /// Takes what the queue holds at its head, as id and room. What it does not hold any more is forgotten, unless it is under way.
    /// Answers the ids that left the queue before: they have to leave it again.
    pub fn refill(&mut self, listed: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
        let mut under_way: VecDeque<Waiting> = std::mem::take(&mut self.waiting)
            .into_iter()
            .filter(|waiting| waiting.sent)
            .collect();
        let mut known = Vec::new();
        let mut fresh = VecDeque::new();
        for (id, room) in listed {
            if self.gone_ids.contains(&id) {
                known.push(id);
            } else if !under_way.iter().any(|waiting| waiting.id == id) {
                fresh.push_back(Waiting {
                    id,
                    room,
                    sent: false,
                });
            }
        }
        // What is under way is older than all that waits of its room.
        under_way.append(&mut fresh);
        self.waiting = under_way;
        let waiting = &self.waiting;
        self.rooms
            .retain(|room, _| waiting.iter().any(|waiting| waiting.room == *room));
        known
    }

    /// How many wait or are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Is there nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.waiting.iter().filter(|waiting| waiting.sent).count()
    }

    /// Has the receiver not answered lately?
    #[must_use]
    pub const fn is_down(&self) -> bool {
        self.receiver.count > 0
    }

    /// Is this event waiting or under way?
    #[must_use]
    pub fn holds(&self, id: &str) -> bool {
        self.waiting.iter().any(|waiting| waiting.id == id)
    }

    /// When a receiver that does not answer is asked again.
    #[must_use]
    pub const fn resumes_at(&self) -> Option<Moment> {
        if self.is_down() {
            Some(self.receiver.not_before)
        } else {
            None
        }
    }

    /// The next event to send; it counts as under way from now on.
    pub fn next(&mut self, now: Moment) -> Next {
        let under_way = self.under_way();
        let most = if self.is_down() {
            1
        } else {
            limits::WEBHOOK_CONCURRENT
        };
        if under_way >= most || under_way == self.waiting.len() {
            return Next::Idle;
        }
        if self.receiver.not_before > now {
            return Next::At(self.receiver.not_before);
        }
        let mut passed = BTreeSet::new();
        let mut earliest: Option<Moment> = None;
        for index in 0..self.waiting.len() {
            let waiting = &self.waiting[index];
            // Only the first of a room may go.
            if !passed.insert(waiting.room.as_str()) || waiting.sent {
                continue;
            }
            match self.rooms.get(&waiting.room) {
                Some(failing) if failing.not_before > now => {
                    let at = failing.not_before;
                    earliest = Some(earliest.map_or(at, |earliest| earliest.min(at)));
                }
                _ => {
                    let id = waiting.id.clone();
                    self.waiting[index].sent = true;
                    return Next::Send(id);
                }
            }
        }
        earliest.map_or(Next::Idle, Next::At)
    }

    /// An event that was sent is answered, or not.
    pub fn answered(&mut self, id: &str, verdict: Verdict, now: Moment, random: u32) -> Fate {
        let Some(index) = self.waiting.iter().position(|waiting| waiting.id == id) else {
            return Fate::Done;
        };
        match verdict {
            Verdict::Taken => {
                self.receiver = Failing::default();
                self.leave(index);
                Fate::Done
            }
            Verdict::Unavailable(wait) => {
                self.waiting[index].sent = false;
                // Those that were under way together fail together: that is one failure.
                if now >= self.receiver.not_before {
                    let count = self.receiver.count.saturating_add(1);
                    let wait = wait
                        .unwrap_or_default()
                        .clamp(back_off(count, random), limits::WEBHOOK_RETRY_AFTER_MAX);
                    self.receiver = Failing {
                        count,
                        not_before: now.after(wait),
                    };
                }
                Fate::Again
            }
            Verdict::Refused => {
                // It answers.
                self.receiver = Failing::default();
                let room = self.waiting[index].room.clone();
                let failing = self.rooms.entry(room).or_default();
                failing.count += 1;
                if failing.count >= limits::WEBHOOK_REFUSALS_MAX {
                    self.leave(index);
                    return Fate::Lost;
                }
                failing.not_before = now.after(back_off(failing.count, random));
                self.waiting[index].sent = false;
                Fate::Again
            }
        }
    }

    /// An event is not to be sent after all.
    pub fn discard(&mut self, id: &str) {
        if let Some(index) = self.waiting.iter().position(|waiting| waiting.id == id) {
            self.leave(index);
        }
    }

    /// Forgets what waits, to take no memory while the receiver is down; failures stay known.
    pub fn rest(&mut self) {
        self.waiting.retain(|waiting| waiting.sent);
    }

    fn leave(&mut self, index: usize) {
        if let Some(left) = self.waiting.remove(index) {
            self.rooms.remove(&left.room);
            if self.gone.len() >= limits::WEBHOOK_GONE_MAX
                && let Some(oldest) = self.gone.pop_front()
            {
                self.gone_ids.remove(&oldest);
            }
            if self.gone_ids.insert(left.id.clone()) {
                self.gone.push_back(left.id);
            }
        }
    }
}

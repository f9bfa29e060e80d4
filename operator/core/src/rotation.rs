// SPDX-License-Identifier: EUPL-1.2
//! When an authority gives way to a new one, so that at no moment two parts meet of which one shows a certificate that the other does not
//! trust.
//!
//! A part reads its certificate and the authorities that it trusts from one Secret, some time after that was written. So a new authority is
//! first trusted everywhere and signs nothing; then it signs, and the former one is still trusted everywhere; then the former one goes.
//! Before each step all Secrets carry what the one before wants, and have done so for longer than anybody takes to read them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// How long a part may take to read what was written, with a wide margin: a kubelet renews the files of Secrets every minute or two.
pub const SPREAD: Duration = Duration::from_secs(600);

/// How far a rotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// There is one authority.
    Steady,
    /// A new one is trusted, and signs nothing yet.
    Introducing,
    /// The new one signs, and the former one is still trusted.
    Replacing,
}

/// What is known at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// How far it is.
    pub phase: Phase,
    /// Somebody asked for a new authority, or the present one grows old.
    pub wanted: bool,
    /// Parts use certificates that the operator does not issue: what those trust nobody here can change.
    pub foreign: bool,
    /// Whether all Secrets carry what the phase wants.
    pub spread: bool,
    /// Since when that is known to be so, without a break.
    pub spread_since: Option<Timestamp>,
    /// How long it has to be so.
    pub patience: Duration,
    /// Now.
    pub now: Timestamp,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Rest,
    /// It is wanted and cannot be done from here.
    Refuse,
    /// Make an authority that is trusted and signs nothing.
    Introduce,
    /// Note since when all Secrets carry what the phase wants; `None`: they do not any more.
    Note(Option<Timestamp>),
    /// Look again then; `None`: Secrets are still being written.
    Wait(Option<Timestamp>),
    /// Let the new authority sign.
    Sign,
    /// Trust the former one no more.
    Retire,
}

/// The next step.
#[must_use]
pub fn step(seen: &Seen) -> Step {
    if seen.phase == Phase::Steady {
        return match (seen.wanted, seen.foreign) {
            (false, _) => Step::Rest,
            (true, true) => Step::Refuse,
            (true, false) => Step::Introduce,
        };
    }
    let since = match (seen.spread, seen.spread_since) {
        (false, None) => return Step::Wait(None),
        (false, Some(_)) => return Step::Note(None),
        (true, None) => return Step::Note(Some(seen.now)),
        (true, Some(since)) => since,
    };
    let patience = SignedDuration::try_from(seen.patience).unwrap_or(SignedDuration::MAX);
    let until = since.saturating_add(patience).unwrap_or(Timestamp::MAX);
    if seen.now < until {
        return Step::Wait(Some(until));
    }
    match seen.phase {
        Phase::Introducing => Step::Sign,
        Phase::Replacing | Phase::Steady => Step::Retire,
    }
}

#[cfg(test)]
mod tests;

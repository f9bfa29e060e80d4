// SPDX-License-Identifier: EUPL-1.2
//! Conditions as a status gathers them, and what `Published` says.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use plenum_api::{
    Reason,
    conditions::{self, Condition, ConditionStatus, ConditionType},
};

use crate::problem::Problem;

/// How long a control plane may be silent before a status says so (`kubernetes.md` §4.19).
pub const SILENCE_MAX: Duration = Duration::from_secs(120);

/// What the control plane has said of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It stands in the store.
    Taken {
        /// Revision of what stands there.
        revision: String,
    },
    /// It does not.
    Refused {
        /// CamelCase.
        reason: String,
        /// For people.
        message: String,
    },
}

/// A record on its way.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// Revision that is to be published; `None` where the object is left out.
    pub planned: Option<&'a str>,
    /// What was said of the object last.
    pub answer: Option<&'a Answer>,
    /// Since when the control plane, or its store, has been silent; `None` while it answers.
    pub silent_since: Option<Timestamp>,
}

/// How a publication stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// The control plane has it, or had it before it fell silent a moment ago.
    Yes,
    /// It had it, and has been silent for long.
    Silent,
    /// It has never had it, and has been silent for long.
    NeverAndSilent,
    /// Not yet.
    OnItsWay,
    /// It refuses it.
    Refused {
        /// CamelCase.
        reason: String,
        /// For people.
        message: String,
    },
    /// There is nothing to publish.
    LeftOut,
}

impl Published {
    /// Judges; `before` is the status as it stands, which outlives a restart of the operator.
    #[must_use]
    pub fn of(
        publication: &Publication<'_>,
        before: &[Condition],
        generation: Option<i64>,
        now: Timestamp,
    ) -> Self {
        let Some(planned) = publication.planned else {
            return Self::LeftOut;
        };
        if let Some(since) = publication.silent_since {
            let had = match publication.answer {
                Some(Answer::Taken { revision }) => revision == planned,
                Some(Answer::Refused { .. }) => false,
                // A new operator has heard nothing; what the status says was heard by the one before it.
                None => had_it(before, generation),
            };
            let long = is_long(since, now);
            return match (had, long) {
                (true, false) => Self::Yes,
                (true, true) => Self::Silent,
                (false, false) => Self::OnItsWay,
                (false, true) => Self::NeverAndSilent,
            };
        }
        match publication.answer {
            Some(Answer::Taken { revision }) if revision == planned => Self::Yes,
            Some(Answer::Refused { reason, message }) => Self::Refused {
                reason: reason.clone(),
                message: message.clone(),
            },
            _ => Self::OnItsWay,
        }
    }

    /// Whether what was published is in effect.
    #[must_use]
    pub fn is_in_effect(&self) -> bool {
        matches!(self, Self::Yes | Self::Silent)
    }
}

/// When silence becomes worth telling, if it goes on.
#[must_use]
pub fn told_at(silent_since: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    silent_since
        .and_then(|since| since.checked_add(SILENCE_MAX).ok())
        .filter(|at| *at > now)
}

fn is_long(since: Timestamp, now: Timestamp) -> bool {
    since.checked_add(SILENCE_MAX).is_ok_and(|at| now >= at)
}

/// Whether a status says that the present generation was published.
fn had_it(before: &[Condition], generation: Option<i64>) -> bool {
    conditions::find(before, ConditionType::Published).is_some_and(|condition| {
        condition.observed_generation == generation
            && match condition.status {
                ConditionStatus::True => true,
                // The message tells the two kinds of silence apart.
                ConditionStatus::Unknown => condition.message == SILENT_AFTER,
                ConditionStatus::False => false,
            }
    })
}

const SILENT_AFTER: &str = "the control plane had it and cannot be reached now; it stays in effect";
const SILENT_NEVER: &str = "the control plane cannot be reached and has never had it";

/// Gathers the conditions of one status; a condition whose status stays the same keeps its moment.
pub(crate) struct Gathered<'a> {
    before: &'a [Condition],
    generation: Option<i64>,
    now: Timestamp,
    conditions: Vec<Condition>,
}

impl<'a> Gathered<'a> {
    pub(crate) fn new(before: &'a [Condition], generation: Option<i64>, now: Timestamp) -> Self {
        Self {
            before,
            generation,
            now,
            conditions: Vec::with_capacity(8),
        }
    }

    pub(crate) fn say(
        &mut self,
        type_: ConditionType,
        status: ConditionStatus,
        reason: Reason,
        message: impl Into<String>,
    ) {
        let now = Time(self.now);
        let condition = Condition::new(type_, status, reason, message, self.generation, now);
        self.push(condition);
    }

    pub(crate) fn say_if(
        &mut self,
        type_: ConditionType,
        holds: bool,
        reason: Reason,
        message: impl Into<String>,
    ) {
        let status = if holds {
            ConditionStatus::True
        } else {
            ConditionStatus::False
        };
        self.say(type_, status, reason, message);
    }

    /// A reason that the control plane or a problem names by text.
    pub(crate) fn say_named(
        &mut self,
        type_: ConditionType,
        status: ConditionStatus,
        reason: &str,
        message: &str,
    ) {
        let now = Time(self.now);
        let mut condition = Condition::new(
            type_,
            status,
            Reason::Progressing,
            message,
            self.generation,
            now,
        );
        condition.reason = named(reason);
        self.push(condition);
    }

    fn push(&mut self, mut condition: Condition) {
        let old = self
            .before
            .iter()
            .find(|old| old.type_ == condition.type_ && old.status == condition.status);
        if let Some(old) = old {
            condition.last_transition_time = old.last_transition_time.clone();
        }
        conditions::set(&mut self.conditions, condition);
    }

    pub(crate) fn published(&mut self, published: &Published, problem: Option<&Problem>) {
        use ConditionStatus::{False, True, Unknown};
        let type_ = ConditionType::Published;
        match published {
            Published::Yes => self.say(type_, True, Reason::Reconciled, "the control plane has it"),
            Published::Silent => {
                self.say(
                    type_,
                    Unknown,
                    Reason::ControlPlaneUnreachable,
                    SILENT_AFTER,
                );
            }
            Published::NeverAndSilent => {
                self.say(
                    type_,
                    Unknown,
                    Reason::ControlPlaneUnreachable,
                    SILENT_NEVER,
                );
            }
            Published::OnItsWay => self.say(
                type_,
                Unknown,
                Reason::Progressing,
                "the control plane has not acknowledged it yet",
            ),
            Published::Refused { reason, message } => {
                self.say_named(type_, False, reason, message);
            }
            Published::LeftOut => match problem {
                Some(problem) => self.say_named(
                    type_,
                    False,
                    &problem.rule,
                    "it is left out until the problem is solved",
                ),
                None => self.say(type_, Unknown, Reason::Progressing, "it is being looked at"),
            },
        }
    }

    /// `Stalled` with everything that somebody has to change; the path of each field stands in the message.
    pub(crate) fn stalled(&mut self, stalled: &Stalled) {
        match stalled {
            None => self.say(
                ConditionType::Stalled,
                ConditionStatus::False,
                Reason::Reconciled,
                "nothing has to be changed",
            ),
            Some((reason, message)) => {
                self.say_named(
                    ConditionType::Stalled,
                    ConditionStatus::True,
                    reason,
                    message,
                );
            }
        }
    }

    pub(crate) fn into_conditions(self) -> Vec<Condition> {
        self.conditions
    }
}

/// Reason and message of what somebody has to change.
pub(crate) type Stalled = Option<(String, String)>;

/// The first problem gives the reason, all of them the message.
pub(crate) fn stalled_by(problems: &[&Problem]) -> Stalled {
    let first = problems.first()?;
    let texts: Vec<String> = problems
        .iter()
        .map(|problem| {
            let field = field(&problem.pointer);
            format!("{field}{}; {}", problem.message, problem.remedy)
        })
        .collect();
    Some((first.rule.clone(), texts.join("\n")))
}

/// `/spec/openers/0/key` as an API server writes it: `spec.openers[0].key: `.
fn field(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if part.bytes().all(|byte| byte.is_ascii_digit()) && !part.is_empty() {
            path.push_str(&format!("[{part}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&part);
        }
    }
    if !path.is_empty() {
        path.push_str(": ");
    }
    path
}

/// A reason fits the schema's pattern whoever made it.
fn named(reason: &str) -> String {
    let fits = reason.len() <= 128
        && reason.starts_with(|first: char| first.is_ascii_alphabetic())
        && reason.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if fits {
        reason.to_owned()
    } else {
        Reason::Progressing.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Timestamp = Timestamp::UNIX_EPOCH;

    fn after(seconds: i64) -> Timestamp {
        BEGIN + jiff::SignedDuration::from_secs(seconds)
    }

    fn said(published: &Published, generation: i64) -> Vec<Condition> {
        let mut gathered = Gathered::new(&[], Some(generation), BEGIN);
        gathered.published(published, None);
        gathered.into_conditions()
    }

    #[test]
    fn what_was_acknowledged_stays_in_effect_through_silence() {
        let publication = Publication {
            planned: Some("r1"),
            answer: None,
            silent_since: Some(BEGIN),
        };
        let before = said(&Published::Yes, 3);
        let of = |before: &[Condition], at| Published::of(&publication, before, Some(3), at);
        assert_eq!(of(&before, after(119)), Published::Yes);
        assert_eq!(of(&before, after(120)), Published::Silent);
        let before = said(&Published::Silent, 3);
        assert_eq!(of(&before, after(10_000)), Published::Silent);
        let before = said(&Published::NeverAndSilent, 3);
        assert_eq!(of(&before, after(10_000)), Published::NeverAndSilent);
        // A newer generation was never acknowledged.
        let before = said(&Published::Yes, 2);
        assert_eq!(of(&before, after(60)), Published::OnItsWay);
        assert_eq!(of(&before, after(120)), Published::NeverAndSilent);
    }

    #[test]
    fn only_the_planned_revision_counts_as_published() {
        let taken = |revision: &str| Answer::Taken {
            revision: revision.to_owned(),
        };
        let of = |answer: &Answer| {
            let publication = Publication {
                planned: Some("r2"),
                answer: Some(answer),
                silent_since: None,
            };
            Published::of(&publication, &[], Some(1), BEGIN)
        };
        assert_eq!(of(&taken("r2")), Published::Yes);
        assert_eq!(of(&taken("r1")), Published::OnItsWay);
    }

    #[test]
    fn a_pointer_is_told_as_an_api_server_writes_a_field() {
        assert_eq!(field("/spec/openers/0/key"), "spec.openers[0].key: ");
        assert_eq!(field("/stringData/a~1b"), "stringData.a/b: ");
        assert_eq!(field(""), "");
    }

    #[test]
    fn a_condition_keeps_its_moment_while_its_status_stays() {
        let before = said(&Published::Yes, 1);
        let mut gathered = Gathered::new(&before, Some(2), after(60));
        gathered.published(&Published::Yes, None);
        let same = gathered.into_conditions();
        assert_eq!(same[0].last_transition_time, before[0].last_transition_time);
        assert_eq!(same[0].observed_generation, Some(2));
        let mut gathered = Gathered::new(&before, Some(2), after(60));
        gathered.published(&Published::OnItsWay, None);
        let other = gathered.into_conditions();
        assert_ne!(
            other[0].last_transition_time,
            before[0].last_transition_time
        );
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! What the control plane said, as the core wants it, and when to look again.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use kube::runtime::controller::Action;
use operator_core::{Name, ObjectKey, RecordKind, conference_status::Answer};

use crate::{
    context::Context,
    driver::{LOOK_AGAIN_MAX, again_after, settled},
    live::{Ack, Live},
    planner::Planned,
};

/// The planner gathers changes for a part of a second.
const SOON: SignedDuration = SignedDuration::from_secs(1);

/// What is planned and what is reported, as one moment sees it.
pub(crate) struct Now {
    pub(crate) planned: Arc<Planned>,
    pub(crate) live: Arc<Live>,
    /// Whole seconds, as they stand in a status.
    pub(crate) at: Timestamp,
    /// Since when nobody answers.
    pub(crate) silent_since: Option<Timestamp>,
}

impl Now {
    /// `started` is when this controller began to look: before that nobody can have answered.
    pub(crate) fn of(context: &Context, started: Timestamp) -> Self {
        let live = Arc::clone(&context.live.borrow());
        let silent_since = (!live.reachable).then(|| live.since.unwrap_or(started));
        Self {
            planned: Arc::clone(&context.planned.borrow()),
            live,
            at: context.time().0,
            silent_since,
        }
    }

    /// When to look again at an object that the planner has not judged yet: a plan that differs in nothing but what was
    /// looked at wakes nobody.
    pub(crate) fn until_planned(&self, kind: &str, name: &Name, judged: bool) -> Option<Timestamp> {
        let key = ObjectKey {
            kind: kind.to_owned(),
            name: name.clone(),
        };
        let waits = !judged && self.planned.ready && !self.planned.waiting.contains(&key);
        waits.then(|| self.at + SOON)
    }

    /// What was said of a record.
    pub(crate) fn answer(&self, kind: RecordKind, uid: &str) -> Option<Answer> {
        self.live.ack(kind, uid).map(|ack| match ack {
            Ack::Taken { revision } => Answer::Taken {
                revision: revision.clone(),
            },
            Ack::Refused { reason, message } => Answer::Refused {
                reason: reason.clone(),
                message: message.clone(),
            },
        })
    }
}

/// Look again at a moment, or after ten minutes at the latest. A moment that is near is met, one that is far is approached.
pub(crate) fn look_again(context: &Context, at: Option<Timestamp>) -> Action {
    let Some(at) = at else {
        return settled();
    };
    let left = Duration::try_from(at.duration_since(context.now())).unwrap_or_default();
    if left < LOOK_AGAIN_MAX {
        // Statuses go by whole seconds: a moment later they have reached this one.
        Action::requeue(left + Duration::from_millis(10))
    } else {
        again_after(LOOK_AGAIN_MAX)
    }
}

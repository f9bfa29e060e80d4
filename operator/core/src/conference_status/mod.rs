// SPDX-License-Identifier: EUPL-1.2
//! Status of a Conference, from the object, what the planner found, what the control plane said and what goes on.
//!
//! It is written so that a meeting costs four writes, however many come and go: its window opens, it gets a node, the
//! meeting begins, the meeting ends. A meeting lasts from the first person after an opener until the room is closed.

pub mod class;
pub mod conditions;
mod reserved;
pub mod window;

use jiff::Timestamp;
use plenum_api::{
    ConditionStatus, Conference, ConferenceClass, Reason,
    conditions::{ConditionType, find},
    conference::{AssignedNode, Assignment, ClassRevision, ConferenceStatus, Phase},
    names,
};

pub use conditions::{Answer, Publication, Published};
use conditions::{Gathered, Stalled, stalled_by, told_at};
pub use window::{Moment, collected_at};

use crate::{objects::Objects, problem::Problem, records::ConferenceRecord, validate::class_of};

/// What the control plane says of a conference's room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// An opener has opened it.
    pub opened: bool,
    /// Somebody is connected, perhaps waiting.
    pub occupied: bool,
    /// Where it runs.
    pub place: Option<Place>,
    /// Most participants at a time.
    pub peak: u32,
    /// Whether capacity is held for it; `None` where nobody says.
    pub held: Option<bool>,
}

/// Where a room runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Name of the MediaNode.
    pub node: String,
    /// Site.
    pub site: String,
    /// Pool as `namespace/name`.
    pub pool: String,
    /// Epoch of the room.
    pub epoch: u64,
}

/// The class that a conference uses: the one it names, or the default.
#[must_use]
pub fn class_in_use<'a>(
    objects: &'a Objects,
    conference: &Conference,
) -> Option<(&'a str, &'a ConferenceClass)> {
    class_of(objects, conference.spec.class_name.as_deref())
}

/// Everything a status is made from.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Tenant of the namespace, where it has one.
    pub tenant: Option<Of<'a>>,
    /// The class in use.
    pub class: Option<(&'a str, String)>,
    /// What is wrong with the object.
    pub problems: &'a [&'a Problem],
    /// What is valid and waits for something.
    pub warnings: &'a [&'a Problem],
    /// What is to be published.
    pub record: Option<&'a ConferenceRecord>,
    /// Participants that it asks capacity for ahead of time, 0 for none; `None` where that is not known.
    pub reserve: Option<u32>,
    /// How that stands.
    pub publication: Publication<'a>,
    /// Its room; `None` while the control plane has not spoken of it.
    pub room: Option<Room>,
    /// Base address of the pages; empty where it is not known.
    pub url: &'a str,
    /// Now.
    pub now: Timestamp,
}

/// The tenant of a conference.
#[derive(Clone, Copy, Debug)]
pub struct Of<'a> {
    /// Name.
    pub name: &'a str,
    /// Its conferences may open.
    pub active: Result<(), (Reason, &'a str)>,
    /// The conference is one of those that its quota has room for.
    pub admitted: bool,
}

/// A status, and when it is to be looked at again.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The status.
    pub status: ConferenceStatus,
    /// The next moment at which time alone changes something.
    pub again_at: Option<Timestamp>,
}

/// Status of a conference.
#[must_use]
pub fn status(conference: &Conference, facts: &Facts<'_>) -> Seen {
    let generation = conference.metadata.generation;
    let empty = ConferenceStatus::default();
    let before = conference.status.as_ref().unwrap_or(&empty);
    let moment = Moment::of(&conference.spec, facts.now);
    let published = Published::of(
        &facts.publication,
        &before.conditions,
        generation,
        facts.now,
    );
    let stalled = match &published {
        Published::Refused { reason, message } => Some((reason.clone(), message.clone())),
        _ => stalled_by(facts.problems),
    };
    let meeting = Meeting::of(&before.conditions, facts.room.as_ref());
    let mut gathered = Gathered::new(&before.conditions, generation, facts.now);
    say_ready(
        &mut gathered,
        conference,
        facts,
        moment,
        &published,
        &stalled,
    );
    gathered.stalled(&stalled);
    say_admitted(&mut gathered, facts);
    gathered.published(&published, facts.problems.first().copied());
    say_placed(&mut gathered, facts, &before.conditions);
    reserved::say(&mut gathered, facts, moment, &before.conditions);
    meeting.say(&mut gathered);
    let conditions = gathered.into_conditions();
    let phase = phase(
        conference,
        moment,
        &meeting,
        &published,
        &stalled,
        before.phase,
    );
    let record = facts.record;
    let kept = |new: Option<String>, old: &Option<String>| new.or_else(|| old.clone());
    let name = conference.metadata.name.as_deref().unwrap_or_default();
    let password = conference.spec.password_secret_ref.as_ref();
    let peak = facts.room.as_ref().map(|room| room.peak);
    let status = ConferenceStatus {
        observed_generation: generation,
        phase,
        tenant: facts.tenant.map(|tenant| tenant.name.to_owned()),
        room_id: kept(record.map(|record| record.room_id.clone()), &before.room_id),
        join_url: kept(
            record
                .filter(|_| !facts.url.is_empty())
                .map(|record| format!("{}/c/{}", facts.url, record.room_id)),
            &before.join_url,
        ),
        password_secret_name: Some(password.map_or_else(
            || names::password_secret(name),
            |secret| secret.name.clone(),
        )),
        window: moment.window().or_else(|| match moment {
            // What is over says when it was.
            Moment::Over { .. } => before.window.clone(),
            _ => None,
        }),
        assignment: match &facts.room {
            Some(room) => room.place.as_ref().map(assignment),
            None => before.assignment.clone(),
        },
        class: match &before.class {
            // It keeps the revision that it was opened with until it ends.
            Some(class) if meeting == Meeting::GoesOn => Some(class.clone()),
            _ => facts.class.as_ref().map(|(name, revision)| ClassRevision {
                name: (*name).to_owned(),
                revision: Some(revision.clone()),
            }),
        },
        peak_participants: if meeting == Meeting::JustEnded {
            peak.or(before.peak_participants)
        } else {
            before.peak_participants
        },
        conditions,
    };
    let again_at = [
        moment.changes_at(),
        told_at(facts.publication.silent_since, facts.now),
        collected_at(&conference.spec),
    ];
    Seen {
        status,
        again_at: again_at
            .into_iter()
            .flatten()
            .filter(|at| *at > facts.now)
            .min(),
    }
}

fn assignment(place: &Place) -> Assignment {
    Assignment {
        site: Some(place.site.clone()).filter(|site| !site.is_empty()),
        pool: Some(place.pool.clone()).filter(|pool| !pool.is_empty()),
        epoch: i64::try_from(place.epoch).ok(),
        nodes: vec![AssignedNode {
            name: place.node.clone(),
        }],
    }
}

/// Ready means: an opener may open it now or, if it is scheduled, when its time comes.
fn say_ready(
    gathered: &mut Gathered<'_>,
    conference: &Conference,
    facts: &Facts<'_>,
    moment: Moment,
    published: &Published,
    stalled: &Stalled,
) {
    let ready = ConditionType::Ready;
    let mut reconciling = (false, Reason::Reconciled, "nothing is left to do");
    if let Some((reason, message)) = stalled {
        gathered.say_named(ready, ConditionStatus::False, reason, message);
    } else if !published.is_in_effect() {
        let silent = *published == Published::NeverAndSilent;
        let (reason, message) = if silent {
            (
                Reason::ControlPlaneUnreachable,
                "the control plane cannot be reached",
            )
        } else {
            (Reason::Progressing, "the control plane is being told")
        };
        reconciling = (true, reason, message);
        gathered.say_if(ready, false, reason, message);
    } else if let Some(Err((reason, message))) = facts.tenant.map(|tenant| tenant.active) {
        gathered.say_if(ready, false, reason, message);
    } else if conference.spec.suspended {
        gathered.say_if(ready, false, Reason::Suspended, "spec.suspended is true");
    } else {
        // What waits for something hinders nobody who can open it otherwise, and is told all the same.
        let warning = facts.warnings.first();
        let (holds, reason, message) = match moment {
            Moment::Over { .. } => (false, Reason::Ended, "its last window is over"),
            Moment::Ahead { .. } => (true, Reason::Scheduled, "it opens when its time comes"),
            Moment::Always | Moment::Open { .. } => {
                (true, Reason::Reconciled, "an opener may open it")
            }
        };
        match warning {
            Some(warning) if holds => gathered.say_named(
                ready,
                ConditionStatus::True,
                &warning.rule,
                &format!("{message}; {}", warning.message),
            ),
            _ => gathered.say_if(ready, holds, reason, message),
        }
    }
    let (holds, reason, message) = reconciling;
    gathered.say_if(ConditionType::Reconciling, holds, reason, message);
}

fn say_admitted(gathered: &mut Gathered<'_>, facts: &Facts<'_>) {
    let type_ = ConditionType::Admitted;
    match facts.tenant {
        None => gathered.say_if(
            type_,
            false,
            Reason::NamespaceWithoutTenant,
            "the namespace belongs to no tenant",
        ),
        Some(Of { admitted: true, .. }) => gathered.say_if(
            type_,
            true,
            Reason::Reconciled,
            "it fits into the tenant's quota",
        ),
        Some(Of { .. }) => gathered.say_if(
            type_,
            false,
            Reason::LimitExceeded,
            "the tenant has more conferences than spec.limits.conferences allows, and this is one of the youngest",
        ),
    }
}

fn say_placed(gathered: &mut Gathered<'_>, facts: &Facts<'_>, before: &[plenum_api::Condition]) {
    let type_ = ConditionType::Placed;
    let placed = match &facts.room {
        Some(room) => room.place.is_some(),
        // Nobody has spoken of it: what was true is the best that is known.
        None => find(before, type_).is_some_and(|old| old.status == ConditionStatus::True),
    };
    if placed {
        gathered.say_if(
            type_,
            true,
            Reason::Reconciled,
            "its room runs on a media node",
        );
    } else {
        gathered.say_if(
            type_,
            false,
            Reason::NobodyPresent,
            "its room gets a media node when somebody comes",
        );
    }
}

/// Where a meeting stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meeting {
    None,
    GoesOn,
    JustEnded,
}

impl Meeting {
    fn of(before: &[plenum_api::Condition], room: Option<&Room>) -> Self {
        let was = find(before, ConditionType::Active)
            .is_some_and(|condition| condition.status == ConditionStatus::True);
        match (was, room) {
            (true, None) => Self::GoesOn,
            (true, Some(room)) if room.opened => Self::GoesOn,
            (true, Some(_)) => Self::JustEnded,
            (false, Some(room)) if room.opened && room.occupied => Self::GoesOn,
            (false, _) => Self::None,
        }
    }

    fn say(self, gathered: &mut Gathered<'_>) {
        let type_ = ConditionType::Active;
        if self == Self::GoesOn {
            gathered.say_if(
                type_,
                true,
                Reason::Opened,
                "it was opened, and the meeting goes on",
            );
        } else {
            gathered.say_if(type_, false, Reason::NobodyPresent, "no meeting goes on");
        }
    }
}

fn phase(
    conference: &Conference,
    moment: Moment,
    meeting: &Meeting,
    published: &Published,
    stalled: &Stalled,
    before: Option<Phase>,
) -> Option<Phase> {
    if *meeting == Meeting::GoesOn {
        return Some(Phase::Active);
    }
    if stalled.is_some() || conference.spec.suspended {
        return Some(Phase::Failed);
    }
    match moment {
        Moment::Over { .. } => Some(Phase::Ended),
        Moment::Ahead { .. } => Some(Phase::Scheduled),
        Moment::Always | Moment::Open { .. } if published.is_in_effect() => Some(Phase::Open),
        Moment::Always | Moment::Open { .. } => before.filter(|phase| *phase == Phase::Open),
    }
}

#[cfg(test)]
mod tests;

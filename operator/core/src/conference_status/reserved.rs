// SPDX-License-Identifier: EUPL-1.2
//! `CapacityReserved`: whether capacity is held for a conference that asks for it, ahead of its time.

use plenum_api::{
    ConditionStatus, Reason,
    conditions::{ConditionType, find},
};

use super::{Facts, Moment, conditions::Gathered};

/// Says it of conferences that ask; of others there is nothing to say.
pub(super) fn say(
    gathered: &mut Gathered<'_>,
    facts: &Facts<'_>,
    moment: Moment,
    before: &[plenum_api::Condition],
) {
    let type_ = ConditionType::CapacityReserved;
    let Some(people) = facts.reserve else {
        // Left out, or not planned yet: what was said of it last stays.
        if let Some(old) = find(before, type_) {
            gathered.say_named(type_, old.status, &old.reason, &old.message);
        }
        return;
    };
    if people == 0 {
        return;
    }
    match (facts.room.as_ref().and_then(|room| room.held), moment) {
        (Some(true), _) => gathered.say_if(
            type_,
            true,
            Reason::CapacityHeld,
            format!("capacity for {people} participants is held"),
        ),
        (Some(false), _) => gathered.say_if(
            type_,
            false,
            Reason::NoCapacity,
            format!(
                "no media node can hold capacity for {people} participants, and it is tried again every few seconds; add nodes to the pool, raise spec.limits of the tenant, or lower capacity.expectedParticipants"
            ),
        ),
        (None, Moment::Over { .. }) => {
            gathered.say_if(type_, false, Reason::Ended, "its last window is over");
        }
        (None, Moment::Ahead { .. }) => gathered.say_if(
            type_,
            false,
            Reason::Scheduled,
            "capacity is held from the time it may be opened",
        ),
        (None, Moment::Always | Moment::Open { .. }) => {
            // Another replica may be taking over: what was held is held for two minutes without it.
            let held = find(before, type_).filter(|old| old.reason == Reason::CapacityHeld.as_str());
            match held {
                Some(old) => gathered.say_named(type_, old.status, &old.reason, &old.message),
                None => gathered.say(
                    type_,
                    ConditionStatus::Unknown,
                    Reason::Progressing,
                    "the control plane has not said yet whether capacity is held",
                ),
            }
        }
    }
}

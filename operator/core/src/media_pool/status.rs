// SPDX-License-Identifier: EUPL-1.2
//! What a pool's status says. Conditions keep the moment of their last change, and numbers of load are coarse, so that an
//! idle pool is never written.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use plenum_api::{
    Condition, ConditionStatus, ConditionType, MediaPoolSpec, Reason, conditions,
    media_pool::{LastScale, MediaPoolStatus, PoolUsage},
    names,
};

use super::{
    autoscale::Load,
    plan::{Blocked, Counts, Steps, bounds},
};

/// What the status is made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Name of the pool.
    pub pool: &'a str,
    /// Generation that was looked at.
    pub generation: Option<i64>,
    /// Wanted number of nodes.
    pub desired: u32,
    /// Why it is wanted, where that changed.
    pub cause: &'a str,
    /// Revision of the template.
    pub revision: &'a str,
    /// Numbers of nodes.
    pub counts: Counts,
    /// What is being done.
    pub steps: &'a Steps,
    /// Capacity of the accepting nodes.
    pub capacity: Load,
    /// Their load, where it is known.
    pub used: Option<Load>,
    /// Nodes whose address is known, and nodes for which no source yields one.
    pub addressed: u32,
    /// Nodes for which no source yields an address.
    pub unaddressed: u32,
    /// Budgets of others that select pods of the pool; `None` where nobody could look.
    pub foreign_budgets: Option<&'a [String]>,
    /// What somebody has to change first.
    pub stalled: Option<(Reason, &'a str)>,
    /// Whether the pool is being deleted.
    pub deleting: bool,
}

/// The status that follows the present one.
#[must_use]
pub fn status(
    present: Option<&MediaPoolStatus>,
    spec: &MediaPoolSpec,
    facts: &Facts<'_>,
    now: Timestamp,
) -> MediaPoolStatus {
    let mut status = present.cloned().unwrap_or_default();
    let scaled = present.is_some_and(|present| {
        present.observed_generation.is_some_and(|seen| seen > 0)
            && present.desired_replicas != facts.desired
    });
    if scaled {
        status.last_scale = Some(LastScale {
            time: Time(now),
            from: status.desired_replicas,
            to: facts.desired,
            reason: facts.cause.to_owned(),
        });
    }
    status.observed_generation = facts.generation;
    status.replicas = facts.counts.replicas;
    status.ready_replicas = facts.counts.ready;
    status.accepting_replicas = facts.counts.accepting;
    status.draining_replicas = facts.counts.draining;
    status.updated_replicas = facts.counts.updated;
    status.desired_replicas = facts.desired;
    status.revision = Some(facts.revision.to_owned());
    status.selector = Some(format!("{}={}", names::LABEL_POOL, facts.pool));
    status.capacity = Some(usage(facts.capacity));
    if let Some(used) = facts.used {
        status.used = Some(usage(used));
    }
    for condition in conditions_of(spec, facts, now) {
        conditions::set(&mut status.conditions, condition);
    }
    status
}

/// The status of the first pass, before anything slow.
#[must_use]
pub fn first(generation: Option<i64>, pool: &str, now: Timestamp) -> MediaPoolStatus {
    let condition = |type_, status| {
        Condition::new(
            type_,
            status,
            Reason::Progressing,
            "not looked at yet",
            generation,
            Time(now),
        )
    };
    MediaPoolStatus {
        observed_generation: None,
        selector: Some(format!("{}={pool}", names::LABEL_POOL)),
        conditions: vec![
            condition(ConditionType::Ready, ConditionStatus::False),
            condition(ConditionType::Reconciling, ConditionStatus::True),
        ],
        ..MediaPoolStatus::default()
    }
}

/// The four leading bits: at most an eighth too little, and a write only where that changes.
#[must_use]
pub fn bucket(number: u64) -> u32 {
    let number = u32::try_from(number).unwrap_or(u32::MAX).min(USAGE_MAX);
    let low = (u32::BITS - number.leading_zeros()).saturating_sub(BUCKET_BITS);
    number >> low << low
}

fn usage(load: Load) -> PoolUsage {
    PoolUsage {
        rooms: bucket(load.rooms),
        participants: bucket(load.participants),
    }
}

type Verdict = (ConditionType, ConditionStatus, Reason, String);

fn conditions_of(spec: &MediaPoolSpec, facts: &Facts<'_>, now: Timestamp) -> Vec<Condition> {
    [
        ready(spec, facts),
        reconciling(spec, facts),
        stalled(facts),
        capacity_available(facts),
        addresses_resolved(facts),
        update_blocked(facts),
        evictable(facts),
    ]
    .into_iter()
    .map(|(type_, status, reason, message)| {
        Condition::new(type_, status, reason, message, facts.generation, Time(now))
    })
    .collect()
}

fn ready(spec: &MediaPoolSpec, facts: &Facts<'_>) -> Verdict {
    let Facts {
        counts, desired, ..
    } = *facts;
    let outdated = counts.serving > counts.updated;
    let floor = if outdated {
        desired.saturating_sub(bounds(spec, desired).1)
    } else {
        desired
    };
    let told = |status, reason, message| (ConditionType::Ready, status, reason, message);
    if facts.deleting {
        told(
            ConditionStatus::False,
            Reason::Deleting,
            format!("{} nodes are left", counts.replicas),
        )
    } else if counts.ready >= floor {
        told(
            ConditionStatus::True,
            Reason::Reconciled,
            format!("{} of {desired} nodes are ready", counts.ready),
        )
    } else if facts.unaddressed > 0 {
        told(
            ConditionStatus::False,
            Reason::NoPublicAddress,
            format!(
                "no source of spec.network.addressSources yields an address for {} nodes",
                facts.unaddressed
            ),
        )
    } else {
        told(
            ConditionStatus::False,
            Reason::Progressing,
            format!("{} of {desired} nodes are ready", counts.ready),
        )
    }
}

fn reconciling(spec: &MediaPoolSpec, facts: &Facts<'_>) -> Verdict {
    let Facts {
        counts, desired, ..
    } = *facts;
    let outdated = counts.serving - counts.updated.min(counts.serving);
    let going = facts.deleting
        || (!spec.paused
            && facts.stalled.is_none()
            && (counts.serving != desired || counts.ready < desired || outdated > 0));
    let message = if facts.deleting {
        format!("{} nodes drain", counts.replicas)
    } else if outdated > 0 {
        format!("{outdated} nodes of an earlier revision are left")
    } else {
        format!(
            "{} of {desired} nodes, {} drain",
            counts.serving, counts.draining
        )
    };
    if going {
        (
            ConditionType::Reconciling,
            ConditionStatus::True,
            Reason::Progressing,
            message,
        )
    } else if spec.paused {
        (
            ConditionType::Reconciling,
            ConditionStatus::False,
            Reason::Paused,
            "spec.paused is true".to_owned(),
        )
    } else {
        (
            ConditionType::Reconciling,
            ConditionStatus::False,
            Reason::Reconciled,
            message,
        )
    }
}

fn stalled(facts: &Facts<'_>) -> Verdict {
    let (status, reason, message) = match facts.stalled {
        Some((reason, message)) => (ConditionStatus::True, reason, message),
        None => (ConditionStatus::False, Reason::Reconciled, ""),
    };
    (ConditionType::Stalled, status, reason, message.to_owned())
}

fn capacity_available(facts: &Facts<'_>) -> Verdict {
    let told = |status, reason, message: &str| {
        (
            ConditionType::CapacityAvailable,
            status,
            reason,
            message.to_owned(),
        )
    };
    let Some(used) = facts.used else {
        return told(
            ConditionStatus::Unknown,
            Reason::ControlPlaneUnreachable,
            "nobody reports the load",
        );
    };
    let free = used.rooms < facts.capacity.rooms
        && used.participants < facts.capacity.participants
        && used.egress_mbps < facts.capacity.egress_mbps;
    if free {
        told(
            ConditionStatus::True,
            Reason::CapacityHeld,
            "the accepting nodes have room for more",
        )
    } else if facts.counts.accepting == 0 {
        told(
            ConditionStatus::False,
            Reason::NoCapacity,
            "no node takes rooms",
        )
    } else {
        told(
            ConditionStatus::False,
            Reason::NoCapacity,
            "the accepting nodes are full; raise replicas, maxReplicas or the buffer",
        )
    }
}

fn addresses_resolved(facts: &Facts<'_>) -> Verdict {
    let told =
        |status, reason, message| (ConditionType::AddressesResolved, status, reason, message);
    if facts.unaddressed > 0 {
        told(
            ConditionStatus::False,
            Reason::NoPublicAddress,
            format!(
                "no source of spec.network.addressSources yields an address for {} nodes",
                facts.unaddressed
            ),
        )
    } else if facts.addressed == facts.counts.replicas {
        told(ConditionStatus::True, Reason::Reconciled, String::new())
    } else {
        told(
            ConditionStatus::Unknown,
            Reason::Progressing,
            format!(
                "{} of {} nodes have their addresses",
                facts.addressed, facts.counts.replicas
            ),
        )
    }
}

fn evictable(facts: &Facts<'_>) -> Verdict {
    let (status, reason, message) = match facts.foreign_budgets {
        None => (
            ConditionStatus::Unknown,
            Reason::Progressing,
            "the disruption budgets of the namespace could not be read".to_owned(),
        ),
        Some([]) => (
            ConditionStatus::True,
            Reason::Reconciled,
            "no other budget selects its pods".to_owned(),
        ),
        Some(names) => (
            ConditionStatus::False,
            Reason::ForeignBudget,
            format!(
                "PodDisruptionBudget {} selects its pods too, and Kubernetes evicts none that two budgets select: kubectl drain would wait for ever; delete it or narrow its selector, the pool has a budget of its own",
                names.join(", ")
            ),
        ),
    };
    (ConditionType::Evictable, status, reason, message)
}

fn update_blocked(facts: &Facts<'_>) -> Verdict {
    let told = |status, reason, message: &str| {
        (
            ConditionType::UpdateBlocked,
            status,
            reason,
            message.to_owned(),
        )
    };
    match facts.steps.blocked {
        None => told(ConditionStatus::False, Reason::Reconciled, ""),
        Some(Blocked::Paused) => told(ConditionStatus::True, Reason::Paused, "spec.paused is true"),
        Some(Blocked::Frozen) => told(
            ConditionStatus::True,
            Reason::Frozen,
            "a MaintenanceWindow forbids updates, or allows them at another time only",
        ),
        Some(Blocked::NotReady) => told(
            ConditionStatus::True,
            Reason::PodNotReady,
            "nodes of the new revision take no rooms yet; see the events of their pods",
        ),
    }
}

const BUCKET_BITS: u32 = 4;
/// The schema's bound for rooms.
const USAGE_MAX: u32 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_at_most_an_eighth_too_small() {
        for number in [0_u64, 1, 7, 8, 9, 15, 17, 100, 1_000, 4_095, 999_999] {
            let bucket = u64::from(bucket(number));
            assert!(
                bucket <= number && (number - bucket) * 8 <= number,
                "{number} -> {bucket}"
            );
        }
        assert_eq!([0, 7, 17, 100].map(bucket), [0, 7, 16, 96]);
    }
}

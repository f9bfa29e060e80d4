// SPDX-License-Identifier: EUPL-1.2
//! What replicas of the control plane report, and how several reports are made one.

use std::collections::BTreeMap;

use operator_core::RecordKind;
use plenum_proto::v1::{ConferenceState, NodeState, TenantState, observation::Item};

/// What was observed last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// By uid.
    pub nodes: BTreeMap<String, NodeState>,
    /// By uid.
    pub conferences: BTreeMap<String, ConferenceState>,
    /// By name.
    pub tenants: BTreeMap<String, TenantState>,
}

/// What the control plane said of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ack {
    /// Taken, at a revision.
    Taken(String),
    /// Refused.
    Refused {
        /// CamelCase reason.
        reason: String,
        /// For people.
        message: String,
    },
}

/// What a replica said of records.
pub type Acks = BTreeMap<(RecordKind, String), Ack>;

impl Observed {
    /// Takes an observation.
    pub fn take(&mut self, item: Item) {
        match item {
            Item::Node(node) => drop(self.nodes.insert(node.uid.clone(), node)),
            Item::Conference(conference) => {
                drop(self.conferences.insert(conference.uid.clone(), conference))
            }
            Item::Tenant(tenant) => drop(self.tenants.insert(tenant.name.clone(), tenant)),
            Item::NodeGone(uid) => drop(self.nodes.remove(&uid)),
            Item::EndOfSnapshot(_) => {}
        }
    }

    /// What all replicas report: of each thing the newest that any of them knows.
    #[must_use]
    pub fn of<'a>(mut views: impl Iterator<Item = &'a Self>) -> Self {
        let mut all = views.next().cloned().unwrap_or_default();
        views.for_each(|view| all.join(view));
        all
    }

    /// Adds what another replica observed: of each thing the newer state, and of a node the one that hears it.
    pub fn join(&mut self, other: &Self) {
        let node = |state: &NodeState| (state.registered, state.rooms, state.participants);
        let conference = |state: &ConferenceState| (state.epoch, state.opened, state.participants);
        let tenant = |state: &TenantState| (state.participants, state.rooms);
        join(&mut self.nodes, &other.nodes, node);
        // One replica holds capacity and says so; the others say nothing of it.
        let holds: BTreeMap<String, i32> = [&*self, other]
            .into_iter()
            .flat_map(|view| &view.conferences)
            .filter(|(_, state)| state.hold != 0)
            .map(|(uid, state)| (uid.clone(), state.hold))
            .collect();
        join(&mut self.conferences, &other.conferences, conference);
        join(&mut self.tenants, &other.tenants, tenant);
        for (uid, hold) in holds {
            if let Some(state) = self.conferences.get_mut(&uid) {
                state.hold = hold;
            }
        }
    }
}

fn join<V: Clone, K: Ord>(
    all: &mut BTreeMap<String, V>,
    other: &BTreeMap<String, V>,
    rank: impl Fn(&V) -> K,
) {
    for (key, value) in other {
        if all.get(key).is_none_or(|known| rank(known) < rank(value)) {
            all.insert(key.clone(), value.clone());
        }
    }
}

/// What all replicas said of records: taken is what all have taken at one revision, refused what one refuses.
#[must_use]
pub fn acks_of(replicas: &[&Acks]) -> Acks {
    let mut all = Acks::new();
    for (key, ack) in replicas.iter().copied().flatten() {
        match (all.get(key), ack) {
            (Some(Ack::Refused { .. }), _) => {}
            (None, _) | (_, Ack::Refused { .. }) => drop(all.insert(key.clone(), ack.clone())),
            (Some(Ack::Taken(_)), Ack::Taken(_)) => {}
        }
    }
    all.retain(|key, joined| match joined {
        Ack::Refused { .. } => true,
        Ack::Taken(revision) => replicas
            .iter()
            .all(|acks| matches!(acks.get(key), Some(Ack::Taken(taken)) if taken == revision)),
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_replica_holds_for_a_conference_is_known_whoever_knows_its_room() {
        let state = |epoch, hold| ConferenceState {
            uid: "c".into(),
            epoch,
            hold,
            ..ConferenceState::default()
        };
        let view = |state: ConferenceState| Observed {
            conferences: [("c".to_owned(), state)].into(),
            ..Observed::default()
        };
        let (holds, knows) = (view(state(0, 1)), view(state(3, 0)));
        for order in [[&holds, &knows], [&knows, &holds]] {
            let all = Observed::of(order.into_iter());
            assert_eq!(all.conferences["c"], state(3, 1));
        }
    }

    #[test]
    fn a_record_is_taken_when_every_replica_has_the_same_revision() {
        let key = (RecordKind::Tenant, "u".to_owned());
        let with =
            |ack: Option<Ack>| -> Acks { ack.map(|ack| (key.clone(), ack)).into_iter().collect() };
        let taken = |revision: &str| with(Some(Ack::Taken(revision.into())));
        let refused = with(Some(Ack::Refused {
            reason: "R".into(),
            message: "m".into(),
        }));
        let joined = |replicas: &[&Acks]| acks_of(replicas).get(&key).cloned();
        assert_eq!(
            joined(&[&taken("1"), &taken("1")]),
            Some(Ack::Taken("1".into()))
        );
        assert_eq!(joined(&[&taken("1"), &taken("2")]), None);
        assert_eq!(joined(&[&taken("1"), &with(None)]), None);
        for order in [[&taken("1"), &refused], [&refused, &taken("1")]] {
            assert!(matches!(joined(&order), Some(Ack::Refused { .. })));
        }
    }
}

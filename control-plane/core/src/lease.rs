// SPDX-License-Identifier: EUPL-1.2
//! Who owns a room and whether a node is dead.
//!
//! Epochs decide between two owners: the higher one holds. Death takes two witnesses, the expired lease in the store and what this
//! replica has itself observed; with the store away the own view alone. No wall clock takes part.

use std::cmp::Ordering;
use std::time::Duration;

use crate::ids::{Epoch, NodeId, Site};
use crate::limits;
use crate::time::Moment;

/// Lease of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomLease {
    /// Site of the owner.
    pub site: Site,
    /// Owner.
    pub node: NodeId,
    /// Number of the lease.
    pub epoch: Epoch,
}

/// Lease of a node, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLease {
    /// Site.
    pub site: Site,
    /// Node.
    pub node: NodeId,
    /// Incarnation.
    pub epoch: Epoch,
    /// Does the node take new rooms?
    pub accepting: bool,
}

/// Epoch of the next lease of a room: above everything anybody may hold. `None` when the numbers are used up, which only a forged floor
/// brings about.
#[must_use]
pub fn next_epoch(stored: Option<Epoch>, reported: Option<Epoch>, floor: Epoch) -> Option<Epoch> {
    let highest = floor
        .0
        .max(stored.map_or(0, |epoch| epoch.0))
        .max(reported.map_or(0, |epoch| epoch.0));
    highest.checked_add(1).map(Epoch)
}

/// One of two live rooms of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its epoch.
    pub epoch: Epoch,
    /// People in it.
    pub participants: u32,
    /// Where.
    pub node: NodeId,
}

/// Orders claims so that the greatest one keeps the room: higher epoch, then more participants, then the lower node id.
#[must_use]
pub fn compare_claims(a: &Claim, b: &Claim) -> Ordering {
    a.epoch
        .cmp(&b.epoch)
        .then(a.participants.cmp(&b.participants))
        .then_with(|| b.node.cmp(&a.node))
}

/// A gap between two ticks from which on the process counts as having been stopped: what it observed before is worth nothing.
pub const STOPPED_AFTER: Duration = Duration::from_secs(2);
/// Silence at whose age a dial has to begin, if its going unanswered is to count: a network that was away for five seconds lets it
/// through, and the node's last word came up to a report's pace earlier.
pub const OUTLASTS_GLITCH: Duration = Duration::from_millis(6_250);

/// Silence that completes the own witness of a death: a lease, and the time in which the last word still came to be written.
pub const OWN_SILENCE: Duration = Duration::from_millis(5_250);
/// A lease that was held by others' reports while this replica heard nothing has to be gone for so long: a store that was flushed has it
/// again with the next report.
pub const LEASE_GONE: Duration = Duration::from_secs(3);

/// Was the process stopped between two ticks?
#[must_use]
pub fn was_stopped(since_last_tick: Duration) -> bool {
    since_last_tick >= STOPPED_AFTER
}

/// Does the holder of a lease keep it against a report under the same epoch from another node? Two sides that could not hear each other
/// may have given it twice.
#[must_use]
pub fn keeps_lease(holder: &RoomLease, people: u32, other: &RoomLease, others: u32) -> bool {
    let claim = |lease: &RoomLease, participants| Claim {
        epoch: lease.epoch,
        participants,
        node: lease.node.clone(),
    };
    holder.node != other.node
        && compare_claims(&claim(holder, people), &claim(other, others)) == Ordering::Greater
}

/// How long a node has been silent, as observed by the own ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Silence(Duration);

impl Silence {
    /// A tick passed without a word; one tick counts for one second at most, however long the process slept.
    pub fn tick(&mut self, since_last_tick: Duration) {
        self.0 = self
            .0
            .saturating_add(since_last_tick.min(limits::SILENCE_PER_TICK_MAX));
    }

    /// The node was heard.
    pub fn heard(&mut self) {
        self.0 = Duration::ZERO;
    }

    /// So far.
    #[must_use]
    pub const fn span(self) -> Duration {
        self.0
    }
}

/// What came of dialling a silent node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// It answered as itself.
    Answered,
    /// Its host answered that nobody listens there: the network is whole and the process is gone.
    Refused,
    /// Nothing came back; that may be the network.
    Unanswered,
}

/// Dials of a node since it was last heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dials {
    failed: u32,
    conclusive: bool,
}

impl Dials {
    /// A dial that began after `silence` ended.
    pub fn ended(&mut self, dialled: Dialled, silence: Duration) {
        match dialled {
            Dialled::Answered => *self = Self::default(),
            Dialled::Refused | Dialled::Unanswered => {
                self.failed = self.failed.saturating_add(1);
                self.conclusive = dialled == Dialled::Refused || silence >= OUTLASTS_GLITCH;
            }
        }
    }

    /// Have they shown that the node is gone?
    #[must_use]
    pub const fn conclusive(self) -> bool {
        self.failed >= limits::REDIALS_FAILED_MIN && self.conclusive
    }
}

/// What the store said of a silent node's lease so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseLooks {
    held_at: Option<Duration>,
}

impl LeaseLooks {
    /// What one more look shows, after so much silence.
    pub fn look(&mut self, lease: LeaseWitness, silence: Silence) -> LeaseWitness {
        match lease {
            LeaseWitness::Held => {
                self.held_at = Some(silence.span());
                lease
            }
            LeaseWitness::Expired
                if self
                    .held_at
                    .is_some_and(|held| silence.span().saturating_sub(held) < LEASE_GONE) =>
            {
                LeaseWitness::Held
            }
            LeaseWitness::Expired | LeaseWitness::Away => lease,
        }
    }
}

/// What the store says of a node's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseWitness {
    /// It is held.
    Held,
    /// It ran out, or there is none.
    Expired,
    /// The store cannot be asked.
    Away,
}

/// Standing of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Heard.
    Alive,
    /// Silent: no new rooms.
    Suspect,
    /// Its rooms are placed anew.
    Dead,
}

/// What is known of a node's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witnesses {
    /// Own observation.
    pub silence: Silence,
    /// Dials since it fell silent.
    pub dials: Dials,
    /// The store's.
    pub lease: LeaseWitness,
    /// Start of this replica or return of the store lies less than a lease back.
    pub in_grace: bool,
}

/// Has this replica itself seen enough to call a node dead?
#[must_use]
pub fn own_witness(silence: Silence, dials: Dials) -> bool {
    silence.span() >= OWN_SILENCE && dials.conclusive()
}

/// Standing of a node by its witnesses.
#[must_use]
pub fn standing(witnesses: Witnesses) -> Standing {
    if witnesses.silence.span() < limits::SUSPECT_AFTER {
        return Standing::Alive;
    }
    let own = own_witness(witnesses.silence, witnesses.dials) && !witnesses.in_grace;
    match witnesses.lease {
        LeaseWitness::Expired | LeaseWitness::Away if own => Standing::Dead,
        _ => Standing::Suspect,
    }
}

/// The time after a start, a stop or the store's return in which no room moves, and in which no unknown room is placed until all known
/// nodes have reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    since: Moment,
}

impl Grace {
    /// Begins.
    #[must_use]
    pub const fn begin(now: Moment) -> Self {
        Self { since: now }
    }

    /// Does no node die yet? What the store says of leases may be older than what it lost: the lease period is waited out.
    #[must_use]
    pub fn spares(self, now: Moment) -> bool {
        now.since(self.since) < limits::LEASE
    }

    /// Must an unknown room wait? Until every known node has reported, for a lease period at most. They are asked about only while it
    /// matters.
    #[must_use]
    pub fn lasts(self, all_reported: impl FnOnce() -> bool, now: Moment) -> bool {
        self.spares(now) && !all_reported()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn silent(millis: u64) -> Silence {
        let mut silence = Silence::default();
        for _ in 0..millis / 100 {
            silence.tick(Duration::from_millis(100));
        }
        silence
    }

    fn dials(outcomes: &[(Dialled, u64)]) -> Dials {
        let mut dials = Dials::default();
        for (outcome, silence) in outcomes {
            dials.ended(*outcome, Duration::from_millis(*silence));
        }
        dials
    }

    fn dead() -> Witnesses {
        Witnesses {
            silence: silent(5_300),
            dials: dials(&[(Dialled::Refused, 3_000), (Dialled::Refused, 4_000)]),
            lease: LeaseWitness::Expired,
            in_grace: false,
        }
    }

    #[test]
    fn death_takes_both_witnesses() {
        assert_eq!(standing(dead()), Standing::Dead);
        for not_yet in [
            Witnesses {
                lease: LeaseWitness::Held,
                ..dead()
            },
            Witnesses {
                dials: dials(&[(Dialled::Refused, 4_000)]),
                ..dead()
            },
            Witnesses {
                silence: silent(5_200),
                ..dead()
            },
            Witnesses {
                in_grace: true,
                ..dead()
            },
        ] {
            assert_eq!(standing(not_yet), Standing::Suspect, "{not_yet:?}");
        }
        assert_eq!(
            standing(Witnesses {
                silence: silent(2_900),
                ..dead()
            }),
            Standing::Alive
        );
    }

    #[test]
    fn what_may_be_the_network_takes_a_dial_that_outlasts_a_glitch_of_five_seconds() {
        let unanswered = |starts: &[u64], silence| Witnesses {
            silence: silent(silence),
            dials: dials(
                &starts
                    .iter()
                    .map(|at| (Dialled::Unanswered, *at))
                    .collect::<Vec<_>>(),
            ),
            ..dead()
        };
        assert_eq!(
            standing(unanswered(&[3_000, 4_000, 5_000, 6_000], 7_000)),
            Standing::Suspect
        );
        assert_eq!(
            standing(unanswered(&[3_000, 4_000, 5_000, 6_250], 7_000)),
            Standing::Dead
        );
        // An answer in between begins the count anew.
        let answered = dials(&[
            (Dialled::Unanswered, 5_000),
            (Dialled::Answered, 6_000),
            (Dialled::Unanswered, 6_500),
        ]);
        assert!(!answered.conclusive());
        // A refusal speaks for itself, but an unanswered dial after it may be the network again.
        let mixed = dials(&[(Dialled::Refused, 3_000), (Dialled::Unanswered, 4_000)]);
        assert!(!mixed.conclusive());
    }

    #[test]
    fn a_lease_that_others_kept_up_is_not_gone_at_the_first_look() {
        let mut looks = LeaseLooks::default();
        let mut look = |lease, millis| looks.look(lease, silent(millis));
        assert_eq!(look(LeaseWitness::Held, 7_000), LeaseWitness::Held);
        assert_eq!(look(LeaseWitness::Expired, 8_000), LeaseWitness::Held);
        assert_eq!(look(LeaseWitness::Expired, 10_000), LeaseWitness::Expired);
        let mut looks = LeaseLooks::default();
        assert_eq!(
            looks.look(LeaseWitness::Expired, silent(5_300)),
            LeaseWitness::Expired,
            "nobody kept it up"
        );
        assert_eq!(
            looks.look(LeaseWitness::Away, silent(5_300)),
            LeaseWitness::Away
        );
    }

    #[test]
    fn with_the_store_away_the_own_view_decides() {
        assert_eq!(
            standing(Witnesses {
                lease: LeaseWitness::Away,
                ..dead()
            }),
            Standing::Dead
        );
    }

    #[test]
    fn a_replica_that_slept_believes_nobody_dead() {
        let mut silence = Silence::default();
        silence.tick(Duration::from_secs(3_600));
        assert_eq!(standing(Witnesses { silence, ..dead() }), Standing::Alive);
    }

    #[test]
    fn a_node_that_is_heard_is_alive_again() {
        let mut silence = silent(60_000);
        silence.heard();
        assert_eq!(standing(Witnesses { silence, ..dead() }), Standing::Alive);
    }

    #[test]
    fn unknown_rooms_wait_until_all_reported_or_a_lease_passed_and_nobody_dies_before_that() {
        let grace = Grace::begin(Moment::from_millis(1_000));
        assert!(grace.lasts(|| false, Moment::from_millis(5_999)));
        assert!(!grace.lasts(|| true, Moment::from_millis(1_000)));
        assert!(!grace.lasts(|| false, Moment::from_millis(6_000)));
        assert!(grace.spares(Moment::from_millis(5_999)));
        assert!(!grace.spares(Moment::from_millis(6_000)));
    }

    #[test]
    fn a_gap_of_a_slow_machine_is_no_stop() {
        assert!(!was_stopped(Duration::from_millis(1_900)));
        assert!(was_stopped(Duration::from_secs(2)));
    }

    proptest! {
        #[test]
        fn the_next_epoch_is_above_all_that_is_known(stored: Option<u32>, reported: Option<u32>, floor: u32) {
            let epoch = |number: u32| Epoch(u64::from(number));
            let next = next_epoch(stored.map(epoch), reported.map(epoch), epoch(floor)).expect("far from the end");
            prop_assert!(next > epoch(floor));
            prop_assert!(stored.is_none_or(|known| next > epoch(known)));
            prop_assert!(reported.is_none_or(|known| next > epoch(known)));
        }

        #[test]
        fn of_two_claims_exactly_one_wins(a in (0_u64..3, 0_u32..3, 0_u8..3), b in (0_u64..3, 0_u32..3, 0_u8..3)) {
            let claim = |(epoch, participants, node): (u64, u32, u8)| Claim {
                epoch: Epoch(epoch),
                participants,
                node: NodeId::parse(&format!("n{node}")).expect("node id"),
            };
            let (a, b) = (claim(a), claim(b));
            prop_assert_eq!(compare_claims(&a, &b), compare_claims(&b, &a).reverse());
            prop_assert_eq!(compare_claims(&a, &b) == Ordering::Equal, a == b);
            if a.epoch > b.epoch {
                prop_assert_eq!(compare_claims(&a, &b), Ordering::Greater);
            }
        }
    }

    #[test]
    fn an_exhausted_epoch_is_refused() {
        assert_eq!(next_epoch(None, Some(Epoch(u64::MAX)), Epoch(0)), None);
    }
}

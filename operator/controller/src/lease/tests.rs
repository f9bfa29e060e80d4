// SPDX-License-Identifier: EUPL-1.2
//! Several candidates against one simulated API server whose answers come late, or not at all.

use proptest::prelude::*;

use super::*;

/// What an API server does with Leases: one object, and a version that a writer has to know.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    version: u64,
}

impl Server {
    fn write(&mut self, mut lease: Lease) -> Result<Lease, ()> {
        let current = self
            .lease
            .as_ref()
            .and_then(|lease| lease.metadata.resource_version.clone());
        if lease.metadata.resource_version != current {
            return Err(());
        }
        self.version += 1;
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(lease.clone());
        Ok(lease)
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn elector(identity: &str) -> Elector {
    Elector::new("ns", "lease", identity)
}

/// One whole turn with a server that answers at once.
fn turn(elector: &mut Elector, server: &mut Server, now: Duration) {
    elector.look_again();
    for _ in 0..2 {
        match elector.next(now, Timestamp::UNIX_EPOCH) {
            Step::Read => elector.read(server.lease.clone(), now),
            Step::Create(lease) | Step::Replace(lease) => match server.write(*lease) {
                Ok(lease) => elector.wrote(lease, now, now),
                Err(()) => elector.unsure(),
            },
            Step::Wait => {}
        }
    }
}

fn leads(elector: &Elector, now: Duration) -> bool {
    matches!(elector.role(now), Role::Leading { .. })
}

#[test]
fn the_first_leads_and_the_second_follows_until_the_record_has_stood_still_for_its_duration() {
    let (mut one, mut two) = (elector("one"), elector("two"));
    let mut server = Server::default();
    assert_eq!(one.role(seconds(0)), Role::Unknown);
    turn(&mut one, &mut server, seconds(0));
    turn(&mut two, &mut server, seconds(0));
    assert_eq!(one.role(seconds(0)), Role::Leading { epoch: 1 });
    assert_eq!(two.role(seconds(0)), Role::Following);
    for now in (2..60).step_by(2).map(seconds) {
        turn(&mut one, &mut server, now);
        turn(&mut two, &mut server, now);
        assert!(leads(&one, now) && !leads(&two, now));
    }
    // The first is gone now; its last renewal was seen at 58.
    for now in (60..73).map(seconds) {
        turn(&mut two, &mut server, now);
        assert!(!leads(&two, now), "{now:?}");
    }
    turn(&mut two, &mut server, seconds(73));
    assert_eq!(two.role(seconds(73)), Role::Leading { epoch: 2 });
    // Back from a long pause, the first knows that it lapsed, then that another leads.
    assert_eq!(one.role(seconds(73)), Role::Lapsed { epoch: 1 });
    turn(&mut one, &mut server, seconds(73));
    turn(&mut one, &mut server, seconds(73));
    assert_eq!(one.role(seconds(73)), Role::Following);
}

#[test]
fn a_lease_that_is_given_back_is_taken_at_once_and_with_a_higher_epoch() {
    let (mut one, mut two) = (elector("one"), elector("two"));
    let mut server = Server::default();
    turn(&mut one, &mut server, seconds(0));
    turn(&mut two, &mut server, seconds(1));
    let released = one.release(Timestamp::UNIX_EPOCH).expect("it leads");
    server.write(released).expect("nobody else wrote");
    turn(&mut two, &mut server, seconds(2));
    assert_eq!(two.role(seconds(2)), Role::Leading { epoch: 2 });
    assert!(two.release(Timestamp::UNIX_EPOCH).is_some());
    assert!(elector("three").release(Timestamp::UNIX_EPOCH).is_none());
}

#[test]
fn whoever_cannot_renew_lapses_before_anybody_may_take_over_and_goes_on_where_nobody_did() {
    let mut one = elector("one");
    let mut server = Server::default();
    turn(&mut one, &mut server, seconds(0));
    assert!(leads(&one, RENEW_DEADLINE - Duration::from_millis(1)));
    assert_eq!(one.role(RENEW_DEADLINE), Role::Lapsed { epoch: 1 });
    assert!(RENEW_DEADLINE < LEASE);
    one.unsure();
    turn(&mut one, &mut server, seconds(300));
    assert_eq!(one.role(seconds(300)), Role::Leading { epoch: 1 });
}

#[test]
fn of_two_writes_with_one_version_the_second_is_no_win() {
    let (mut one, mut two) = (elector("one"), elector("two"));
    let mut server = Server::default();
    let now = seconds(0);
    one.read(None, now);
    two.read(None, now);
    let (Step::Create(first), Step::Create(second)) = (
        one.next(now, Timestamp::UNIX_EPOCH),
        two.next(now, Timestamp::UNIX_EPOCH),
    ) else {
        panic!("both want to create it");
    };
    let first = server.write(*first).expect("the first");
    one.wrote(first, now, now);
    server.write(*second).expect_err("the second");
    two.unsure();
    assert!(leads(&one, now) && !leads(&two, now));
    assert_eq!(two.next(now, Timestamp::UNIX_EPOCH), Step::Read);
}

/// What happens to one candidate next.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It takes a turn; its write reaches the server that many milliseconds after it was begun, and the answer that many after that.
    Turn { there: u64, back: u64 },
    /// As before, but the answer never comes.
    Unanswered { there: u64 },
    /// Nothing reaches the server.
    Cut,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => (0..3_000_u64, 0..3_000_u64).prop_map(|(there, back)| Fate::Turn { there, back }),
        1 => (0..3_000_u64).prop_map(|there| Fate::Unanswered { there }),
        2 => Just(Fate::Cut),
    ]
}

/// A write on its way, or its answer.
enum Flight {
    Write {
        who: usize,
        began: u64,
        back: Option<u64>,
        lease: Lease,
    },
    Answer {
        who: usize,
        began: u64,
        lease: Result<Lease, ()>,
    },
}

proptest! {
    /// proptest prints the seed of a failure.
    #[test]
    fn never_do_two_lead(fates in proptest::collection::vec((0..3_usize, 0..4_000_u64, fate()), 1..120)) {
        let mut electors: Vec<Elector> = ["a", "b", "c"].map(elector).into();
        let mut server = Server::default();
        let mut flights: Vec<(u64, Flight)> = Vec::new();
        let mut busy = [false; 3];
        let mut now = 0;
        let mut epochs: Vec<(u64, usize)> = Vec::new();
        for (who, pause, fate) in fates {
            let until = now + pause;
            // Whatever lands before the next turn.
            while let Some(index) = (0..flights.len()).filter(|index| flights[*index].0 <= until).min_by_key(|index| flights[*index].0) {
                let (at, flight) = flights.remove(index);
                now = at;
                match flight {
                    Flight::Write { who, began, back, lease } => {
                        let outcome = server.write(lease);
                        if let Some(back) = back {
                            flights.push((at + back, Flight::Answer { who, began, lease: outcome }));
                        }
                    }
                    Flight::Answer { who, began, lease } => {
                        busy[who] = false;
                        let clock = Duration::from_millis(now);
                        match lease {
                            Ok(lease) => electors[who].wrote(lease, Duration::from_millis(began), clock),
                            Err(()) => electors[who].unsure(),
                        }
                    }
                }
                check(&electors, now, &mut epochs)?;
            }
            now = until;
            let clock = Duration::from_millis(now);
            check(&electors, now, &mut epochs)?;
            if matches!(fate, Fate::Cut) || busy[who] && !matches!(fate, Fate::Turn { .. }) {
                continue;
            }
            // A call that takes too long is given up.
            if std::mem::take(&mut busy[who]) {
                electors[who].unsure();
                flights.retain(|(_, flight)| !matches!(flight, Flight::Answer { who: other, .. } if *other == who));
                for (_, flight) in &mut flights {
                    if let Flight::Write { who: other, back, .. } = flight && *other == who {
                        *back = None;
                    }
                }
            }
            electors[who].look_again();
            if electors[who].next(clock, Timestamp::UNIX_EPOCH) == Step::Read {
                electors[who].read(server.lease.clone(), clock);
            }
            let (Step::Create(lease) | Step::Replace(lease)) = electors[who].next(clock, Timestamp::UNIX_EPOCH) else {
                continue;
            };
            let (there, back) = match fate {
                Fate::Turn { there, back } => (there, Some(back)),
                Fate::Unanswered { there } => (there, None),
                Fate::Cut => continue,
            };
            if back.is_some() {
                busy[who] = true;
            } else {
                electors[who].unsure();
            }
            flights.push((now + there, Flight::Write { who, began: now, back, lease: *lease }));
        }
    }
}

fn check(
    electors: &[Elector],
    now: u64,
    epochs: &mut Vec<(u64, usize)>,
) -> Result<(), TestCaseError> {
    let clock = Duration::from_millis(now);
    let mut leaders = Vec::new();
    for (who, elector) in electors.iter().enumerate() {
        if let Role::Leading { epoch } = elector.role(clock) {
            leaders.push(who);
            if !epochs.contains(&(epoch, who)) {
                prop_assert!(
                    epochs.iter().all(|(known, _)| *known != epoch),
                    "one epoch, two leaders"
                );
                epochs.push((epoch, who));
            }
        }
    }
    prop_assert!(leaders.len() <= 1, "{leaders:?} lead at {now} ms");
    Ok(())
}

// SPDX-License-Identifier: EUPL-1.2
//! A model of a cluster: parts that read their Secrets late, an operator that writes them one by one, in any order, and forgets nothing but
//! what it has not written down.

use proptest::prelude::*;

use super::*;

const PATIENCE: i64 = 600;

/// What a Secret holds: who signed the leaf, and which authorities it trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    signed_by: u32,
    trusts: Vec<u32>,
}

struct World {
    now: i64,
    authorities: u32,
    signs: u32,
    next: Option<u32>,
    former: Option<u32>,
    wanted: bool,
    spread_since: Option<Timestamp>,
    /// Of each part, what its Secret held from when.
    secrets: Vec<Vec<(i64, Held)>>,
    finished: u32,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a moment")
}

impl World {
    fn new(parts: usize) -> Self {
        let mut world = Self {
            now: 1_000_000,
            authorities: 1,
            signs: 0,
            next: None,
            former: None,
            wanted: false,
            spread_since: None,
            secrets: Vec::new(),
            finished: 0,
        };
        for _ in 0..parts {
            world.join();
        }
        world
    }

    fn wants(&self) -> Held {
        Held {
            signed_by: self.signs,
            trusts: std::iter::once(self.signs)
                .chain(self.next)
                .chain(self.former)
                .collect(),
        }
    }

    /// A part that is made now reads what is wanted now.
    fn join(&mut self) {
        self.secrets.push(vec![(self.now, self.wants())]);
    }

    fn write(&mut self, part: usize) {
        let wants = self.wants();
        let (now, count) = (self.now, self.secrets.len());
        let secret = &mut self.secrets[part % count];
        if secret.last().map(|(_, held)| held) != Some(&wants) {
            secret.push((now, wants));
        }
    }

    fn phase(&self) -> Phase {
        match (self.next, self.former) {
            (Some(_), _) => Phase::Introducing,
            (None, Some(_)) => Phase::Replacing,
            (None, None) => Phase::Steady,
        }
    }

    fn look(&mut self) {
        let wants = self.wants();
        let all = self.secrets.iter();
        let spread = all
            .filter_map(|secret| secret.last())
            .all(|(_, held)| *held == wants);
        match step(&Seen {
            phase: self.phase(),
            wanted: self.wanted,
            foreign: false,
            spread,
            spread_since: self.spread_since,
            patience: Duration::from_secs(PATIENCE.unsigned_abs()),
            now: at(self.now),
        }) {
            Step::Rest | Step::Wait(_) => {}
            Step::Refuse => panic!("nothing is foreign"),
            Step::Introduce => {
                self.next = Some(self.authorities);
                self.authorities += 1;
                self.wanted = false;
                self.spread_since = None;
            }
            Step::Note(since) => self.spread_since = since,
            Step::Sign => {
                self.former = Some(self.signs);
                self.signs = self.next.take().expect("one that was introduced");
                self.spread_since = None;
            }
            Step::Retire => {
                self.former = None;
                self.spread_since = None;
                self.finished += 1;
            }
        }
    }

    /// Everything that a part may have read: what is written, and what was overwritten less than the patience ago.
    fn may_use(&self, part: usize) -> impl Iterator<Item = &Held> {
        let secret = &self.secrets[part];
        let now = self.now;
        secret
            .iter()
            .enumerate()
            .filter_map(move |(index, (_, held))| {
                let overwritten = secret.get(index + 1).map(|(at, _)| *at);
                overwritten
                    .is_none_or(|at| now < at + PATIENCE)
                    .then_some(held)
            })
    }

    fn everybody_trusts_everybody(&self) -> Result<(), String> {
        for one in 0..self.secrets.len() {
            for other in 0..self.secrets.len() {
                for shown in self.may_use(one) {
                    for trusting in self.may_use(other) {
                        if !trusting.trusts.contains(&shown.signed_by) {
                            return Err(format!(
                                "{:?} at {}: part {one} shows {shown:?}, part {other} trusts {trusting:?}",
                                self.phase(),
                                self.now
                            ));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Happens {
    Time(i64),
    Write(usize),
    Look,
    Ask,
    Join,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => (1..900_i64).prop_map(Happens::Time),
        4 => (0..8_usize).prop_map(Happens::Write),
        4 => Just(Happens::Look),
        1 => Just(Happens::Ask),
        1 => Just(Happens::Join),
    ]
}

proptest! {
    #[test]
    fn at_no_moment_does_a_part_show_a_certificate_that_another_does_not_trust(
        parts in 1..4_usize,
        story in prop::collection::vec(happens(), 1..250),
    ) {
        let mut world = World::new(parts);
        for event in story {
            match event {
                Happens::Time(seconds) => world.now += seconds,
                Happens::Write(part) => world.write(part),
                Happens::Look => world.look(),
                Happens::Ask => world.wanted = true,
                Happens::Join if world.secrets.len() < 6 => world.join(),
                Happens::Join => {}
            }
            if let Err(why) = world.everybody_trusts_everybody() {
                prop_assert!(false, "{why}");
            }
        }
        // Whatever happened, an operator that does its work comes to an end, and all certificates with it.
        world.wanted = false;
        for _ in 0..12 {
            world.look();
            (0..world.secrets.len()).for_each(|part| world.write(part));
            world.now += PATIENCE;
        }
        prop_assert_eq!(world.phase(), Phase::Steady);
    }
}

#[test]
fn an_authority_is_trusted_before_it_signs_and_after_it_has_signed_last() {
    let mut world = World::new(2);
    world.wanted = true;
    let mut seen = vec![world.phase()];
    for _ in 0..2 * PATIENCE {
        world.look();
        (0..2).for_each(|part| world.write(part));
        world.now += 5;
        if seen.last() != Some(&world.phase()) {
            seen.push(world.phase());
        }
    }
    assert_eq!(
        seen,
        [
            Phase::Steady,
            Phase::Introducing,
            Phase::Replacing,
            Phase::Steady
        ]
    );
    assert_eq!((world.signs, world.finished), (1, 1));
}

#[test]
fn what_parts_of_others_trust_is_theirs_to_change() {
    let seen = Seen {
        phase: Phase::Steady,
        wanted: true,
        foreign: true,
        spread: true,
        spread_since: None,
        patience: SPREAD,
        now: at(0),
    };
    assert_eq!(step(&seen), Step::Refuse);
    let unasked = Seen {
        wanted: false,
        ..seen
    };
    assert_eq!(step(&unasked), Step::Rest);
}

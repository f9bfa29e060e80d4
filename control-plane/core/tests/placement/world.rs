// SPDX-License-Identifier: EUPL-1.2
//! Nodes, replicas with views that lag behind, and the ledger of the store.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use control_core::ids::{NodeId, Pool, RoomKey, Site, Uid};
use control_core::lease::Standing;
use control_core::placement::{
    Candidate, NoNode, Occupants, Question, Recent, Strategy, Unfit, Wish, load, plan_join,
};
use control_core::quota::{
    Limit, NoChoice, Offer, QuotaLedger, QuotaRefusal, ReservationId, Usage,
};
use control_core::record::{Capacity, TenantLimits};
use control_core::time::Moment;

/// Lists that one placement makes, as the server does.
const LISTS_MAX: usize = 3;
/// Reports of rooms count in the store for this long, unless they are repeated.
const REPORT_LIFETIME: Duration = Duration::from_secs(300);

/// SplitMix64, so that the simulation depends on nothing that it tests.
pub struct Random(u64);

impl Random {
    /// By `PLENUM_SIM_SEED`, or by this number; printed.
    pub fn seeded(name: &str, default: u64) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "a seed that was printed is repeated"
        )]
        let seed = std::env::var("PLENUM_SIM_SEED")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default);
        println!("{name}: PLENUM_SIM_SEED={seed}");
        Self(seed)
    }

    /// For properties, whose own inputs are printed when they fail.
    pub fn quiet(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Of `from..to`.
    pub fn within(&mut self, from: u64, to: u64) -> u64 {
        from + ((u128::from(self.number()) * u128::from(to - from)) >> 64) as u64
    }

    /// In so many of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.within(0, 100) < percent
    }
}

/// A node: what it is, and what runs there in truth.
#[derive(Clone)]
pub struct Host {
    pub candidate: Candidate,
    pub truth: Usage,
}

pub fn host(number: usize, capacity: Capacity) -> Host {
    Host {
        candidate: Candidate {
            uid: Uid::parse(&format!("u-{number:04}")).expect("uid"),
            node: NodeId::parse(&format!("n{number:04}")).expect("node id"),
            pool: Pool::parse("media/default").expect("pool"),
            site: Site::parse("local").expect("site"),
            jurisdiction: None,
            accepting: true,
            ready: true,
            standing: Standing::Alive,
            capacity,
            used: Usage::default(),
            occupants: Occupants::Nobody,
        },
        truth: Usage::default(),
    }
}

/// One replica's knowledge.
struct Replica {
    view: Vec<Candidate>,
    recent: Recent,
}

/// What happens later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A node says its load.
    Report(usize),
    /// Its word reaches a replica.
    Heard {
        replica: usize,
        node: usize,
        rooms: u32,
        participants: u32,
    },
    /// The word of a room reaches the store.
    Stored { room: usize, node: usize },
}

/// How reports travel.
#[derive(Clone, Copy)]
pub struct Reports {
    pub late_ms: u64,
    pub lost_percent: u64,
}

pub struct World {
    pub hosts: Vec<Host>,
    pub ledger: QuotaLedger,
    pub random: Random,
    pub now: u64,
    pub refused: u64,
    replicas: Vec<Replica>,
    rooms: Vec<(RoomKey, u32)>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    reports: Reports,
    numbers: u64,
}

impl World {
    pub fn new(hosts: Vec<Host>, replicas: usize, reports: Reports, random: Random) -> Self {
        let view: Vec<Candidate> = hosts.iter().map(|host| host.candidate.clone()).collect();
        let replica = || Replica {
            view: view.clone(),
            recent: Recent::default(),
        };
        let mut world = Self {
            ledger: QuotaLedger::default(),
            replicas: (0..replicas).map(|_| replica()).collect(),
            rooms: Vec::new(),
            events: BinaryHeap::new(),
            now: 1_000,
            refused: 0,
            numbers: 0,
            hosts,
            reports,
            random,
        };
        for node in 0..world.hosts.len() {
            world.begin_reports(node);
        }
        world
    }

    fn begin_reports(&mut self, node: usize) {
        let phase = self.random.within(0, 1_000);
        self.at(self.now + phase, Event::Report(node));
    }

    /// An empty node joins, and every replica has heard it.
    pub fn join(&mut self, host: Host) -> usize {
        for replica in &mut self.replicas {
            replica.view.push(host.candidate.clone());
        }
        self.hosts.push(host);
        let node = self.hosts.len() - 1;
        self.begin_reports(node);
        node
    }

    fn at(&mut self, at: u64, event: Event) {
        self.numbers += 1;
        self.events.push(Reverse((at, self.numbers, event)));
    }

    /// Lets everything happen up to a moment.
    pub fn run_to(&mut self, to: u64) {
        while let Some(Reverse((at, _, event))) = self.events.peek().copied()
            && at <= to
        {
            self.events.pop();
            self.now = at;
            self.happen(event);
        }
        self.now = to;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Report(node) => {
                self.at(self.now + 1_000, Event::Report(node));
                let Usage {
                    rooms,
                    participants,
                    ..
                } = self.hosts[node].truth;
                for replica in 0..self.replicas.len() {
                    if self.random.percent(self.reports.lost_percent) {
                        continue;
                    }
                    let late = self.random.within(0, self.reports.late_ms + 1);
                    let heard = Event::Heard {
                        replica,
                        node,
                        rooms,
                        participants,
                    };
                    self.at(self.now + late, heard);
                }
            }
            Event::Heard {
                replica,
                node,
                rooms,
                participants,
            } => {
                self.replicas[replica].view[node].used = Usage {
                    rooms,
                    participants,
                    ..Usage::default()
                };
            }
            Event::Stored { room, node } => {
                let (key, participants) = self.rooms[room].clone();
                let id = self.hosts[node].candidate.node.clone();
                let now = Moment::from_millis(self.now);
                self.ledger
                    .report(&key, &id, participants, 0, REPORT_LIFETIME, now);
            }
        }
    }

    /// A room comes with so many people to a replica at random.
    pub fn arrive(
        &mut self,
        key: RoomKey,
        wish: &Wish,
        strategy: Strategy,
        limits: &TenantLimits,
    ) -> Result<usize, NoNode> {
        let replica = self.random.within(0, self.replicas.len() as u64) as usize;
        let now = Moment::from_millis(self.now);
        let id = ReservationId(u128::from(self.random.number()));
        let mut refused: BTreeMap<Uid, Unfit> = BTreeMap::new();
        let mut last = NoNode::default();
        for _ in 0..LISTS_MAX {
            let seed = self.random.number();
            let replica = &mut self.replicas[replica];
            replica.recent.forget(now);
            let question = Question {
                wish,
                strategy,
                held: None,
                refused: &refused,
                recent: &replica.recent,
                seed,
            };
            let list = plan_join(&question, &replica.view)?;
            let chosen: Vec<Candidate> = list.choices.into_iter().cloned().collect();
            let offers: Vec<Offer<'_>> = chosen
                .iter()
                .map(|choice| Offer {
                    node: &choice.node,
                    capacity: &choice.capacity,
                    accepting: self
                        .hosts
                        .iter()
                        .any(|host| host.candidate.node == choice.node && host.candidate.accepting),
                })
                .collect();
            let strategy = list.strategy;
            match self
                .ledger
                .place(&key, id, &offers, strategy, wish.amount, limits, now)
            {
                Ok(index) => {
                    let node = &chosen[index].node;
                    replica.recent.placed(node.clone(), wish.amount, now);
                    let node = self
                        .hosts
                        .iter()
                        .position(|host| host.candidate.node == *node)
                        .expect("a host");
                    self.open(key, node, wish.amount);
                    return Ok(node);
                }
                Err(NoChoice::Refused(QuotaRefusal::Reached { limit, .. }))
                    if !limit.is_of_node() =>
                {
                    assert!(matches!(
                        limit,
                        Limit::TenantRooms
                            | Limit::TenantParticipants
                            | Limit::TenantPublishers
                            | Limit::TenantEgress
                    ));
                    return Err(last);
                }
                Err(_) => {
                    self.refused += chosen.len() as u64;
                    for choice in chosen {
                        replica.recent.refused(choice.node.clone(), now);
                        refused.insert(choice.uid, Unfit::Full);
                        last.count(Unfit::Full);
                    }
                }
            }
        }
        Err(last)
    }

    /// The same by the load that the replica has heard of, alone: the node that seems emptiest.
    pub fn arrive_where_it_seems_emptiest(&mut self, key: RoomKey, wish: &Wish) -> usize {
        let replica = self.random.within(0, self.replicas.len() as u64) as usize;
        let seen = &self.replicas[replica].view;
        let node = (0..seen.len())
            .min_by_key(|node| load(&seen[*node].capacity, seen[*node].used))
            .expect("hosts");
        self.open(key, node, wish.amount);
        node
    }

    fn open(&mut self, key: RoomKey, node: usize, amount: Usage) {
        self.hosts[node].truth = self.hosts[node].truth.plus(amount);
        self.rooms.push((key, amount.participants));
        let room = self.rooms.len() - 1;
        let late = self.random.within(10, self.reports.late_ms + 11);
        self.at(self.now + late, Event::Stored { room, node });
    }
}

pub fn key(number: usize) -> RoomKey {
    RoomKey::parse("school", &format!("room-{number}")).expect("key")
}

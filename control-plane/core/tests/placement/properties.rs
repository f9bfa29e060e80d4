// SPDX-License-Identifier: EUPL-1.2
//! What holds for every room, whatever the nodes, wishes and delays.

use std::collections::BTreeMap;

use control_core::ids::{Jurisdiction, Pool, Site, TenantName};
use control_core::lease::Standing;
use control_core::placement::{Candidate, Occupants, Strategy as Layout, Wish};
use control_core::quota::Usage;
use control_core::record::{Capacity, TenantLimits};
use proptest::prelude::*;

use crate::world::{Host, Random, Reports, World, host, key};

fn site(number: u64) -> Site {
    Site::parse(&format!("s{number}")).expect("site")
}

fn pool(number: u64) -> Pool {
    Pool::parse(&format!("media/p{number}")).expect("pool")
}

fn code(number: u64) -> Jurisdiction {
    Jurisdiction::parse(["DE", "DE-SH", "FR"][number as usize % 3]).expect("code")
}

fn tenant(number: u64) -> TenantName {
    TenantName::parse(&format!("t{number}")).expect("name")
}

fn any_host(random: &mut Random, number: usize) -> Host {
    let capacity = Capacity {
        rooms: random.within(1, 12) as u32,
        participants: random.within(5, 60) as u32,
        egress_mbps: random.within(10, 120) as u32,
    };
    let mut any = host(number, capacity);
    let candidate = &mut any.candidate;
    candidate.site = site(random.within(0, 3));
    candidate.pool = pool(random.within(0, 2));
    candidate.jurisdiction = Some(random.within(0, 4))
        .filter(|number| *number < 3)
        .map(code);
    candidate.accepting = !random.percent(10);
    candidate.ready = !random.percent(5);
    if random.percent(10) {
        candidate.standing = Standing::Suspect;
    }
    candidate.occupants = match random.within(0, 6) {
        0 => Occupants::One {
            tenant: tenant(random.within(0, 3)),
            dedicated: true,
        },
        1 => Occupants::One {
            tenant: tenant(random.within(0, 3)),
            dedicated: false,
        },
        2 => Occupants::Several,
        _ => Occupants::Nobody,
    };
    any
}

fn some<T>(random: &mut Random, percent: u64, make: impl Fn(u64) -> T) -> Vec<T> {
    if random.percent(percent) {
        vec![make(random.within(0, 3))]
    } else {
        Vec::new()
    }
}

fn any_wish(random: &mut Random) -> Wish {
    Wish {
        pools: some(random, 30, |number| pool(number % 2)),
        sites: some(random, 30, site),
        room_sites: some(random, 20, site),
        preferred: some(random, 40, site),
        jurisdictions: some(random, 30, code),
        tenant: Some(tenant(random.within(0, 3))),
        dedicated: random.percent(15),
        amount: Usage::of_join(true, random.within(0, 8) as u32),
    }
}

/// The filters, written down a second time.
fn outside(wish: &Wish, node: &Candidate) -> Option<&'static str> {
    let listed = |empty: bool, has: bool| empty || has;
    if !listed(wish.pools.is_empty(), wish.pools.contains(&node.pool)) {
        return Some("pool");
    }
    if !listed(wish.sites.is_empty(), wish.sites.contains(&node.site))
        || !listed(
            wish.room_sites.is_empty(),
            wish.room_sites.contains(&node.site),
        )
    {
        return Some("site");
    }
    let within = wish.jurisdictions.iter().any(|code| {
        node.jurisdiction
            .as_ref()
            .is_some_and(|own| own == code || own.as_str().split('-').next() == Some(code.as_str()))
    });
    if !listed(wish.jurisdictions.is_empty(), within) {
        return Some("jurisdiction");
    }
    if node.standing != Standing::Alive || !node.ready || !node.accepting {
        return Some("standing");
    }
    match &node.occupants {
        Occupants::One { tenant, dedicated }
            if Some(tenant) != wish.tenant.as_ref() && (*dedicated || wish.dedicated) =>
        {
            Some("dedicated")
        }
        Occupants::Several if wish.dedicated => Some("dedicated"),
        _ => None,
    }
}

fn above_ceiling(host: &Host) -> bool {
    let (capacity, used) = (host.candidate.capacity, host.truth);
    used.rooms > capacity.rooms
        || used.participants > capacity.participants
        || used.egress_kbps > u64::from(capacity.egress_mbps) * 1_000
}

fn has_room(host: &Host, amount: Usage) -> bool {
    let mut with = host.clone();
    with.truth = with.truth.plus(amount);
    !above_ceiling(&with)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_room_is_outside_its_filters_and_no_node_above_its_ceiling(seed: u64, nodes in 1_usize..24, replicas in 1_usize..4, late in 0_u64..5_000) {
        let mut random = Random::quiet(seed);
        let hosts = (0..nodes).map(|number| any_host(&mut random, number)).collect();
        let reports = Reports { late_ms: late, lost_percent: 20 };
        let limits = TenantLimits { participants: Some(random.within(20, 400) as u32), ..TenantLimits::default() };
        let mut world = World::new(hosts, replicas, reports, random);
        for number in 0..120 {
            let step = world.random.within(0, 100);
            world.run_to(world.now + step);
            let wish = any_wish(&mut world.random);
            let layout = if world.random.percent(50) { Layout::Spread } else { Layout::Pack };
            if let Ok(node) = world.arrive(key(number), &wish, layout, &limits) {
                prop_assert_eq!(outside(&wish, &world.hosts[node].candidate), None);
                prop_assert!(!above_ceiling(&world.hosts[node]), "{:?} of {:?}", world.hosts[node].truth, world.hosts[node].candidate.capacity);
            }
        }
        let people: u32 = world.hosts.iter().map(|host| host.truth.participants).sum();
        prop_assert!(Some(people) <= limits.participants, "the tenant's ceiling");
    }

    #[test]
    fn what_fits_is_not_refused_when_every_node_can_be_asked(seed: u64, nodes in 1_usize..24, replicas in 1_usize..4) {
        // No more nodes than three lists hold: then a refusal means that there was no room in truth, however late the reports are.
        let mut random = Random::quiet(seed);
        let hosts: Vec<Host> = (0..nodes).map(|number| any_host(&mut random, number)).collect();
        let mut world = World::new(hosts, replicas, Reports { late_ms: 4_000, lost_percent: 30 }, random);
        for number in 0..120 {
            let step = world.random.within(0, 100);
            world.run_to(world.now + step);
            let wish = any_wish(&mut world.random);
            let fits = world.hosts.iter().any(|host| outside(&wish, &host.candidate).is_none() && has_room(host, wish.amount));
            let placed = world.arrive(key(number), &wish, Layout::Spread, &TenantLimits::default());
            prop_assert_eq!(placed.is_ok(), fits, "{:?}", placed);
        }
    }

    #[test]
    fn a_preferred_site_wins_while_it_has_room(seed: u64, nodes in 2_usize..16) {
        let mut random = Random::quiet(seed);
        let hosts: Vec<Host> = (0..nodes).map(|number| any_host(&mut random, number)).collect();
        // One replica and reports that come at once: what it knows is true.
        let mut world = World::new(hosts, 1, Reports { late_ms: 0, lost_percent: 0 }, random);
        for number in 0..80 {
            world.run_to(world.now + 2_500);
            let mut wish = any_wish(&mut world.random);
            wish.preferred = vec![site(1), site(2)];
            let free_at = |world: &World, at: &Site| world.hosts.iter().any(|host| {
                host.candidate.site == *at && outside(&wish, &host.candidate).is_none() && has_room(host, wish.amount)
            });
            let best = wish.preferred.iter().find(|at| free_at(&world, at)).cloned();
            let layout = if number % 2 == 0 { Layout::Spread } else { Layout::Pack };
            if let Ok(node) = world.arrive(key(number), &wish, layout, &TenantLimits::default())
                && let Some(best) = best
            {
                prop_assert_eq!(&world.hosts[node].candidate.site, &best);
            }
        }
    }

    #[test]
    fn packing_uses_no_more_nodes_than_needed_and_one(seed: u64, rooms in 1_usize..200, per_node in 1_u32..20) {
        let capacity = Capacity { rooms: per_node, participants: 1_000, egress_mbps: 100_000 };
        let hosts: Vec<Host> = (0..rooms.div_ceil(per_node as usize) + 8).map(|number| host(number, capacity)).collect();
        let mut world = World::new(hosts, 2, Reports { late_ms: 1_000, lost_percent: 5 }, Random::quiet(seed));
        let wish = Wish { amount: Usage::of_join(true, 1), ..Wish::default() };
        for number in 0..rooms {
            let step = world.random.within(0, 300);
            world.run_to(world.now + step);
            world.arrive(key(number), &wish, Layout::Pack, &TenantLimits::default()).expect("there is room");
        }
        let mut rooms_on: BTreeMap<u32, u32> = BTreeMap::new();
        for host in &world.hosts {
            *rooms_on.entry(host.truth.rooms).or_default() += 1;
        }
        let used = world.hosts.iter().filter(|host| host.truth.rooms > 0).count();
        prop_assert!(used <= rooms.div_ceil(per_node as usize) + 1, "{used} nodes: {rooms_on:?}");
    }
}

// SPDX-License-Identifier: EUPL-1.2
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::strategy::Strategy;

use super::*;

fn candidate(id: &str) -> Candidate {
    Candidate {
        uid: Uid::parse(&format!("u-{id}")).expect("uid"),
        node: NodeId::parse(id).expect("node id"),
        pool: Pool::parse("media/default").expect("pool"),
        site: Site::parse("local").expect("site"),
        jurisdiction: None,
        accepting: true,
        ready: true,
        standing: Standing::Alive,
        capacity: Capacity {
            rooms: 10,
            participants: 100,
            egress_mbps: 1_000,
        },
        used: Usage::default(),
        occupants: Occupants::default(),
    }
}

/// A list for a room that nothing is known of, laid out evenly.
fn list<'a>(wish: &Wish, candidates: &'a [Candidate], seed: u64) -> Result<Shortlist<'a>, NoNode> {
    let question = Question {
        wish,
        strategy: super::Strategy::Spread,
        held: None,
        refused: &BTreeMap::new(),
        recent: &Recent::default(),
        seed,
    };
    plan_join(&question, candidates)
}

fn names(list: &Shortlist<'_>) -> Vec<String> {
    list.choices
        .iter()
        .map(|choice| choice.node.to_string())
        .collect()
}

fn wish() -> Wish {
    Wish {
        amount: Usage::of_join(true, 1),
        ..Wish::default()
    }
}

fn key() -> RoomKey {
    RoomKey::parse("t", "r").expect("key")
}

#[test]
fn every_filter_refuses_by_its_name() {
    let refuse = |change: &dyn Fn(&mut Wish, &mut Candidate), unfit| {
        let (mut wish, mut node) = (wish(), candidate("n"));
        assert_eq!(admit(&wish, &node), Ok(()));
        change(&mut wish, &mut node);
        assert_eq!(admit(&wish, &node), Err(unfit));
    };
    refuse(
        &|wish, _| wish.pools = vec![Pool::parse("media/other").expect("pool")],
        Unfit::Pool,
    );
    refuse(
        &|wish, _| wish.sites = vec![Site::parse("other").expect("site")],
        Unfit::Site,
    );
    let code = |text| Jurisdiction::parse(text).expect("code");
    refuse(
        &|wish, _| wish.jurisdictions = vec![code("DE")],
        Unfit::Jurisdiction,
    );
    refuse(
        &|wish, node| {
            wish.jurisdictions = vec![code("DE-SH")];
            node.jurisdiction = Some(code("DE"));
        },
        Unfit::Jurisdiction,
    );
    refuse(&|_, node| node.standing = Standing::Suspect, Unfit::Silent);
    refuse(&|_, node| node.standing = Standing::Dead, Unfit::Silent);
    refuse(&|_, node| node.ready = false, Unfit::NotReady);
    refuse(&|_, node| node.accepting = false, Unfit::NotAccepting);
    refuse(&|_, node| node.used.rooms = 10, Unfit::Full);
    refuse(&|_, node| node.used.participants = 100, Unfit::Full);
    refuse(&|_, node| node.used.egress_kbps = 999_000, Unfit::Full);
}

#[test]
fn a_list_holds_different_nodes_in_an_order_of_chance() {
    let nodes: Vec<Candidate> = (0..20)
        .map(|number| candidate(&format!("n{number}")))
        .collect();
    let mut firsts = BTreeSet::new();
    for seed in 0..200 {
        let list = list(&wish(), &nodes, seed).expect("there is room");
        let names = names(&list);
        assert_eq!(names.len(), CHOICES_MAX);
        assert_eq!(
            names.iter().collect::<BTreeSet<_>>().len(),
            CHOICES_MAX,
            "each once"
        );
        assert_eq!(list.strategy, super::Strategy::Spread);
        firsts.extend(names.into_iter().take(2));
    }
    assert_eq!(firsts.len(), nodes.len(), "each is compared now and then");
}

#[test]
fn what_seems_full_is_asked_last_and_only_the_store_refuses_it() {
    let mut nodes = [candidate("a"), candidate("b"), candidate("c")];
    nodes[0].used.rooms = 10;
    let mut recent = Recent::default();
    recent.placed(
        nodes[1].node.clone(),
        Usage::of_join(false, 100),
        crate::time::Moment::ZERO,
    );
    for seed in 0..20 {
        let wish = wish();
        let question = Question {
            wish: &wish,
            strategy: super::Strategy::Spread,
            held: None,
            refused: &BTreeMap::new(),
            recent: &recent,
            seed,
        };
        let list = plan_join(&question, &nodes).expect("there may be room");
        assert_eq!(names(&list).len(), 3);
        assert_eq!(names(&list)[0], "c");
    }
}

#[test]
fn the_fullest_come_first_where_rooms_are_packed() {
    let mut nodes: Vec<Candidate> = ["a", "b", "c", "d"].map(candidate).to_vec();
    nodes[1].used.rooms = 3;
    nodes[2].used.rooms = 9;
    nodes[3].used.rooms = 10;
    let wish = wish();
    let question = Question {
        wish: &wish,
        strategy: super::Strategy::Pack,
        held: None,
        refused: &BTreeMap::new(),
        recent: &Recent::default(),
        seed: 1,
    };
    let list = plan_join(&question, &nodes).expect("there is room");
    assert_eq!(names(&list), ["c", "b", "a", "d"]);
    let held = nodes[0].node.clone();
    let question = Question {
        held: Some(&held),
        ..question
    };
    let list = plan_join(&question, &nodes).expect("there is room");
    assert_eq!(names(&list)[0], "a", "capacity is held there");
}

#[test]
fn preferred_sites_come_alone_until_they_refuse() {
    let site = |name| Site::parse(name).expect("site");
    let nodes: Vec<Candidate> = [
        ("a", "north"),
        ("b", "south"),
        ("c", "north"),
        ("d", "west"),
    ]
    .map(|(id, at)| Candidate {
        site: site(at),
        ..candidate(id)
    })
    .to_vec();
    let wish = Wish {
        preferred: vec![site("north"), site("south")],
        ..wish()
    };
    let ask = |refused: &BTreeMap<Uid, Unfit>, nodes: &[Candidate]| {
        let question = Question {
            wish: &wish,
            strategy: super::Strategy::Spread,
            held: None,
            refused,
            recent: &Recent::default(),
            seed: 7,
        };
        let list = plan_join(&question, nodes).expect("there is room");
        (names(&list), list.strategy)
    };
    let (mut first, strategy) = ask(&BTreeMap::new(), &nodes);
    first.sort();
    assert_eq!(
        (first.as_slice(), strategy),
        (
            ["a", "c"].map(String::from).as_slice(),
            super::Strategy::Spread
        )
    );
    let refused = BTreeMap::from([(nodes[0].uid.clone(), Unfit::Full)]);
    let (then, strategy) = ask(&refused, &nodes);
    assert_eq!(then, ["c", "b", "d"]);
    assert_eq!(
        strategy,
        super::Strategy::Pack,
        "in this order, whatever their load"
    );
}

#[test]
fn nodes_of_tenants_that_share_with_nobody_are_kept_apart() {
    let tenant = |name: &str| TenantName::parse(name).expect("name");
    let one = |name: &str, dedicated| Occupants::One {
        tenant: tenant(name),
        dedicated,
    };
    let wish = |name, dedicated| Wish {
        tenant: Some(tenant(name)),
        dedicated,
        ..wish()
    };
    let fits = |wish: &Wish, occupants: Occupants| {
        let node = Candidate {
            occupants,
            ..candidate("n")
        };
        match may_run(wish, &node) {
            Ok(()) => true,
            Err(unfit) => {
                assert_eq!(unfit, Unfit::Shared);
                false
            }
        }
    };
    assert!(fits(&wish("a", true), Occupants::Nobody));
    assert!(fits(&wish("a", true), one("a", true)));
    assert!(fits(&wish("a", false), one("b", false)));
    assert!(fits(&wish("a", false), Occupants::Several));
    assert!(!fits(&wish("a", true), one("b", false)));
    assert!(!fits(&wish("a", true), Occupants::Several));
    assert!(!fits(&wish("a", false), one("b", true)));
}

#[test]
fn a_refusal_says_how_many_failed_where() {
    let mut nodes = [candidate("a"), candidate("b"), candidate("c")];
    nodes[0].standing = Standing::Dead;
    nodes[1].accepting = false;
    nodes[2].capacity.rooms = 0;
    let counts = NoNode {
        silent: 1,
        not_accepting: 1,
        full: 1,
        ..NoNode::default()
    };
    assert_eq!(
        plan_alone(&wish(), &key(), &nodes).expect_err("nobody"),
        counts
    );
    let wish = wish();
    let refused = BTreeMap::from([(nodes[2].uid.clone(), Unfit::Full)]);
    let question = Question {
        wish: &wish,
        strategy: super::Strategy::Spread,
        held: None,
        refused: &refused,
        recent: &Recent::default(),
        seed: 0,
    };
    assert_eq!(
        plan_join(&question, &nodes).expect_err("the last one refused"),
        counts
    );
    assert_eq!(
        plan_join(&question, &[]).expect_err("nobody"),
        NoNode::default()
    );
}

#[test]
fn ranks_are_the_same_everywhere_and_differ_between_rooms() {
    // A changed number moves every room of an installation that runs without its store.
    assert_eq!(rank(&key(), &candidate("n1").node), RANK_OF_T_R_N1);
    let first = |room: &str| {
        let key = RoomKey::parse("t", room).expect("key");
        let nodes = ["a", "b", "c", "d"].map(candidate);
        plan_alone(&wish(), &key, &nodes)
            .expect("there is room")
            .node
            .clone()
    };
    let chosen: std::collections::BTreeSet<NodeId> = (0..100)
        .map(|number| first(&format!("room-{number}")))
        .collect();
    assert_eq!(chosen.len(), 4, "rooms spread over all nodes");
}

const RANK_OF_T_R_N1: u64 = 5_954_264_310_469_569_118;

#[derive(Clone, Debug)]
struct Case {
    nodes: Vec<Candidate>,
    wish: Wish,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let pool = |number: u8| Pool::parse(&format!("media/p{number}")).expect("pool");
    let site = |number: u8| Site::parse(&format!("s{number}")).expect("site");
    let code = |number: u8| {
        Jurisdiction::parse(["DE", "DE-SH", "FR"][usize::from(number % 3)]).expect("code")
    };
    let node = (
        0_u8..3,
        0_u8..2,
        proptest::option::of(0_u8..3),
        any::<[bool; 2]>(),
        0_u8..4,
        0_u32..12,
        0_u32..110,
        0_u64..1_100_000,
    );
    let nodes = proptest::collection::vec(node, 0..8).prop_map(move |nodes| {
        let nodes = nodes.into_iter().enumerate();
        nodes
            .map(
                |(
                    index,
                    (
                        in_pool,
                        at,
                        within,
                        [accepting, ready],
                        standing,
                        rooms,
                        participants,
                        egress_kbps,
                    ),
                )| Candidate {
                    pool: pool(in_pool),
                    site: site(at),
                    jurisdiction: within.map(code),
                    accepting: accepting || index % 2 == 0,
                    ready: ready || index % 3 == 0,
                    standing: [
                        Standing::Alive,
                        Standing::Alive,
                        Standing::Suspect,
                        Standing::Dead,
                    ][usize::from(standing)],
                    used: Usage {
                        rooms,
                        participants,
                        egress_kbps,
                        ..Usage::default()
                    },
                    ..candidate(&format!("n{index}"))
                },
            )
            .collect::<Vec<_>>()
    });
    let wish = (
        proptest::collection::vec(0_u8..3, 0..2),
        proptest::collection::vec(0_u8..2, 0..2),
        proptest::collection::vec(0_u8..3, 0..2),
        0_u32..3,
    )
        .prop_map(move |(pools, sites, codes, participants)| Wish {
            pools: pools.into_iter().map(pool).collect(),
            sites: sites.into_iter().map(site).collect(),
            jurisdictions: codes.into_iter().map(code).collect(),
            amount: Usage::of_join(true, participants),
            ..Wish::default()
        });
    (nodes, wish, any::<u64>()).prop_map(|(nodes, wish, seed)| Case { nodes, wish, seed })
}

/// What the rules say, written down a second time: whether a room may run there, and whether there is a place.
fn allowed(wish: &Wish, node: &Candidate) -> (bool, bool) {
    let in_pool = wish.pools.is_empty() || wish.pools.contains(&node.pool);
    let at_site = wish.sites.is_empty() || wish.sites.contains(&node.site);
    let within = wish.jurisdictions.is_empty()
        || wish.jurisdictions.iter().any(|code| {
            node.jurisdiction.as_ref().is_some_and(|own| {
                own == code || own.as_str().split('-').next() == Some(code.as_str())
            })
        });
    let has_room = node.used.rooms < node.capacity.rooms
        && (wish.amount.participants == 0
            || (node.used.participants + wish.amount.participants <= node.capacity.participants
                && node.used.egress_kbps + wish.amount.egress_kbps
                    <= u64::from(node.capacity.egress_mbps) * 1_000));
    let filters = in_pool
        && at_site
        && within
        && node.accepting
        && node.ready
        && node.standing == Standing::Alive;
    (filters, has_room)
}

fn counted(none: &NoNode) -> usize {
    let NoNode {
        elsewhere,
        shared,
        silent,
        not_ready,
        not_accepting,
        full,
        unasked,
    } = *none;
    (elsewhere + shared + silent + not_ready + not_accepting + full + unasked) as usize
}

proptest! {
    #[test]
    fn no_room_is_placed_outside_the_filters_and_none_is_refused_that_fits(case in cases()) {
        let Case { nodes, wish, seed } = case;
        let allowed: Vec<(bool, bool)> = nodes.iter().map(|node| allowed(&wish, node)).collect();
        match list(&wish, &nodes, seed) {
            Ok(list) => {
                let within = |choice: &&Candidate| {
                    nodes.iter().zip(&allowed).any(|(node, fits)| node == *choice && fits.0)
                };
                prop_assert!(list.choices.iter().all(within), "{list:?}");
                let may = allowed.iter().filter(|fits| fits.0).count();
                prop_assert_eq!(list.choices.len(), may.min(CHOICES_MAX));
                let has_room = |choice: &&Candidate| allowed[nodes.iter().position(|node| node == *choice).expect("listed")].1;
                prop_assert!(list.choices.iter().is_sorted_by_key(|choice| !has_room(choice)), "what seems full comes last");
            }
            Err(none) => {
                prop_assert!(!allowed.iter().any(|fits| fits.0), "{none}");
                prop_assert_eq!(counted(&none), nodes.len());
            }
        }
        match plan_alone(&wish, &key(), &nodes) {
            Ok(chosen) => prop_assert!(nodes.iter().zip(&allowed).any(|(node, fits)| node == chosen && *fits == (true, true))),
            Err(none) => {
                prop_assert!(!allowed.contains(&(true, true)), "{none}");
                prop_assert_eq!(counted(&none), nodes.len());
            }
        }
    }

    #[test]
    fn the_same_inputs_give_the_same_list(case in cases()) {
        let Case { nodes, wish, seed } = case;
        let ask = || list(&wish, &nodes, seed).map(|list| names(&list));
        prop_assert_eq!(ask(), ask());
    }

    #[test]
    fn replicas_agree_whatever_the_order_in_which_they_see_nodes(case in cases()) {
        let Case { mut nodes, wish, .. } = case;
        let first = plan_alone(&wish, &key(), &nodes).map(|node| node.node.clone());
        nodes.reverse();
        prop_assert_eq!(first, plan_alone(&wish, &key(), &nodes).map(|node| node.node.clone()));
    }
}

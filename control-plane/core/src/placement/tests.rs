// SPDX-License-Identifier: EUPL-1.2
use proptest::prelude::*;

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
    }
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
fn the_less_loaded_of_two_is_taken() {
    let mut nodes = [candidate("a"), candidate("b")];
    nodes[0].used.participants = 50;
    for random in [[0, 0], [u64::MAX, 0], [0, u64::MAX], [u64::MAX, u64::MAX]] {
        assert_eq!(
            plan_join(&wish(), &nodes, random)
                .expect("there is room")
                .node
                .as_str(),
            "b"
        );
    }
}

#[test]
fn a_refusal_says_how_many_failed_where() {
    let mut nodes = [candidate("a"), candidate("b"), candidate("c")];
    nodes[0].standing = Standing::Dead;
    nodes[1].accepting = false;
    nodes[2].capacity.rooms = 0;
    let none = plan_join(&wish(), &nodes, [0, 0]).expect_err("nobody");
    assert_eq!(
        none,
        NoNode {
            silent: 1,
            not_accepting: 1,
            full: 1,
            ..NoNode::default()
        }
    );
    assert_eq!(
        plan_alone(&wish(), &key(), &nodes).expect_err("nobody"),
        none
    );
    assert_eq!(plan_join(&wish(), &[], [0, 0]), Err(NoNode::default()));
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
    random: [u64; 2],
}

fn cases() -> impl proptest::strategy::Strategy<Value = Case> {
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
        });
    (nodes, wish, any::<[u64; 2]>()).prop_map(|(nodes, wish, random)| Case {
        nodes,
        wish,
        random,
    })
}

/// What the rules say, written down a second time.
fn allowed(wish: &Wish, node: &Candidate) -> bool {
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
    in_pool
        && at_site
        && within
        && has_room
        && node.accepting
        && node.ready
        && node.standing == Standing::Alive
}

proptest! {
    #[test]
    fn no_room_is_placed_outside_the_filters_and_none_is_refused_that_fits(case in cases()) {
        let Case { nodes, wish, random } = case;
        let fits = nodes.iter().any(|node| allowed(&wish, node));
        let plans = [plan_join(&wish, &nodes, random), plan_alone(&wish, &key(), &nodes)];
        for plan in plans {
            match plan {
                Ok(node) => prop_assert!(allowed(&wish, node), "{node:?}"),
                Err(none) => {
                    prop_assert!(!fits, "{none}");
                    let counted = none.elsewhere + none.silent + none.not_ready + none.not_accepting + none.full;
                    prop_assert_eq!(counted as usize, nodes.len());
                }
            }
        }
    }

    #[test]
    fn replicas_agree_whatever_the_order_in_which_they_see_nodes(case in cases()) {
        let Case { mut nodes, wish, .. } = case;
        let first = plan_alone(&wish, &key(), &nodes).map(|node| node.node.clone());
        nodes.reverse();
        prop_assert_eq!(first, plan_alone(&wish, &key(), &nodes).map(|node| node.node.clone()));
    }
}

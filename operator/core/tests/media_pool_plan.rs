// SPDX-License-Identifier: EUPL-1.2
//! The wanted set of nodes, step by step and under random histories.

use jiff::Timestamp;
use operator_core::media_pool::plan::{Blocked, NodeState, Permit, Steps, bounds, count, plan};
use plenum_api::{
    MediaPoolSpec,
    media_node::{DrainPhase, DrainReason, NodePorts},
};
use proptest::prelude::*;
use serde_json::json;

const NEW: &str = "bbbbbb";
const OLD: &str = "aaaaaa";

fn pool(more: serde_json::Value) -> MediaPoolSpec {
    let mut value = json!({
        "replicas": 3,
        "network": { "type": "HostPort", "hostPort": { "range": { "min": 20000, "max": 20255 } } },
        "update": { "maxSurge": 1, "maxUnavailable": 0 },
    });
    for (key, part) in more.as_object().expect("an object") {
        value[key] = part.clone();
    }
    serde_json::from_value(value).expect("a pool")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a moment")
}

fn node(name: &str, revision: &str, rooms: u32) -> NodeState {
    NodeState {
        name: name.to_owned(),
        revision: revision.to_owned(),
        ports: NodePorts {
            base: 20_000,
            count: 1,
        },
        created: at(0),
        ready: true,
        accepting: true,
        rooms,
        participants: rooms * 5,
        cordoned: false,
        drain: None,
        phase: None,
        deleting: false,
        ended: None,
    }
}

fn young(name: &str) -> NodeState {
    NodeState {
        ready: false,
        accepting: false,
        ..node(name, NEW, 0)
    }
}

fn draining(name: &str, revision: &str, reason: DrainReason, phase: DrainPhase) -> NodeState {
    NodeState {
        drain: Some(reason),
        phase: Some(phase),
        accepting: false,
        ..node(name, revision, 1)
    }
}

fn lost(name: &str, lived: i64, ended: i64) -> NodeState {
    NodeState {
        created: at(ended - lived),
        ended: Some(at(ended)),
        ready: false,
        accepting: false,
        ..node(name, NEW, 0)
    }
}

fn steps(spec: &MediaPoolSpec, desired: u32, nodes: &[NodeState]) -> Steps {
    plan(spec, desired, NEW, nodes, Permit::ALL, at(1_000))
}

fn names(steps: &Steps, reason: DrainReason) -> Vec<&str> {
    let of = steps.drain.iter().filter(|(_, why)| *why == reason);
    of.map(|(name, _)| name.as_str()).collect()
}

#[test]
fn an_empty_pool_gets_its_nodes_at_once() {
    let spec = pool(json!({}));
    assert_eq!(steps(&spec, 3, &[]).create, 3);
    assert_eq!(steps(&spec, 500, &[]).create, 64, "bounded per pass");
}

#[test]
fn nodes_whose_creation_is_under_way_are_not_made_twice() {
    let spec = pool(json!({}));
    assert_eq!(steps(&spec, 3, &[young("a"), young("b")]).create, 1);
    assert_eq!(
        steps(&spec, 3, &[young("a"), young("b"), young("c")]).create,
        0
    );
}

#[test]
fn an_update_surges_first_and_then_empties_the_emptiest() {
    let spec = pool(json!({}));
    let old = [node("a", OLD, 5), node("b", OLD, 0), node("c", OLD, 2)];
    let first = steps(&spec, 3, &old);
    assert_eq!((first.create, first.drain.len()), (1, 0));
    // The new one takes no rooms yet: nobody goes, and the update says why.
    let mut nodes = old.to_vec();
    nodes.push(young("n"));
    let second = steps(&spec, 3, &nodes);
    assert_eq!((second.create, second.drain.len()), (0, 0));
    assert_eq!(second.blocked, Some(Blocked::NotReady));
    nodes[3] = node("n", NEW, 0);
    let third = steps(&spec, 3, &nodes);
    assert_eq!(names(&third, DrainReason::Update), ["b"]);
    assert_eq!(third.create, 0);
    // While it drains the surge is used up.
    nodes[1] = draining("b", OLD, DrainReason::Update, DrainPhase::Waiting);
    let fourth = steps(&spec, 3, &nodes);
    assert_eq!(
        (fourth.create, fourth.drain.len(), fourth.blocked),
        (0, 0, None)
    );
    nodes.remove(1);
    assert_eq!(steps(&spec, 3, &nodes).create, 1);
}

#[test]
fn the_oldest_goes_first_where_the_pool_says_so() {
    let spec =
        pool(json!({ "update": { "maxSurge": 0, "maxUnavailable": 1, "order": "OldestFirst" } }));
    let mut nodes = [node("a", OLD, 5), node("b", OLD, 0), node("c", OLD, 2)];
    nodes[0].created = at(-10);
    assert_eq!(names(&steps(&spec, 3, &nodes), DrainReason::Update), ["a"]);
}

#[test]
fn a_broken_revision_goes_before_good_nodes_do() {
    let spec = pool(json!({}));
    let broken = NodeState {
        revision: "cccccc".to_owned(),
        ..young("x")
    };
    let nodes = [
        node("a", OLD, 0),
        node("b", OLD, 0),
        node("c", OLD, 0),
        broken,
    ];
    let steps = steps(&spec, 3, &nodes);
    assert_eq!(names(&steps, DrainReason::Update), ["x"]);
    assert_eq!(steps.create, 0, "the surge is taken until it is gone");
}

#[test]
fn a_cordoned_machines_nodes_are_replaced_at_once() {
    let spec = pool(json!({}));
    let nodes = [
        node("a", NEW, 1),
        draining("b", NEW, DrainReason::NodeCordoned, DrainPhase::Waiting),
        draining("c", NEW, DrainReason::NodeCordoned, DrainPhase::Closing),
    ];
    assert_eq!(steps(&spec, 3, &nodes).create, 2);
}

#[test]
fn scale_down_takes_old_then_cordoned_then_empty_then_small_then_young() {
    let spec = pool(
        json!({ "update": { "maxSurge": 0, "maxUnavailable": 1 }, "autoscaling": {
        "minReplicas": 0, "maxReplicas": 10, "scaleDown": { "stabilization": "0s", "maxConcurrentDrains": 100 } } }),
    );
    let mut nodes = vec![
        node("full", NEW, 9),
        node("small", NEW, 2),
        node("few", NEW, 2),
        node("young", NEW, 0),
        node("empty", NEW, 0),
        node("cordoned", NEW, 7),
        node("old", OLD, 8),
    ];
    nodes[2].participants = 3;
    nodes[3].created = at(50);
    nodes[5].cordoned = true;
    let order = ["old", "cordoned", "young", "empty", "few", "small", "full"];
    assert_eq!(
        names(&steps(&spec, 0, &nodes), DrainReason::ScaleDown),
        order
    );
}

#[test]
fn scale_down_drains_so_many_at_a_time() {
    let spec = pool(json!({}));
    let mut nodes: Vec<_> = (0..6)
        .map(|index| node(&format!("n{index}"), NEW, index))
        .collect();
    assert_eq!(
        names(&steps(&spec, 2, &nodes), DrainReason::ScaleDown),
        ["n0", "n1"]
    );
    nodes[0] = draining("n0", NEW, DrainReason::ScaleDown, DrainPhase::Waiting);
    assert_eq!(
        names(&steps(&spec, 2, &nodes), DrainReason::ScaleDown),
        ["n1"]
    );
}

#[test]
fn a_node_that_was_to_go_stays_when_it_is_wanted_again_and_nobody_was_told() {
    let spec = pool(json!({}));
    let nodes = [
        node("a", NEW, 1),
        draining("b", NEW, DrainReason::ScaleDown, DrainPhase::Closing),
        draining("c", NEW, DrainReason::ScaleDown, DrainPhase::Announced),
        draining("d", NEW, DrainReason::Manual, DrainPhase::Closing),
    ];
    let steps = steps(&spec, 3, &nodes);
    assert_eq!(steps.keep, ["b"]);
    assert_eq!(steps.create, 1);
}

#[test]
fn scale_down_leaves_as_many_that_take_rooms_as_are_wanted() {
    let spec = pool(
        json!({ "update": { "maxSurge": "100%", "maxUnavailable": 0 }, "autoscaling": {
        "minReplicas": 0, "maxReplicas": 10, "scaleDown": { "stabilization": "0s", "maxConcurrentDrains": 100 } } }),
    );
    let mut nodes: Vec<_> = (0..4)
        .map(|index| node(&format!("o{index}"), OLD, 1))
        .collect();
    nodes.extend((0..4).map(|index| young(&format!("n{index}"))));
    let steps = steps(&spec, 2, &nodes);
    let old = names(&steps, DrainReason::ScaleDown)
        .iter()
        .filter(|name| name.starts_with('o'))
        .count();
    assert!(old <= 2, "{steps:?}");
}

#[test]
fn a_freeze_stops_what_is_voluntary_and_nothing_else() {
    let spec = pool(json!({}));
    let frozen = Permit {
        scale_down: false,
        update: false,
        until: Some(at(5_000)),
    };
    let nodes = [node("a", OLD, 0), node("b", OLD, 0)];
    let step = plan(&spec, 3, NEW, &nodes, frozen, at(1_000));
    assert_eq!(
        (step.create, step.drain.len()),
        (1, 0),
        "what is missing is made"
    );
    assert_eq!(step.blocked, Some(Blocked::Frozen));
    assert_eq!(step.next, Some(at(5_000)));
    let many: Vec<_> = (0..9)
        .map(|index| node(&format!("n{index}"), NEW, 0))
        .collect();
    assert!(
        plan(&spec, 3, NEW, &many, frozen, at(1_000))
            .drain
            .is_empty()
    );
}

#[test]
fn a_paused_pool_stands_still() {
    let spec = pool(json!({ "paused": true }));
    let step = steps(&spec, 3, &[node("a", OLD, 0)]);
    assert_eq!(
        (step.create, step.drain.len(), step.blocked),
        (0, 0, Some(Blocked::Paused))
    );
}

#[test]
fn a_lost_node_is_replaced_at_once_and_remembered_for_ten_minutes() {
    let spec = pool(json!({}));
    let nodes = [node("a", NEW, 0), node("b", NEW, 0), lost("c", 500, 900)];
    let step = plan(&spec, 3, NEW, &nodes, Permit::ALL, at(1_000));
    assert_eq!((step.create, step.forget.len()), (1, 0));
    assert_eq!(step.next, Some(at(1_500)));
    assert_eq!(
        plan(&spec, 3, NEW, &nodes, Permit::ALL, at(1_500)).forget,
        ["c"]
    );
}

#[test]
fn pods_that_die_young_are_made_more_and_more_slowly() {
    let spec = pool(json!({ "replicas": 1 }));
    let mut nodes = Vec::new();
    let (mut made, mut moment) = (0, 0);
    while moment < 600 {
        let step = plan(&spec, 1, NEW, &nodes, Permit::ALL, at(moment));
        if step.create > 0 {
            made += step.create;
            nodes.push(lost(&format!("n{made}"), 1, moment + 1));
            moment += 1;
        } else {
            assert!(
                step.next.is_some_and(|next| next > at(moment)),
                "it says when it looks again"
            );
            moment += 1;
        }
    }
    assert!(made < 16, "{made} pods in ten minutes");
    assert!(made > 5);
}

#[test]
fn a_node_outside_of_a_narrowed_range_is_replaced() {
    let spec = pool(
        json!({ "network": { "type": "HostPort", "hostPort": { "range": { "min": 21000, "max": 21010 } } } }),
    );
    assert_eq!(count(&spec, NEW, &[node("a", NEW, 0)]).updated, 0);
}

/// A cluster in small: pods become ready after a while, drains end after a while, people cordon, pods die.
#[derive(Clone, Debug)]
enum Happening {
    Ready(prop::sample::Index),
    Drained(prop::sample::Index),
    Cordon(prop::sample::Index),
    Lose(prop::sample::Index),
    Rooms(prop::sample::Index, u32),
    Want(u32),
    Roll,
    Freeze(bool),
    Wait,
}

fn happening() -> impl Strategy<Value = Happening> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => index().prop_map(Happening::Ready),
        4 => index().prop_map(Happening::Drained),
        1 => index().prop_map(Happening::Cordon),
        1 => index().prop_map(Happening::Lose),
        3 => (index(), 0_u32..9).prop_map(|(index, rooms)| Happening::Rooms(index, rooms)),
        1 => (0_u32..12).prop_map(Happening::Want),
        1 => Just(Happening::Roll),
        1 => any::<bool>().prop_map(Happening::Freeze),
        2 => Just(Happening::Wait),
    ]
}

struct World {
    spec: MediaPoolSpec,
    nodes: Vec<NodeState>,
    desired: u32,
    revision: u32,
    frozen: bool,
    now: i64,
    made: u32,
}

impl World {
    fn revision(&self) -> String {
        format!("{:06}", self.revision)
    }

    fn happen(&mut self, what: &Happening) {
        self.now += 20;
        let now = at(self.now);
        let pick = |nodes: &mut Vec<NodeState>, index: &prop::sample::Index| {
            (!nodes.is_empty()).then(|| index.index(nodes.len()))
        };
        match what {
            Happening::Ready(index) => {
                if let Some(index) = pick(&mut self.nodes, index)
                    && self.nodes[index].is_serving()
                {
                    self.nodes[index].ready = true;
                    self.nodes[index].accepting = true;
                }
            }
            Happening::Drained(index) => {
                if let Some(index) = pick(&mut self.nodes, index)
                    && self.nodes[index].drain.is_some()
                {
                    self.nodes[index].ended.get_or_insert(now);
                }
            }
            Happening::Cordon(index) => {
                if let Some(index) = pick(&mut self.nodes, index)
                    && self.nodes[index].is_serving()
                {
                    self.nodes[index].cordoned = true;
                    self.nodes[index].accepting = false;
                    self.nodes[index].drain = Some(DrainReason::NodeCordoned);
                }
            }
            Happening::Lose(index) => {
                if let Some(index) = pick(&mut self.nodes, index) {
                    self.nodes[index].ended.get_or_insert(now);
                }
            }
            Happening::Rooms(index, rooms) => {
                if let Some(index) = pick(&mut self.nodes, index)
                    && self.nodes[index].accepting
                {
                    self.nodes[index].rooms = *rooms;
                }
            }
            Happening::Want(desired) => self.desired = *desired,
            Happening::Roll => self.revision += 1,
            Happening::Freeze(frozen) => self.frozen = *frozen,
            Happening::Wait => self.now += 300,
        }
    }

    fn permit(&self) -> Permit {
        Permit {
            scale_down: !self.frozen,
            update: !self.frozen,
            until: None,
        }
    }

    fn act(&mut self) -> Result<(), TestCaseError> {
        let revision = self.revision();
        let now = at(self.now);
        let before = count(&self.spec, &revision, &self.nodes);
        let steps = plan(
            &self.spec,
            self.desired,
            &revision,
            &self.nodes,
            self.permit(),
            now,
        );
        let (surge, unavailable) = bounds(&self.spec, self.desired);
        for name in &steps.forget {
            self.nodes.retain(|node| node.name != *name);
        }
        for (name, reason) in &steps.drain {
            let node = self
                .nodes
                .iter_mut()
                .find(|node| node.name == *name)
                .expect("a known node");
            prop_assert!(node.is_serving(), "{name} was already going");
            prop_assert!(!self.frozen, "a freeze holds");
            node.drain = Some(*reason);
            node.phase = Some(DrainPhase::Announced);
            node.accepting = false;
        }
        for name in &steps.keep {
            let node = self
                .nodes
                .iter_mut()
                .find(|node| node.name == *name)
                .expect("a known node");
            node.drain = None;
        }
        for _ in 0..steps.create {
            self.made += 1;
            self.nodes.push(NodeState {
                revision: revision.clone(),
                created: now,
                ..young(&format!("n{}", self.made))
            });
        }
        let after = count(&self.spec, &revision, &self.nodes);
        if !steps.drain.is_empty() {
            let spared = before
                .accepting
                .min(self.desired.saturating_sub(unavailable));
            prop_assert!(
                after.accepting >= spared,
                "{before:?} -> {after:?}, wanted {}",
                self.desired
            );
        }
        let updating = self
            .nodes
            .iter()
            .filter(|node| node.ended.is_none() && node.drain == Some(DrainReason::Update))
            .count();
        if steps.create > 0 {
            prop_assert!(
                after.serving as usize + updating <= (self.desired + surge) as usize,
                "{after:?} and {updating} of an update exceed {} + {surge}",
                self.desired
            );
        }
        // Nothing is left to do at once.
        let again = plan(
            &self.spec,
            self.desired,
            &revision,
            &self.nodes,
            self.permit(),
            now,
        );
        prop_assert_eq!(again.create, 0, "made what was missing in one pass");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nobody_goes_before_somebody_else_can_take_what_comes(
        surge in 0_u32..3, unavailable in 0_u32..3, story in prop::collection::vec(happening(), 1..80)
    ) {
        let spec = pool(json!({ "update": { "maxSurge": surge, "maxUnavailable": unavailable } }));
        let mut world = World { spec, nodes: Vec::new(), desired: 3, revision: 1, frozen: false, now: 0, made: 0 };
        world.act()?;
        for what in &story {
            world.happen(what);
            world.act()?;
        }
        // Left alone, with pods that come up and drains that end, the pool becomes what is wanted.
        world.frozen = false;
        for _ in 0..200 {
            world.now += 20;
            let now = at(world.now);
            for node in &mut world.nodes {
                if node.is_serving() {
                    node.ready = true;
                    node.accepting = true;
                } else {
                    node.ended.get_or_insert(now);
                }
            }
            world.act()?;
        }
        let last = count(&world.spec, &world.revision(), &world.nodes);
        prop_assert_eq!((last.serving, last.updated, last.draining), (world.desired, world.desired, 0));
        prop_assert!(world.nodes.len() <= 12 + 64 + 3, "{} remembered", world.nodes.len());
    }
}

#[test]
fn shares_round_as_those_of_a_deployment_do() {
    let spec = pool(json!({ "update": { "maxSurge": "25%", "maxUnavailable": "25%" } }));
    assert_eq!(bounds(&spec, 3), (1, 0));
    assert_eq!(bounds(&spec, 10), (3, 2));
    assert_eq!(
        bounds(&spec, 0),
        (0, 1),
        "an empty pool may still replace what is left"
    );
}

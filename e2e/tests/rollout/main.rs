// SPDX-License-Identifier: EUPL-1.2
//! Drains and rolling restarts with running media: how long a node takes to empty, how long people are without each other, and
//! that nobody who joins meanwhile is turned away.
//!
//! Each case runs whole processes in namespaces of its own, as the losses do; it takes root and `redis-server`.

mod drain;
mod joins;
#[path = "../failures/lab.rs"]
#[allow(
    dead_code,
    reason = "what every case of losses needs is more than what these need"
)]
mod lab;
mod restart;

use anyhow::Result;
use e2e::system::in_namespace;

#[test]
fn a_drained_node_is_empty_soon_and_its_people_see_each_other_again() -> Result<()> {
    let name = "a_drained_node_is_empty_soon_and_its_people_see_each_other_again";
    in_namespace(name, || drain::by_order(name))
}

#[test]
fn a_node_that_gets_sigterm_empties_itself_and_ends() -> Result<()> {
    let name = "a_node_that_gets_sigterm_empties_itself_and_ends";
    in_namespace(name, || drain::by_signal(name))
}

#[test]
fn a_node_that_gets_sigterm_without_a_control_plane_gives_up_its_rooms_in_time() -> Result<()> {
    let name = "a_node_that_gets_sigterm_without_a_control_plane_gives_up_its_rooms_in_time";
    in_namespace(name, || drain::by_signal_alone(name))
}

#[test]
fn replicas_restart_one_by_one_and_nobody_is_turned_away() -> Result<()> {
    let name = "replicas_restart_one_by_one_and_nobody_is_turned_away";
    in_namespace(name, || restart::replicas(name))
}

#[test]
fn nodes_restart_one_by_one_and_nobody_is_turned_away() -> Result<()> {
    let name = "nodes_restart_one_by_one_and_nobody_is_turned_away";
    in_namespace(name, || restart::nodes(name))
}

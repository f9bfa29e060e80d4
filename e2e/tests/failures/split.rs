// SPDX-License-Identifier: EUPL-1.2
//! Two sides that cannot hear each other: each replica hears one node, and the store is away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::system::Setup;
use plenum_load::person::record::{Happened, Kind};
use serde_json::json;

use crate::lab::{LAB, LIVENESS, Lab, replicas, run, shape, some, token};
use crate::nodes::{nft, nodes, own_groups};

/// Each side has a room of one name; when they hear each other again there is one, with everybody in it.
pub(crate) fn doubles(name: &'static str) -> Result<()> {
    let _nodes = own_groups(name, "media-node", "media-port")?;
    let _replicas = own_groups(name, "control-plane", "grpc-listen")?;
    run(name, Setup::default(), shape(), async |lab| {
        let sides = replicas()?;
        let nodes = nodes(lab)?;
        ensure!(
            sides.len() == 2 && nodes.len() == 2,
            "two replicas and two nodes run"
        );
        lab.redis.kill()?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let from = lab.crowd.now();
        // Each replica hears the node of its own number; the replicas do not hear each other.
        let grpc = |index: usize| -> Result<&str> {
            let address = sides[index].process.options("grpc-listen").next();
            address
                .and_then(|address| address.rsplit(':').next())
                .context("a replica listens")
        };
        let mut rules = String::from(
            "table inet split {\n  chain o { type filter hook output priority 5; policy accept;\n",
        );
        for (own, other) in [(0, 1), (1, 0)] {
            let lines = format!(
                "    meta skgid {node} tcp dport {other_replica} drop;\n    meta skgid {replica} tcp dport {{ {other_node}, {other_replica} }} drop;\n",
                node = nodes[own].port,
                other_replica = grpc(other)?,
                replica = grpc(own)?,
                other_node = nodes[other].grpc_port()?,
            );
            rules.push_str(&lines);
        }
        rules.push_str("  }\n}");
        nft(&rules)?;
        tokio::time::sleep(Duration::from_secs(4)).await;
        let shape = lab.shape.clone();
        for (index, side) in [0, 0, 1].into_iter().enumerate() {
            let identity = format!("split-{index}");
            let token = token(LAB, &identity, "split", &json!({}));
            let gateway = sides[side].gateway();
            lab.crowd.enter(
                "split",
                &identity,
                token,
                vec![Kind::Audio],
                &shape,
                &gateway,
            );
            tokio::time::sleep(Duration::from_millis(1_500)).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let homes = homes(lab);
        lab.figure("rooms_of_one_name", homes.len(), "rooms");
        ensure!(homes.len() == 2, "each side has a room: {homes:?}");
        // Before it: rooms may have become one by the time that the program ends.
        let healed = lab.crowd.now();
        nft("delete table inet split")?;
        lab.flowing_within("everybody meets in one room", 2 * LIVENESS)
            .await
            .with_context(|| some(&lab.crowd.waiting()))?;
        lab.figure(
            "one_room_after",
            lab.crowd.now().since(healed).as_millis(),
            "ms",
        );
        lab.one_state().await?;
        lab.redis.run()?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        lab.one_state().await?;
        lab.store_agrees(&lab.redis).await?;
        // The room with more people stays.
        let moved: Vec<String> = lab
            .crowd
            .people()
            .filter(|(room, person)| {
                *room == "split"
                    && person
                        .record()
                        .count(healed, |what| *what == Happened::SentAway)
                        > 0
            })
            .map(|(_, person)| person.record().identity.clone())
            .collect();
        ensure!(
            moved == ["split-2"],
            "the smaller room gives way: {moved:?}\n{}",
            lab.crowd.story(from)
        );
        Ok(())
    })
}

/// Nodes that serve somebody of the room.
fn homes(lab: &Lab) -> std::collections::BTreeSet<String> {
    lab.crowd
        .people()
        .filter(|(room, _)| *room == "split")
        .filter_map(|(_, person)| {
            let sid = person.record().sid.clone()?;
            sid.split('_').nth(2).map(str::to_owned)
        })
        .collect()
}

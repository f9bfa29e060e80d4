// SPDX-License-Identifier: EUPL-1.2
//! Whatever fails, in whatever order: when all is whole again, every room that was opened has one owner, is as it was, and all replicas
//! and the store agree on where it is. What fails is drawn from a seed that is printed; `PLENUM_SEED` repeats it.

use std::collections::BTreeSet;
use std::time::Duration;

use control_plane::plane::PlaceRequest;

use crate::cluster::Cluster;
use crate::redis::Server;
use crate::world::net::Line;
use crate::world::{LIVENESS, key, request};

const REPLICAS: usize = 3;
const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
const ROOMS: [&str; 8] = ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7"];
const STEPS: usize = 24;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).expect("31 bits") % bound
    }
}

/// Opens a room through some replica, if it can be had there at this moment. Whether a replica has heard that it is opened.
async fn open(cluster: &Cluster, replica: usize, room: &str) -> bool {
    let wish = PlaceRequest {
        participants: 0,
        ..request(room)
    };
    let plane = &cluster.replicas[replica].plane;
    let placed = tokio::time::timeout(Duration::from_secs(3), plane.place(wish)).await;
    let Ok(Ok(placed)) = placed else {
        return false;
    };
    let node = cluster.index(placed.node_id.as_str());
    if cluster.nodes[node].room(room).is_none() {
        return false;
    }
    cluster.nodes[node]
        .change(room, |state| {
            state.facts.opened = true;
            state.facts.metadata = format!("of {room}");
        })
        .await;
    let heard = async {
        while !plane.room(&key(room)).is_some_and(|room| room.facts.opened) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(1), heard)
        .await
        .is_ok()
}

async fn something_fails(cluster: &mut Cluster, server: &Server, random: &mut Random) {
    let (node, replica) = (random.below(NODES.len()), random.below(REPLICAS));
    match random.below(12) {
        0 | 1 => cluster.line(node, replica, Line::Held),
        2 => cluster.line(node, replica, Line::Broken),
        3 => cluster.all_lines_of_node(node, Line::Held),
        4 => cluster.all_lines(Line::Whole),
        5 => cluster.away[replica].store(true, std::sync::atomic::Ordering::SeqCst),
        6 => cluster.store_away(random.below(2) == 0),
        7 => server.pause(),
        8 => server.resume(),
        9 => {
            // It may stand still.
            server.resume();
            server.flush();
        }
        10 => cluster.stops[replica].for_a_while(Duration::from_secs(3)),
        _ => cluster.restart_node(node).await,
    }
}

async fn all_is_whole(cluster: &Cluster, opened: &BTreeSet<&'static str>, seed: u64) {
    cluster.all_lines(Line::Whole);
    cluster.store_away(false);
    let settled = async {
        loop {
            let wrong = contradictions(cluster, opened).await;
            if wrong.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    if tokio::time::timeout(LIVENESS, settled).await.is_err() {
        let wrong = contradictions(cluster, opened).await;
        panic!("PLENUM_SEED={seed}: {wrong:#?}");
    }
}

async fn contradictions(cluster: &Cluster, opened: &BTreeSet<&'static str>) -> Vec<String> {
    let mut wrong = Vec::new();
    for room in ROOMS {
        let owners = cluster.owners(room);
        if owners.len() > 1 || (owners.is_empty() && opened.contains(room)) {
            wrong.push(format!("{room} is on {owners:?}"));
        }
        let Some((node, epoch)) = owners.first() else {
            continue;
        };
        let state = cluster.nodes[cluster.index(node)].room(room);
        if opened.contains(room)
            && state.is_some_and(|state| {
                !state.facts.opened || state.facts.metadata != format!("of {room}")
            })
        {
            wrong.push(format!("{room} is not what it was"));
        }
        for (number, replica) in cluster.replicas.iter().enumerate() {
            let seen = replica.plane.room(&key(room));
            let seen = seen
                .filter(|seen| seen.running)
                .map(|seen| (seen.node_id.to_string(), seen.epoch.0));
            if seen.as_ref() != Some(&(node.clone(), *epoch)) {
                wrong.push(format!(
                    "{room} is on {node} under {epoch}, replica {number} sees {seen:?}"
                ));
            }
        }
        let Ok(kept) = cluster.store.room(key(room)).await else {
            wrong.push("the store does not answer".into());
            continue;
        };
        let kept = kept.map(|kept| (kept.lease.node.to_string(), kept.lease.epoch.0));
        if kept.as_ref() != Some(&(node.clone(), *epoch)) {
            wrong.push(format!(
                "{room} is on {node} under {epoch}, the store keeps {kept:?}"
            ));
        }
    }
    wrong
}

async fn survives(seed: u64) {
    println!("PLENUM_SEED={seed}");
    let mut random = Random(seed.max(1));
    let server = Server::start();
    let mut cluster = Cluster::start_on_redis(&server.url(), REPLICAS, &NODES, &ROOMS).await;
    let mut opened = BTreeSet::new();
    for step in 0..STEPS {
        if step % 2 == 0 {
            let room = ROOMS[random.below(ROOMS.len())];
            let replica = random.below(REPLICAS);
            if !opened.contains(room) && open(&cluster, replica, room).await {
                opened.insert(room);
            }
        } else {
            something_fails(&mut cluster, &server, &mut random).await;
        }
        let pause = 200 + random.below(1_800) as u64;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    println!("opened: {opened:?}");
    server.resume();
    all_is_whole(&cluster, &opened, seed).await;
    cluster.stop().await;
}

#[tokio::test]
async fn whatever_fails_every_room_has_one_owner_afterwards() {
    let named = std::env::var("PLENUM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    match named {
        Some(seed) => survives(seed).await,
        None => {
            tokio::join!(survives(1), survives(2), survives(3));
        }
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! A whole machine is emptied with kubectl, and a single media node by deleting its object.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::installed::Installed;
use kube::Api;
use plenum_api::MediaNode;

use crate::people::People;
use crate::seen::{MEDIA, Node, machine_of_store, nodes, pods, settled};

/// `kubectl drain` of a machine with calls: its rooms move, everybody stays, nothing new comes to it, the command ends well, and after
/// `kubectl uncordon` it is as good as the other. Gives its name. The machine without Redis is taken: a store has its own story.
pub(crate) async fn machine(installed: &Installed, people: &mut People) -> Result<String> {
    let store = machine_of_store(installed).await?;
    let all = settled(installed).await?;
    let victim = all.iter().find(|node| node.machine != store);
    let victim = victim
        .context("a media node runs beside the machine of Redis")?
        .clone();
    let there = people.rooms_on(&victim.id);
    ensure!(
        !there.is_empty(),
        "no room is on {victim:?}: {:?}",
        people.places()
    );

    let from = people.now();
    let words = [
        "drain",
        &victim.machine,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=180s",
    ];
    let drain = installed.cluster.api().try_kubectl(&words);
    tokio::pin!(drain);
    let mut fresh = Vec::new();
    let output = loop {
        tokio::select! {
            output = &mut drain => break output?,
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        if accepts(installed, &victim).await? {
            continue;
        }
        let room = format!("meanwhile-{}", fresh.len());
        people.meet(&room).await?;
        let on_it = people.rooms_on(&victim.id);
        ensure!(
            !on_it.contains(&room),
            "{room} was placed on the node that is emptied"
        );
        fresh.push(room);
    };
    let took = people.now().since(from);
    ensure!(output.status.success(), "kubectl drain: {output:?}");
    ensure!(
        !fresh.is_empty(),
        "nobody came while the machine was emptied"
    );
    println!(
        "figure: kubectl drain took {:.1} s; {} new rooms were opened meanwhile, all on the other machine",
        took.as_secs_f64(),
        fresh.len()
    );
    let moved = people.moved("kubectl drain", from).await?;
    ensure!(
        moved == there,
        "{there:?} were on the machine, {moved:?} moved"
    );
    for namespace in [MEDIA, "plenum-system"] {
        let mut left = pods(installed, namespace).await?;
        left.retain(|(_, machine)| *machine == victim.machine);
        ensure!(left.is_empty(), "on the drained machine: {left:?}");
    }
    for room in fresh {
        people.end(&room).await;
    }
    settled(installed).await?;
    installed
        .kubectl(&format!("uncordon {}", victim.machine))
        .await?;
    Ok(victim.machine.clone())
}

/// Whether a node takes rooms, as its object says.
async fn accepts(installed: &Installed, node: &Node) -> Result<bool> {
    let nodes = nodes(installed).await?;
    Ok(nodes
        .iter()
        .any(|other| other.id == node.id && other.accepting))
}

/// `kubectl delete mn`: its rooms move, the pod goes only when nobody is on it, and another one comes, on the machine that was empty.
pub(crate) async fn deleted(
    installed: &Installed,
    people: &mut People,
    emptied: &str,
) -> Result<()> {
    let all = settled(installed).await?;
    let busiest = all
        .iter()
        .max_by_key(|node| people.rooms_on(&node.id).len());
    let victim = busiest.context("there are nodes")?.clone();
    let there = people.rooms_on(&victim.id);
    ensure!(
        !there.is_empty(),
        "no room is on {victim:?}: {:?}",
        people.places()
    );

    let from = people.now();
    let words = ["-n", MEDIA, "delete", "mn", &victim.name, "--timeout=120s"];
    let delete = installed.cluster.api().try_kubectl(&words);
    tokio::pin!(delete);
    let output = loop {
        tokio::select! {
            output = &mut delete => break output?,
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        // Asked after the pods were: who left meanwhile is no witness.
        let pods = pods(installed, MEDIA).await?;
        let on_it = people.rooms_on(&victim.id);
        let stays = pods.iter().any(|(name, _)| *name == victim.name);
        ensure!(
            stays || on_it.is_empty(),
            "the pod was told to go with {on_it:?} on it"
        );
    };
    let took = people.now().since(from);
    ensure!(output.status.success(), "kubectl delete mn: {output:?}");
    println!("figure: kubectl delete mn took {:.1} s", took.as_secs_f64());
    let moved = people.moved("kubectl delete mn", from).await?;
    ensure!(
        moved == there,
        "{there:?} were on the node, {moved:?} moved"
    );
    let nodes = Api::<MediaNode>::namespaced(installed.cluster.client(), MEDIA);
    ensure!(
        nodes.get_opt(&victim.name).await?.is_none(),
        "the object is left"
    );

    let now = settled(installed).await?;
    let fresh = now.iter().find(|node| node.machine == emptied);
    let fresh = fresh.with_context(|| format!("no media node is on {emptied}: {now:?}"))?;
    // It has no rooms yet, so the next ones come to it.
    let mut rooms = Vec::new();
    while people.rooms_on(&fresh.id).is_empty() {
        ensure!(
            rooms.len() < 8,
            "no room comes to {fresh:?}: {:?}",
            people.places()
        );
        let room = format!("after-{}", rooms.len());
        people.meet(&room).await?;
        rooms.push(room);
    }
    for room in rooms {
        people.end(&room).await;
    }
    Ok(())
}

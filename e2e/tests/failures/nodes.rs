// SPDX-License-Identifier: EUPL-1.2
//! Media nodes are taken away: one in each way in which that happens, and half of them.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::http;
use e2e::processes::{Held, mount, signal_to};
use e2e::system::{GATEWAY, Setup, program};
use plenum_load::crowd::Shape;
use plenum_load::person::record::{Happened, Millis};
use plenum_load::websocket::{self, ConnectError};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::lab::{
    COUNCIL, LIVENESS, Lab, MUSTERSTADT, folder, pool, run, shape, shared, some, token, until,
};

/// Sixty people in twelve rooms on three nodes.
fn people() -> Shape {
    Shape {
        rooms: 12,
        people: 5,
        ..shape()
    }
}

fn three_nodes() -> Setup {
    Setup {
        manifests: vec![("pool.yaml", pool(3, 100))],
        ..Setup::default()
    }
}

/// A media node as `plenum get nodes` shows it.
pub(crate) struct Node {
    name: String,
    id: String,
    pid: i32,
    pub(crate) port: u64,
    grpc: String,
}

impl Node {
    /// Port of its own service.
    pub(crate) fn grpc_port(&self) -> Result<&str> {
        self.grpc.rsplit(':').next().context("a port")
    }
}

/// All nodes.
pub(crate) fn nodes(lab: &Lab) -> Result<Vec<Node>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    lab.system
        .get("nodes")?
        .iter()
        .map(|node| {
            let status = &node["status"];
            Ok(Node {
                name: text(&node["metadata"]["name"]),
                id: text(&status["nodeId"]),
                pid: i32::try_from(status["process"]["pid"].as_i64().unwrap_or_default())?,
                port: status["addresses"][0]["port"].as_u64().unwrap_or_default(),
                grpc: text(&status["grpcEndpoint"]),
            })
        })
        .collect()
}

fn conference(lab: &Lab, name: &str) -> Result<Value> {
    lab.system
        .get("conferences")?
        .into_iter()
        .find(|conference| conference["metadata"]["name"] == name)
        .with_context(|| format!("there is a conference {name}"))
}

/// The node of a conference.
fn node_of(lab: &Lab, name: &str) -> Result<Node> {
    let conference = conference(lab, name)?;
    let node = conference["status"]["assignment"]["nodes"][0]["name"].clone();
    nodes(lab)?
        .into_iter()
        .find(|candidate| node == candidate.name)
        .with_context(|| format!("a node serves {name}: {conference}"))
}

/// A declared conference is opened, somebody is removed, it is locked, and its opener leaves. What is left: two guests.
struct Council {
    /// The token of the one who was removed.
    removed: String,
}

async fn convene(lab: &mut Lab) -> Result<Council> {
    let shape = lab.shape.clone();
    let enter = |lab: &mut Lab, identity: &str, grants: &Value| {
        let token = token(MUSTERSTADT, identity, COUNCIL, grants);
        lab.crowd.enter(
            COUNCIL,
            identity,
            token.clone(),
            Vec::new(),
            &shape,
            &shared(),
        );
        token
    };
    enter(lab, "mayor", &json!({ "roomAdmin": true }));
    lab.flowing("the opener is in").await?;
    for guest in ["citizen", "clerk"] {
        enter(lab, guest, &json!({}));
    }
    let removed = enter(lab, "heckler", &json!({}));
    lab.flowing("the guests are in").await?;
    let admin = token(
        MUSTERSTADT,
        "backend",
        COUNCIL,
        &json!({ "roomAdmin": true }),
    );
    let gateway = GATEWAY.parse()?;
    let answer = http::post(
        gateway,
        "/twirp/livekit.RoomService/RemoveParticipant",
        &admin,
        &json!({ "room": COUNCIL, "identity": "heckler" }),
    )
    .await?;
    ensure!(answer.status == 200, "the heckler is removed: {answer:?}");
    lock(lab, "mayor", true).await?;
    lab.crowd.dismiss("heckler").await;
    lab.crowd.dismiss("mayor").await;
    let there = until(
        "the conference is open with two guests",
        LIVENESS,
        async || {
            let conference = conference(lab, COUNCIL)?;
            ensure!(
                conference["status"]["participants"] == 2 && conference["status"]["opened"] == true,
                "{conference}"
            );
            Ok(())
        },
    );
    there.await?;
    Ok(Council { removed })
}

/// A moderator locks or unlocks with the token it was sent.
async fn lock(lab: &Lab, moderator: &str, locked: bool) -> Result<()> {
    let own = lab
        .crowd
        .people()
        .find(|(_, person)| person.record().identity == moderator)
        .map(|(_, person)| person.record().token.clone())
        .context("the moderator is in")?;
    let room_id = lab.system.conference(COUNCIL)?.room_id;
    let answer = http::post(
        GATEWAY.parse()?,
        &format!("/api/v1/c/{room_id}/lock"),
        &own,
        &json!({ "locked": locked }),
    )
    .await?;
    ensure!(answer.status < 300, "locked = {locked}: {answer:?}");
    Ok(())
}

/// How a join of `token` is refused.
async fn refusal(token: &str) -> Result<(u16, String)> {
    match websocket::connect(&format!("ws://{GATEWAY}"), token).await {
        Err(ConnectError::Refused { status, text }) => Ok((status, text)),
        Err(error) => Err(error.into()),
        Ok(_) => bail!("it was let in"),
    }
}

/// The conference is as it was, on another node, without an opener among those who returned.
async fn as_it_was(lab: &mut Lab, council: &Council) -> Result<()> {
    let there = conference(lab, COUNCIL)?;
    ensure!(there["status"]["opened"] == true, "it is open: {there}");
    let (status, text) = refusal(&token(MUSTERSTADT, "stranger", COUNCIL, &json!({}))).await?;
    ensure!(
        text.contains("lock"),
        "a guest is refused because the room is locked, not with {status} {text}"
    );
    let (status, text) = refusal(&council.removed).await?;
    ensure!(
        status == 403,
        "the one who was removed stays out: {status} {text}"
    );
    let shape = lab.shape.clone();
    let mayor = token(MUSTERSTADT, "mayor", COUNCIL, &json!({ "roomAdmin": true }));
    lab.crowd
        .enter(COUNCIL, "mayor", mayor, Vec::new(), &shape, &shared());
    lab.flowing("the opener comes back").await?;
    lock(lab, "mayor", false).await?;
    let (status, text) = refusal(&council.removed).await?;
    ensure!(
        status == 403,
        "unlocked, the one who was removed stays out: {status} {text}"
    );
    let guest = token(MUSTERSTADT, "stranger", COUNCIL, &json!({}));
    lab.crowd
        .enter(COUNCIL, "stranger", guest, Vec::new(), &shape, &shared());
    lab.flowing("a guest enters the unlocked room").await
}

/// Takes the node of the conference away by `take`, which says when, waits until everybody receives again, and looks at everything.
async fn lost(
    lab: &mut Lab,
    take: impl AsyncFnOnce(&mut Lab, &Node) -> Result<Millis>,
    give: impl AsyncFnOnce(&mut Lab, &Node) -> Result<()>,
) -> Result<()> {
    let council = convene(lab).await?;
    // Facts are reported at once; a report may be on its way.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let node = node_of(lab, COUNCIL)?;
    let concerned = on(lab, &node.id);
    lab.figure("people_of_the_node", concerned.len(), "people");
    let from = take(lab, &node).await?;
    // Frames that were on their way have arrived, so what flows from now on is new.
    tokio::time::sleep(Duration::from_secs(2)).await;
    lab.flowing("everybody receives again").await?;
    let figures = lab.settled(from).await;
    lab.show("loss", &figures);
    lab.spread("receiving_again_after", &figures.again);
    ensure!(
        figures.without.is_empty(),
        "{:?} receive nothing",
        figures.without
    );
    for (_, person) in lab.crowd.people() {
        let record = person.record();
        let joined = record.count(from, |what| *what == Happened::Joined);
        if concerned.contains(&record.identity) {
            ensure!(joined > 0, "{} joined anew", record.identity);
        } else {
            ensure!(
                joined == 0,
                "{} was not concerned: {:?}",
                record.identity,
                record.happened
            );
        }
    }
    as_it_was(lab, &council).await?;
    let back = lab.crowd.now();
    give(lab, &node).await?;
    until("the node takes rooms again", LIVENESS, async || {
        let all = lab.system.get("nodes")?;
        let accepts = all.iter().all(|node| {
            node["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|is| is["type"] == "Accepting" && is["status"] == "True")
        });
        ensure!(accepts, "{all:#?}");
        Ok(())
    })
    .await?;
    lab.one_state().await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let figures = lab.settled(back).await;
    lab.without_a_gap("returned", &figures)?;
    ensure!(
        figures.joined == 0,
        "nobody is moved when the node comes back"
    );
    lab.one_state().await
}

/// Identities of those whom a node serves: its id stands in their SIDs.
fn on(lab: &Lab, node: &str) -> Vec<String> {
    lab.crowd
        .people()
        .map(|(_, person)| person.record())
        .filter(|record| {
            record
                .sid
                .as_ref()
                .is_some_and(|sid| sid.split('_').nth(2) == Some(node))
        })
        .map(|record| record.identity.clone())
        .collect()
}

/// Sends a node a signal; when.
fn signal(lab: &Lab, node: &Node, signal: Signal) -> Result<Millis> {
    let at = lab.crowd.now();
    signal_to(node.pid, signal)?;
    Ok(at)
}

/// SIGKILL, and it does not come back.
pub(crate) fn killed(name: &'static str) -> Result<()> {
    run(name, three_nodes(), people(), async |lab| {
        let held = Held::down(&program("media-node")?)?;
        lost(
            lab,
            async |lab, node| signal(lab, node, Signal::KILL),
            async |_, _| {
                drop(held);
                Ok(())
            },
        )
        .await
    })
}

/// SIGKILL, and `plenum up` starts it again at once: it comes back empty, under a higher epoch.
pub(crate) fn restarted(name: &'static str) -> Result<()> {
    run(name, three_nodes(), people(), async |lab| {
        lost(
            lab,
            async |lab, node| signal(lab, node, Signal::KILL),
            async |_, _| Ok(()),
        )
        .await
    })
}

/// SIGKILL while the store is away: each replica has its own view alone, and they choose the same nodes.
pub(crate) fn killed_without_store(name: &'static str) -> Result<()> {
    run(name, three_nodes(), people(), async |lab| {
        let held = Held::down(&program("media-node")?)?;
        lost(
            lab,
            async |lab, node| {
                lab.redis.kill()?;
                tokio::time::sleep(Duration::from_secs(3)).await;
                signal(lab, node, Signal::KILL)
            },
            async |lab, _| {
                lab.one_state().await?;
                lab.redis.run()?;
                drop(held);
                Ok(())
            },
        )
        .await?;
        lab.store_agrees(&lab.redis).await
    })
}

/// SIGSTOP, and SIGCONT after its rooms live elsewhere.
pub(crate) fn frozen(name: &'static str) -> Result<()> {
    run(name, three_nodes(), people(), async |lab| {
        lost(
            lab,
            async |lab, node| signal(lab, node, Signal::STOP),
            async |_, node| signal_to(node.pid, Signal::CONT),
        )
        .await
    })
}

/// Gives each process of a program a group of its own, by which its packets are told: the number of the port in that option.
pub(crate) fn own_groups(name: &str, of: &str, option: &str) -> Result<Held> {
    let real = folder(name).join("bin");
    std::fs::create_dir_all(&real)?;
    let (original, copy) = (program(of)?, real.join(of));
    std::fs::File::create(&copy)?;
    mount(&original, &copy)?;
    let script = real.join(format!("{of}-in-own-group"));
    std::fs::write(
        &script,
        format!(
            "#!/bin/sh\nprevious=\nfor word in \"$@\"; do\n  [ \"$previous\" = --{option} ] && group=${{word##*:}}\n  previous=$word\ndone\n\
             exec setpriv --regid=\"$group\" --clear-groups {} \"$@\"\n",
            copy.display(),
        ),
    )?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    Held::replaced(&original, &script)
}

/// Nothing gets from the node to anybody, or from anybody to it. Its connections are marked, because a socket that a process has closed
/// belongs to nobody and still delivers what it holds; what is dropped on its way out would not be remembered as a connection.
pub(crate) fn cut_off(name: &'static str) -> Result<()> {
    let _wrapped = own_groups(name, "media-node", "media-port")?;
    run(name, three_nodes(), people(), async |lab| {
        lost(
            lab,
            async |lab, node| {
                nft(&format!(
                    "table inet cut {{
  chain o {{ type filter hook output priority 5; policy accept; meta skgid {port} ct mark set {port}; }}
  chain i {{ type filter hook input priority 5; policy accept; ct mark {port} drop; udp dport {port} drop; tcp dport {{ {port}, {grpc} }} drop; }}
}}",
                    port = node.port,
                    grpc = node.grpc_port()?,
                ))?;
                Ok(lab.crowd.now())
            },
            async |_, _| nft("delete table inet cut"),
        )
        .await
    })
}

/// All nodes and all replicas cannot hear each other for five seconds; media have other ways.
pub(crate) fn glitch(name: &'static str) -> Result<()> {
    let _wrapped = own_groups(name, "media-node", "media-port")?;
    run(name, three_nodes(), people(), async |lab| {
        let from = lab.crowd.now();
        let (mut marks, mut drops) = (String::new(), String::new());
        for node in nodes(lab)? {
            let (port, grpc) = (node.port, node.grpc_port()?);
            marks.push_str(&format!(
                "    meta skgid {port} meta l4proto tcp ct mark set {port};\n"
            ));
            drops.push_str(&format!(
                "    ct mark {port} meta l4proto tcp drop;\n    tcp dport {grpc} drop;\n"
            ));
        }
        let rules = format!(
            "table inet cut {{\n  chain o {{ type filter hook output priority 5; policy accept;\n{marks}  }}\n  \
             chain i {{ type filter hook input priority 5; policy accept;\n{drops}  }}\n}}"
        );
        nft(&rules)?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        nft("delete table inet cut")?;
        // Long enough for whatever would follow: a lease, two dials, a move.
        tokio::time::sleep(Duration::from_secs(20)).await;
        lab.flowing("everybody has signalling and media").await?;
        let figures = lab.settled(from).await;
        lab.without_a_gap("glitch", &figures)?;
        ensure!(
            figures.joined == 0,
            "somebody was moved: {}",
            lab.crowd.story(from)
        );
        lab.enters("room-0", "late", &shared()).await?;
        lab.one_state().await
    })
}

pub(crate) fn nft(rules: &str) -> Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("nft (nftables) starts")?;
    child
        .stdin
        .take()
        .context("stdin is piped")?
        .write_all(rules.as_bytes())?;
    ensure!(child.wait()?.success(), "nft refused {rules}");
    Ok(())
}

/// Four nodes for three rooms each; two of them go while eight rooms run, so two rooms have no place.
pub(crate) fn half(name: &'static str) -> Result<()> {
    let setup = Setup {
        manifests: vec![("pool.yaml", pool(4, 3))],
        ..Setup::default()
    };
    let shape = Shape {
        rooms: 8,
        people: 3,
        ..shape()
    };
    run(name, setup, shape, async |lab| {
        let held = Held::down(&program("media-node")?)?;
        let all = nodes(lab)?;
        ensure!(all.len() == 4, "four nodes run");
        let mut homeless: Vec<String> = Vec::new();
        let from = lab.crowd.now();
        for node in &all[..2] {
            homeless.extend(on(lab, &node.id));
        }
        ensure!(!homeless.is_empty(), "the nodes had people");
        for node in &all[..2] {
            signal_to(node.pid, Signal::KILL)?;
        }
        let is_homeless = |identity: &str| homeless.iter().any(|other| other == identity);
        until("six rooms run", 2 * LIVENESS, async || {
            let waiting = lab.crowd.waiting();
            let mut rooms: Vec<&str> = waiting.iter().map(|(room, _)| room.as_str()).collect();
            rooms.dedup();
            ensure!(rooms.len() == 2, "{}", some(&waiting));
            Ok(())
        })
        .await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let waiting = lab.crowd.waiting();
        let stranded: Vec<String> = waiting.iter().map(|(room, _)| room.clone()).collect();
        refused_honestly(lab, from, &stranded)?;
        // Those who were not concerned noticed nothing.
        let to = lab.crowd.now();
        let untouched = |room: &str| !is_homeless(&format!("{room}-0"));
        let figures = lab
            .crowd
            .figures_of(from, Millis(to.0.saturating_sub(1_000)), untouched);
        lab.without_a_gap("untouched_rooms", &figures)?;
        ensure!(figures.joined == 0, "somebody untouched joined anew");
        // A room more is refused, and says why; a running one takes somebody in.
        let more = token(crate::lab::LAB, "more", "one-more", &json!({}));
        let (status, text) = refusal(&more).await?;
        ensure!(status == 503 && text.contains("full"), "{status} {text}");
        let running = lab
            .crowd
            .rooms()
            .find(|room| !stranded.iter().any(|other| other == room))
            .context("a room runs")?
            .to_owned();
        let late = token(crate::lab::LAB, "late", &running, &json!({}));
        let shape = lab.shape.clone();
        lab.crowd
            .enter(&running, "late", late, Vec::new(), &shape, &shared());
        until("somebody enters a running room", LIVENESS, async || {
            let waiting = lab.crowd.waiting();
            ensure!(
                waiting.iter().all(|(room, _)| *room != running),
                "{}",
                some(&waiting)
            );
            Ok(())
        })
        .await?;
        // With the nodes, everybody is back.
        drop(held);
        let back = lab.crowd.now();
        lab.flowing_within("everybody is back with the nodes", 2 * LIVENESS)
            .await?;
        lab.figure(
            "all_back_after",
            lab.crowd.now().since(back).as_millis(),
            "ms",
        );
        lab.one_state().await
    })
}

/// Whoever has no place was told so by a status that clients come back on, and with the reason.
fn refused_honestly(lab: &Lab, from: Millis, stranded: &[String]) -> Result<()> {
    let mut told = 0;
    for (room, person) in lab.crowd.people() {
        let record = person.record();
        let mut for_capacity = false;
        for (_, happened) in record.happened.iter().filter(|(at, _)| *at >= from) {
            if let Happened::Refused { status, text } = happened {
                ensure!(*status == 503, "{}: {status} {text}", record.identity);
                for_capacity |= text.contains("full");
            }
            ensure!(
                !matches!(happened, Happened::Ended(_)),
                "{} gave up: {happened:?}",
                record.identity
            );
        }
        if stranded.iter().any(|other| other == room) {
            ensure!(
                for_capacity,
                "{} was not told why: {:?}",
                record.identity,
                record.happened
            );
            told += 1;
        }
    }
    lab.figure("people_without_a_place", told, "people");
    Ok(())
}

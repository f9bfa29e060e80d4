// SPDX-License-Identifier: EUPL-1.2
//! Rolling restarts: one process after the other, the next only once the last one serves again; a node is emptied first.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Machine, drain::DrainPhase};
use crate::up::protocol::Answer;

/// How long a process may take until it serves again.
const BACK: Duration = Duration::from_secs(120);

/// What is restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// A replica of the control plane.
    Replica(usize),
    /// A node, by uid.
    Node(String),
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Waits until the others serve, so that nobody is without.
    Waiting { since: Instant },
    /// Its rooms end or move.
    Draining,
    /// It was told to end and comes back, with more starts than these.
    Restarting { since: Instant, starts: u64 },
    /// It runs again and takes rooms as soon as everybody knows.
    Returning { since: Instant },
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Waiting { .. } => "Waiting",
            Self::Draining => "Draining",
            Self::Restarting { .. } => "Restarting",
            Self::Returning { .. } => "Returning",
        }
    }
}

/// A rolling restart under way, or the last one.
pub(super) struct Rolling {
    targets: VecDeque<Target>,
    stage: Stage,
    began: Instant,
    /// How long rooms of a node may go on; the pool's without it.
    patience: Option<Duration>,
    /// A node that was drained before stays so.
    was_drained: bool,
    done: Vec<Value>,
    /// Rooms and people that found no place while their node was emptied.
    stranded: (u32, u32),
    failed: Option<String>,
}

impl Rolling {
    fn is_over(&self) -> bool {
        self.targets.is_empty() || self.failed.is_some()
    }
}

impl Machine {
    /// Begins a rolling restart of `what`: `replicas`, `nodes`, or the name of one.
    pub(super) fn restart(&mut self, what: &str, patience: Option<Duration>) -> Answer {
        if let Some(rolling) = self.rolling.as_ref().filter(|rolling| !rolling.is_over()) {
            let name = rolling
                .targets
                .front()
                .map(|target| self.target_name(target));
            return Answer::refused(
                format!(
                    "a restart is under way, {} at present",
                    name.unwrap_or_default()
                ),
                "wait until it is through; `plenum restart --status` shows how far it is",
            );
        }
        let targets = match self.targets(what) {
            Ok(targets) => targets,
            Err(refused) => return refused,
        };
        let names: Vec<String> = targets
            .iter()
            .map(|target| self.target_name(target))
            .collect();
        let now = Instant::now();
        self.note("restart", "Begins", names.join(", "));
        self.rolling = Some(Rolling {
            targets: targets.into(),
            stage: Stage::Waiting { since: now },
            began: now,
            patience,
            was_drained: false,
            done: Vec::new(),
            stranded: (0, 0),
            failed: None,
        });
        Answer::Done(json!({ "targets": names }))
    }

    fn targets(&self, what: &str) -> Result<Vec<Target>, Answer> {
        let mut nodes: Vec<(&String, &str)> = self
            .nodes
            .iter()
            .filter(|(_, node)| !node.goes())
            .map(|(uid, node)| (uid, node.wanted.name.as_str()))
            .collect();
        nodes.sort_by_key(|(_, name)| (name.len(), *name));
        let replicas = 0..self.replicas.len();
        let found: Vec<Target> = match what {
            "replicas" => replicas.map(Target::Replica).collect(),
            "nodes" => nodes
                .iter()
                .map(|(uid, _)| Target::Node((*uid).clone()))
                .collect(),
            name => {
                let replica = replicas.filter(|index| self.replicas[*index].name == name);
                let node = nodes.iter().filter(|(_, known)| *known == name);
                replica
                    .map(Target::Replica)
                    .chain(node.map(|(uid, _)| Target::Node((*uid).clone())))
                    .collect()
            }
        };
        if !found.is_empty() {
            return Ok(found);
        }
        let known: Vec<&str> = self
            .replicas
            .iter()
            .map(|replica| replica.name.as_str())
            .chain(nodes.iter().map(|(_, name)| *name))
            .collect();
        Err(Answer::refused(
            format!("there is no replica and no node `{what}`"),
            format!("use replicas, nodes, or one of {}", known.join(", ")),
        ))
    }

    fn target_name(&self, target: &Target) -> String {
        match target {
            Target::Replica(index) => self.replicas[*index].name.clone(),
            Target::Node(uid) => self
                .nodes
                .get(uid)
                .map_or_else(|| uid.clone(), |node| node.wanted.name.clone()),
        }
    }

    /// How far the restart is.
    pub(super) fn restart_state(&self) -> Answer {
        let Some(rolling) = &self.rolling else {
            return Answer::refused(
                "nothing was restarted",
                "begin with `plenum restart replicas`",
            );
        };
        let current = rolling.targets.front().filter(|_| rolling.failed.is_none());
        let load = current.and_then(|target| match target {
            Target::Node(uid) => super::drain::load_on(&self.replicas, uid),
            Target::Replica(_) => None,
        });
        Answer::Done(json!({
            "finished": rolling.is_over(),
            "failed": rolling.failed,
            "done": rolling.done,
            "current": current.map(|target| json!({
                "name": self.target_name(target),
                "stage": rolling.stage.name(),
                "rooms": load.map(|load| load.rooms),
                "participants": load.map(|load| load.participants),
            })),
            "waiting": rolling.targets.iter().skip(1).map(|target| self.target_name(target)).collect::<Vec<_>>(),
            "roomsWithoutPlace": rolling.stranded.0,
            "participantsWithoutPlace": rolling.stranded.1,
        }))
    }

    /// Takes the next step as soon as it can be taken.
    pub(super) async fn go_on_rolling(&mut self) {
        let Some(rolling) = self.rolling.as_ref().filter(|rolling| !rolling.is_over()) else {
            return;
        };
        let (Some(target), stage) = (rolling.targets.front().cloned(), rolling.stage) else {
            return;
        };
        let next = match &target {
            Target::Replica(index) => self.step_replica(*index, stage),
            Target::Node(uid) => self.step_node(uid, stage).await,
        };
        let name = self.target_name(&target);
        let Some(rolling) = self.rolling.as_mut() else {
            return;
        };
        match next {
            Next::Stay => {}
            Next::Enter(stage) => rolling.stage = stage,
            Next::Done => {
                rolling.targets.pop_front();
                let seconds = rolling.began.elapsed().as_secs_f64();
                rolling
                    .done
                    .push(json!({ "name": name, "afterSeconds": (seconds * 10.0).round() / 10.0 }));
                rolling.stage = Stage::Waiting {
                    since: Instant::now(),
                };
                self.note(name, "RestartDone", "it serves again");
            }
            Next::Fail(why) => {
                rolling.failed = Some(format!("{name}: {why}"));
                self.note(name, "RestartFailed", why);
            }
        }
    }

    fn step_replica(&mut self, index: usize, stage: Stage) -> Next {
        match stage {
            Stage::Waiting { since } => {
                let mut others = self.replicas.iter().enumerate();
                if others.any(|(other, replica)| other != index && !self.serves_all(replica)) {
                    return late(since, "the other replicas do not serve");
                }
                let replica = &self.replicas[index];
                replica.supervised.restart();
                Next::Enter(Stage::Restarting {
                    since: Instant::now(),
                    starts: replica.starts,
                })
            }
            Stage::Restarting { since, starts } => {
                let replica = &self.replicas[index];
                if replica.starts > starts && self.serves_all(replica) {
                    return Next::Done;
                }
                late(since, "it does not serve again")
            }
            Stage::Draining | Stage::Returning { .. } => Next::Done,
        }
    }

    async fn step_node(&mut self, uid: &str, stage: Stage) -> Next {
        let Some(node) = self.nodes.get(uid).filter(|node| !node.goes()) else {
            // It is no longer wanted.
            return Next::Done;
        };
        let emptying = node.emptying;
        match stage {
            Stage::Waiting { since } => {
                let others = self
                    .nodes
                    .iter()
                    .filter(|(other, node)| *other != uid && !node.drained && !node.goes());
                for (other, _) in others {
                    if !self.accepts_everywhere(other) {
                        return late(since, "the other nodes do not take rooms");
                    }
                }
                let (was_drained, patience) = (node.drained, self.rolling_patience());
                if let Some(rolling) = &mut self.rolling {
                    rolling.was_drained = was_drained;
                }
                if let Some(node) = self.nodes.get_mut(uid) {
                    node.drained = true;
                }
                self.empty(uid, patience, false, "Restart").await;
                self.publish().await;
                Next::Enter(Stage::Draining)
            }
            Stage::Draining => {
                let Some(emptying) = emptying else {
                    return Next::Fail("its drain was called off".to_owned());
                };
                if emptying.phase() != DrainPhase::Drained {
                    return Next::Stay;
                }
                if let Some(rolling) = &mut self.rolling {
                    rolling.stranded.0 += emptying.stranded().rooms;
                    rolling.stranded.1 += emptying.stranded().participants;
                }
                let starts = node.starts;
                node.supervised.restart();
                Next::Enter(Stage::Restarting {
                    since: Instant::now(),
                    starts,
                })
            }
            Stage::Restarting { since, starts } => {
                if node.starts <= starts || !self.registered_everywhere(uid) {
                    return late(since, "it does not come back");
                }
                let stays_drained = self
                    .rolling
                    .as_ref()
                    .is_some_and(|rolling| rolling.was_drained);
                if stays_drained {
                    return Next::Done;
                }
                if let Some(node) = self.nodes.get_mut(uid) {
                    node.drained = false;
                }
                self.publish().await;
                self.stop_emptying(uid, "Restart").await;
                Next::Enter(Stage::Returning {
                    since: Instant::now(),
                })
            }
            Stage::Returning { since } => {
                if self.accepts_everywhere(uid) {
                    return Next::Done;
                }
                late(since, "it takes no rooms again")
            }
        }
    }

    fn rolling_patience(&self) -> Option<Duration> {
        self.rolling.as_ref().and_then(|rolling| rolling.patience)
    }

    /// Whether a replica serves people and hears all nodes that are there.
    fn serves_all(&self, replica: &super::Replica) -> bool {
        let mut missing = Vec::new();
        self.missing_of(replica, &mut missing);
        replica.is_ready() && missing.is_empty()
    }

    fn registered_everywhere(&self, uid: &str) -> bool {
        self.everywhere(uid, |state| state.registered)
    }

    fn accepts_everywhere(&self, uid: &str) -> bool {
        self.everywhere(uid, |state| state.registered && state.accepting)
    }

    /// Whether all replicas that run see a node so.
    fn everywhere(&self, uid: &str, holds: fn(&plenum_proto::v1::NodeState) -> bool) -> bool {
        let mut running = self
            .replicas
            .iter()
            .filter(|replica| replica.pid.is_some())
            .peekable();
        running.peek().is_some()
            && running.all(|replica| {
                replica
                    .live
                    .as_ref()
                    .and_then(|live| live.nodes.get(uid))
                    .is_some_and(holds)
            })
    }
}

/// What follows.
enum Next {
    Stay,
    Enter(Stage),
    Done,
    Fail(String),
}

/// Waits on, but not for ever.
fn late(since: Instant, why: &str) -> Next {
    if since.elapsed() < BACK {
        return Next::Stay;
    }
    Next::Fail(format!("{why} within {} s", BACK.as_secs()))
}

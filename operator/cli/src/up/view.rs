// SPDX-License-Identifier: EUPL-1.2
//! Objects as `plenum get` shows them: what was declared, with the state that was observed.

use std::{collections::BTreeMap, net::SocketAddr};

use operator_core::{
    Name, Objects, Plan, RecordKind,
    digest::node_id,
    objects::namespace_of,
    records::{ConferenceRecord, NodeRecord},
};
use plenum_api::names;
use plenum_proto::v1::{ConferenceState, NodeState, conference_state::Phase};
use plenum_publish::live::{Ack, Observed};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    machine::DrainPhase,
    report::{Access, SdkAccess},
};

/// A node's process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Process {
    /// Name of the node.
    pub(crate) name: String,
    /// Pool.
    pub(crate) pool: Name,
    /// Process id, while it runs.
    pub(crate) pid: Option<u32>,
    /// Starts so far.
    pub(crate) starts: u64,
    /// Told to take no rooms.
    pub(crate) drained: bool,
    /// On its way out.
    pub(crate) leaving: bool,
    /// While it is being emptied.
    pub(crate) drain: Option<Draining>,
}

/// How far the emptying of a node has come.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Draining {
    /// Phase.
    pub(crate) phase: DrainPhase,
    /// Time that its rooms may go on.
    pub(crate) moves_in_seconds: u64,
    /// Time until rooms without a place are given up.
    pub(crate) ends_in_seconds: u64,
    /// Rooms that found none.
    pub(crate) rooms_without_place: u32,
    /// Their people.
    pub(crate) participants_without_place: u32,
}

/// A replica of the control plane and its process.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReplicaProcess {
    /// Name of the process.
    pub(crate) name: String,
    /// Id among the replicas.
    pub(crate) id: String,
    /// Where it alone is reached.
    pub(crate) http: SocketAddr,
    /// Where nodes reach it.
    pub(crate) grpc: SocketAddr,
    /// Process id, while it runs.
    #[serde(skip)]
    pub(crate) pid: Option<u32>,
    /// Starts so far.
    #[serde(skip)]
    pub(crate) starts: u64,
    /// It serves, knows what is declared and reports.
    #[serde(skip)]
    pub(crate) ready: bool,
    /// Its address answers.
    #[serde(skip)]
    pub(crate) serving: bool,
    /// It has all records.
    #[serde(skip)]
    pub(crate) snapshot_applied: bool,
    /// Records that it has answered for.
    #[serde(skip)]
    pub(crate) records: usize,
    /// Nodes that it hears.
    #[serde(skip)]
    pub(crate) nodes: usize,
}

/// Everything a view is made of.
pub(crate) struct View<'a> {
    /// Declared objects.
    pub(crate) objects: &'a Objects,
    /// The same as JSON, by key.
    pub(crate) values: &'a BTreeMap<operator_core::ObjectKey, Value>,
    /// What is published.
    pub(crate) plan: &'a Plan,
    /// What was observed and what runs.
    pub(crate) said: &'a Said,
}

/// What was observed and what runs.
pub(crate) struct Said {
    /// What was observed.
    pub(crate) live: Observed,
    /// What was acknowledged.
    pub(crate) acks: BTreeMap<(RecordKind, String), Ack>,
    /// Processes by uid of the node.
    pub(crate) processes: BTreeMap<String, Process>,
    /// Replicas of the control plane.
    pub(crate) replicas: Vec<ReplicaProcess>,
    /// Opener keys by conference.
    pub(crate) opener_keys: BTreeMap<Name, Vec<String>>,
    /// Base address of the pages.
    pub(crate) url: String,
}

impl View<'_> {
    fn declared(&self, kind: &str, name: &Name) -> Value {
        let key = operator_core::ObjectKey {
            kind: kind.to_owned(),
            name: name.clone(),
        };
        self.values.get(&key).cloned().unwrap_or(Value::Null)
    }

    fn published(&self, kind: RecordKind, uid: &str, revision: &str) -> Value {
        let (status, reason, message) = match self.said.acks.get(&(kind, uid.to_owned())) {
            Some(Ack::Taken(taken)) if taken == revision => {
                ("True", "Reconciled".to_owned(), String::new())
            }
            Some(Ack::Refused { reason, message }) => ("False", reason.clone(), message.clone()),
            _ => (
                "Unknown",
                "Progressing".to_owned(),
                "the control plane has not acknowledged it yet".to_owned(),
            ),
        };
        json!({ "type": "Published", "status": status, "reason": reason, "message": message })
    }

    fn node_name(&self, id: &str) -> String {
        let mut nodes = self.said.processes.iter();
        let found = nodes.find(|(uid, process)| node_id(&process.pool.name, uid) == id);
        found.map_or_else(|| id.to_owned(), |(_, process)| process.name.clone())
    }

    /// Tenants.
    pub(crate) fn tenants(&self) -> Vec<Value> {
        let one = |(name, tenant): (&String, &plenum_api::Tenant)| {
            let namespace = namespace_of(name, tenant);
            let count = self
                .objects
                .conferences
                .keys()
                .filter(|at| at.namespace == namespace)
                .count();
            let usage = self
                .said
                .live
                .tenants
                .get(name)
                .cloned()
                .unwrap_or_default();
            let record = self
                .plan
                .tenants
                .values()
                .find(|record| record.name == *name);
            let mut value = self.declared("Tenant", &Name::new("", name.as_str()));
            value["status"] = json!({
                "namespace": namespace,
                "conferences": count,
                "usage": { "rooms": usage.rooms, "participants": usage.participants },
                "conditions": record.map(|record| {
                    vec![self.published(RecordKind::Tenant, &record.uid, &record.revision)]
                }),
            });
            value
        };
        self.objects.tenants.iter().map(one).collect()
    }

    /// Conferences.
    pub(crate) fn conferences(&self) -> Vec<Value> {
        let mut records: Vec<&ConferenceRecord> = self.plan.conferences.values().collect();
        records.sort_by_key(|record| (&record.namespace, &record.name));
        records
            .into_iter()
            .map(|record| self.conference(record))
            .collect()
    }

    fn conference(&self, record: &ConferenceRecord) -> Value {
        let state = self
            .said
            .live
            .conferences
            .get(&record.uid)
            .cloned()
            .unwrap_or_default();
        let name = Name::new(&*record.namespace, &*record.name);
        let mut value = self.declared("Conference", &name);
        let declared = self.objects.conferences.get(&name);
        let class = declared.and_then(|conference| conference.spec.class_name.clone());
        let active = state.phase() == Phase::Active;
        value["status"] = json!({
            "phase": phase(&state),
            "tenant": record.tenant,
            "roomId": record.room_id,
            "joinURL": format!("{}/c/{}", self.said.url, record.room_id),
            "opened": state.opened,
            "participants": state.participants,
            "peakParticipants": state.peak_participants,
            "class": class.map(|name| json!({ "name": name })),
            "assignment": (!state.node_id.is_empty()).then(|| json!({
                "pool": record.pool,
                "epoch": state.epoch,
                "nodes": [{ "name": self.node_name(&state.node_id) }],
            })),
            "conditions": [
                self.published(RecordKind::Conference, &record.uid, &record.revision),
                {
                    "type": "Active",
                    "status": if active { "True" } else { "False" },
                    "reason": if state.opened { "Opened" } else { "NobodyPresent" },
                    "message": state_text(&state),
                },
            ],
        });
        value
    }

    /// Pools.
    pub(crate) fn pools(&self) -> Vec<Value> {
        let one = |(name, pool): (&Name, &plenum_api::MediaPool)| {
            let of_pool: Vec<(&String, &Process)> = self
                .said
                .processes
                .iter()
                .filter(|(_, process)| process.pool == *name)
                .collect();
            let states: Vec<&NodeState> = of_pool
                .iter()
                .filter_map(|(uid, _)| self.said.live.nodes.get(*uid))
                .collect();
            let count =
                |with: fn(&NodeState) -> bool| states.iter().filter(|state| with(state)).count();
            let sum = |of: fn(&NodeState) -> u32| {
                states.iter().map(|state| u64::from(of(state))).sum::<u64>()
            };
            let mut value = self.declared("MediaPool", name);
            value["status"] = json!({
                "replicas": of_pool.len(),
                "desiredReplicas": operator_core::plan::nodes_of(&pool.spec),
                "readyReplicas": count(|state| state.registered),
                "acceptingReplicas": count(|state| state.registered && state.accepting),
                "drainingReplicas": of_pool.iter().filter(|(_, process)| process.drained || process.leaving).count(),
                "used": { "rooms": sum(|state| state.rooms), "participants": sum(|state| state.participants) },
            });
            value
        };
        self.objects.pools.iter().map(one).collect()
    }

    /// Nodes.
    pub(crate) fn nodes(&self) -> Vec<Value> {
        let mut processes: Vec<(&String, &Process)> = self.said.processes.iter().collect();
        processes.sort_by_key(|(_, process)| (&process.pool, process.name.len(), &process.name));
        processes
            .into_iter()
            .map(|(uid, process)| self.node(uid, process, self.plan.nodes.get(uid)))
            .collect()
    }

    fn node(&self, uid: &str, process: &Process, record: Option<&NodeRecord>) -> Value {
        let state = self.said.live.nodes.get(uid).cloned().unwrap_or_default();
        let truth = |holds: bool| if holds { "True" } else { "False" };
        let addresses: Vec<Value> = record
            .map(|record| &record.addresses)
            .into_iter()
            .flatten()
            .map(|(ip, port)| {
                json!({ "family": if ip.is_ipv4() { "IPv4" } else { "IPv6" }, "address": ip, "port": port })
            })
            .collect();
        json!({
            "apiVersion": names::API_VERSION,
            "kind": "MediaNode",
            "metadata": {
                "name": process.name,
                "namespace": process.pool.namespace,
                "uid": uid,
                "labels": { names::LABEL_POOL: process.pool.name },
            },
            "spec": {
                "poolRef": { "name": process.pool.name },
                "unschedulable": process.drained,
            },
            "status": {
                "nodeId": node_id(&process.pool.name, uid),
                "site": record.map(|record| record.site.clone()),
                "epoch": record.map(|record| record.epoch),
                "grpcEndpoint": record.map(|record| record.grpc_endpoint.clone()),
                "addresses": addresses,
                "load": {
                    "rooms": state.rooms,
                    "participants": state.participants,
                    "egressMbps": state.egress_bps / 1_000_000,
                },
                "process": { "pid": process.pid, "starts": process.starts },
                "drain": process.drain,
                "conditions": [
                    { "type": "Ready", "status": truth(state.registered),
                      "reason": if state.registered { "Reconciled" } else { "NodeNotRegistered" } },
                    { "type": "Accepting", "status": truth(state.registered && state.accepting),
                      "reason": if process.drained || process.leaving { "Draining" } else { "Reconciled" } },
                    { "type": "Drained",
                      "status": truth((process.drained || process.leaving) && state.rooms == 0),
                      "reason": if state.rooms == 0 { "Empty" } else { "RoomsActive" } },
                ],
            },
        })
    }

    /// Replicas of the control plane.
    pub(crate) fn replicas(&self) -> Vec<Value> {
        let truth = |holds: bool| if holds { "True" } else { "False" };
        let one = |replica: &ReplicaProcess| {
            let reason = match (replica.pid, replica.serving, replica.snapshot_applied) {
                (None, ..) => "NotRunning",
                (_, false, _) => "NotServing",
                (_, _, false) => "RecordsMissing",
                _ if replica.ready => "Reconciled",
                _ => "NotReporting",
            };
            json!({
                "apiVersion": names::API_VERSION,
                "kind": "ControlPlaneReplica",
                "metadata": { "name": replica.name },
                "status": {
                    "replicaId": replica.id,
                    "url": self.said.url,
                    "http": replica.http,
                    "grpc": replica.grpc,
                    "records": replica.records,
                    "nodes": replica.nodes,
                    "process": { "pid": replica.pid, "starts": replica.starts },
                    "conditions": [{ "type": "Ready", "status": truth(replica.ready), "reason": reason }],
                },
            })
        };
        self.said.replicas.iter().map(one).collect()
    }

    /// How one gets into the conferences.
    pub(crate) fn access(&self) -> Vec<Access> {
        let one = |record: &ConferenceRecord| {
            let state = self
                .said
                .live
                .conferences
                .get(&record.uid)
                .cloned()
                .unwrap_or_default();
            let link = format!("{}/c/{}", self.said.url, record.room_id);
            let keys = self
                .said
                .opener_keys
                .get(&Name::new(&*record.namespace, &*record.name));
            Access {
                namespace: record.namespace.clone(),
                name: record.name.clone(),
                tenant: record.tenant.clone(),
                display_name: record.display_name.clone(),
                room_name: record.room_name.clone(),
                room_id: record.room_id.clone(),
                state: phase(&state).to_owned(),
                state_text: state_text(&state),
                guest_link: format!("{link}#p={}", fragment(&record.password.0)),
                opener_links: keys
                    .into_iter()
                    .flatten()
                    .map(|key| format!("{link}#k={}", fragment(key)))
                    .collect(),
                password: record.password.0.clone(),
            }
        };
        let mut all: Vec<Access> = self.plan.conferences.values().map(one).collect();
        all.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        all
    }

    /// Tenants whose backends may open rooms that are no object.
    pub(crate) fn sdk(&self) -> Vec<SdkAccess> {
        use plenum_api::tenant::AdHocRooms;
        let url = self.said.url.replacen("http", "ws", 1);
        let tenants = self.plan.tenants.values();
        let open = tenants
            .filter(|record| record.ad_hoc != AdHocRooms::Forbidden && !record.api_keys.is_empty());
        open.map(|record| SdkAccess {
            tenant: record.name.clone(),
            url: url.clone(),
            api_keys: record.api_keys.iter().map(|key| key.key.clone()).collect(),
            opens: match record.ad_hoc {
                AdHocRooms::OnJoin => "rooms open on join",
                AdHocRooms::OnCreate | AdHocRooms::Forbidden => "rooms open by CreateRoom",
            },
        })
        .collect()
    }
}

/// Text of a secret as the fragment of a link (RFC 3986 §3.5).
fn fragment(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn phase(state: &ConferenceState) -> &'static str {
    match state.phase() {
        Phase::Unspecified => "Pending",
        Phase::Scheduled => "Scheduled",
        Phase::Open => "Open",
        Phase::Active => "Active",
        Phase::Ended => "Ended",
        Phase::Suspended => "Suspended",
    }
}

fn state_text(state: &ConferenceState) -> String {
    match (state.phase(), state.opened) {
        (Phase::Unspecified, _) => "the control plane has not reported it yet".to_owned(),
        (Phase::Scheduled, _) => "its time has not come yet".to_owned(),
        (Phase::Open, false) => "waits for somebody with the opener link".to_owned(),
        (Phase::Open, true) => "opened, nobody is in".to_owned(),
        (Phase::Active, false) => format!("{} wait for an opener", state.participants),
        (Phase::Active, true) => format!("opened, {} in", state.participants),
        (Phase::Ended, _) => "it is over".to_owned(),
        (Phase::Suspended, _) => "suspended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_links_are_escaped() {
        assert_eq!(fragment("badu-kelo_1"), "badu-kelo_1");
        assert_eq!(fragment("a b#ü"), "a%20b%23%C3%BC");
    }
}

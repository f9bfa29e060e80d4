// SPDX-License-Identifier: EUPL-1.2
//! `kubectl plenum status`: what there is, and what hinders it. Reading is apart from judging and printing, which are pure.

mod hindrance;
mod text;

use std::{collections::BTreeMap, process::ExitCode};

use plenum_api::KINDS;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Cluster, ClusterError, Listed,
    args::{Status as Options, StatusForm},
};
pub(crate) use hindrance::{Hindrance, condition, hindrances};

/// Label on everything the chart and the operator make.
pub(crate) const PART_OF: &str = "app.kubernetes.io/part-of=plenum";

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Address of the API server.
    pub(crate) server: String,
    /// Its version.
    pub(crate) version: Option<String>,
    /// Objects by kind; a kind that the cluster lacks has no entry.
    pub(crate) objects: BTreeMap<&'static str, Listed>,
    /// Deployments of the installation.
    pub(crate) deployments: Vec<Value>,
    /// What could not be read.
    pub(crate) notes: Vec<String>,
}

/// One object as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    /// Namespace, where the kind has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    /// Name.
    pub(crate) name: String,
    /// Cells by heading, in the order of the table.
    #[serde(flatten)]
    pub(crate) cells: Cells,
    /// What hinders it, the worst first.
    pub(crate) hindrances: Vec<Hindrance>,
}

/// Cells by heading.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cells(pub(crate) Vec<(&'static str, &'static str, Value)>);

impl Serialize for Cells {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(_, member, value)| (member, value)))
    }
}

/// The objects of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Section {
    /// Kind.
    pub(crate) kind: String,
    /// How many there are; one more than shown in `objects` means that reading stopped at a bound.
    pub(crate) count: usize,
    /// How many are hindered.
    pub(crate) hindered: usize,
    /// More objects exist than were read.
    pub(crate) cut: bool,
    /// The objects, hindered ones first.
    pub(crate) objects: Vec<Row>,
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// Address of the API server.
    pub(crate) server: String,
    /// Its version.
    pub(crate) kubernetes: Option<String>,
    /// Version of this program.
    pub(crate) plenum: String,
    /// Deployments of the installation.
    pub(crate) parts: Vec<Row>,
    /// Kinds by the name of their list: `pools`, `nodes`, `tenants`, `conferences`, and so on.
    #[serde(flatten)]
    pub(crate) sections: Sections,
    /// What could not be read.
    pub(crate) notes: Vec<String>,
}

/// Sections, each a member of its own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sections(pub(crate) Vec<(&'static str, Section)>);

impl Serialize for Sections {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, section)| (name, section)))
    }
}

/// Kinds in the order in which somebody who searches a fault looks at them, and their member in JSON.
const SECTIONS: &[(&str, &str)] = &[
    ("MediaPool", "pools"),
    ("MediaNode", "nodes"),
    ("Tenant", "tenants"),
    ("ConferenceClass", "classes"),
    ("MaintenanceWindow", "windows"),
    ("Conference", "conferences"),
];

/// Reads and prints.
pub(crate) async fn run(cluster: &Cluster, options: &Options) -> Result<ExitCode, ClusterError> {
    let facts = fetch(cluster).await?;
    let report = judge(&facts);
    match options.output {
        StatusForm::Text => say!("{}", text::render(&report, options.all)),
        StatusForm::Json => sayln!("{:#}", json!(report)),
        StatusForm::Yaml => match serde_saphyr::to_string(&json!(report)) {
            Ok(yaml) => say!("{yaml}"),
            Err(error) => {
                return Err(ClusterError::Unknown {
                    server: facts.server,
                    why: error.to_string(),
                });
            }
        },
    }
    Ok(ExitCode::SUCCESS)
}

/// The tables with every object.
pub(crate) fn shown(facts: &Facts) -> String {
    text::render(&judge(facts), true)
}

/// Reads everything that a status shows. A kind that may not be read is a note; that none is there is an error.
pub(crate) async fn fetch(cluster: &Cluster) -> Result<Facts, ClusterError> {
    let mut facts = Facts {
        server: cluster.server.clone(),
        ..Facts::default()
    };
    // First and alone: whoever cannot reach the cluster is told so once.
    let version = cluster.get("the version", "/version").await;
    match version {
        Ok(version) => {
            facts.version = version["gitVersion"].as_str().map(str::to_owned);
        }
        Err(ClusterError::Forbidden(_)) => {}
        Err(error) => return Err(error),
    }
    let mut forbidden = None;
    for kind in KINDS {
        match cluster.objects(kind).await {
            Ok(listed) => {
                facts.objects.insert(kind, listed);
            }
            Err(ClusterError::NotFound(_)) => {}
            Err(ClusterError::Forbidden(message)) => {
                facts.notes.push(message.clone());
                forbidden = Some(message);
            }
            Err(error) => return Err(error),
        }
    }
    if facts.objects.is_empty() {
        return Err(match forbidden {
            Some(message) => ClusterError::Forbidden(message),
            None => ClusterError::NotInstalled(facts.server),
        });
    }
    let query = format!("&labelSelector={}", super::escaped(PART_OF));
    match cluster
        .list("Deployments", "/apis/apps/v1/deployments", &query, 100)
        .await
    {
        Ok(listed) => facts.deployments = listed.items,
        Err(ClusterError::Forbidden(message)) => facts.notes.push(message),
        Err(error) => return Err(error),
    }
    Ok(facts)
}

/// What the facts mean.
pub(crate) fn judge(facts: &Facts) -> Report {
    let mut sections = Vec::new();
    for (kind, member) in SECTIONS {
        let Some((_, listed)) = facts.objects.iter().find(|(name, _)| *name == kind) else {
            continue;
        };
        let mut objects: Vec<Row> = listed
            .items
            .iter()
            .map(|object| row(kind, object))
            .collect();
        objects.sort_by_key(|row| (row.hindrances.is_empty(), order(row)));
        sections.push((
            *member,
            Section {
                kind: (*kind).to_owned(),
                count: objects.len(),
                hindered: objects
                    .iter()
                    .filter(|row| !row.hindrances.is_empty())
                    .count(),
                cut: listed.cut,
                objects,
            },
        ));
    }
    Report {
        server: facts.server.clone(),
        kubernetes: facts.version.clone(),
        plenum: env!("CARGO_PKG_VERSION").to_owned(),
        parts: facts.deployments.iter().map(deployment).collect(),
        sections: Sections(sections),
        notes: facts.notes.clone(),
    }
}

fn order(row: &Row) -> (Option<String>, String) {
    (row.namespace.clone(), row.name.clone())
}

/// Cells of a kind: heading, member in JSON, where the value stands. A pointer that begins with `?` names a condition.
fn columns(kind: &str) -> &'static [(&'static str, &'static str, &'static str)] {
    match kind {
        "MediaPool" => &[
            ("DESIRED", "desired", "/status/desiredReplicas"),
            ("READY", "ready", "/status/readyReplicas"),
            ("ACCEPTING", "accepting", "/status/acceptingReplicas"),
            ("DRAINING", "draining", "/status/drainingReplicas"),
            ("UPDATED", "updated", "/status/updatedReplicas"),
            ("ROOMS", "rooms", "/status/used/rooms"),
            ("PEOPLE", "participants", "/status/used/participants"),
        ],
        "MediaNode" => &[
            ("POOL", "pool", "/spec/poolRef/name"),
            ("MACHINE", "machine", "/status/nodeName"),
            ("READY", "ready", "?Ready"),
            ("ACCEPTING", "accepting", "?Accepting"),
            ("DRAIN", "drain", "/status/drain/phase"),
            ("ROOMS", "rooms", "/status/load/rooms"),
            ("PEOPLE", "participants", "/status/load/participants"),
        ],
        "Tenant" => &[
            ("IN", "tenantNamespace", "/status/namespace"),
            ("READY", "ready", "?Ready"),
            ("PUBLISHED", "published", "?Published"),
            ("CONFERENCES", "conferences", "/status/conferences"),
            ("ROOMS", "rooms", "/status/usage/rooms"),
            ("PEOPLE", "participants", "/status/usage/participants"),
        ],
        "ConferenceClass" => &[
            ("READY", "ready", "?Ready"),
            ("PUBLISHED", "published", "?Published"),
            ("REVISION", "revision", "/status/revision"),
        ],
        "MaintenanceWindow" => &[
            ("ACTION", "action", "/spec/action"),
            ("PHASE", "phase", "/status/phase"),
            ("NEXT", "next", "/status/next/start"),
            ("READY", "ready", "?Ready"),
        ],
        _ => &[
            ("PHASE", "phase", "/status/phase"),
            ("READY", "ready", "?Ready"),
            ("PUBLISHED", "published", "?Published"),
            ("OPENS", "opensAt", "/status/window/opensAt"),
            ("NODE", "node", "/status/assignment/nodes/0/name"),
        ],
    }
}

fn row(kind: &str, object: &Value) -> Row {
    let cells = columns(kind)
        .iter()
        .map(|(heading, member, pointer)| {
            let value = match pointer.strip_prefix('?') {
                Some(wanted) => condition(object, wanted).map(|found| found["status"].clone()),
                None => object.pointer(pointer).cloned(),
            };
            (*heading, *member, value.unwrap_or(Value::Null))
        })
        .collect();
    Row {
        namespace: object
            .pointer("/metadata/namespace")
            .and_then(Value::as_str)
            .map(str::to_owned),
        name: super::text(object, "/metadata/name").to_owned(),
        cells: Cells(cells),
        hindrances: hindrances(object),
    }
}

fn deployment(object: &Value) -> Row {
    let number = |pointer: &str| object.pointer(pointer).cloned().unwrap_or(json!(0));
    let wanted = object
        .pointer("/spec/replicas")
        .cloned()
        .unwrap_or(json!(1));
    let ready = number("/status/readyReplicas");
    let image = super::text(object, "/spec/template/spec/containers/0/image").to_owned();
    let mut hindrances = Vec::new();
    if ready.as_u64() < wanted.as_u64() {
        hindrances.push(Hindrance {
            condition: "Available".to_owned(),
            status: "False".to_owned(),
            reason: "ReplicasMissing".to_owned(),
            message: format!("{ready} of {wanted} replicas are ready"),
        });
    }
    Row {
        namespace: Some(super::text(object, "/metadata/namespace").to_owned()),
        name: super::text(object, "/metadata/name").to_owned(),
        cells: Cells(vec![
            ("REPLICAS", "replicas", wanted),
            ("READY", "ready", ready),
            ("UPDATED", "updated", number("/status/updatedReplicas")),
            ("IMAGE", "image", json!(image)),
        ]),
        hindrances,
    }
}

#[cfg(test)]
mod tests;

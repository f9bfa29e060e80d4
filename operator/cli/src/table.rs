// SPDX-License-Identifier: EUPL-1.2
//! Tables as kubectl prints them: columns in capitals, three blanks between, no lines.

use serde_json::Value;

use crate::args::Kind;

/// A column: heading, where its value stands, and whether it is for `-o wide` only.
struct Column {
    heading: &'static str,
    pointer: &'static str,
    wide: bool,
}

const fn column(heading: &'static str, pointer: &'static str) -> Column {
    Column {
        heading,
        pointer,
        wide: false,
    }
}

const fn wide(heading: &'static str, pointer: &'static str) -> Column {
    Column {
        heading,
        pointer,
        wide: true,
    }
}

/// A pointer that begins with `?` names a condition; its status is shown.
const TENANTS: &[Column] = &[
    column("NAME", "/metadata/name"),
    column("NAMESPACE", "/status/namespace"),
    column("CONFERENCES", "/status/conferences"),
    column("ADHOC", "/spec/adHoc/rooms"),
    column("ROOMS", "/status/usage/rooms"),
    column("PARTICIPANTS", "/status/usage/participants"),
    column("PUBLISHED", "?Published"),
    wide("ISOLATION", "/spec/isolation"),
    wide("SUSPENDED", "/spec/suspended"),
    wide("DISPLAY NAME", "/spec/displayName"),
];

const CONFERENCES: &[Column] = &[
    column("NAMESPACE", "/metadata/namespace"),
    column("NAME", "/metadata/name"),
    column("PHASE", "/status/phase"),
    column("OPENED", "/status/opened"),
    column("PARTICIPANTS", "/status/participants"),
    column("NODE", "/status/assignment/nodes/0/name"),
    column("PUBLISHED", "?Published"),
    wide("PEAK", "/status/peakParticipants"),
    wide("CLASS", "/status/class/name"),
    wide("LINK", "/status/joinURL"),
];

const POOLS: &[Column] = &[
    column("NAMESPACE", "/metadata/namespace"),
    column("NAME", "/metadata/name"),
    column("DESIRED", "/status/desiredReplicas"),
    column("READY", "/status/readyReplicas"),
    column("ACCEPTING", "/status/acceptingReplicas"),
    column("DRAINING", "/status/drainingReplicas"),
    column("ROOMS", "/status/used/rooms"),
    column("PARTICIPANTS", "/status/used/participants"),
    wide("NETWORK", "/spec/network/type"),
    wide("MUX", "/spec/network/mux"),
];

const NODES: &[Column] = &[
    column("NAME", "/metadata/name"),
    column("POOL", "/spec/poolRef/name"),
    column("READY", "?Ready"),
    column("ACCEPTING", "?Accepting"),
    column("DRAINED", "?Drained"),
    column("ROOMS", "/status/load/rooms"),
    column("PARTICIPANTS", "/status/load/participants"),
    column("STARTS", "/status/process/starts"),
    wide("PID", "/status/process/pid"),
    wide("MBIT/S", "/status/load/egressMbps"),
    wide("ADDRESS", "/status/addresses/0/address"),
    wide("PORT", "/status/addresses/0/port"),
    wide("ID", "/status/nodeId"),
];

const REPLICAS: &[Column] = &[
    column("NAME", "/metadata/name"),
    column("ID", "/status/replicaId"),
    column("READY", "?Ready"),
    column("NODES", "/status/nodes"),
    column("STARTS", "/status/process/starts"),
    column("HTTP", "/status/http"),
    wide("PID", "/status/process/pid"),
    wide("GRPC", "/status/grpc"),
    wide("RECORDS", "/status/records"),
];

/// Objects of a kind as a table.
pub(crate) fn render(kind: Kind, objects: &[Value], with_wide: bool) -> String {
    let columns = match kind {
        Kind::Tenants => TENANTS,
        Kind::Conferences => CONFERENCES,
        Kind::Pools => POOLS,
        Kind::Nodes => NODES,
        Kind::Replicas => REPLICAS,
    };
    let columns: Vec<&Column> = columns
        .iter()
        .filter(|column| with_wide || !column.wide)
        .collect();
    let mut rows: Vec<Vec<String>> = vec![
        columns
            .iter()
            .map(|column| column.heading.to_owned())
            .collect(),
    ];
    rows.extend(objects.iter().map(|object| {
        columns
            .iter()
            .map(|column| cell(object, column.pointer))
            .collect()
    }));
    align(&rows)
}

fn cell(object: &Value, pointer: &str) -> String {
    let found = match pointer.strip_prefix('?') {
        Some(wanted) => object
            .pointer("/status/conditions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == wanted)
            .and_then(|condition| condition.get("status")),
        None => object.pointer(pointer),
    };
    match found {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Rows with every column as wide as its widest cell.
pub(crate) fn align(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        rows.iter()
            .filter_map(|row| row.get(at))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width - cell.chars().count() + 3));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up_and_absent_values_are_a_dash() {
        let nodes = [
            json!({ "metadata": { "name": "local-0" }, "spec": { "poolRef": { "name": "local" } },
                "status": { "load": { "rooms": 3, "participants": 12 }, "process": { "starts": 1 },
                "conditions": [{ "type": "Ready", "status": "True" }] } }),
            json!({ "metadata": { "name": "a-long-name-1" } }),
        ];
        let table = render(Kind::Nodes, &nodes, false);
        assert_eq!(
            table,
            "NAME            POOL    READY   ACCEPTING   DRAINED   ROOMS   PARTICIPANTS   STARTS\n\
             local-0         local   True    -           -         3       12             1\n\
             a-long-name-1   -       -       -           -         -       -              -\n"
        );
        assert!(
            render(Kind::Nodes, &nodes, true)
                .starts_with("NAME            POOL    READY   ACCEPTING")
        );
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! A status as tables.

use serde_json::Value;

use super::{Report, Row, Section};
use crate::table::align;

/// Rows of one table; `--all` shows the rest.
const ROWS_MAX: usize = 25;
/// Characters of a reason and message; a table that wraps is none.
const WHY_CHARS_MAX: usize = 160;

/// The status for people.
pub(super) fn render(report: &Report, all: bool) -> String {
    let mut text = format!(
        "Plenum on {} (Kubernetes {}, this program {})\n",
        report.server,
        report.kubernetes.as_deref().unwrap_or("unknown"),
        report.plenum,
    );
    if report.parts.is_empty() {
        text.push_str(
            "\nNo Deployment of Plenum is visible: is the chart installed, and may you see its namespace?\n",
        );
    } else {
        text.push_str("\nPARTS\n");
        text.push_str(&table(&report.parts, usize::MAX));
    }
    for (_, section) in &report.sections.0 {
        text.push('\n');
        text.push_str(&heading(section));
        text.push('\n');
        if !section.objects.is_empty() {
            let shown = if all { usize::MAX } else { ROWS_MAX };
            text.push_str(&table(&section.objects, shown));
            let left = section.objects.len().saturating_sub(shown);
            if left > 0 {
                text.push_str(&format!("… and {left} more; --all shows them\n"));
            }
        }
    }
    if !report.notes.is_empty() {
        text.push_str("\nNOT READ\n");
        for note in &report.notes {
            text.push_str(&format!("{note}\n"));
        }
    }
    text
}

fn heading(section: &Section) -> String {
    let name = match section.kind.as_str() {
        "MediaPool" => "POOLS",
        "MediaNode" => "NODES",
        "Tenant" => "TENANTS",
        "ConferenceClass" => "CLASSES",
        "MaintenanceWindow" => "WINDOWS",
        _ => "CONFERENCES",
    };
    let more = if section.cut { " or more" } else { "" };
    match (section.count, section.hindered) {
        (0, _) => format!("{name}: none"),
        (count, 0) => format!("{name}: {count}{more}"),
        (count, hindered) => format!("{name}: {count}{more}, {hindered} hindered"),
    }
}

fn table(rows: &[Row], max: usize) -> String {
    let Some(first) = rows.first() else {
        return String::new();
    };
    let namespaced = rows.iter().any(|row| row.namespace.is_some());
    let hindered = rows.iter().any(|row| !row.hindrances.is_empty());
    let mut head = Vec::new();
    if namespaced {
        head.push("NAMESPACE".to_owned());
    }
    head.push("NAME".to_owned());
    head.extend(
        first
            .cells
            .0
            .iter()
            .map(|(heading, ..)| (*heading).to_owned()),
    );
    if hindered {
        head.push("WHY".to_owned());
    }
    let mut lines = vec![head];
    for row in rows.iter().take(max) {
        let mut line = Vec::new();
        if namespaced {
            line.push(row.namespace.clone().unwrap_or_else(|| "-".to_owned()));
        }
        line.push(row.name.clone());
        line.extend(row.cells.0.iter().map(|(_, _, value)| cell(value)));
        if hindered {
            line.push(why(row));
        }
        lines.push(line);
    }
    align(&lines)
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn why(row: &Row) -> String {
    let Some(first) = row.hindrances.first() else {
        return "-".to_owned();
    };
    // A message comes from whoever writes the status: it is shown in one line and cannot steer a terminal.
    let message: String = first
        .message
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect();
    let mut text = match (first.reason.as_str(), message.as_str()) {
        ("", message) => message.to_owned(),
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    };
    if let Some((cut, _)) = text.char_indices().nth(WHY_CHARS_MAX) {
        text.truncate(cut);
        text.push('…');
    }
    match row.hindrances.len() {
        1 => text,
        more => format!("{text} (+{})", more - 1),
    }
}

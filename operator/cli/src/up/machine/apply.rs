// SPDX-License-Identifier: EUPL-1.2
//! Changed files: judged as a whole, then applied as a difference, or not at all.

use std::collections::BTreeSet;

use operator_core::{
    AbsentOpenerKeys, Diff, Name, Plan, Record, RecordKind, diff, validate, wants,
};
use tracing::warn;

use super::Machine;
use crate::validate::{Checked, check, manifests_of};

impl Machine {
    /// Reads everything again.
    pub(super) async fn files_changed(&mut self) {
        let read = manifests_of(&self.options.paths)
            .and_then(|files| Ok((check(&files, Some(&self.checked.values))?, files.len())));
        let (checked, files) = match read {
            Ok(read) => read,
            Err(error) => return self.failed(error),
        };
        if checked.content == self.checked.content {
            if self.rejected.take().is_some() | self.failure.take().is_some() {
                self.reporter.applied(
                    &["the manifests are again as they are in effect".to_owned()],
                    &[],
                );
            }
            return;
        }
        if self.rejected == Some(checked.content) {
            return;
        }
        if !checked.report.findings.is_empty() {
            self.rejected = Some(checked.content);
            self.note(
                "manifests",
                "Rejected",
                format!("{} errors", checked.report.findings.len()),
            );
            return self
                .reporter
                .rejected(&checked.report, files, "nothing was changed");
        }
        self.rejected = None;
        if let Err(error) = self.options.judge(&checked.objects) {
            return self.failed(error.to_string());
        }
        self.apply(checked).await;
    }

    /// Tells of a failure, once until another or none follows.
    fn failed(&mut self, message: String) {
        if self.failure.as_ref() != Some(&message) {
            self.reporter.failed(&message);
            self.failure = Some(message);
        }
    }

    async fn apply(&mut self, checked: Checked) {
        // Everything that can fail comes first: nothing is half applied.
        let Ok(valid) = validate(&checked.objects, AbsentOpenerKeys::AreGenerated) else {
            return;
        };
        let wants = wants(&valid);
        if let Err(error) = self.ports(&wants.nodes) {
            return self.failed(error.to_string());
        }
        let generated = match self.secrets.generate(&self.dir, &wants) {
            Ok(generated) => generated,
            Err(error) => return self.failed(error.to_string()),
        };
        let before: BTreeSet<Name> = self.checked.objects.conferences.keys().cloned().collect();
        let old = std::sync::Arc::clone(&self.plan);
        drop(valid);
        (self.checked, self.generated, self.wants) = (checked, generated, wants);
        self.tell_notes();
        let mut changes = self.send_away().await;
        changes.extend(self.call_back().await);
        match self.start_nodes() {
            Ok(did) => changes.extend(did),
            // The records are applied all the same: the nodes that run suffice for them.
            Err(error) => warn!("{error:#}"),
        }
        self.publish().await;
        changes.extend(describe(&diff(&old, &self.plan), &old));
        if changes.is_empty() {
            changes.push("nothing that has an effect".to_owned());
        }
        self.failure = None;
        self.note("manifests", "Applied", changes.join("; "));
        let said = self.said();
        let mut added = self.view(&said).access();
        added.retain(|access| !before.contains(&Name::new(&*access.namespace, &*access.name)));
        self.reporter.applied(&changes, &added);
    }

    /// Nodes that are no longer wanted take no more rooms, and go once they are empty or out of time.
    async fn send_away(&mut self) -> Vec<String> {
        let mut did = Vec::new();
        for uid in self.nodes_where(|wanted, goes| !wanted && !goes) {
            self.empty(&uid, None, true, "ScaleDown").await;
            let node = self.nodes.get(&uid);
            did.extend(node.map(|node| format!("node {} goes when it is empty", node.wanted.name)));
        }
        did
    }

    /// Nodes on their way out that are wanted again take rooms again.
    async fn call_back(&mut self) -> Vec<String> {
        let mut did = Vec::new();
        for uid in self.nodes_where(|wanted, goes| wanted && goes) {
            self.stop_emptying(&uid, "ScaleUp").await;
            let node = self.nodes.get(&uid);
            did.extend(node.map(|node| format!("node {} stays", node.wanted.name)));
        }
        did
    }

    /// Nodes by whether they are wanted, and whether they are on their way out.
    fn nodes_where(&self, holds: impl Fn(bool, bool) -> bool) -> Vec<String> {
        let wanted: BTreeSet<&String> = self.wants.nodes.iter().map(|node| &node.uid).collect();
        self.nodes
            .iter()
            .filter(|(uid, node)| holds(wanted.contains(uid), node.goes()))
            .map(|(uid, _)| uid.clone())
            .collect()
    }
}

/// A difference for people.
fn describe(diff: &Diff<'_>, old: &Plan) -> Vec<String> {
    let mut said = Vec::new();
    for record in &diff.publish {
        match record {
            Record::Tenant(record) => {
                said.push(format!(
                    "Tenant {} {}",
                    record.name,
                    verb(old.tenants.contains_key(&record.uid))
                ));
            }
            Record::Conference(record) => {
                let verb = verb(old.conferences.contains_key(&record.uid));
                said.push(format!(
                    "Conference {}/{} {verb}",
                    record.namespace, record.name
                ));
            }
            // What happens to nodes is told where it is done.
            Record::Node(_) => {}
        }
    }
    for (kind, uid) in &diff.retract {
        match kind {
            RecordKind::Tenant => {
                said.extend(
                    old.tenants
                        .get(uid)
                        .map(|record| format!("Tenant {} removed", record.name)),
                );
            }
            RecordKind::Conference => {
                let record = old.conferences.get(uid);
                said.extend(record.map(|record| {
                    format!("Conference {}/{} removed", record.namespace, record.name)
                }));
            }
            RecordKind::Node => {}
        }
    }
    said
}

fn verb(known: bool) -> &'static str {
    if known { "changed" } else { "added" }
}

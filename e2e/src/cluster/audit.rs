// SPDX-License-Identifier: EUPL-1.2
//! What the API server was asked, by whom, and what it answered.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// Everything is logged once it is answered, writes of Plenum's own kinds with what was sent.
pub(crate) const POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1",
  "kind": "Policy",
  "omitStages": ["RequestReceived", "ResponseStarted"],
  "rules": [
    { "level": "Request", "verbs": ["create", "update", "patch", "delete"], "resources": [{ "group": "plenum.dev" }] },
    { "level": "Metadata" }
  ]
}"#;

/// A request that was answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, …
    pub verb: String,
    /// Path and query.
    #[serde(rename = "requestURI")]
    pub uri: String,
    /// Who asked.
    pub user: AuditUser,
    /// The program that asked, as it calls itself.
    #[serde(default)]
    pub user_agent: String,
    /// What it was about; `None` for requests that are about no resource.
    pub object_ref: Option<AuditObject>,
    /// The answer.
    pub response_status: Option<AuditStatus>,
    /// What was sent, for writes of Plenum's kinds.
    #[serde(default)]
    pub request_object: Value,
    /// When it arrived, RFC 3339.
    pub request_received_timestamp: String,
}

/// Who asked.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct AuditUser {
    /// Name.
    #[serde(default)]
    pub username: String,
    /// What else is known: of a ServiceAccount, its pod.
    #[serde(default)]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What a request was about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuditObject {
    /// Plural.
    pub resource: String,
    /// Group; empty for the core.
    pub api_group: String,
    /// Namespace; empty for cluster scope.
    pub namespace: String,
    /// Name; empty for lists.
    pub name: String,
    /// `status`, `scale`, … or empty.
    pub subresource: String,
}

/// How a request was answered.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AuditStatus {
    /// HTTP status.
    pub code: u16,
    /// Why not.
    pub message: String,
}

impl AuditEntry {
    /// Would it change something?
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// HTTP status of the answer; 0 while there is none.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.response_status
            .as_ref()
            .map_or(0, |status| status.code)
    }

    /// The resource's plural; empty when the request was about none.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.object_ref
            .as_ref()
            .map_or("", |object| &object.resource)
    }
}

/// All entries of a log; a last line that is still being written is left out.
pub(crate) fn read(log: &Path) -> Result<Vec<AuditEntry>> {
    let text = std::fs::read_to_string(log)
        .with_context(|| format!("the audit log {} is read", log.display()))?;
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("an audit entry: {line}")))
        .collect()
}

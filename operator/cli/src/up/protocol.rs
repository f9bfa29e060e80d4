// SPDX-License-Identifier: EUPL-1.2
//! What is spoken over the socket: one request and one answer per connection, each a line of JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::args::Kind;

/// Longest request.
pub(crate) const REQUEST_BYTES_MAX: u64 = 64 << 10;

/// A request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "camelCase")]
pub(crate) enum Request {
    /// Objects of a kind.
    List {
        /// Kind.
        kind: Kind,
        /// One of them.
        name: Option<String>,
    },
    /// One object with its links and events.
    Describe {
        /// Kind.
        kind: Kind,
        /// Which.
        name: String,
    },
    /// Empties a node, or lets it take rooms again.
    #[serde(rename_all = "camelCase")]
    Drain {
        /// Name of the node.
        node: String,
        /// How long rooms may go on.
        timeout_seconds: Option<u64>,
        /// Lets it take rooms again.
        undo: bool,
    },
    /// Begins a rolling restart.
    #[serde(rename_all = "camelCase")]
    Restart {
        /// `replicas`, `nodes`, or the name of one.
        what: String,
        /// How long rooms of a node may go on.
        timeout_seconds: Option<u64>,
    },
    /// How far it is.
    RestartState,
    /// Stops everything. The connection ends when all is gone.
    Down,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    /// As asked for.
    Done(Value),
    /// It cannot be done.
    Refused {
        /// Why.
        message: String,
        /// What to do.
        remedy: String,
    },
}

impl Answer {
    /// A refusal.
    pub(crate) fn refused(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Refused {
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

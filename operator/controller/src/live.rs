// SPDX-License-Identifier: EUPL-1.2
//! What the replicas of the control plane report, made one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use operator_core::RecordKind;
use plenum_proto::v1::{ConferenceState, NodeState, TenantState};

/// What the control plane said of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ack {
    /// Taken by every replica, at this revision.
    Taken {
        /// Revision.
        revision: String,
    },
    /// Refused by one.
    Refused {
        /// CamelCase reason.
        reason: String,
        /// For people.
        message: String,
    },
}

/// What is known of the control plane and from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Live {
    /// Nodes by uid of the `MediaNode`.
    pub nodes: BTreeMap<String, NodeState>,
    /// Conferences by uid.
    pub conferences: BTreeMap<String, ConferenceState>,
    /// Tenants by name.
    pub tenants: BTreeMap<String, TenantState>,
    /// What was said of records.
    pub acks: BTreeMap<(RecordKind, String), Ack>,
    /// Whether at least one replica reports and has all records.
    pub reachable: bool,
    /// Since when that is so; `None` before the first look.
    pub since: Option<Timestamp>,
    /// Replicas that report.
    pub replicas: usize,
}

impl Live {
    /// What was said of a record.
    #[must_use]
    pub fn ack(&self, kind: RecordKind, uid: &str) -> Option<&Ack> {
        self.acks.get(&(kind, uid.to_owned()))
    }

    /// Whether every replica has this revision of a record.
    #[must_use]
    pub fn has(&self, kind: RecordKind, uid: &str, wanted: &str) -> bool {
        matches!(self.ack(kind, uid), Some(Ack::Taken { revision }) if revision == wanted)
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! Who leads: at most one process of several, by one Lease that all of them write with the version they read.
//!
//! [`Elector`] decides and does no I/O; [`elect`] asks the API server. A lost race is a conflict, never a silent second win. Whether the
//! record of somebody else has run out is judged by how long it has not changed *here*, so that no clocks of two machines are compared.
//!
//! Writes to Kubernetes are begun only while the lease holds by this process's own clock ([`Fence`](crate::client::Fence)), so a leader
//! that was paused writes nothing of what it had in hand. One that is on its way when it is paused may still arrive late: reconcilers are
//! idempotent and begin from what is there, and the next reconcile puts it right. The publication to the control plane carries the
//! [`epoch`](Role::Leading), because there nothing would come after it.

mod elect;

pub use elect::{Election, ElectionError};

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};

/// How long a record holds that is not renewed.
pub const LEASE: Duration = Duration::from_secs(15);
/// After this long without a renewal the leader stops leading: earlier than anybody may take over.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often it is tried.
pub const RETRY: Duration = Duration::from_secs(2);

/// What this process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// Somebody else leads, or nobody.
    Following,
    /// This process leads.
    Leading {
        /// Grows with every change of the leader, from 1.
        epoch: u64,
    },
    /// The lease could not be renewed in time, and nobody else is known to have taken it: what only changes is stopped, what merely
    /// stands, such as a stream to the control plane, may stay. Who comes next has a higher epoch.
    Lapsed {
        /// The epoch it had.
        epoch: u64,
    },
}

/// What is to be asked of the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The Lease.
    Read,
    /// To create this one.
    Create(Box<Lease>),
    /// To replace what was read by this one; it carries the version that was read.
    Replace(Box<Lease>),
    /// Nothing, for now.
    Wait,
}

/// Decides. Moments are counted from the start of the process, on a clock that never goes back.
#[derive(Clone, Debug)]
pub struct Elector {
    namespace: String,
    name: String,
    identity: String,
    /// The Lease as it was seen last; `Some(None)`: there is none.
    seen: Option<Option<Lease>>,
    /// Since when the record of the holder has not changed.
    unchanged_since: Duration,
    /// When the last successful renewal of one's own was begun, and its epoch.
    renewed: Option<(Duration, u64)>,
    /// Whether the record may have changed since it was seen.
    stale: bool,
}

impl Elector {
    /// A candidate. No two processes have one identity.
    #[must_use]
    pub fn new(
        namespace: impl Into<String>,
        name: impl Into<String>,
        identity: impl Into<String>,
    ) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            seen: None,
            unchanged_since: Duration::ZERO,
            renewed: None,
            stale: true,
        }
    }

    /// What to do now. `wall` is what is written into the record for people; nothing is decided by it.
    #[must_use]
    pub fn next(&self, now: Duration, wall: Timestamp) -> Step {
        let seen = match &self.seen {
            Some(seen) if !self.stale => seen,
            _ => return Step::Read,
        };
        let Some(lease) = seen else {
            return Step::Create(Box::new(self.record(None, 0, wall)));
        };
        let transitions = transitions_of(lease);
        match holder_of(lease) {
            Some(holder) if holder == self.identity => {
                Step::Replace(Box::new(self.record(Some(lease), transitions, wall)))
            }
            Some(_) if now.saturating_sub(self.unchanged_since) < duration_of(lease) => Step::Wait,
            _ => Step::Replace(Box::new(self.record(
                Some(lease),
                transitions.saturating_add(1),
                wall,
            ))),
        }
    }

    /// The Lease was read; `None`: there is none.
    pub fn read(&mut self, lease: Option<Lease>, now: Duration) {
        let known = self.seen.as_ref().and_then(Option::as_ref);
        if self.seen.is_none() || known.map(record_of) != lease.as_ref().map(record_of) {
            self.unchanged_since = now;
        }
        let own = lease.as_ref().and_then(holder_of) == Some(&*self.identity);
        if !own {
            // Somebody took it, or gave it back in our name.
            self.renewed = None;
        }
        self.seen = Some(lease);
        self.stale = false;
    }

    /// A write went through; it was begun at `began`, and from then on it counts.
    pub fn wrote(&mut self, lease: Lease, began: Duration, now: Duration) {
        self.renewed = (holder_of(&lease) == Some(&*self.identity))
            .then(|| (began, u64::from(transitions_of(&lease).unsigned_abs()) + 1));
        self.unchanged_since = now;
        self.seen = Some(Some(lease));
        self.stale = false;
    }

    /// A write was refused because somebody else wrote, or nobody knows what came of it: what stands there has to be read.
    pub fn unsure(&mut self) {
        self.stale = true;
    }

    /// Whether the record names somebody else, as far as is known: then it is looked at again.
    pub fn look_again(&mut self) {
        let own = self
            .seen
            .as_ref()
            .and_then(Option::as_ref)
            .and_then(holder_of);
        if own != Some(&*self.identity) {
            self.stale = true;
        }
    }

    /// What this process is.
    #[must_use]
    pub fn role(&self, now: Duration) -> Role {
        match (self.renewed, &self.seen) {
            (Some((at, epoch)), _) if now.saturating_sub(at) < RENEW_DEADLINE => {
                Role::Leading { epoch }
            }
            (Some((_, epoch)), _) => Role::Lapsed { epoch },
            (None, Some(_)) => Role::Following,
            (None, None) => Role::Unknown,
        }
    }

    /// Until when this process leads if it cannot renew.
    #[must_use]
    pub fn leads_until(&self) -> Option<Duration> {
        self.renewed.map(|(at, _)| at + RENEW_DEADLINE)
    }

    /// How to give the lease back, so that the next one need not wait.
    #[must_use]
    pub fn release(&self, wall: Timestamp) -> Option<Lease> {
        self.renewed?;
        let lease = self.seen.as_ref()?.as_ref()?;
        let mut released = self.record(Some(lease), transitions_of(lease), wall);
        if let Some(spec) = &mut released.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
        }
        Some(released)
    }

    fn record(&self, old: Option<&Lease>, transitions: i32, wall: Timestamp) -> Lease {
        let old_spec = old.and_then(|lease| lease.spec.as_ref());
        let own = old.and_then(holder_of) == Some(&*self.identity);
        let acquired = old_spec
            .and_then(|spec| spec.acquire_time.clone())
            .filter(|_| own);
        Lease {
            metadata: old.map_or_else(
                || ObjectMeta {
                    name: Some(self.name.clone()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                },
                |lease| lease.metadata.clone(),
            ),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
                acquire_time: Some(acquired.unwrap_or(MicroTime(wall))),
                renew_time: Some(MicroTime(wall)),
                lease_transitions: Some(transitions),
                ..old_spec.cloned().unwrap_or_default()
            }),
        }
    }
}

/// What changes when somebody renews.
fn record_of(lease: &Lease) -> (Option<&str>, Option<&MicroTime>, i32, Option<&str>) {
    let renewed = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.renew_time.as_ref());
    (
        holder_of(lease),
        renewed,
        transitions_of(lease),
        lease.metadata.resource_version.as_deref(),
    )
}

fn holder_of(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref();
    holder.filter(|holder| !holder.is_empty())
}

fn transitions_of(lease: &Lease) -> i32 {
    let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
    transitions.unwrap_or_default().max(0)
}

/// How long the record holds, as its holder wrote it, within reason.
fn duration_of(lease: &Lease) -> Duration {
    let seconds = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.lease_duration_seconds);
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds
        .map_or(LEASE, Duration::from_secs)
        .clamp(LEASE, LEASE * 4)
}

#[cfg(test)]
mod tests;

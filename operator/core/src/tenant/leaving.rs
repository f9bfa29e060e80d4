// SPDX-License-Identifier: EUPL-1.2
//! How a tenant leaves: nobody is thrown out of a room unless the annotation says so, and nothing goes before the
//! control plane has closed the door.

use std::time::Duration;

use jiff::Timestamp;
use plenum_api::{Tenant, names, tenant::DeletionPolicy};

/// How long rooms that are closed by force may take, and how long a silent control plane is waited for then.
pub const FORCE_GRACE: Duration = Duration::from_secs(120);

/// What is known of a tenant that is being deleted.
#[derive(Clone, Copy, Debug)]
pub struct Farewell {
    /// Its rooms; `None` while the control plane is silent.
    pub rooms: Option<u32>,
    /// The control plane has taken the record that says that the tenant is leaving.
    pub closed: bool,
    /// Now.
    pub now: Timestamp,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Rooms are active, and nobody forces them out.
    WaitForRooms {
        /// How many.
        rooms: u32,
    },
    /// The control plane has not closed the door yet, or cannot be asked.
    WaitForControlPlane,
    /// Rooms are being closed by force, until then at the latest.
    Closing {
        /// The latest moment.
        until: Timestamp,
    },
    /// Take away access; then the namespace as the policy says; then the finalizer.
    Leave(DeletionPolicy),
}

/// Whether the tenant's deletion is forced.
#[must_use]
pub fn is_forced(tenant: &Tenant) -> bool {
    let annotations = tenant.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(names::ANNOTATION_FORCE_DELETE))
        .is_some_and(|value| value == "true")
}

/// Whether the tenant is being deleted.
#[must_use]
pub fn is_leaving(tenant: &Tenant) -> bool {
    tenant.metadata.deletion_timestamp.is_some()
}

/// The next step of a tenant that is being deleted.
#[must_use]
pub fn step(tenant: &Tenant, farewell: &Farewell) -> Step {
    let leave = Step::Leave(tenant.spec.namespace.deletion_policy);
    let Farewell { rooms, closed, now } = *farewell;
    if is_forced(tenant) {
        let asked = tenant.metadata.deletion_timestamp.as_ref();
        let until = asked
            .map(|at| at.0)
            .and_then(|at| at.checked_add(FORCE_GRACE).ok())
            .unwrap_or(now);
        return if (closed && rooms == Some(0)) || now >= until {
            leave
        } else {
            Step::Closing { until }
        };
    }
    match rooms {
        None => Step::WaitForControlPlane,
        Some(rooms @ 1..) => Step::WaitForRooms { rooms },
        Some(0) if !closed => Step::WaitForControlPlane,
        Some(0) => leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn leaving(force: bool) -> Tenant {
        let annotations = if force {
            json!({ names::ANNOTATION_FORCE_DELETE: "true" })
        } else {
            json!({})
        };
        serde_json::from_value(json!({
            "metadata": {
                "name": "town", "annotations": annotations,
                "deletionTimestamp": "2026-11-25T08:00:00Z",
            },
            "spec": { "displayName": "Town", "contacts": [], "namespace": { "deletionPolicy": "Delete" } },
        }))
        .expect("a tenant")
    }

    fn at(seconds: i64, rooms: Option<u32>, closed: bool) -> Farewell {
        let begin: Timestamp = "2026-11-25T08:00:00Z".parse().expect("a moment");
        Farewell {
            rooms,
            closed,
            now: begin + jiff::SignedDuration::from_secs(seconds),
        }
    }

    #[test]
    fn rooms_hold_a_tenant_for_as_long_as_they_last() {
        let tenant = leaving(false);
        assert_eq!(
            step(&tenant, &at(86_400, Some(2), true)),
            Step::WaitForRooms { rooms: 2 }
        );
        assert_eq!(
            step(&tenant, &at(86_400, None, true)),
            Step::WaitForControlPlane
        );
        assert_eq!(
            step(&tenant, &at(1, Some(0), false)),
            Step::WaitForControlPlane
        );
        assert_eq!(
            step(&tenant, &at(1, Some(0), true)),
            Step::Leave(DeletionPolicy::Delete)
        );
    }

    #[test]
    fn force_closes_rooms_and_waits_no_longer_than_its_grace() {
        let tenant = leaving(true);
        assert!(matches!(
            step(&tenant, &at(1, Some(2), true)),
            Step::Closing { .. }
        ));
        assert!(matches!(
            step(&tenant, &at(1, None, false)),
            Step::Closing { .. }
        ));
        let leave = Step::Leave(DeletionPolicy::Delete);
        assert_eq!(step(&tenant, &at(1, Some(0), true)), leave);
        assert_eq!(step(&tenant, &at(120, Some(2), true)), leave);
        assert_eq!(step(&tenant, &at(120, None, false)), leave);
    }
}

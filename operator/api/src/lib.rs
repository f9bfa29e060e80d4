// SPDX-License-Identifier: EUPL-1.2
//! Plenum's custom resources: `Tenant`, `ConferenceClass`, `Conference`, `MediaPool`, `MediaNode`,
//! `MaintenanceWindow`.
//!
//! One kind per file with its specification, status and CEL rules; [`shared`] holds the types that several kinds use,
//! [`conditions`] the condition types and reasons, [`names`] the keys that stand in metadata, [`schema`] the resource
//! definitions as they are installed, [`remedies`] what to do where a rule does not hold. With the feature `cel`, `check` judges a JSON object as an API server would.
//!
//! Everything optional that has a default in the schema is a plain field here, so readers never repeat a default.

#![allow(
    unreachable_pub,
    reason = "KubeSchema derives an inner type with the visibility of the outer one"
)]
#![allow(
    clippy::duplicated_attributes,
    reason = "two printer columns may have the same type"
)]

#[macro_use]
mod choice;
#[cfg(feature = "cel")]
pub mod check;
pub mod conditions;
pub mod conference;
pub mod conference_class;
pub mod maintenance_window;
pub mod media_node;
pub mod media_pool;
pub mod names;
pub mod remedies;
pub mod schema;
pub mod shared;
pub mod tenant;

pub use conditions::{Condition, ConditionStatus, ConditionType, Reason};
pub use conference::{Conference, ConferenceSpec, ConferenceStatus};
pub use conference_class::{ConferenceClass, ConferenceClassSpec, ConferenceClassStatus};
pub use maintenance_window::{MaintenanceWindow, MaintenanceWindowSpec, MaintenanceWindowStatus};
pub use media_node::{MediaNode, MediaNodeSpec, MediaNodeStatus};
pub use media_pool::{MediaPool, MediaPoolSpec, MediaPoolStatus};
pub use schema::{KINDS, crd, schema_of};
pub use shared::{
    DurationError, GoDuration, GroupRef, HourRange, LocalText, Period, PoolRef, Schedule,
    SecretRef, Selector, SubjectRef,
};
pub use tenant::{Tenant, TenantSpec, TenantStatus};

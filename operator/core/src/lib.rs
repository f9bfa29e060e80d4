// SPDX-License-Identifier: EUPL-1.2
//! The two pure stages that the operator and `plenum up` share.
//!
//! [`validate`] judges what the schema cannot see: references, bounds across objects, schedules, passwords. Its result is
//! a [`Valid`], the only thing [`plan`] takes; a [`Plan`] is the records to publish, and [`diff`] what has to be sent to
//! come from one plan to the next. No clock, no randomness, no file: everything comes in as arguments.

pub mod calendar;
pub mod conference_status;
pub mod digest;
pub mod inert;
pub mod labels;
pub mod limits;
pub mod media_node;
pub mod media_pool;
pub mod objects;
pub mod plan;
pub mod problem;
pub mod records;
pub mod rotation;
pub mod tenant;
pub mod validate;

pub use objects::{Confidential, Name, ObjectKey, Objects, SecretData};
pub use plan::{
    DeclaredNode, Diff, Generated, NodeEndpoint, Plan, Record, RecordKind, SecretKey, WantedNode,
    Wants, diff, plan, wants,
};
pub use problem::Problem;
pub use validate::{AbsentOpenerKeys, Valid, validate};

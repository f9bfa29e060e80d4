// SPDX-License-Identifier: EUPL-1.2
//! Placement as several replicas do it over one store, on nodes whose reports come late: simulated, seeded, without a clock of its own.
//!
//! Each simulation prints its seed; `PLENUM_SIM_SEED=…` repeats it.

#![allow(unreachable_pub)]

#[path = "placement/herd.rs"]
mod herd;
#[path = "placement/properties.rs"]
mod properties;
#[path = "placement/world.rs"]
mod world;

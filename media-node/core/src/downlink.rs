// SPDX-License-Identifier: EUPL-1.2
//! What one participant's path can carry, and who gets how much of it.

pub mod allocator;
pub mod estimator;

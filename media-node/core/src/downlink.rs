// SPDX-License-Identifier: EUPL-1.2
//! What one participant's path can carry.

pub mod estimator;

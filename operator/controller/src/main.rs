// SPDX-License-Identifier: EUPL-1.2
//! The operator's process.

fn main() {}

// SPDX-License-Identifier: EUPL-1.2
//! What the shell brings to a plan, made up for tests.

use operator_core::{Confidential, Generated, Wants};

/// Everything that is wanted; all conferences have this password.
pub(crate) fn generated(wants: Wants, password: &str) -> Generated {
    Generated {
        link_keys: wants
            .link_keys
            .into_iter()
            .map(|name| (name, Confidential(vec![7; 32])))
            .collect(),
        passwords: wants
            .passwords
            .into_iter()
            .map(|name| (name, Confidential(password.to_owned())))
            .collect(),
        opener_keys: wants
            .opener_keys
            .into_iter()
            .map(|key| (key, Confidential("k".repeat(32))))
            .collect(),
    }
}

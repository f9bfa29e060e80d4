// SPDX-License-Identifier: EUPL-1.2
//! Labels of what the operator makes.

use std::collections::BTreeMap;

use plenum_api::names;

/// Label: who looks after an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Kubernetes' recommended labels for something made for a component, and further ones.
#[must_use]
pub fn recommended<'a>(
    component: &'a str,
    further: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "plenum"),
        ("app.kubernetes.io/component", component),
        ("app.kubernetes.io/part-of", "plenum"),
        (MANAGED_BY, names::MANAGER_OPERATOR),
    ]
    .into_iter()
    .chain(further)
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

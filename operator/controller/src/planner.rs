// SPDX-License-Identifier: EUPL-1.2
//! From the watched objects to one plan.

use std::{collections::BTreeMap, sync::Arc};

use operator_core::{Generated, ObjectKey, Objects, Plan, Problem};

/// What is declared, as one plan.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// Records of all objects that are valid.
    pub plan: Plan,
    /// What is wrong, by object. An object that stands here has no record.
    pub problems: BTreeMap<ObjectKey, Vec<Problem>>,
    /// What waits for something all the same, by object.
    pub warnings: BTreeMap<ObjectKey, Vec<Problem>>,
    /// The valid objects, with the Secrets they name.
    pub objects: Arc<Objects>,
    /// Link keys and generated passwords.
    pub generated: Generated,
    /// Whether the objects were read once; before that nothing can be concluded from an absence.
    pub ready: bool,
}

impl Planned {
    /// What is wrong with an object.
    #[must_use]
    pub fn problems_of(&self, kind: &str, namespace: &str, name: &str) -> &[Problem] {
        let key = ObjectKey {
            kind: kind.to_owned(),
            name: operator_core::Name::new(namespace, name),
        };
        self.problems.get(&key).map_or(&[], Vec::as_slice)
    }
}

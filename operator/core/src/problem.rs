// SPDX-License-Identifier: EUPL-1.2
//! What is wrong with a declared object.

use plenum_api::Reason;

use crate::objects::ObjectKey;

/// One thing that is wrong, or that waits for something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Which object.
    pub object: ObjectKey,
    /// Where in it: a JSON pointer (RFC 6901).
    pub pointer: String,
    /// Reason, as it stands in conditions and metric labels.
    pub rule: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// Collects problems of one object. It has no `From`, so that `?` cannot abandon half of them.
pub(crate) struct Collector<'a> {
    pub(crate) object: ObjectKey,
    pub(crate) into: &'a mut Vec<Problem>,
}

impl Collector<'_> {
    pub(crate) fn add(
        &mut self,
        pointer: impl Into<String>,
        reason: Reason,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.into.push(Problem {
            object: self.object.clone(),
            pointer: pointer.into(),
            rule: reason.as_str().to_owned(),
            message: message.into(),
            remedy: remedy.into(),
        });
    }
}

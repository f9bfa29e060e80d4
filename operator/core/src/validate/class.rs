// SPDX-License-Identifier: EUPL-1.2
//! `ConferenceClass`: one default at most, and periods no longer than those of the tenants that use it.

use plenum_api::{
    ConferenceClass, Period, Reason, conference::ContentRetention, names, tenant::Retention,
};

use super::{Found, class_of, is_default};
use crate::{
    objects::{Name, Objects},
    problem::Collector,
};

pub(super) fn validate(objects: &Objects, name: &str, class: &ConferenceClass, found: &mut Found) {
    let mut errors = found.errors_of("ConferenceClass", &Name::new("", name));
    let Some(retention) = &class.spec.retention else {
        return;
    };
    for (tenant_name, tenant) in &objects.tenants {
        let namespace = crate::objects::namespace_of(tenant_name, tenant);
        let used = objects.conferences.iter().any(|(at, conference)| {
            at.namespace == namespace
                && class_of(objects, conference.spec.class_name.as_deref())
                    .is_some_and(|(used, _)| used == name)
        });
        if used {
            check_retention(
                retention,
                &of_tenant(&tenant.spec.retention),
                &format!("Tenant `{tenant_name}`"),
                &mut errors,
            );
        }
    }
}

/// Which class is the default must not depend on an order.
pub(super) fn validate_defaults(objects: &Objects, found: &mut Found) {
    let mut defaults = objects
        .classes
        .iter()
        .filter(|(_, class)| is_default(class));
    let Some((first, _)) = defaults.next() else {
        return;
    };
    for (name, _) in defaults {
        found
            .errors_of("ConferenceClass", &Name::new("", name.as_str()))
            .add(
                "/metadata/annotations",
                Reason::ClassNotFound,
                format!("the ConferenceClass `{first}` is annotated as the default already"),
                format!("keep {} on one class", names::ANNOTATION_DEFAULT_CLASS),
            );
    }
}

/// Periods of a tenant in the shape of the levels below it.
pub(super) fn of_tenant(retention: &Retention) -> ContentRetention {
    ContentRetention {
        user_actions: Some(retention.user_actions.clone()),
        connections: Some(retention.connections.clone()),
        chat: Some(retention.chat.clone()),
        files: Some(retention.files.clone()),
        attendance: Some(retention.attendance.clone()),
        recordings: Some(retention.recordings.clone()),
    }
}

/// Every period stays within its bound.
pub(super) fn check_retention(
    given: &ContentRetention,
    bound: &ContentRetention,
    of: &str,
    errors: &mut Collector<'_>,
) {
    for (field, given, bound) in [
        ("userActions", &given.user_actions, &bound.user_actions),
        ("connections", &given.connections, &bound.connections),
        ("chat", &given.chat, &bound.chat),
        ("files", &given.files, &bound.files),
        ("attendance", &given.attendance, &bound.attendance),
        ("recordings", &given.recordings, &bound.recordings),
    ] {
        let (Some(given), Some(bound)) = (given, bound) else {
            continue;
        };
        if !is_within(given, bound) {
            errors.add(
                format!("/spec/retention/{field}"),
                Reason::RetentionTooLong,
                format!("{given} is longer than the {bound} of {of}"),
                format!("write {bound} or less, or lengthen spec.retention.{field} of {of}"),
            );
        }
    }
}

/// A text that is no period has failed the schema already.
fn is_within(given: &Period, bound: &Period) -> bool {
    match (given.parse(), bound.parse()) {
        (Some(given), Some(bound)) => given.is_within(bound),
        _ => true,
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! Judges what the schema cannot see: references, bounds across objects, schedules, Secrets. All errors at once.
//!
//! Which fields have an effect at all is the business of [`crate::inert`]: there every specification is destructured
//! without `..`, so that a new field without handling does not compile.

mod class;
mod conference;
mod pool;
mod secret;
mod tenant;
mod window;

use jiff::Timestamp;
use plenum_api::{Conference, ConferenceClass, MediaPool, Reason, Tenant, names, shared::Schedule};
use plenum_schedule::ScheduleError;

use crate::{
    objects::{Name, Objects, key},
    problem::{Collector, Problem},
};

/// What the shell does about opener keys that are named and not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AbsentOpenerKeys {
    /// An error: somebody else brings Secrets.
    #[default]
    AreErrors,
    /// The shell makes them.
    AreGenerated,
}

/// A set of objects that are valid together.
#[derive(Clone, Debug)]
pub struct Valid<'a> {
    pub(crate) objects: &'a Objects,
    /// What is valid and waits for something all the same.
    pub warnings: Vec<Problem>,
}

impl<'a> Valid<'a> {
    /// The objects.
    #[must_use]
    pub fn objects(&self) -> &'a Objects {
        self.objects
    }
}

/// Judges a set of objects.
///
/// # Errors
/// Everything that is wrong, ordered by object and place.
pub fn validate(objects: &Objects, keys: AbsentOpenerKeys) -> Result<Valid<'_>, Vec<Problem>> {
    let mut found = Found::default();
    secret::validate(objects, &mut found);
    for (name, class) in &objects.classes {
        class::validate(objects, name, class, &mut found);
    }
    class::validate_defaults(objects, &mut found);
    for (name, pool) in &objects.pools {
        pool::validate(name, pool, &mut found);
    }
    for (name, window) in &objects.windows {
        window::validate(objects, name, window, &mut found);
    }
    for (name, tenant) in &objects.tenants {
        tenant::validate(objects, name, tenant, &mut found);
    }
    tenant::validate_together(objects, &mut found);
    for (name, conference) in &objects.conferences {
        conference::validate(objects, name, conference, keys, &mut found);
    }
    conference::validate_together(objects, &mut found);
    let Found {
        mut errors,
        mut warnings,
    } = found;
    warnings.sort();
    warnings.dedup();
    if errors.is_empty() {
        return Ok(Valid { objects, warnings });
    }
    errors.sort();
    errors.dedup();
    Err(errors)
}

pub(crate) use conference::room_name;

#[derive(Default)]
pub(crate) struct Found {
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Found {
    fn errors_of(&mut self, kind: &str, name: &Name) -> Collector<'_> {
        Collector {
            object: key(kind, name),
            into: &mut self.errors,
        }
    }

    fn warnings_of(&mut self, kind: &str, name: &Name) -> Collector<'_> {
        Collector {
            object: key(kind, name),
            into: &mut self.warnings,
        }
    }
}

/// The class of a name, or the default one.
pub(crate) fn class_of<'a>(
    objects: &'a Objects,
    name: Option<&str>,
) -> Option<(&'a str, &'a ConferenceClass)> {
    let (name, class) = match name {
        Some(name) => objects.classes.get_key_value(name)?,
        None => objects
            .classes
            .iter()
            .find(|(_, class)| is_default(class))?,
    };
    Some((name, class))
}

fn is_default(class: &ConferenceClass) -> bool {
    let annotations = class.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(names::ANNOTATION_DEFAULT_CLASS))
        .is_some_and(|value| value == "true")
}

/// A class that is wanted and not there is reported once, with what there is.
fn check_class(objects: &Objects, name: Option<&str>, pointer: &str, to: &mut Collector<'_>) {
    if class_of(objects, name).is_some() {
        return;
    }
    match name {
        Some(name) if objects.is_unreadable("ConferenceClass", "", name) => {}
        Some(name) => to.add(
            pointer,
            Reason::ClassNotFound,
            format!("there is no ConferenceClass `{name}`"),
            one_of(
                objects.classes.keys().map(String::as_str),
                "declare a ConferenceClass of this name",
            ),
        ),
        None if objects
            .unreadable
            .iter()
            .any(|key| key.kind == "ConferenceClass") => {}
        None => to.add(
            pointer,
            Reason::ClassNotFound,
            "no class is named, and none is the default",
            format!(
                "name a class, or annotate one with {}: \"true\"",
                names::ANNOTATION_DEFAULT_CLASS
            ),
        ),
    }
}

/// `use one of a, b`, or what else to do where there is nothing to choose from.
fn one_of<'a>(known: impl Iterator<Item = &'a str>, otherwise: &str) -> String {
    let known: Vec<&str> = known.take(12).collect();
    if known.is_empty() {
        otherwise.to_owned()
    } else {
        format!("use one of {}; or {otherwise}", known.join(", "))
    }
}

/// A schedule is one when it can be evaluated and takes place at least once.
fn check_schedule(schedule: &Schedule, pointer: &str, to: &mut Collector<'_>) {
    match schedule.to_evaluator() {
        Ok(evaluator) => {
            if evaluator.is_finite() && evaluator.next_window(Timestamp::MIN).is_none() {
                to.add(
                    pointer,
                    Reason::ScheduleInvalid,
                    "the schedule never takes place",
                    "leave at least one date out of except, or extend the recurrence",
                );
            }
        }
        Err(error) => {
            let (member, remedy) = match &error {
                ScheduleError::Start { .. } => ("/start", "write a local date and time"),
                ScheduleError::TimeZone { .. } => ("/timeZone", "write an IANA name"),
                ScheduleError::Duration { .. } => ("/duration", "write a length such as 90m"),
                ScheduleError::Until { .. } => ("/until", "write a time of day"),
                ScheduleError::EndNotUnique => ("", "remove one of the two, or add one"),
                ScheduleError::Recurrence { .. } => (
                    "/recurrence",
                    "use FREQ, INTERVAL, BYDAY, BYMONTHDAY and COUNT or UNTIL of RFC 5545",
                ),
                ScheduleError::Except { .. } | ScheduleError::TooManyExceptions { .. } => {
                    ("/except", "list local dates")
                }
            };
            to.add(
                format!("{pointer}{member}"),
                Reason::ScheduleInvalid,
                error.to_string(),
                remedy,
            );
        }
    }
}

/// The pools that a tenant's rooms may use, the default first.
///
/// A tenant that names none may use every pool that allows it: the handshake of `kubernetes.md` §4.3 with one half open.
pub(crate) fn pools_of<'a>(
    objects: &'a Objects,
    tenant: &Tenant,
) -> Vec<(&'a Name, &'a MediaPool)> {
    let labels = tenant.metadata.labels.clone().unwrap_or_default();
    let allows = |pool: &MediaPool| pool.spec.allows(&labels);
    if tenant.spec.pools.is_empty() {
        return objects
            .pools
            .iter()
            .filter(|(_, pool)| allows(pool))
            .collect();
    }
    let named = tenant.spec.pools.iter();
    named
        .filter_map(|pool| {
            objects
                .pools
                .get_key_value(&Name::new(&*pool.namespace, &*pool.name))
        })
        .filter(|(_, pool)| allows(pool))
        .collect()
}

/// The pool of a conference: the one it names, or the tenant's first that suits its class.
pub(crate) fn pool_of<'a>(
    objects: &'a Objects,
    tenant: &Tenant,
    class: &ConferenceClass,
    conference: Option<&Conference>,
) -> Option<&'a Name> {
    let wanted = conference
        .and_then(|conference| conference.spec.placement.as_ref()?.pool_ref.as_ref())
        .map(|pool| Name::new(&*pool.namespace, &*pool.name));
    pools_of(objects, tenant)
        .into_iter()
        .filter(|(name, _)| wanted.as_ref().is_none_or(|wanted| wanted == *name))
        .find(|(_, pool)| suits(pool, class))
        .map(|(name, _)| name)
}

fn suits(pool: &MediaPool, class: &ConferenceClass) -> bool {
    let labels = pool.metadata.labels.clone().unwrap_or_default();
    class
        .spec
        .pool_selector
        .as_ref()
        .is_none_or(|wanted| wanted.matches(&labels))
}

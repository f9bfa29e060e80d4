// SPDX-License-Identifier: EUPL-1.2
//! `Conference`: its tenant, class, openers, password, bounds and place.

use std::collections::BTreeMap;

use plenum_api::{
    Conference, ConferenceClass, Reason, Tenant,
    conference::{ContentRetention, Opener, OpenerType},
    names,
    tenant::{E2ee, Guests, Recording},
};

use super::{
    AbsentOpenerKeys, Found, check_class, check_schedule,
    class::{check_retention, of_tenant},
    class_of, one_of, pool_of, pools_of,
    secret::{self, Wanted},
    tenant::check_issuer,
};
use crate::{
    limits,
    objects::{Name, Objects},
    plan::reserved,
    problem::Collector,
};

const KIND: &str = "Conference";

pub(super) fn validate(
    objects: &Objects,
    name: &Name,
    conference: &Conference,
    keys: AbsentOpenerKeys,
    found: &mut Found,
) {
    let spec = &conference.spec;
    let mut errors = found.errors_of(KIND, name);
    check_class(
        objects,
        spec.class_name.as_deref(),
        "/spec/className",
        &mut errors,
    );
    if let Some(schedule) = &spec.schedule {
        check_schedule(&schedule.schedule, "/spec/schedule", &mut errors);
    }
    check_password(objects, name, conference, &mut errors);
    check_opener_keys(objects, name, &spec.openers, keys, &mut errors);
    let class = class_of(objects, spec.class_name.as_deref());
    if spec.openers.is_empty() && class.is_some_and(|(_, class)| class.spec.openers.is_empty()) {
        errors.add(
            "/spec/openers",
            Reason::NoOpeners,
            "nobody may open the conference",
            "add an opener, for instance {type: Key, key: {name: <secret>}}",
        );
    }
    let Some((tenant_name, tenant)) = objects.tenant_of(&name.namespace) else {
        if !objects.unreadable.iter().any(|key| key.kind == "Tenant") {
            let known: Vec<String> = objects
                .tenants
                .iter()
                .map(|(name, tenant)| crate::objects::namespace_of(name, tenant))
                .collect();
            errors.add(
                "/metadata/namespace",
                Reason::NamespaceWithoutTenant,
                format!("namespace `{}` belongs to no tenant", name.namespace),
                one_of(
                    known.iter().map(String::as_str),
                    "declare a Tenant with this namespace",
                ),
            );
        }
        return;
    };
    check_issuers(conference, tenant, &mut errors);
    check_narrowing(conference, class, tenant_name, tenant, &mut errors);
    if let Some((_, class)) = class {
        check_place(objects, conference, class, tenant_name, tenant, &mut errors);
        check_reserve(conference, class, &mut errors);
    }
    warn_of_groups(conference, class, name, found);
}

fn check_password(
    objects: &Objects,
    name: &Name,
    conference: &Conference,
    errors: &mut Collector<'_>,
) {
    let Some(wanted) = &conference.spec.password_secret_ref else {
        return;
    };
    let wanted = Wanted {
        namespace: &name.namespace,
        name: &wanted.name,
        key: wanted.key.as_deref().unwrap_or(names::SECRET_KEY_PASSWORD),
        type_: None,
        pointer: "/spec/passwordSecretRef".to_owned(),
    };
    let Some(value) = secret::value(objects, &wanted, errors) else {
        return;
    };
    let Ok(password) = std::str::from_utf8(value) else {
        errors.add(
            "/spec/passwordSecretRef",
            Reason::SecretInvalid,
            "the password is no text",
            "use letters, digits and signs that people can type",
        );
        return;
    };
    let chars = password.chars().count();
    let weakness = if chars < names::PASSWORD_CHARS_MIN {
        Some(format!(
            "the password has {chars} characters; at least {} are wanted",
            names::PASSWORD_CHARS_MIN
        ))
    } else if password.len() > limits::PASSWORD_BYTES_MAX {
        Some(format!(
            "the password has {} bytes; at most {} are read where it is entered",
            password.len(),
            limits::PASSWORD_BYTES_MAX
        ))
    } else if is_weak(password, room_name(name, conference)) {
        Some("the password is easily guessed".to_owned())
    } else {
        None
    };
    if let Some(weakness) = weakness {
        errors.add(
            "/spec/passwordSecretRef",
            Reason::PasswordTooWeak,
            weakness,
            "leave passwordSecretRef out, and a good password is generated",
        );
    }
}

/// Long enough and still among the first that anybody tries.
pub(super) fn is_weak(password: &str, room_name: &str) -> bool {
    let plain: String = password
        .to_lowercase()
        .chars()
        .filter(|letter| letter.is_alphanumeric())
        .collect();
    let mut letters: Vec<char> = plain.chars().collect();
    letters.sort_unstable();
    letters.dedup();
    let room: String = room_name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let rest = |word: &str| plain.replace(word, "");
    letters.len() < WEAK_LETTERS
        || SEQUENCES.iter().any(|sequence| sequence.contains(&plain))
        || WORDS.iter().chain([&room.as_str()]).any(|word| {
            // A known word and at most a number beside it.
            !word.is_empty()
                && plain.contains(word)
                && rest(word).chars().all(|letter| letter.is_ascii_digit())
        })
}

/// Fewer different letters than this are a pattern, not a password.
const WEAK_LETTERS: usize = 5;
const SEQUENCES: &[&str] = &[
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890123456789",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "1q2w3e4r5t6y7u8i9o0p",
    "1q2w3e4r5t6z7u8i9o0p",
];
const WORDS: &[&str] = &[
    "password",
    "passwort",
    "kennwort",
    "geheim",
    "secret",
    "letmein",
    "welcome",
    "willkommen",
    "changeme",
    "conference",
    "konferenz",
    "meeting",
    "besprechung",
    "administrator",
    "schule",
    "klasse",
    "plenum",
    "qwerty",
    "qwertz",
    "passwordpassword",
    "passwortpasswort",
    "secretsecret",
];

fn check_opener_keys(
    objects: &Objects,
    name: &Name,
    openers: &[Opener],
    keys: AbsentOpenerKeys,
    errors: &mut Collector<'_>,
) {
    for (index, opener) in openers.iter().enumerate() {
        let Some(key) = &opener.key else { continue };
        let at = Name::new(&*name.namespace, &*key.name);
        if keys == AbsentOpenerKeys::AreGenerated && !objects.secrets.contains_key(&at) {
            continue;
        }
        let wanted = Wanted {
            namespace: &name.namespace,
            name: &key.name,
            key: key.key.as_deref().unwrap_or(names::SECRET_KEY_OPENER),
            type_: Some(names::SECRET_TYPE_OPENER_KEY),
            pointer: format!("/spec/openers/{index}/key"),
        };
        secret::value(objects, &wanted, errors);
    }
}

fn check_issuers(conference: &Conference, tenant: &Tenant, errors: &mut Collector<'_>) {
    for (index, opener) in conference.spec.openers.iter().enumerate() {
        if let Some(subject) = &opener.subject {
            check_issuer(
                tenant,
                subject.issuer.as_deref(),
                &format!("/spec/openers/{index}/subject"),
                errors,
            );
        }
        if let Some(group) = &opener.group {
            check_issuer(
                tenant,
                group.issuer.as_deref(),
                &format!("/spec/openers/{index}/group"),
                errors,
            );
        }
    }
    for (index, role) in conference.spec.roles.iter().enumerate() {
        for (at, group) in role.groups.iter().enumerate() {
            check_issuer(
                tenant,
                group.issuer.as_deref(),
                &format!("/spec/roles/{index}/groups/{at}"),
                errors,
            );
        }
        for (at, subject) in role.subjects.iter().enumerate() {
            check_issuer(
                tenant,
                subject.issuer.as_deref(),
                &format!("/spec/roles/{index}/subjects/{at}"),
                errors,
            );
        }
    }
}

/// Tenant, class, conference: each may only narrow what stands above it.
fn check_narrowing(
    conference: &Conference,
    class: Option<(&str, &ConferenceClass)>,
    tenant_name: &str,
    tenant: &Tenant,
    errors: &mut Collector<'_>,
) {
    let (spec, policy) = (&conference.spec, &tenant.spec.policy);
    let of_tenant_name = format!("Tenant `{tenant_name}`");
    if spec.guests == Some(Guests::Allowed) && policy.guests == Guests::Forbidden {
        errors.add(
            "/spec/guests",
            Reason::GuestsForbiddenByTenant,
            format!("{of_tenant_name} forbids guests"),
            "write guests: Forbidden or leave it out, or change spec.policy.guests of the tenant",
        );
    }
    if spec.recording == Recording::Allowed {
        let above = class
            .filter(|(_, class)| class.spec.recording == Recording::Forbidden)
            .map(|(name, _)| (format!("ConferenceClass `{name}`"), "spec.recording"))
            .into_iter()
            .chain(
                (policy.recording == Recording::Forbidden)
                    .then(|| (of_tenant_name.clone(), "spec.policy.recording")),
            );
        for (who, field) in above {
            errors.add(
                "/spec/recording",
                Reason::RecordingForbidden,
                format!("{who} forbids recording"),
                format!("leave recording out, or allow it in {field} of {who}"),
            );
        }
    }
    if let Some(e2ee) = spec.media.as_ref().and_then(|media| media.e2ee) {
        let wrong = match (policy.e2ee, e2ee) {
            (E2ee::Required, E2ee::Allowed | E2ee::Disabled) => Some("requires"),
            (E2ee::Disabled, E2ee::Required) => Some("disables"),
            _ => None,
        };
        if let Some(verb) = wrong {
            errors.add(
                "/spec/media/e2ee",
                Reason::PolicyTooWeak,
                format!(
                    "{of_tenant_name} {verb} end-to-end encryption; the conference says {e2ee}"
                ),
                format!("write e2ee: {}, or leave it out", policy.e2ee),
            );
        }
    }
    if let Some(retention) = &spec.retention {
        let own = class
            .and_then(|(_, class)| class.spec.retention.clone())
            .unwrap_or_default();
        let from_class = class
            .map(|(name, _)| format!("ConferenceClass `{name}`"))
            .unwrap_or_default();
        check_retention(retention, &own, &from_class, errors);
        let tenants = without(of_tenant(&tenant.spec.retention), &own);
        check_retention(retention, &tenants, &of_tenant_name, errors);
    }
    if let Some(capacity) = &spec.capacity {
        let limits = &tenant.spec.limits;
        let people = limits.participants_per_room.or(limits.participants);
        for (field, wanted, most, of) in [
            (
                "maxParticipants",
                capacity.max_participants,
                people,
                "participantsPerRoom",
            ),
            (
                "expectedParticipants",
                capacity.expected_participants,
                people,
                "participantsPerRoom",
            ),
            (
                "maxPublishers",
                capacity.max_publishers,
                limits.publishers_per_room,
                "publishersPerRoom",
            ),
        ] {
            let (Some(wanted), Some(most)) = (wanted, most) else {
                continue;
            };
            if wanted > most {
                errors.add(
                    format!("/spec/capacity/{field}"),
                    Reason::LimitExceeded,
                    format!(
                        "{wanted} is more than the {most} that {of_tenant_name} may have in a room"
                    ),
                    format!("write {most} or less, or raise spec.limits.{of} of the tenant"),
                );
            }
        }
    }
}

/// Leaves out the bounds that a nearer level has set, so that one mistake is reported once.
fn without(mut far: ContentRetention, near: &ContentRetention) -> ContentRetention {
    for (far, near) in [
        (&mut far.user_actions, &near.user_actions),
        (&mut far.connections, &near.connections),
        (&mut far.chat, &near.chat),
        (&mut far.files, &near.files),
        (&mut far.attendance, &near.attendance),
        (&mut far.recordings, &near.recordings),
    ] {
        if near.is_some() {
            *far = None;
        }
    }
    far
}

fn check_place(
    objects: &Objects,
    conference: &Conference,
    class: &ConferenceClass,
    tenant_name: &str,
    tenant: &Tenant,
    errors: &mut Collector<'_>,
) {
    let placement = conference.spec.placement.clone().unwrap_or_default();
    let allowed = tenant.spec.sites.clone().unwrap_or_default().allowed;
    for (index, site) in placement.sites.iter().enumerate() {
        if !allowed.is_empty() && !allowed.contains(site) {
            errors.add(
                format!("/spec/placement/sites/{index}"),
                Reason::UnknownSite,
                format!("Tenant `{tenant_name}` may not use the site `{site}`"),
                one_of(
                    allowed.iter().map(String::as_str),
                    "add it to spec.sites.allowed of the tenant",
                ),
            );
        }
    }
    if let Some(wanted) = &placement.pool_ref {
        let name = Name::new(&*wanted.namespace, &*wanted.name);
        let usable: Vec<String> = pools_of(objects, tenant)
            .into_iter()
            .map(|(name, _)| name.to_string())
            .collect();
        if !objects.pools.contains_key(&name) {
            if !objects.is_unreadable("MediaPool", &name.namespace, &name.name) {
                errors.add(
                    "/spec/placement/poolRef",
                    Reason::PoolNotFound,
                    format!("there is no MediaPool `{name}`"),
                    one_of(
                        usable.iter().map(String::as_str),
                        "declare a MediaPool of this name",
                    ),
                );
            }
            return;
        }
        if !usable.contains(&name.to_string()) {
            errors.add(
                "/spec/placement/poolRef",
                Reason::PoolNotAllowed,
                format!("Tenant `{tenant_name}` may not use the MediaPool `{name}`"),
                one_of(
                    usable.iter().map(String::as_str),
                    "add it to spec.pools of the tenant",
                ),
            );
            return;
        }
    }
    let unreadable = objects.unreadable.iter().any(|key| key.kind == "MediaPool");
    if pool_of(objects, tenant, class, Some(conference)).is_none()
        && !unreadable
        && tenant.spec.pools.is_empty()
    {
        errors.add(
            "/spec/placement",
            Reason::PoolNotFound,
            "no MediaPool allows the tenant and suits the class",
            "declare a MediaPool, or widen the poolSelector of the class",
        );
    }
}

/// Capacity is held for a number of people and from the beginning of a window on: both have to be said.
fn check_reserve(conference: &Conference, class: &ConferenceClass, errors: &mut Collector<'_>) {
    let own = conference.spec.capacity.as_ref();
    let wanted = own
        .and_then(|capacity| capacity.reserve)
        .or_else(|| class.spec.capacity.as_ref()?.reserve);
    if wanted != Some(true) {
        return;
    }
    let mut wrong = |pointer: &str, message: &str, remedy: &str| {
        errors.add(pointer, Reason::NoCapacity, message, remedy);
    };
    if reserved(&conference.spec, class).is_none() {
        wrong(
            "/spec/capacity",
            "capacity is held for expectedParticipants, and nobody says how many those are",
            "write capacity.expectedParticipants, or reserve: false",
        );
    }
    // A class may hold capacity for those of its conferences that have a schedule.
    if conference.spec.schedule.is_none() && own.and_then(|own| own.reserve) == Some(true) {
        wrong(
            "/spec/capacity/reserve",
            "capacity is held from openBefore on, and the conference has no schedule",
            "write a schedule, or reserve: false",
        );
    }
}

/// Groups take an identity provider; until then they open nothing, and say so.
fn warn_of_groups(
    conference: &Conference,
    class: Option<(&str, &ConferenceClass)>,
    name: &Name,
    found: &mut Found,
) {
    let mut warnings = found.warnings_of(KIND, name);
    let is_group = |opener: &Opener| opener.type_ == OpenerType::Group;
    let mut warn = |pointer: String, what: &str| {
        warnings.add(
            pointer,
            Reason::IssuerMissing,
            format!("{what} waits for sign-in through an identity provider, which this version does not have"),
            "use an opener of type Key or Subject meanwhile",
        );
    };
    for (index, _) in conference
        .spec
        .openers
        .iter()
        .enumerate()
        .filter(|(_, opener)| is_group(opener))
    {
        warn(format!("/spec/openers/{index}"), "the group");
    }
    if class.is_some_and(|(_, class)| class.spec.openers.iter().any(is_group)) {
        warn(
            "/spec/className".to_owned(),
            "a group among the openers of the class",
        );
    }
    for (index, _) in conference
        .spec
        .roles
        .iter()
        .enumerate()
        .filter(|(_, role)| !role.groups.is_empty())
    {
        warn(format!("/spec/roles/{index}/groups"), "the role of a group");
    }
}

/// Room names are unique in a tenant, and so are given passwords.
pub(super) fn validate_together(objects: &Objects, found: &mut Found) {
    let mut rooms = BTreeMap::new();
    let mut passwords = BTreeMap::new();
    for (name, conference) in &objects.conferences {
        let room = room_name(name, conference);
        let mut errors = found.errors_of(KIND, name);
        if let Some(first) = rooms.insert((&name.namespace, room), name) {
            errors.add(
                if conference.spec.room_name.is_some() {
                    "/spec/roomName"
                } else {
                    "/metadata/name"
                },
                Reason::RoomNameTaken,
                format!("the room name `{room}` is that of Conference `{first}`"),
                "give each conference of a tenant a roomName of its own",
            );
        }
        let Some(wanted) = &conference.spec.password_secret_ref else {
            continue;
        };
        let secret = objects
            .secrets
            .get(&Name::new(&*name.namespace, &*wanted.name));
        let key = wanted.key.as_deref().unwrap_or(names::SECRET_KEY_PASSWORD);
        let Some(password) = secret.and_then(|secret| secret.value(key)) else {
            continue;
        };
        if let Some(first) = passwords.insert((&name.namespace, password), name) {
            errors.add(
                "/spec/passwordSecretRef",
                Reason::PasswordReused,
                format!("Conference `{first}` has the same password"),
                "give each conference a password of its own, or leave passwordSecretRef out",
            );
        }
    }
}

/// Name of the room: the one given, or the object's.
pub(crate) fn room_name<'a>(name: &'a Name, conference: &'a Conference) -> &'a str {
    conference.spec.room_name.as_deref().unwrap_or(&name.name)
}

// SPDX-License-Identifier: EUPL-1.2
//! Secrets: what Plenum's own types must hold, and the look-up for whoever refers to one.

use std::collections::BTreeMap;

use plenum_api::{Reason, names};

use super::Found;
use crate::{
    objects::{Name, Objects, SecretData},
    problem::Collector,
};

/// Secrets of Plenum's types hold what their type says, and no API key stands in two of them.
pub(super) fn validate(objects: &Objects, found: &mut Found) {
    let mut keys = BTreeMap::new();
    for (name, secret) in &objects.secrets {
        let mut errors = found.errors_of("Secret", name);
        match secret.type_.as_str() {
            names::SECRET_TYPE_API_KEY => {
                check_length(
                    secret,
                    names::SECRET_KEY_API_KEY,
                    1,
                    "an API key",
                    &mut errors,
                );
                check_length(
                    secret,
                    names::SECRET_KEY_API_SECRET,
                    names::API_SECRET_BYTES_MIN,
                    "the secret of an API key",
                    &mut errors,
                );
                let Some(key) = secret.value(names::SECRET_KEY_API_KEY) else {
                    continue;
                };
                if secret.text(names::SECRET_KEY_API_KEY).is_none() {
                    errors.add(
                        secret.pointer(names::SECRET_KEY_API_KEY),
                        Reason::SecretInvalid,
                        "the API key is no text",
                        "use letters and digits",
                    );
                }
                if let Some(first) = keys.insert(key, name) {
                    errors.add(
                        secret.pointer(names::SECRET_KEY_API_KEY),
                        Reason::KeyReused,
                        format!(
                            "the API key stands in Secret `{first}` already; it tells tenants apart"
                        ),
                        "give each Secret an API key of its own",
                    );
                }
            }
            names::SECRET_TYPE_OPENER_KEY => {
                for key in secret.data.keys() {
                    check_length(
                        secret,
                        key,
                        names::OPENER_KEY_BYTES_MIN,
                        "an opener key",
                        &mut errors,
                    );
                }
                if secret.data.is_empty() {
                    check_length(
                        secret,
                        names::SECRET_KEY_OPENER,
                        names::OPENER_KEY_BYTES_MIN,
                        "an opener key",
                        &mut errors,
                    );
                }
            }
            _ => {}
        }
    }
}

fn check_length(
    secret: &SecretData,
    key: &str,
    bytes_min: usize,
    what: &str,
    errors: &mut Collector<'_>,
) {
    let bytes = secret.value(key).map_or(0, <[u8]>::len);
    if bytes < bytes_min {
        errors.add(
            secret.pointer(key),
            Reason::SecretInvalid,
            format!("`{key}` has {bytes} bytes; {what} needs at least {bytes_min}"),
            format!("give `{key}` under stringData, or base64 under data, with at least {bytes_min} random bytes"),
        );
    }
}

/// A reference to one value of a Secret.
pub(super) struct Wanted<'a> {
    /// Namespace it is looked up in.
    pub(super) namespace: &'a str,
    /// Name of the Secret.
    pub(super) name: &'a str,
    /// Key inside it.
    pub(super) key: &'a str,
    /// Type it must have; `None` is any.
    pub(super) type_: Option<&'static str>,
    /// Where the reference stands.
    pub(super) pointer: String,
}

/// The value a reference names; what is wrong with the reference goes to `errors`.
pub(super) fn value<'a>(
    objects: &'a Objects,
    wanted: &Wanted<'_>,
    errors: &mut Collector<'_>,
) -> Option<&'a [u8]> {
    let Wanted {
        namespace,
        name,
        key,
        type_,
        pointer,
    } = wanted;
    let Some(secret) = objects.secrets.get(&Name::new(*namespace, *name)) else {
        if !objects.is_unreadable("Secret", namespace, name) {
            errors.add(
                format!("{pointer}/name"),
                Reason::SecretNotFound,
                format!("there is no Secret `{name}` in namespace `{namespace}`"),
                super::one_of(
                    objects
                        .secrets
                        .iter()
                        .filter(|(at, secret)| {
                            at.namespace == *namespace
                                && type_.is_none_or(|type_| type_ == secret.type_)
                        })
                        .map(|(at, _)| at.name.as_str()),
                    &match type_ {
                        Some(type_) => format!("declare it, with type: {type_}"),
                        None => "declare it".to_owned(),
                    },
                ),
            );
        }
        return None;
    };
    if let Some(type_) = type_.filter(|type_| *type_ != secret.type_) {
        errors.add(
            format!("{pointer}/name"),
            Reason::SecretInvalid,
            format!("Secret `{name}` has the type {}, not {type_}", secret.type_),
            format!("write type: {type_} in the Secret, or name another"),
        );
        return None;
    }
    let value = secret.value(key);
    if value.is_none() {
        errors.add(
            pointer.clone(),
            Reason::SecretInvalid,
            format!("Secret `{name}` has no key `{key}`"),
            super::one_of(
                secret.data.keys().map(String::as_str),
                &format!("add the key `{key}` to the Secret"),
            ),
        );
    }
    value
}

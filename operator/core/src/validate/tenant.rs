// SPDX-License-Identifier: EUPL-1.2
//! `Tenant`: its pools, keys, class of ad-hoc rooms; and what no two tenants may share.

use std::collections::BTreeMap;

use plenum_api::{GroupRef, Reason, Tenant, names, tenant::AdHocRooms};

use super::{
    Found, check_class, one_of,
    secret::{self, Wanted},
};
use crate::{
    limits,
    objects::{Name, Objects, namespace_of},
    problem::Collector,
};

pub(super) fn validate(objects: &Objects, name: &str, tenant: &Tenant, found: &mut Found) {
    let namespace = namespace_of(name, tenant);
    let mut errors = found.errors_of("Tenant", &Name::new("", name));
    let spec = &tenant.spec;
    check_pools(objects, tenant, &mut errors);
    for (index, key) in spec.auth.api_key_secret_refs.iter().enumerate() {
        for part in [names::SECRET_KEY_API_KEY, names::SECRET_KEY_API_SECRET] {
            let wanted = Wanted {
                namespace: &namespace,
                name: &key.name,
                key: part,
                type_: Some(names::SECRET_TYPE_API_KEY),
                pointer: format!("/spec/auth/apiKeySecretRefs/{index}"),
            };
            if secret::value(objects, &wanted, &mut errors).is_none() {
                break;
            }
        }
    }
    for (index, issuer) in spec.auth.issuers.iter().enumerate() {
        if let Some(keys) = &issuer.jwks.secret_ref {
            let wanted = Wanted {
                namespace: &namespace,
                name: &keys.name,
                key: keys.key.as_deref().unwrap_or("jwks.json"),
                type_: None,
                pointer: format!("/spec/auth/issuers/{index}/jwks/secretRef"),
            };
            secret::value(objects, &wanted, &mut errors);
        }
    }
    for (index, webhook) in spec.webhooks.iter().enumerate() {
        if let Some(ca) = &webhook.ca_secret_ref {
            let wanted = Wanted {
                namespace: &namespace,
                name: &ca.name,
                key: ca.key.as_deref().unwrap_or(names::SECRET_KEY_CA),
                type_: None,
                pointer: format!("/spec/webhooks/{index}/caSecretRef"),
            };
            if let Some(value) = secret::value(objects, &wanted, &mut errors) {
                check_certificates(value, &wanted.pointer, &mut errors);
            }
        }
        if webhook.signing_key_ref.is_none() && spec.auth.api_key_secret_refs.is_empty() {
            errors.add(
                format!("/spec/webhooks/{index}"),
                Reason::SecretNotFound,
                "events are signed by one of the tenant's API keys, and it has none",
                "name a Secret in spec.auth.apiKeySecretRefs",
            );
        }
    }
    if let Some(orderers) = &spec.orderers {
        check_issuer(
            tenant,
            orderers.issuer.as_deref(),
            "/spec/orderers",
            &mut errors,
        );
    }
    for (index, contact) in spec.contacts.iter().enumerate() {
        if let Some(GroupRef { issuer, .. }) = &contact.group {
            check_issuer(
                tenant,
                issuer.as_deref(),
                &format!("/spec/contacts/{index}/group"),
                &mut errors,
            );
        }
    }
    if spec.ad_hoc.rooms != AdHocRooms::Forbidden || spec.ad_hoc.class_name.is_some() {
        check_class(
            objects,
            spec.ad_hoc.class_name.as_deref(),
            "/spec/adHoc/className",
            &mut errors,
        );
    }
    if spec.ad_hoc.rooms != AdHocRooms::Forbidden {
        if spec.auth.api_key_secret_refs.is_empty() {
            errors.add(
                "/spec/adHoc/rooms",
                Reason::SecretNotFound,
                "ad-hoc rooms are opened by the tenant's API keys, and it has none",
                "name a Secret in spec.auth.apiKeySecretRefs, or write adHoc.rooms: Forbidden",
            );
        }
        if super::pools_of(objects, tenant).is_empty() && spec.pools.is_empty() {
            errors.add(
                "/spec/pools",
                Reason::PoolNotFound,
                "there is no MediaPool that the tenant's rooms may use",
                "declare a MediaPool",
            );
        }
    }
}

/// What a host is checked against is text with certificates, of a size that records carry.
fn check_certificates(value: &[u8], pointer: &str, errors: &mut Collector<'_>) {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let message = if value.len() > limits::WEBHOOK_CA_BYTES_MAX {
        format!(
            "the certificates have {} bytes; at most {} are taken",
            value.len(),
            limits::WEBHOOK_CA_BYTES_MAX
        )
    } else if text.contains("-----BEGIN CERTIFICATE-----") {
        return;
    } else {
        "there is no certificate in it".to_owned()
    };
    errors.add(
        pointer,
        Reason::SecretInvalid,
        message,
        "write the certificate of the host's CA as PEM",
    );
}

/// The tenant's half of the handshake with its pools; the pool's half is its selector.
fn check_pools(objects: &Objects, tenant: &Tenant, errors: &mut Collector<'_>) {
    let labels = tenant.metadata.labels.clone().unwrap_or_default();
    for (index, wanted) in tenant.spec.pools.iter().enumerate() {
        let name = Name::new(&*wanted.namespace, &*wanted.name);
        match objects.pools.get(&name) {
            None if objects.is_unreadable("MediaPool", &name.namespace, &name.name) => {}
            None => {
                let known: Vec<String> = objects.pools.keys().map(Name::to_string).collect();
                errors.add(
                    format!("/spec/pools/{index}"),
                    Reason::PoolNotFound,
                    format!("there is no MediaPool `{name}`"),
                    one_of(known.iter().map(String::as_str), "declare a MediaPool of this name"),
                );
            }
            Some(pool) if !pool.spec.allows(&labels) => errors.add(
                format!("/spec/pools/{index}"),
                Reason::PoolNotAllowed,
                format!("the MediaPool `{name}` does not allow this tenant"),
                "give the tenant the labels that the pool's spec.tenancy.allowedTenants.selector wants",
            ),
            Some(_) => {}
        }
    }
}

/// A named issuer is one of the tenant's.
pub(super) fn check_issuer(
    tenant: &Tenant,
    issuer: Option<&str>,
    pointer: &str,
    errors: &mut Collector<'_>,
) {
    let issuers = &tenant.spec.auth.issuers;
    let Some(wanted) = issuer.filter(|wanted| !issuers.iter().any(|issuer| issuer.name == *wanted))
    else {
        return;
    };
    errors.add(
        format!("{pointer}/issuer"),
        Reason::IssuerMissing,
        format!("the tenant has no issuer `{wanted}`"),
        one_of(
            issuers.iter().map(|issuer| issuer.name.as_str()),
            "add it to spec.auth.issuers of the tenant, or leave issuer out",
        ),
    );
}

/// Namespaces belong to one tenant, and a tenant has no more conferences than it may.
pub(super) fn validate_together(objects: &Objects, found: &mut Found) {
    let mut namespaces = BTreeMap::new();
    for (name, tenant) in &objects.tenants {
        let namespace = namespace_of(name, tenant);
        let mut errors = found.errors_of("Tenant", &Name::new("", name.as_str()));
        let count = objects
            .conferences
            .keys()
            .filter(|at| at.namespace == namespace)
            .count();
        let most = tenant.spec.limits.conferences;
        if u32::try_from(count).is_ok_and(|count| count > most) {
            errors.add(
                "/spec/limits/conferences",
                Reason::LimitExceeded,
                format!("{count} conferences are declared in namespace `{namespace}`; the tenant may have {most}"),
                format!("raise limits.conferences to {count}, or declare fewer"),
            );
        }
        if let Some(first) = namespaces.insert(namespace.clone(), name) {
            errors.add(
                "/spec/namespace/name",
                Reason::NamespaceNotAdoptable,
                format!("namespace `{namespace}` belongs to Tenant `{first}`"),
                "give each tenant a namespace of its own",
            );
        }
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! Wire to core and back. What comes in is checked here, once: names, bounds, enums, schedules; an error names field and remedy.

use std::time::Duration;

use control_core::ids::{
    Epoch, IdError, Jurisdiction, NodeId, Pool, RoomId, RoomKey, RoomName, Secret, Site,
    TenantName, Uid,
};
use control_core::limits;
use control_core::record::{
    AdHoc, Address, ApiKey, BrandingText, Capacity, Conference, ConferenceSchedule, LocalText,
    Node, Notice, Opener, Record, RecordKind, RoleRule, Tenant, TenantLimits, Webhook,
};
use control_core::time::UnixMillis;
use plenum_proto::v1 as wire;
use plenum_schedule::{End, Schedule, ScheduleError, Text};

use crate::config::is_endpoint;

mod out;
mod place;
mod room;
#[cfg(test)]
mod tests;

pub use out::{conference_out, record_out, tenant_out};
use room::role;
pub use room::{facts, facts_out, policy, policy_out, role_out};

/// Why a message is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// An id breaks its rule.
    #[error("{field}: {source}")]
    Id {
        /// Field.
        field: &'static str,
        /// Which rule.
        #[source]
        source: IdError,
    },
    /// A list or text is too long.
    #[error("{field}: at most {max} are possible")]
    TooLong {
        /// Field.
        field: &'static str,
        /// Bound.
        max: usize,
    },
    /// A member that has to be there is not.
    #[error("{field}: is missing")]
    Missing {
        /// Field.
        field: &'static str,
    },
    /// A value is none of those that are possible.
    #[error("{field}: {rule}")]
    Value {
        /// Field.
        field: &'static str,
        /// What is possible.
        rule: &'static str,
    },
    /// The schedule cannot be evaluated.
    #[error("schedule: {0}")]
    Schedule(#[from] ScheduleError),
}

impl ConvertError {
    /// CamelCase reason.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Id { .. } => "InvalidId",
            Self::TooLong { .. } => "TooLong",
            Self::Missing { .. } => "Missing",
            Self::Value { .. } => "InvalidValue",
            Self::Schedule(_) => "InvalidSchedule",
        }
    }
}

type Result<T> = std::result::Result<T, ConvertError>;

fn id<T>(field: &'static str, parsed: std::result::Result<T, IdError>) -> Result<T> {
    parsed.map_err(|source| ConvertError::Id { field, source })
}

fn bounded(field: &'static str, len: usize, max: usize) -> Result<()> {
    if len > max {
        Err(ConvertError::TooLong { field, max })
    } else {
        Ok(())
    }
}

fn text(field: &'static str, text: String, max: usize) -> Result<String> {
    bounded(field, text.len(), max)?;
    Ok(text)
}

/// Uid of an object.
///
/// # Errors
/// [`ConvertError`].
pub fn uid(field: &'static str, uid: &str) -> Result<Uid> {
    id(field, Uid::parse(uid))
}

/// Key of a room.
///
/// # Errors
/// [`ConvertError`].
pub fn room_key(key: Option<wire::RoomKey>) -> Result<RoomKey> {
    let key = key.ok_or(ConvertError::Missing { field: "key" })?;
    id("key", RoomKey::parse(&key.tenant, &key.name))
}

/// Key of a room, for the wire.
#[must_use]
pub fn room_key_out(key: &RoomKey) -> wire::RoomKey {
    wire::RoomKey {
        tenant: key.tenant.to_string(),
        name: key.name.to_string(),
    }
}

/// Kind of a record.
///
/// # Errors
/// [`ConvertError`].
pub fn record_kind(kind: i32) -> Result<RecordKind> {
    match wire::RecordKind::try_from(kind) {
        Ok(wire::RecordKind::Tenant) => Ok(RecordKind::Tenant),
        Ok(wire::RecordKind::Conference) => Ok(RecordKind::Conference),
        Ok(wire::RecordKind::Node) => Ok(RecordKind::Node),
        _ => Err(ConvertError::Value {
            field: "kind",
            rule: "TENANT, CONFERENCE or NODE",
        }),
    }
}

/// Kind of a record, for the wire.
#[must_use]
pub const fn record_kind_out(kind: RecordKind) -> wire::RecordKind {
    match kind {
        RecordKind::Tenant => wire::RecordKind::Tenant,
        RecordKind::Conference => wire::RecordKind::Conference,
        RecordKind::Node => wire::RecordKind::Node,
    }
}

fn pool(field: &'static str, pool: &str) -> Result<Pool> {
    id(field, Pool::parse(pool))
}

/// A record of any kind; `None` where the item is none.
///
/// # Errors
/// [`ConvertError`].
pub fn record(item: wire::publication::Item) -> Result<Option<Record>> {
    Ok(match item {
        wire::publication::Item::Tenant(record) => Some(Record::Tenant(Box::new(tenant(record)?))),
        wire::publication::Item::Conference(record) => {
            Some(Record::Conference(Box::new(conference(record)?)))
        }
        wire::publication::Item::Node(record) => Some(Record::Node(node(record)?)),
        _ => None,
    })
}

/// A tenant.
///
/// # Errors
/// [`ConvertError`].
pub fn tenant(record: wire::TenantRecord) -> Result<Tenant> {
    bounded("api_keys", record.api_keys.len(), limits::API_KEYS_MAX)?;
    bounded(
        "branding_texts",
        record.branding_texts.len(),
        limits::TEXTS_MAX,
    )?;
    bounded("pools", record.pools.len(), limits::POOLS_MAX)?;
    bounded("webhooks", record.webhooks.len(), limits::WEBHOOKS_MAX)?;
    let ad_hoc = match wire::tenant_record::AdHoc::try_from(record.ad_hoc) {
        Ok(wire::tenant_record::AdHoc::Forbidden) => AdHoc::Forbidden,
        Ok(wire::tenant_record::AdHoc::OnCreate) => AdHoc::OnCreate,
        Ok(wire::tenant_record::AdHoc::OnJoin) => AdHoc::OnJoin,
        _ => {
            return Err(ConvertError::Value {
                field: "ad_hoc",
                rule: "ad-hoc rooms are FORBIDDEN, ON_CREATE or ON_JOIN",
            });
        }
    };
    let ad_hoc_policy = record.ad_hoc_policy.map(policy).transpose()?;
    if ad_hoc != AdHoc::Forbidden && ad_hoc_policy.is_none() {
        return Err(ConvertError::Missing {
            field: "ad_hoc_policy",
        });
    }
    let api_keys: Result<Vec<ApiKey>> = record.api_keys.into_iter().map(api_key).collect();
    let texts: Result<Vec<BrandingText>> = record
        .branding_texts
        .into_iter()
        .map(|own| {
            Ok(BrandingText {
                key: text("branding_texts.key", own.key, 64)?,
                lang: text("branding_texts.lang", own.lang, 35)?,
                text: text("branding_texts.text", own.text, limits::TEXT_BYTES_MAX)?,
            })
        })
        .collect();
    let pools: Result<Vec<Pool>> = record
        .pools
        .iter()
        .map(|name| pool("pools", name))
        .collect();
    let residency = place::residency(
        &record.sites_allowed,
        &record.sites_preferred,
        &record.jurisdictions,
    )?;
    let webhooks: Result<Vec<Webhook>> = record.webhooks.into_iter().map(webhook).collect();
    bounded("link_key", record.link_key.len(), 256)?;
    let limits_in = record.limits.unwrap_or_default();
    Ok(Tenant {
        uid: uid("uid", &record.uid)?,
        name: id("name", TenantName::parse(&record.name))?,
        revision: text("revision", record.revision, 128)?,
        display_name: text(
            "display_name",
            record.display_name,
            limits::DISPLAY_NAME_BYTES_MAX,
        )?,
        api_keys: api_keys?,
        suspended: record.suspended,
        suspend_terminate: record.suspend_terminate,
        active_from: (record.active_from_unix_ms != 0)
            .then_some(UnixMillis(record.active_from_unix_ms)),
        ad_hoc,
        ad_hoc_policy,
        branding_name: text(
            "branding_name",
            record.branding_name,
            limits::DISPLAY_NAME_BYTES_MAX,
        )?,
        branding_colour: text("branding_colour", record.branding_colour, 7)?,
        branding_texts: texts?,
        limits: TenantLimits {
            rooms: limits_in.concurrent_rooms,
            participants: limits_in.participants,
            participants_per_room: limits_in.participants_per_room,
            publishers_per_room: limits_in.publishers_per_room,
            publishers: limits_in.publishers,
            egress_mbps: limits_in.egress_mbps,
        },
        link_key: Secret::new(&record.link_key),
        pools: pools?,
        residency,
        dedicated_nodes: record.dedicated_nodes,
        webhooks: webhooks?,
    })
}

fn api_key(api_key: wire::ApiKey) -> Result<ApiKey> {
    if api_key.key.is_empty() || api_key.key.starts_with(OWN_ISSUER) {
        return Err(ConvertError::Value {
            field: "api_keys.key",
            rule: "a key is not empty and does not begin with \"plenum:\"",
        });
    }
    if api_key.secret.len() < limits::API_SECRET_BYTES_MIN {
        return Err(ConvertError::Value {
            field: "api_keys.secret",
            rule: "a secret has at least 16 bytes",
        });
    }
    bounded(
        "api_keys.secret",
        api_key.secret.len(),
        limits::API_SECRET_BYTES_MAX,
    )?;
    Ok(ApiKey {
        key: text("api_keys.key", api_key.key, 256)?,
        secret: Secret::new(&api_key.secret),
    })
}

fn webhook(webhook: wire::Webhook) -> Result<Webhook> {
    bounded(
        "webhooks.events",
        webhook.events.len(),
        limits::WEBHOOK_EVENTS_MAX,
    )?;
    let name = text("webhooks.name", webhook.name, 63)?;
    // The name becomes part of keys and metric labels.
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || !name.bytes().all(word) {
        return Err(ConvertError::Value {
            field: "webhooks.name",
            rule: "lower-case letters, digits and '-'",
        });
    }
    let url = text("webhooks.url", webhook.url, limits::WEBHOOK_URL_BYTES_MAX)?;
    if !url.starts_with("https://") || url.chars().any(|letter| letter.is_control()) {
        return Err(ConvertError::Value {
            field: "webhooks.url",
            rule: "a webhook is reached by https",
        });
    }
    let events: Result<Vec<String>> = webhook
        .events
        .into_iter()
        .map(|event| text("webhooks.events", event, 64))
        .collect();
    Ok(Webhook {
        name,
        url,
        events: events?,
        signing_key: text("webhooks.signing_key", webhook.signing_key, 256)?,
        ca_pem: text(
            "webhooks.ca_pem",
            webhook.ca_pem,
            limits::WEBHOOK_CA_BYTES_MAX,
        )?,
    })
}

/// Issuer of the control plane's own tokens; no tenant's key may look like one.
const OWN_ISSUER: &str = "plenum:";

/// A conference.
///
/// # Errors
/// [`ConvertError`].
pub fn conference(record: wire::ConferenceRecord) -> Result<Conference> {
    bounded("openers", record.openers.len(), limits::OPENERS_MAX)?;
    bounded("roles", record.roles.len(), limits::ROLE_RULES_MAX)?;
    bounded("notices", record.notices.len(), limits::NOTICES_MAX)?;
    let openers: Result<Vec<Opener>> = record.openers.into_iter().map(opener).collect();
    let roles: Result<Vec<RoleRule>> = record.roles.into_iter().map(role_rule).collect();
    let notices: Result<Vec<Notice>> = record.notices.into_iter().map(notice).collect();
    let hash = &record.password_hash;
    let is_phc = hash.starts_with("$argon2id$") && hash.len() <= 512;
    if !(hash.is_empty() || is_phc) {
        return Err(ConvertError::Value {
            field: "password_hash",
            rule: "a password comes as argon2id in PHC string form",
        });
    }
    let room_policy = policy(
        record
            .policy
            .ok_or(ConvertError::Missing { field: "policy" })?,
    )?;
    if !room_policy.declared {
        return Err(ConvertError::Value {
            field: "policy.declared",
            rule: "the policy of a conference is a declared one",
        });
    }
    Ok(Conference {
        uid: uid("uid", &record.uid)?,
        revision: text("revision", record.revision, 128)?,
        tenant: id("tenant", TenantName::parse(&record.tenant))?,
        namespace: text("namespace", record.namespace, 253)?,
        name: text("name", record.name, 253)?,
        room_name: id("room_name", RoomName::parse(&record.room_name))?,
        room_id: id("room_id", RoomId::parse(&record.room_id))?,
        display_name: text(
            "display_name",
            record.display_name,
            limits::DISPLAY_NAME_BYTES_MAX,
        )?,
        openers: openers?,
        password_hash: record.password_hash,
        roles: roles?,
        notices: notices?,
        schedule: record.schedule.map(|value| schedule(&value)).transpose()?,
        policy: room_policy,
        suspended: record.suspended,
        pool: if record.pool.is_empty() {
            None
        } else {
            Some(pool("pool", &record.pool)?)
        },
        sites: place::sites("sites", &record.sites)?,
        strategy: place::strategy(record.topology)?,
        reserve_participants: record.reserve_participants,
    })
}

fn opener(opener: wire::Opener) -> Result<Opener> {
    match opener.who {
        Some(wire::opener::Who::Subject(subject)) if !subject.is_empty() => {
            Ok(Opener::Subject(text("openers.subject", subject, 512)?))
        }
        Some(wire::opener::Who::KeySha256(hash)) => {
            hash.try_into()
                .map(Opener::KeySha256)
                .map_err(|_| ConvertError::Value {
                    field: "openers.key_sha256",
                    rule: "a SHA-256 hash has 32 bytes",
                })
        }
        _ => Err(ConvertError::Missing {
            field: "openers.who",
        }),
    }
}

fn role_rule(rule: wire::RoleRule) -> Result<RoleRule> {
    bounded(
        "roles.subjects",
        rule.subjects.len(),
        limits::ROLE_NAMES_MAX,
    )?;
    bounded("roles.groups", rule.groups.len(), limits::ROLE_NAMES_MAX)?;
    Ok(RoleRule {
        role: role("roles.role", rule.role)?,
        subjects: rule.subjects,
        groups: rule.groups,
    })
}

fn notice(notice: wire::Notice) -> Result<Notice> {
    bounded("notices.texts", notice.texts.len(), limits::TEXTS_MAX)?;
    let texts: Result<Vec<LocalText>> = notice
        .texts
        .into_iter()
        .map(|local| {
            Ok(LocalText {
                lang: text("notices.texts.lang", local.lang, 35)?,
                text: text("notices.texts.text", local.text, limits::TEXT_BYTES_MAX)?,
            })
        })
        .collect();
    Ok(Notice {
        id: text("notices.id", notice.id, 128)?,
        texts: texts?,
        acknowledge: notice.acknowledge,
    })
}

fn schedule(value: &wire::Schedule) -> Result<ConferenceSchedule> {
    let end = match (value.duration_ms, value.until.as_str()) {
        (0, "") => return Err(ScheduleError::EndNotUnique.into()),
        (millis, "") => End::After(Duration::from_millis(millis)),
        (0, until) => End::parse_until(until)?,
        _ => return Err(ScheduleError::EndNotUnique.into()),
    };
    let recurrence = (!value.recurrence.is_empty()).then_some(value.recurrence.as_str());
    bounded("schedule.recurrence", value.recurrence.len(), 1_024)?;
    let text = Text {
        start: &value.start,
        time_zone: &value.time_zone,
        end,
        recurrence,
        except: &value.except,
    };
    const MARGIN_MAX: Duration = Duration::from_secs(24 * 3_600);
    let margin = |field: &'static str, millis: u64| {
        let span = Duration::from_millis(millis);
        if span > MARGIN_MAX {
            Err(ConvertError::Value {
                field,
                rule: "at most 24 hours",
            })
        } else {
            Ok(span)
        }
    };
    Ok(ConferenceSchedule {
        windows: Schedule::parse(&text)?,
        open_before: margin("schedule.open_before_ms", value.open_before_ms)?,
        close_after: margin("schedule.close_after_ms", value.close_after_ms)?,
    })
}

/// A node.
///
/// # Errors
/// [`ConvertError`].
pub fn node(facts: wire::NodeFacts) -> Result<Node> {
    bounded("addresses", facts.addresses.len(), limits::ADDRESSES_MAX)?;
    let addresses: Result<Vec<Address>> = facts
        .addresses
        .into_iter()
        .map(|address| {
            let wrong = ConvertError::Value {
                field: "addresses",
                rule: "an address is an IP address and a port up to 65535",
            };
            let ip = address.ip.parse().map_err(|_| wrong.clone())?;
            Ok(Address {
                ip,
                port: u16::try_from(address.port).map_err(|_| wrong)?,
            })
        })
        .collect();
    if !facts.grpc_endpoint.is_empty()
        && !is_endpoint(&facts.grpc_endpoint)
        && !facts.grpc_endpoint.ends_with(":0")
    {
        return Err(ConvertError::Value {
            field: "grpc_endpoint",
            rule: "an endpoint is HOST:PORT",
        });
    }
    let capacity = facts
        .capacity
        .ok_or(ConvertError::Missing { field: "capacity" })?;
    let jurisdiction = match facts.jurisdiction.as_str() {
        "" => None,
        code => Some(id("jurisdiction", Jurisdiction::parse(code))?),
    };
    Ok(Node {
        uid: uid("uid", &facts.uid)?,
        node_id: id("node_id", NodeId::parse(&facts.node_id))?,
        site: id("site", Site::parse(&facts.site))?,
        pool: pool("pool", &facts.pool)?,
        jurisdiction,
        epoch: Epoch(facts.epoch),
        addresses: addresses?,
        capacity: Capacity {
            rooms: capacity.rooms,
            participants: capacity.participants,
            egress_mbps: capacity.egress_mbps,
        },
        drain_timeout: Duration::from_millis(facts.drain_timeout_ms),
        grpc_endpoint: facts.grpc_endpoint,
        accepting: facts.accepting,
        srtp_legacy_allowed: facts.srtp_legacy_allowed,
        maintenance_at_unix_ms: facts.maintenance_at_unix_ms,
        revision: text("revision", facts.revision, 128)?,
    })
}

/// A node's facts, for the node itself.
#[must_use]
pub fn node_out(node: &Node) -> wire::NodeFacts {
    wire::NodeFacts {
        uid: node.uid.to_string(),
        node_id: node.node_id.to_string(),
        site: node.site.to_string(),
        pool: node.pool.to_string(),
        jurisdiction: node
            .jurisdiction
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        epoch: node.epoch.0,
        addresses: node
            .addresses
            .iter()
            .map(|address| wire::Address {
                ip: address.ip.to_string(),
                port: u32::from(address.port),
            })
            .collect(),
        capacity: Some(wire::NodeCapacity {
            rooms: node.capacity.rooms,
            participants: node.capacity.participants,
            egress_mbps: node.capacity.egress_mbps,
        }),
        drain_timeout_ms: u64::try_from(node.drain_timeout.as_millis()).unwrap_or(u64::MAX),
        grpc_endpoint: node.grpc_endpoint.clone(),
        accepting: node.accepting,
        srtp_legacy_allowed: node.srtp_legacy_allowed,
        maintenance_at_unix_ms: node.maintenance_at_unix_ms,
        revision: node.revision.clone(),
    }
}

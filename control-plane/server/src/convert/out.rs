// SPDX-License-Identifier: EUPL-1.2
//! Records as they came, to be kept by the store and read again by another replica.

use control_core::placement::Strategy;
use control_core::record::{
    AdHoc, Conference, ConferenceSchedule, Notice, Opener, Record, RoleRule, Tenant, TenantLimits,
    Webhook,
};
use plenum_proto::v1 as wire;
use plenum_schedule::End;

use super::{node_out, policy_out, role_out};

/// A tenant, with its secrets: for the operator's own eyes, or sealed.
#[must_use]
pub fn tenant_out(tenant: &Tenant) -> wire::TenantRecord {
    let texts = |sites: &[control_core::ids::Site]| sites.iter().map(ToString::to_string).collect();
    wire::TenantRecord {
        uid: tenant.uid.to_string(),
        name: tenant.name.to_string(),
        revision: tenant.revision.clone(),
        display_name: tenant.display_name.clone(),
        api_keys: tenant
            .api_keys
            .iter()
            .map(|key| wire::ApiKey {
                key: key.key.clone(),
                secret: key.secret.expose().to_vec(),
            })
            .collect(),
        suspended: tenant.suspended,
        suspend_terminate: tenant.suspend_terminate,
        active_from_unix_ms: tenant.active_from.map_or(0, |from| from.0),
        ad_hoc: match tenant.ad_hoc {
            AdHoc::Forbidden => wire::tenant_record::AdHoc::Forbidden,
            AdHoc::OnCreate => wire::tenant_record::AdHoc::OnCreate,
            AdHoc::OnJoin => wire::tenant_record::AdHoc::OnJoin,
        }
        .into(),
        ad_hoc_policy: tenant.ad_hoc_policy.as_ref().map(policy_out),
        branding_name: tenant.branding_name.clone(),
        branding_colour: tenant.branding_colour.clone(),
        branding_texts: tenant
            .branding_texts
            .iter()
            .map(|own| wire::BrandingText {
                key: own.key.clone(),
                lang: own.lang.clone(),
                text: own.text.clone(),
            })
            .collect(),
        limits: Some(limits_out(&tenant.limits)),
        link_key: tenant.link_key.expose().to_vec(),
        pools: tenant.pools.iter().map(ToString::to_string).collect(),
        sites_allowed: texts(&tenant.residency.sites),
        sites_preferred: texts(&tenant.residency.preferred),
        jurisdictions: tenant
            .residency
            .jurisdictions
            .iter()
            .map(ToString::to_string)
            .collect(),
        dedicated_nodes: tenant.dedicated_nodes,
        webhooks: tenant.webhooks.iter().map(webhook_out).collect(),
    }
}

fn limits_out(limits: &TenantLimits) -> wire::Limits {
    let TenantLimits {
        rooms,
        participants,
        participants_per_room,
        publishers_per_room,
        publishers,
        egress_mbps,
    } = *limits;
    wire::Limits {
        concurrent_rooms: rooms,
        participants,
        participants_per_room,
        publishers_per_room,
        publishers,
        egress_mbps,
    }
}

fn webhook_out(webhook: &Webhook) -> wire::Webhook {
    wire::Webhook {
        name: webhook.name.clone(),
        url: webhook.url.clone(),
        events: webhook.events.clone(),
        signing_key: webhook.signing_key.clone(),
        ca_pem: webhook.ca_pem.clone(),
    }
}

/// A conference.
#[must_use]
pub fn conference_out(conference: &Conference) -> wire::ConferenceRecord {
    wire::ConferenceRecord {
        uid: conference.uid.to_string(),
        revision: conference.revision.clone(),
        tenant: conference.tenant.to_string(),
        namespace: conference.namespace.clone(),
        name: conference.name.clone(),
        room_name: conference.room_name.to_string(),
        room_id: conference.room_id.to_string(),
        display_name: conference.display_name.clone(),
        openers: conference.openers.iter().map(opener_out).collect(),
        password_hash: conference.password_hash.clone(),
        roles: conference.roles.iter().map(role_rule_out).collect(),
        notices: conference.notices.iter().map(notice_out).collect(),
        schedule: conference.schedule.as_ref().map(schedule_out),
        policy: Some(policy_out(&conference.policy)),
        suspended: conference.suspended,
        pool: conference
            .pool
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        sites: conference.sites.iter().map(ToString::to_string).collect(),
        topology: match conference.strategy {
            Strategy::Spread => wire::conference_record::Topology::Spread,
            Strategy::Pack => wire::conference_record::Topology::Pack,
        }
        .into(),
        reserve_participants: conference.reserve_participants,
    }
}

fn opener_out(opener: &Opener) -> wire::Opener {
    wire::Opener {
        who: Some(match opener {
            Opener::Subject(subject) => wire::opener::Who::Subject(subject.clone()),
            Opener::KeySha256(hash) => wire::opener::Who::KeySha256(hash.to_vec()),
        }),
    }
}

fn role_rule_out(rule: &RoleRule) -> wire::RoleRule {
    wire::RoleRule {
        role: role_out(rule.role).into(),
        subjects: rule.subjects.clone(),
        groups: rule.groups.clone(),
    }
}

fn notice_out(notice: &Notice) -> wire::Notice {
    wire::Notice {
        id: notice.id.clone(),
        texts: notice
            .texts
            .iter()
            .map(|local| wire::LocalText {
                lang: local.lang.clone(),
                text: local.text.clone(),
            })
            .collect(),
        acknowledge: notice.acknowledge,
    }
}

fn schedule_out(schedule: &ConferenceSchedule) -> wire::Schedule {
    let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let written = schedule.windows.written();
    wire::Schedule {
        start: written.start,
        time_zone: written.time_zone,
        duration_ms: match written.end {
            End::After(length) => millis(length),
            End::Until(_) => 0,
        },
        until: written.end.until().unwrap_or_default(),
        recurrence: written.recurrence.unwrap_or_default(),
        except: written.except,
        open_before_ms: millis(schedule.open_before),
        close_after_ms: millis(schedule.close_after),
    }
}

/// A record of any kind.
#[must_use]
pub fn record_out(record: &Record) -> wire::publication::Item {
    match record {
        Record::Tenant(tenant) => wire::publication::Item::Tenant(tenant_out(tenant)),
        Record::Conference(conference) => {
            wire::publication::Item::Conference(conference_out(conference))
        }
        Record::Node(node) => wire::publication::Item::Node(node_out(node)),
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! Records as they go over the wire, and the slow hashes of passwords that go with them.

use std::collections::BTreeMap;

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher as _, Version, password_hash::phc::PasswordHash,
};
use operator_core::{
    Plan, Record, RecordKind, digest,
    records::{
        ConferenceRecord, LimitsRecord, NodeRecord, OpenerRecord, RoleRecord, RoomPolicy,
        ScheduleRecord, TenantRecord, WebhookRecord,
    },
};
use plenum_api::{
    conference::{Lobby, Topology},
    conference_class::{Chat, Role},
    tenant::AdHocRooms,
};
use plenum_proto::v1::{self, publication::Item};

/// Slow hashes by conference; a hash holds as long as the record's revision does.
#[derive(Clone, Default)]
pub struct Hashes(BTreeMap<String, (String, String)>);

/// A password could not be hashed.
#[derive(Debug, thiserror::Error)]
#[error("cannot hash the password of {0}")]
pub struct HashError(String);

impl Hashes {
    /// Hashes for all conferences of a plan; those that are known already cost nothing. Salts come from the password and
    /// the tenant's link key, so that a record of one revision is always the same.
    ///
    /// # Errors
    /// [`HashError`] with the conference.
    pub fn of(&self, plan: &Plan) -> Result<Self, HashError> {
        let keys: BTreeMap<&str, &[u8]> = plan
            .tenants
            .values()
            .map(|tenant| (tenant.name.as_str(), tenant.link_key.0.as_slice()))
            .collect();
        let jobs: Vec<&ConferenceRecord> = plan.conferences.values().collect();
        let threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(jobs.len().max(1));
        let parts = std::thread::scope(|scope| {
            let chunks = jobs.chunks(jobs.len().div_ceil(threads).max(1));
            let running: Vec<_> = chunks
                .map(|chunk| {
                    scope.spawn(|| {
                        chunk
                            .iter()
                            .map(|record| self.hash(record, &keys))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            running
                .into_iter()
                .flat_map(|part| part.join().unwrap_or_default())
                .collect::<Vec<_>>()
        });
        let hashes = parts.into_iter().collect::<Result<BTreeMap<_, _>, _>>()?;
        match jobs.iter().find(|record| !hashes.contains_key(&record.uid)) {
            Some(record) => Err(HashError(format!("{}/{}", record.namespace, record.name))),
            None => Ok(Self(hashes)),
        }
    }

    fn hash(
        &self,
        record: &ConferenceRecord,
        keys: &BTreeMap<&str, &[u8]>,
    ) -> Result<(String, (String, String)), HashError> {
        let key = keys
            .get(record.tenant.as_str())
            .copied()
            .unwrap_or_default();
        let message = format!("password salt\0{}\0{}", record.uid, record.password.0);
        let salt = digest::hmac_sha256(key, message.as_bytes());
        // The salt stands for the password: both change together.
        let fresh = data_encoding::HEXLOWER.encode(&salt);
        if let Some(known) = self.0.get(&record.uid).filter(|(stamp, _)| *stamp == fresh) {
            return Ok((record.uid.clone(), known.clone()));
        }
        let argon = if record.password_generated {
            generated_cost()
        } else {
            Argon2::default()
        };
        let hashed: Result<PasswordHash, _> =
            argon.hash_password_with_salt(record.password.0.as_bytes(), &salt[..16]);
        let hash =
            hashed.map_err(|_| HashError(format!("{}/{}", record.namespace, record.name)))?;
        Ok((record.uid.clone(), (fresh, hash.to_string())))
    }

    fn get(&self, uid: &str) -> String {
        self.0
            .get(uid)
            .map(|(_, hash)| hash.clone())
            .unwrap_or_default()
    }
}

/// Cost for passwords with 84 random bits: those are not guessed at any cost, and a town with 1,500 conferences need not
/// wait for its first start, nor its pupils at eight in the morning. What people have chosen costs the full price.
fn generated_cost() -> Argon2<'static> {
    Params::new(GENERATED_KIB, 1, 1, None)
        .map(|params| Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
        .unwrap_or_default()
}

const GENERATED_KIB: u32 = 2048;

/// A record as an item of the stream.
#[must_use]
pub fn item(record: Record<'_>, hashes: &Hashes) -> Item {
    match record {
        Record::Tenant(record) => Item::Tenant(tenant(record)),
        Record::Conference(record) => Item::Conference(conference(record, hashes.get(&record.uid))),
        Record::Node(record) => Item::Node(node(record)),
    }
}

/// A retraction as an item of the stream.
#[must_use]
pub fn retraction(kind: RecordKind, uid: &str) -> Item {
    Item::Retract(reference(kind, uid))
}

/// What was published of a record before stays.
#[must_use]
pub fn keep(kind: RecordKind, uid: &str) -> Item {
    Item::Keep(reference(kind, uid))
}

fn reference(kind: RecordKind, uid: &str) -> v1::Retraction {
    let kind = match kind {
        RecordKind::Tenant => v1::RecordKind::Tenant,
        RecordKind::Conference => v1::RecordKind::Conference,
        RecordKind::Node => v1::RecordKind::Node,
    };
    v1::Retraction {
        kind: kind.into(),
        uid: uid.to_owned(),
    }
}

fn tenant(record: &TenantRecord) -> v1::TenantRecord {
    let TenantRecord {
        uid,
        name,
        revision,
        display_name,
        api_keys,
        suspended,
        suspend_terminate,
        active_from_unix_ms,
        ad_hoc,
        ad_hoc_policy,
        branding_name,
        branding_colour,
        branding_texts,
        limits,
        link_key,
        pools,
        sites_allowed,
        sites_preferred,
        jurisdictions,
        dedicated_nodes,
        webhooks,
    } = record;
    let LimitsRecord {
        concurrent_rooms,
        participants,
        participants_per_room,
        publishers_per_room,
        publishers,
        egress_mbps,
    } = *limits;
    v1::TenantRecord {
        uid: uid.clone(),
        name: name.clone(),
        revision: revision.clone(),
        display_name: display_name.clone(),
        api_keys: api_keys
            .iter()
            .map(|key| v1::ApiKey {
                key: key.key.clone(),
                secret: key.secret.0.clone(),
            })
            .collect(),
        suspended: *suspended,
        suspend_terminate: *suspend_terminate,
        active_from_unix_ms: *active_from_unix_ms,
        ad_hoc: match ad_hoc {
            AdHocRooms::Forbidden => v1::tenant_record::AdHoc::Forbidden,
            AdHocRooms::OnCreate => v1::tenant_record::AdHoc::OnCreate,
            AdHocRooms::OnJoin => v1::tenant_record::AdHoc::OnJoin,
        }
        .into(),
        ad_hoc_policy: ad_hoc_policy.as_ref().map(policy),
        branding_name: branding_name.clone(),
        branding_colour: branding_colour.clone(),
        branding_texts: branding_texts
            .iter()
            .map(|text| v1::BrandingText {
                key: text.key.as_str().to_owned(),
                lang: text.lang.clone(),
                text: text.text.clone(),
            })
            .collect(),
        limits: Some(v1::Limits {
            concurrent_rooms,
            participants,
            participants_per_room,
            publishers_per_room,
            publishers,
            egress_mbps,
        }),
        link_key: link_key.0.clone(),
        pools: pools.clone(),
        sites_allowed: sites_allowed.clone(),
        sites_preferred: sites_preferred.clone(),
        jurisdictions: jurisdictions.clone(),
        dedicated_nodes: *dedicated_nodes,
        webhooks: webhooks.iter().map(webhook).collect(),
    }
}

fn webhook(record: &WebhookRecord) -> v1::Webhook {
    let WebhookRecord {
        name,
        url,
        events,
        signing_key,
        ca_pem,
    } = record;
    v1::Webhook {
        name: name.clone(),
        url: url.clone(),
        events: events
            .iter()
            .map(|event| event.as_str().to_owned())
            .collect(),
        signing_key: signing_key.clone(),
        ca_pem: ca_pem.clone(),
    }
}

fn conference(record: &ConferenceRecord, password_hash: String) -> v1::ConferenceRecord {
    let ConferenceRecord {
        uid,
        revision,
        tenant,
        namespace,
        name,
        room_name,
        room_id,
        display_name,
        openers,
        password: _,
        password_generated: _,
        roles,
        notices,
        schedule,
        policy: of_room,
        suspended,
        pool,
        sites,
        topology,
        reserve_participants,
    } = record;
    v1::ConferenceRecord {
        uid: uid.clone(),
        revision: revision.clone(),
        tenant: tenant.clone(),
        namespace: namespace.clone(),
        name: name.clone(),
        room_name: room_name.clone(),
        room_id: room_id.clone(),
        display_name: display_name.clone(),
        openers: openers
            .iter()
            .map(|opener| v1::Opener {
                who: Some(match opener {
                    OpenerRecord::Subject(subject) => v1::opener::Who::Subject(subject.clone()),
                    OpenerRecord::KeySha256(hash) => v1::opener::Who::KeySha256(hash.to_vec()),
                }),
            })
            .collect(),
        password_hash,
        roles: roles
            .iter()
            .map(
                |RoleRecord {
                     role: of,
                     subjects,
                     groups,
                 }| v1::RoleRule {
                    role: role(*of).into(),
                    subjects: subjects.clone(),
                    groups: groups.clone(),
                },
            )
            .collect(),
        notices: notices
            .iter()
            .map(|notice| v1::Notice {
                id: notice.id.clone(),
                texts: notice
                    .texts
                    .iter()
                    .map(|(lang, text)| v1::LocalText {
                        lang: lang.clone(),
                        text: text.clone(),
                    })
                    .collect(),
                acknowledge: notice.acknowledge,
            })
            .collect(),
        schedule: schedule.as_ref().map(|schedule| {
            let ScheduleRecord {
                start,
                time_zone,
                duration_ms,
                until,
                recurrence,
                except,
                open_before_ms,
                close_after_ms,
            } = schedule.clone();
            v1::Schedule {
                start,
                time_zone,
                duration_ms,
                until,
                recurrence,
                except,
                open_before_ms,
                close_after_ms,
            }
        }),
        policy: Some(policy(of_room)),
        suspended: *suspended,
        pool: pool.clone(),
        sites: sites.clone(),
        topology: match topology {
            None => v1::conference_record::Topology::Unspecified,
            Some(Topology::Spread) => v1::conference_record::Topology::Spread,
            Some(Topology::Pack) => v1::conference_record::Topology::Pack,
        }
        .into(),
        reserve_participants: *reserve_participants,
    }
}

fn policy(policy: &RoomPolicy) -> v1::RoomPolicy {
    let RoomPolicy {
        declared,
        lobby,
        guests_allowed,
        permissions,
        max_participants,
        max_publishers,
        empty_timeout_ms,
        departure_timeout_ms,
        max_duration_ms,
        max_bitrate_kbps,
        screen_share,
        e2ee_required,
        codecs,
        revision,
    } = policy;
    v1::RoomPolicy {
        declared: *declared,
        lobby: match lobby {
            Lobby::Off => v1::LobbyRule::LobbyOff,
            Lobby::Guests => v1::LobbyRule::LobbyGuests,
            Lobby::Everyone => v1::LobbyRule::LobbyEveryone,
        }
        .into(),
        guests_allowed: *guests_allowed,
        permissions: permissions
            .iter()
            .map(|cells| v1::Permission {
                role: role(cells.role).into(),
                microphone: cells.microphone,
                camera: cells.camera,
                screen_share: cells.screen_share,
                chat: match cells.chat {
                    Chat::Everyone => v1::ChatRule::ChatEveryone,
                    Chat::Moderators => v1::ChatRule::ChatModerators,
                    Chat::Off => v1::ChatRule::ChatOff,
                }
                .into(),
                moderate: cells.moderate,
                record: cells.record,
                enter_muted: cells.enter_muted,
            })
            .collect(),
        max_participants: *max_participants,
        max_publishers: *max_publishers,
        empty_timeout_ms: *empty_timeout_ms,
        departure_timeout_ms: *departure_timeout_ms,
        max_duration_ms: *max_duration_ms,
        max_bitrate_kbps: *max_bitrate_kbps,
        screen_share: *screen_share,
        e2ee_required: *e2ee_required,
        codecs: codecs.clone(),
        revision: revision.clone(),
    }
}

fn role(role: Role) -> v1::Role {
    match role {
        Role::Moderator => v1::Role::Moderator,
        Role::Presenter => v1::Role::Presenter,
        Role::Participant => v1::Role::Participant,
        Role::Guest => v1::Role::Guest,
    }
}

fn node(record: &NodeRecord) -> v1::NodeFacts {
    let NodeRecord {
        uid,
        node_id,
        site,
        pool,
        jurisdiction,
        epoch,
        addresses,
        rooms,
        participants,
        egress_mbps,
        drain_timeout_ms,
        grpc_endpoint,
        accepting,
        srtp_legacy_allowed,
        maintenance_at_unix_ms,
        revision,
    } = record;
    v1::NodeFacts {
        uid: uid.clone(),
        node_id: node_id.clone(),
        site: site.clone(),
        pool: pool.clone(),
        jurisdiction: jurisdiction.clone(),
        epoch: *epoch,
        addresses: addresses
            .iter()
            .map(|(ip, port)| v1::Address {
                ip: ip.to_string(),
                port: u32::from(*port),
            })
            .collect(),
        capacity: Some(v1::NodeCapacity {
            rooms: *rooms,
            participants: *participants,
            egress_mbps: *egress_mbps,
        }),
        drain_timeout_ms: *drain_timeout_ms,
        grpc_endpoint: grpc_endpoint.clone(),
        accepting: *accepting,
        srtp_legacy_allowed: *srtp_legacy_allowed,
        maintenance_at_unix_ms: *maintenance_at_unix_ms,
        revision: revision.clone(),
    }
}

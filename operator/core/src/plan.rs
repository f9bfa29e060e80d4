// SPDX-License-Identifier: EUPL-1.2
//! From valid objects to what runs and what is published: nodes, Secrets to make, records, and the way between two plans.

mod nodes;
mod policy;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use plenum_api::{
    MediaPoolSpec, Tenant,
    conference::{BoundRole, ConferenceSpec, OpenerType},
    conference_class::Role,
    media_pool::{IpFamily, Mux, PortRange},
    names,
    tenant::{AdHocRooms, Isolation, SuspendMode, TenantSpec},
};

use crate::{
    digest, limits,
    objects::{Confidential, Name, Objects, SecretData, namespace_of},
    records::{
        ApiKey, BrandingTextRecord, ConferenceRecord, LimitsRecord, NodeRecord, NoticeRecord,
        OpenerRecord, RoleRecord, ScheduleRecord, TenantRecord, WebhookRecord,
    },
    tenant::leaving::{is_forced, is_leaving},
    validate::{Valid, class_of, pool_of, pools_of, room_name},
};
pub use nodes::{DeclaredNode, record as node_record};
pub use policy::millis;
pub(crate) use policy::reserved;

/// One value of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretKey {
    /// The Secret.
    pub secret: Name,
    /// Key inside it.
    pub key: String,
}

/// A node that a pool wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedNode {
    /// Pool.
    pub pool: Name,
    /// Name of the node, `<pool>-<index>`.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Range its ports come from.
    pub ports: PortRange,
    /// How shards share ports.
    pub mux: Mux,
    /// Threads that forward.
    pub shards: u8,
    /// Families it offers.
    pub families: Vec<IpFamily>,
}

impl WantedNode {
    /// Ports it needs.
    #[must_use]
    pub fn ports_needed(&self) -> u16 {
        match self.mux {
            Mux::SinglePort => 1,
            Mux::PortPerShard => u16::from(self.shards),
        }
    }
}

/// What the shell has to bring before there can be a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Tenants that need a link key.
    pub link_keys: Vec<String>,
    /// Conferences that need a password.
    pub passwords: Vec<Name>,
    /// Keys of openers that no Secret holds.
    pub opener_keys: Vec<SecretKey>,
    /// Nodes.
    pub nodes: Vec<WantedNode>,
}

/// What the shell has made, or kept from before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generated {
    /// By name of the tenant.
    pub link_keys: BTreeMap<String, Confidential<Vec<u8>>>,
    /// By conference.
    pub passwords: BTreeMap<Name, Confidential<String>>,
    /// By Secret and key.
    pub opener_keys: BTreeMap<SecretKey, Confidential<String>>,
}

/// Where a running node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// Incarnation.
    pub epoch: u64,
    /// Media.
    pub addresses: Vec<(IpAddr, u16)>,
    /// Its own service, `host:port`.
    pub grpc_endpoint: String,
    /// Takes new rooms.
    pub accepting: bool,
}

/// All records, by uid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Tenants.
    pub tenants: BTreeMap<String, TenantRecord>,
    /// Conferences.
    pub conferences: BTreeMap<String, ConferenceRecord>,
    /// Nodes.
    pub nodes: BTreeMap<String, NodeRecord>,
    /// Objects that are there and whose record cannot be made now: what was published of them before stays.
    pub kept: BTreeSet<(RecordKind, String)>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The shell left out what `wants` named.
    #[error("no {what} was given for {of}")]
    Missing {
        /// What.
        what: &'static str,
        /// For which object.
        of: String,
    },
}

/// A record of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A tenant.
    Tenant(&'a TenantRecord),
    /// A conference.
    Conference(&'a ConferenceRecord),
    /// A node.
    Node(&'a NodeRecord),
}

/// Kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// A tenant.
    Tenant,
    /// A conference.
    Conference,
    /// A node.
    Node,
}

/// What leads from one plan to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff<'a> {
    /// To take back, before anything is published: a name may pass from one object to another.
    pub retract: Vec<(RecordKind, String)>,
    /// To publish: tenants, nodes, conferences.
    pub publish: Vec<Record<'a>>,
}

impl Diff<'_> {
    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.retract.is_empty() && self.publish.is_empty()
    }
}

/// What the objects want the shell to bring.
#[must_use]
pub fn wants(valid: &Valid<'_>) -> Wants {
    let objects = valid.objects();
    let mut wants = Wants {
        link_keys: objects.tenants.keys().cloned().collect(),
        ..Wants::default()
    };
    for (name, conference) in &objects.conferences {
        if conference.spec.password_secret_ref.is_none() {
            wants.passwords.push(name.clone());
        }
        for key in opener_keys(name, &conference.spec) {
            if !objects.secrets.contains_key(&key.secret) {
                wants.opener_keys.push(key);
            }
        }
    }
    wants.opener_keys.sort();
    wants.opener_keys.dedup();
    for (pool, object) in &objects.pools {
        for index in 0..nodes_of(&object.spec) {
            let name = format!("{}-{index}", pool.name);
            wants.nodes.push(WantedNode {
                pool: pool.clone(),
                uid: digest::uid("MediaNode", &pool.namespace, &name),
                name,
                ports: object.spec.network.range(),
                mux: object.spec.network.mux,
                shards: shards_of(&object.spec),
                families: object.spec.network.ip_families.clone(),
            });
        }
    }
    wants
}

fn opener_keys(name: &Name, spec: &ConferenceSpec) -> impl Iterator<Item = SecretKey> {
    spec.openers
        .iter()
        .filter_map(|opener| opener.key.as_ref())
        .map(|key| SecretKey {
            secret: Name::new(&*name.namespace, &*key.name),
            key: key
                .key
                .clone()
                .unwrap_or_else(|| names::SECRET_KEY_OPENER.to_owned()),
        })
}

/// Nodes of a pool where nobody counts load: the declared number, or the floor of the autoscaler.
#[must_use]
pub fn nodes_of(spec: &MediaPoolSpec) -> u32 {
    match &spec.autoscaling {
        Some(autoscaling) => autoscaling.min_replicas,
        None => spec.replicas.unwrap_or(0),
    }
}

/// Shards of a node: max(1, floor(CPU request) − 1); without a request one.
#[must_use]
pub fn shards_of(spec: &MediaPoolSpec) -> u8 {
    let requests = spec
        .template
        .resources
        .as_ref()
        .map(|resources| &resources.requests);
    let cpus = requests
        .and_then(|requests| requests.get("cpu"))
        .map_or(0, |quantity| whole_cpus(&quantity.0));
    u8::try_from(cpus.saturating_sub(1).clamp(1, limits::SHARDS_MAX)).unwrap_or(1)
}

/// `4`, `2.5` and `4000m` as whole processors; other suffixes make no sense for them.
fn whole_cpus(text: &str) -> u64 {
    match text.strip_suffix('m') {
        Some(thousandths) => thousandths.parse::<u64>().unwrap_or(0) / 1000,
        None => text
            .split('.')
            .next()
            .and_then(|whole| whole.parse().ok())
            .unwrap_or(0),
    }
}

/// All records of a valid set.
///
/// # Errors
/// [`PlanError::Missing`] where the shell did not bring what [`wants`] names.
pub fn plan(
    valid: &Valid<'_>,
    generated: &Generated,
    nodes: &BTreeMap<String, NodeEndpoint>,
) -> Result<Plan, PlanError> {
    let objects = valid.objects();
    let mut plan = Plan::default();
    for (name, tenant) in &objects.tenants {
        let record = tenant_record(objects, name, tenant, generated)?;
        plan.tenants.insert(record.uid.clone(), record);
    }
    for name in objects.conferences.keys() {
        if let Some(record) = conference_record(objects, name, generated)? {
            plan.conferences.insert(record.uid.clone(), record);
        }
    }
    for wanted in wants(valid).nodes {
        if let Some(endpoint) = nodes.get(&wanted.uid) {
            let pool = objects.pools.get(&wanted.pool).map(|pool| &pool.spec);
            let node = DeclaredNode::local(&wanted, endpoint);
            let record = nodes::record(pool, &node);
            plan.nodes.insert(record.uid.clone(), record);
        }
    }
    Ok(plan)
}

fn link_key<'a>(generated: &'a Generated, tenant: &str) -> Result<&'a [u8], PlanError> {
    let missing = || PlanError::Missing {
        what: "link key",
        of: format!("Tenant `{tenant}`"),
    };
    generated
        .link_keys
        .get(tenant)
        .map(|key| key.0.as_slice())
        .ok_or_else(missing)
}

fn tenant_record(
    objects: &Objects,
    name: &str,
    tenant: &Tenant,
    generated: &Generated,
) -> Result<TenantRecord, PlanError> {
    let (spec, namespace) = (&tenant.spec, namespace_of(name, tenant));
    let secrets = spec.auth.api_key_secret_refs.iter();
    let api_keys = secrets
        .filter_map(|key| {
            let secret = objects.secrets.get(&Name::new(&*namespace, &*key.name))?;
            Some(ApiKey {
                key: secret.text(names::SECRET_KEY_API_KEY)?.to_owned(),
                secret: Confidential(secret.value(names::SECRET_KEY_API_SECRET)?.to_vec()),
            })
        })
        .collect();
    let ad_hoc_policy = (spec.ad_hoc.rooms != AdHocRooms::Forbidden)
        .then(|| class_of(objects, spec.ad_hoc.class_name.as_deref()))
        .flatten()
        .map(|(_, class)| policy::ad_hoc(&spec.ad_hoc, class, tenant));
    let branding = spec.branding.clone().unwrap_or_default();
    let limits = &spec.limits;
    let sites = spec.sites.clone().unwrap_or_default();
    let mut record = TenantRecord {
        uid: uid_of(tenant.metadata.uid.as_deref(), "Tenant", "", name),
        name: name.to_owned(),
        revision: String::new(),
        display_name: spec.display_name.clone(),
        api_keys,
        // Nothing opens in a tenant that is being deleted; what runs there is closed by force only.
        suspended: spec.suspended || is_leaving(tenant),
        suspend_terminate: (spec.suspended && spec.suspend_mode == SuspendMode::Terminate)
            || (is_leaving(tenant) && is_forced(tenant)),
        active_from_unix_ms: spec
            .active_from
            .as_ref()
            .map_or(0, |from| from.0.as_millisecond()),
        ad_hoc: spec.ad_hoc.rooms,
        ad_hoc_policy,
        branding_name: branding.name.unwrap_or_default(),
        branding_colour: branding.colour.unwrap_or_default(),
        branding_texts: branding
            .texts
            .into_iter()
            .map(|text| BrandingTextRecord {
                key: text.key,
                lang: text.lang,
                text: text.text,
            })
            .collect(),
        limits: LimitsRecord {
            concurrent_rooms: limits.concurrent_rooms,
            participants: limits.participants,
            participants_per_room: limits.participants_per_room,
            publishers_per_room: limits.publishers_per_room,
            publishers: limits.publishers,
            egress_mbps: limits.egress_mbps,
        },
        link_key: Confidential(link_key(generated, name)?.to_vec()),
        pools: pools_of(objects, tenant)
            .into_iter()
            .map(|(name, _)| name.to_string())
            .collect(),
        sites_allowed: sites.allowed,
        sites_preferred: sites.preferred,
        jurisdictions: sites.jurisdictions,
        dedicated_nodes: spec.isolation == Isolation::DedicatedNodes,
        webhooks: webhooks(objects, &namespace, spec),
    };
    record.revision = digest::revision(&record);
    Ok(record)
}

fn webhooks(objects: &Objects, namespace: &str, spec: &TenantSpec) -> Vec<WebhookRecord> {
    let secret = |name: &str| objects.secrets.get(&Name::new(namespace, name));
    let records = spec.webhooks.iter().map(|webhook| {
        let signing = webhook
            .signing_key_ref
            .as_ref()
            .or(spec.auth.api_key_secret_refs.first());
        let ca = webhook.ca_secret_ref.as_ref();
        let text = |secret: Option<&SecretData>, key: &str| {
            let text = secret.and_then(|secret| secret.text(key));
            text.unwrap_or_default().to_owned()
        };
        WebhookRecord {
            name: webhook.name.clone(),
            url: webhook.url.clone(),
            events: webhook.events.clone(),
            signing_key: text(
                signing.and_then(|key| secret(&key.name)),
                names::SECRET_KEY_API_KEY,
            ),
            ca_pem: text(
                ca.and_then(|ca| secret(&ca.name)),
                ca.and_then(|ca| ca.key.as_deref())
                    .unwrap_or(names::SECRET_KEY_CA),
            ),
        }
    });
    records.collect()
}

/// `None` where the tenant or class could not be read: whoever validates has said so.
fn conference_record(
    objects: &Objects,
    name: &Name,
    generated: &Generated,
) -> Result<Option<ConferenceRecord>, PlanError> {
    let Some(conference) = objects.conferences.get(name) else {
        return Ok(None);
    };
    let Some((tenant_name, tenant)) = objects.tenant_of(&name.namespace) else {
        return Ok(None);
    };
    let Some((_, class)) = class_of(objects, conference.spec.class_name.as_deref()) else {
        return Ok(None);
    };
    let spec = &conference.spec;
    let room = room_name(name, conference);
    let key = link_key(generated, tenant_name)?;
    let openers = openers(objects, name, spec, generated)?;
    let placement = spec.placement.clone().unwrap_or_default();
    let of_room = policy::declared(spec, class, tenant);
    let reserved = policy::reserved(spec, class).map(|people| people.min(of_room.max_participants));
    let subjects = spec
        .openers
        .iter()
        .chain(&class.spec.openers)
        .filter(|opener| opener.type_ == OpenerType::Subject);
    let subjects = subjects.filter_map(|opener| opener.subject.as_ref());
    let mut record = ConferenceRecord {
        uid: uid_of(
            conference.metadata.uid.as_deref(),
            "Conference",
            &name.namespace,
            &name.name,
        ),
        revision: String::new(),
        tenant: tenant_name.to_owned(),
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        room_name: room.to_owned(),
        room_id: digest::room_id(key, room),
        display_name: spec
            .display_name
            .clone()
            .unwrap_or_else(|| name.name.clone()),
        openers: openers
            .into_iter()
            .chain(subjects.map(|subject| OpenerRecord::Subject(subject.id.clone())))
            .collect(),
        password: Confidential(password(objects, name, spec, generated)?),
        password_generated: spec.password_secret_ref.is_none(),
        roles: spec
            .roles
            .iter()
            .map(|binding| RoleRecord {
                role: match binding.role {
                    BoundRole::Moderator => Role::Moderator,
                    BoundRole::Presenter => Role::Presenter,
                    BoundRole::Participant => Role::Participant,
                },
                subjects: binding
                    .subjects
                    .iter()
                    .map(|subject| subject.id.clone())
                    .collect(),
                groups: binding
                    .groups
                    .iter()
                    .map(|group| group.name.clone())
                    .collect(),
            })
            .collect(),
        notices: notices(spec, class),
        schedule: spec.schedule.as_ref().map(|schedule| ScheduleRecord {
            start: schedule.schedule.start.clone(),
            time_zone: schedule.schedule.time_zone.clone(),
            duration_ms: schedule.schedule.duration.as_ref().map_or(0, millis),
            until: schedule.schedule.until.clone().unwrap_or_default(),
            recurrence: schedule.schedule.recurrence.clone().unwrap_or_default(),
            except: schedule.schedule.except.clone(),
            open_before_ms: millis(&schedule.open_before),
            close_after_ms: millis(&schedule.close_after),
        }),
        policy: of_room,
        suspended: spec.suspended,
        pool: pool_of(objects, tenant, class, Some(conference))
            .map(Name::to_string)
            .unwrap_or_default(),
        sites: placement.sites,
        topology: placement.topology,
        reserve_participants: reserved.unwrap_or(0),
    };
    // Keyed, because a plain hash over a password could be tried out.
    record.revision = digest::keyed_revision(key, &record);
    Ok(Some(record))
}

fn notices(spec: &ConferenceSpec, class: &plenum_api::ConferenceClass) -> Vec<NoticeRecord> {
    let of_class = class.spec.notices.iter().map(|notice| NoticeRecord {
        id: notice.id.clone(),
        texts: notice
            .texts
            .iter()
            .map(|text| (text.lang.clone(), text.text.clone()))
            .collect(),
        acknowledge: notice.acknowledge,
    });
    let own = spec.notices.iter().map(|notice| NoticeRecord {
        id: notice.id.clone(),
        texts: notice
            .texts
            .iter()
            .map(|text| (text.lang.clone(), text.text.clone()))
            .collect(),
        acknowledge: notice.acknowledge,
    });
    of_class.chain(own).collect()
}

fn openers(
    objects: &Objects,
    name: &Name,
    spec: &ConferenceSpec,
    generated: &Generated,
) -> Result<Vec<OpenerRecord>, PlanError> {
    opener_keys(name, spec)
        .map(|at| {
            opener_key(objects, &at, generated)
                .map(|key| OpenerRecord::KeySha256(digest::sha256(&key)))
        })
        .collect()
}

fn opener_key(
    objects: &Objects,
    at: &SecretKey,
    generated: &Generated,
) -> Result<Vec<u8>, PlanError> {
    if let Some(value) = objects
        .secrets
        .get(&at.secret)
        .and_then(|secret| secret.value(&at.key))
    {
        return Ok(value.to_vec());
    }
    let made = generated
        .opener_keys
        .get(at)
        .map(|key| key.0.clone().into_bytes());
    made.ok_or_else(|| PlanError::Missing {
        what: "opener key",
        of: format!("Secret `{}`", at.secret),
    })
}

fn password(
    objects: &Objects,
    name: &Name,
    spec: &ConferenceSpec,
    generated: &Generated,
) -> Result<String, PlanError> {
    let given = spec.password_secret_ref.as_ref().and_then(|wanted| {
        let secret = objects
            .secrets
            .get(&Name::new(&*name.namespace, &*wanted.name))?;
        secret
            .text(wanted.key.as_deref().unwrap_or(names::SECRET_KEY_PASSWORD))
            .map(str::to_owned)
    });
    let made = || {
        generated
            .passwords
            .get(name)
            .map(|password| password.0.clone())
    };
    given.or_else(made).ok_or_else(|| PlanError::Missing {
        what: "password",
        of: format!("Conference `{name}`"),
    })
}

/// What opens a conference by link: the bearers' keys, in the order in which they are declared.
#[must_use]
pub fn keys_of(objects: &Objects, name: &Name, generated: &Generated) -> Vec<Confidential<String>> {
    let Some(conference) = objects.conferences.get(name) else {
        return Vec::new();
    };
    opener_keys(name, &conference.spec)
        .filter_map(|at| opener_key(objects, &at, generated).ok())
        .filter_map(|key| String::from_utf8(key).ok())
        .map(Confidential)
        .collect()
}

fn uid_of(given: Option<&str>, kind: &str, namespace: &str, name: &str) -> String {
    given.map_or_else(|| digest::uid(kind, namespace, name), str::to_owned)
}

/// What leads from one plan to another; equal revisions are equal records.
#[must_use]
pub fn diff<'a>(old: &Plan, new: &'a Plan) -> Diff<'a> {
    let mut diff = Diff::default();
    gone(
        &old.conferences,
        &new.conferences,
        RecordKind::Conference,
        &mut diff,
    );
    gone(&old.nodes, &new.nodes, RecordKind::Node, &mut diff);
    gone(&old.tenants, &new.tenants, RecordKind::Tenant, &mut diff);
    // What was kept may be there still, and goes with its object.
    let published = |(kind, uid): &(RecordKind, String)| match kind {
        RecordKind::Tenant => new.tenants.contains_key(uid),
        RecordKind::Conference => new.conferences.contains_key(uid),
        RecordKind::Node => new.nodes.contains_key(uid),
    };
    let left = old.kept.iter().filter(|key| !published(key));
    diff.retract.extend(left.cloned());
    diff.retract.retain(|key| !new.kept.contains(key));
    let tenants = new.tenants.values();
    let tenants = tenants.filter(|record| {
        old.tenants
            .get(&record.uid)
            .is_none_or(|old| old.revision != record.revision)
    });
    diff.publish.extend(tenants.map(Record::Tenant));
    let nodes = new.nodes.values();
    let nodes = nodes.filter(|record| {
        old.nodes
            .get(&record.uid)
            .is_none_or(|old| old.revision != record.revision)
    });
    diff.publish.extend(nodes.map(Record::Node));
    let conferences = new.conferences.values();
    let conferences = conferences.filter(|record| {
        old.conferences
            .get(&record.uid)
            .is_none_or(|old| old.revision != record.revision)
    });
    diff.publish.extend(conferences.map(Record::Conference));
    diff
}

fn gone<T>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    kind: RecordKind,
    diff: &mut Diff<'_>,
) {
    diff.retract.extend(
        old.keys()
            .filter(|uid| !new.contains_key(*uid))
            .map(|uid| (kind, uid.clone())),
    );
}

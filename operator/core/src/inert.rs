// SPDX-License-Identifier: EUPL-1.2
//! Fields that are declared and have no effect yet. Each is named once, however many objects use it, so that nobody
//! relies on what does not happen.
//!
//! Specifications are destructured without `..`: a new field does not compile until somebody has said what it does.

use std::collections::BTreeMap;

use plenum_api::{
    conference::{Capacity, ConferenceSpec, Lifecycle, Media, MediaProfile, Placement},
    conference_class::ConferenceClassSpec,
    media_pool::{
        AddressSourceType, Disruption, DrainPolicy, MediaPoolSpec, Mux, Network, Template,
        UpdatePolicy,
    },
    tenant::{Auth, ProtectionNeed, Retention, TenantNamespace, TenantSites, TenantSpec},
};

use crate::{
    limits,
    objects::{Name, Objects},
};

/// A field without effect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Inert {
    /// Kind and path, `Tenant spec.retention`.
    pub field: String,
    /// What it waits for.
    pub why: &'static str,
    /// First object that uses it.
    pub first: Name,
    /// Number of objects that use it.
    pub objects: usize,
}

/// Who asks: what a cluster does with pods, one machine cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// The operator.
    Cluster,
    /// `plenum up`.
    OneMachine,
}

/// Fields of these objects that have no effect, in the order of kind and path.
#[must_use]
pub fn inert(objects: &Objects, shell: Shell) -> Vec<Inert> {
    let mut found = Found {
        shell,
        fields: BTreeMap::new(),
    };
    for (name, tenant) in &objects.tenants {
        of_tenant(
            &tenant.spec,
            At {
                kind: "Tenant",
                name: Name::new("", name.as_str()),
            },
            &mut found,
        );
    }
    for (name, class) in &objects.classes {
        of_class(
            &class.spec,
            At {
                kind: "ConferenceClass",
                name: Name::new("", name.as_str()),
            },
            &mut found,
        );
    }
    for (name, conference) in &objects.conferences {
        of_conference(
            &conference.spec,
            At {
                kind: "Conference",
                name: name.clone(),
            },
            &mut found,
        );
    }
    for (name, pool) in &objects.pools {
        of_pool(
            &pool.spec,
            At {
                kind: "MediaPool",
                name: name.clone(),
            },
            &mut found,
        );
    }
    found.fields.into_values().collect()
}

struct At {
    kind: &'static str,
    name: Name,
}

struct Found {
    shell: Shell,
    fields: BTreeMap<String, Inert>,
}

impl Found {
    fn add(&mut self, at: &At, field: &str, used: bool, why: &'static str) {
        if !used {
            return;
        }
        let field = format!("{} {field}", at.kind);
        let entry = self.fields.entry(field.clone()).or_insert_with(|| Inert {
            field,
            why,
            first: at.name.clone(),
            objects: 0,
        });
        entry.objects += 1;
    }

    fn on_one_machine(&mut self, at: &At, field: &str, used: bool, why: &'static str) {
        if self.shell == Shell::OneMachine {
            self.add(at, field, used, why);
        }
    }
}

const NO_STORAGE: &str = "nothing is recorded or kept yet that a period would end";
const NO_OIDC: &str = "sign-in through an identity provider is not built yet";
const NO_CLUSTER: &str = "it speaks of objects of a Kubernetes cluster";

/// Whether sites are named, and the one of a single machine is not.
fn elsewhere(sites: &[String]) -> bool {
    !sites.is_empty() && !sites.iter().any(|site| site == limits::SITE_DEFAULT)
}

fn of_tenant(spec: &TenantSpec, at: At, found: &mut Found) {
    let TenantSpec {
        display_name: _,
        contacts,
        orderers,
        admins,
        active_from: _,
        protection_need,
        namespace:
            TenantNamespace {
                name: _,
                mode,
                deletion_policy,
            },
        isolation: _,
        pools: _,
        sites,
        limits: _,
        auth: Auth {
            issuers,
            api_key_secret_refs: _,
        },
        policy: _,
        ad_hoc: _,
        retention,
        branding: _,
        webhooks: _,
        service_level_name,
        suspended: _,
        suspend_mode: _,
    } = spec;
    found.add(
        &at,
        "spec.contacts",
        !contacts.is_empty(),
        "no page names contacts yet",
    );
    found.add(
        &at,
        "spec.orderers",
        orderers.is_some(),
        "nothing can be ordered yet",
    );
    found.on_one_machine(&at, "spec.admins", !admins.is_empty(), NO_CLUSTER);
    found.add(
        &at,
        "spec.protectionNeed",
        *protection_need != ProtectionNeed::default(),
        "the notice about protection need is not shown yet",
    );
    found.on_one_machine(
        &at,
        "spec.namespace.mode",
        *mode != Default::default(),
        NO_CLUSTER,
    );
    found.on_one_machine(
        &at,
        "spec.namespace.deletionPolicy",
        *deletion_policy != Default::default(),
        NO_CLUSTER,
    );
    if let Some(TenantSites {
        allowed,
        preferred: _,
        jurisdictions,
    }) = sites
    {
        found.on_one_machine(
            &at,
            "spec.sites.allowed",
            elsewhere(allowed),
            "this machine is the site `local`, which is not among them: no room of the tenant finds a node",
        );
        found.on_one_machine(
            &at,
            "spec.sites.jurisdictions",
            !jurisdictions.is_empty(),
            "this machine lies in no declared jurisdiction: no room of the tenant finds a node",
        );
    }
    found.add(&at, "spec.auth.issuers", !issuers.is_empty(), NO_OIDC);
    found.add(
        &at,
        "spec.retention",
        *retention != Retention::default(),
        NO_STORAGE,
    );
    found.add(
        &at,
        "spec.serviceLevelName",
        service_level_name.is_some(),
        "service levels are not measured yet",
    );
}

fn of_class(spec: &ConferenceClassSpec, at: At, found: &mut Found) {
    let ConferenceClassSpec {
        display_name: _,
        preset: _,
        permissions: _,
        openers: _,
        lobby: _,
        guests: _,
        recording,
        notices: _,
        retention,
        capacity: _,
        media,
        lifecycle,
        pool_selector: _,
    } = spec;
    found.add(
        &at,
        "spec.recording",
        *recording != Default::default(),
        "recording is not built yet",
    );
    found.add(&at, "spec.retention", retention.is_some(), NO_STORAGE);
    of_shared(media.as_ref(), lifecycle.as_ref(), &at, found);
}

fn of_conference(spec: &ConferenceSpec, at: At, found: &mut Found) {
    let ConferenceSpec {
        display_name: _,
        class_name: _,
        room_name: _,
        openers: _,
        password_secret_ref: _,
        lobby: _,
        guests: _,
        roles: _,
        notices: _,
        recording,
        retention,
        schedule: _,
        capacity:
            None
            | Some(Capacity {
                max_participants: _,
                expected_participants: _,
                max_publishers: _,
                reserve: _,
            }),
        media,
        placement,
        lifecycle,
        suspended: _,
    } = spec;
    found.add(
        &at,
        "spec.recording",
        *recording != Default::default(),
        "recording is not built yet",
    );
    found.add(&at, "spec.retention", retention.is_some(), NO_STORAGE);
    if let Some(Placement {
        pool_ref: _,
        sites,
        topology: _,
        max_nodes,
    }) = placement
    {
        found.on_one_machine(
            &at,
            "spec.placement.sites",
            elsewhere(sites),
            "this machine is the site `local`, which is not among them: the room finds no node",
        );
        found.add(
            &at,
            "spec.placement.maxNodes",
            max_nodes.is_some(),
            "a room runs on one node",
        );
    }
    of_shared(media.as_ref(), lifecycle.as_ref(), &at, found);
}

fn of_shared(media: Option<&Media>, lifecycle: Option<&Lifecycle>, at: &At, found: &mut Found) {
    if let Some(Media {
        profile,
        max_bitrate_kbps: _,
        screen_share: _,
        e2ee: _,
    }) = media
    {
        found.add(
            at,
            "spec.media.profile",
            matches!(
                profile,
                Some(MediaProfile::HighQuality | MediaProfile::Webinar)
            ),
            "AudioOnly has an effect; the other profiles behave like Standard",
        );
    }
    if let Some(Lifecycle {
        empty_timeout: _,
        max_duration: _,
        ttl_after_end,
    }) = lifecycle
    {
        found.add(
            at,
            "spec.lifecycle.ttlAfterEnd",
            ttl_after_end.is_some(),
            "no object is removed by itself yet",
        );
    }
}

fn of_pool(spec: &MediaPoolSpec, at: At, found: &mut Found) {
    let MediaPoolSpec {
        replicas: _,
        autoscaling,
        network:
            Network {
                type_: _,
                host_port: _,
                host_network: _,
                node_port: _,
                load_balancer,
                mux: Mux::SinglePort | Mux::PortPerShard,
                address_sources,
                ip_families: _,
            },
        security: _,
        capacity: _,
        drain:
            DrainPolicy {
                timeout: _,
                announce_before: _,
                strategy: _,
                on_deadline,
            },
        update:
            UpdatePolicy {
                max_surge,
                max_unavailable,
                order,
            },
        disruption: Disruption { protect },
        tenancy: _,
        template:
            Template {
                metadata,
                resources: _,
                node_selector,
                tolerations,
                topology_spread_constraints,
                priority_class_name,
                image,
                image_pull_secrets,
            },
        paused,
    } = spec;
    let update = UpdatePolicy::default();
    found.on_one_machine(
        &at,
        "spec.autoscaling",
        autoscaling.is_some(),
        "one machine runs minReplicas nodes; see spec.replicas",
    );
    found.on_one_machine(
        &at,
        "spec.network.loadBalancer",
        load_balancer.is_some(),
        NO_CLUSTER,
    );
    found.on_one_machine(
        &at,
        "spec.network.addressSources",
        address_sources.iter().any(|source| {
            !matches!(
                source.type_,
                AddressSourceType::NodeExternalIP | AddressSourceType::NodeInternalIP
            )
        }),
        "one machine offers loopback and its own address; see --media-address",
    );
    found.on_one_machine(
        &at,
        "spec.drain.onDeadline",
        *on_deadline != Default::default(),
        "one machine moves rooms at the deadline and never ends them",
    );
    found.on_one_machine(
        &at,
        "spec.update.maxSurge",
        *max_surge != update.max_surge,
        NO_CLUSTER,
    );
    found.on_one_machine(
        &at,
        "spec.update.maxUnavailable",
        *max_unavailable != update.max_unavailable,
        NO_CLUSTER,
    );
    found.on_one_machine(&at, "spec.update.order", *order != update.order, NO_CLUSTER);
    found.on_one_machine(
        &at,
        "spec.disruption.protect",
        *protect != Default::default(),
        NO_CLUSTER,
    );
    for (field, used) in [
        ("spec.template.metadata", metadata.is_some()),
        ("spec.template.nodeSelector", !node_selector.is_empty()),
        ("spec.template.tolerations", !tolerations.is_empty()),
        (
            "spec.template.topologySpreadConstraints",
            !topology_spread_constraints.is_empty(),
        ),
        (
            "spec.template.priorityClassName",
            priority_class_name.is_some(),
        ),
        ("spec.template.image", !image.is_empty()),
        (
            "spec.template.imagePullSecrets",
            !image_pull_secrets.is_empty(),
        ),
        ("spec.paused", *paused),
    ] {
        found.on_one_machine(&at, field, used, NO_CLUSTER);
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! What is known of a conference: its tenant, class, record, room, and what is wrong.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt as _;
use operator_core::{
    Name, ObjectKey, Problem, RecordKind,
    conference_status::{self, Facts, Of, Publication, Room, class, class_in_use},
    tenant::{leaving::is_leaving, status::Activity},
};
use plenum_api::{Conference, Reason, Tenant, names};
use plenum_proto::v1::{ConferenceState, conference_state::Hold};

use crate::{
    context::Context,
    tenant::{Counts, Now},
};

/// Whose a conference is.
pub(super) struct Place {
    pub(super) name: Name,
    /// Name by the label of the namespace.
    pub(super) label: Option<String>,
    /// The tenant, if there is one of that name.
    pub(super) tenant: Option<Arc<Tenant>>,
    /// The namespace is on its way out.
    leaving: bool,
}

impl Place {
    pub(super) fn of(context: &Context, conference: &Conference) -> Self {
        let name = Name::new(
            conference.namespace().unwrap_or_default(),
            conference.name_any(),
        );
        let namespace = context.stores.namespaces.get(None, &name.namespace);
        let label = namespace
            .as_ref()
            .and_then(|namespace| namespace.labels().get(names::LABEL_TENANT).cloned());
        let tenant = label
            .as_ref()
            .and_then(|label| context.stores.tenants.get(None, label));
        let leaving =
            namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some());
        Self {
            name,
            label,
            tenant,
            leaving,
        }
    }

    /// Whether Secrets can and may be made in the namespace.
    pub(super) fn may_hold_secrets(&self) -> bool {
        self.tenant
            .as_ref()
            .is_some_and(|tenant| !is_leaving(tenant) && !self.leaving)
    }

    /// What is wrong before anybody has looked at the object itself.
    fn problem(&self) -> Option<Problem> {
        let namespace = &self.name.namespace;
        let (reason, message, remedy) = match (&self.label, &self.tenant) {
            (None, _) => (
                Reason::NamespaceWithoutTenant,
                format!("namespace `{namespace}` belongs to no tenant"),
                "create the conference in a tenant's namespace, or ask the platform team for a Tenant with this namespace".to_owned(),
            ),
            (Some(tenant), None) => (
                Reason::TenantNotFound,
                format!("namespace `{namespace}` belonged to Tenant `{tenant}`, which is gone"),
                "ask the platform team for the Tenant, or delete the conference".to_owned(),
            ),
            (Some(_), Some(_)) => return None,
        };
        Some(Problem {
            object: ObjectKey {
                kind: "Conference".to_owned(),
                name: self.name.clone(),
            },
            pointer: "/metadata/namespace".to_owned(),
            rule: reason.as_str().to_owned(),
            message,
            remedy,
        })
    }

    /// What is only missing yet: a key that is being made, a tenant whose link key is.
    fn is_on_its_way(&self, now: &Now, problem: &Problem) -> bool {
        let tenant = ObjectKey {
            kind: "Tenant".to_owned(),
            name: Name::new("", self.label.as_deref().unwrap_or_default()),
        };
        let key = problem.rule == Reason::SecretNotFound.as_str()
            && problem.pointer.starts_with("/spec/openers/");
        let of_tenant = problem.rule == Reason::TenantNotFound.as_str()
            && now.planned.waiting.contains(&tenant);
        (key && self.may_hold_secrets()) || of_tenant
    }

    fn active(&self, now: Timestamp) -> Result<(), (Reason, &'static str)> {
        let Some(tenant) = &self.tenant else {
            return Ok(());
        };
        if is_leaving(tenant) {
            return Err((Reason::Deleting, "the tenant is being deleted"));
        }
        Activity::of(tenant, now).allows()
    }

    /// When the tenant's time comes.
    pub(super) fn changes_at(&self, now: Timestamp) -> Option<Timestamp> {
        Activity::of(self.tenant.as_ref()?, now).changes_at(now)
    }
}

/// Gathers what is known and hands it on.
pub(super) fn with<R>(
    context: &Context,
    counts: &Counts,
    now: &Now,
    place: &Place,
    conference: &Conference,
    judge: impl FnOnce(&Facts<'_>) -> R,
) -> (R, Option<Timestamp>) {
    let (planned, name) = (&now.planned, &place.name);
    let own = place.problem();
    let problems: Vec<&Problem> = match &own {
        Some(problem) => vec![problem],
        None => planned
            .problems_of("Conference", &name.namespace, &name.name)
            .iter()
            .filter(|problem| !place.is_on_its_way(now, problem))
            .collect(),
    };
    let warnings = planned.warnings.get(&ObjectKey {
        kind: "Conference".to_owned(),
        name: name.clone(),
    });
    let warnings: Vec<&Problem> = warnings.map_or(&[][..], Vec::as_slice).iter().collect();
    let uid = conference.metadata.uid.as_deref().unwrap_or_default();
    // A plan that has not seen this generation says nothing about it.
    let seen = planned.objects.conferences.get(name).is_some_and(|seen| {
        seen.metadata.generation == conference.metadata.generation
            && seen.metadata.uid == conference.metadata.uid
    });
    let record = planned
        .plan
        .conferences
        .get(uid)
        .filter(|_| seen && own.is_none());
    let answer = now.answer(RecordKind::Conference, uid);
    let room = now
        .silent_since
        .is_none()
        .then(|| now.live.conferences.get(uid))
        .flatten()
        .map(|state| room(context, now, state));
    let limit = place
        .tenant
        .as_ref()
        .map(|tenant| tenant.spec.limits.conferences);
    let class = class_in_use(&planned.objects, conference);
    let unseen = now.until_planned("Conference", name, seen || !problems.is_empty());
    let judged = judge(&Facts {
        tenant: place
            .tenant
            .as_ref()
            .and(place.label.as_deref())
            .map(|tenant| Of {
                name: tenant,
                active: place.active(now.at),
                admitted: limit
                    .is_none_or(|limit| counts.fits(context, planned, conference, limit)),
            }),
        class: class.map(|(name, class)| (name, class::revision(&class.spec))),
        problems: &problems,
        warnings: &warnings,
        record,
        reserve: record.map(|record| record.reserve_participants),
        publication: Publication {
            planned: record.map(|record| record.revision.as_str()),
            answer: answer.as_ref(),
            silent_since: now.silent_since,
        },
        room,
        url: &context.settings.gateway_url,
        now: now.at,
    });
    (judged, unseen)
}

fn room(context: &Context, now: &Now, state: &ConferenceState) -> Room {
    let place = (!state.node_id.is_empty()).then(|| {
        let mut nodes = now.planned.plan.nodes.values();
        let record = nodes.find(|record| record.node_id == state.node_id);
        let object = record.and_then(|record| {
            let nodes = context.stores.media_nodes.all();
            nodes
                .into_iter()
                .find(|node| node.metadata.uid.as_deref() == Some(record.uid.as_str()))
        });
        conference_status::Place {
            node: object.map_or_else(|| state.node_id.clone(), |node| node.name_any()),
            site: record.map(|record| record.site.clone()).unwrap_or_default(),
            pool: record.map(|record| record.pool.clone()).unwrap_or_default(),
            epoch: state.epoch,
        }
    });
    Room {
        opened: state.opened,
        occupied: state.participants > 0,
        place,
        peak: state.peak_participants,
        held: match state.hold() {
            Hold::Held => Some(true),
            Hold::Refused => Some(false),
            Hold::Unspecified => None,
        },
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! Maintenance windows: says where each stands, and asks the media nodes that an open one selects to empty themselves, some at a time.
//!
//! What a freeze and a window for updates forbid or allow is read from the same calendar by whoever wants to do something.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    ResourceExt as _,
    runtime::{Controller, controller::Action, reflector::ObjectRef},
};
use operator_core::{
    Name,
    calendar::{Calendar, Candidate, Part, Place, Standing},
};
use plenum_api::{
    Condition, ConditionStatus, ConditionType, MaintenanceWindow, MaintenanceWindowStatus,
    MediaNode, Reason,
    conditions::set,
    maintenance_window::{WindowAction, WindowAffected, WindowPhase, WindowTime},
    media_node::{DrainPhase, DrainReason, DrainRequest},
};

use crate::{
    context::Context,
    driver::{Failure, LOOK_AGAIN_MAX, again_after, drive},
    media_node::{is_pod_gone, request_drain},
    planner::machine_of,
    ssa::{ApplyError, api_reason, apply_status},
};

/// Why a window could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// The status could not be written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A media node could not be asked.
    #[error("ask a media node to empty itself: {0}")]
    Ask(#[source] Box<kube::Error>),
}

impl Failure for WindowError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Apply(error) => error.reason(),
            Self::Ask(error) => api_reason(error),
        }
    }
}

/// Runs until the lease is lost.
pub async fn run(context: Arc<Context>) {
    let stores = &context.stores;
    let everybody = {
        let windows = stores.windows.store();
        move || -> Vec<ObjectRef<MaintenanceWindow>> {
            let windows = windows.state();
            windows
                .iter()
                .map(|window| ObjectRef::from_obj(&**window))
                .collect()
        }
    };
    let (by_window, by_node, by_pool) = (everybody.clone(), everybody.clone(), everybody);
    let controller =
        Controller::for_shared_stream(stores.windows.subscribe(), stores.windows.store())
            .watches_shared_stream(stores.windows.subscribe(), move |_| by_window())
            .watches_shared_stream(stores.media_nodes.subscribe(), move |_| by_node())
            .watches_shared_stream(stores.pools.subscribe(), move |_| by_pool());
    drive(Arc::clone(&context), controller, reconcile).await;
}

/// A media node and its place.
struct Standpoint {
    node: Arc<MediaNode>,
    pool: Name,
    machine: Option<Arc<k8s_openapi::api::core::v1::Node>>,
}

impl Standpoint {
    fn place<'a>(&'a self, site: &'a str) -> Place<'a> {
        Place {
            pool: &self.pool,
            site,
            machine: self
                .machine
                .as_ref()
                .and_then(|machine| machine.metadata.labels.as_ref()),
        }
    }
}

async fn reconcile(
    window: Arc<MaintenanceWindow>,
    context: Arc<Context>,
) -> Result<Action, WindowError> {
    let (name, now) = (window.name_any(), context.now());
    let windows = context.stores.windows.all();
    let calendar = Calendar::new(windows.iter().map(|window| &**window), now);
    let Some(standing) = calendar.standing(&name) else {
        return Ok(again_after(LOOK_AGAIN_MAX));
    };
    let points = standpoints(&context);
    ask(&context, &calendar, &name, &points).await?;
    let status = status(&context, &window, &calendar, standing, &points);
    let before = window.status.as_ref().and_then(|status| status.phase);
    if apply_status(&context.client, &*window, &status).await? && before != status.phase {
        tell(&context, &window, &calendar, standing).await;
    }
    Ok(again_after(wait(standing.changes_at, context.now())))
}

fn standpoints(context: &Context) -> Vec<Standpoint> {
    let mut points: Vec<Standpoint> = context
        .stores
        .media_nodes
        .all()
        .into_iter()
        .map(|node| {
            let machine = machine_of(&context.stores, &node);
            Standpoint {
                pool: Name::new(
                    node.namespace().unwrap_or_default(),
                    &*node.spec.pool_ref.name,
                ),
                machine,
                node,
            }
        })
        .collect();
    points.sort_by_key(|point| (point.node.namespace(), point.node.name_any()));
    points
}

async fn ask(
    context: &Context,
    calendar: &Calendar,
    window: &str,
    points: &[Standpoint],
) -> Result<(), WindowError> {
    let candidates: Vec<Candidate<'_>> = {
        let live = context.live.borrow();
        points
            .iter()
            .map(|point| {
                let uid = point.node.metadata.uid.as_deref().unwrap_or_default();
                Candidate {
                    place: point.place(&context.settings.site),
                    rooms: live.nodes.get(uid).map_or(0, |node| node.rooms),
                    part: part_of(&point.node),
                }
            })
            .collect()
    };
    for index in calendar.next_to_drain(window, &candidates) {
        let wish = DrainRequest {
            requested_at: Some(context.time()),
            reason: DrainReason::Maintenance,
            ..DrainRequest::default()
        };
        match request_drain(&context.client, &points[index].node, &wish).await {
            // Somebody else asked meanwhile, or it is gone: the next pass sees it.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => {}
            outcome => drop(outcome.map_err(|error| WindowError::Ask(Box::new(error)))?),
        }
    }
    Ok(())
}

fn part_of(node: &MediaNode) -> Part {
    let status = node.status.as_ref();
    let phase = status.and_then(|status| status.drain.as_ref().map(|drain| drain.phase));
    let placed = status.is_some_and(|status| status.node_name.is_some());
    let reason = node.spec.drain.as_ref().map(|wish| wish.reason);
    match (reason, phase) {
        // Where the pod is gone there is nothing to empty, and it takes nobody's turn.
        _ if node.metadata.deletion_timestamp.is_some()
            || phase == Some(DrainPhase::Drained)
            || status.is_some_and(is_pod_gone) =>
        {
            Part::Other
        }
        (Some(DrainReason::Maintenance), _) => Part::Maintained,
        (Some(_), _) | (None, Some(_)) => Part::Other,
        // Before it has a machine there is nothing to empty; its pod is kept away, or held back.
        (None, None) if !placed => Part::Other,
        (None, None) => Part::Serves,
    }
}

fn status(
    context: &Context,
    window: &MaintenanceWindow,
    calendar: &Calendar,
    standing: &Standing,
    points: &[Standpoint],
) -> MaintenanceWindowStatus {
    let (name, site) = (window.name_any(), context.settings.site.as_str());
    let selected: Vec<&Standpoint> = points
        .iter()
        .filter(|point| calendar.selects(&name, point.place(site)))
        .collect();
    let frozen = selected
        .iter()
        .filter(|point| calendar.is_frozen(&name, point.place(site)))
        .count();
    let draining = selected
        .iter()
        .filter(|point| part_of(&point.node) == Part::Maintained)
        .count();
    let mut pools: Vec<Name> = context
        .stores
        .pools
        .all()
        .iter()
        .map(|pool| Name::new(pool.namespace().unwrap_or_default(), pool.name_any()))
        .filter(|pool| {
            let bare = Place {
                pool,
                site,
                machine: None,
            };
            calendar.selects(&name, bare) || selected.iter().any(|point| point.pool == *pool)
        })
        .collect();
    pools.sort();
    pools.dedup();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let mut status = window.status.clone().unwrap_or_default();
    status.observed_generation = window.metadata.generation;
    status.phase = Some(standing.phase);
    status.next = standing.time.map(|time| WindowTime {
        start: Time(time.opens),
        end: Time(time.closes),
    });
    status.affected = Some(WindowAffected {
        pools: count(pools.len()),
        nodes: count(selected.len()),
    });
    let lost = (frozen > 0).then(|| {
        let text = format!(
            "a Freeze is open over {frozen} of {} media nodes; write reason: UrgentSecurity, or move one of the two",
            selected.len()
        );
        (Reason::Frozen, text)
    });
    let refused = standing.refused.clone().or(lost);
    let works = window.spec.action == WindowAction::Drain
        && standing.phase == WindowPhase::Active
        && draining > 0;
    let ready = match (&refused, standing.phase) {
        (Some((reason, text)), _) => (ConditionStatus::False, *reason, text.clone()),
        (None, WindowPhase::Suspended) => (
            ConditionStatus::True,
            Reason::Suspended,
            "spec.suspended".to_owned(),
        ),
        (None, WindowPhase::Active) => (
            ConditionStatus::True,
            Reason::WindowOpen,
            "the window is open".to_owned(),
        ),
        (None, WindowPhase::Ended) => (
            ConditionStatus::True,
            Reason::WindowOver,
            "the window does not come again".to_owned(),
        ),
        (None, _) => (
            ConditionStatus::True,
            Reason::WindowAhead,
            "the window lies ahead".to_owned(),
        ),
    };
    let reconciling = if works {
        (
            ConditionStatus::True,
            Reason::Draining,
            "media nodes are being emptied".to_owned(),
        )
    } else {
        (
            ConditionStatus::False,
            Reason::Reconciled,
            "nothing is under way".to_owned(),
        )
    };
    let stalled = match refused {
        Some((reason, text)) => (ConditionStatus::True, reason, text),
        None => (
            ConditionStatus::False,
            Reason::Reconciled,
            "nobody has to change anything".to_owned(),
        ),
    };
    for (type_, (holds, reason, text)) in [
        (ConditionType::Ready, ready),
        (ConditionType::Reconciling, reconciling),
        (ConditionType::Stalled, stalled),
    ] {
        let condition = Condition::new(
            type_,
            holds,
            reason,
            text,
            window.metadata.generation,
            context.time(),
        );
        set(&mut status.conditions, condition);
    }
    status
}

/// A phase that begins is told on the window and on the pools that it names.
async fn tell(
    context: &Context,
    window: &MaintenanceWindow,
    calendar: &Calendar,
    standing: &Standing,
) {
    let name = window.name_any();
    let Some(time) = standing.time else {
        return;
    };
    let (reason, note) = match standing.phase {
        WindowPhase::Announced => (
            Reason::WindowAhead,
            format!(
                "{} from {} to {}: {}",
                window.spec.action, time.opens, time.closes, window.spec.reason
            ),
        ),
        WindowPhase::Active => (
            Reason::WindowOpen,
            format!("{} until {}", window.spec.action, time.closes),
        ),
        _ => return,
    };
    tracing::info!(event = "WindowPhase", window = name, phase = %standing.phase, action = %window.spec.action, "a maintenance window went on");
    context.events.publish(window, reason, note.clone()).await;
    for pool in context.stores.pools.all() {
        let of = Name::new(pool.namespace().unwrap_or_default(), pool.name_any());
        let place = Place {
            pool: &of,
            site: &context.settings.site,
            machine: None,
        };
        if calendar.selects(&name, place) {
            let note = format!("{name}: {note}");
            context.events.publish(&*pool, reason, note).await;
        }
    }
}

fn wait(changes_at: Option<Timestamp>, now: Timestamp) -> Duration {
    let Some(moment) = changes_at else {
        return LOOK_AGAIN_MAX;
    };
    // Not before: a pass a moment too early would see the old phase and sleep again.
    Duration::try_from(moment.duration_since(now)).unwrap_or(Duration::ZERO)
        + Duration::from_millis(250)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_whose_pod_is_lost_is_not_asked_to_empty_itself() {
        let node = |ready: &str, reason: &str| -> MediaNode {
            serde_json::from_value(json!({
                "apiVersion": "plenum.dev/v1alpha1", "kind": "MediaNode", "metadata": { "name": "a-1" },
                "spec": { "poolRef": { "name": "a" }, "revision": "1", "ports": { "base": 20000, "count": 1 } },
                "status": { "nodeName": "m1", "conditions": [{
                    "type": "Ready", "status": ready, "reason": reason, "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }] },
            }))
            .expect("a node")
        };
        assert_eq!(part_of(&node("True", "Reconciled")), Part::Serves);
        assert_eq!(part_of(&node("False", "Progressing")), Part::Serves);
        assert_eq!(part_of(&node("False", "PodLost")), Part::Other);
        assert_eq!(part_of(&node("False", "PodRemoved")), Part::Other);
    }
}

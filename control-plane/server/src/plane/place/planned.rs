// SPDX-License-Identifier: EUPL-1.2
//! Capacity for planned conferences, held from the time they may be opened to the end of their window.
//!
//! One replica does it, whoever has claimed the role; another takes over when it is gone, long before a hold runs out. What cannot be held
//! is tried again, shown as a metric, and said once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use control_core::directory::DirectoryView;
use control_core::ids::{NodeId, RoomKey};
use control_core::placement::{Calendar, Hold, Strategy, Unfit};
use control_core::time::Moment;
use plenum_proto::v1::conference_state as wire;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::list::{Asks, Tries};
use super::state::OfTenant;
use crate::plane::{PlaceError, Plane};
use crate::store::{Choice, HoldCommand, HoldOutcome, StoreError};

/// The calendar is looked at this often.
const LOOK: Duration = Duration::from_secs(2);
/// Who holds capacity, and for how long without asking again.
const ROLE: &str = "planned";
/// See [`ROLE`].
const CLAIM: Duration = Duration::from_secs(10);
/// A hold lives this long without being renewed.
const LIFETIME: Duration = Duration::from_secs(120);
/// Holds are renewed after this time.
const RENEW: Duration = Duration::from_secs(40);
/// What could not be held is tried again after this time.
const AGAIN: Duration = Duration::from_secs(5);
/// Holds that are asked for at a time.
const AT_A_TIME: usize = 32;
/// Lists of nodes that are tried for one hold.
const LISTS_MAX: u32 = 3;

/// One planned conference.
struct State {
    hold: Hold,
    /// Where it is held, as far as this replica knows.
    node: Option<NodeId>,
    /// When it is to be asked for next.
    at: Moment,
    /// Has it been said that it is not held?
    said: bool,
}

/// Planned conferences whose time it is.
#[derive(Default)]
struct Planned {
    calendar: Calendar,
    states: BTreeMap<RoomKey, State>,
}

impl Planned {
    /// Everything is asked for again at once.
    fn ask_all(&mut self) {
        for state in self.states.values_mut() {
            state.at = Moment::ZERO;
        }
    }
}

impl Plane {
    /// Holds capacity for planned conferences until the token falls, and counts what tenants have in use above their limits.
    pub async fn hold_planned(self, stop: CancellationToken) {
        let holder = format!("{:032x}", self.0.replica.0);
        let claim = |lifetime| {
            let store = &self.0.store;
            store.claim(ROLE.to_owned(), holder.clone(), lifetime)
        };
        let mut planned = Planned::default();
        let (mut seen, mut asked_all) = (self.0.metrics.store_failures.get(), Instant::now());
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(LOOK) => {}
            }
            self.count_over_limit();
            if !self.is_loaded() {
                continue;
            }
            if self.store_is_away() {
                continue;
            }
            // Whatever failed, the store may have been away meanwhile and have forgotten everything.
            let failures = self.0.metrics.store_failures.get();
            if failures != seen && asked_all.elapsed() >= AGAIN {
                (seen, asked_all) = (failures, Instant::now());
                planned.ask_all();
            }
            match claim(CLAIM).await {
                Ok(true) => self.look_at_planned(&mut planned).await,
                Ok(false) => planned.states.clear(),
                Err(error) => self.store_failed(error),
            }
            self.show_planned(&planned);
        }
        // Another one may begin at once; what goes wrong here ends by itself.
        let _ = claim(Duration::ZERO).await;
    }

    async fn look_at_planned(&self, planned: &mut Planned) {
        let view = self.view();
        let now = self.0.clock.now();
        let due = planned.calendar.due(&view, self.0.clock.unix());
        let mut left = std::mem::take(&mut planned.states);
        for hold in due {
            let state = match left.remove(&hold.key) {
                // Other numbers are asked for at once.
                Some(state) if state.hold == hold => state,
                before => State {
                    node: before.and_then(|state| state.node),
                    at: now,
                    said: false,
                    hold,
                },
            };
            planned.states.insert(state.hold.key.clone(), state);
        }
        for (key, state) in left {
            if state.node.is_none() {
                continue;
            }
            match self.0.store.drop_hold(key).await {
                Ok(()) => {
                    tracing::debug!(conference = %state.hold.conference, "capacity is not held any more")
                }
                // It runs out by itself.
                Err(error) => self.store_failed(error),
            }
        }
        self.ask_for_holds(&view, planned, now).await;
    }

    async fn ask_for_holds(&self, view: &Arc<DirectoryView>, planned: &mut Planned, now: Moment) {
        let ready: Vec<(Hold, Option<NodeId>)> = planned
            .states
            .values()
            .filter(|state| state.at <= now)
            .map(|state| (state.hold.clone(), state.node.clone()))
            .collect();
        let mut ready = ready.into_iter();
        let mut asked = JoinSet::new();
        loop {
            while asked.len() < AT_A_TIME
                && !self.store_is_away()
                && let Some((hold, node)) = ready.next()
            {
                let (plane, view) = (self.clone(), Arc::clone(view));
                asked.spawn(async move {
                    let held = plane.hold(&view, &hold, node).await;
                    (hold.key, held)
                });
            }
            let Some(answer) = asked.join_next().await else {
                return;
            };
            let Ok((key, held)) = answer else {
                continue;
            };
            if let Some(state) = planned.states.get_mut(&key) {
                settle(state, held, self.0.clock.now());
            }
        }
    }

    /// Holds capacity for one conference, or renews it. `None` = the store did not say.
    async fn hold(
        &self,
        view: &Arc<DirectoryView>,
        hold: &Hold,
        before: Option<NodeId>,
    ) -> Option<Result<NodeId, PlaceError>> {
        let conference = view.conference_of_room(&hold.key)?;
        let tenant = view.tenant(&hold.key.tenant)?;
        let asks = Asks::of_hold(view, tenant, Some(conference), hold);
        let mut tries = Tries::new(LISTS_MAX);
        tries.held = Some(before);
        let runs_on = {
            let live = self.live();
            live.room(&hold.key).map(|(uid, ..)| uid.clone())
        };
        let runs_on = runs_on.and_then(|uid| view.node(&uid).cloned());
        while tries.lists < LISTS_MAX {
            tries.lists += 1;
            let (choices, strategy, nodes) = match &runs_on {
                // Where it runs already, and nowhere else.
                Some(node) => {
                    let choice = Choice {
                        site: node.site.clone(),
                        node: node.node_id.clone(),
                        capacity: node.capacity,
                    };
                    tries.lists = LISTS_MAX;
                    (vec![choice], Strategy::Pack, Vec::new())
                }
                None => match self.list(view, &asks, &tries) {
                    Ok(list) => (list.choices, list.strategy, list.nodes),
                    Err(error) => return Some(Err(error)),
                },
            };
            let command = HoldCommand {
                key: hold.key.clone(),
                choices,
                strategy,
                amount: hold.amount,
                limits: tenant.limits,
                lifetime: LIFETIME,
            };
            match self.twice(|store| store.hold(command.clone())).await {
                Ok(HoldOutcome::Held(node)) => return Some(Ok(node)),
                Ok(HoldOutcome::Refused(refusal))
                    if refusal.is_of_tenant() || runs_on.is_some() =>
                {
                    return Some(Err(refusal.into()));
                }
                Ok(HoldOutcome::Refused(_)) => {
                    self.remember_refused(&mut tries, nodes, Unfit::Full);
                }
                Ok(HoldOutcome::NotAccepting) => {
                    self.remember_refused(&mut tries, nodes, Unfit::NotAccepting);
                }
                Err(StoreError::Full { .. }) => return Some(Err(PlaceError::StoreFull)),
                Err(error) => {
                    self.store_failed(error);
                    return None;
                }
            }
        }
        Some(Err(self.tally(view, &asks, &tries).into()))
    }

    /// Shows what is held: as metrics, and to the operator.
    fn show_planned(&self, planned: &Planned) {
        let told = planned.states.values().filter_map(|state| {
            let hold = match (&state.node, state.said) {
                (Some(_), _) => wire::Hold::Held,
                (None, true) => wire::Hold::Refused,
                (None, false) => return None,
            };
            Some((state.hold.conference.clone(), hold))
        });
        self.0.placing.show_holds(told.collect());
        let metrics = &self.0.placing.metrics;
        metrics.held.clear();
        metrics.unheld.clear();
        for state in planned.states.values() {
            let tenant = state.hold.key.tenant.to_string();
            let family = if state.node.is_some() {
                &metrics.held
            } else {
                &metrics.unheld
            };
            family.get_or_create(&OfTenant { tenant }).inc();
        }
    }
}

/// What came of asking for a hold.
fn settle(state: &mut State, held: Option<Result<NodeId, PlaceError>>, now: Moment) {
    let (tenant, conference) = (&state.hold.key.tenant, &state.hold.conference);
    match held {
        Some(Ok(node)) => {
            if state.said {
                tracing::info!(event = "HoldPlaced", %tenant, %conference, "capacity is held for a planned conference after all");
            } else if state.node.as_ref() != Some(&node) {
                tracing::debug!(%tenant, %conference, %node, "capacity is held for a planned conference");
            }
            state.node = Some(node);
            state.said = false;
            state.at = now.after(RENEW);
        }
        Some(Err(error)) => {
            if !state.said {
                tracing::warn!(event = "HoldRefused", %tenant, %conference, %error, "capacity for a planned conference cannot be held; it is tried again");
            }
            state.node = None;
            state.said = true;
            state.at = now.after(AGAIN);
        }
        None => state.at = now.after(AGAIN),
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! From the watched objects to one plan. What is not valid is left out, with what is wrong with it; everything else stays.

mod assemble;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use operator_core::calendar::Calendar;
use operator_core::{Generated, Name, ObjectKey, Objects, Plan, Problem, RecordKind};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    context::Settings,
    endpoints::Endpoints,
    secrets::{Secrets, named_by},
    stores::Stores,
    telemetry::Metrics,
};

pub(crate) use assemble::machine_of;
pub use assemble::{Snapshot, assemble};

/// Changes that come together are planned together.
const GATHER: Duration = Duration::from_millis(100);
/// How soon it is planned again where a Secret could not be read.
const RETRY: Duration = Duration::from_secs(5);
/// How long at most a start waits for Secrets that cannot be read.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is planned in any case.
const SLOWLY: Duration = Duration::from_secs(300);

/// What is declared, as one plan.
#[derive(Clone, Debug, Default)]
pub struct Planned {
    /// Records of all objects that are valid.
    pub plan: Plan,
    /// What is wrong, by object. An object that stands here has no record.
    pub problems: BTreeMap<ObjectKey, Vec<Problem>>,
    /// What waits for something all the same, by object.
    pub warnings: BTreeMap<ObjectKey, Vec<Problem>>,
    /// Objects that are right and wait for a Secret that the operator itself makes.
    pub waiting: BTreeSet<ObjectKey>,
    /// While it is assembled: what stays published without a record.
    kept: BTreeSet<(RecordKind, String)>,
    /// The valid objects, with the Secrets they name.
    pub objects: Arc<Objects>,
    /// Link keys and generated passwords.
    pub generated: Generated,
    /// Whether the objects and their Secrets were read once; before that nothing can be concluded from an absence.
    pub ready: bool,
}

impl Planned {
    /// What is wrong with an object.
    #[must_use]
    pub fn problems_of(&self, kind: &str, namespace: &str, name: &str) -> &[Problem] {
        let key = ObjectKey {
            kind: kind.to_owned(),
            name: Name::new(namespace, name),
        };
        self.problems.get(&key).map_or(&[], Vec::as_slice)
    }
}

/// Plans for ever.
pub struct Planner {
    /// Surroundings.
    pub settings: Settings,
    /// Watched objects.
    pub stores: Arc<Stores>,
    /// Where nodes are reached.
    pub endpoints: Endpoints,
    /// Secrets of tenants.
    pub secrets: Secrets,
    /// Counters.
    pub metrics: Metrics,
    /// Clock.
    pub now: fn() -> Timestamp,
    /// Gets each plan.
    pub planned: watch::Sender<Arc<Planned>>,
}

impl Planner {
    /// Plans whenever something changed.
    pub async fn run(mut self) {
        self.stores.ready().await;
        let mut objects = self.stores.changes();
        let mut endpoints = self.endpoints.changes();
        let mut secrets = self.secrets.changes();
        let began = Instant::now();
        loop {
            objects.borrow_and_update();
            endpoints.borrow_and_update();
            secrets.borrow_and_update();
            let again = Instant::now() + self.plan(began).await;
            tokio::select! {
                changed = objects.changed() => if changed.is_err() { return },
                changed = endpoints.changed() => if changed.is_err() { return },
                changed = secrets.changed() => if changed.is_err() { return },
                () = sleep_until(again) => {}
            }
            sleep(GATHER).await;
        }
    }

    /// Plans once; says when to look again at the latest.
    async fn plan(&mut self, began: Instant) -> Duration {
        let now = (self.now)();
        let calendar = windows(&self.stores, now);
        let endpoints = self.endpoints.all();
        let mut snapshot = Snapshot::of(&self.stores, &self.settings, endpoints, &calendar);
        self.secrets.follow(&snapshot.tenant_namespaces());
        let found = self.secrets.fetch(&named_by(&snapshot.objects)).await;
        let unknown = !found.unknown.is_empty();
        snapshot.objects.secrets = found.secrets;
        snapshot.unknown_secrets = found.unknown;
        // Half a second of pure work for ten thousand conferences: not on a thread that serves others.
        let planned = tokio::task::spawn_blocking(move || assemble(snapshot)).await;
        let Ok(Some(mut planned)) = planned else {
            return RETRY;
        };
        // Whoever publishes waits for it: what a snapshot leaves out is retracted.
        planned.ready |= self.planned.borrow().ready || began.elapsed() >= PATIENCE;
        self.count(&planned);
        self.planned.send_if_modified(|old| {
            let changed = old.ready != planned.ready
                || old.plan != planned.plan
                || old.problems != planned.problems
                || old.warnings != planned.warnings
                || old.waiting != planned.waiting
                || old.generated != planned.generated;
            *old = Arc::new(planned);
            changed
        });
        if unknown {
            return RETRY;
        }
        // Not before: a plan a moment too early would say what the last one said.
        let until = calendar.changes_at().map(|at| at.duration_since(now));
        let until = until.and_then(|left| Duration::try_from(left).ok());
        until.map_or(SLOWLY, |left| SLOWLY.min(left + GATHER))
    }

    fn count(&self, planned: &Planned) {
        for kind in KINDS {
            let count = planned.problems.keys().filter(|key| key.kind == kind);
            self.metrics.objects_with_problems(kind, count.count());
        }
    }
}

/// Windows that count at a moment.
fn windows(stores: &Stores, now: Timestamp) -> Calendar {
    let windows = stores.windows.all();
    Calendar::new(windows.iter().map(|window| &**window), now)
}

/// Kinds that can be wrong.
const KINDS: [&str; 6] = [
    "Tenant",
    "ConferenceClass",
    "Conference",
    "MediaPool",
    "MaintenanceWindow",
    "Secret",
];

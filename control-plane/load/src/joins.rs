// SPDX-License-Identifier: EUPL-1.2
//! Joins by real WebSockets: as many as the machine takes, or at a given pace.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::people::{Backend, Gateway, Session};
use crate::target::{Arrivals, Person};

/// Progress is said this often.
const SAY: Duration = Duration::from_secs(10);
/// Joins under way at a given pace; beyond it the pace is not held.
const UNDER_WAY_MAX: usize = 2_000;

/// Everything that joins share.
#[derive(Clone)]
pub(crate) struct Joins {
    /// Where they go, in turns.
    pub(crate) gateways: Arc<Vec<Gateway>>,
    /// Who signs.
    pub(crate) backends: Arc<Vec<Backend>>,
    /// Begins the names of rooms and people.
    pub(crate) prefix: &'static str,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Time from dialling, or from the planned moment, to the first frame.
    pub(crate) took: Vec<Duration>,
    /// How many failed.
    pub(crate) failed: usize,
    /// How many took more than one try.
    pub(crate) tried_again: usize,
    /// Why the first ones did.
    pub(crate) why: Vec<String>,
    /// All of it.
    pub(crate) wall: Duration,
    /// Bytes of the first frames.
    pub(crate) first_bytes: usize,
}

impl Outcome {
    /// Refuses a run of which more than one in a thousand failed: its figures would say nothing.
    pub(crate) fn check(&self, what: &str) -> Result<()> {
        if self.failed * 1_000 > self.took.len() {
            bail!(
                "{what}: {} of {} joins failed: {}",
                self.failed,
                self.took.len() + self.failed,
                self.why.join("; ")
            );
        }
        Ok(())
    }

    fn add(&mut self, result: Result<Joined>) {
        match result {
            Ok(joined) => {
                self.took.push(joined.took);
                self.first_bytes += joined.first_bytes;
                self.tried_again += usize::from(joined.tries > 1);
            }
            Err(error) => {
                self.failed += 1;
                if self.why.len() < 5 {
                    self.why.push(format!("{error:#}"));
                }
            }
        }
    }
}

/// One join.
struct Joined {
    took: Duration,
    first_bytes: usize,
    tries: u32,
}

impl Joins {
    /// Joins, and leaves again; the time runs from `since` to the first frame.
    async fn one(&self, turn: usize, arrivals: Arrivals, since: Instant) -> Result<Joined> {
        let (room, number) = arrivals.at(turn);
        let person = Person::of(self.prefix, room, number);
        let token = person.token(&self.backends);
        let (session, tries) = Session::join_patiently(&self.gateways, &token, turn).await?;
        let joined = Joined {
            took: since.elapsed(),
            first_bytes: session.first_bytes,
            tries,
        };
        session.leave().await;
        Ok(joined)
    }

    /// Everybody, `at_a_time`.
    pub(crate) async fn all(
        &self,
        people: usize,
        rooms: usize,
        at_a_time: usize,
    ) -> Result<Outcome> {
        let arrivals = Arrivals::new(people, rooms);
        let next = Arc::new(AtomicUsize::new(0));
        let started = Instant::now();
        let mut workers = JoinSet::new();
        for _ in 0..at_a_time {
            let (joins, next) = (self.clone(), Arc::clone(&next));
            workers.spawn(async move {
                let mut outcome = Outcome::default();
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= people {
                        return outcome;
                    }
                    outcome.add(joins.one(turn, arrivals, Instant::now()).await);
                }
            });
        }
        let mut all = Outcome::default();
        let mut say = tokio::time::interval_at(started + SAY, SAY);
        loop {
            tokio::select! {
                ended = workers.join_next() => match ended {
                    Some(outcome) => {
                        let outcome = outcome?;
                        all.took.extend(outcome.took);
                        all.failed += outcome.failed;
                        all.tried_again += outcome.tried_again;
                        all.first_bytes += outcome.first_bytes;
                        all.why.extend(outcome.why);
                        all.why.truncate(5);
                    }
                    None => break,
                },
                _ = say.tick() => {
                    let done = next.load(Ordering::Relaxed).min(people);
                    tracing::info!(done, of = people, per_second = (done as f64 / started.elapsed().as_secs_f64()) as u64, "joins");
                }
            }
        }
        all.wall = started.elapsed();
        Ok(all)
    }

    /// `people` at a pace, whatever the answers take: times run from the planned moment, so that a stall is not hidden by the wait for it.
    pub(crate) async fn paced(
        &self,
        people: usize,
        rooms: usize,
        per_second: f64,
    ) -> Result<Outcome> {
        let arrivals = Arrivals::new(people, rooms);
        let started = Instant::now();
        let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let (done, mut results) = mpsc::channel(UNDER_WAY_MAX);
        let collecting = tokio::spawn(async move {
            let mut outcome = Outcome::default();
            while let Some(result) = results.recv().await {
                outcome.add(result);
            }
            outcome
        });
        for turn in 0..people {
            let at = started + Duration::from_secs_f64(turn as f64 / per_second.max(0.1));
            sleep_until(at).await;
            let permit = Arc::clone(&under_way).acquire_owned().await?;
            let (joins, done) = (self.clone(), done.clone());
            tokio::spawn(async move {
                let _ = done.send(joins.one(turn, arrivals, at).await).await;
                drop(permit);
            });
        }
        drop(done);
        let mut outcome = collecting.await?;
        outcome.wall = started.elapsed();
        Ok(outcome)
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! Asks the API server what the [`Elector`](super::Elector) wants to know.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Elector, RETRY, Role, Step};
use crate::{backoff, client::Fence, telemetry::Metrics};

/// Longest call; several fit before the deadline.
const CALL: Duration = Duration::from_secs(3);
/// Name of the Lease.
const NAME: &str = "plenum-operator";

/// Why a step came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ElectionError {
    /// No answer in time.
    #[error("the API server did not answer within {} s", CALL.as_secs())]
    Late,
    /// Somebody else was faster.
    #[error("somebody else wrote the lease")]
    Conflict,
    /// Anything else.
    #[error("lease: {0}")]
    Api(#[from] kube::Error),
}

/// An election that goes on.
pub struct Election {
    api: Api<Lease>,
    elector: Elector,
    roles: watch::Sender<Role>,
    fence: Fence,
    metrics: Metrics,
    began: Instant,
    now: fn() -> Timestamp,
}

impl Election {
    /// Takes part. The client does not repeat calls by itself: a renewal that hangs is worse than one that fails. `fence` admits writes
    /// for as long as this process leads.
    #[must_use]
    pub fn new(
        client: Client,
        fence: Fence,
        namespace: &str,
        identity: &str,
        metrics: Metrics,
        now: fn() -> Timestamp,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            elector: Elector::new(namespace, NAME, identity),
            roles: watch::Sender::new(Role::Unknown),
            fence,
            metrics,
            began: Instant::now(),
            now,
        }
    }

    /// Tells what this process is.
    #[must_use]
    pub fn roles(&self) -> watch::Receiver<Role> {
        self.roles.subscribe()
    }

    /// Takes part until told to stop, then gives the lease back. Whoever leads has stopped what only a leader does before that.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failing = false;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                outcome = self.turn() => match outcome {
                    Ok(()) => failing = false,
                    Err(ElectionError::Conflict) => {
                        failing = false;
                        tracing::debug!("somebody else wrote the lease");
                    }
                    Err(error) => {
                        // Once per outage; what follows from it is told as a change of the role.
                        if !std::mem::replace(&mut failing, true) {
                            tracing::warn!(event = "LeaseUnreachable", error = %crate::driver::chain(&error), "the lease can be neither read nor renewed");
                        }
                    }
                }
            }
            self.tell();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.rest() => {}
            }
            self.tell();
            self.elector.look_again();
        }
        self.release().await;
    }

    /// Until it is time to try again, or the deadline is reached.
    async fn rest(&self) {
        let now = self.began.elapsed();
        let until_deadline = match self.elector.role(now) {
            Role::Leading { .. } => self.elector.leads_until(),
            _ => None,
        };
        let retry = backoff::spread(RETRY, backoff::dice());
        let left = until_deadline.map_or(retry, |at| at.saturating_sub(now));
        sleep(retry.min(left)).await;
    }

    fn tell(&self) {
        let role = self.elector.role(self.began.elapsed());
        let leads = matches!(role, Role::Leading { .. });
        self.metrics.leads(leads);
        // Before anybody hears that this process leads.
        let until = self.elector.leads_until().filter(|_| leads);
        self.fence
            .set(until.and_then(|until| self.began.checked_add(until)));
        let changed = self.roles.send_if_modified(|told| {
            let changed = *told != role;
            *told = role;
            changed
        });
        if !changed {
            return;
        }
        match role {
            Role::Leading { epoch } => {
                tracing::info!(event = "LeaseTaken", epoch, "this process leads");
            }
            Role::Lapsed { epoch } => {
                tracing::warn!(
                    event = "LeaseLapsed",
                    epoch,
                    "the lease could not be renewed in time"
                );
            }
            Role::Following => {
                tracing::info!(
                    event = "LeaseHeldElsewhere",
                    "another process leads, or none"
                );
            }
            Role::Unknown => {}
        }
    }

    /// One look, and what follows from it.
    async fn turn(&mut self) -> Result<(), ElectionError> {
        // Reading shows at most one thing to do, and doing it at most one thing to look at.
        for _ in 0..2 {
            let step = self.elector.next(self.began.elapsed(), (self.now)());
            let reads = step == Step::Read;
            let outcome = self.step(step).await;
            if outcome.is_err() {
                self.elector.unsure();
            }
            outcome?;
            if !reads {
                break;
            }
        }
        Ok(())
    }

    async fn step(&mut self, step: Step) -> Result<(), ElectionError> {
        let began = self.began.elapsed();
        match step {
            Step::Wait => {}
            Step::Read => {
                let lease = in_time(self.api.get_opt(NAME)).await?;
                self.elector.read(lease, self.began.elapsed());
            }
            Step::Create(lease) => {
                let lease = in_time(self.api.create(&PostParams::default(), &lease)).await?;
                self.elector.wrote(lease, began, self.began.elapsed());
            }
            Step::Replace(lease) => {
                let params = PostParams::default();
                let lease = in_time(self.api.replace(NAME, &params, &lease)).await?;
                self.elector.wrote(lease, began, self.began.elapsed());
            }
        }
        Ok(())
    }

    async fn release(self) {
        self.fence.set(None);
        let Some(released) = self.elector.release((self.now)()) else {
            return;
        };
        let params = PostParams::default();
        match in_time(self.api.replace(NAME, &params, &released)).await {
            Ok(_) => tracing::info!(event = "LeaseReleased", "the lease is given back"),
            // It runs out by itself.
            Err(error) => tracing::debug!(error = %error, "the lease could not be given back"),
        }
        self.metrics.leads(false);
        self.roles.send_replace(Role::Following);
    }
}

async fn in_time<T>(
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ElectionError> {
    match timeout(CALL, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(ElectionError::Conflict),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(ElectionError::Late),
    }
}

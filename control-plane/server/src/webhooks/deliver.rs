// SPDX-License-Identifier: EUPL-1.2
//! Delivers one queue: holds its claim, reads its head, calls the receiver.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use control_core::limits::WEBHOOK_WINDOW;
use control_core::time::Moment;
use control_core::webhook::{Delivery, Fate, Loss, Network, Next, Verdict, judge, too_old};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::client::{Answer, Client, SendError};
use super::message::{authorization, room_of, with_dropped};
use super::{Options, Wake, Webhooks, receiver};
use crate::plane::Plane;
use crate::store::{EventQueue, QueuedEvent};

/// A claim lives this long after its holder died.
const CLAIM: Duration = Duration::from_secs(10);
/// It is renewed after this, and nothing is sent when that failed for another third.
const RENEW: Duration = Duration::from_secs(4);
const TRUST: Duration = Duration::from_secs(8);
/// The store, or a claim that another replica holds, is looked at again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// Other replicas queue events as well: the queue is read again after this, and less often the longer it stays empty.
const READ: Duration = Duration::from_millis(250);
const READ_MAX: Duration = Duration::from_secs(2);
/// A queue of which enough is known is read at most this often, whoever queues how much.
const READ_MIN: Duration = Duration::from_millis(100);
/// A queue that stays empty for this long is given up.
const IDLE: Duration = Duration::from_secs(10);
/// What is under way when the process stops has this long.
const LAST: Duration = Duration::from_secs(3);

struct Sent {
    id: String,
    /// Losses that the body told of.
    told: u32,
    result: Result<Answer, SendError>,
}

/// How a delivery stands to its claim.
enum Claim {
    Held,
    Foreign,
    Unknown,
}

pub(super) struct Deliverer {
    hooks: Webhooks,
    plane: Plane,
    options: Arc<Options>,
    queue: EventQueue,
    wake: Arc<Wake>,
    delivery: Delivery,
    bodies: BTreeMap<String, QueuedEvent>,
    /// Made for this URL and CA.
    client: Option<(String, String, Client)>,
    under_way: JoinSet<Sent>,
    /// Out of the queue with them, once the store answers again.
    done: BTreeSet<String>,
    claimed: Option<Moment>,
    /// The head of the queue was read whole, and nothing left it since.
    more: bool,
    read_at: Moment,
    last_read: Moment,
    read_pace: Duration,
    busy_at: Moment,
    failing: bool,
}

impl Deliverer {
    pub(super) fn new(
        hooks: Webhooks,
        plane: Plane,
        options: Arc<Options>,
        queue: EventQueue,
        wake: Arc<Wake>,
    ) -> Self {
        let now = hooks.0.clock.now();
        Self {
            hooks,
            plane,
            options,
            queue,
            wake,
            delivery: Delivery::default(),
            bodies: BTreeMap::new(),
            client: None,
            under_way: JoinSet::new(),
            done: BTreeSet::new(),
            claimed: None,
            more: false,
            read_at: now,
            last_read: now,
            read_pace: READ,
            busy_at: now,
            failing: false,
        }
    }

    fn now(&self) -> Moment {
        self.hooks.0.clock.now()
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let wait = match self.claim().await {
                Claim::Foreign if self.under_way.is_empty() && self.is_somebody_elses().await => {
                    break;
                }
                Claim::Foreign => {
                    // What was delivered before the claim was lost is not to be delivered again.
                    self.flush_done().await;
                    AGAIN
                }
                Claim::Unknown => AGAIN,
                Claim::Held => match self.work().await {
                    Some(wait) => wait,
                    None => break,
                },
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
                () = self.wake.notify.notified() => {
                    self.read_pace = READ;
                    self.read_at = if self.delivery.is_empty() {
                        self.now()
                    } else {
                        self.last_read.after(READ_MIN)
                    };
                }
                Some(sent) = self.under_way.join_next() => match sent {
                    Ok(sent) => self.answered(sent).await,
                    Err(error) => {
                        if error.is_panic() {
                            tracing::error!(event = "WebhookRequestFailed", %error, "a request to a webhook's receiver ended by a bug");
                        }
                        // Which event it was is not known: all begin anew.
                        self.wake.again.store(true, Ordering::Release);
                        break;
                    }
                },
            }
        }
        self.finish().await;
    }

    /// Asks for the claim, or for its renewal.
    async fn claim(&mut self) -> Claim {
        let now = self.now();
        if self.claimed.is_some_and(|at| now.since(at) < RENEW) {
            return Claim::Held;
        }
        let role = role(&self.queue);
        let holder = self.options.replica.clone();
        match self.hooks.0.store.claim(role, holder, CLAIM).await {
            Ok(true) => {
                if self.claimed.is_none() {
                    self.read_at = now;
                }
                // From before the question: the store's own time began later.
                self.claimed = Some(now);
                Claim::Held
            }
            Ok(false) => {
                self.claimed = None;
                self.delivery.rest();
                self.keep_bodies();
                Claim::Foreign
            }
            Err(_) => match self.claimed {
                Some(at) if self.now().since(at) < TRUST => Claim::Held,
                _ => Claim::Unknown,
            },
        }
    }

    /// Another replica delivers, and there is nothing that it could leave behind.
    async fn is_somebody_elses(&mut self) -> bool {
        let store = &self.hooks.0.store;
        let rest = store.events(self.queue.clone(), 1).await;
        rest.is_ok_and(|events| events.is_empty())
    }

    /// Reads and sends what can be; how long nothing more can be done. `None` = nothing is left to do at all.
    async fn work(&mut self) -> Option<Duration> {
        let view = self.plane.view();
        let (tenant, webhook) = match receiver(&view, &self.queue) {
            Ok(found) => found,
            Err(loss) => return self.empty(loss).await,
        };
        let now = self.now();
        if self.is_read_due(now) && !self.read().await {
            return Some(AGAIN);
        }
        let mut wait = RENEW;
        loop {
            match self.delivery.next(now) {
                Next::Send(id) => {
                    let client = self.client(&webhook.url, &webhook.ca_pem);
                    let secret = tenant.secret(&webhook.signing_key).cloned();
                    self.send(id, client, &webhook.signing_key, secret);
                }
                Next::At(at) => {
                    wait = wait.min(at.since(now));
                    break;
                }
                Next::Idle => break,
            }
        }
        if !self.delivery.is_empty() {
            self.busy_at = now;
        } else if now.since(self.busy_at) >= IDLE && self.done.is_empty() {
            return None;
        }
        if let Some(resume) = self.delivery.resumes_at() {
            return Some(wait.min(resume.since(now)).max(Duration::from_millis(1)));
        }
        Some(
            wait.min(self.read_at.since(now))
                .max(Duration::from_millis(1)),
        )
    }

    fn is_read_due(&self, now: Moment) -> bool {
        if self.delivery.resumes_at().is_some_and(|at| at > now) {
            return false;
        }
        let low = self.more && self.delivery.len() < WEBHOOK_WINDOW / 2;
        let asleep = self.delivery.is_down() && self.delivery.is_empty();
        low || asleep || now >= self.read_at
    }

    /// Reads the head of the queue. Whether the store answered.
    async fn read(&mut self) -> bool {
        if !self.flush_done().await {
            return false;
        }
        // Whoever queues from here on is read the next time.
        self.wake.again.store(false, Ordering::Release);
        let store = Arc::clone(&self.hooks.0.store);
        let Ok(events) = store.events(self.queue.clone(), WEBHOOK_WINDOW).await else {
            return false;
        };
        let now = self.now();
        self.last_read = now;
        self.more = events.len() >= WEBHOOK_WINDOW;
        self.hooks.0.metrics.queued(&self.queue, events.len());
        self.read_pace = if events.is_empty() {
            (self.read_pace * 2).min(READ_MAX)
        } else {
            READ_MAX
        };
        self.read_at = now.after(self.read_pace);
        let unix = self.hooks.0.clock.unix().0;
        let (old, events): (Vec<_>, Vec<_>) = events
            .into_iter()
            .partition(|event| too_old(event.queued_unix_ms, unix));
        for event in old {
            self.delivery.discard(&event.id);
            self.hooks.lose(&self.queue, Loss::TooOld, 1, &event.id);
            self.leave(event.id).await;
        }
        let listed: Vec<(String, String)> = events
            .iter()
            .map(|event| (event.id.clone(), room_of(&event.body)))
            .collect();
        self.bodies
            .extend(events.into_iter().map(|event| (event.id.clone(), event)));
        for known in self.delivery.refill(listed) {
            self.leave(known).await;
        }
        self.keep_bodies();
        true
    }

    fn keep_bodies(&mut self) {
        let delivery = &self.delivery;
        self.bodies.retain(|id, _| delivery.holds(id));
    }

    fn client(&mut self, url: &str, ca_pem: &str) -> Result<Client, SendError> {
        if let Some((of_url, of_ca, client)) = &self.client
            && of_url == url
            && of_ca == ca_pem
        {
            return Ok(client.clone());
        }
        let allowed: Arc<[Network]> = self.options.allowed.clone().into();
        let client = Client::new(url, ca_pem, allowed)?;
        self.client = Some((url.to_owned(), ca_pem.to_owned(), client.clone()));
        Ok(client)
    }

    fn send(
        &mut self,
        id: String,
        client: Result<Client, SendError>,
        key: &str,
        secret: Option<control_core::ids::Secret>,
    ) {
        let body = self.bodies.get(&id).map(|event| event.body.clone());
        let untold = self.hooks.untold(&self.queue);
        let now_s = self.hooks.0.clock.unix().0 / 1_000;
        let key = key.to_owned();
        self.under_way.spawn(async move {
            let (body, told) = match body {
                Some(body) if untold > 0 => match with_dropped(&body, untold) {
                    Some(body) => (body, untold),
                    None => (body, 0),
                },
                body => (body.unwrap_or_default(), 0),
            };
            let call = async {
                let secret = secret.ok_or(SendError::NoKey)?;
                let authorization = authorization(&key, secret.expose(), &body, now_s);
                client?.post(body, &authorization).await
            };
            let result = call.await;
            Sent { id, told, result }
        });
    }

    async fn answered(&mut self, sent: Sent) {
        let metrics = &self.hooks.0.metrics;
        let (verdict, reason) = match &sent.result {
            Ok(answer) => {
                let reason = match answer.status {
                    300..=399 => "Redirect",
                    400..=499 => "ClientError",
                    _ => "ServerError",
                };
                (judge(answer.status, answer.retry_after), reason)
            }
            Err(error) => (Verdict::Unavailable(None), error.reason()),
        };
        if verdict == Verdict::Taken {
            metrics.delivered(&self.queue);
            self.hooks.told(&self.queue, sent.told);
            if std::mem::take(&mut self.failing) {
                tracing::info!( event = "WebhookReceiverBack", tenant = %self.queue.tenant, receiver = %self.queue.receiver, "a webhook's receiver takes events again");
            }
        } else {
            metrics.failed(&self.queue, reason);
            if !std::mem::replace(&mut self.failing, true) {
                let status = sent.result.as_ref().map_or(0, |answer| answer.status);
                let error = sent.result.as_ref().err().map(ToString::to_string);
                tracing::warn!( event = "WebhookReceiverFailing", tenant = %self.queue.tenant, receiver = %self.queue.receiver, reason, status, error, "a webhook's receiver does not take events");
            }
        }
        let now = self.now();
        match self.delivery.answered(&sent.id, verdict, now, random()) {
            Fate::Again => {
                if self.delivery.is_down() {
                    self.delivery.rest();
                    self.keep_bodies();
                }
            }
            Fate::Done => self.leave(sent.id).await,
            Fate::Lost => {
                self.hooks.lose(&self.queue, Loss::Refused, 1, &sent.id);
                self.leave(sent.id).await;
            }
        }
    }

    /// Out of the queue with an event.
    async fn leave(&mut self, id: String) {
        self.bodies.remove(&id);
        let store = Arc::clone(&self.hooks.0.store);
        if store
            .event_done(self.queue.clone(), id.clone())
            .await
            .is_err()
        {
            self.done.insert(id);
        }
    }

    /// Whether everything that left the queue is out of the store.
    async fn flush_done(&mut self) -> bool {
        let store = Arc::clone(&self.hooks.0.store);
        while let Some(id) = self.done.first().cloned() {
            if store
                .event_done(self.queue.clone(), id.clone())
                .await
                .is_err()
            {
                return false;
            }
            self.done.remove(&id);
        }
        true
    }

    /// Nobody is to have the events.
    async fn empty(&mut self, loss: Loss) -> Option<Duration> {
        self.under_way.abort_all();
        let store = Arc::clone(&self.hooks.0.store);
        loop {
            let events = match store.events(self.queue.clone(), WEBHOOK_WINDOW).await {
                Ok(events) if events.is_empty() => return None,
                Ok(events) => events,
                Err(_) => return Some(AGAIN),
            };
            for event in events {
                if store
                    .event_done(self.queue.clone(), event.id.clone())
                    .await
                    .is_err()
                {
                    return Some(AGAIN);
                }
                self.hooks.lose(&self.queue, loss, 1, &event.id);
            }
        }
    }

    /// What is under way is waited for, so that nobody sends it a second time; then the claim is free.
    async fn finish(mut self) {
        let last = async {
            while let Some(sent) = self.under_way.join_next().await {
                if let Ok(sent) = sent {
                    self.answered(sent).await;
                }
            }
            self.flush_done().await
        };
        let _ = timeout(LAST, last).await;
        self.hooks.0.metrics.released(&self.queue);
        if self.claimed.is_some() {
            let holder = self.options.replica.clone();
            // It runs out by itself.
            let _ = self
                .hooks
                .0
                .store
                .claim(role(&self.queue), holder, Duration::ZERO)
                .await;
        }
        if !self.done.is_empty() {
            self.wake.again.store(true, Ordering::Release);
        }
    }
}

fn role(queue: &EventQueue) -> String {
    format!("webhook/{}/{}", queue.tenant, queue.receiver)
}

/// Jitter. Without the system's randomness nothing else works either.
fn random() -> u32 {
    let mut bytes = [0; 4];
    let _ = SystemRandom::new().fill(&mut bytes);
    u32::from_be_bytes(bytes)
}

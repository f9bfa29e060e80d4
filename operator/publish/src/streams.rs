// SPDX-License-Identifier: EUPL-1.2
//! The two streams to each replica of the control plane: what is declared goes out, what is going on comes in. Both begin
//! anew after a break, with everything; there is no way besides them, here or in a cluster.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex as SyncMutex, PoisonError},
    time::Duration,
};

use operator_core::{Plan, RecordKind, diff};
use plenum_proto::v1::{
    AcceptingOrder, MoveOrder, ObserveRequest, Publication, PublicationAck,
    directory_client::DirectoryClient, observation, publication::Item,
};
use plenum_shell::tls::{self, Connector};
pub use plenum_shell::{
    identity::CONTROL_PLANE_DNS,
    tls::{Tls, TlsError},
};
use tokio::{
    sync::{Mutex, mpsc},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::convert::{self, HashError, Hashes};

/// First wait before a stream is begun anew.
const RETRY_MIN: Duration = Duration::from_millis(30);
/// Longest wait.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);
/// Messages on their way; the control plane reads as fast as it applies.
const QUEUE: usize = 64;

/// What the publisher is told.
#[derive(Clone)]
pub enum Wish {
    /// This is declared from now on.
    Plan(Arc<Plan>),
    /// A node takes new rooms, or takes none.
    Accepting(AcceptingOrder),
    /// A node's rooms move by a deadline.
    Move(MoveOrder),
    /// One of the two, and somebody waits for what comes of it.
    Asked(Box<Item>, mpsc::Sender<OrderOutcome>),
}

/// What the control plane did with an order. A sender that is dropped without one means that the connection broke, or that there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderOutcome {
    /// It is carried out.
    Done,
    /// It is not.
    Refused {
        /// CamelCase reason.
        reason: String,
        /// For people.
        message: String,
    },
}

/// What the streams tell.
#[derive(Debug)]
pub enum News {
    /// The control plane has all records of a snapshot.
    SnapshotApplied,
    /// It has taken a record.
    Taken {
        /// Kind.
        kind: RecordKind,
        /// Uid.
        uid: String,
        /// Revision.
        revision: String,
    },
    /// It has refused a record.
    Refused {
        /// Kind.
        kind: RecordKind,
        /// Uid.
        uid: String,
        /// CamelCase reason.
        reason: String,
        /// For people.
        message: String,
    },
    /// The stream of publications broke.
    PublishBroken(String),
    /// A password could not be hashed.
    Unhashed(HashError),
    /// The stream of observations begins anew: what was known is void.
    ObserveBegins,
    /// Something was observed.
    Observed(observation::Item),
    /// The stream of observations broke.
    ObserveBroken(String),
}

/// Tells the news of one replica.
#[derive(Clone)]
pub struct Teller {
    /// Number of the replica.
    pub replica: usize,
    /// Where its news goes.
    pub send: mpsc::Sender<(usize, News)>,
}

impl Teller {
    /// Whether anybody still hears.
    async fn tell(&self, news: News) -> bool {
        self.send.send((self.replica, news)).await.is_ok()
    }
}

/// Hashed passwords, which cost the same whoever publishes them.
pub type SharedHashes = Arc<Mutex<Hashes>>;

/// How a replica is dialled.
#[derive(Clone)]
pub struct Dial {
    endpoint: Endpoint,
    connector: Connector,
}

/// It cannot be dialled.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Where to.
    #[error("address of the control plane: {0}")]
    Address(#[from] tonic::transport::Error),
    /// With which certificate.
    #[error("certificates for the control plane: {0}")]
    Tls(#[from] TlsError),
}

impl Dial {
    /// With the own certificate and the authorities, as they are at the moment of each connection.
    ///
    /// # Errors
    /// [`DialError`].
    pub fn new(address: SocketAddr, tls: &Tls) -> Result<Self, DialError> {
        let endpoint = tls::endpoint(&address.to_string())?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true);
        Ok(Self {
            endpoint,
            connector: tls.connector(CONTROL_PLANE_DNS)?,
        })
    }

    async fn client(&self) -> Result<DirectoryClient<Channel>, String> {
        match timeout(CONNECT, self.connector.clone().connect(&self.endpoint)).await {
            Ok(Ok(channel)) => Ok(DirectoryClient::new(channel)),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err("no answer".to_owned()),
        }
    }
}

/// An error with its causes, because transports put the interesting part last.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Publishes for ever; ends when nobody wishes any more.
pub async fn publish(
    dial: Dial,
    epoch: u64,
    mut wishes: mpsc::Receiver<Wish>,
    shared: SharedHashes,
    news: Teller,
) {
    let mut publisher = Publisher {
        epoch,
        plan: Arc::default(),
        hashes: Hashes::default(),
        shared,
        pending: VecDeque::new(),
        expected: Expected::default(),
        news,
    };
    // Nothing is sent before the first plan: an empty snapshot would retract everything.
    loop {
        match wishes.recv().await {
            Some(Wish::Plan(plan)) => {
                publisher.plan = plan;
                break;
            }
            Some(_) => {}
            None => return,
        }
    }
    let mut wait = RETRY_MIN;
    loop {
        match publisher.stream(&dial, &mut wishes).await {
            Ended::NoWishes => return,
            Ended::Broken { error, lived } => {
                if lived {
                    wait = RETRY_MIN;
                    publisher.news.tell(News::PublishBroken(error)).await;
                }
            }
        }
        if !publisher.rest(wait, &mut wishes).await {
            return;
        }
        wait = (wait * 2).min(RETRY_MAX);
    }
}

struct Publisher {
    epoch: u64,
    plan: Arc<Plan>,
    hashes: Hashes,
    shared: SharedHashes,
    /// Orders that came while there was no stream.
    pending: VecDeque<Item>,
    /// Who waits for the answer to each message that was sent, in the order of sending, which is that of the answers.
    expected: Expected,
    news: Teller,
}

/// One entry per message on its way.
type Expected = Arc<SyncMutex<VecDeque<Option<mpsc::Sender<OrderOutcome>>>>>;

enum Ended {
    NoWishes,
    Broken { error: String, lived: bool },
}

impl Publisher {
    async fn stream(&mut self, dial: &Dial, wishes: &mut mpsc::Receiver<Wish>) -> Ended {
        let broken = |error: String, lived: bool| Ended::Broken { error, lived };
        let mut client = match dial.client().await {
            Ok(client) => client,
            Err(error) => return broken(error, false),
        };
        let (send, queue) = mpsc::channel::<Publication>(QUEUE);
        // Whoever waited for an answer of the stream before gets none.
        self.expected = Expected::default();
        // The answer's headers may come with the first acknowledgement only: send while waiting for them.
        let mut acks = tokio::spawn({
            let (news, expected) = (self.news.clone(), Arc::clone(&self.expected));
            async move {
                hear(
                    client.publish(ReceiverStream::new(queue)).await,
                    &news,
                    &expected,
                )
                .await
            }
        });
        let snapshot = self.snapshot(&send);
        tokio::select! {
            sent = snapshot => if sent.is_none() {
                acks.abort();
                return broken("the stream ended during the snapshot".to_owned(), true);
            },
            error = &mut acks => return broken(error.unwrap_or_else(|error| error.to_string()), false),
        }
        loop {
            tokio::select! {
                error = &mut acks => return broken(error.unwrap_or_else(|error| error.to_string()), true),
                wish = wishes.recv() => {
                    let Some(wish) = wish else {
                        acks.abort();
                        return Ended::NoWishes;
                    };
                    if self.obey(wish, &send).await.is_none() {
                        acks.abort();
                        return broken("the stream ended".to_owned(), true);
                    }
                }
            }
        }
    }

    async fn snapshot(&mut self, send: &mpsc::Sender<Publication>) -> Option<()> {
        let plan = Arc::clone(&self.plan);
        self.rehash(&plan).await;
        for record in diff(&Plan::default(), &plan).publish {
            self.send(send, convert::item(record, &self.hashes), None)
                .await?;
        }
        for (kind, uid) in &plan.kept {
            self.send(send, convert::keep(*kind, uid), None).await?;
        }
        self.send(send, Item::EndOfSnapshot(true), None).await?;
        while let Some(order) = self.pending.pop_front() {
            self.send(send, order, None).await?;
        }
        Some(())
    }

    /// Waits, and takes wishes meanwhile; says whether there may be more.
    async fn rest(&mut self, wait: Duration, wishes: &mut mpsc::Receiver<Wish>) -> bool {
        let until = Instant::now() + wait;
        loop {
            let order = match timeout_at(until, wishes.recv()).await {
                Err(_) => return true,
                Ok(None) => return false,
                Ok(Some(Wish::Plan(plan))) => {
                    self.plan = plan;
                    continue;
                }
                Ok(Some(Wish::Accepting(order))) => Item::Accepting(order),
                Ok(Some(Wish::Move(order))) => Item::Move(order),
                // Whoever waits for an answer asks again.
                Ok(Some(Wish::Asked(..))) => continue,
            };
            if self.pending.len() == QUEUE {
                self.pending.pop_front();
            }
            self.pending.push_back(order);
        }
    }

    async fn obey(&mut self, wish: Wish, send: &mpsc::Sender<Publication>) -> Option<()> {
        match wish {
            Wish::Plan(plan) => {
                self.rehash(&plan).await;
                let old = std::mem::replace(&mut self.plan, Arc::clone(&plan));
                let diff = diff(&old, &plan);
                for (kind, uid) in &diff.retract {
                    self.send(send, convert::retraction(*kind, uid), None)
                        .await?;
                }
                for record in diff.publish {
                    self.send(send, convert::item(record, &self.hashes), None)
                        .await?;
                }
                Some(())
            }
            Wish::Accepting(order) => self.send(send, Item::Accepting(order), None).await,
            Wish::Move(order) => self.send(send, Item::Move(order), None).await,
            Wish::Asked(order, answer) => self.send(send, *order, Some(answer)).await,
        }
    }

    async fn send(
        &self,
        send: &mpsc::Sender<Publication>,
        item: Item,
        answer: Option<mpsc::Sender<OrderOutcome>>,
    ) -> Option<()> {
        lock(&self.expected).push_back(answer);
        send.send(Publication {
            epoch: self.epoch,
            item: Some(item),
        })
        .await
        .ok()
    }

    async fn rehash(&mut self, plan: &Arc<Plan>) {
        // Whoever comes second finds them made.
        let mut shared = self.shared.lock().await;
        let (hashes, plan) = (shared.clone(), Arc::clone(plan));
        match tokio::task::spawn_blocking(move || hashes.of(&plan)).await {
            Ok(Ok(hashes)) => {
                *shared = hashes.clone();
                self.hashes = hashes;
            }
            Ok(Err(error)) => {
                drop(shared);
                self.news.tell(News::Unhashed(error)).await;
            }
            Err(_) => {}
        }
    }
}

fn lock(
    expected: &Expected,
) -> std::sync::MutexGuard<'_, VecDeque<Option<mpsc::Sender<OrderOutcome>>>> {
    expected.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears acknowledgements until the stream ends; gives the reason.
async fn hear(
    answer: Result<tonic::Response<tonic::Streaming<PublicationAck>>, tonic::Status>,
    news: &Teller,
    expected: &Expected,
) -> String {
    let mut acks = match answer {
        Ok(answer) => answer.into_inner(),
        Err(status) => return status.message().to_owned(),
    };
    loop {
        let ack = match acks.message().await {
            Ok(Some(ack)) => ack,
            Ok(None) => return "the control plane ended the stream".to_owned(),
            Err(status) => return status.message().to_owned(),
        };
        let PublicationAck {
            uid,
            revision,
            refused_reason: reason,
            message,
            snapshot_applied,
            ..
        } = ack.clone();
        let asked = lock(expected).pop_front().flatten();
        if let Some(asked) = asked {
            let outcome = if reason.is_empty() {
                OrderOutcome::Done
            } else {
                OrderOutcome::Refused { reason, message }
            };
            // Nobody may wait any more.
            let _ = asked.try_send(outcome);
            continue;
        }
        let kind = match ack.kind() {
            plenum_proto::v1::RecordKind::Tenant => Some(RecordKind::Tenant),
            plenum_proto::v1::RecordKind::Conference => Some(RecordKind::Conference),
            plenum_proto::v1::RecordKind::Node => Some(RecordKind::Node),
            plenum_proto::v1::RecordKind::Unspecified => None,
        };
        let told = match kind {
            Some(kind) if reason.is_empty() => Some(News::Taken {
                kind,
                uid,
                revision,
            }),
            Some(kind) => Some(News::Refused {
                kind,
                uid,
                reason,
                message,
            }),
            None => None,
        };
        let applied = snapshot_applied.then_some(News::SnapshotApplied);
        for item in told.into_iter().chain(applied) {
            if !news.tell(item).await {
                return "nobody listens".to_owned();
            }
        }
    }
}

/// Observes for ever; ends when nobody listens any more.
pub async fn observe(dial: Dial, news: Teller) {
    let mut wait = RETRY_MIN;
    while !news.send.is_closed() {
        if let Ok(error) = observe_once(&dial, &news).await {
            wait = RETRY_MIN;
            if !news.tell(News::ObserveBroken(error)).await {
                return;
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// `Ok` says why a stream that had begun has ended.
async fn observe_once(dial: &Dial, news: &Teller) -> Result<String, String> {
    let mut client = dial.client().await?;
    let answer = client
        .observe(ObserveRequest {})
        .await
        .map_err(|status| status.message().to_owned())?;
    let mut stream = answer.into_inner();
    let nobody = || Err("nobody listens".to_owned());
    if !news.tell(News::ObserveBegins).await {
        return nobody();
    }
    loop {
        match stream.message().await {
            Ok(Some(observation)) => {
                if let Some(item) = observation.item
                    && !news.tell(News::Observed(item)).await
                {
                    return nobody();
                }
            }
            Ok(None) => return Ok("the control plane ended the stream".to_owned()),
            Err(status) => return Ok(status.message().to_owned()),
        }
    }
}

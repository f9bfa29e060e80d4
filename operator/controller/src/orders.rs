// SPDX-License-Identifier: EUPL-1.2
//! Orders to the control plane about one node. Each is answered, or fails.

use std::time::Duration;

use jiff::Timestamp;
use plenum_proto::v1::{AcceptingOrder, MoveOrder, publication::Item};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Orders on their way.
const QUEUE: usize = 256;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Why an order is not known to be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No replica is connected.
    #[error("no replica of the control plane is connected")]
    Unreachable,
    /// A connection broke before its answer came.
    #[error("the connection to the control plane broke before it answered")]
    Interrupted,
    /// No answer in time.
    #[error("the control plane did not answer in time")]
    Late,
    /// More orders on their way than may be.
    #[error("too many orders are on their way")]
    Busy,
    /// The control plane does not do it.
    #[error("the control plane refuses: {reason}: {message}")]
    Refused {
        /// CamelCase reason.
        reason: String,
        /// For people.
        message: String,
    },
}

impl OrderError {
    /// CamelCase reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable => "ControlPlaneUnreachable",
            Self::Interrupted => "Interrupted",
            Self::Late => "Late",
            Self::Busy => "Busy",
            Self::Refused { .. } => "Refused",
        }
    }
}

/// An order and where its answer goes.
#[derive(Debug)]
pub struct Order {
    /// What is ordered.
    pub item: Item,
    /// Gets the answer.
    pub answer: oneshot::Sender<Result<(), OrderError>>,
}

/// Sends orders.
#[derive(Clone, Debug)]
pub struct Orders(mpsc::Sender<Order>);

impl Orders {
    /// A sender, and what it sends.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Order>) {
        let (send, receive) = mpsc::channel(QUEUE);
        (Self(send), receive)
    }

    /// A node takes new rooms, or takes none. `Ok` only after the store had it, or after the node itself was told where the store is
    /// away.
    ///
    /// # Errors
    /// [`OrderError`]; then nothing may be concluded.
    pub async fn accepting(
        &self,
        node_uid: &str,
        epoch: u64,
        accepting: bool,
        reason: &str,
    ) -> Result<(), OrderError> {
        self.order(Item::Accepting(AcceptingOrder {
            node_uid: node_uid.to_owned(),
            epoch,
            accepting,
            reason: reason.to_owned(),
        }))
        .await
    }

    /// The rooms of a node go to others: those with people from `moves_at` on (`None`: at once), all by the deadline; people are told
    /// `announce_before` that.
    ///
    /// # Errors
    /// [`OrderError`]; the order may be given again.
    pub async fn move_rooms(
        &self,
        node_uid: &str,
        epoch: u64,
        deadline: Timestamp,
        moves_at: Option<Timestamp>,
        announce_before: Duration,
    ) -> Result<(), OrderError> {
        self.order(Item::Move(MoveOrder {
            node_uid: node_uid.to_owned(),
            epoch,
            deadline_unix_ms: deadline.as_millisecond(),
            moves_at_unix_ms: moves_at.map_or(0, Timestamp::as_millisecond),
            announce_before_ms: u64::try_from(announce_before.as_millis()).unwrap_or(u64::MAX),
        }))
        .await
    }

    async fn order(&self, item: Item) -> Result<(), OrderError> {
        let (answer, answered) = oneshot::channel();
        self.0
            .try_send(Order { item, answer })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => OrderError::Busy,
                mpsc::error::TrySendError::Closed(_) => OrderError::Unreachable,
            })?;
        match timeout(ANSWER, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(OrderError::Interrupted),
            Err(_) => Err(OrderError::Late),
        }
    }
}

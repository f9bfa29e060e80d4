// SPDX-License-Identifier: EUPL-1.2
//! One replica of the control plane, with the two streams to it.

use std::net::SocketAddr;

use plenum_publish::{
    live::{Ack, Acks, Observed},
    streams::{self, Dial, DialError, News, SharedHashes, Teller, Wish},
};
use plenum_shell::tls::Tls;
use tokio::{sync::mpsc, task::JoinSet};

/// Wishes on their way to one replica.
const QUEUE: usize = 64;

/// A replica; its streams end when it is dropped.
pub(super) struct Replica {
    address: SocketAddr,
    wishes: mpsc::Sender<Wish>,
    _streams: JoinSet<()>,
    observed: Option<Observed>,
    acks: Acks,
    snapshot_applied: bool,
}

impl Replica {
    pub(super) fn start(
        id: usize,
        address: SocketAddr,
        tls: &Tls,
        epoch: u64,
        hashes: SharedHashes,
        news: mpsc::Sender<(usize, News)>,
    ) -> Result<Self, DialError> {
        let dial = Dial::new(address, tls)?;
        let (wishes, wished) = mpsc::channel(QUEUE);
        let teller = Teller {
            replica: id,
            send: news,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(streams::publish(
            dial.clone(),
            epoch,
            wished,
            hashes,
            teller.clone(),
        ));
        tasks.spawn(streams::observe(dial, teller));
        Ok(Self {
            address,
            wishes,
            _streams: tasks,
            observed: None,
            acks: Acks::new(),
            snapshot_applied: false,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether the wish is on its way.
    pub(super) fn wish(&self, wish: Wish) -> bool {
        self.wishes.try_send(wish).is_ok()
    }

    /// Whether it has all records.
    pub(super) fn is_connected(&self) -> bool {
        self.snapshot_applied
    }

    /// Whether it has all records and says what goes on.
    pub(super) fn is_reporting(&self) -> bool {
        self.snapshot_applied && self.observed.is_some()
    }

    pub(super) fn observed(&self) -> Option<&Observed> {
        self.observed.as_ref()
    }

    pub(super) fn acks(&self) -> &Acks {
        &self.acks
    }

    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::SnapshotApplied => self.snapshot_applied = true,
            News::Taken {
                kind,
                uid,
                revision,
            } => {
                self.acks.insert((kind, uid), Ack::Taken(revision));
            }
            News::Refused {
                kind,
                uid,
                reason,
                message,
            } => {
                self.acks
                    .insert((kind, uid), Ack::Refused { reason, message });
            }
            News::PublishBroken(error) => {
                tracing::debug!(address = %self.address, error, "publishing broke");
                self.snapshot_applied = false;
                self.acks.clear();
            }
            News::Unhashed(_) => {}
            News::ObserveBegins => self.observed = Some(Observed::default()),
            News::Observed(item) => {
                if let Some(observed) = &mut self.observed {
                    observed.take(item);
                }
            }
            News::ObserveBroken(error) => {
                tracing::debug!(address = %self.address, error, "observing broke");
                self.observed = None;
            }
        }
    }
}

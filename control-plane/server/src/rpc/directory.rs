// SPDX-License-Identifier: EUPL-1.2
//! `Directory`: what the operator publishes, and what it sees of nodes, conferences and tenants.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use control_core::directory::{Fenced, StreamId};
use control_core::ids::{Epoch, RoomKey, TenantName};
use control_core::record::RecordKind;
use futures::{FutureExt, Stream};
use plenum_proto::v1::directory_server::Directory;
use plenum_proto::v1::observation::Item as Seen;
use plenum_proto::v1::publication::Item;
use plenum_proto::v1::{Observation, ObserveRequest, Publication, PublicationAck};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Shared;
use crate::convert::{self, ConvertError};
use crate::identity::{Peer, peer_of};
use crate::metrics::Reason;
use crate::plane::{Change, DrainPlan, Plane};

/// Acknowledgements on their way to a publisher.
const ACKS: usize = 256;
/// Changes that are shown together.
const BATCH_MAX: usize = 256;
/// Observers at a time.
const OBSERVERS_MAX: u32 = 16;
/// Changes are gathered for this long before observers see them.
const GATHER: Duration = Duration::from_millis(200);

/// The service.
pub(super) struct DirectoryService {
    shared: Shared,
    observers: Arc<AtomicU32>,
}

impl DirectoryService {
    pub(super) fn new(shared: Shared) -> Self {
        Self {
            shared,
            observers: Arc::default(),
        }
    }
}

fn require_operator<T>(request: &Request<T>) -> Result<(), Status> {
    match peer_of(request)? {
        Peer::Operator => Ok(()),
        Peer::Node(_) => Err(Status::permission_denied("Directory is for the operator")),
    }
}

fn fenced(fenced: Fenced) -> Status {
    match fenced {
        Fenced::NoEpoch => Status::invalid_argument(fenced.to_string()),
        Fenced::LowerEpoch { .. } | Fenced::Superseded => Status::aborted(fenced.to_string()),
    }
}

type Stream2<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Directory for DirectoryService {
    type PublishStream = Stream2<PublicationAck>;
    type ObserveStream = Stream2<Observation>;

    async fn publish(
        &self,
        request: Request<Streaming<Publication>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        require_operator(&request)?;
        let (acks, out) = mpsc::channel(ACKS);
        let publisher = Publisher {
            shared: self.shared.clone(),
            acks: acks.clone(),
            stream: None,
        };
        let stop = self.shared.stop.clone();
        let messages = request.into_inner();
        self.shared.spawn(async move {
            let mut publisher = publisher;
            let end = tokio::select! {
                () = stop.cancelled() => Err(Status::unavailable("the replica stops")),
                end = publisher.run(messages) => end,
            };
            publisher.gone();
            if let Err(status) = end {
                tracing::info!(event = "PublicationEnded", %status, "publication ended");
                // The publisher may be gone; then nobody is left to be told.
                let _ = acks.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(out))))
    }

    async fn observe(
        &self,
        request: Request<ObserveRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        require_operator(&request)?;
        if self.observers.fetch_add(1, Ordering::AcqRel) >= OBSERVERS_MAX {
            self.observers.fetch_sub(1, Ordering::AcqRel);
            return Err(Status::resource_exhausted(format!(
                "at most {OBSERVERS_MAX} observers at a time"
            )));
        }
        let count = Counted(Arc::clone(&self.observers));
        let (sender, out) = mpsc::channel(ACKS);
        let plane = self.shared.plane.clone();
        let stop = self.shared.stop.clone();
        self.shared.spawn(async move {
            let _count = count;
            tokio::select! {
                () = stop.cancelled() => {
                    let _ = sender.send(Err(Status::unavailable("the replica stops"))).await;
                }
                () = observe(plane, &sender) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(out))))
    }
}

struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Publisher {
    shared: Shared,
    acks: mpsc::Sender<Result<PublicationAck, Status>>,
    stream: Option<StreamId>,
}

/// What one message of a publisher asks for.
enum Asked {
    Change(Change),
    Accepting(plenum_proto::v1::AcceptingOrder),
    Move(plenum_proto::v1::MoveOrder),
    Nothing,
}

impl Publisher {
    /// The stream is over, whatever the reason.
    fn gone(&self) {
        if let Some(stream) = self.stream {
            self.shared.plane.end_publication(stream);
        }
    }

    async fn run(&mut self, mut messages: Streaming<Publication>) -> Result<(), Status> {
        let mut batch = Vec::new();
        while let Some(message) = messages.message().await? {
            batch.push(self.take(message).await?);
            // What has arrived already is shown together: one new view instead of one per record.
            while batch.len() < BATCH_MAX
                && let Some(next) = messages.message().now_or_never()
            {
                match next? {
                    Some(message) => batch.push(self.take(message).await?),
                    None => break,
                }
            }
            self.shared.plane.show_directory();
            for ack in batch.drain(..).flatten() {
                if self.acks.send(Ok(ack)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn take(&mut self, message: Publication) -> Result<Option<PublicationAck>, Status> {
        let plane = self.shared.plane.clone();
        let epoch = Epoch(message.epoch);
        let stream = match self.stream {
            Some(stream) => stream,
            None => {
                let stream = plane.begin_publication(epoch).map_err(fenced)?;
                self.stream = Some(stream);
                stream
            }
        };
        plane.hear_publication(stream, epoch).map_err(fenced)?;
        let Some(item) = message.item else {
            return Ok(None);
        };
        let mut ack = blank_ack(&item);
        match read(item) {
            Ok(Asked::Change(change)) => {
                let end = matches!(change, Change::EndOfSnapshot);
                match plane.publish(stream, epoch, change).map_err(fenced)? {
                    Ok(()) => ack.snapshot_applied = end,
                    Err(refusal) => self.refuse(&mut ack, refusal.reason(), &refusal),
                }
            }
            Ok(Asked::Accepting(order)) => {
                let outcome = match convert::uid("node_uid", &order.node_uid) {
                    Ok(uid) => plane
                        .order_accepting(stream, epoch, &uid, Epoch(order.epoch), order.accepting)
                        .await
                        .map_err(fenced)?,
                    Err(error) => {
                        self.refuse(&mut ack, error.reason(), &error);
                        return Ok(Some(ack));
                    }
                };
                if let Err(refusal) = outcome {
                    self.refuse(&mut ack, refusal.reason(), &refusal);
                }
            }
            Ok(Asked::Move(order)) => match convert::uid("node_uid", &order.node_uid) {
                Ok(uid) => match plane
                    .order_move(stream, epoch, &uid, Epoch(order.epoch))
                    .map_err(fenced)?
                {
                    Ok(()) => {
                        let stop = self.shared.stop.clone();
                        let plan = DrainPlan::of_order(&order, Instant::now(), plane.now_unix_ms());
                        self.shared.spawn(plane.empty_node(uid, plan, stop));
                    }
                    Err(refusal) => self.refuse(&mut ack, refusal.reason(), &refusal),
                },
                Err(error) => self.refuse(&mut ack, error.reason(), &error),
            },
            Ok(Asked::Nothing) => return Ok(None),
            Err(error) => {
                // In a snapshot, a record that cannot be read is not an omitted one: the last good one stays.
                if let (Ok(kind), Ok(uid)) = (
                    convert::record_kind(ack.kind),
                    convert::uid("uid", &ack.uid),
                ) {
                    // Its own refusal is what counts.
                    let _ = plane
                        .publish(stream, epoch, Change::Keep(kind, uid))
                        .map_err(fenced)?;
                }
                self.refuse(&mut ack, error.reason(), &error);
            }
        }
        Ok(Some(ack))
    }

    fn refuse(
        &self,
        ack: &mut PublicationAck,
        reason: &'static str,
        error: &dyn std::error::Error,
    ) {
        tracing::warn!(event = "PublicationRefused", kind = ack.kind, uid = ack.uid, reason, error = %error, "a published item is refused");
        self.shared
            .plane
            .metrics()
            .records_refused
            .get_or_create(&Reason { reason })
            .inc();
        reason.clone_into(&mut ack.refused_reason);
        ack.message = error.to_string();
    }
}

/// Names what is answered, before it is known whether it can be read.
fn blank_ack(item: &Item) -> PublicationAck {
    let (kind, uid, revision) = match item {
        Item::Tenant(record) => (
            Some(RecordKind::Tenant),
            record.uid.clone(),
            record.revision.clone(),
        ),
        Item::Conference(record) => (
            Some(RecordKind::Conference),
            record.uid.clone(),
            record.revision.clone(),
        ),
        Item::Node(record) => (
            Some(RecordKind::Node),
            record.uid.clone(),
            record.revision.clone(),
        ),
        Item::Retract(retract) | Item::Keep(retract) => (
            convert::record_kind(retract.kind).ok(),
            retract.uid.clone(),
            String::new(),
        ),
        Item::Accepting(order) => (
            Some(RecordKind::Node),
            order.node_uid.clone(),
            String::new(),
        ),
        Item::Move(order) => (
            Some(RecordKind::Node),
            order.node_uid.clone(),
            String::new(),
        ),
        Item::EndOfSnapshot(_) => (None, String::new(), String::new()),
    };
    PublicationAck {
        kind: kind.map_or(0, |kind| convert::record_kind_out(kind).into()),
        uid,
        revision,
        ..PublicationAck::default()
    }
}

fn read(item: Item) -> Result<Asked, ConvertError> {
    Ok(match item {
        Item::Retract(retract) => Asked::Change(Change::Retract(
            convert::record_kind(retract.kind)?,
            convert::uid("uid", &retract.uid)?,
        )),
        Item::Keep(keep) => Asked::Change(Change::Keep(
            convert::record_kind(keep.kind)?,
            convert::uid("uid", &keep.uid)?,
        )),
        Item::EndOfSnapshot(true) => Asked::Change(Change::EndOfSnapshot),
        Item::EndOfSnapshot(false) => Asked::Nothing,
        Item::Accepting(order) => Asked::Accepting(order),
        Item::Move(order) => Asked::Move(order),
        record => match convert::record(record)? {
            Some(record) => Asked::Change(Change::Put(Box::new(record))),
            None => Asked::Nothing,
        },
    })
}

/// Identity of what is observed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Node(String),
    Conference(String),
    Tenant(String),
}

async fn observe(plane: Plane, out: &mpsc::Sender<Result<Observation, Status>>) {
    let mut changed = plane.changed();
    let mut peaks = BTreeMap::new();
    let mut shown: BTreeMap<Subject, Seen> = BTreeMap::new();
    let mut first = true;
    loop {
        changed.borrow_and_update();
        let began = Instant::now();
        let present = plane.observation(&mut peaks);
        // However much there is to see, looking takes a tenth of the time at most.
        let pause = GATHER.max(began.elapsed() * 9);
        for (subject, seen) in &present {
            if shown.get(subject) != Some(seen) && send(out, seen.clone()).await.is_err() {
                return;
            }
        }
        for subject in shown.keys() {
            if let Subject::Node(uid) = subject
                && !present.contains_key(subject)
                && send(out, Seen::NodeGone(uid.clone())).await.is_err()
            {
                return;
            }
        }
        shown = present;
        if std::mem::take(&mut first) && send(out, Seen::EndOfSnapshot(true)).await.is_err() {
            return;
        }
        tokio::select! {
            () = out.closed() => return,
            // Schedules change phases without anybody's doing.
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
            changed = changed.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn send(out: &mpsc::Sender<Result<Observation, Status>>, item: Seen) -> Result<(), ()> {
    out.send(Ok(Observation { item: Some(item) }))
        .await
        .map_err(|_| ())
}

/// Most people seen in a room under one observation, by room.
type Peaks = BTreeMap<RoomKey, u32>;

impl Plane {
    /// Everything that is observed, as it stands.
    fn observation(&self, peaks: &mut Peaks) -> BTreeMap<Subject, Seen> {
        let view = self.view();
        let mut all = BTreeMap::new();
        for node in view.nodes() {
            all.insert(
                Subject::Node(node.uid.to_string()),
                Seen::Node(self.node_state(node)),
            );
        }
        for conference in view.conferences() {
            let key = conference.key();
            let room = self.room(&key);
            let participants = room.as_ref().map_or(0, |room| room.participants);
            let peak = peaks
                .get(&key)
                .copied()
                .unwrap_or_default()
                .max(participants);
            if peak > 0 {
                peaks.insert(key.clone(), peak);
            }
            let state = self.conference_state(&view, conference, room.as_ref(), peak);
            all.insert(
                Subject::Conference(conference.uid.to_string()),
                Seen::Conference(state),
            );
        }
        peaks.retain(|key, _| view.conference_of_room(key).is_some());
        for (name, state) in self.tenant_states(&view) {
            all.insert(
                Subject::Tenant(TenantName::to_string(&name)),
                Seen::Tenant(state),
            );
        }
        all
    }
}

// SPDX-License-Identifier: EUPL-1.2
//! Published records in the store: one replica writes them, and whoever has no publisher reads them.
//!
//! Of the replicas that a publisher is connected to, the one with the claim writes; what a snapshot omits goes from the store too. A mark
//! stands for the whole: it carries a digest of everything that was written, appears when the first snapshot is complete, and is what
//! the others look at. A flushed store lacks it, and is written again by whoever holds records.
//!
//! A replica without a publisher goes by the store. If it had one before, it follows the store only when that changes: then somebody else
//! still has one. What comes from the store is never certain, so nobody is refused for good on its word ([`Plane::is_certain`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use control_core::directory::{DirectoryView, Origin};
use control_core::ids::{Epoch, TenantName, Uid};
use control_core::record::{Node, Record, RecordKind};
use control_core::time::Moment;
use futures::future::{join_all, ready};
use plenum_proto::v1::Publication;
use plenum_proto::v1::publication::Item;
use prost::Message;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Plane;
use crate::convert::{self, ConvertError};
use crate::metrics::Reason;
use crate::seal::{OpenError, Place, SealKeys};
use crate::store::{Answer, RecordOutcome, StoreError, StoredRecord};

/// Role of the replica that writes.
const ROLE: &str = "publisher";
/// A writer that is not heard for this long is followed by another one.
const CLAIM: Duration = Duration::from_secs(15);
/// The store is looked at this often.
const LOOK: Duration = Duration::from_secs(5);
/// The same, while nothing is known.
const LOOK_EMPTY: Duration = Duration::from_secs(1);
/// Changes that come together are written together.
const SETTLE: Duration = Duration::from_millis(50);
/// Records on their way to the store at a time.
const WRITES: usize = 16;
/// Records between two renewals of the claim.
const CHUNK: usize = 512;
/// Uid of the mark; it stands among the nodes, and no node is called so.
const MARK_UID: &str = "plenum.snapshot";
/// What the mark seals.
const MARK: &[u8] = b"plenum.snapshot";

type Key = (RecordKind, Uid);

/// Why a record of the store is not taken.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    /// It does not open.
    #[error(transparent)]
    Sealed(#[from] OpenError),
    /// What was sealed is no record.
    #[error("what was sealed does not decode")]
    Decode(#[from] prost::DecodeError),
    /// It breaks a rule: another version wrote it.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// What was sealed is not what its place says.
    #[error("what was sealed is another record than its name says")]
    Another,
}

impl Unreadable {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Sealed(error) => error.reason(),
            Self::Decode(_) => "Undecodable",
            Self::Convert(error) => error.reason(),
            Self::Another => "AnotherRecord",
        }
    }
}

/// What is in the store, as far as this replica wrote or read it.
#[derive(Debug, Default)]
struct Written {
    /// By key: the revision under which it is kept; empty = to be written again.
    records: BTreeMap<Key, String>,
    /// The mark as it stands there, once it was written.
    mark: Option<Vec<u8>>,
}

impl Written {
    fn digest(&self) -> String {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for ((kind, uid), revision) in &self.records {
            for part in [kind.as_str(), uid.as_str(), revision] {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part.as_bytes());
            }
        }
        data_encoding::HEXLOWER.encode(&context.finish().as_ref()[..16])
    }
}

/// Writes and reads the records of one replica.
struct Keeper {
    plane: Plane,
    seal: Arc<SealKeys>,
    replica: String,
    /// While this replica has the claim.
    written: Option<Written>,
    /// The mark as it was seen last: no two that were sealed are the same.
    seen: Option<Vec<u8>>,
    /// Highest epoch of what is in force.
    epoch: Epoch,
    claimed: bool,
    /// When a later publication was met.
    fenced: Option<Moment>,
}

/// Why a replica may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    /// It has the claim.
    Claim,
    /// Whoever has it has an older publisher.
    LaterEpoch,
}

impl Plane {
    /// Keeps the published records in the store, or learns them from there, until the token falls.
    pub async fn keep_records(self, seal: Arc<SealKeys>, replica: String, stop: CancellationToken) {
        let mut news = self.directory_news();
        let mut keeper = Keeper {
            plane: self.clone(),
            seal,
            replica,
            written: None,
            seen: None,
            epoch: Epoch::default(),
            claimed: false,
            fenced: None,
        };
        loop {
            news.borrow_and_update();
            let round = async {
                if let Err(error) = keeper.round().await {
                    keeper.written = None;
                    keeper.plane.store_failed(error);
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = round => {}
            }
            let pause = if self.is_loaded() { LOOK } else { LOOK_EMPTY };
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(pause) => {}
                changed = news.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    sleep(SETTLE).await;
                }
            }
        }
        if keeper.claimed {
            let give_up = self
                .0
                .store
                .claim(ROLE.to_owned(), keeper.replica, Duration::ZERO);
            // With the store away the claim runs out by itself.
            let _ = give_up.await;
        }
    }
}

impl Keeper {
    async fn round(&mut self) -> Result<(), StoreError> {
        let (view, origin, published) = self.plane.published();
        match published {
            Some(epoch) => {
                self.epoch = epoch;
                if self.may_claim() && self.claim().await? {
                    return self.write(&view, Right::Claim).await;
                }
                let mark = self.mark().await?;
                // Who writes has an older publisher than this replica: its writes are fenced from the first of this one's on, and it lets go.
                if mark.as_ref().is_some_and(|mark| mark.epoch < epoch.0) {
                    return self.write(&view, Right::LaterEpoch).await;
                }
                self.seen = mark.map(|mark| mark.value);
                Ok(())
            }
            None => self.follow(&view, origin).await,
        }
    }

    async fn claim(&mut self) -> Result<bool, StoreError> {
        let holder = self.replica.clone();
        let claimed = self
            .plane
            .0
            .store
            .claim(ROLE.to_owned(), holder, CLAIM)
            .await?;
        if claimed && !self.claimed {
            tracing::info!(
                event = "RecordsWriter",
                replica = self.replica,
                "this replica writes the published records into the store"
            );
        }
        self.claimed = claimed;
        if !claimed {
            self.written = None;
        }
        Ok(claimed)
    }

    /// Whether this replica may ask for the claim: one that was fenced leaves it to others for a while.
    fn may_claim(&self) -> bool {
        self.fenced
            .is_none_or(|at| self.plane.0.clock.now().since(at) >= CLAIM)
    }

    /// Whether this replica goes on writing.
    async fn still_writes(&mut self, right: Right) -> Result<bool, StoreError> {
        match right {
            Right::Claim => self.claim().await,
            Right::LaterEpoch => Ok(true),
        }
    }

    async fn mark(&self) -> Result<Option<StoredRecord>, StoreError> {
        let Ok(uid) = Uid::parse(MARK_UID) else {
            return Ok(None);
        };
        self.plane.0.store.record(RecordKind::Node, uid).await
    }

    /// Brings the store to what is in force.
    async fn write(&mut self, view: &DirectoryView, right: Right) -> Result<(), StoreError> {
        let mark = self.mark().await?;
        let earlier = mark.as_ref().is_some_and(|mark| mark.epoch < self.epoch.0);
        let mark = mark.map(|mark| mark.value);
        let mut written = match self.written.take() {
            Some(written) if written.mark == mark => written,
            // Not read yet, or somebody else wrote, or the store was flushed.
            _ => self.read_revisions().await?,
        };
        let (puts, drops) = changes(view, &written.records);
        let changed = !puts.is_empty() || !drops.is_empty();
        for chunk in puts.chunks(CHUNK) {
            if !self.put(chunk, &mut written).await? || !self.still_writes(right).await? {
                return Ok(());
            }
        }
        for chunk in drops.chunks(CHUNK) {
            if !self.drop(chunk, &mut written).await? || !self.still_writes(right).await? {
                return Ok(());
            }
        }
        if changed || earlier || mark.is_none() || written.mark != mark {
            let Some(mark) = self.put_mark(&written.digest()).await? else {
                return Ok(());
            };
            if changed {
                tracing::debug!(
                    written = puts.len(),
                    dropped = drops.len(),
                    "published records are in the store"
                );
            }
            written.mark = Some(mark);
        }
        self.fenced = None;
        self.seen.clone_from(&written.mark);
        self.written = Some(written);
        Ok(())
    }

    /// What the store holds; what another key sealed counts as not there.
    async fn read_revisions(&self) -> Result<Written, StoreError> {
        let stored = self.plane.0.store.records().await?;
        let mut written = Written::default();
        for record in stored {
            let key = (record.kind, record.uid);
            if is_mark(&key) {
                continue;
            }
            let revision = if self.seal.is_current(&record.value) {
                record.revision
            } else {
                String::new()
            };
            written.records.insert(key, revision);
        }
        Ok(written)
    }

    /// Writes some records. False when a publication of a higher epoch holds.
    async fn put(&mut self, records: &[Wanted], written: &mut Written) -> Result<bool, StoreError> {
        let mut outcomes = Vec::with_capacity(records.len());
        for some in records.chunks(WRITES) {
            let calls: Vec<Answer<'_, RecordOutcome>> =
                some.iter().map(|wanted| self.put_one(wanted)).collect();
            outcomes.extend(some.iter().zip(join_all(calls).await));
        }
        for (wanted, outcome) in outcomes {
            match outcome {
                Ok(RecordOutcome::Taken) => {
                    self.plane.0.metrics.records_written.inc();
                    written
                        .records
                        .insert((wanted.kind, wanted.uid.clone()), wanted.revision.clone());
                }
                Ok(RecordOutcome::Fenced(heard)) => return self.is_fenced(heard).await,
                Err(StoreError::Away) => return Err(StoreError::Away),
                Err(error) => {
                    // One record that does not fit keeps no other one out.
                    tracing::warn!(event = "RecordNotKept", kind = wanted.kind.as_str(), uid = %wanted.uid, %error, "a record is not kept");
                    self.count_unreadable("NotKept");
                }
            }
        }
        Ok(true)
    }

    fn put_one(&self, wanted: &Wanted) -> Answer<'_, RecordOutcome> {
        let place = Place {
            kind: wanted.kind,
            uid: wanted.uid.as_str(),
            revision: &wanted.revision,
        };
        match self.seal.seal(place, &wanted.tenant, &wanted.plain) {
            Ok(value) => self.plane.0.store.put_record(StoredRecord {
                kind: wanted.kind,
                uid: wanted.uid.clone(),
                revision: wanted.revision.clone(),
                epoch: self.epoch.0,
                value,
            }),
            Err(_) => Box::pin(ready(Err(StoreError::Full {
                what: "bytes of a record",
            }))),
        }
    }

    async fn drop(&mut self, keys: &[Key], written: &mut Written) -> Result<bool, StoreError> {
        let mut outcomes = Vec::with_capacity(keys.len());
        for some in keys.chunks(WRITES) {
            let drops: Vec<Answer<'_, RecordOutcome>> = some
                .iter()
                .map(|(kind, uid)| {
                    let store = &self.plane.0.store;
                    store.drop_record(*kind, uid.clone(), self.epoch.0)
                })
                .collect();
            outcomes.extend(some.iter().zip(join_all(drops).await));
        }
        for (key, outcome) in outcomes {
            match outcome? {
                RecordOutcome::Taken => drop(written.records.remove(key)),
                RecordOutcome::Fenced(heard) => return self.is_fenced(heard).await,
            }
        }
        Ok(true)
    }

    async fn put_mark(&mut self, digest: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let Ok(uid) = Uid::parse(MARK_UID) else {
            return Ok(None);
        };
        let place = Place {
            kind: RecordKind::Node,
            uid: MARK_UID,
            revision: digest,
        };
        let Ok(value) = self.seal.seal(place, "", MARK) else {
            return Ok(None);
        };
        let record = StoredRecord {
            kind: RecordKind::Node,
            uid,
            revision: digest.to_owned(),
            epoch: self.epoch.0,
            value: value.clone(),
        };
        match self.plane.0.store.put_record(record).await? {
            RecordOutcome::Taken => Ok(Some(value)),
            RecordOutcome::Fenced(heard) => {
                self.is_fenced(heard).await?;
                Ok(None)
            }
        }
    }

    /// A later publication writes: this replica lets go of the claim, so that whoever has that one can take it. Always false.
    async fn is_fenced(&mut self, heard: u64) -> Result<bool, StoreError> {
        let now = self.plane.0.clock.now();
        if self.fenced.replace(now).is_none() {
            tracing::warn!(event = "RecordsFenced", own = %self.epoch, heard, "a later publication writes the records; this one's wait");
        }
        self.plane.0.metrics.records_fenced.inc();
        if std::mem::take(&mut self.claimed) {
            let holder = self.replica.clone();
            self.plane
                .0
                .store
                .claim(ROLE.to_owned(), holder, Duration::ZERO)
                .await?;
        }
        Ok(false)
    }

    /// Goes by the store, where it says more than is known here.
    async fn follow(&mut self, view: &DirectoryView, origin: Origin) -> Result<(), StoreError> {
        self.written = None;
        let Some(mark) = self.mark().await? else {
            // Nothing is kept: never was, or the store was flushed. Whoever holds records gives them back.
            self.seen = None;
            if origin != Origin::Nowhere && self.claim().await? {
                tracing::info!(
                    event = "RecordsMissing",
                    "the store holds no records, they are written again"
                );
                return self.write(view, Right::Claim).await;
            }
            return Ok(());
        };
        if self.seen.as_ref() == Some(&mark.value) {
            return Ok(());
        }
        let first = self.seen.is_none();
        if let Err(error) = self.open_mark(&mark) {
            tracing::warn!(event = "RecordsUnread", %error, "the records in the store are not taken");
            self.count_unreadable(error.reason());
            self.seen = Some(mark.value);
            return Ok(());
        }
        if origin == Origin::Publication && first {
            // The publisher left this replica with more than it left the store, or with the same.
            self.seen = Some(mark.value);
            return Ok(());
        }
        let stored = self.plane.0.store.records().await?;
        let records = self.read(stored);
        let count = records.len();
        if self.plane.load_stored(records) {
            self.epoch = self.epoch.max(Epoch(mark.epoch));
            if origin == Origin::Nowhere {
                tracing::info!(
                    event = "RecordsFromStore",
                    records = count,
                    "no publisher has come, the records of the store hold"
                );
            }
        }
        self.seen = Some(mark.value);
        Ok(())
    }

    fn open_mark(&self, mark: &StoredRecord) -> Result<(), Unreadable> {
        let opened = self.seal.open(place_of(mark), &mark.value)?;
        if opened.plain == MARK {
            Ok(())
        } else {
            Err(Unreadable::Another)
        }
    }

    /// Opens and checks records; what cannot be read is named and counted. Tenants come first, then nodes.
    fn read(&self, stored: Vec<StoredRecord>) -> Vec<Record> {
        let mut records = Vec::with_capacity(stored.len());
        for stored in stored {
            if stored.kind == RecordKind::Node && stored.uid.as_str() == MARK_UID {
                continue;
            }
            match read(&self.seal, &stored) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::warn!(event = "RecordRefused", kind = stored.kind.as_str(), uid = %stored.uid, %error, "a record of the store is refused");
                    self.count_unreadable(error.reason());
                }
            }
        }
        records
    }

    fn count_unreadable(&self, reason: &'static str) {
        self.plane
            .0
            .metrics
            .records_unreadable
            .get_or_create(&Reason { reason })
            .inc();
    }
}

fn is_mark((kind, uid): &Key) -> bool {
    *kind == RecordKind::Node && uid.as_str() == MARK_UID
}

fn place_of(stored: &StoredRecord) -> Place<'_> {
    Place {
        kind: stored.kind,
        uid: stored.uid.as_str(),
        revision: &stored.revision,
    }
}

fn read(seal: &SealKeys, stored: &StoredRecord) -> Result<Record, Unreadable> {
    let opened = seal.open(place_of(stored), &stored.value)?;
    let item = Publication::decode(opened.plain.as_slice())?
        .item
        .ok_or(Unreadable::Another)?;
    let record = convert::record(item)?.ok_or(Unreadable::Another)?;
    let own = record.kind() == stored.kind
        && *record.uid() == stored.uid
        && tenant_of(&record).map_or("", TenantName::as_str) == opened.tenant;
    if own {
        Ok(record)
    } else {
        Err(Unreadable::Another)
    }
}

fn tenant_of(record: &Record) -> Option<&TenantName> {
    match record {
        Record::Tenant(tenant) => Some(&tenant.name),
        Record::Conference(conference) => Some(&conference.tenant),
        Record::Node(_) => None,
    }
}

/// A record that is to be in the store.
struct Wanted {
    kind: RecordKind,
    uid: Uid,
    tenant: String,
    revision: String,
    plain: Vec<u8>,
}

/// What has to be written and what has to go.
fn changes(view: &DirectoryView, kept: &BTreeMap<Key, String>) -> (Vec<Wanted>, Vec<Key>) {
    let mut puts = Vec::new();
    let holds = |kind, uid: &Uid, revision: &str| {
        !revision.is_empty()
            && kept
                .get(&(kind, uid.clone()))
                .is_some_and(|kept| kept == revision)
    };
    for tenant in view.tenants() {
        if !holds(RecordKind::Tenant, &tenant.uid, &tenant.revision) {
            let item = Item::Tenant(convert::tenant_out(tenant));
            puts.push(wanted(
                RecordKind::Tenant,
                &tenant.uid,
                tenant.name.as_str(),
                &tenant.revision,
                item,
            ));
        }
    }
    for node in view.nodes() {
        let revision = node_revision(node);
        if !holds(RecordKind::Node, &node.uid, &revision) {
            let item = Item::Node(convert::node_out(node));
            puts.push(wanted(RecordKind::Node, &node.uid, "", &revision, item));
        }
    }
    for conference in view.conferences() {
        if !holds(
            RecordKind::Conference,
            &conference.uid,
            &conference.revision,
        ) {
            let item = Item::Conference(convert::conference_out(conference));
            puts.push(wanted(
                RecordKind::Conference,
                &conference.uid,
                conference.tenant.as_str(),
                &conference.revision,
                item,
            ));
        }
    }
    // A record without a revision is compared by what it says.
    puts.retain(|wanted| !holds(wanted.kind, &wanted.uid, &wanted.revision));
    let tenants = view
        .tenants()
        .map(|record| (RecordKind::Tenant, &record.uid));
    let nodes = view.nodes().map(|record| (RecordKind::Node, &record.uid));
    let conferences = view
        .conferences()
        .map(|record| (RecordKind::Conference, &record.uid));
    let present: BTreeSet<(RecordKind, &Uid)> = tenants.chain(nodes).chain(conferences).collect();
    let drops = kept
        .keys()
        .filter(|(kind, uid)| !present.contains(&(*kind, uid)))
        .cloned()
        .collect();
    (puts, drops)
}

/// An order changes whether a node takes rooms, and leaves its revision as it was.
fn node_revision(node: &Node) -> String {
    if node.accepting || node.revision.is_empty() {
        node.revision.clone()
    } else {
        format!("{}/closed", node.revision)
    }
}

fn wanted(kind: RecordKind, uid: &Uid, tenant: &str, revision: &str, item: Item) -> Wanted {
    let plain = Publication {
        epoch: 0,
        item: Some(item),
    }
    .encode_to_vec();
    let revision = if revision.is_empty() {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &plain);
        // Its first bits tell two contents apart; a hash of what only the store's readers and this process know tells nothing else.
        format!("#{}", data_encoding::HEXLOWER.encode(&hash.as_ref()[..16]))
    } else {
        revision.to_owned()
    };
    Wanted {
        kind,
        uid: uid.clone(),
        tenant: tenant.to_owned(),
        revision,
        plain,
    }
}

#[cfg(test)]
mod tests;

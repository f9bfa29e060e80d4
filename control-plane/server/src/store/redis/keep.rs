// SPDX-License-Identifier: EUPL-1.2
//! What is kept beside rooms: published records, events that wait.

use control_core::ids::Uid;
use control_core::limits;
use control_core::record::RecordKind;
use redis::Value;

use super::keys::Family;
use super::link::Arg;
use super::{RedisStore, codec, count, full, millis, scripts};
use crate::store::{
    EVENT_AGE_MAX, EVENTS_BYTES_MAX, EVENTS_MAX, EventQueue, Pushed, QueuedEvent,
    RECORDS_BYTES_MAX, RECORDS_MAX, RecordOutcome, StoreError, StoredRecord,
};

/// Records of one page at most.
const PAGE_MAX: usize = 200;
/// Bytes after which a page ends.
const PAGE_BYTES: usize = 1_024 * 1_024;

const fn kind_name(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Tenant => "tenant",
        RecordKind::Conference => "conference",
        RecordKind::Node => "node",
    }
}

fn kind_of(name: &str) -> Option<RecordKind> {
    [RecordKind::Tenant, RecordKind::Conference, RecordKind::Node]
        .into_iter()
        .find(|kind| kind_name(*kind) == name)
}

fn read_id(id: &str) -> Option<(RecordKind, Uid)> {
    let (kind, uid) = id.split_once('/')?;
    Some((kind_of(kind)?, Uid::parse(uid).ok()?))
}

fn read_record(id: &str, rest: &[Value]) -> Option<StoredRecord> {
    let (kind, uid) = read_id(id)?;
    let [epoch, revision, value] = rest else {
        return None;
    };
    Some(StoredRecord {
        kind,
        uid,
        revision: codec::text(revision)?.to_owned(),
        epoch: codec::number(epoch)?,
        value: codec::bytes(value)?.to_vec(),
    })
}

impl RedisStore {
    pub(super) async fn put(&self, record: StoredRecord) -> Result<RecordOutcome, StoreError> {
        record.check()?;
        let id = format!("{}/{}", kind_name(record.kind), record.uid);
        let kept = [
            Arg::Number(1),
            Arg::Text(&id),
            Arg::Text(&record.revision),
            Arg::Bytes(&record.value),
        ];
        self.write_record(record.epoch, &kept).await
    }

    pub(super) async fn forget(
        &self,
        kind: RecordKind,
        uid: Uid,
        epoch: u64,
    ) -> Result<RecordOutcome, StoreError> {
        let id = format!("{}/{uid}", kind_name(kind));
        let dropped = [Arg::Number(0), Arg::Text(&id), Arg::Text(""), Arg::Text("")];
        self.write_record(epoch, &dropped).await
    }

    async fn write_record(
        &self,
        epoch: u64,
        change: &[Arg<'_>],
    ) -> Result<RecordOutcome, StoreError> {
        let mut args = vec![
            Arg::Epoch(epoch),
            Arg::Number(millis(limits::PUBLICATION_FENCE)),
        ];
        args.extend_from_slice(change);
        args.extend([count(RECORDS_MAX), count(RECORDS_BYTES_MAX)]);
        let keys = self.names.records();
        let answer = self.call(&scripts::PUT_RECORD, &keys, &args).await?;
        let answer = self.read(Family::Records, codec::list(answer))?;
        let outcome = match answer.as_slice() {
            [_] => Some(RecordOutcome::Taken),
            [tag, what] if codec::text(tag) == Some("Full") => {
                return Err(self.read(Family::Records, full(codec::text(what)))?);
            }
            [_, epoch] => codec::number(epoch).map(RecordOutcome::Fenced),
            _ => None,
        };
        self.read(Family::Records, outcome)
    }

    pub(super) async fn one_record(
        &self,
        kind: RecordKind,
        uid: Uid,
    ) -> Result<Option<StoredRecord>, StoreError> {
        let id = format!("{}/{uid}", kind_name(kind));
        let [.., values] = self.names.records();
        let answer = self
            .call(&scripts::RECORD, &[values], &[Arg::Text(&id)])
            .await?;
        if answer == Value::Nil {
            return Ok(None);
        }
        let answer = self.read(Family::Records, codec::list(answer))?;
        self.read(Family::Records, read_record(&id, &answer).map(Some))
    }

    /// What cannot be read, because a later version wrote it or somebody else, is left out: one bad record must not keep back the others.
    pub(super) async fn all_records(&self) -> Result<Vec<StoredRecord>, StoreError> {
        let [_, index, values] = self.names.records();
        let keys = [index, values];
        let mut records = Vec::new();
        let mut after = String::new();
        loop {
            let args = [Arg::Text(&after), count(PAGE_MAX), count(PAGE_BYTES)];
            let answer = self.call(&scripts::RECORDS, &keys, &args).await?;
            let page = self.read(Family::Records, codec::list(answer))?;
            let mut last = None;
            for entry in page {
                let entry = self.read(Family::Records, codec::list(entry))?;
                let Some((id, rest)) = entry.split_first() else {
                    return Err(self.link.counters.unread(Family::Records));
                };
                let id = self.read(Family::Records, codec::text(id))?;
                match read_record(id, rest) {
                    Some(record) => records.push(record),
                    None => {
                        let _ = self.link.counters.unread(Family::Records);
                        tracing::warn!(event = "StoredRecordUnreadable", record = ?id, "a record in the store cannot be read and is left out");
                    }
                }
                last = Some(id.to_owned());
            }
            match last {
                Some(last) if records.len() <= RECORDS_MAX => after = last,
                _ => break,
            }
        }
        records.sort_by(|a, b| (a.kind, &a.uid).cmp(&(b.kind, &b.uid)));
        Ok(records)
    }

    pub(super) async fn push(
        &self,
        queue: EventQueue,
        event: QueuedEvent,
    ) -> Result<Pushed, StoreError> {
        queue.check(&event)?;
        let id = field(&event.id);
        let queued = event.queued_unix_ms.to_string();
        let args = [
            Arg::Text(&id),
            Arg::Text(&event.name),
            Arg::Text(&queued),
            Arg::Bytes(&event.body),
            Arg::Number(millis(EVENT_AGE_MAX)),
            count(EVENTS_MAX),
            count(EVENTS_BYTES_MAX),
        ];
        let keys = self.names.queue(&queue);
        let answer = self.call(&scripts::PUSH_EVENT, &keys, &args).await?;
        let dropped = codec::number(&answer);
        self.read(Family::Events, dropped.map(|dropped| Pushed { dropped }))
    }

    pub(super) async fn first_events(
        &self,
        queue: EventQueue,
        max: usize,
    ) -> Result<Vec<QueuedEvent>, StoreError> {
        let args = [
            Arg::Number(millis(EVENT_AGE_MAX)),
            count(max.min(EVENTS_MAX)),
        ];
        let keys = self.names.queue(&queue);
        let answer = self.call(&scripts::EVENTS, &keys, &args).await?;
        let answers = self.read(Family::Events, codec::list(answer))?;
        let events: Option<Vec<QueuedEvent>> = answers.iter().map(read_event).collect();
        self.read(Family::Events, events)
    }

    pub(super) async fn done(&self, queue: EventQueue, id: String) -> Result<(), StoreError> {
        let id = field(&id);
        let args = [Arg::Text(&id), Arg::Number(millis(EVENT_AGE_MAX))];
        let keys = self.names.queue(&queue);
        self.call(&scripts::EVENT_DONE, &keys, &args).await?;
        Ok(())
    }
}

/// An id as it is named in the hash, whose empty field is taken.
fn field(id: &str) -> String {
    format!("={id}")
}

fn read_event(value: &Value) -> Option<QueuedEvent> {
    let Value::Array(values) = value else {
        return None;
    };
    let [id, name, queued, body] = values.as_slice() else {
        return None;
    };
    Some(QueuedEvent {
        id: codec::text(id)?.strip_prefix('=')?.to_owned(),
        name: codec::text(name)?.to_owned(),
        queued_unix_ms: codec::text(queued)?.parse().ok()?,
        body: codec::bytes(body)?.to_vec(),
    })
}

// SPDX-License-Identifier: EUPL-1.2
//! Published records.

use std::collections::BTreeMap;

use control_core::ids::Uid;
use control_core::limits;
use control_core::record::RecordKind;
use control_core::time::Moment;

use crate::store::{RECORDS_BYTES_MAX, RECORDS_MAX, RecordOutcome, StoreError, StoredRecord};

#[derive(Default)]
pub(super) struct Records {
    kept: BTreeMap<(RecordKind, Uid), StoredRecord>,
    bytes: usize,
    /// Highest epoch that wrote lately, and until when it holds others off.
    fence: Option<(u64, Moment)>,
}

impl Records {
    fn fence(&mut self, epoch: u64, now: Moment) -> RecordOutcome {
        match self.fence {
            Some((highest, until)) if highest > epoch && until > now => {
                RecordOutcome::Fenced(highest)
            }
            _ => {
                self.fence = Some((epoch, now.after(limits::PUBLICATION_FENCE)));
                RecordOutcome::Taken
            }
        }
    }

    pub(super) fn put(
        &mut self,
        record: StoredRecord,
        now: Moment,
    ) -> Result<RecordOutcome, StoreError> {
        record.check()?;
        let at = (record.kind, record.uid.clone());
        let before = self.kept.get(&at).map(|kept| kept.value.len());
        let bytes = (self.bytes - before.unwrap_or(0)) + record.value.len();
        if before.is_none() && self.kept.len() >= RECORDS_MAX {
            return Err(StoreError::Full { what: "records" });
        }
        if bytes > RECORDS_BYTES_MAX {
            return Err(StoreError::Full {
                what: "bytes of records",
            });
        }
        let outcome = self.fence(record.epoch, now);
        if outcome == RecordOutcome::Taken {
            self.bytes = bytes;
            self.kept.insert(at, record);
        }
        Ok(outcome)
    }

    pub(super) fn forget(
        &mut self,
        kind: RecordKind,
        uid: &Uid,
        epoch: u64,
        now: Moment,
    ) -> RecordOutcome {
        let outcome = self.fence(epoch, now);
        if outcome == RecordOutcome::Taken
            && let Some(gone) = self.kept.remove(&(kind, uid.clone()))
        {
            self.bytes -= gone.value.len();
        }
        outcome
    }

    pub(super) fn get(&self, kind: RecordKind, uid: &Uid) -> Option<StoredRecord> {
        self.kept.get(&(kind, uid.clone())).cloned()
    }

    pub(super) fn all(&self) -> Vec<StoredRecord> {
        self.kept.values().cloned().collect()
    }
}

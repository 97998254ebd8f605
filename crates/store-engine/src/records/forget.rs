//! Removes a record: in one batch if it fits, else in steps that can be repeated.

use bytes::Bytes;
use futures_util::TryStreamExt;
use larder_store_api::{Batch, Edit, Kind, RecordId, Result, Revision};

use super::{
    MAX_ATTEMPTS, Records,
    stored::{self, RECORDS, Record, SLOTS, State},
    too_busy,
};
use crate::collections::expect;

impl Records {
    /// Forgets the record, even a damaged one; the caller holds its turn.
    pub(super) async fn forget_in_turn(&self, operation: &'static str, id: RecordId) -> Result<()> {
        for _ in 0..MAX_ATTEMPTS {
            match self.forget_step(operation, id).await {
                Ok(Progress::Gone) => return Ok(()),
                Ok(Progress::Marked) => {}
                Err(error) if error.kind() == Kind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Err(too_busy(operation, id))
    }

    async fn forget_step(&self, operation: &'static str, id: RecordId) -> Result<Progress> {
        let Some(entry) = self
            .collections
            .get(RECORDS, stored::record_key(id))
            .await?
        else {
            return Ok(Progress::Gone);
        };
        let revision = entry.revision;
        // Leaves room for the record's own expectation and edit; a store accepts at least 128 together.
        let most = self.collections.capabilities().max_batch_len as usize;
        let most = most.saturating_sub(2).max(1);
        let slots = self.slot_keys(id).await?;
        let (before, last) = slots.split_at(slots.len() - slots.len().min(most));
        if !before.is_empty() {
            let record = match Record::decode(operation, id, &entry) {
                Ok(record) => Some(record),
                // Nobody can put into it, so it needs no mark.
                Err(error) if error.kind() == Kind::Corrupt => None,
                Err(error) => return Err(error),
            };
            if let Some(record) = record.filter(Record::is_live) {
                // From here on nobody sees the record any more, or adds slots to it.
                let mark = Edit::Put {
                    collection: RECORDS,
                    key: stored::record_key(id),
                    value: stored::encode_record(
                        State::Forgetting,
                        record.len,
                        &record.descriptor,
                    )?,
                };
                self.commit_if(id, revision, vec![mark]).await?;
                return Ok(Progress::Marked);
            }
            for keys in before.chunks(most) {
                self.commit_if(id, revision, deletes(keys)).await?;
            }
        }
        let mut edits = deletes(last);
        edits.push(Edit::Delete {
            collection: RECORDS,
            key: stored::record_key(id),
        });
        self.commit_if(id, revision, edits).await?;
        Ok(Progress::Gone)
    }

    /// Returns the keys of everything that is stored under the record's id.
    async fn slot_keys(&self, id: RecordId) -> Result<Vec<Bytes>> {
        let entries = self.collections.scan_prefix(SLOTS, stored::record_key(id));
        entries.map_ok(|entry| entry.key).try_collect().await
    }

    /// Commits if the record's entry has not changed since it was read.
    async fn commit_if(&self, id: RecordId, revision: Revision, edits: Vec<Edit>) -> Result<()> {
        let expect = expect(&RECORDS, &stored::record_key(id), Some(revision));
        let batch = Batch::of(edits).expecting(expect);
        self.collections.commit_reserved(batch).await.map(drop)
    }
}

enum Progress {
    /// The record is gone, including its values.
    Gone,
    /// The record is marked; its values are next.
    Marked,
}

fn deletes(slots: &[Bytes]) -> Vec<Edit> {
    let delete = |key: &Bytes| Edit::Delete {
        collection: SLOTS,
        key: key.clone(),
    };
    slots.iter().map(delete).collect()
}

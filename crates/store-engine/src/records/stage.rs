//! Slots that are written in one commit, together with its other changes.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use larder_store_api::{
    Edit, Entry, Error, Expect, Kind, Put, PutRecord, RecordId, Result, Signed, Slot,
};

use super::{
    Records,
    decide::{Current, Decision, PUT, Wanted},
    format,
    limits::{self, MAX_RECORD_LEN, MAX_SLOTS},
    stored::{self, RECORDS, Record, SLOTS, State},
};
use crate::collections::expect;

/// A slot as it was read. A [`Transaction`](crate::Transaction) that puts into it is committed only if
/// the slot has not changed since.
#[derive(Debug, Clone)]
pub struct SlotState {
    id: RecordId,
    slot: Slot,
    entry: Option<Entry>,
    current: Current,
}

impl SlotState {
    /// The record.
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// The slot.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Returns the value; `None` if the slot has none; [`Kind::Corrupt`] if it is damaged.
    pub fn value(&self) -> Result<Option<&Signed>> {
        match &self.current {
            Current::Absent => Ok(None),
            Current::Is(signed) => Ok(Some(signed)),
            Current::Damaged(error) => Err(error.clone()),
        }
    }
}

/// The staged changes of records.
#[derive(Debug, Default)]
pub(crate) struct Staging(BTreeMap<RecordId, RecordStaging>);

#[derive(Debug)]
struct RecordStaging {
    /// The record as it is stored.
    record: Record,
    /// The sum of its values, including the staged ones.
    len: u32,
    slots: BTreeMap<Slot, (Option<Entry>, Signed)>,
}

impl Records {
    /// Reads a slot. An unknown record is [`Kind::NotFound`], a slot that the record does not have is
    /// [`Kind::Invalid`].
    pub async fn slot(&self, id: RecordId, slot: Slot) -> Result<SlotState> {
        const OPERATION: &str = "records.slot";
        let record = self.live(OPERATION, id).await?;
        let writer = record.writer_of(OPERATION, id, slot)?;
        self.read_slot(id, slot, writer).await
    }

    pub(super) async fn read_slot(
        &self,
        id: RecordId,
        slot: Slot,
        writer: larder_store_api::PublicKey,
    ) -> Result<SlotState> {
        let key = stored::slot_key(id, slot);
        let entry = self.collections.get(SLOTS, key).await?;
        let current = Current::of(id, slot, writer, entry.as_ref(), &self.verified);
        Ok(SlotState {
            id,
            slot,
            entry,
            current,
        })
    }

    /// Decides the outcome of `put`, and stages it if it is to be written: on top of what is staged
    /// already, else of `state`.
    pub(crate) async fn stage_put(
        &self,
        staging: &mut Staging,
        state: &SlotState,
        put: PutRecord,
    ) -> Result<Put> {
        let record = self.live(PUT, state.id).await?;
        self.stage(staging, record, state, &Wanted::from(put)).await
    }

    /// Stages a value, with the record as it is stored.
    pub(super) async fn stage(
        &self,
        staging: &mut Staging,
        record: Record,
        state: &SlotState,
        wanted: &Wanted,
    ) -> Result<Put> {
        let (id, slot) = (state.id, state.slot);
        limits::check_value(PUT, slot, wanted.value())?;
        let writer = record.writer_of(PUT, id, slot)?;
        wanted.check(id, slot, writer, &self.verified)?;
        let staged = staging.0.get(&id);
        let ours = staged.and_then(|staged| staged.slots.get(&slot));
        let current = match ours {
            Some((_, signed)) => &Current::Is(signed.clone()),
            None => &state.current,
        };
        let signed = match wanted.decide(id, slot, current)? {
            Decision::Store(signed) => signed,
            Decision::Done(put) => return Ok(put),
        };
        let len = staged.map_or(record.len, |staged| staged.len);
        let others = match current {
            Current::Absent => u64::from(len),
            Current::Is(old) => u64::from(len).saturating_sub(old.value.len() as u64),
            // The length of the damaged value is unknown.
            Current::Damaged(_) => self.len_of_others(id, slot).await?,
        };
        let len = others + signed.value.len() as u64;
        let len = match u32::try_from(len) {
            Ok(len) if len <= MAX_RECORD_LEN => len,
            _ => {
                return Err(Error::new(
                    Kind::TooLarge,
                    PUT,
                    format!("a record's values have at most {MAX_RECORD_LEN} bytes together"),
                )
                .with("record", id)
                .with("slot", slot)
                .with("len", len));
            }
        };
        let before = match ours {
            Some((before, _)) => before.clone(),
            None => state.entry.clone(),
        };
        let seq = signed.seq;
        let staged = staging.0.entry(id).or_insert(RecordStaging {
            record,
            len,
            slots: BTreeMap::new(),
        });
        staged.len = len;
        staged.slots.insert(slot, (before, signed));
        Ok(Put::Published { seq })
    }

    /// Counts the sum of the values of all slots except this one.
    async fn len_of_others(&self, id: RecordId, slot: Slot) -> Result<u64> {
        let mut len = 0;
        let mut entries = self.collections.scan(stored::scan_slots(id, 0..MAX_SLOTS));
        while let Some(entry) = entries.try_next().await? {
            if stored::decode_slot_key(PUT, id, &entry.key)? != slot {
                len += entry.value.len().saturating_sub(format::SIGNED_OVERHEAD) as u64;
            }
        }
        Ok(len)
    }
}

impl Staging {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the batch that writes the slots if the records and the slots have not changed since they
    /// were read.
    pub(crate) fn batch(&self) -> Result<(Vec<Expect>, Vec<Edit>)> {
        let (mut expects, mut edits) = (Vec::new(), Vec::new());
        for (id, staged) in &self.0 {
            let RecordStaging { record, len, slots } = staged;
            let mut adds = false;
            for (slot, (before, signed)) in slots {
                let key = stored::slot_key(*id, *slot);
                let revision = before.as_ref().map(|entry| entry.revision);
                adds |= revision.is_none();
                expects.push(expect(&SLOTS, &key, revision));
                edits.push(Edit::Put {
                    collection: SLOTS,
                    key,
                    value: format::encode_signed(signed)?,
                });
            }
            let key = stored::record_key(*id);
            expects.push(expect(&RECORDS, &key, Some(record.revision)));
            // It is not written if it would stay the same, so that such puts do not conflict.
            if adds || *len != record.len {
                edits.push(Edit::Put {
                    collection: RECORDS,
                    key,
                    value: stored::encode_record(State::Live, *len, &record.descriptor)?,
                });
            }
        }
        Ok((expects, edits))
    }
}

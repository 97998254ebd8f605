//! Records over collections: signed slots for every store that has collections.
//!
//! [`format`] defines the layouts.
//!
//! The entry in `larder/records` guards the set of slots: a commit that adds a slot or changes the
//! length of a value rewrites it in the same batch, and every put expects it unchanged. So the sum of
//! the values stays exact, and a put and a forget cannot both succeed.

mod decide;
mod forget;
pub mod format;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod intact;
mod key;
mod limits;
mod proof;
mod put;
pub(crate) mod stage;
mod stored;
mod verified;

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, future::ready};
use larder_store_api::{
    Batch, Change, Edit, Error, Freshness, ImportSupport, Kind, Listing, Put, PutRecord,
    RecordCapabilities, RecordDescriptor, RecordEvent, RecordId, RecordStore, Result, Room, Signed,
    Slot, SlotSeq,
};
use tokio::sync::{Mutex, MutexGuard};

pub use intact::Intact;
pub use key::{generate_key, public_key};
pub use limits::{MAX_RECORD_LEN, MAX_SLOTS, MAX_VALUE_LEN, MAX_WRITERS};
pub use proof::{ID_CONTEXT, SIGNATURE_CONTEXT, record_id, sign, verify};
pub use stage::SlotState;

use crate::collections::{Collections, expect};
use stored::{RECORDS, Record, SLOTS, State};
use verified::Verified;

/// The number of times that a change of a record is repeated after a conflict before it fails with
/// [`Kind::Unavailable`]. Each conflict means that another change succeeded.
const MAX_ATTEMPTS: usize = 1024;

/// The number of records that can be changed at once through one handle.
const TURNS: usize = 64;

/// The number of signatures that are verified before other tasks get a turn.
const VERIFIED_PER_TURN: usize = 16;

/// Signed records over any store of collections.
///
/// Clones are cheap handles to the same records. There is no network: a put is [`Put::Published`] when
/// it is durable, and every [`Freshness`] is [`Freshness::Local`].
///
/// A stored value is verified each time it is read, by its signature or by the hash of one that was
/// verified before. A value that does not decode or verify is [`Kind::Corrupt`], and importing it again
/// replaces it. A watcher receives the changes that its [`Collections`] receive, including the slots of
/// a record that is forgotten.
#[derive(Debug, Clone)]
pub struct Records {
    collections: Collections,
    /// Allows one change of a record at a time, so that callers here do not cause each other conflicts.
    /// The batches' expectations ensure correctness.
    turns: Arc<[Mutex<()>; TURNS]>,
    verified: Arc<Verified>,
}

impl Records {
    /// Returns the records in these collections.
    pub fn new(collections: Collections) -> Self {
        Self {
            collections,
            turns: Arc::new(std::array::from_fn(|_| Mutex::new(()))),
            verified: Arc::new(Verified::new()),
        }
    }

    /// Returns the collections of the records.
    pub(crate) fn collections(&self) -> &Collections {
        &self.collections
    }

    /// Returns the record's descriptor; `None` if the record is not known here.
    pub async fn descriptor(&self, id: RecordId) -> Result<Option<RecordDescriptor>> {
        let record = self.find("records.descriptor", id).await?;
        Ok(record.filter(Record::is_live).map(|r| r.descriptor))
    }

    /// Returns the complete values of those of `slots` that have one, ascending;
    /// [`inspect`](RecordStore::inspect) returns only their metadata. At most [`MAX_RECORD_LEN`] bytes.
    pub async fn values(&self, id: RecordId, slots: Range<Slot>) -> Result<Vec<(Slot, Signed)>> {
        let mut found = Vec::new();
        self.each("records.values", id, slots, |slot, signed| {
            found.push((slot, signed?));
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// Reads and verifies the values of these slots, in ascending order; an error in the sequence
    /// stands for a damaged value.
    async fn each(
        &self,
        operation: &'static str,
        id: RecordId,
        slots: Range<Slot>,
        mut found: impl FnMut(Slot, Result<Signed>) -> Result<()>,
    ) -> Result<()> {
        let record = self.live(operation, id).await?;
        let entries = self.collections.scan(stored::scan_slots(id, slots));
        let mut entries = entries.enumerate();
        while let Some((n, entry)) = entries.next().await {
            let entry = entry?;
            let slot = stored::decode_slot_key(operation, id, &entry.key)?;
            let writer = record.stored_writer_of(operation, id, slot)?;
            let signed =
                stored::decode_slot(operation, id, slot, writer, &entry.value, &self.verified);
            found(slot, signed)?;
            if n % VERIFIED_PER_TURN == VERIFIED_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn turn(&self, id: RecordId) -> MutexGuard<'_, ()> {
        self.turns[usize::from(id.0[0]) % TURNS].lock().await
    }

    /// Returns the record's entry, live or not.
    async fn find(&self, operation: &'static str, id: RecordId) -> Result<Option<Record>> {
        match self
            .collections
            .get(RECORDS, stored::record_key(id))
            .await?
        {
            Some(entry) => Record::decode(operation, id, &entry).map(Some),
            None => Ok(None),
        }
    }

    async fn live(&self, operation: &'static str, id: RecordId) -> Result<Record> {
        let record = self.find(operation, id).await?;
        record.filter(Record::is_live).ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                operation,
                "the record is not known to this store",
            )
            .with("record", id)
        })
    }
}

#[async_trait]
impl RecordStore for Records {
    fn name(&self) -> &str {
        self.collections.name()
    }

    fn capabilities(&self) -> RecordCapabilities {
        {
            let mut facts = RecordCapabilities::least();
            facts.max_value_len = MAX_VALUE_LEN;
            facts.max_slots = MAX_SLOTS;
            facts.max_record_len = MAX_RECORD_LEN;
            facts.room = Room::Shared;
            facts.import = ImportSupport::Supported;
            facts.max_writers = MAX_WRITERS;
            facts
        }
    }

    async fn create(&self, descriptor: RecordDescriptor) -> Result<RecordId> {
        const OPERATION: &str = "records.create";
        let id = record_id(&descriptor)?;
        let _turn = self.turn(id).await;
        for _ in 0..MAX_ATTEMPTS {
            match self.find(OPERATION, id).await? {
                Some(record) if record.is_live() => return Ok(id),
                // A forget was interrupted: leftover values must not become visible again.
                Some(_) => self.forget_in_turn(OPERATION, id).await?,
                None => {}
            }
            let key = stored::record_key(id);
            let batch = Batch::of(vec![Edit::Put {
                collection: RECORDS,
                key: key.clone(),
                value: stored::encode_record(State::Live, 0, &descriptor)?,
            }])
            .expecting(expect(&RECORDS, &key, None));
            match self.collections.commit_reserved(batch).await {
                Ok(_) => return Ok(id),
                Err(error) if error.kind() == Kind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Err(too_busy(OPERATION, id))
    }

    async fn get(&self, id: RecordId, slot: Slot, _: Freshness) -> Result<Option<Signed>> {
        const OPERATION: &str = "records.get";
        let record = self.live(OPERATION, id).await?;
        let writer = record.writer_of(OPERATION, id, slot)?;
        match self
            .collections
            .get(SLOTS, stored::slot_key(id, slot))
            .await?
        {
            Some(entry) => {
                let bytes = &entry.value;
                stored::decode_slot(OPERATION, id, slot, writer, bytes, &self.verified).map(Some)
            }
            None => Ok(None),
        }
    }

    async fn put(&self, id: RecordId, slot: Slot, put: PutRecord) -> Result<Put> {
        self.put_in_turn(id, slot, put).await
    }

    async fn inspect(
        &self,
        id: RecordId,
        slots: Range<Slot>,
        _: Freshness,
    ) -> Result<Vec<SlotSeq>> {
        let mut found = Vec::new();
        self.each("records.inspect", id, slots, |slot, signed| {
            let seq = signed?.seq;
            found.push(SlotSeq { slot, seq });
            Ok(())
        })
        .await?;
        Ok(found)
    }

    fn watch(&self, id: RecordId, slots: Range<Slot>) -> Option<Listing<RecordEvent>> {
        let changes = self.collections.watch();
        Some(Box::pin(changes.try_filter_map(move |change| {
            ready(Ok(event(id, &slots, &change)))
        })))
    }

    async fn forget(&self, id: RecordId) -> Result<()> {
        let _turn = self.turn(id).await;
        self.forget_in_turn("records.forget", id).await
    }
}

/// Returns the event of a change for a watcher of these slots; `None` if the change does not concern
/// it.
fn event(id: RecordId, slots: &Range<Slot>, change: &Change) -> Option<RecordEvent> {
    let keys = match change {
        Change::Keys {
            collection, keys, ..
        } if *collection == SLOTS => keys,
        Change::Keys { .. } => return None,
        // As any change of which it is not known what it changes.
        _ => return Some(RecordEvent::Resync),
    };
    let slots: Vec<Slot> = keys
        .iter()
        .filter_map(|key| stored::slot_of_key(id, key))
        .filter(|slot| slots.contains(slot))
        .collect();
    (!slots.is_empty()).then_some(RecordEvent::Changed { slots, value: None })
}

fn too_busy(operation: &'static str, id: RecordId) -> Error {
    Error::new(
        Kind::Unavailable,
        operation,
        format!("others changed the record first, {MAX_ATTEMPTS} times in a row"),
    )
    .with("record", id)
}

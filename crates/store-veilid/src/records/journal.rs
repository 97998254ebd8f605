//! A journal of the values that were put into records here, until newer values replace them. Veilid
//! writes its own copy of a value asynchronously, and may lose acknowledged values when the process is
//! killed or the power fails. So a put returns once the journal has its value, and values that Veilid
//! has lost are put again, before the record is used and when the store is opened.
//!
//! ```text
//! larder/veilid-values   record id [32] | slot u16 -> version u8 = 1 | seq u64 | writer [32] | value
//! secret record-writer/KEY   the writer's secret key [32], for putting again
//! ```

use std::{
    collections::BTreeSet,
    ops::Bound,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::TryStreamExt;
use larder_store_api::{
    Batch, CollectionId, CollectionStore, Edit, Error, Kind, Order, PublicKey, RecordId, Result,
    Scan, Secret, SecretKey, SecretName, Secrets, Slot,
};

use crate::VeilidSecrets;

const COLLECTION: CollectionId = CollectionId::from_static("larder/veilid-values");
const VERSION: u8 = 1;
const HEAD_LEN: usize = 1 + 8 + 32;
/// The most keys of one commit.
const DELETED_AT_ONCE: usize = 256;

/// A value that was put here.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) slot: Slot,
    pub(super) seq: u64,
    pub(super) writer: PublicKey,
    pub(super) value: Bytes,
}

/// The journal of all values.
#[derive(Debug)]
pub(super) struct Journal {
    store: Arc<dyn CollectionStore>,
    secrets: VeilidSecrets,
    /// The writers whose secrets are stored already.
    writers: Mutex<BTreeSet<PublicKey>>,
}

impl Journal {
    pub(super) fn new(store: Arc<dyn CollectionStore>, secrets: VeilidSecrets) -> Self {
        Self {
            store,
            secrets,
            writers: Mutex::default(),
        }
    }

    /// Stores the secret of a writer. Must be called before its first value is noted.
    pub(super) async fn keep_writer(&self, writer: PublicKey, secret: &SecretKey) -> Result<()> {
        if self.writers().contains(&writer) {
            return Ok(());
        }
        let name = secret_name(writer)?;
        if self.secrets.get(name.clone()).await?.is_none() {
            let secret = Secret::new(secret.expose().as_slice())?;
            self.secrets.put(name, secret).await?;
        }
        self.writers().insert(writer);
        Ok(())
    }

    fn writers(&self) -> std::sync::MutexGuard<'_, BTreeSet<PublicKey>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the secret of a writer of a noted value.
    pub(super) async fn writer(&self, writer: PublicKey) -> Result<SecretKey> {
        let name = secret_name(writer)?;
        let found = self.secrets.get(name.clone()).await?;
        let bytes = found.and_then(|secret| <[u8; 32]>::try_from(secret.expose()).ok());
        bytes.map(SecretKey::from_bytes).ok_or_else(|| {
            let message = "the key of a record's writer is not among the node's secrets";
            Error::new(Kind::Denied, "record.recover", message).with("secret", &name)
        })
    }

    /// Notes a value, replacing the slot's previous one. Durable when it returns.
    pub(super) async fn note(&self, id: RecordId, noted: &Noted) -> Result<()> {
        let mut value = BytesMut::with_capacity(HEAD_LEN + noted.value.len());
        value.put_u8(VERSION);
        value.put_u64(noted.seq);
        value.put_slice(&noted.writer.0);
        value.put_slice(&noted.value);
        let edit = Edit::Put {
            collection: COLLECTION,
            key: key(id, noted.slot),
            value: value.freeze(),
        };
        self.store.commit(Batch::of(vec![edit])).await.map(drop)
    }

    /// Returns the noted values of a record.
    pub(super) async fn of(&self, id: RecordId) -> Result<Vec<Noted>> {
        let keys = (
            Bound::Included(key(id, 0)),
            Bound::Included(key(id, Slot::MAX)),
        );
        let mut entries = self.store.scan(Scan {
            collection: COLLECTION,
            keys,
            order: Order::Ascending,
        });
        let mut all = Vec::new();
        while let Some(entry) = entries.try_next().await? {
            all.push(decode(&entry.key, &entry.value)?);
        }
        Ok(all)
    }

    /// Returns the records that have noted values.
    pub(super) async fn records(&self) -> Result<BTreeSet<RecordId>> {
        let mut entries = self.store.scan(Scan::all(COLLECTION));
        let mut records = BTreeSet::new();
        while let Some(entry) = entries.try_next().await? {
            records.extend(entry.key.first_chunk().map(|id| RecordId(*id)));
        }
        Ok(records)
    }

    /// Forgets the noted values of a record, and the secrets of writers that no other value needs.
    pub(super) async fn forget(&self, id: RecordId) -> Result<()> {
        let noted = self.of(id).await?;
        for some in noted.chunks(DELETED_AT_ONCE) {
            let edits = some.iter().map(|noted| Edit::Delete {
                collection: COLLECTION,
                key: key(id, noted.slot),
            });
            self.store.commit(Batch::of(edits.collect())).await?;
        }
        let mut unused: BTreeSet<PublicKey> = noted.iter().map(|noted| noted.writer).collect();
        let mut entries = self.store.scan(Scan::all(COLLECTION));
        while let Some(entry) = entries.try_next().await? {
            // An unreadable value may name any of them.
            unused.remove(&decode(&entry.key, &entry.value)?.writer);
        }
        for writer in unused {
            self.writers().remove(&writer);
            self.secrets.delete(secret_name(writer)?).await?;
        }
        Ok(())
    }
}

fn secret_name(writer: PublicKey) -> Result<SecretName> {
    SecretName::new(format!("record-writer/{writer}"))
}

fn key(id: RecordId, slot: Slot) -> Bytes {
    [&id.0[..], &slot.to_be_bytes()].concat().into()
}

fn decode(key: &[u8], value: &Bytes) -> Result<Noted> {
    let noted = || {
        let slot = key.get(32..).and_then(|slot| slot.try_into().ok())?;
        let (&VERSION, rest) = value.split_first()? else {
            return None;
        };
        let (seq, rest) = rest.split_first_chunk()?;
        let (writer, rest) = rest.split_first_chunk()?;
        Some(Noted {
            slot: Slot::from_be_bytes(slot),
            seq: u64::from_be_bytes(*seq),
            writer: PublicKey(*writer),
            value: value.slice_ref(rest),
        })
    };
    noted().ok_or_else(|| {
        let message = "a noted value of a record cannot be read";
        let error = Error::new(Kind::Corrupt, "record.recover", message);
        match key.first_chunk() {
            Some(id) => error.with("record", RecordId(*id)),
            None => error,
        }
    })
}

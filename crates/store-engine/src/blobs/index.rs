//! The index of blobs: the collections that the engine keeps.
//!
//! * `larder/blobs`: hash → [entry](super::entry).
//! * `larder/payloads`: payload → hash of the blob that claims it.
//! * `larder/garbage`: payloads that nothing claims any more, to be deleted.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use store_api::{
    Batch, CollectionId, Durability, Edit, Kind, Listing, PayloadId, Result, Revision, Scan,
};

use super::{
    Blobs, Inner,
    change::{Change, Outcome},
    entry::{BlobEntry, Indexed, State},
    read::Status,
};
use crate::Hash;

pub(crate) const BLOBS: CollectionId = CollectionId::from_static("larder/blobs");
pub(crate) const PAYLOADS: CollectionId = CollectionId::from_static("larder/payloads");
pub(crate) const GARBAGE: CollectionId = CollectionId::from_static("larder/garbage");

pub(crate) fn key(hash: Hash) -> Bytes {
    Bytes::copy_from_slice(hash.as_bytes())
}

pub(crate) fn payload_key(payload: PayloadId) -> Bytes {
    Bytes::copy_from_slice(&payload.0)
}

pub(crate) fn hash_of_key(key: &Bytes) -> Result<Hash> {
    let bytes: [u8; 32] = key[..].try_into().map_err(|_| {
        store_api::Error::new(Kind::Corrupt, "blobs.list", "a key is not a hash")
            .with("key", key.escape_ascii())
    })?;
    Ok(Hash::from(bytes))
}

/// Whether a change was made, or somebody else was first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Replaced {
    Done(Revision),
    Conflict,
}

impl Inner {
    pub(crate) async fn lookup(&self, hash: Hash) -> Result<Option<Indexed>> {
        if hash == Hash::EMPTY {
            return Ok(Some(Indexed {
                entry: BlobEntry {
                    added: u64::MAX,
                    state: State::Inline(Bytes::new()),
                },
                revision: store_api::Revision(0),
            }));
        }
        let found = self.collections.get(BLOBS, key(hash)).await?;
        found
            .map(|found| {
                let entry = BlobEntry::decode(hash, &found.value)?;
                let revision = found.revision;
                Ok(Indexed { entry, revision })
            })
            .transpose()
    }

    /// Puts (or, with `None`, deletes) the entry of `hash` in place of `old`, and deletes the payload
    /// that is no longer claimed.
    pub(crate) async fn replace(
        self: &Arc<Self>,
        hash: Hash,
        old: Option<&Indexed>,
        new: Option<&BlobEntry>,
    ) -> Result<Replaced> {
        let mut change = Change::of(Vec::new());
        change.replace(hash, old, new);
        Ok(match self.commit(change).await? {
            Outcome::Done(revision) => Replaced::Done(revision),
            Outcome::Conflict(_) => Replaced::Conflict,
        })
    }

    /// Tells collections and observers that the entry of a blob changed.
    pub(crate) fn changed(&self, hash: Hash) {
        self.pins.changed(hash);
        // An error says that nobody observes.
        self.changes.send(hash).ok();
    }

    /// Deletes payloads that were noted as garbage. What fails is tried again at the next start.
    pub(crate) async fn remove_garbage(&self, payloads: Vec<PayloadId>) {
        if let Err(error) = self.try_remove_garbage(payloads).await {
            tracing::warn!(%error, "unclaimed payloads stay until the next start");
        }
    }

    pub(crate) async fn try_remove_garbage(&self, payloads: Vec<PayloadId>) -> Result<()> {
        if payloads.is_empty() {
            return Ok(());
        }
        self.remove_payloads(payloads.clone()).await?;
        let edits = payloads
            .iter()
            .map(|payload| Edit::Delete {
                collection: GARBAGE,
                key: payload_key(*payload),
            })
            .collect();
        let mut batch = Batch::of(edits);
        // Deleting again what is gone does no harm.
        batch.durability = Durability::OnSync;
        self.collections.commit_reserved(batch).await?;
        Ok(())
    }

    pub(crate) fn entries(&self) -> Listing<(Hash, Indexed)> {
        let entries = self.collections.scan(Scan::all(BLOBS));
        Box::pin(entries.map(|found| {
            let found = found?;
            let hash = hash_of_key(&found.key)?;
            let entry = BlobEntry::decode(hash, &found.value)?;
            let revision = found.revision;
            Ok((hash, Indexed { entry, revision }))
        }))
    }
}

/// The edit by which a blob claims a payload.
pub(crate) fn claim(payload: PayloadId, hash: Hash) -> Edit {
    Edit::Put {
        collection: PAYLOADS,
        key: payload_key(payload),
        value: key(hash),
    }
}

/// The edits that turn a claimed payload into garbage.
pub(crate) fn discard(payload: PayloadId) -> [Edit; 2] {
    [
        Edit::Delete {
            collection: PAYLOADS,
            key: payload_key(payload),
        },
        Edit::Put {
            collection: GARBAGE,
            key: payload_key(payload),
            value: Bytes::new(),
        },
    ]
}

impl Blobs {
    /// Every blob of which something is here, with its status, ascending by hash.
    pub fn list(&self) -> Listing<(Hash, Status)> {
        if let Err(error) = self.0.check_open("blobs.list") {
            return super::failed(error);
        }
        let entries = self.0.entries();
        Box::pin(entries.map_ok(|(hash, found)| (hash, Status::of(&found.entry))))
    }
}

//! The index of blobs: looking up entries, and replacing them.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use larder_store_api::{Batch, Durability, Edit, Listing, PayloadId, Result, Revision, Scan};

use super::{
    Blobs, Inner,
    change::{Change, Outcome},
    entry::{BlobEntry, Indexed, State},
    keys::{BLOBS, GARBAGE, hash_of_key, key, payload_key},
    read::BlobStatus,
};
use crate::Hash;

/// Says if a change was made, or if another one came first.
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
                revision: larder_store_api::Revision(0),
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

    /// Deletes payloads that were noted as garbage. Payloads that cannot be deleted are tried again
    /// at the next start.
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

impl Blobs {
    /// Every blob of which something is here, with its status, ascending by hash.
    pub fn list(&self) -> Listing<(Hash, BlobStatus)> {
        if let Err(error) = self.0.check_open("blobs.list") {
            return super::failed(error);
        }
        let entries = self.0.entries();
        Box::pin(entries.map_ok(|(hash, found)| (hash, BlobStatus::of(&found.entry))))
    }
}

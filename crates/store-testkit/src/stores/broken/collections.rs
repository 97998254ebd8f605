//! Defects of collection stores.

use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use larder_store_api::{
    Batch, Change, CollectionCapabilities, CollectionId, CollectionStore, Edit, Entry, Expect,
    Listing, Order, Result, Revision, Scan,
};
use tokio::task::yield_now;

use super::{BrokenStore, Defect, PAGE};

fn place(edit: &Edit) -> (CollectionId, Bytes) {
    let (Edit::Put {
        collection, key, ..
    }
    | Edit::Delete { collection, key }) = edit;
    (collection.clone(), key.clone())
}

impl<S: CollectionStore> BrokenStore<S> {
    /// Uses one commit for the expectations, and one for every edit.
    async fn commit_apart(&self, batch: Batch) -> Result<Revision> {
        let mut revision = self
            .inner
            .commit({
                let mut batch = batch.clone();
                batch.edits = Vec::new();
                batch
            })
            .await?;
        for edit in batch.edits {
            let single = Batch::of(vec![edit]).durability(batch.durability);
            revision = self.inner.commit(single).await?;
        }
        Ok(revision)
    }

    /// Checks the expectations first, and applies the edits a moment later.
    async fn check_apart(&self, batch: Batch) -> Result<Revision> {
        let edits = {
            let mut batch = batch.clone();
            batch.expect = Vec::new();
            batch
        };
        let expect = {
            let mut batch = batch;
            batch.edits = Vec::new();
            batch
        };
        self.inner.commit(expect).await?;
        yield_now().await;
        self.inner.commit(edits).await
    }

    /// Commits one half of the edits, and the other half a moment later.
    async fn commit_in_halves(&self, mut batch: Batch) -> Result<Revision> {
        let second =
            Batch::of(batch.edits.split_off(batch.edits.len() / 2)).durability(batch.durability);
        self.inner.commit(batch).await?;
        yield_now().await;
        self.inner.commit(second).await
    }

    /// Weakens the expectations, so that they only check whether there is an entry.
    async fn at_whatever(&self, mut batch: Batch) -> Result<Revision> {
        for expect in &mut batch.expect {
            if let Expect::At {
                collection,
                key,
                revision,
            } = expect
                && let Some(entry) = self.inner.get(collection.clone(), key.clone()).await?
            {
                *revision = entry.revision;
            }
        }
        self.inner.commit(batch).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: CollectionStore> CollectionStore for BrokenStore<S> {
    fn name(&self) -> &str {
        "broken"
    }

    fn capabilities(&self) -> CollectionCapabilities {
        let mut facts = self.inner.capabilities();
        if self.defect == Defect::LimitsAreNotKept {
            facts.max_key_len /= 2;
            facts.max_value_len /= 2;
            facts.max_batch_len /= 2;
        }
        facts
    }

    async fn get(&self, collection: CollectionId, key: Bytes) -> Result<Option<Entry>> {
        let place = (collection.clone(), key.clone());
        let known = self.memory().entries.get(&place).cloned();
        let entry = match (self.defect, known) {
            (Defect::GetIsStale, Some(known)) => return Ok(known),
            _ => self.inner.get(collection, key).await,
        };
        match self.defect {
            Defect::GetIsStale => {
                let entry = entry?;
                self.memory().entries.insert(place, entry.clone());
                Ok(entry)
            }
            Defect::GetOfErrorsIsNone => Ok(entry.unwrap_or(None)),
            Defect::RevisionIsThatOfTheStore => {
                let last = self.memory().last;
                Ok(entry?.map(|entry| Entry {
                    revision: last.unwrap_or(entry.revision),
                    ..entry
                }))
            }
            _ => entry,
        }
    }

    fn scan(&self, mut scan: Scan) -> Listing<Entry> {
        match self.defect {
            Defect::ScanIgnoresOrder => scan.order = Order::Ascending,
            Defect::ScanIncludesExcluded => {
                for bound in [&mut scan.keys.0, &mut scan.keys.1] {
                    if let Bound::Excluded(key) = bound {
                        *bound = Bound::Included(key.clone());
                    }
                }
            }
            _ => {}
        }
        let listing = self.inner.scan(scan);
        let changed = |change: fn(&mut Vec<Entry>), listing: Listing<Entry>| {
            stream::once(async move {
                let mut entries: Vec<_> = listing.try_collect().await?;
                change(&mut entries);
                Ok(stream::iter(entries.into_iter().map(Ok)))
            })
            .try_flatten()
        };
        match self.defect {
            Defect::ScanDropsTheLast => Box::pin(changed(|entries| drop(entries.pop()), listing)),
            Defect::ScanIsUnordered => Box::pin(changed(
                |entries| entries.sort_by_key(|entry| entry.key.len()),
                listing,
            )),
            Defect::ScanStopsAfterAPage => Box::pin(listing.take(PAGE)),
            Defect::ScanEndsAtErrors => {
                Box::pin(listing.take_while(|entry| std::future::ready(entry.is_ok())))
            }
            _ => listing,
        }
    }

    fn collections(&self) -> Listing<CollectionId> {
        match self.defect {
            Defect::CollectionsRemainWithoutEntries => {
                let names = self.memory().names.clone();
                Box::pin(stream::iter(names.into_iter().map(Ok)))
            }
            _ => self.inner.collections(),
        }
    }

    async fn commit(&self, mut batch: Batch) -> Result<Revision> {
        match self.defect {
            Defect::EarlierEditWins => batch.edits.reverse(),
            Defect::DeleteIsIgnored => {
                batch.edits.retain(|edit| matches!(edit, Edit::Put { .. }));
            }
            Defect::ExpectationsAreIgnored => batch.expect.clear(),
            Defect::OnlyTheFirstExpectationCounts => batch.expect.truncate(1),
            Defect::EmptyBatchIsIgnored if batch.edits.is_empty() && batch.expect.is_empty() => {
                return Ok(self.memory().last.unwrap_or(Revision(1)));
            }
            _ => {}
        }
        let places: Vec<_> = batch.edits.iter().map(place).collect();
        let revision = match self.defect {
            Defect::BatchIsNotAtomic => self.commit_apart(batch).await?,
            Defect::BatchIsCutByCancelling => self.commit_in_halves(batch).await?,
            Defect::ExpectationsAreCheckedApart => self.check_apart(batch).await?,
            Defect::AnyRevisionWillDo => self.at_whatever(batch).await?,
            _ => self.inner.commit(batch).await?,
        };
        let mut memory = self.memory();
        memory
            .names
            .extend(places.into_iter().map(|(name, _)| name));
        memory.last = Some(revision);
        match self.defect {
            Defect::RevisionIsReused => Ok(Revision(revision.0.div_ceil(2))),
            _ => Ok(revision),
        }
    }

    fn watch(&self) -> Option<Listing<Change>> {
        let listing = self.inner.watch()?;
        let defect = self.defect;
        let mut told = None;
        Some(Box::pin(listing.filter_map(move |change| {
            let change = match (defect, change) {
                (Defect::WatchIsSilentOnLag, Ok(Change::Resync)) => None,
                (Defect::WatchTellsOfOneCollection, Ok(Change::Keys { revision, .. }))
                    if told.replace(revision) == Some(revision) =>
                {
                    None
                }
                (
                    Defect::WatchTellsOfOneKey,
                    Ok(Change::Keys {
                        collection,
                        mut keys,
                        revision,
                    }),
                ) => {
                    keys.truncate(1);
                    Some(Ok(Change::Keys {
                        collection,
                        keys,
                        revision,
                    }))
                }
                (_, change) => Some(change),
            };
            std::future::ready(change)
        })))
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }
}

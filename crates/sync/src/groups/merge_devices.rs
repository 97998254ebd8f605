//! Several devices of one owner: what one of them wrote is remembered by the others until its tree is
//! there, and is then followed, or merged with what they wrote themselves.
//!
//! So the record of a repo of ours always names a root whose pages are here. A crash between any two
//! steps leaves the root remembered, and what was begun is done again.

use bytes::Bytes;
use larder_store_api::{Error, Freshness, Kind, Put, PutRecord, RecordStore, Result, Signed};
use larder_store_engine::{sign, verify};
use tokio::sync::MutexGuard;

use super::{Repo, Wants};
use crate::{
    records::{REPO_ROOT, RepoRoot, repo_record},
    tree::Root,
};

const TAKE: &str = "sync.repo.take";
const MERGE: &str = "sync.repo.merge";

/// A root of a repo of ours, as one of our devices signed it.
#[derive(Debug)]
pub(crate) struct SignedRoot {
    signed: Signed,
    pub(crate) root: RepoRoot,
}

impl SignedRoot {
    /// The greater one is the newer, as in the record.
    fn rank(&self) -> (u64, &Bytes) {
        rank(&self.signed)
    }
}

fn rank(signed: &Signed) -> (u64, &Bytes) {
    (signed.seq, &signed.value)
}

/// The exclusive right to change a repo.
pub(crate) type Turn<'a> = MutexGuard<'a, ()>;

impl Repo {
    /// Waits for the turn to change the repo.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        self.0.changing.lock().await
    }

    /// Waits for the turn to fetch the repo's tree.
    pub(crate) async fn fetching(&self) -> Turn<'_> {
        self.0.fetching.lock().await
    }

    pub(super) fn open_root(&self, signed: Signed) -> Result<SignedRoot> {
        let root = self.open_value(&signed.value)?;
        Ok(SignedRoot { signed, root })
    }

    /// The root of another device, where one waits for its tree.
    pub(crate) async fn other(&self) -> Result<Option<SignedRoot>> {
        if !self.is_ours() {
            return Ok(None);
        }
        let group = &self.0.group;
        let found = group.inner().other(group.id(), self.id()).await?;
        found.map(|signed| self.open_root(signed)).transpose()
    }

    /// Our own root.
    async fn ours(&self) -> Result<Option<SignedRoot>> {
        let records = self.0.group.records();
        let found = records.get(self.id(), REPO_ROOT, Freshness::Local).await?;
        found.map(|signed| self.open_root(signed)).transpose()
    }

    /// Remembers a root that came from a peer, and says whether that is news. An invalid root is left alone.
    /// If our own is damaged, this is how it comes back.
    ///
    /// # Errors
    /// [`Kind::Denied`] if no device of ours has signed it.
    pub(crate) async fn remember(&self, turn: &Turn<'_>, signed: Signed) -> Result<bool> {
        if signed.writer != self.key() {
            let message = "the slot belongs to another writer";
            return Err(Error::new(Kind::Denied, TAKE, message).with("repo", self.key()));
        }
        verify(self.id(), REPO_ROOT, &signed)?;
        let group = &self.0.group;
        let ours = group.records().get(self.id(), REPO_ROOT, Freshness::Local);
        let ours = match ours.await {
            Err(error) if error.kind() == Kind::Corrupt => {
                return self.heal_root(turn, signed).await;
            }
            ours => ours?,
        };
        if let Some(ours) = ours
            && (ours.seq > signed.seq || rank(&ours) == rank(&signed))
        {
            return Ok(false);
        }
        let waits = group.inner().other(group.id(), self.id()).await?;
        if waits.is_some_and(|waits| rank(&waits) >= rank(&signed)) {
            return Ok(false);
        }
        if let Err(error) = self.open_root(signed.clone()) {
            tracing::warn!(repo = %self.key(), %error, "another device wrote what is no root");
            return Ok(false);
        }
        let inner = group.inner();
        inner.keep_other(group.id(), self.id(), &signed).await?;
        Ok(true)
    }

    /// Keeps our tree, and that of another device that comes; lets all others go. Gives ours.
    pub(crate) async fn keep_both(&self, _turn: &Turn<'_>) -> Result<Root> {
        let ours = self.seen_root().await?;
        let mut keep = vec![ours];
        if let Some(other) = self.other().await? {
            keep.push(other.root.root);
        }
        self.keep_only(&keep).await?;
        Ok(ours)
    }

    /// Goes on from our root and from that of another device, whose tree is here by now.
    pub(crate) async fn settle(&self, other: &SignedRoot) -> Result<()> {
        let turn = self.turn().await;
        let group = &self.0.group;
        let next = match self.ours().await? {
            Some(ours) => self.next_of(&ours, other).await?,
            None => Some(other.signed.clone()),
        };
        if let Some(next) = next {
            // Before the record names it; the next change lets it go if that fails.
            self.keep(self.open_root(next.clone())?.root.root).await?;
            let put = group
                .records()
                .put(self.id(), REPO_ROOT, PutRecord::Import(next));
            if let Put::Superseded { .. } = put.await? {
                let message = "the root was changed out of turn";
                return Err(Error::new(Kind::Conflict, MERGE, message).with("repo", self.key()));
            }
        }
        // Unless a newer one came meanwhile.
        let waits = group.inner().other(group.id(), self.id()).await?;
        if waits.as_ref() == Some(&other.signed) {
            group.inner().forget_other(group.id(), self.id()).await?;
        }
        self.keep_both(&turn).await?;
        // Also where ours stays, which the peers are then told.
        group.record_changed(self.key(), REPO_ROOT);
        Ok(())
    }

    /// The value that comes after both; `None` if that is ours.
    ///
    /// Of two that were made from each other's trees the newer stays: two devices that look at the
    /// same two come to the same.
    async fn next_of(&self, ours: &SignedRoot, theirs: &SignedRoot) -> Result<Option<Signed>> {
        let (newer, older) = match ours.rank() >= theirs.rank() {
            true => (ours, theirs),
            false => (theirs, ours),
        };
        if newer.root.follows(&older.root) {
            return Ok(Some(newer.signed.clone()).filter(|newer| *newer != ours.signed));
        }
        let root = match older.root.follows(&newer.root) {
            true => older.root.root,
            false => self.merge(&ours.root, &theirs.root).await?,
        };
        let group = &self.0.group;
        let next = newer.root.merged(&older.root, root, group.inner().now());
        let keys = group.sealing(MERGE).await?;
        let value = next.seal(keys.locate(), self.id())?;
        let seq = newer.signed.seq.checked_add(1).ok_or_else(|| {
            let message = "the root has the greatest sequence number";
            Error::new(Kind::TooLarge, MERGE, message).with("repo", self.key())
        })?;
        sign(self.id(), REPO_ROOT, seq, value, self.owner(MERGE)?).map(Some)
    }

    /// Merges two trees, from the newest one that both were made from and that is still here. Gives
    /// a root that is kept.
    async fn merge(&self, ours: &RepoRoot, theirs: &RepoRoot) -> Result<Root> {
        let group = &self.0.group;
        let tree = group.tree(MERGE)?.sealing(group.sealing(MERGE).await?);
        let gone = |error: &Error| matches!(error.kind(), Kind::NotFound | Kind::Corrupt);
        for base in ours.common(theirs) {
            let merged = async {
                let base = tree.find_root(base.hash, base.level).await?;
                let merged = tree.merge(ours.root, theirs.root, Some(base)).await?;
                self.keep(merged.root).await?;
                Result::Ok(merged.root)
            };
            match merged.await {
                Ok(root) => return Ok(root),
                // A page of it was collected, or is damaged: an older one may do.
                Err(error) if gone(&error) => {
                    tracing::debug!(repo = %self.key(), %error, "an earlier tree is gone");
                }
                Err(error) => return Err(error),
            }
        }
        let merged = tree.merge(ours.root, theirs.root, None).await?;
        self.keep(merged.root).await?;
        Ok(merged.root)
    }

    /// Takes over what is here of a repo that was another's until its key came: a root whose tree
    /// has not come yet is that of another device.
    pub(super) async fn adopt(&self) -> Result<()> {
        let (group, records) = (&self.0.group, self.0.group.records());
        let Some(local) = group.inner().ever_local(self.id()).await? else {
            return Ok(());
        };
        // Only where everything was wanted all of it is here.
        let complete = local.complete_for(Wants::EVERYTHING.digest()?);
        let _turn = self.turn().await;
        let found = records.get(self.id(), REPO_ROOT, Freshness::Local).await?;
        let known = found.map(|signed| self.open_root(signed));
        let is_here = |known: &SignedRoot| {
            let root = known.root.root;
            root.is_empty() || complete.hash == root.hash
        };
        if let Some(known) = known
            && !known.as_ref().is_ok_and(is_here)
        {
            if let Ok(known) = known {
                let inner = group.inner();
                inner
                    .keep_other(group.id(), self.id(), &known.signed)
                    .await?;
            }
            // A slot cannot be emptied. What the others have comes back with the next comparing.
            records.forget(self.id()).await?;
            records.create(repo_record(group.id(), self.key())).await?;
        }
        group.inner().forget_local(self.id()).await
    }
}

//! Damaged values of records. Peers are told that they are absent, so that they send their own; to us they
//! are errors until then, and never absent.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use larder_store_api::{Error, Kind, Put, PutRecord, RecordId, RecordStore, Result, Signed, Slot};
use larder_store_engine::sign;

use super::{Group, Repo, merge_devices::Turn};
use crate::records::REPO_ROOT;

/// The most damaged slots for which it is remembered that they were logged. Any beyond are logged
/// each time.
const MAX_TOLD: usize = 1024;

/// The gap between a peer's sequence number and that of our own root once it is healed: larger than
/// any number of writes since the peer got it.
const GAP: u64 = 1 << 32;

const HEAL: &str = "sync.repo.heal";

/// The damaged slots of which the operator was told.
#[derive(Default)]
pub(super) struct Told(Mutex<BTreeSet<(RecordId, Slot)>>);

impl Told {
    fn slots(&self) -> MutexGuard<'_, BTreeSet<(RecordId, Slot)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_news(&self, id: RecordId, slot: Slot) -> bool {
        let mut slots = self.slots();
        if slots.len() < MAX_TOLD {
            return slots.insert((id, slot));
        }
        !slots.contains(&(id, slot))
    }

    /// A record changed: what is damaged from now on is news.
    pub(super) fn forget(&self, id: RecordId) {
        self.slots().retain(|(told, _)| *told != id);
    }
}

impl Group {
    /// The values of a record of the group that are whole.
    pub(crate) async fn intact(&self, id: RecordId) -> Result<Vec<(Slot, Signed)>> {
        let found = self.records().intact(id, 0..Slot::MAX).await?;
        for (slot, error) in &found.damaged {
            self.tell_damaged(id, *slot, error);
        }
        Ok(found.values)
    }

    /// Returns the value found in a slot; `None` too if it is damaged, for callers that ask what
    /// peers may send.
    pub(crate) fn unless_damaged(
        &self,
        id: RecordId,
        slot: Slot,
        found: Result<Option<Signed>>,
    ) -> Result<Option<Signed>> {
        match found {
            Err(error) if error.kind() == Kind::Corrupt => {
                self.tell_damaged(id, slot, &error);
                Ok(None)
            }
            found => found,
        }
    }

    pub(super) fn tell_damaged(&self, record: RecordId, slot: Slot, error: &Error) {
        if self.told().is_news(record, slot) {
            let group = self.id();
            tracing::warn!(%group, %record, slot, %error, "a value is damaged; members may have it");
        }
    }
}

impl Repo {
    /// Takes back our own root, which is damaged here, from a peer. Says whether it is healed.
    ///
    /// Only the root whose tree is the one that is kept here: with any other, what was acknowledged
    /// since would be lost. That tree may have been the root more than once, and the peer know only
    /// the first time; so its value gets a number that was not used since.
    pub(super) async fn heal_root(&self, _turn: &Turn<'_>, signed: Signed) -> Result<bool> {
        let repo = self.key();
        let theirs = match self.open_root(signed.clone()) {
            Ok(theirs) => theirs.root.root,
            Err(error) => {
                tracing::warn!(%repo, %error, "another device wrote what is no root");
                return Ok(false);
            }
        };
        let waits = self.other().await?.map(|other| other.root.root.hash);
        let mut kept = self.kept().await?;
        kept.retain(|tag| Some(tag.root.hash) != waits);
        let is_kept = match &kept[..] {
            [] => theirs.is_empty() && waits.is_none(),
            [tag] => theirs.hash == tag.root.hash,
            _ => false,
        };
        if !is_kept {
            tracing::debug!(%repo, seq = signed.seq, "our root is damaged, and a peer has another one");
            return Ok(false);
        }
        let seq = signed.seq.checked_add(GAP).ok_or_else(|| {
            let message = "the root has almost the greatest sequence number";
            Error::new(Kind::TooLarge, HEAL, message).with("repo", repo)
        })?;
        let healed = sign(self.id(), REPO_ROOT, seq, signed.value, self.owner(HEAL)?)?;
        let group = self.group();
        let put = group.records();
        let put = put.put(self.id(), REPO_ROOT, PutRecord::Import(healed));
        match put.await? {
            Put::Published { .. } | Put::Queued { .. } => {
                tracing::warn!(%repo, seq, "our damaged root is healed by a peer's");
                group.record_changed(repo, REPO_ROOT);
                Ok(true)
            }
            Put::Superseded { .. } => Ok(false),
        }
    }
}

//! Blobs that enter the index together, after their bytes were written, and the claims that are
//! committed with them.

use std::{collections::HashMap, sync::Arc};

use larder_store_api::{Durability, Edit, Error, Expect, Kind, PayloadId, Result, Revision};

use super::{
    Inner,
    change::{Change, Outcome},
    entry::{BlobEntry, Indexed, State},
    payload::Draft,
    pins::Pin,
};
use crate::collections::holds;

/// The number of times that a commit is repeated after a conflict. Each conflict means that another
/// commit succeeded.
const MAX_ATTEMPTS: usize = 1024;

/// The number of expectations and edits of a batch that do not belong to the staged blobs: those of the
/// session.
const OVERHEAD: usize = 1;

/// A blob that gets an entry when it is committed. It is pinned until then.
#[derive(Debug)]
pub(crate) struct Staged {
    pub pin: Pin,
    pub entry: BlobEntry,
    /// The payload that the entry names.
    pub draft: Option<Draft>,
    /// The existing entry, as far as it is known. Most blobs are new, so this is read only after a
    /// conflict.
    pub old: Option<Indexed>,
}

impl Staged {
    pub(crate) fn new(pin: Pin, entry: BlobEntry, draft: Option<Draft>) -> Self {
        Self {
            pin,
            entry,
            draft,
            old: None,
        }
    }

    /// Deletes the payload that was written for the blob, if there is one.
    pub(crate) async fn discard(self) {
        if let Some(draft) = self.draft {
            draft.discard().await;
        }
    }

    /// Returns the number of expectations and edits that the blob needs.
    fn cost(&self) -> usize {
        let claims = usize::from(self.entry.payload().is_some());
        let old = self.old.as_ref().and_then(|old| old.entry.payload());
        2 + claims + 2 * usize::from(old.is_some())
    }
}

/// Claims that are committed together with the blobs: arbitrary edits, if the expectations are met.
#[derive(Debug, Default, Clone)]
pub(crate) struct Claims {
    pub expect: Vec<Expect>,
    pub edits: Vec<Edit>,
    pub pins: Vec<Pin>,
    /// The durability of the claims and the blobs.
    pub durability: Durability,
}

impl Claims {
    pub(crate) fn is_empty(&self) -> bool {
        self.expect.is_empty() && self.edits.is_empty()
    }

    fn cost(&self) -> usize {
        self.expect.len() + self.edits.len()
    }
}

impl Inner {
    /// Commits all blobs of `staged` that are not complete already, and `claims`: in one commit if the
    /// store accepts that many edits; else the claims come in the last commit, together with as many
    /// blobs as fit. Committed blobs leave `staged`.
    ///
    /// If an expectation of `claims` is not met, the result is [`Kind::Conflict`], and the remaining
    /// blobs stay staged; after any other error, payloads may be lost. `None` means that there was
    /// nothing to commit.
    pub(crate) async fn put(
        self: &Arc<Self>,
        staged: &mut Vec<Staged>,
        claims: &Claims,
    ) -> Result<Option<Revision>> {
        let most = self.collections.capabilities().max_batch_len as usize;
        let most = most.saturating_sub(OVERHEAD);
        if claims.cost() > most {
            let message = format!("at most {most} tags, slots and entries go into one commit");
            return Err(
                Error::new(Kind::TooLarge, "blobs.commit", message).with("needed", claims.cost())
            );
        }
        loop {
            let total: usize = staged.iter().map(Staged::cost).sum();
            if total + claims.cost() <= most {
                return self.put_together(staged, claims).await;
            }
            let mut room = most;
            let fits = staged.iter().take_while(|staged| {
                let fits = staged.cost() <= room;
                room = room.saturating_sub(staged.cost());
                fits
            });
            let mut first: Vec<_> = staged.drain(..fits.count()).collect();
            let nothing = Claims {
                durability: claims.durability,
                ..Claims::default()
            };
            self.put_together(&mut first, &nothing).await?;
        }
    }

    /// Puts the staged blobs and the claims in one commit.
    pub(crate) async fn put_together(
        self: &Arc<Self>,
        staged: &mut Vec<Staged>,
        claims: &Claims,
    ) -> Result<Option<Revision>> {
        for _ in 0..MAX_ATTEMPTS {
            if staged.is_empty() && claims.is_empty() {
                // The existing entries may come from a commit that is not durable yet.
                if claims.durability == Durability::OnWrite {
                    self.collections.make_durable().await?;
                }
                return Ok(None);
            }
            let mut change = Change::of(claims.edits.clone());
            change.durable(claims.durability);
            change.expect_all(&claims.expect);
            claims.pins.iter().for_each(|pin| change.keep(pin));
            for staged in staged.iter_mut() {
                change.replace(staged.pin.hash(), staged.old.as_ref(), Some(&staged.entry));
                change.keep(&staged.pin);
                staged
                    .draft
                    .take()
                    .into_iter()
                    .for_each(|d| change.claim(d));
            }
            match self.commit(change).await? {
                Outcome::Done(revision) => {
                    staged.clear();
                    return Ok(Some(revision));
                }
                Outcome::Conflict(drafts) => give_back(staged, drafts),
            }
            let looked_at = self.look_again(staged).await?;
            if looked_at == Looked::AsBefore {
                self.check(&claims.expect).await?;
            }
        }
        let message =
            format!("others changed the index first, {MAX_ATTEMPTS} times in a row; try again");
        Err(Error::new(Kind::Unavailable, "blobs.commit", message))
    }

    /// Reads the existing entry of each blob. Blobs that are complete are no longer staged.
    async fn look_again(self: &Arc<Self>, staged: &mut Vec<Staged>) -> Result<Looked> {
        let mut looked = Looked::AsBefore;
        let mut left = Vec::with_capacity(staged.len());
        for mut staged in std::mem::take(staged) {
            let found = self.lookup(staged.pin.hash()).await?;
            let revision = |entry: &Option<Indexed>| entry.as_ref().map(|entry| entry.revision);
            if revision(&found) != revision(&staged.old) {
                looked = Looked::Changed;
            }
            if found.as_ref().is_some_and(Indexed::is_complete) {
                staged.discard().await;
                continue;
            }
            staged.old = found;
            left.push(staged);
        }
        *staged = left;
        Ok(looked)
    }

    /// Returns an error for an expectation that is not met, if there is one.
    async fn check(&self, expect: &[Expect]) -> Result<()> {
        for expect in expect {
            let (Expect::Absent { collection, key }
            | Expect::At {
                collection, key, ..
            }) = expect;
            let found = self
                .collections
                .get(collection.clone(), key.clone())
                .await?;
            if !holds(expect, found.as_ref()) {
                let message = "it was changed since it was read; read it again, and decide again";
                return Err(Error::new(Kind::Conflict, "blobs.commit", message)
                    .with("collection", collection)
                    .with("key", key.escape_ascii()));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// All entries are as expected.
    AsBefore,
    Changed,
}

fn give_back(staged: &mut [Staged], drafts: Vec<Draft>) {
    let mut drafts: HashMap<PayloadId, Draft> = drafts.into_iter().map(|d| (d.id, d)).collect();
    for staged in staged {
        let payload = staged.entry.payload();
        staged.draft = payload.and_then(|payload| drafts.remove(&payload));
    }
}

impl Indexed {
    pub(crate) fn is_complete(&self) -> bool {
        !matches!(self.entry.state, State::Partial(_))
    }
}

//! Payloads: drafts that nothing claims yet, and the sweep of what is left of them.

use std::sync::Arc;

use futures_util::StreamExt;
use larder_store_api::{Block, Error, Kind, PayloadId, Result, Scan};
use tokio::sync::RwLock;

use super::{
    Inner,
    keys::{GARBAGE, PAYLOADS, hash_of_key, payload_key},
};
use crate::to_end::ToEnd;

/// The number of payloads that are looked up, or deleted, at once.
const SWEEP_BATCH: usize = 64;

/// A payload that nothing claims yet. Unless it is kept, dropping it deletes what was written.
#[derive(Debug)]
pub(crate) struct Draft {
    pub id: PayloadId,
    inner: Arc<Inner>,
    /// Shared by the writes under way; a deletion waits for them, for a write that took effect after
    /// it would bring the payload back.
    writes: Arc<RwLock<()>>,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Nothing claims it: it is deleted when it is dropped.
    Unclaimed,
    /// A commit that claims it is under way: until that has ended, nobody knows.
    Claiming,
    /// It is claimed, or its deletion has begun.
    Settled,
}

impl Draft {
    /// Writes blocks. Dropped, a write that was begun still ends.
    pub(crate) fn write(&self, blocks: Vec<Block>) -> ToEnd<Result<()>> {
        let (inner, id, writes) = (self.inner.clone(), self.id, self.writes.clone());
        self.inner.to_end(async move {
            let _writing = writes.read().await;
            inner.payloads.write(id, blocks).await
        })
    }

    /// A commit that claims it begins.
    pub(crate) fn begin_claim(&mut self) {
        self.fate = Fate::Claiming;
    }

    /// The commit ended, and nothing was claimed.
    pub(crate) fn end_claim(&mut self) {
        self.fate = Fate::Unclaimed;
    }

    /// It is claimed now.
    pub(crate) fn keep(mut self) {
        self.fate = Fate::Settled;
    }

    /// The commit that claims it failed: deletes what was written, in the background, where it is
    /// known that it is not claimed.
    pub(crate) fn doubt(mut self) {
        self.fate = Fate::Settled;
        discard_unclaimed(&self.inner, self.id);
    }

    /// Deletes what was written.
    pub(crate) async fn discard(mut self) {
        let inner = self.inner.clone();
        let discarding = inner.to_end(async move {
            self.fate = Fate::Settled;
            discard(&self.inner, self.id, &self.writes).await;
        });
        discarding.await;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        match self.fate {
            Fate::Settled => {}
            Fate::Unclaimed => {
                let (inner, id, writes) = (self.inner.clone(), self.id, self.writes.clone());
                tidy(&self.inner, async move {
                    discard(&inner, id, &writes).await;
                });
            }
            // The runtime ends in the middle of a commit.
            Fate::Claiming => self.inner.sessions.leave_unclean(),
        }
    }
}

async fn discard(inner: &Inner, id: PayloadId, writes: &RwLock<()>) {
    let _none_is_written = writes.write().await;
    if let Err(error) = inner.remove_payloads(vec![id]).await {
        inner.sessions.leave_unclean();
        tracing::warn!(%error, payload = %id, "an unclaimed payload stays until the next start");
    }
}

/// Does `work` in the background; `close` waits for it. Where that is not possible, the next start
/// tidies up.
fn tidy(inner: &Arc<Inner>, work: impl Future<Output = ()> + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            let work = inner.to_end(work);
            let running = inner.hold();
            runtime.spawn(async move {
                work.await;
                drop(running);
            });
        }
        Err(_) => inner.sessions.leave_unclean(),
    }
}

/// Deletes a payload, in the background, if no blob claims it and none can be about to.
pub(crate) fn discard_unclaimed(inner: &Arc<Inner>, id: PayloadId) {
    let work = {
        let inner = inner.clone();
        async move {
            let removed = async {
                // A store that cannot know what became of a failed commit refuses this.
                inner.collections.sync().await?;
                if !inner.is_claimed(id).await? {
                    inner.remove_payloads(vec![id]).await?;
                }
                Ok::<_, Error>(())
            };
            if let Err(error) = removed.await {
                inner.sessions.leave_unclean();
                tracing::warn!(%error, payload = %id, "a payload may stay unclaimed until the next start");
            }
        }
    };
    tidy(inner, work);
}

impl Inner {
    /// A new payload. The first of a run costs a durable commit, which begins its session.
    pub(crate) async fn draft(self: &Arc<Self>) -> Result<Draft> {
        Ok(Draft {
            id: self.new_payload().await?,
            inner: self.clone(),
            writes: Arc::default(),
            fate: Fate::Unclaimed,
        })
    }

    /// Deletes the payloads after `after` that nothing claims, as long as `these` says that they are
    /// meant; says how many there were.
    pub(super) async fn sweep(
        &self,
        after: Option<PayloadId>,
        these: impl Fn(PayloadId) -> bool,
    ) -> Result<u64> {
        let payloads = self.payloads.list(after);
        let meant = |payload: &Result<PayloadId>| {
            std::future::ready(!payload.as_ref().is_ok_and(|payload| !these(*payload)))
        };
        let mut payloads = payloads.take_while(meant).chunks(SWEEP_BATCH);
        let mut count = 0;
        while let Some(chunk) = payloads.next().await {
            let mut orphans = Vec::new();
            for payload in chunk {
                let payload = payload?;
                if !self.is_claimed(payload).await? {
                    orphans.push(payload);
                }
            }
            count += orphans.len() as u64;
            if !orphans.is_empty() {
                self.remove_payloads(orphans).await?;
            }
        }
        Ok(count)
    }

    /// Deletes payloads for good: before this is noted anywhere, the loss of power must not be able
    /// to bring them back.
    pub(crate) async fn remove_payloads(&self, payloads: Vec<PayloadId>) -> Result<()> {
        self.payloads.delete(payloads.clone()).await?;
        self.payloads.sync(payloads).await
    }

    /// Returns true if a blob's entry names this payload.
    pub(crate) async fn is_claimed(&self, payload: PayloadId) -> Result<bool> {
        let claim = self.collections.get(PAYLOADS, payload_key(payload)).await?;
        let Some(claim) = claim else {
            return Ok(false);
        };
        let hash = hash_of_key(&claim.value)?;
        match self.lookup(hash).await {
            Ok(found) => Ok(found.and_then(|found| found.entry.payload()) == Some(payload)),
            // Whatever it says, it is not known to name another.
            Err(error) if error.kind() == Kind::Corrupt => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn sweep_garbage(&self) -> Result<()> {
        let garbage = self.collections.scan(Scan::all(GARBAGE));
        let mut garbage = garbage.chunks(SWEEP_BATCH);
        while let Some(chunk) = garbage.next().await {
            let mut payloads = Vec::with_capacity(chunk.len());
            for entry in chunk {
                let key = entry?.key;
                let bytes = key[..].try_into().map_err(|_| {
                    Error::new(Kind::Corrupt, "blobs.open", "a key is not a payload")
                        .with("key", key.escape_ascii())
                })?;
                payloads.push(PayloadId(bytes));
            }
            self.try_remove_garbage(payloads).await?;
        }
        Ok(())
    }
}

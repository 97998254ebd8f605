//! Payloads: their ids, drafts that nothing claims yet, and the sweep of what a crash left.
//!
//! An id is `session u64 · number u64`, big-endian. A session is one run of an engine that wrote
//! payloads, counted in `larder/meta`; so what an unclean run may have left behind is found by
//! listing the payloads of that session alone.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use futures_util::StreamExt;
use store_api::{
    Batch, Block, CollectionId, Durability, Edit, Entry, Error, Expect, Kind, PayloadId, Result,
    Scan,
};
use tokio::sync::{OnceCell, RwLock};

use super::{
    Inner,
    keys::{GARBAGE, PAYLOADS, hash_of_key, payload_key},
};
use crate::to_end::ToEnd;

const META: CollectionId = CollectionId::from_static("larder/meta");
/// The last session that began.
const SESSION: Bytes = Bytes::from_static(b"session");
/// The last session of which nothing unclaimed is left.
const SWEPT: Bytes = Bytes::from_static(b"swept");
/// How many payloads are looked up, or deleted, at once.
const SWEEP_BATCH: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Ids {
    session: OnceCell<u64>,
    number: AtomicU64,
    /// Whether something unclaimed may be left.
    pub(super) unclean: AtomicBool,
}

impl Ids {
    /// Whether a payload may be one that this run is writing.
    pub(crate) fn is_current(&self, payload: PayloadId) -> bool {
        self.session
            .get()
            .is_some_and(|session| payload.0[..8] == session.to_be_bytes())
    }
}

fn id(session: u64, number: u64) -> PayloadId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&session.to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    PayloadId(bytes)
}

fn number_of(entry: Option<&Entry>) -> Result<u64> {
    let Some(entry) = entry else { return Ok(0) };
    let bytes = entry.value[..].try_into().map_err(|_| {
        Error::new(Kind::Corrupt, "blobs.open", "a counter cannot be read")
            .with("key", entry.key.escape_ascii())
    })?;
    Ok(u64::from_be_bytes(bytes))
}

fn put_number(key: Bytes, number: u64) -> Edit {
    Edit::Put {
        collection: META,
        key,
        value: Bytes::copy_from_slice(&number.to_be_bytes()),
    }
}

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
            Fate::Claiming => self.inner.ids.unclean.store(true, Ordering::SeqCst),
        }
    }
}

async fn discard(inner: &Inner, id: PayloadId, writes: &RwLock<()>) {
    let _none_is_written = writes.write().await;
    if let Err(error) = inner.remove_payloads(vec![id]).await {
        inner.ids.unclean.store(true, Ordering::SeqCst);
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
        Err(_) => inner.ids.unclean.store(true, Ordering::SeqCst),
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
                inner.ids.unclean.store(true, Ordering::SeqCst);
                tracing::warn!(%error, payload = %id, "a payload may stay unclaimed until the next start");
            }
        }
    };
    tidy(inner, work);
}

impl Inner {
    /// A new payload. The first of a run costs a durable commit, which opens its session.
    pub(crate) async fn draft(self: &Arc<Self>) -> Result<Draft> {
        let session = match self.ids.session.get() {
            Some(session) => *session,
            None => {
                let inner = self.clone();
                let beginning = self.to_end(async move {
                    let session = &inner.ids.session;
                    session
                        .get_or_try_init(|| inner.begin_session())
                        .await
                        .copied()
                });
                beginning.await?
            }
        };
        let number = self.ids.number.fetch_add(1, Ordering::Relaxed);
        Ok(Draft {
            id: id(session, number),
            inner: self.clone(),
            writes: Arc::default(),
            fate: Fate::Unclaimed,
        })
    }

    async fn begin_session(&self) -> Result<u64> {
        let last = self.collections.get(META, SESSION).await?;
        let session = number_of(last.as_ref())? + 1;
        let expect = match last {
            Some(entry) => Expect::At {
                collection: META,
                key: SESSION,
                revision: entry.revision,
            },
            None => Expect::Absent {
                collection: META,
                key: SESSION,
            },
        };
        let batch = Batch::of(vec![put_number(SESSION, session)]).expecting(expect);
        self.collections.commit_reserved(batch).await?;
        Ok(session)
    }

    /// Deletes what earlier sessions left unclaimed.
    pub(crate) async fn sweep(&self) -> Result<()> {
        let session = self.collections.get(META, SESSION).await?;
        let session = number_of(session.as_ref())?;
        let swept = self.collections.get(META, SWEPT).await?;
        let swept = number_of(swept.as_ref())?;
        if session > swept {
            let orphans = self.sweep_after(id(swept, u64::MAX)).await?;
            if orphans > 0 {
                tracing::info!(orphans, "deleted payloads that nothing claims");
            }
            let batch = Batch::of(vec![put_number(SWEPT, session)]);
            self.collections.commit_reserved(batch).await?;
        }
        self.sweep_garbage().await
    }

    async fn sweep_after(&self, after: PayloadId) -> Result<u64> {
        let mut payloads = self.payloads.list(Some(after)).chunks(SWEEP_BATCH);
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

    /// Whether a blob's entry names this payload.
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

    async fn sweep_garbage(&self) -> Result<()> {
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

    /// Notes that this run left nothing unclaimed.
    pub(crate) async fn note_clean(&self) -> Result<()> {
        if let Some(session) = self.ids.session.get()
            && !self.ids.unclean.load(Ordering::SeqCst)
        {
            let mut batch = Batch::of(vec![put_number(SWEPT, *session)]);
            batch.durability = Durability::OnSync;
            self.collections.commit_reserved(batch).await?;
        }
        Ok(())
    }
}

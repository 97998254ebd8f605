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
    Batch, CollectionId, Durability, Edit, Entry, Error, Expect, Kind, PayloadId, Result, Scan,
};
use tokio::{sync::OnceCell, task::JoinHandle};

use super::{
    Inner,
    index::{GARBAGE, PAYLOADS, hash_of_key, payload_key},
};

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
    unclean: AtomicBool,
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
    kept: bool,
}

impl Draft {
    /// It is claimed now.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    /// Deletes what was written.
    pub(crate) async fn discard(mut self) {
        self.kept = true;
        discard(self.inner.clone(), self.id).await;
    }
}

async fn discard(inner: Arc<Inner>, id: PayloadId) {
    if let Err(error) = inner.remove_payloads(vec![id]).await {
        inner.ids.unclean.store(true, Ordering::SeqCst);
        tracing::warn!(%error, payload = %id, "an unclaimed payload stays until the next start");
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            tidy(&self.inner, discard(self.inner.clone(), self.id));
        }
    }
}

/// Does `work` in the background. Where that is not possible, the next start tidies up.
fn tidy(inner: &Arc<Inner>, work: impl Future<Output = ()> + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            let running = inner.hold();
            runtime.spawn(async move {
                work.await;
                drop(running);
            });
        }
        Err(_) => inner.ids.unclean.store(true, Ordering::SeqCst),
    }
}

/// Deletes a payload in the background if no blob claims it once `recording` has ended, which may
/// claim it.
pub(crate) fn discard_unclaimed<T: Send + 'static>(
    inner: &Arc<Inner>,
    id: PayloadId,
    recording: Option<JoinHandle<T>>,
) {
    let work = {
        let inner = inner.clone();
        async move {
            if let Some(recording) = recording {
                // What it came to, the claim says.
                recording.await.ok();
            }
            match inner.is_claimed(id).await {
                Ok(true) => {}
                Ok(false) => discard(inner, id).await,
                Err(error) => {
                    inner.ids.unclean.store(true, Ordering::SeqCst);
                    tracing::warn!(%error, payload = %id, "a payload may stay unclaimed");
                }
            }
        }
    };
    tidy(inner, work);
}

impl Inner {
    /// A new payload. The first of a run costs a durable commit, which opens its session.
    pub(crate) async fn draft(self: &Arc<Self>) -> Result<Draft> {
        let session = self
            .ids
            .session
            .get_or_try_init(|| self.begin_session())
            .await?;
        let number = self.ids.number.fetch_add(1, Ordering::Relaxed);
        Ok(Draft {
            id: id(*session, number),
            inner: self.clone(),
            kept: false,
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
        self.collections.commit(batch).await?;
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
            self.collections.commit(batch).await?;
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
            self.collections.commit(batch).await?;
        }
        Ok(())
    }
}

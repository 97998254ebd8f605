//! Verified export: what a peer needs to verify a blob, or ranges of it, from its hash alone.

use std::{ops::Range, sync::Arc};

use bao_tree::ChunkRanges;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use larder_store_api::{Error, Listing, Part, PayloadId, Result};

use super::{
    Blobs, Inner,
    ahead::{Verified, ahead},
    entry::State,
    error::not_found,
    items::Encoded,
    plan::{Step, Window, windows},
    tree::clip,
    walk::Walk,
};
use crate::{
    Hash,
    blocking::{INLINE_HASH_LEN, blocking},
};

impl Blobs {
    /// The chunks `ranges` of a blob with all that proves them, verified as they are read, in the
    /// order of iroh's encoding. Ranges beyond the end ask for the last chunk.
    ///
    /// Bytes that are not here are [`Kind::NotFound`](larder_store_api::Kind::NotFound), damaged ones
    /// [`Kind::Corrupt`](larder_store_api::Kind::Corrupt): the items before it are whole and right.
    pub fn export(&self, hash: Hash, ranges: ChunkRanges) -> Listing<Encoded> {
        let inner = self.0.clone();
        Box::pin(
            stream::once(async move {
                inner.check_open("blobs.export")?;
                let found = inner.lookup(hash).await?;
                let found = found.ok_or_else(|| not_found("blobs.export", hash))?;
                Ok::<_, Error>(inner.export_entry(hash, found.entry.state, ranges))
            })
            .try_flatten(),
        )
    }
}

impl Inner {
    fn export_entry(
        self: Arc<Self>,
        hash: Hash,
        state: State,
        ranges: ChunkRanges,
    ) -> Listing<Encoded> {
        if let State::Inline(bytes) = state {
            let items = export_inline(hash, bytes, &ranges);
            return Box::pin(stream::iter(match items {
                Ok(items) => items.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            }));
        }
        let size = match &state {
            State::Complete(stored) => stored.size,
            State::Partial(partial) => partial.stored.size,
            State::Inline(bytes) => bytes.len() as u64,
        };
        let windows = verified_windows(self, hash, state, ranges);
        let items = windows
            .map_ok(|window| stream::iter(window.into_iter().map(Ok)))
            .try_flatten();
        Box::pin(stream::once(async move { Ok(Encoded::Size(size)) }).chain(items))
    }
}

fn export_inline(hash: Hash, bytes: Bytes, ranges: &ChunkRanges) -> Result<Vec<Encoded>> {
    let size = bytes.len() as u64;
    let ranges = clip(ranges, size);
    let walk = Walk {
        hash,
        offset: 0,
        data: &bytes,
        fragment: None,
    };
    let mut items = Vec::new();
    let wanted = (!ranges.is_all()).then_some(&ranges);
    walk.run(*hash.as_bytes(), true, wanted, &mut items)?;
    Ok(std::iter::once(Encoded::Size(size)).chain(items).collect())
}

/// The verified items of `ranges`, in windows, read ahead.
pub(crate) fn verified_windows(
    inner: Arc<Inner>,
    hash: Hash,
    state: State,
    ranges: ChunkRanges,
) -> impl Stream<Item = Result<Vec<Encoded>>> + Send {
    let most = inner.windows_ahead();
    let steps = windows(inner.clone(), hash, state, ranges);
    ahead(most, steps, move |window| {
        let inner = inner.clone();
        async move { inner.verify_window(hash, window).await }
    })
}

impl Inner {
    async fn verify_window(&self, hash: Hash, window: Window) -> Verified<Vec<Encoded>> {
        let runs = runs(&window.steps);
        let data = match self.read_runs(hash, window.payload, &runs).await {
            Ok(data) => data,
            Err(error) => return (None, Err(error)),
        };
        let len: usize = data.iter().map(Bytes::len).sum();
        let check = move || verify(hash, window.steps, &runs, &data);
        if len <= INLINE_HASH_LEN {
            return check();
        }
        let checked = blocking("blobs.export", check).await;
        checked.unwrap_or_else(|error| (None, Err(error)))
    }

    /// The bytes of each of `runs`, read as many at a time as the store likes.
    async fn read_runs(
        &self,
        hash: Hash,
        payload: PayloadId,
        runs: &[Range<u64>],
    ) -> Result<Vec<Bytes>> {
        let read = |run: &Range<u64>| self.read_part(hash, payload, Part::Data, run.clone());
        if let [run] = runs {
            return Ok(vec![read(run).await?]);
        }
        let at_once = usize::from(self.payloads.capabilities().concurrency).max(1);
        let reads: Vec<_> = runs.iter().map(read).collect();
        stream::iter(reads).buffered(at_once).try_collect().await
    }
}

/// The items of a window whose `runs` have these bytes, as far as they are right.
fn verify(
    hash: Hash,
    steps: Vec<Step>,
    runs: &[Range<u64>],
    data: &[Bytes],
) -> Verified<Vec<Encoded>> {
    let mut out = Vec::with_capacity(steps.len());
    let mut at = 0;
    for step in steps {
        match step {
            Step::Parent(parent) => out.push(Encoded::Parent(parent)),
            Step::Leaf(group) => {
                while group.offset >= runs[at].end && at + 1 < runs.len() {
                    at += 1;
                }
                let from = usize::try_from(group.offset - runs[at].start).unwrap_or(0);
                let bytes = data[at].slice(from..from + group.len);
                if let Err(error) = group.verify(hash, bytes, &mut out) {
                    return (Some(out), Err(error));
                }
            }
        }
    }
    (Some(out), Ok(()))
}

/// The consecutive bytes that the groups of a window cover.
fn runs(window: &[Step]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for step in window {
        let Step::Leaf(group) = step else { continue };
        match runs.last_mut() {
            Some(run) if run.end == group.offset => run.end = group.end(),
            _ => runs.push(group.offset..group.end()),
        }
    }
    runs
}

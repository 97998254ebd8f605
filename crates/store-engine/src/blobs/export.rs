//! Verified export: what a peer needs to verify a blob, or ranges of it, from its hash alone.

use std::sync::Arc;

use bao_tree::{ChunkRanges, io::Leaf, io::Parent};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use store_api::{Error, Listing, Part, PayloadId, Result};

use super::{
    Blobs, Inner,
    entry::State,
    plan::{Planned, Step, truncate, windows},
    read::{claimed, not_found, ordered},
    walk::Walk,
};
use crate::{
    Hash,
    blocking::{INLINE_HASH_LEN, blocking},
};

/// How many windows are read and verified ahead.
const EXPORT_AHEAD: usize = 2;

/// An item of the bao encoding of a blob, over groups of 16 KiB, in pre-order.
#[derive(Debug)]
pub enum Encoded {
    /// The blob's size in bytes; the first item.
    Size(u64),
    /// A node of the tree.
    Parent(Parent),
    /// Up to 16 KiB of the blob.
    Leaf(Leaf),
}

impl From<Planned> for Encoded {
    fn from(item: Planned) -> Self {
        match item {
            Planned::Parent(parent) => Encoded::Parent(parent),
            Planned::Leaf { offset, bytes } => Encoded::Leaf(Leaf {
                offset,
                data: bytes,
            }),
        }
    }
}

impl Blobs {
    /// The chunks `ranges` of a blob with all that proves them, verified as they are read, in the
    /// order of iroh's encoding. Ranges beyond the end ask for the last chunk.
    ///
    /// What is not here is [`Kind::NotFound`](store_api::Kind::NotFound), what is damaged
    /// [`Kind::Corrupt`](store_api::Kind::Corrupt): the items before it are whole and right.
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
            State::Complete { size, .. } => *size,
            State::Partial(partial) => partial.size,
            State::Inline(bytes) => bytes.len() as u64,
        };
        let windows = verified_windows(self, hash, state, ranges);
        let items = windows
            .map_ok(|window| stream::iter(window.into_iter().map(|item| Ok(item.into()))))
            .try_flatten();
        Box::pin(stream::once(async move { Ok(Encoded::Size(size)) }).chain(items))
    }
}

fn export_inline(hash: Hash, bytes: Bytes, ranges: &ChunkRanges) -> Result<Vec<Encoded>> {
    let size = bytes.len() as u64;
    let ranges = truncate(ranges, size);
    let walk = Walk {
        hash,
        offset: 0,
        data: &bytes,
        fragment: None,
    };
    let mut items = Vec::new();
    let wanted = (!ranges.is_all()).then_some(&ranges);
    walk.run(*hash.as_bytes(), true, wanted, &mut items)?;
    let items = items.into_iter().map(Encoded::from);
    Ok(std::iter::once(Encoded::Size(size)).chain(items).collect())
}

/// The verified items of `ranges`, in windows, read ahead.
pub(crate) fn verified_windows(
    inner: Arc<Inner>,
    hash: Hash,
    state: State,
    ranges: ChunkRanges,
) -> impl Stream<Item = Result<Vec<Planned>>> + Send {
    let payload = match &state {
        State::Complete { payload, .. } => Some(*payload),
        State::Partial(partial) => Some(partial.payload),
        State::Inline(_) => None,
    };
    let steps = windows(inner.clone(), hash, state, ranges);
    let windows = steps.map(move |window| {
        let inner = inner.clone();
        async move {
            let window = window?;
            match payload {
                Some(payload) => inner.verify_window(hash, payload, window).await,
                None => Ok(Vec::new()),
            }
        }
    });
    ordered(windows.buffered(EXPORT_AHEAD))
}

impl Inner {
    async fn verify_window(
        &self,
        hash: Hash,
        payload: PayloadId,
        window: Vec<Step>,
    ) -> Result<Vec<Planned>> {
        let runs = runs(&window);
        let reads = runs
            .iter()
            .map(|run| self.payloads.read(payload, Part::Data, run.start..run.end));
        let data = futures_util::future::try_join_all(reads)
            .await
            .map_err(claimed(hash))?;
        let len: usize = data.iter().map(Bytes::len).sum();
        let check = move || {
            let mut out = Vec::with_capacity(window.len());
            let mut at = 0;
            for step in window {
                match step {
                    Step::Parent(parent) => out.push(Planned::Parent(parent)),
                    Step::Leaf(group) => {
                        while group.offset >= runs[at].end && at + 1 < runs.len() {
                            at += 1;
                        }
                        let from = usize::try_from(group.offset - runs[at].start).unwrap_or(0);
                        let bytes = data[at].slice(from..from + group.len);
                        group.verify(hash, bytes, &mut out)?;
                    }
                }
            }
            Ok(out)
        };
        if len <= INLINE_HASH_LEN {
            check()
        } else {
            blocking("blobs.export", check).await?
        }
    }
}

/// The consecutive bytes that the groups of a window cover.
fn runs(window: &[Step]) -> Vec<std::ops::Range<u64>> {
    let mut runs: Vec<std::ops::Range<u64>> = Vec::new();
    for step in window {
        let Step::Leaf(group) = step else { continue };
        match runs.last_mut() {
            Some(run) if run.end == group.offset => run.end = group.end(),
            _ => runs.push(group.offset..group.end()),
        }
    }
    runs
}

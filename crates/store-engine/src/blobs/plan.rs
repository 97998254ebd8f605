//! The plan of a verified read: the nodes and groups that it needs, in the order of the bao encoding,
//! with the expected hash of each group.

use std::sync::Arc;

use async_stream::try_stream;
use bao_tree::{BaoTree, BlockSize, ChunkRanges, io::Parent, iter::BaoChunk};
use bytes::Bytes;
use futures_util::Stream;
use larder_store_api::{GROUP_LEN, Kind, PayloadId, Result};

use super::{
    Inner,
    ahead::WINDOW_LEN,
    entry::{Fragment, Partial, State, Stored, has_group},
    error::{damaged_tree, not_found},
    items::Encoded,
    tree::{Cv, PAIR_LEN, clip, hash_pair, node_groups, outboard_len, pair_index, split},
    walk::Walk,
};
use crate::Hash;

const BLOCK_SIZE: BlockSize = BlockSize::from_chunk_log(4);
/// The most items that a window may have.
const WINDOW_ITEMS: usize = 1024;
/// The number of outboard blocks that a plan keeps in memory.
const OUTBOARD_BLOCKS: usize = 8;

/// An item whose data is still to be read.
#[derive(Debug)]
pub(crate) enum Step {
    Parent(Parent),
    Leaf(Group),
}

/// Consecutive steps, which are read and verified together.
#[derive(Debug)]
pub(crate) struct Window {
    pub payload: PayloadId,
    pub steps: Vec<Step>,
}

/// A group to read and verify.
#[derive(Debug)]
pub(crate) struct Group {
    pub offset: u64,
    pub len: usize,
    is_root: bool,
    expected: Cv,
    /// The wanted chunks of it; `None` if all are wanted.
    ranges: Option<ChunkRanges>,
    /// Set if the group is incomplete.
    fragment: Option<Fragment>,
}

/// Returns the steps of a verified read in windows, for a blob that is not inline. Nodes are verified
/// here, groups by [`Group::verify`].
pub(crate) fn windows(
    inner: Arc<Inner>,
    hash: Hash,
    state: State,
    ranges: ChunkRanges,
) -> impl Stream<Item = Result<Window>> + Send {
    try_stream! {
        let (stored, partial) = match state {
            State::Complete(stored) => (stored, None),
            State::Partial(partial) => (partial.stored.clone(), Some(partial)),
            State::Inline(_) => return,
        };
        let Stored { size, payload, .. } = stored;
        let tree = BaoTree::new(size, BLOCK_SIZE);
        let ranges = clip(&ranges, size);
        let mut outboard = OutboardBlocks::new(&inner, hash, &stored);
        let mut expected: Vec<Cv> = vec![*hash.as_bytes()];
        let mut steps = Vec::new();
        let mut window_len = 0;
        for item in tree.ranges_pre_order_chunks_iter_ref(&ranges, 0) {
            // The traversal visits a node only after its parent pushed its hash.
            let cv = expected.pop().expect("a visited node has a visited parent");
            let step = match item {
                BaoChunk::Parent { node, is_root, left, right, .. } => {
                    let (start, groups) = node_groups(node, size);
                    let here = partial.as_ref().is_none_or(|p| p.touches(start, groups));
                    let pair = if here {
                        outboard.pair(start, groups, cv, is_root).await
                    } else {
                        Err(not_found("blobs.read", hash).with("offset", start * GROUP_LEN))
                    };
                    pair.map(|(l, r)| {
                        if right {
                            expected.push(r);
                        }
                        if left {
                            expected.push(l);
                        }
                        Step::Parent(Parent { node, pair: (l.into(), r.into()) })
                    })
                }
                BaoChunk::Leaf { start_chunk, size: len, is_root, ranges, .. } => {
                    window_len += len;
                    let group = start_chunk.0 / 16;
                    let fragment = match &partial {
                        Some(partial) if !has_group(&partial.runs, group) => partial
                            .fragments
                            .iter()
                            .find(|fragment| fragment.group == group)
                            .cloned()
                            .map(Some)
                            .ok_or_else(|| not_found("blobs.read", hash).with("offset", group * GROUP_LEN)),
                        _ => Ok(None),
                    };
                    fragment.map(|fragment| Step::Leaf(Group {
                        offset: start_chunk.to_bytes(),
                        len,
                        is_root,
                        expected: cv,
                        ranges: (!ranges.is_all()).then(|| ChunkRanges::new_unchecked(ranges.boundaries().into())),
                        fragment,
                    }))
                }
            };
            match step {
                Ok(step) => steps.push(step),
                Err(error) => {
                    // The data before it can be read.
                    if !steps.is_empty() {
                        yield Window { payload, steps: std::mem::take(&mut steps) };
                    }
                    Err(error)?;
                }
            }
            if window_len as u64 >= WINDOW_LEN || steps.len() >= WINDOW_ITEMS {
                window_len = 0;
                yield Window { payload, steps: std::mem::take(&mut steps) };
            }
        }
        if !steps.is_empty() {
            yield Window { payload, steps };
        }
    }
}

impl Partial {
    /// Returns true if any part of these groups is here.
    fn touches(&self, start: u64, groups: u64) -> bool {
        let end = start + groups;
        let at = self.runs.partition_point(|run| run.1 <= start);
        let whole = self.runs.get(at).is_some_and(|run| run.0 < end);
        whole
            || self
                .fragments
                .iter()
                .any(|fragment| (start..end).contains(&fragment.group))
    }
}

impl Group {
    /// Returns the end of the bytes to read, if `data` at `offset` contains them.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.len as u64
    }

    /// Checks the group's bytes, and appends the requested items of the encoding.
    pub(crate) fn verify(&self, hash: Hash, data: Bytes, out: &mut Vec<Encoded>) -> Result<()> {
        let walk = Walk {
            hash,
            offset: self.offset,
            data: &data,
            fragment: self.fragment.as_ref(),
        };
        walk.run(self.expected, self.is_root, self.ranges.as_ref(), out)
    }
}

/// Reads nodes of an outboard by blocks, and caches the last few blocks.
struct OutboardBlocks<'a> {
    inner: &'a Inner,
    hash: Hash,
    stored: &'a Stored,
    blocks: Vec<(u64, Bytes)>,
}

impl<'a> OutboardBlocks<'a> {
    fn new(inner: &'a Inner, hash: Hash, stored: &'a Stored) -> Self {
        Self {
            inner,
            hash,
            stored,
            blocks: Vec::new(),
        }
    }

    /// Returns the verified child hashes of the node over `groups` groups from `start`.
    async fn pair(&mut self, start: u64, groups: u64, cv: Cv, is_root: bool) -> Result<(Cv, Cv)> {
        let damaged = || damaged_tree(self.hash, start * GROUP_LEN);
        let at = pair_index(start, groups);
        let index = at * PAIR_LEN / self.inner.block_len;
        let begin = index * self.inner.block_len;
        let block = match self.blocks.iter().position(|block| block.0 == index) {
            Some(found) => {
                self.blocks[..=found].rotate_right(1);
                self.blocks[0].1.clone()
            }
            None => {
                let end = (begin + self.inner.block_len).min(outboard_len(self.stored.size));
                let read = self.inner.read_outboard(self.hash, self.stored, begin..end);
                let block = match read.await {
                    Ok(block) => block,
                    Err(error) if error.kind() == Kind::Corrupt => {
                        return Err(damaged().because(error));
                    }
                    Err(error) => return Err(error),
                };
                self.blocks.truncate(OUTBOARD_BLOCKS - 1);
                self.blocks.insert(0, (index, block.clone()));
                block
            }
        };
        let (left, right) = split(&block, at - begin / PAIR_LEN).ok_or_else(damaged)?;
        if hash_pair(&left, &right, is_root) != cv {
            return Err(damaged());
        }
        Ok((left, right))
    }
}

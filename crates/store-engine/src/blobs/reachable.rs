//! The blobs that roots keep alive: followed through hash sequences, as far as they are here.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use larder_store_api::{GROUP_LEN, Result};

use super::{Blobs, Inner, entry::State, tree::group_count};
use crate::{Format, Hash, MAX_TREE_SEQUENCE_LEN, Root};

/// A hash sequence to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sequence {
    hash: Hash,
    /// True for a sequence of a tree: a longer one than any valid one names nothing.
    is_of_tree: bool,
}

/// The blobs that some roots keep alive. It takes memory for the hash of each.
#[derive(Debug)]
pub struct Reachable {
    inner: Arc<Inner>,
    live: HashSet<Hash>,
    /// Hash sequences, and how deep what they name is live: a greater depth marks all that a lesser
    /// one does.
    sequences: HashMap<Sequence, u8>,
    /// Sequences that were not all here when they were read.
    gaps: HashSet<Sequence>,
}

impl Blobs {
    /// Nothing marked yet.
    pub fn reachable(&self) -> Reachable {
        Reachable::new(self.0.clone())
    }
}

impl Reachable {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            inner,
            live: HashSet::new(),
            sequences: HashMap::new(),
            gaps: HashSet::new(),
        }
    }

    /// Returns true if a root that was added keeps this blob, as far as the blobs that name it were
    /// here.
    pub fn contains(&self, hash: &Hash) -> bool {
        self.live.contains(hash)
    }

    /// Returns true if a blob that names others was not all here: then more may be reachable than is marked.
    pub fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// Marks what a root keeps, as far as it is here; what is not here is not an error.
    pub async fn add(&mut self, root: Root) -> Result<()> {
        self.live.insert(root.hash);
        let mut waiting = Vec::new();
        let sequence = Sequence {
            hash: root.hash,
            is_of_tree: matches!(root.format, Format::Tree { .. }),
        };
        self.deepen(sequence, root.format.depth(), &mut waiting);
        self.follow(waiting).await
    }

    /// Looks again at the sequences of which something was not here.
    pub async fn look_again(&mut self) -> Result<()> {
        for gap in std::mem::take(&mut self.gaps) {
            if let Err(error) = self.follow_again(gap).await {
                self.gaps.insert(gap);
                return Err(error);
            }
        }
        Ok(())
    }

    /// A blob gained content: as a sequence it may name more.
    pub(super) async fn has_changed(&mut self, hash: Hash) -> Result<()> {
        for is_of_tree in [false, true] {
            self.follow_again(Sequence { hash, is_of_tree }).await?;
        }
        Ok(())
    }

    async fn follow_again(&mut self, sequence: Sequence) -> Result<()> {
        match self.sequences.get(&sequence) {
            Some(depth) => self.follow(vec![(sequence, *depth)]).await,
            None => Ok(()),
        }
    }

    /// Notes a sequence to be read, unless it was read to this depth already.
    fn deepen(&mut self, sequence: Sequence, depth: u8, waiting: &mut Vec<(Sequence, u8)>) {
        if depth > self.sequences.get(&sequence).copied().unwrap_or(0) {
            self.sequences.insert(sequence, depth);
            waiting.push((sequence, depth));
        }
    }

    /// Marks what these sequences name, each to its depth.
    async fn follow(&mut self, mut waiting: Vec<(Sequence, u8)>) -> Result<()> {
        while let Some((sequence, depth)) = waiting.pop() {
            // It may have been noted again since, deeper.
            if self.sequences.get(&sequence) == Some(&depth) {
                self.add_children(sequence, depth, &mut waiting).await?;
            }
        }
        Ok(())
    }

    /// Marks what a hash sequence names, as far as it is here.
    async fn add_children(
        &mut self,
        sequence: Sequence,
        depth: u8,
        waiting: &mut Vec<(Sequence, u8)>,
    ) -> Result<()> {
        let Sequence { hash, is_of_tree } = sequence;
        let Some(found) = self.inner.lookup(hash).await? else {
            self.gaps.insert(sequence);
            return Ok(());
        };
        let size = found.entry.size();
        if is_of_tree && size > MAX_TREE_SEQUENCE_LEN {
            return Ok(());
        }
        let runs = match &found.entry.state {
            State::Partial(partial) => {
                self.gaps.insert(sequence);
                partial.runs.clone()
            }
            _ => Vec::from([(0, group_count(size))]),
        };
        for (start, end) in runs {
            let range = start * GROUP_LEN..(end * GROUP_LEN).min(size);
            // Groups are whole multiples of 32 bytes, so no hash crosses a range.
            let mut pieces = self
                .inner
                .clone()
                .read_entry(hash, found.entry.clone(), range);
            let mut rest = Bytes::new();
            let mut first = start == 0;
            while let Some(piece) = pieces.try_next().await? {
                debug_assert!(rest.is_empty());
                let hashes = piece.chunks_exact(32);
                rest = piece.slice_ref(hashes.remainder());
                for hash in hashes {
                    let bytes: [u8; 32] = hash.try_into().expect("chunks of 32 bytes");
                    let child = Hash::from(bytes);
                    self.live.insert(child);
                    if !std::mem::take(&mut first) && depth > 1 {
                        let below = Sequence {
                            hash: child,
                            is_of_tree,
                        };
                        self.deepen(below, depth - 1, waiting);
                    }
                }
            }
        }
        Ok(())
    }
}

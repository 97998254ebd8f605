//! The BLAKE3 tree of a blob, over groups of 16 KiB, and the positions of its nodes in an outboard.
//!
//! An outboard contains the pair of child hashes of every node above the groups, 64 bytes each, in
//! post-order: it can be appended to while a stream is hashed, and the nodes of every subtree are
//! contiguous. The tree is that of the BLAKE3 paper (section 2.1): a node over `n` groups has the
//! greatest power of two below `n` in its left child. bao-tree calls this a post-order outboard with a
//! block size of 16 KiB.

use bao_tree::{ChunkNum, ChunkRanges, TreeNode};
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use larder_store_api::GROUP_LEN;

/// The hash of a subtree: a chaining value of BLAKE3, or for the whole tree the blob's hash.
pub(crate) type Cv = [u8; 32];

/// The length of a node in an outboard.
pub(crate) const PAIR_LEN: u64 = 64;

/// Returns the number of groups of `size` bytes; the empty blob has one, which is empty.
pub(crate) fn group_count(size: u64) -> u64 {
    size.div_ceil(GROUP_LEN).max(1)
}

/// Returns the byte range of group `index` in a blob of `size` bytes.
pub(crate) fn group_range(index: u64, size: u64) -> std::ops::Range<u64> {
    index * GROUP_LEN..((index + 1) * GROUP_LEN).min(size)
}

/// Returns the length of the outboard of `size` bytes.
pub(crate) fn outboard_len(size: u64) -> u64 {
    (group_count(size) - 1) * PAIR_LEN
}

/// Returns the number of a node's `groups` (at least two) that are below its left child.
pub(crate) fn left_groups(groups: u64) -> u64 {
    groups.next_power_of_two() / 2
}

/// Returns the number of pairs before those of the subtree that begins at group `start`.
pub(crate) fn pairs_before(start: u64) -> u64 {
    // The groups before form as many complete subtrees as `start` has one bits, and each subtree has
    // one pair fewer than groups.
    start - u64::from(start.count_ones())
}

/// Returns the index of the pair of the node over `groups` (at least two) groups from `start`.
pub(crate) fn pair_index(start: u64, groups: u64) -> u64 {
    pairs_before(start) + groups - 2
}

/// Returns the first group below a node above the groups, and the number of groups below it.
pub(crate) fn node_groups(node: TreeNode, size: u64) -> (u64, u64) {
    let chunks = node.chunk_range();
    let start = chunks.start.0 / 16;
    let end = chunks.end.0.div_ceil(16).min(group_count(size));
    (start, end.saturating_sub(start))
}

/// Returns the pair at index `at` of `pairs`; `None` if there are not as many.
pub(crate) fn split(pairs: &[u8], at: u64) -> Option<(Cv, Cv)> {
    let at = usize::try_from(at * PAIR_LEN).ok()?;
    let pair = pairs.get(at..at + PAIR_LEN as usize)?;
    Some((pair[..32].try_into().ok()?, pair[32..].try_into().ok()?))
}

/// Clips `ranges` to a blob of `size` bytes. Chunks beyond the end request the last chunk: this is how
/// the protocol asks for a proof of the size. Ranges that include the last chunk are left unbounded, so
/// that the last group comes in one piece.
pub(crate) fn clip(ranges: &ChunkRanges, size: u64) -> ChunkRanges {
    let last = ChunkNum(ChunkNum::chunks(size).0.saturating_sub(1));
    let tail = ChunkRanges::from(last..);
    if (ranges & &tail).is_empty() {
        ranges.clone()
    } else {
        ranges | &tail
    }
}

/// Returns the hash of a group, or of any subtree of BLAKE3 that begins at byte `offset`.
pub(crate) fn hash_subtree(offset: u64, bytes: &[u8], is_root: bool) -> Cv {
    if is_root {
        return *blake3::hash(bytes).as_bytes();
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

/// Returns the hash of a node.
pub(crate) fn hash_pair(left: &Cv, right: &Cv, is_root: bool) -> Cv {
    if is_root {
        *merge_subtrees_root(left, right, Mode::Hash).as_bytes()
    } else {
        merge_subtrees_non_root(left, right, Mode::Hash)
    }
}

/// Hashes a blob group by group, and returns its outboard as it grows.
#[derive(Debug, Default)]
pub(crate) struct TreeBuilder {
    groups: u64,
    size: u64,
    /// The hashes of complete subtrees, greatest first; merged lazily, since only the last merge makes
    /// the root.
    stack: Vec<Cv>,
    outboard: Vec<u8>,
}

impl TreeBuilder {
    /// Adds the next bytes: whole groups, except that the last call may end with a part of one.
    ///
    /// Not for a blob of one group: its hash is that of its bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        for group in bytes.chunks(GROUP_LEN as usize) {
            self.push(hash_subtree(self.size, group, false), group.len() as u64);
        }
    }

    /// Adds the hash of the next group of `len` bytes.
    pub(crate) fn push(&mut self, group: Cv, len: u64) {
        debug_assert!(self.size.is_multiple_of(GROUP_LEN));
        if self.groups > 0 {
            for _ in 0..self.groups.trailing_zeros() {
                self.merge(false);
            }
        }
        self.stack.push(group);
        self.groups += 1;
        self.size += len;
    }

    fn merge(&mut self, is_root: bool) {
        if let (Some(right), Some(left)) = (self.stack.pop(), self.stack.pop()) {
            self.outboard.extend_from_slice(&left);
            self.outboard.extend_from_slice(&right);
            self.stack.push(hash_pair(&left, &right, is_root));
        }
    }

    /// Returns what was added to the outboard, in whole multiples of `len`.
    pub(crate) fn take_outboard(&mut self, len: usize) -> Vec<u8> {
        let rest = self.outboard.len() % len;
        let kept = self.outboard.split_off(self.outboard.len() - rest);
        std::mem::replace(&mut self.outboard, kept)
    }

    /// Returns the blob's hash, its size, and the rest of its outboard.
    pub(crate) fn finish(mut self) -> (Cv, u64, Vec<u8>) {
        while self.stack.len() > 1 {
            let is_root = self.stack.len() == 2;
            self.merge(is_root);
        }
        let root = self.stack.pop().unwrap_or(*blake3::hash(b"").as_bytes());
        (root, self.size, self.outboard)
    }
}

#[cfg(test)]
mod tests {
    use bao_tree::{BaoTree, BlockSize, io::outboard::PostOrderMemOutboard};

    use super::*;

    fn data(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i / 7 % 251) as u8).collect()
    }

    #[test]
    fn the_outboard_is_what_bao_tree_makes() {
        let group = GROUP_LEN as usize;
        for groups in 2..40 {
            for tail in [1, 1024, 1025, group - 1, group] {
                let bytes = data((groups - 1) * group + tail);
                let mut builder = TreeBuilder::default();
                let mut outboard = Vec::new();
                for part in bytes.chunks(3 * group) {
                    builder.update(part);
                    outboard.extend(builder.take_outboard(128));
                }
                let (hash, size, rest) = builder.finish();
                outboard.extend(rest);
                let block_size = BlockSize::from_chunk_log(4);
                let other = PostOrderMemOutboard::create(&bytes, block_size);
                assert_eq!(hash, *other.root.as_bytes());
                assert_eq!(outboard, other.data);
                assert_eq!(size, bytes.len() as u64);
                assert_eq!(outboard.len() as u64, outboard_len(size));
            }
        }
    }

    #[test]
    fn nodes_lie_where_bao_tree_says() {
        for groups in 2..70 {
            let size = groups * GROUP_LEN - 5;
            let tree = BaoTree::new(size, BlockSize::from_chunk_log(4));
            let mut seen = 0;
            for node in tree.pre_order_nodes_iter() {
                let Some(offset) = tree.post_order_offset(node) else {
                    continue;
                };
                let (start, count) = node_groups(node, size);
                assert_eq!(offset.value(), pair_index(start, count));
                seen += 1;
            }
            assert_eq!(seen, groups - 1);
        }
    }
}

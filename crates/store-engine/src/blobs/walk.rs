//! The traversal of one group: the nodes that prove some of its chunks.

use bao_tree::{
    ChunkNum, ChunkRanges, TreeNode,
    io::{Leaf, Parent, mixed::EncodedItem},
};
use bytes::Bytes;
use larder_store_api::Result;

use super::{
    entry::Fragment,
    error::{corrupt, not_found},
    items::Encoded,
    tree::{Cv, hash_pair, hash_subtree},
};
use crate::Hash;

const CHUNK_LEN: u64 = 1024;

/// A group's bytes, and what is known of them.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    pub hash: Hash,
    /// The offset of the group in the blob.
    pub offset: u64,
    pub data: &'a Bytes,
    /// Set if only some chunks are here.
    pub fragment: Option<&'a Fragment>,
}

impl Walk<'_> {
    /// Verifies the chunks of `ranges` (all if `None`) and appends their items: wanted subtrees as one
    /// leaf each, and the nodes above them.
    pub(crate) fn run(
        &self,
        expected: Cv,
        is_root: bool,
        ranges: Option<&ChunkRanges>,
        out: &mut Vec<Encoded>,
    ) -> Result<()> {
        if ranges.is_none() && self.fragment.is_none() {
            return self.whole(expected, is_root, out);
        }
        let chunks = (self.data.len() as u64).div_ceil(CHUNK_LEN).max(1);
        let all = ChunkRanges::all();
        let mut names = Vec::new();
        if chunks > 1 {
            names = nodes_of(ChunkNum(self.offset / CHUNK_LEN), self.data.len());
        }
        let ranges = ranges.unwrap_or(&all);
        let subtree = (0, chunks);
        self.visit(subtree, expected, is_root, ranges, &names, out)
    }

    /// Verifies a group that is complete and wanted as a whole: no node below it is returned.
    fn whole(&self, expected: Cv, is_root: bool, out: &mut Vec<Encoded>) -> Result<()> {
        if hash_subtree(self.offset, self.data, is_root) != expected {
            return Err(corrupt(self.hash, self.offset));
        }
        out.push(Encoded::Leaf(Leaf {
            offset: self.offset,
            data: self.data.clone(),
        }));
        Ok(())
    }

    fn visit(
        &self,
        (start, chunks): (u64, u64),
        expected: Cv,
        is_root: bool,
        ranges: &ChunkRanges,
        names: &[TreeNode],
        out: &mut Vec<Encoded>,
    ) -> Result<()> {
        let at = self.offset / CHUNK_LEN + start;
        let offset = at * CHUNK_LEN;
        let span = ChunkRanges::from(ChunkNum(at)..ChunkNum(at + chunks));
        let wanted = ranges & &span;
        if wanted.is_empty() {
            return Ok(());
        }
        let here = self.has(start, chunks);
        if here && (chunks == 1 || wanted == span) {
            let bytes = self.bytes(start, chunks);
            if hash_subtree(offset, &bytes, is_root) != expected {
                return Err(corrupt(self.hash, offset));
            }
            out.push(Encoded::Leaf(Leaf {
                offset,
                data: bytes,
            }));
            return Ok(());
        }
        let half = chunks.next_power_of_two() / 2;
        let (first, second) = ((start, half), (start + half, chunks - half));
        let (left, right) = match self.node(start, chunks) {
            Some(pair) => pair,
            None if here && chunks > 1 => (self.hash_of(first), self.hash_of(second)),
            None => return Err(not_found("blobs.read", self.hash).with("offset", offset)),
        };
        if hash_pair(&left, &right, is_root) != expected {
            return Err(corrupt(self.hash, offset));
        }
        let level = half.trailing_zeros();
        let named = |node: &&TreeNode| node.chunk_range().start.0 == at && node.level() == level;
        let node = names.iter().find(named);
        out.push(Encoded::Parent(Parent {
            node: *node.expect("every inner subtree of a group has a name"),
            pair: (left.into(), right.into()),
        }));
        self.visit(first, left, false, ranges, names, out)?;
        self.visit(second, right, false, ranges, names, out)
    }

    fn has(&self, start: u64, chunks: u64) -> bool {
        self.fragment.is_none_or(|fragment| {
            (start..start + chunks).all(|chunk| fragment.chunks & (1 << chunk) != 0)
        })
    }

    fn bytes(&self, start: u64, chunks: u64) -> Bytes {
        let cut = |chunk: u64| ((chunk * CHUNK_LEN) as usize).min(self.data.len());
        self.data.slice(cut(start)..cut(start + chunks))
    }

    fn hash_of(&self, (start, chunks): (u64, u64)) -> Cv {
        let offset = self.offset + start * CHUNK_LEN;
        hash_subtree(offset, &self.bytes(start, chunks), false)
    }

    /// Returns the stored pair of the node over `chunks` chunks from `start`.
    fn node(&self, start: u64, chunks: u64) -> Option<(Cv, Cv)> {
        let level = chunks.next_power_of_two().trailing_zeros();
        let nodes = &self.fragment?.nodes;
        nodes
            .iter()
            .find(|node| (u64::from(node.0), u32::from(node.1)) == (start, level))
            .map(|(_, _, [left, right])| (*left, *right))
    }
}

/// Returns the nodes below a group of `len` bytes from chunk `first`, in bao-tree's type.
fn nodes_of(first: ChunkNum, len: usize) -> Vec<TreeNode> {
    let mut items = Vec::new();
    bao_tree::io::mixed::traverse_selected_rec(
        first,
        Bytes::from(vec![0; len]),
        false,
        &ChunkRanges::all(),
        0,
        false,
        &mut items,
    );
    let node = |item| match item {
        EncodedItem::Parent(parent) => Some(parent.node),
        _ => None,
    };
    items.into_iter().filter_map(node).collect()
}

//! Reads the answer to a request: one blob after the other, each verified while it arrives.

use std::{io, time::Duration};

use bao_tree::{
    BaoTree, BlockSize, ChunkRanges,
    io::{Leaf, Parent},
    iter::{BaoChunk, ResponseIter},
};
use bytes::{Bytes, BytesMut};
use larder_store_api::{GROUP_LEN, Result};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use super::fault::Fault;
use crate::{
    Encoded, Hash,
    blobs::tree::{Cv, clip, hash_pair, hash_subtree, split},
};

/// The most bytes that are read from the stream at a time.
const READ_LEN: usize = 256 * 1024;
/// The length of a node of the tree on the wire.
const PAIR_LEN: usize = 64;
const BLOCK_SIZE: BlockSize = BlockSize::from_chunk_log(4);

/// The bytes of a peer's answer: for each blob its size, and the requested parts in the bao encoding
/// with groups of 16 KiB.
pub trait Answer: AsyncRead + Send + Unpin {
    /// Returns true if this size means that the peer does not have the blob. Not called for the empty
    /// blob, whose size is zero.
    fn is_absent(size: u64) -> bool;

    /// Classifies an error of the stream. A premature end is [`io::ErrorKind::UnexpectedEof`].
    fn fault(error: io::Error) -> Fault;

    /// Called with the number of payload bytes that arrived and were verified.
    fn verified(&mut self, bytes: u64) {
        let _ = bytes;
    }
}

/// Receives an answer. Everything that it returns is verified, except sizes.
#[derive(Debug)]
pub struct Receiver<A> {
    answer: A,
    ahead: BytesMut,
    patience: Duration,
}

impl<A: Answer> Receiver<A> {
    /// Makes a receiver for an answer of which nothing was read. A peer that sends nothing for as long
    /// as `patience` counts as stalled.
    pub fn new(answer: A, patience: Duration) -> Self {
        Self {
            answer,
            ahead: BytesMut::new(),
            patience,
        }
    }

    /// Returns the answer's stream.
    pub fn answer(&mut self) -> &mut A {
        &mut self.answer
    }

    /// Reads the size of the next blob, as the peer announces it; `None` if the peer does not have the
    /// blob.
    pub async fn size(&mut self, hash: Hash) -> Result<Option<u64>, Fault> {
        let bytes = self.take(8).await?;
        let size = u64::from_le_bytes(bytes[..].try_into().expect("eight bytes were taken"));
        if hash == Hash::EMPTY {
            return match size {
                0 => Ok(Some(0)),
                _ => Err(Fault::wrong_size(hash, size)),
            };
        }
        match size {
            _ if A::is_absent(size) => Ok(None),
            0 => Err(Fault::wrong_size(hash, size)),
            _ => Ok(Some(size)),
        }
    }

    /// Returns the items of the blob whose [`size`](Self::size) was just read and of which `ranges`
    /// were requested. All of them must be read before the next blob.
    pub fn items(&mut self, hash: Hash, size: u64, ranges: &ChunkRanges) -> Items<'_, A> {
        let ranges = clip(ranges, size);
        let chunks = match size {
            // The empty blob has a size and nothing else.
            0 => None,
            _ => Some(ResponseIter::new(BaoTree::new(size, BLOCK_SIZE), ranges)),
        };
        Items {
            receiver: self,
            hash,
            chunks,
            expected: vec![*hash.as_bytes()],
        }
    }

    /// Reads exactly `len` bytes, at most a group.
    async fn take(&mut self, len: usize) -> Result<Bytes, Fault> {
        while self.ahead.len() < len {
            self.fill().await?;
        }
        Ok(self.ahead.split_to(len).freeze())
    }

    /// Reads the bytes that have arrived, at least one.
    async fn fill(&mut self) -> Result<(), Fault> {
        if self.ahead.capacity() - self.ahead.len() < GROUP_LEN as usize {
            self.ahead.reserve(READ_LEN);
        }
        let read = self.answer.read_buf(&mut self.ahead);
        match timeout(self.patience, read).await {
            Err(_) => Err(Fault::stalls()),
            Ok(Ok(0)) => Err(A::fault(io::ErrorKind::UnexpectedEof.into())),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(A::fault(error)),
        }
    }
}

/// The items of one blob, in the order of its encoding.
pub struct Items<'a, A> {
    receiver: &'a mut Receiver<A>,
    hash: Hash,
    chunks: Option<ResponseIter>,
    /// The hashes of the subtrees to come, the next one last.
    expected: Vec<Cv>,
}

impl<A> std::fmt::Debug for Items<'_, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Items")
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

impl<A: Answer> Items<'_, A> {
    /// Reads and verifies the next item; `None` after the last. After an error, or if the call was
    /// cancelled, the answer cannot be read further.
    pub async fn next(&mut self) -> Result<Option<Encoded>, Fault> {
        let Some(chunk) = self.chunks.as_mut().and_then(Iterator::next) else {
            return Ok(None);
        };
        let expected = self.expected.pop();
        let expected = expected.expect("the parent of an item pushed its hash");
        match chunk {
            BaoChunk::Parent {
                node,
                is_root,
                left,
                right,
                ..
            } => {
                let pair = self.receiver.take(PAIR_LEN).await?;
                let (l, r) = split(&pair, 0).expect("the bytes of a pair were taken");
                if hash_pair(&l, &r, is_root) != expected {
                    let offset = node.chunk_range().start.to_bytes();
                    return Err(Fault::lie(self.hash, offset));
                }
                if right {
                    self.expected.push(r);
                }
                if left {
                    self.expected.push(l);
                }
                let pair = (l.into(), r.into());
                Ok(Some(Encoded::Parent(Parent { node, pair })))
            }
            BaoChunk::Leaf {
                start_chunk,
                size,
                is_root,
                ..
            } => {
                let data = self.receiver.take(size).await?;
                let offset = start_chunk.to_bytes();
                if hash_subtree(offset, &data, is_root) != expected {
                    return Err(Fault::lie(self.hash, offset));
                }
                self.receiver.answer.verified(size as u64);
                Ok(Some(Encoded::Leaf(Leaf { offset, data })))
            }
        }
    }
}

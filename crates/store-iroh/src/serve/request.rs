//! Reads a peer's request, with bounds that iroh-blobs' own reading lacks, before it is handed on.
//!
//! Its decoder takes time that grows with the square of a range's length, and its provider steps
//! through the children that a request skips one by one: a few bytes from a stranger could occupy a
//! thread for good. So the request is first read as plain numbers.

use bytes::Bytes;
use iroh::endpoint::RecvStream;
use larder_store_engine::Hash;
use serde::Deserialize;
use tokio::sync::Semaphore;

/// Longer requests are few: those for many scattered ranges.
const SHORT_LEN: usize = 64 * 1024;

/// The longest request: what iroh-blobs allows too.
const MAX_REQUEST_LEN: usize = iroh_blobs::protocol::MAX_MESSAGE_SIZE;

/// The most boundaries of the ranges that one request may name in one blob.
pub(super) const MAX_BOUNDARIES: usize = 8192;

/// The most children of a hash sequence that a request may skip or name.
pub(super) const MAX_OFFSET: u64 = 1 << 24;

/// A peer's request, as far as a permission depends on it, and its bytes as they arrived.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) asked: Asked,
    pub(super) bytes: Bytes,
}

/// The blobs that a peer asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Bytes of one blob, or where it is complete.
    Blob(Hash),
    /// Bytes of what a hash sequence names, and perhaps of itself.
    HashSeq(Hash),
    /// Bytes of several blobs.
    Blobs(Vec<Hash>),
}

/// The reason why there is no request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoRequest {
    /// The peer wants to write here.
    Push,
    /// Not a request of this protocol, or one beyond the bounds.
    Malformed,
    /// It did not come, or not in time.
    Gone,
}

/// As on the wire: the first byte says which of them follows.
const GET: u8 = 0;
const OBSERVE: u8 = 1;
const PUSH: u8 = 8;
const GET_MANY: u8 = 9;

/// Pairs of how many children further, and ranges; ranges as lengths that are left out and taken by
/// turns.
#[derive(Deserialize)]
struct Ranges(Vec<(u64, Vec<u64>)>);

impl Ranges {
    /// Returns true if the request reaches beyond the first blob; `None` if the bounds are
    /// exceeded.
    fn reach_children(&self) -> Option<bool> {
        let mut offset = 0_u64;
        let mut reach = false;
        let last = self.0.len().checked_sub(1);
        for (i, (skip, spec)) in self.0.iter().enumerate() {
            offset = offset.checked_add(*skip)?;
            if offset > MAX_OFFSET || spec.len() > MAX_BOUNDARIES {
                return None;
            }
            // A run lasts until the next begins, and the last for ever.
            let beyond = offset > 0 || Some(i) == last || self.0[i + 1].0 > 1;
            reach |= !spec.is_empty() && beyond;
        }
        Some(reach)
    }
}

impl Request {
    /// Reads the one request of a stream. A long one takes one of `long` while it is read.
    pub(super) async fn read(recv: &mut RecvStream, long: &Semaphore) -> Result<Self, NoRequest> {
        let mut bytes = Vec::new();
        let mut permit = None;
        while let Some(chunk) = recv
            .read_chunk(SHORT_LEN)
            .await
            .map_err(|_| NoRequest::Gone)?
        {
            bytes.extend_from_slice(&chunk);
            if bytes[0] == PUSH {
                return Err(NoRequest::Push);
            }
            if bytes.len() > MAX_REQUEST_LEN {
                return Err(NoRequest::Malformed);
            }
            if bytes.len() > SHORT_LEN && permit.is_none() {
                permit = Some(long.acquire().await.map_err(|_| NoRequest::Gone)?);
            }
        }
        Self::parse(bytes)
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, NoRequest> {
        let asked = Self::asked(&bytes).ok_or(NoRequest::Malformed)?;
        Ok(Self {
            asked,
            bytes: bytes.into(),
        })
    }

    pub(super) fn asked(bytes: &[u8]) -> Option<Asked> {
        let (&kind, rest) = bytes.split_first()?;
        match kind {
            GET => {
                let (hash, ranges): ([u8; 32], Ranges) = postcard::from_bytes(rest).ok()?;
                let hash = Hash::from(hash);
                Some(if ranges.reach_children()? {
                    Asked::HashSeq(hash)
                } else {
                    Asked::Blob(hash)
                })
            }
            OBSERVE => {
                let (hash, spec): ([u8; 32], Vec<u64>) = postcard::from_bytes(rest).ok()?;
                (spec.len() <= MAX_BOUNDARIES).then(|| Asked::Blob(Hash::from(hash)))
            }
            GET_MANY => {
                let (hashes, ranges): (Vec<[u8; 32]>, Ranges) = postcard::from_bytes(rest).ok()?;
                ranges.reach_children()?;
                Some(Asked::Blobs(hashes.into_iter().map(Hash::from).collect()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use bao_tree::{ChunkNum, ChunkRanges};
    use iroh_blobs::protocol::{
        ChunkRangesSeq, GetManyRequest, GetRequest, ObserveRequest, Request as IrohRequest,
    };

    use super::*;
    use crate::convert::to_iroh_hash;

    fn asked(request: impl Into<IrohRequest>) -> Option<Asked> {
        let bytes = postcard::to_stdvec(&request.into()).expect("a request has bytes");
        Request::asked(&bytes)
    }

    #[test]
    fn says_what_is_asked_for() {
        let hash = Hash::of(b"root");
        let iroh = to_iroh_hash(hash);
        let some = ChunkRanges::from(ChunkNum(1)..ChunkNum(3));
        let blob = Some(Asked::Blob(hash));
        let seq = Some(Asked::HashSeq(hash));
        assert_eq!(asked(GetRequest::blob(iroh)), blob);
        assert_eq!(asked(GetRequest::blob_ranges(iroh, some.clone())), blob);
        assert_eq!(asked(GetRequest::new(iroh, ChunkRangesSeq::empty())), blob);
        assert_eq!(asked(GetRequest::all(iroh)), seq);
        for child in [0, 1, 5] {
            let request = GetRequest::builder().child(child, some.clone());
            assert_eq!(asked(request.build(iroh)), seq, "child {child}");
        }
        let both = GetRequest::builder().root(some.clone()).child(7, some);
        assert_eq!(asked(both.build(iroh)), seq);
        assert_eq!(asked(ObserveRequest::new(iroh)), blob);
        let many = GetManyRequest::from_iter([iroh]);
        assert_eq!(asked(many), Some(Asked::Blobs(vec![hash])));
    }

    #[test]
    fn what_would_occupy_a_thread_is_malformed() {
        let far = |skip: u64| {
            let mut bytes = vec![GET];
            bytes.extend([7; 32]);
            let spec: Vec<(u64, Vec<u64>)> = vec![(skip, vec![0])];
            bytes.extend(postcard::to_stdvec(&spec).expect("numbers have bytes"));
            Request::asked(&bytes)
        };
        assert!(far(MAX_OFFSET).is_some());
        assert_eq!(far(MAX_OFFSET + 1), None);
        assert_eq!(far(u64::MAX), None);
        let long = |boundaries: usize| {
            let mut bytes = vec![OBSERVE];
            bytes.extend([7; 32]);
            let spec = vec![1_u64; boundaries];
            bytes.extend(postcard::to_stdvec(&spec).expect("numbers have bytes"));
            Request::asked(&bytes)
        };
        assert!(long(MAX_BOUNDARIES).is_some());
        assert_eq!(long(MAX_BOUNDARIES + 1), None);
    }

    #[test]
    fn garbage_is_malformed() {
        assert_eq!(Request::asked(&[]), None);
        assert_eq!(Request::asked(&[GET, 1, 2, 3]), None);
        assert_eq!(Request::asked(&[77; 100]), None);
    }
}

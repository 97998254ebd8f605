//! The requests of peers, and the answers to them.

use bytes::{BufMut, Bytes, BytesMut};
use larder_store_api::{Error, Kind, PublicKey, RecordId, Result};
use larder_store_engine::{ChunkNum, ChunkRanges, Hash};
use serde::{Deserialize, Serialize};

use super::{READ, WRITE};
use crate::{codec::Fields, root::MAX_LEVEL};

/// The most ranges that a get may ask for, over all blobs; a blob of which nothing or everything is
/// requested counts as one range too.
pub(in crate::replicate) const MAX_RANGES: usize = 4096;

/// A peer's request for a page of a tree, or for blobs that the page names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Get {
    /// The group.
    pub group: RecordId,
    /// The key of the repo whose tree it is.
    pub repo: PublicKey,
    /// The sequences of pages from the root down; the request is for content of the last one. Each
    /// names the next, which proves the asker's right to it.
    pub chain: Vec<Hash>,
    /// The chunks of the last sequence (0) and of the blobs that it names (from 1), ascending.
    pub ranges: Vec<(u64, ChunkRanges)>,
}

/// The request of iroh-blobs 0.104.
#[derive(Serialize, Deserialize)]
struct GetRequest {
    hash: [u8; 32],
    /// Ascending offsets, each with the alternating widths of skipped and requested chunks.
    ranges: Vec<(u64, Vec<u64>)>,
}

/// The tag that iroh-blobs uses for a get among its requests.
const IROH_GET: u8 = 0;

impl Get {
    /// Returns the encoded request.
    pub fn encode(&self) -> Result<Bytes> {
        let Some(hash) = self.chain.last() else {
            return Err(Error::new(Kind::Invalid, WRITE, "a request names a page"));
        };
        let mut bytes = BytesMut::new();
        bytes.put_slice(&self.group.0);
        bytes.put_slice(&self.repo.0);
        let depth = u8::try_from(self.chain.len()).ok();
        bytes.put_u8(
            depth
                .filter(|depth| *depth <= MAX_LEVEL + 1)
                .ok_or_else(|| Error::new(Kind::Invalid, WRITE, "a tree is not that deep"))?,
        );
        for page in &self.chain {
            bytes.put_slice(page.as_bytes());
        }
        bytes.put_u8(IROH_GET);
        let request = GetRequest {
            hash: *hash.as_bytes(),
            ranges: to_wire(&self.ranges),
        };
        let request = postcard::to_stdvec(&request).map_err(|error| {
            Error::new(Kind::Internal, WRITE, "a request cannot be written").because(error)
        })?;
        bytes.put_slice(&request);
        Ok(bytes.freeze())
    }

    /// Decodes a request from all of these bytes; [`Kind::Invalid`] if it is malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(READ, bytes);
        let group = RecordId(fields.take()?);
        let repo = PublicKey(fields.take()?);
        let depth = fields.u8()?;
        if depth == 0 || depth > MAX_LEVEL + 1 {
            return Err(fields.invalid("a tree is not that deep"));
        }
        let mut chain = Vec::with_capacity(depth.into());
        for _ in 0..depth {
            chain.push(Hash::from(fields.take::<32>()?));
        }
        if fields.u8()? != IROH_GET {
            return Err(fields.invalid("only gets are answered"));
        }
        let wrong = fields.invalid("the request cannot be read");
        let (request, rest) = postcard::take_from_bytes::<GetRequest>(fields.rest())
            .map_err(|error| wrong.clone().because(error))?;
        let hash = Hash::from(request.hash);
        if !rest.is_empty() || chain.last() != Some(&hash) {
            return Err(wrong);
        }
        let ranges = from_wire(request.ranges).ok_or(wrong)?;
        Ok(Self {
            group,
            repo,
            chain,
            ranges,
        })
    }
}

fn to_wire(ranges: &[(u64, ChunkRanges)]) -> Vec<(u64, Vec<u64>)> {
    // iroh repeats the last ranges for all blobs that follow, so the end must be stated.
    let mut all: Vec<(u64, Vec<u64>)> = Vec::new();
    let mut next = 0;
    let mut last: Vec<u64> = Vec::new();
    let mut push = |at: u64, widths: Vec<u64>, last: &mut Vec<u64>| {
        if widths != *last {
            all.push((at, widths.clone()));
            *last = widths;
        }
    };
    for (at, ranges) in ranges {
        if *at > next {
            push(next, Vec::new(), &mut last);
        }
        let mut before = 0;
        let widths = ranges.boundaries().iter().map(|bound| {
            let width = bound.0 - before;
            before = bound.0;
            width
        });
        push(*at, widths.collect(), &mut last);
        next = at + 1;
    }
    push(next, Vec::new(), &mut last);
    let mut before = 0;
    for (at, _) in &mut all {
        (*at, before) = (*at - before, *at);
    }
    all
}

fn from_wire(wire: Vec<(u64, Vec<u64>)>) -> Option<Vec<(u64, ChunkRanges)>> {
    let mut all = Vec::new();
    let mut at = 0_u64;
    let mut wire = wire.into_iter().enumerate().peekable();
    let mut count = 0;
    while let Some((i, (delta, widths))) = wire.next() {
        if i > 0 && delta == 0 {
            return None;
        }
        at = at.checked_add(delta)?;
        count += widths.len() + 1;
        if count > MAX_RANGES {
            return None;
        }
        let mut ranges = ChunkRanges::empty();
        let mut bound = 0_u64;
        let mut start = None;
        for (i, width) in widths.iter().enumerate() {
            if i > 0 && *width == 0 {
                return None;
            }
            bound = bound.checked_add(*width)?;
            start = match start {
                None => Some(bound),
                Some(start) => {
                    ranges |= ChunkRanges::from(ChunkNum(start)..ChunkNum(bound));
                    None
                }
            };
        }
        if let Some(start) = start {
            ranges |= ChunkRanges::from(ChunkNum(start)..);
        }
        if ranges.is_empty() {
            continue;
        }
        // A page is not infinite, so endless repetition is invalid; each repetition counts towards the
        // limit.
        let (_, (next, _)) = wire.peek()?;
        let again = usize::try_from(next.saturating_sub(1)).ok()?;
        count = count.saturating_add(again.saturating_mul(widths.len() + 1));
        if count > MAX_RANGES {
            return None;
        }
        for offset in 0..*next {
            all.push((at.checked_add(offset)?, ranges.clone()));
        }
    }
    Some(all)
}

/// The answer to a get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::replicate) enum Answer {
    Here,
    NotHere,
    Denied,
}

impl Answer {
    pub(in crate::replicate) fn encode(self) -> u8 {
        match self {
            Self::Here => 0,
            Self::NotHere => 1,
            Self::Denied => 2,
        }
    }

    pub(in crate::replicate) fn decode(byte: u8) -> Result<Self> {
        match byte {
            0 => Ok(Self::Here),
            1 => Ok(Self::NotHere),
            2 => Ok(Self::Denied),
            other => {
                let message = "the type of the peer's answer is unknown";
                Err(Error::new(Kind::Invalid, READ, message).with("answer", other))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*, sample};

    use super::*;

    fn ranges(bounds: &[u64]) -> ChunkRanges {
        let mut ranges = ChunkRanges::empty();
        for pair in bounds.chunks(2) {
            ranges |= match pair {
                [start, end] => ChunkRanges::from(ChunkNum(*start)..ChunkNum(*end)),
                [start] => ChunkRanges::from(ChunkNum(*start)..),
                _ => unreachable!("chunks of two"),
            };
        }
        ranges
    }

    fn get() -> Get {
        Get {
            group: RecordId([1; 32]),
            repo: PublicKey([2; 32]),
            chain: vec![Hash::of("a"), Hash::of("b")],
            ranges: vec![
                (0, ChunkRanges::all()),
                (1, ChunkRanges::all()),
                (5, ranges(&[0, 8192])),
                (6, ranges(&[16, 32, 64])),
                (9, ranges(&[0, 8192])),
            ],
        }
    }

    #[test]
    fn gets_are_read_as_they_were_written() {
        let get = get();
        assert_eq!(Get::decode(&get.encode().unwrap()).unwrap(), get);
    }

    #[test]
    fn the_layout_is_pinned() {
        let page = Get {
            ranges: vec![(0, ChunkRanges::all()), (1, ChunkRanges::all())],
            ..get()
        };
        let gets = [get(), page].map(|get| get.encode().unwrap());
        crate::golden::check_hex("gets.hex", &gets.each_ref().map(|get| &get[..]));
    }

    #[test]
    fn what_is_asked_of_without_end_is_refused() {
        for wire in [
            vec![(0, vec![0])],
            vec![(0, vec![0]), (MAX_RANGES as u64 / 2 + 1, vec![])],
            vec![(0, vec![0]), (u64::MAX, vec![])],
            vec![(0, vec![0]), (0, vec![])],
            vec![(u64::MAX, vec![0]), (1, vec![])],
            vec![(0, vec![1, 0]), (1, vec![])],
            vec![(0, vec![1, u64::MAX]), (1, vec![])],
            // Small requests that ask for a lot: often, and in many parts.
            (0..10)
                .map(|n| (1000, vec![n % 2]))
                .chain([(1, vec![])])
                .collect(),
            vec![(0, vec![1; 2000]), (1000, vec![])],
        ] {
            assert!(from_wire(wire.clone()).is_none(), "{wire:?}");
        }
    }

    #[test]
    fn what_is_said_in_two_parts_may_be_said_in_one() {
        let wire = vec![(0, vec![2, 2]), (1, vec![2, 2]), (1024, vec![])];
        let all = from_wire(wire).unwrap();
        assert_eq!(all.len(), 1025);
        assert_eq!(to_wire(&all), [(0, vec![2, 2]), (1025, vec![])]);
        assert_eq!(from_wire(to_wire(&all)).unwrap(), all);
    }

    /// Nothing, everything, a part, and everything from some chunk on.
    const WIDTHS: [&[u64]; 4] = [&[], &[0], &[2, 2], &[0, 3, 1]];

    proptest! {
        #[test]
        fn what_can_be_read_can_be_written(
            widths in collection::vec(sample::select(&WIDTHS[..]), 0..6),
            deltas in collection::vec(0..1500_u64, 7),
        ) {
            let widths = widths.into_iter().chain([&[][..]]).map(<[u64]>::to_vec);
            let wire = deltas.into_iter().zip(widths).collect();
            if let Some(all) = from_wire(wire) {
                prop_assert_eq!(from_wire(to_wire(&all)), Some(all));
            }
        }

        #[test]
        fn any_bytes_are_a_get_or_refused(tail: Vec<u8>, flip in 0..200_usize) {
            let mut bytes = get().encode().unwrap().to_vec();
            let at = flip % bytes.len();
            bytes.truncate(at);
            bytes.extend(tail);
            // This must not panic, nor allocate memory for lengths that are only claimed.
            drop(Get::decode(&bytes));
        }
    }
}

//! A blob's entry in the index: what is stored of it, and where.
//!
//! ```text
//! version u8 = 1 · kind u8 · added u64 (milliseconds since 1970) · then by kind
//!   0 inline    the bytes themselves, at most 16 KiB
//!   1 complete  size u64 · payload [16] · outboard
//!   2 partial   size u64 · payload [16] · outboard · postcard of the verified groups and fragments
//! ```
//! Integers are little-endian. The outboard is here where it has at most 4 KiB, with zeros for nodes
//! that are not known; a longer one is a part of the payload, and nothing here.

use bao_tree::{ChunkNum, ChunkRanges};
use bytes::{BufMut, Bytes, BytesMut};
use larder_store_api::{Error, GROUP_LEN, Kind, PayloadId, Result, Revision};
use serde::{Deserialize, Serialize};

use super::{
    bitfield::Bitfield,
    tree::{group_count, outboard_len},
};
use crate::Hash;

const VERSION: u8 = 1;
const INLINE: u8 = 0;
const COMPLETE: u8 = 1;
const PARTIAL: u8 = 2;
const HEAD_LEN: usize = 10;
/// The longest outboard that an entry holds: that of a blob of 1 MiB and a group.
pub(crate) const MAX_INLINE_OUTBOARD: u64 = 4096;

/// The most runs of verified groups that an entry keeps; of more, the shortest are forgotten and
/// fetched again.
pub(crate) const MAX_RUNS: usize = 4096;
/// The most incomplete groups of which an entry keeps chunks.
pub(crate) const MAX_FRAGMENTS: usize = 64;

/// The stored facts about a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlobEntry {
    /// The time at which the blob was added, in milliseconds since 1970: collection spares young
    /// blobs.
    pub added: u64,
    pub state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    Inline(Bytes),
    Complete(Stored),
    Partial(Partial),
}

/// The place of the bytes of a blob and its hash tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub size: u64,
    pub payload: PayloadId,
    /// The outboard where it is short; a longer one is a part of the payload.
    pub outboard: Option<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partial {
    pub stored: Stored,
    /// The verified groups, as sorted runs `start..end`.
    pub runs: Vec<(u64, u64)>,
    /// Verified parts of groups that are not whole.
    pub fragments: Vec<Fragment>,
}

/// The verified chunks of a group that is not whole, and the nodes that prove them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fragment {
    pub group: u64,
    /// Bit `i` is the group's chunk `i` of 1 KiB.
    pub chunks: u16,
    /// Nodes below the group: first chunk within the group, level (1 is two chunks), child hashes.
    pub nodes: Vec<(u8, u8, [[u8; 32]; 2])>,
}

#[derive(Serialize, Deserialize)]
struct Verified {
    runs: Vec<(u64, u64)>,
    fragments: Vec<Fragment>,
}

/// An entry as it stands in the index.
#[derive(Debug, Clone)]
pub(crate) struct Indexed {
    pub entry: BlobEntry,
    pub revision: Revision,
}

impl BlobEntry {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(match &self.state {
            State::Inline(bytes) => HEAD_LEN + bytes.len(),
            State::Complete(stored) | State::Partial(Partial { stored, .. }) => {
                HEAD_LEN + 64 + stored.outboard.as_ref().map_or(0, Bytes::len)
            }
        });
        out.put_u8(VERSION);
        out.put_u8(match &self.state {
            State::Inline(_) => INLINE,
            State::Complete(_) => COMPLETE,
            State::Partial(_) => PARTIAL,
        });
        out.put_u64_le(self.added);
        if let Some(stored) = self.stored() {
            out.put_u64_le(stored.size);
            out.put_slice(&stored.payload.0);
            out.put_slice(stored.outboard.as_deref().unwrap_or_default());
        }
        match &self.state {
            State::Inline(bytes) => out.put_slice(bytes),
            State::Complete(_) => {}
            State::Partial(partial) => {
                let verified = Verified {
                    runs: partial.runs.clone(),
                    fragments: partial.fragments.clone(),
                };
                let bytes = postcard::to_allocvec(&verified)
                    .expect("vectors of integers and arrays always encode");
                out.put_slice(&bytes);
            }
        }
        out.freeze()
    }

    /// Reads an entry; `hash` is for the error alone.
    pub(crate) fn decode(hash: Hash, bytes: &Bytes) -> Result<Self> {
        Self::parse(bytes).ok_or_else(|| {
            let newer = bytes.first().is_some_and(|version| *version > VERSION);
            if newer {
                Error::new(
                    Kind::Unsupported,
                    "blobs.entry",
                    "the entry was written by a newer version: update",
                )
            } else {
                Error::new(Kind::Corrupt, "blobs.entry", "the entry cannot be read")
            }
            .with("hash", hash)
        })
    }

    fn parse(bytes: &Bytes) -> Option<Self> {
        let head = bytes.get(..HEAD_LEN)?;
        if head[0] != VERSION {
            return None;
        }
        let added = u64::from_le_bytes(head[2..].try_into().ok()?);
        let state = match head[1] {
            INLINE if bytes.len() as u64 <= HEAD_LEN as u64 + GROUP_LEN => {
                State::Inline(bytes.slice(HEAD_LEN..))
            }
            COMPLETE => {
                let (stored, rest) = Stored::parse(&bytes.slice(HEAD_LEN..))?;
                if !rest.is_empty() {
                    return None;
                }
                State::Complete(stored)
            }
            PARTIAL => {
                let (stored, rest) = Stored::parse(&bytes.slice(HEAD_LEN..))?;
                let (verified, rest) = postcard::take_from_bytes::<Verified>(&rest).ok()?;
                let groups = group_count(stored.size);
                let mut last = 0;
                for (start, end) in &verified.runs {
                    if start >= end || *end > groups || (*start < last) {
                        return None;
                    }
                    last = *end;
                }
                if !rest.is_empty() || verified.fragments.iter().any(|f| f.group >= groups) {
                    return None;
                }
                State::Partial(Partial {
                    stored,
                    runs: verified.runs,
                    fragments: verified.fragments,
                })
            }
            _ => return None,
        };
        Some(Self { added, state })
    }

    pub(crate) fn size(&self) -> u64 {
        match &self.state {
            State::Inline(bytes) => bytes.len() as u64,
            State::Complete(stored) | State::Partial(Partial { stored, .. }) => stored.size,
        }
    }

    /// Returns the place of the blob's bytes; `None` if they are in the entry.
    pub(crate) fn stored(&self) -> Option<&Stored> {
        match &self.state {
            State::Inline(_) => None,
            State::Complete(stored) | State::Partial(Partial { stored, .. }) => Some(stored),
        }
    }

    pub(crate) fn payload(&self) -> Option<PayloadId> {
        self.stored().map(|stored| stored.payload)
    }

    pub(crate) fn bitfield(&self) -> Bitfield {
        match &self.state {
            State::Partial(partial) => partial.bitfield(),
            _ => Bitfield::complete(self.size()),
        }
    }
}

/// Returns true where the outboard of a blob of `size` bytes is in its entry.
pub(crate) fn is_outboard_inline(size: u64) -> bool {
    outboard_len(size) <= MAX_INLINE_OUTBOARD
}

impl Stored {
    /// Reads it, and returns what follows.
    fn parse(bytes: &Bytes) -> Option<(Self, Bytes)> {
        let size = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
        let payload = PayloadId(bytes.get(8..24)?.try_into().ok()?);
        let mut rest = bytes.slice(24..);
        let outboard = match is_outboard_inline(size) {
            true => {
                let len = usize::try_from(outboard_len(size)).ok()?;
                (len <= rest.len()).then(|| Some(rest.split_to(len)))?
            }
            false => None,
        };
        let stored = Self {
            size,
            payload,
            outboard,
        };
        Some((stored, rest))
    }
}

impl Partial {
    pub(crate) fn bitfield(&self) -> Bitfield {
        let mut ranges = group_ranges(&self.runs, self.stored.size);
        for fragment in &self.fragments {
            for chunk in 0..16 {
                if fragment.chunks & (1 << chunk) != 0 {
                    let at = fragment.group * 16 + chunk;
                    ranges |= ChunkRanges::from(ChunkNum(at)..ChunkNum(at + 1));
                }
            }
        }
        Bitfield::new(ranges, self.stored.size)
    }
}

/// The chunks of whole groups.
pub(crate) fn group_ranges(runs: &[(u64, u64)], size: u64) -> ChunkRanges {
    let chunks = ChunkNum::chunks(size);
    let mut ranges = ChunkRanges::empty();
    for (start, end) in runs {
        let end = ChunkNum(end * 16).min(chunks);
        ranges |= ChunkRanges::from(ChunkNum(start * 16)..end);
    }
    ranges
}

/// Adds group `group` to sorted runs.
pub(crate) fn add_group(runs: &mut Vec<(u64, u64)>, group: u64) {
    let at = runs.partition_point(|(start, _)| *start <= group);
    if at > 0 && group < runs[at - 1].1 {
        return;
    }
    let joins_left = at > 0 && runs[at - 1].1 == group;
    let joins_right = at < runs.len() && runs[at].0 == group + 1;
    match (joins_left, joins_right) {
        (true, true) => {
            runs[at - 1].1 = runs[at].1;
            runs.remove(at);
        }
        (true, false) => runs[at - 1].1 = group + 1,
        (false, true) => runs[at].0 = group,
        (false, false) => runs.insert(at, (group, group + 1)),
    }
}

/// Returns true if group `group` is in the runs.
pub(crate) fn has_group(runs: &[(u64, u64)], group: u64) -> bool {
    let at = runs.partition_point(|(start, _)| *start <= group);
    at > 0 && group < runs[at - 1].1
}

/// Forgets the shortest runs where there are more than an entry keeps.
pub(crate) fn limit_runs(runs: &mut Vec<(u64, u64)>) {
    if runs.len() > MAX_RUNS {
        let mut by_len = runs.clone();
        by_len.sort_by_key(|(start, end)| std::cmp::Reverse(end - start));
        by_len.truncate(MAX_RUNS);
        by_len.sort_unstable();
        *runs = by_len;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partial() -> BlobEntry {
        BlobEntry {
            added: 7,
            state: State::Partial(Partial {
                stored: Stored {
                    size: 100_000,
                    payload: PayloadId([9; 16]),
                    outboard: Some(Bytes::from(vec![7; 6 * 64])),
                },
                runs: vec![(0, 2), (4, 5)],
                fragments: vec![Fragment {
                    group: 6,
                    chunks: 1,
                    nodes: vec![(0, 1, [[1; 32], [2; 32]])],
                }],
            }),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn the_format_is_pinned() {
        let inline = BlobEntry {
            added: 1,
            state: State::Inline(Bytes::from_static(b"hi")),
        };
        assert_eq!(hex(&inline.encode()), "010001000000000000006869");
        let complete = |size: u64, outboard: Option<&'static [u8]>| BlobEntry {
            added: 258,
            state: State::Complete(Stored {
                size,
                payload: PayloadId([0xab; 16]),
                outboard: outboard.map(Bytes::from_static),
            }),
        };
        let short = complete(65536, Some(&[0xcd; 3 * 64]));
        let expected = format!(
            "010102010000000000000000010000000000abababababababababababababababab{}",
            "cd".repeat(3 * 64)
        );
        assert_eq!(hex(&short.encode()), expected);
        // The longest that has its outboard here, and the shortest that has not.
        let longest = complete(65 * GROUP_LEN, Some(&[0; 4096]));
        assert_eq!(longest.encode().len(), 34 + 4096);
        let shortest = complete(65 * GROUP_LEN + 1, None);
        assert_eq!(shortest.encode().len(), 34);
        for entry in [short, longest, shortest] {
            let again = BlobEntry::decode(Hash::EMPTY, &entry.encode());
            assert_eq!(again.unwrap(), entry);
        }
        let expected = format!(
            "01020700000000000000a086010000000000{}{}020002040501060101{}{}{}",
            "09".repeat(16),
            "07".repeat(6 * 64),
            "0001",
            "01".repeat(32),
            "02".repeat(32)
        );
        assert_eq!(hex(&partial().encode()), expected);
    }

    #[test]
    fn a_newer_entry_is_refused_and_a_garbled_one_is_damage() {
        let hash = Hash::EMPTY;
        let newer = BlobEntry::decode(hash, &Bytes::from_static(&[2; 20])).unwrap_err();
        assert_eq!(newer.kind(), Kind::Unsupported);
        let garbled = BlobEntry::decode(hash, &Bytes::from_static(&[1, 9])).unwrap_err();
        assert_eq!(garbled.kind(), Kind::Corrupt);
    }

    proptest! {
        #[test]
        fn decoding_is_total(mut bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..4u8, len in any::<u16>()) {
            if bytes.len() > 1 {
                bytes[0] = VERSION;
                bytes[1] = kind;
            }
            // Sizes whose outboards are here, too.
            if bytes.len() > HEAD_LEN + 8 {
                bytes[HEAD_LEN..HEAD_LEN + 8].copy_from_slice(&u64::from(len).to_le_bytes());
            }
            let bytes = Bytes::from(bytes);
            if let Ok(entry) = BlobEntry::decode(Hash::EMPTY, &bytes) {
                prop_assert_eq!(BlobEntry::decode(Hash::EMPTY, &entry.encode()).unwrap(), entry);
            }
        }

        #[test]
        fn runs_are_a_set(groups in prop::collection::vec(0..60u64, 0..60)) {
            let mut runs = Vec::new();
            for group in &groups {
                add_group(&mut runs, *group);
            }
            for group in 0..60 {
                prop_assert_eq!(has_group(&runs, group), groups.contains(&group));
            }
            prop_assert!(runs.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }

    #[test]
    fn the_shortest_runs_are_forgotten() {
        let mut runs: Vec<_> = (0..MAX_RUNS as u64 + 5)
            .map(|i| (i * 10, i * 10 + 1))
            .collect();
        runs[7].1 = 75;
        limit_runs(&mut runs);
        assert_eq!(runs.len(), MAX_RUNS);
        assert!(runs.contains(&(70, 75)));
        assert!(runs.is_sorted());
    }
}

//! Statements of a device about what it has seen of the others, against those who show an older state.
//!
//! ```text
//! saw   version u8=1 | time i64 | heads: count u8, id [32] each | repos: count u16, (key [8], seq u64, digest [8])
//! ```

use std::collections::BTreeMap;

use larder_store_api::{PublicKey, Result};

use super::{MAX_AFTER, id::OpId};
use crate::codec::Fields;

/// The most repos of which one value tells; it then fits a slot of 16 KiB.
pub const MAX_SEEN: usize = 630;

const VERSION: u8 = 1;
const DECODE: &str = "membership.saw.decode";

/// The latest that a device has seen of the group: the content of a slot of its owner's record, signed there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Saw {
    /// The time at which it was told, in milliseconds since 1970.
    pub time: i64,
    /// The latest operations, ascending.
    pub heads: Vec<OpId>,
    /// The latest root of each repo, ascending by key.
    pub repos: Vec<SeenRepo>,
}

/// The latest root of a repo that somebody has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeenRepo {
    /// The beginning of the repo's key.
    pub repo: [u8; 8],
    /// The number of the root.
    pub seq: u64,
    /// The beginning of a hash of its signed value.
    pub digest: [u8; 8],
}

/// A repo of which a peer shows less, or something else, than a member has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// The repo.
    pub repo: PublicKey,
    /// The number that the member has seen.
    pub seen: u64,
    /// The number that the peer shows.
    pub shown: u64,
}

impl SeenRepo {
    /// The latest root of a repo: its number, and the value as it is signed.
    pub fn new(repo: PublicKey, seq: u64, signed: &[u8]) -> Self {
        let digest = blake3::hash(signed);
        let begin = |bytes: &[u8; 32]| {
            let [a, b, c, d, e, f, g, h, ..] = *bytes;
            [a, b, c, d, e, f, g, h]
        };
        Self {
            repo: begin(&repo.0),
            seq,
            digest: begin(digest.as_bytes()),
        }
    }
}

impl Saw {
    /// Returns the bytes of the value, of at most [`MAX_SEEN`] repos and [`MAX_AFTER`] heads.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.time.to_be_bytes());
        let heads = &self.heads[..self.heads.len().min(MAX_AFTER)];
        super::body::count(&mut bytes, heads.len());
        for head in heads {
            bytes.extend(head.0);
        }
        let repos = &self.repos[..self.repos.len().min(MAX_SEEN)];
        let count = u16::try_from(repos.len()).unwrap_or(u16::MAX);
        bytes.extend(count.to_be_bytes());
        for seen in repos {
            bytes.extend(seen.repo);
            bytes.extend(seen.seq.to_be_bytes());
            bytes.extend(seen.digest);
        }
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote; anything else is [`Kind::Invalid`](larder_store_api::Kind::Invalid).
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::versioned(DECODE, VERSION, bytes)?;
        let time = fields.i64()?;
        let heads = usize::from(fields.u8()?);
        if heads > MAX_AFTER {
            return Err(fields.invalid("a device names more heads than it may"));
        }
        let heads = (0..heads).map(|_| fields.take().map(OpId));
        let heads = heads.collect::<Result<Vec<_>>>()?;
        let repos = usize::from(fields.u16()?);
        if repos > MAX_SEEN {
            return Err(fields.invalid("a device names more repos than it may"));
        }
        let repos = (0..repos).map(|_| {
            Ok(SeenRepo {
                repo: fields.take()?,
                seq: fields.u64()?,
                digest: fields.take()?,
            })
        });
        let repos = repos.collect::<Result<Vec<_>>>()?;
        if !heads.is_sorted_by(|a, b| a < b) || !repos.is_sorted_by(|a, b| a.repo < b.repo) {
            return Err(fields.invalid("a device names heads or repos out of order"));
        }
        fields.end()?;
        Ok(Self { time, heads, repos })
    }

    /// Returns the repos of which a peer shows an older root than this device has seen, or another one with the
    /// same number; `shown` has what the peer shows of each repo.
    pub fn behind(&self, shown: &BTreeMap<PublicKey, SeenRepo>) -> Vec<Behind> {
        let seen = self.repos.iter();
        let seen: BTreeMap<[u8; 8], &SeenRepo> = seen.map(|seen| (seen.repo, seen)).collect();
        let found = shown.iter().filter_map(|(repo, shown)| {
            let seen = seen.get(&shown.repo)?;
            let is_other = seen.seq == shown.seq && seen.digest != shown.digest;
            (seen.seq > shown.seq || is_other).then_some(Behind {
                repo: *repo,
                seen: seen.seq,
                shown: shown.seq,
            })
        });
        found.collect()
    }
}

//! A cache of verified group hashes, with which a random read costs one hash instead of a path.

use std::{
    num::NonZeroUsize,
    ops::Range,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use larder_store_api::{Kind, Part, PayloadId, Result};
use lru::LruCache;

use super::{
    Inner,
    entry::Stored,
    tree::{Cv, PAIR_LEN, group_count, hash_pair, left_groups, pair_index, pairs_before, split},
};
use crate::Hash;

/// The number of groups in a segment: 16 MiB of data.
pub(crate) const SEGMENT_GROUPS: u64 = 1024;
/// The number of cached segments: 34 KiB each, 8.5 MiB in all, for 4 GiB of data.
const CACHED_SEGMENTS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// The hashes of a segment's groups; `None` if the outboard is damaged.
pub(crate) type Segment = Vec<Option<Cv>>;

#[derive(Debug)]
pub(crate) struct Segments(Mutex<LruCache<(PayloadId, u64), Arc<Segment>>>);

impl Default for Segments {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(CACHED_SEGMENTS)))
    }
}

impl Segments {
    fn get(&self, payload: PayloadId, segment: u64) -> Option<Arc<Segment>> {
        self.lock().get(&(payload, segment)).cloned()
    }

    fn put(&self, payload: PayloadId, segment: u64, hashes: Arc<Segment>) {
        self.lock().put((payload, segment), hashes);
    }

    /// Forgets everything, after outboards were rewritten.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, LruCache<(PayloadId, u64), Arc<Segment>>> {
        self.0
            .lock()
            .expect("no code panics while it holds the cache")
    }
}

impl Inner {
    /// Returns the verified hashes of `groups` of a complete blob; `None` if the outboard is damaged.
    pub(crate) async fn group_hashes(
        &self,
        hash: Hash,
        stored: &Stored,
        groups: Range<u64>,
    ) -> Result<Segment> {
        let mut hashes =
            Vec::with_capacity(usize::try_from(groups.end - groups.start).unwrap_or(0));
        for index in groups.start / SEGMENT_GROUPS..groups.end.div_ceil(SEGMENT_GROUPS) {
            let segment = match self.segments.get(stored.payload, index) {
                Some(segment) => segment,
                None => {
                    let segment = self.load_segment(hash, stored, index).await?;
                    let segment = Arc::new(segment);
                    // Damage is not cached: it may be repaired, or have been a bad read.
                    if segment.iter().all(Option::is_some) {
                        self.segments.put(stored.payload, index, segment.clone());
                    }
                    segment
                }
            };
            let start = index * SEGMENT_GROUPS;
            let from = groups.start.max(start) - start;
            let to = (groups.end - start).min(segment.len() as u64);
            hashes.extend_from_slice(&segment[from as usize..to as usize]);
        }
        Ok(hashes)
    }

    /// Reads the hashes of a segment from the store, and verifies them again.
    pub(crate) async fn load_segment(
        &self,
        hash: Hash,
        stored: &Stored,
        index: u64,
    ) -> Result<Segment> {
        let total = group_count(stored.size);
        let first = index * SEGMENT_GROUPS;
        let count = (total - first).min(SEGMENT_GROUPS);
        let mut damaged = vec![None; count as usize];
        let (mut start, mut groups, mut expected) = (0, total, *hash.as_bytes());
        while groups > count || start != first {
            let pair = self
                .read_pairs(hash, stored, pair_index(start, groups), 1)
                .await;
            let Some((left, right)) = known(pair, hash)?.and_then(|pair| split(&pair, 0)) else {
                return Ok(damaged);
            };
            if hash_pair(&left, &right, groups == total) != expected {
                return Ok(damaged);
            }
            let half = left_groups(groups);
            (start, groups, expected) = if first < start + half {
                (start, half, left)
            } else {
                (start + half, groups - half, right)
            };
        }
        if count == 1 {
            damaged[0] = Some(expected);
            return Ok(damaged);
        }
        let pairs = self
            .read_pairs(hash, stored, pairs_before(first), count - 1)
            .await;
        if let Some(pairs) = known(pairs, hash)? {
            let is_root = count == total;
            verify(&pairs, 0, count, expected, is_root, &mut damaged);
        }
        Ok(damaged)
    }

    async fn read_pairs(
        &self,
        hash: Hash,
        stored: &Stored,
        index: u64,
        count: u64,
    ) -> Result<Bytes> {
        let range = index * PAIR_LEN..(index + count) * PAIR_LEN;
        self.read_outboard(hash, stored, range).await
    }

    /// Returns bytes of an outboard, from the entry or the payload.
    pub(crate) async fn read_outboard(
        &self,
        hash: Hash,
        stored: &Stored,
        range: Range<u64>,
    ) -> Result<Bytes> {
        match &stored.outboard {
            // An entry has its whole outboard, and only nodes within it are requested.
            Some(outboard) => Ok(outboard.slice(range.start as usize..range.end as usize)),
            None => {
                self.read_part(hash, stored.payload, Part::Outboard, range)
                    .await
            }
        }
    }
}

/// Treats a missing outboard as damaged.
fn known(pairs: Result<Bytes>, hash: Hash) -> Result<Option<Bytes>> {
    match pairs {
        Ok(pairs) => Ok(Some(pairs)),
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Corrupt) => {
            tracing::warn!(%hash, %error, "an outboard is damaged");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Verifies the subtree over `groups` groups from `start`, both relative to `pairs`, and collects the
/// hashes of its groups. The hashes below a damaged node stay unknown.
fn verify(
    pairs: &[u8],
    start: u64,
    groups: u64,
    expected: Cv,
    is_root: bool,
    out: &mut [Option<Cv>],
) {
    if groups == 1 {
        out[start as usize] = Some(expected);
        return;
    }
    let Some((left, right)) = split(pairs, pair_index(start, groups)) else {
        return;
    };
    if hash_pair(&left, &right, is_root) != expected {
        return;
    }
    let half = left_groups(groups);
    verify(pairs, start, half, left, false, out);
    verify(pairs, start + half, groups - half, right, false, out);
}

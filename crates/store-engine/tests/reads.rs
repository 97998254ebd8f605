//! Tests of verified reads and exports: reading ahead, data before damage, and the place of hash trees.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use common::{bytes, engine, export, transfer};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use larder_store_api::{
    Batch, BlobCapabilities, BlobStore, Block, Bytes, CollectionId, CollectionStore, Edit, Kind,
    Listing, Part, PayloadId, Result,
};
use larder_store_engine::{
    BlobStatus, Blobs, ChunkNum, ChunkRanges, Encoded, Finding, Hash, Repair, Scrubbed,
};
use larder_store_testkit::MemoryStore;
use tokio::sync::Semaphore;

const MIB: u64 = 1 << 20;
const GROUP: u64 = 16 * 1024;

/// Counts reads and writes, and completes only as many reads of data as it is told to.
#[derive(Debug)]
struct Slow {
    inner: MemoryStore,
    concurrency: u16,
    /// Each read of data takes one permit.
    ends: Semaphore,
    running: AtomicUsize,
    most: AtomicUsize,
    begun: AtomicUsize,
    reads: Mutex<Vec<Part>>,
    writes: Mutex<Vec<Part>>,
}

struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl BlobStore for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn capabilities(&self) -> BlobCapabilities {
        {
            let mut facts = BlobStore::capabilities(&self.inner);
            facts.concurrency = self.concurrency;
            facts
        }
    }

    async fn read(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
        self.reads.lock().unwrap().push(part);
        if part == Part::Data {
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            let _running = Running(&self.running);
            self.most.fetch_max(running, Ordering::SeqCst);
            self.begun.fetch_add(1, Ordering::SeqCst);
            self.ends.acquire().await.unwrap().forget();
        }
        self.inner.read(id, part, range).await
    }

    async fn write(&self, id: PayloadId, blocks: Vec<Block>) -> Result<()> {
        let parts = blocks.iter().map(|block| block.part);
        self.writes.lock().unwrap().extend(parts);
        self.inner.write(id, blocks).await
    }

    async fn delete(&self, ids: Vec<PayloadId>) -> Result<()> {
        BlobStore::delete(&self.inner, ids).await
    }

    fn list(&self, after: Option<PayloadId>) -> Listing<PayloadId> {
        BlobStore::list(&self.inner, after)
    }

    async fn sync(&self, ids: Vec<PayloadId>) -> Result<()> {
        BlobStore::sync(&self.inner, ids).await
    }
}

async fn slow(concurrency: u16, ends: usize) -> (Blobs, Arc<Slow>) {
    let inner = MemoryStore::new();
    let store = Arc::new(Slow {
        inner: inner.clone(),
        concurrency,
        ends: Semaphore::new(ends),
        running: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        begun: AtomicUsize::new(0),
        reads: Mutex::default(),
        writes: Mutex::default(),
    });
    let blobs = Blobs::open(store.clone(), Arc::new(inner)).await.unwrap();
    (blobs, store)
}

/// Lets everything run that can.
async fn idle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

/// A stream begins with one window, and works on more as it is read further: on up to 8 MiB, and on no
/// more windows at a time than the store prefers.
#[tokio::test]
async fn reading_ahead_grows_and_is_bounded() {
    for (concurrency, bound) in [(1, 2), (3, 3), (32, 8)] {
        for exports in [false, true] {
            let (blobs, store) = slow(concurrency, 0).await;
            let pin = blobs.add(bytes(1, 40 << 20)).await.unwrap();
            let mut pieces: Listing<()> = match exports {
                false => Box::pin(blobs.read(pin.hash(), 0..u64::MAX).map_ok(drop)),
                true => Box::pin(
                    blobs
                        .export(pin.hash(), ChunkRanges::all())
                        .try_filter(|item| {
                            let at_start = |offset: u64| offset.is_multiple_of(MIB);
                            let is = matches!(item, Encoded::Leaf(leaf) if at_start(leaf.offset));
                            std::future::ready(is)
                        })
                        .map_ok(drop),
                ),
            };
            let what = format!("{concurrency} {exports}");
            // Polling for the first window starts reading that one.
            assert!(pieces.next().now_or_never().is_none());
            idle().await;
            assert_eq!(store.begun.load(Ordering::SeqCst), 1, "{what}");
            for taken in 1..=40 {
                // Reads complete as soon as they are begun; nobody takes more than one window.
                store.ends.add_permits(100);
                pieces.next().await.unwrap().unwrap();
                idle().await;
                let begun = store.begun.load(Ordering::SeqCst);
                assert!(begun <= taken + bound, "{what}: {begun} after {taken}");
                store.ends.forget_permits(100);
            }
            assert!(pieces.next().await.is_none());
            assert_eq!(store.begun.load(Ordering::SeqCst), 40, "{what}");
            assert!(store.most.load(Ordering::SeqCst) <= bound, "{what}");

            // It does read this many at a time.
            let (blobs, store) = slow(concurrency, 4).await;
            let pin = blobs.add(bytes(1, 40 << 20)).await.unwrap();
            let mut pieces = blobs.read(pin.hash(), 0..u64::MAX);
            for _ in 0..4 {
                pieces.next().await.unwrap().unwrap();
            }
            idle().await;
            assert_eq!(store.most.load(Ordering::SeqCst), bound, "{what}");
        }
    }
}

#[tokio::test]
async fn a_dropped_stream_reads_no_more() {
    let (blobs, store) = slow(32, 4).await;
    let pin = blobs.add(bytes(1, 40 << 20)).await.unwrap();
    let mut pieces = blobs.read(pin.hash(), 0..u64::MAX);
    for _ in 0..4 {
        pieces.next().await.unwrap().unwrap();
    }
    idle().await;
    assert_eq!(store.running.load(Ordering::SeqCst), 8);
    drop(pieces);
    idle().await;
    assert_eq!(store.running.load(Ordering::SeqCst), 0);
}

/// Flips a bit of a stored group.
async fn damage(store: &MemoryStore, group: u64) {
    let payload = BlobStore::list(store, None).next().await.unwrap().unwrap();
    let range = group * GROUP..(group + 1) * GROUP;
    let mut block = store
        .read(payload, Part::Data, range)
        .await
        .unwrap()
        .to_vec();
    block[77] ^= 1;
    let block = Block {
        part: Part::Data,
        index: group,
        bytes: block.into(),
    };
    store.write(payload, vec![block]).await.unwrap();
}

/// All bytes before damage come first, whichever window they are in, and nothing comes after the error.
#[tokio::test]
async fn what_is_right_before_damage_comes_first() {
    let data = bytes(1, 5 << 20);
    for group in [0, 5, 63, 64, 200, 319] {
        let (blobs, store) = engine().await;
        let hash = blobs.add(data.clone()).await.unwrap().hash();
        damage(&store, group).await;
        let starts = [0, 3 * GROUP + 7].into_iter();
        for start in starts.filter(|start| *start <= group * GROUP) {
            let mut pieces = blobs.read(hash, start..u64::MAX);
            let mut read = Vec::new();
            let error = loop {
                match pieces.next().await.unwrap() {
                    Ok(piece) => {
                        assert!(!piece.is_empty());
                        read.extend_from_slice(&piece);
                    }
                    Err(error) => break error,
                }
            };
            let end = group * GROUP;
            assert!(
                read == data[start as usize..end as usize],
                "{group} {start}"
            );
            assert_eq!(error.kind(), Kind::Corrupt);
            assert!(pieces.next().await.is_none());
        }
        let mut items = blobs.export(hash, ChunkRanges::all());
        let mut leaves = 0;
        let error = loop {
            match items.next().await.unwrap() {
                Ok(Encoded::Leaf(leaf)) => {
                    assert_eq!(leaf.offset, leaves * GROUP);
                    leaves += 1;
                }
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!((leaves, error.kind()), (group, Kind::Corrupt));
        assert!(items.next().await.is_none());
        // Data beyond the damage can be read.
        let beyond = (group + 1) * GROUP;
        let read: Vec<Bytes> = blobs
            .read(hash, beyond..u64::MAX)
            .try_collect()
            .await
            .unwrap();
        assert!(read.concat() == data[beyond as usize..]);
    }
}

/// A hash tree of up to 4 KiB is in the entry: no other write or read is needed for it.
#[tokio::test]
async fn a_short_hash_tree_lies_in_the_entry() {
    let longest = 65 * GROUP;
    for (len, inline) in [(GROUP + 1, true), (longest, true), (longest + 1, false)] {
        let (blobs, store) = slow(32, 1000).await;
        let data = bytes(len, len as usize);
        let pin = blobs.add(data.clone()).await.unwrap();
        let wrote = |part| store.writes.lock().unwrap().contains(&part);
        assert!(wrote(Part::Data));
        assert_eq!(wrote(Part::Outboard), !inline, "{len}");
        let reopened = || Blobs::open(store.clone(), Arc::new(store.inner.clone()));
        let again = reopened().await.unwrap();
        store.reads.lock().unwrap().clear();
        let read = again.read_to_bytes(pin.hash(), GROUP..GROUP + 1).await;
        assert_eq!(read.unwrap(), data[GROUP as usize..GROUP as usize + 1]);
        let parts = std::mem::take(&mut *store.reads.lock().unwrap());
        assert_eq!(parts.contains(&Part::Outboard), !inline, "{len}");
        assert!(!inline || parts.len() == 1, "{len}: {parts:?}");
        // Peers can verify it, and their copy of it is as short.
        let (other, theirs) = slow(32, 1000).await;
        transfer(&again, &other, pin.hash(), len, ChunkRanges::all()).await;
        let status = other.status(pin.hash()).await.unwrap();
        assert_eq!(status, Some(BlobStatus::Complete { size: len }));
        let wrote = theirs.writes.lock().unwrap().contains(&Part::Outboard);
        assert_eq!(wrote, !inline, "{len}");
        let read = other.read_to_bytes(pin.hash(), 0..len).await.unwrap();
        assert!(read == data);
    }
}

/// The known nodes of a short hash tree survive a restart in the middle of an import.
#[tokio::test]
async fn an_import_goes_on_with_the_hash_tree_of_its_entry() {
    let len = 50 * GROUP + 3;
    let (from, _) = engine().await;
    let data = bytes(1, len as usize);
    let hash = from.add(data.clone()).await.unwrap().hash();
    let (_, store) = engine().await;
    for part in 0..17_u64 {
        // In another order, and reopened each time.
        let part = part * 5 % 17;
        let to = Blobs::open(store.clone(), store.clone()).await.unwrap();
        let ranges = ChunkRanges::from(ChunkNum(part * 48)..ChunkNum((part + 1) * 48));
        transfer(&from, &to, hash, len, ranges.clone()).await;
        // Received data can be passed on.
        let here = to.bitfield(hash).await.unwrap().ranges;
        assert!(ranges.intersects(&here));
        let given: Vec<Encoded> = export(&to, hash, here.clone()).await;
        let leaves = given.iter().map(|item| match item {
            Encoded::Leaf(leaf) => leaf.data.len() as u64,
            _ => 0,
        });
        assert_eq!(
            leaves.sum::<u64>(),
            to.bitfield(hash).await.unwrap().present_bytes()
        );
        to.close().await.unwrap();
    }
    let to = Blobs::open(store.clone(), store.clone()).await.unwrap();
    assert_eq!(
        to.status(hash).await.unwrap(),
        Some(BlobStatus::Complete { size: len })
    );
    assert!(to.read_to_bytes(hash, 0..len).await.unwrap() == data);
}

/// Damage to the hash tree in an entry is detected, never served, and repaired.
#[tokio::test]
async fn a_damaged_hash_tree_in_an_entry_is_repaired() {
    let data = bytes(1, 600_000);
    for at in [0, 64 * 17, 64 * 36 - 1] {
        let (blobs, store) = engine().await;
        let hash = blobs.add(data.clone()).await.unwrap().hash();
        let collection = CollectionId::from_static("larder/blobs");
        let key = Bytes::copy_from_slice(hash.as_bytes());
        let entry = store.get(collection.clone(), key.clone()).await.unwrap();
        let mut value = entry.unwrap().value.to_vec();
        // The offset of the hash tree after version, kind, time, size and payload.
        value[34 + at] ^= 1;
        let value = value.into();
        let put = Edit::Put {
            collection,
            key,
            value,
        };
        store.commit(Batch::of(vec![put])).await.unwrap();
        let blobs = Blobs::open(store.clone(), store.clone()).await.unwrap();
        let read: Result<Vec<Bytes>> = blobs.read(hash, 0..u64::MAX).try_collect().await;
        assert_eq!(read.unwrap_err().kind(), Kind::Corrupt);
        let scrub = async |repair| {
            let found: Vec<Scrubbed> = blobs.scrub(repair).try_collect().await.unwrap();
            found[0].finding.clone()
        };
        assert_eq!(scrub(Repair::No).await, Finding::Outboard);
        assert_eq!(scrub(Repair::Yes).await, Finding::Outboard);
        assert_eq!(scrub(Repair::No).await, Finding::Sound);
        assert!(blobs.read_to_bytes(hash, 0..u64::MAX).await.unwrap() == data);
    }
}

/// A stream that uses cached data never takes it from the wrong place.
#[tokio::test]
async fn ranges_of_a_long_blob_are_read_right() {
    let (blobs, _) = engine().await;
    let data = bytes(1, 20 << 20);
    let hash = blobs.add(data.clone()).await.unwrap().hash();
    for (start, len) in [
        (0, 1),
        (MIB - 1, 2),
        (5 * MIB + 77, 9 * MIB),
        (19 * MIB, 7 * MIB),
    ] {
        let pieces: Vec<Bytes> = blobs
            .read(hash, start..start + len)
            .try_collect()
            .await
            .unwrap();
        let end = (start + len).min(data.len() as u64);
        assert!(pieces.concat() == data[start as usize..end as usize]);
    }
    assert_eq!(Hash::of(&data), hash);
}

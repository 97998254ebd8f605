//! Tests of damage: it is found, never served, marked as missing, and fetched again.

mod common;

use std::{ops::Range, sync::Arc};

use common::{bytes, engine, transfer};
use futures_util::{StreamExt, TryStreamExt};
use larder_store_api::{BlobStore, Block, Bytes, Kind, Part, PayloadId};
use larder_store_engine::{
    BlobStatus, Blobs, ChunkRanges, Encoded, Finding, Hash, Repair, Scrubbed,
};
use larder_store_testkit::MemoryStore;

const LEN: usize = 3 << 20;

struct Damaged {
    blobs: Blobs,
    store: Arc<MemoryStore>,
    payload: PayloadId,
    hash: Hash,
    data: Vec<u8>,
}

async fn stored() -> Damaged {
    let (blobs, store) = engine().await;
    let data = bytes(1, LEN);
    let hash = blobs.add(data.clone()).await.unwrap().hash();
    let payload = BlobStore::list(&*store, None)
        .next()
        .await
        .unwrap()
        .unwrap();
    Damaged {
        blobs,
        store,
        payload,
        hash,
        data,
    }
}

impl Damaged {
    /// Flips one bit of a stored block.
    async fn flip(&self, part: Part, at: u64) {
        let index = at / (16 * 1024);
        let start = index * 16 * 1024;
        let end = match part {
            Part::Data => start + 16 * 1024,
            Part::Outboard => (start + 16 * 1024).min((LEN as u64 / 16384 - 1) * 64),
        };
        let block = self.store.read(self.payload, part, start..end).await;
        let mut block = block.unwrap().to_vec();
        block[(at - start) as usize] ^= 4;
        let bytes = Bytes::from(block);
        let blocks = vec![Block { part, index, bytes }];
        self.store.write(self.payload, blocks).await.unwrap();
        // As after a restart: nothing is cached.
        self.blobs.close().await.unwrap();
    }

    async fn reopen(&mut self) {
        let store = self.store.clone();
        self.blobs = Blobs::open(store.clone(), store).await.unwrap();
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, Kind> {
        let read = self.blobs.read_to_bytes(self.hash, range).await;
        read.map_err(|error| error.kind())
    }

    async fn scrub(&self, repair: Repair) -> Vec<Scrubbed> {
        self.blobs.scrub(repair).try_collect().await.unwrap()
    }

    async fn restore(&self) {
        let (other, _) = engine().await;
        other.add(self.data.clone()).await.unwrap();
        let size = LEN as u64;
        transfer(&other, &self.blobs, self.hash, size, ChunkRanges::all()).await;
        let all = self.read(0..size).await.unwrap();
        assert_eq!(all, self.data);
        assert_eq!(self.scrub(Repair::No).await[0].finding, Finding::Sound);
    }
}

#[tokio::test]
async fn a_sound_store_is_found_sound() {
    let damaged = stored().await;
    for size in common::SIZES {
        damaged.blobs.add(bytes(2, size)).await.unwrap();
    }
    let found = damaged.scrub(Repair::No).await;
    assert_eq!(found.len(), common::SIZES.len());
    assert!(found.iter().all(|found| found.finding == Finding::Sound));
}

#[tokio::test]
async fn a_flipped_bit_of_data() {
    let mut damaged = stored().await;
    let at = 1_500_000;
    damaged.flip(Part::Data, at).await;
    damaged.reopen().await;
    let group = at / 16384;
    let bad = group * 16384..(group + 1) * 16384;
    assert_eq!(damaged.read(at..at + 1).await, Err(Kind::Corrupt));
    let before = damaged.read(0..bad.start).await.unwrap();
    assert_eq!(before, damaged.data[..bad.start as usize]);
    let after = damaged.read(bad.end..LEN as u64).await.unwrap();
    assert_eq!(after, damaged.data[bad.end as usize..]);
    // No wrong data is sent to a peer.
    let mut export = damaged.blobs.export(damaged.hash, ChunkRanges::all());
    let mut error = None;
    while let Some(item) = export.next().await {
        match item {
            Ok(Encoded::Leaf(leaf)) => {
                let from = leaf.offset as usize;
                assert_eq!(leaf.data, damaged.data[from..from + leaf.data.len()]);
            }
            Ok(_) => {}
            Err(failed) => error = Some(failed),
        }
    }
    assert_eq!(error.unwrap().kind(), Kind::Corrupt);

    let chunks = group * 16..(group + 1) * 16;
    let chunks =
        larder_store_engine::ChunkNum(chunks.start)..larder_store_engine::ChunkNum(chunks.end);
    let ranges = ChunkRanges::from(chunks);
    for repair in [Repair::No, Repair::Yes] {
        let found = damaged.scrub(repair).await;
        let finding = Finding::Damaged {
            ranges: ranges.clone(),
        };
        assert_eq!(found[0].finding, finding);
    }
    let status = damaged.blobs.status(damaged.hash).await.unwrap();
    assert!(
        matches!(status, Some(BlobStatus::Partial { present, .. }) if present == LEN as u64 - 16384)
    );
    assert_eq!(damaged.read(at..at + 1).await, Err(Kind::NotFound));
    assert!(damaged.read(0..bad.start).await.is_ok());
    damaged.restore().await;
}

#[tokio::test]
async fn a_flipped_bit_of_an_outboard() {
    for at in [0, 64 * 50, 64 * (LEN as u64 / 16384 - 2) + 5] {
        let mut damaged = stored().await;
        damaged.flip(Part::Outboard, at).await;
        damaged.reopen().await;
        let found = damaged.scrub(Repair::No).await;
        assert_eq!(found[0].finding, Finding::Outboard);
        damaged.scrub(Repair::Yes).await;
        assert_eq!(damaged.scrub(Repair::No).await[0].finding, Finding::Sound);
        assert_eq!(damaged.read(0..LEN as u64).await.unwrap(), damaged.data);
    }
}

#[tokio::test]
async fn a_bit_flipped_in_both() {
    let mut damaged = stored().await;
    damaged.flip(Part::Data, 100).await;
    damaged.reopen().await;
    damaged.flip(Part::Outboard, 64 * 100).await;
    damaged.reopen().await;
    damaged.scrub(Repair::Yes).await;
    let status = damaged.blobs.status(damaged.hash).await.unwrap();
    assert!(!matches!(status, Some(BlobStatus::Complete { .. })));
    damaged.restore().await;
}

#[tokio::test]
async fn a_missing_payload() {
    let damaged = stored().await;
    damaged.store.delete(vec![damaged.payload]).await.unwrap();
    let found = damaged.scrub(Repair::No).await;
    assert_eq!(found[0].finding, Finding::Lost);
    let error = damaged.read(0..10).await.unwrap_err();
    assert!(matches!(error, Kind::Corrupt | Kind::NotFound));
    damaged.scrub(Repair::Yes).await;
    assert_eq!(damaged.blobs.status(damaged.hash).await.unwrap(), None);
    damaged.restore().await;
}

#[tokio::test]
async fn an_orphan_is_swept_at_the_next_start() {
    let mut damaged = stored().await;
    // The remains of a crash: an unclaimed payload of the last session.
    let mut id = damaged.payload;
    id.0[15] += 7;
    let block = Block {
        part: Part::Data,
        index: 0,
        bytes: Bytes::from(vec![1; 100]),
    };
    damaged.store.write(id, vec![block.clone()]).await.unwrap();
    damaged.reopen().await;
    assert_eq!(BlobStore::list(&*damaged.store, None).count().await, 1);
    // A scrub finds one of an old session.
    id.0 = [0; 16];
    damaged.store.write(id, vec![block]).await.unwrap();
    let found = damaged.scrub(Repair::Yes).await;
    assert_eq!(found[1].finding, Finding::Orphan { payload: id });
    assert_eq!(BlobStore::list(&*damaged.store, None).count().await, 1);
    assert_eq!(damaged.read(0..LEN as u64).await.unwrap(), damaged.data);
}

//! Tests of concurrent imports of one blob: what they write, and which state they share.

mod common;

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use common::{bytes, engine, export};
use larder_store_api::{
    BlobCapabilities, BlobStore, Block, Bytes, Listing, Part, PayloadId, Result,
};
use larder_store_engine::{BlobStatus, Blobs, ChunkNum, ChunkRanges, Encoded, Hash, Import, Trust};
use larder_store_testkit::MemoryStore;

/// Notes how many bytes of data each call writes.
#[derive(Debug, Clone)]
struct Noting {
    inner: MemoryStore,
    writes: Arc<Mutex<Vec<usize>>>,
}

#[async_trait]
impl BlobStore for Noting {
    fn name(&self) -> &str {
        BlobStore::name(&self.inner)
    }

    fn capabilities(&self) -> BlobCapabilities {
        BlobStore::capabilities(&self.inner)
    }

    async fn read(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
        self.inner.read(id, part, range).await
    }

    async fn write(&self, id: PayloadId, blocks: Vec<Block>) -> Result<()> {
        let data = blocks.iter().filter(|block| block.part == Part::Data);
        let len: usize = data.map(|block| block.bytes.len()).sum();
        if len > 0 {
            self.writes.lock().unwrap().push(len);
        }
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

async fn noting(block_len: u32) -> (Blobs, Arc<Mutex<Vec<usize>>>) {
    let inner = MemoryStore::with_block_len(block_len);
    let writes = Arc::default();
    let store = Noting {
        inner: inner.clone(),
        writes: Arc::clone(&writes),
    };
    let blobs = Blobs::open(Arc::new(store), Arc::new(inner)).await;
    (blobs.unwrap(), writes)
}

/// Splits a blob's items into this many pieces of equal length.
async fn pieces(from: &Blobs, hash: Hash, size: u64, count: u64) -> Vec<Vec<Encoded>> {
    let chunks = size.div_ceil(1024) / count;
    let mut pieces = Vec::new();
    for piece in 0..count {
        let range = ChunkNum(piece * chunks)..ChunkNum((piece + 1) * chunks);
        pieces.push(export(from, hash, ChunkRanges::from(range)).await);
    }
    pieces
}

/// Gives each import in turn one item of its piece.
async fn interleave(imports: &mut [Import], pieces: Vec<Vec<Encoded>>) {
    let mut pieces: Vec<_> = pieces.into_iter().map(Vec::into_iter).collect();
    loop {
        let mut is_over = true;
        for (import, items) in imports.iter_mut().zip(&mut pieces) {
            if let Some(item) = items.next() {
                import.push(item).await.unwrap();
                is_over = false;
            }
        }
        if is_over {
            return;
        }
    }
}

// On virtual time, so that the clock does not cause records.
#[tokio::test(start_paused = true)]
async fn pieces_that_come_at_once_are_each_written_in_one_run() {
    const PIECE: usize = 384 * 1024;
    let (from, _) = engine().await;
    for (block_len, count) in [(16 * 1024, 2), (16 * 1024, 16), (64 * 1024, 16)] {
        let data = bytes(1, PIECE * count);
        let size = data.len() as u64;
        let hash = from.add(data.clone()).await.unwrap().hash();
        let (to, writes) = noting(block_len).await;
        let mut imports = Vec::new();
        for _ in 0..count {
            imports.push(to.import(hash, size, Trust::Untrusted).await.unwrap());
        }
        let pieces = pieces(&from, hash, size, count as u64).await;
        interleave(&mut imports, pieces).await;
        for import in imports {
            import.finish().await.unwrap();
        }
        assert_eq!(*writes.lock().unwrap(), vec![PIECE; count]);
        assert_eq!(to.read_to_bytes(hash, 0..size).await.unwrap(), data);
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_long_piece_no_more_is_gathered_than_a_run() {
    const PIECE: usize = 5 << 19;
    let (from, _) = engine().await;
    let data = bytes(2, 2 * PIECE);
    let size = data.len() as u64;
    let hash = from.add(data.clone()).await.unwrap().hash();
    let (to, writes) = noting(16 * 1024).await;
    let mut imports = Vec::new();
    for _ in 0..2 {
        imports.push(to.import(hash, size, Trust::Untrusted).await.unwrap());
    }
    interleave(&mut imports, pieces(&from, hash, size, 2).await).await;
    // Full runs are written before the end, and only the rest after it.
    assert_eq!(*writes.lock().unwrap(), [1 << 20; 4]);
    for import in imports {
        import.finish().await.unwrap();
    }
    assert_eq!(writes.lock().unwrap()[4..], [1 << 19; 2]);
    assert_eq!(to.read_to_bytes(hash, 0..size).await.unwrap(), data);
}

#[tokio::test]
async fn whoever_brought_it_a_blob_is_verified_before_it_is_recorded() {
    let (from, _) = engine().await;
    let size = 300_000;
    let hash = from.add(bytes(3, size as usize)).await.unwrap().hash();
    let (to, _) = engine().await;
    let import = || to.import(hash, size, Trust::Untrusted);
    let (mut one, mut two) = (import().await.unwrap(), import().await.unwrap());
    let mut items = export(&from, hash, ChunkRanges::from(..ChunkNum(160))).await;
    for item in items.drain(..) {
        one.push(item).await.unwrap();
    }
    let mut items = export(&from, hash, ChunkRanges::from(ChunkNum(160)..)).await;
    let last = items.pop().unwrap();
    for item in items {
        two.push(item).await.unwrap();
    }
    assert!(!one.is_verified().await && !two.is_verified().await);
    two.push(last).await.unwrap();
    assert!(one.is_verified().await && two.is_verified().await);
    // Verified is not the same as recorded: finishing is needed for that.
    let complete = Some(BlobStatus::Complete { size });
    assert_ne!(to.status(hash).await.unwrap(), complete);
    assert!(one.finish().await.unwrap().is_complete());
    assert!(two.is_verified().await);
    assert_eq!(to.status(hash).await.unwrap(), complete);
    assert!(import().await.unwrap().is_verified().await);
    // An import with another length than the blob's never counts as verified.
    let (elsewhere, _) = engine().await;
    let liar = elsewhere.import(hash, size - 1, Trust::Untrusted);
    let mut liar = liar.await.unwrap();
    let items = export(&from, hash, ChunkRanges::all()).await;
    let last = items.len() - 1;
    for item in items.into_iter().take(last).skip(1) {
        liar.push(item).await.unwrap();
    }
    assert!(!liar.is_verified().await);
}

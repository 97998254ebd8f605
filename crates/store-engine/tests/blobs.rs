//! Tests of adding, reading, exporting and importing, over memory.

mod common;

use std::io::SeekFrom;

use bao_tree::{BlockSize, io::mixed::EncodedItem, io::outboard::PreOrderMemOutboard};
use bytes::Bytes;
use common::{SIZES, bytes, engine, engines, export, transfer};
use futures_util::{StreamExt, TryStreamExt, stream};
use larder_store_api::Kind;
use larder_store_engine::{
    AddOptions, Bitfield, BlobStatus, ChunkNum, ChunkRanges, Encoded, Hash, Leaf, Root, Source,
    TagName, Trust,
};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

fn streamed(data: &[u8], piece: usize) -> Source {
    let pieces: Vec<_> = data
        .chunks(piece)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    Source::Stream(Box::pin(stream::iter(pieces)))
}

#[tokio::test]
async fn what_is_added_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    for blobs in engines().await {
        for (seed, size) in SIZES.into_iter().enumerate() {
            let data = bytes(seed as u64, size);
            let path = dir.path().join("file");
            std::fs::write(&path, &data).unwrap();
            let sources = [
                Source::from(data.clone()),
                Source::from(path),
                streamed(&data, 77_777),
            ];
            for source in sources {
                let pin = blobs.add(source).await.unwrap();
                assert_eq!(pin.hash(), Hash::of(&data));
                assert_eq!(pin.size(), Some(size as u64));
            }
            let hash = Hash::of(&data);
            let size = size as u64;
            assert_eq!(
                blobs.status(hash).await.unwrap(),
                Some(BlobStatus::Complete { size })
            );
            let pieces: Vec<Bytes> = blobs.read(hash, 0..u64::MAX).try_collect().await.unwrap();
            assert_eq!(pieces.concat(), data);
            for range in [
                0..1,
                size / 2..size / 2 + 5000,
                size.saturating_sub(7)..size + 9,
            ] {
                let end = range.end.min(size) as usize;
                let part = blobs.read_to_bytes(hash, range.clone()).await.unwrap();
                assert_eq!(part, data[(range.start as usize).min(end)..end]);
            }
        }
    }
}

#[tokio::test]
async fn adding_twice_keeps_one_payload() {
    let (blobs, store) = engine().await;
    let data = bytes(1, 300_000);
    for _ in 0..3 {
        blobs.add(data.clone()).await.unwrap();
    }
    let payloads: Vec<_> = larder_store_api::BlobStore::list(&*store, None)
        .collect()
        .await;
    assert_eq!(payloads.len(), 1);
}

#[tokio::test]
async fn a_failing_source_leaves_nothing() {
    let (blobs, store) = engine().await;
    let pieces = vec![
        Ok(Bytes::from(bytes(1, 3 << 20))),
        Err(std::io::Error::other("the cable was pulled")),
    ];
    let source = Source::Stream(Box::pin(stream::iter(pieces)));
    let error = blobs.add(source).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "blobs.add: unavailable: the source of the bytes failed"
    );
    let payloads: Vec<_> = larder_store_api::BlobStore::list(&*store, None)
        .collect()
        .await;
    assert!(payloads.is_empty());
    assert_eq!(blobs.list().count().await, 0);
}

#[tokio::test]
async fn a_missing_file_says_which() {
    let (blobs, _) = engine().await;
    let error = blobs
        .add(std::path::Path::new("/does/not/exist"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(
        error.to_string(),
        "blobs.add: not found (path=/does/not/exist)"
    );
}

#[tokio::test]
async fn a_tag_comes_with_its_blob() {
    for blobs in engines().await {
        for size in [0, 10, 100_000] {
            let name = TagName::try_from(format!("tag {size}").as_str()).unwrap();
            let options = || AddOptions::default().tag(name.clone());
            let pin = blobs.add_with(bytes(1, size), options()).await.unwrap();
            let root = blobs.tags().get(&name).await.unwrap();
            assert_eq!(root, Some(Root::raw(pin.hash())));
            // This also holds if the blob exists already.
            blobs.tags().delete_one(&name).await.unwrap();
            blobs.add_with(bytes(1, size), options()).await.unwrap();
            assert_eq!(blobs.tags().get(&name).await.unwrap(), root);
        }
    }
}

#[tokio::test]
async fn a_reader_reads_and_seeks() {
    for blobs in engines().await {
        let data = bytes(5, 5 << 20);
        let hash = blobs.add(data.clone()).await.unwrap().hash();
        let mut reader = blobs.reader(hash).await.unwrap();
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, data);
        for at in [0u64, 17, 1 << 20, (5 << 20) - 3, 5 << 20, 9 << 20] {
            assert_eq!(reader.seek(SeekFrom::Start(at)).await.unwrap(), at);
            let mut some = vec![0; 10];
            let len = reader.read(&mut some).await.unwrap();
            let at = (at as usize).min(data.len());
            assert_eq!(some[..len], data[at..(at + len)]);
            assert_eq!(len == 0, at == data.len());
        }
        reader.seek(SeekFrom::End(-4)).await.unwrap();
        assert_eq!(
            reader.seek(SeekFrom::Current(-6)).await.unwrap(),
            (5 << 20) - 10
        );
        assert!(reader.seek(SeekFrom::Current(-(6 << 20))).await.is_err());
    }
}

/// Returns the items that bao-tree itself makes for these ranges.
async fn reference(data: &[u8], ranges: &ChunkRanges) -> Vec<Encoded> {
    let outboard = PreOrderMemOutboard::create(data, BlockSize::from_chunk_log(4));
    let (mut send, mut receive) = tokio::sync::mpsc::channel(1 << 20);
    bao_tree::io::mixed::traverse_ranges_validated(
        Bytes::copy_from_slice(data),
        &outboard,
        ranges,
        &mut send,
    )
    .await
    .unwrap();
    drop(send);
    let mut items = Vec::new();
    while let Some(item) = receive.recv().await {
        match item {
            EncodedItem::Size(size) => items.push(Encoded::Size(size)),
            EncodedItem::Parent(parent) => items.push(Encoded::Parent(parent)),
            EncodedItem::Leaf(leaf) => items.push(Encoded::Leaf(leaf)),
            EncodedItem::Done => {}
            EncodedItem::Error(error) => panic!("{error}"),
        }
    }
    items
}

/// Returns the bytes that are sent.
fn wire(items: &[Encoded]) -> Vec<u8> {
    let mut wire = Vec::new();
    for item in items {
        match item {
            Encoded::Size(size) => wire.extend(size.to_le_bytes()),
            Encoded::Parent(parent) => {
                wire.extend(parent.pair.0.as_bytes());
                wire.extend(parent.pair.1.as_bytes());
            }
            Encoded::Leaf(Leaf { data, .. }) => wire.extend(data),
        }
    }
    wire
}

fn ranges(bounds: &[u64]) -> ChunkRanges {
    let mut all = ChunkRanges::empty();
    for pair in bounds.chunks(2) {
        all |= match pair {
            [a, b] => ChunkRanges::from(ChunkNum(*a.min(b))..ChunkNum(*a.max(b))),
            [a] => ChunkRanges::from(ChunkNum(*a)..),
            _ => continue,
        };
    }
    all
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn export_is_what_bao_tree_makes(
        size in 1..400_000usize,
        bounds in prop::collection::vec(0..500u64, 0..6),
    ) {
        runtime().block_on(async {
            let data = bytes(size as u64, size);
            let ranges = ranges(&bounds);
            let expected = wire(&reference(&data, &ranges).await);
            for blobs in engines().await {
                let hash = blobs.add(data.clone()).await.unwrap().hash();
                assert!(wire(&export(&blobs, hash, ranges.clone()).await) == expected);
            }
        });
    }

    #[test]
    fn ranges_move_from_partial_to_partial(
        size in 1..400_000usize,
        first in prop::collection::vec(0..400u64, 1..5),
        second in prop::collection::vec(0..400u64, 1..5),
    ) {
        runtime().block_on(async {
            let data = bytes(size as u64, size);
            let [from, to] = [engines().await, engines().await];
            for (from, to) in from.into_iter().zip(to) {
                let hash = from.add(data.clone()).await.unwrap().hash();
                let via = engine().await.0;
                let mut moved = ChunkRanges::empty();
                for part in [&first, &second] {
                    let part = ranges(part);
                    if part.is_empty() {
                        continue;
                    }
                    transfer(&from, &to, hash, size as u64, part.clone()).await;
                    transfer(&to, &via, hash, size as u64, part.clone()).await;
                    moved |= part;
                    for copy in [&to, &via] {
                        check(copy, hash, &data, &moved).await;
                    }
                }
                transfer(&from, &to, hash, size as u64, ChunkRanges::all()).await;
                let size = size as u64;
                assert_eq!(to.status(hash).await.unwrap(), Some(BlobStatus::Complete { size }));
                let all = to.read_to_bytes(hash, 0..size).await.unwrap();
                assert_eq!(all, data);
            }
        });
    }
}

/// Checks that `moved`, clipped to the blob, is here and readable, and that nothing else is claimed.
async fn check(blobs: &larder_store_engine::Blobs, hash: Hash, data: &[u8], moved: &ChunkRanges) {
    let size = data.len() as u64;
    let chunks = ChunkNum(size.div_ceil(1024));
    let mut expected = moved.clone();
    if !(moved & &ChunkRanges::from(ChunkNum(chunks.0 - 1)..)).is_empty() {
        expected |= ChunkRanges::from(ChunkNum(chunks.0 - 1)..);
    }
    let here = blobs.bitfield(hash).await.unwrap();
    if expected.is_empty() {
        assert_eq!(here, Bitfield::empty());
        return;
    }
    let inside = ChunkRanges::from(..chunks);
    assert_eq!(&here.ranges & &inside, &expected & &inside, "size {size}");
    for chunk in 0..chunks.0 {
        let range = chunk * 1024..((chunk + 1) * 1024).min(size);
        let read = blobs.read_to_bytes(hash, range.clone()).await;
        if expected.contains(&ChunkNum(chunk)) {
            assert_eq!(
                read.unwrap(),
                data[range.start as usize..range.end as usize]
            );
        } else {
            assert_eq!(read.unwrap_err().kind(), Kind::NotFound);
        }
    }
    let encoded = wire(&export(blobs, hash, moved.clone()).await);
    assert!(encoded == wire(&reference(data, moved).await));
}

#[tokio::test]
async fn a_wrong_item_is_refused_and_what_was_before_stays() {
    for to in engines().await {
        let (from, _) = engine().await;
        let data = bytes(8, 1 << 20);
        let hash = from.add(data.clone()).await.unwrap().hash();
        let mut import = to.import(hash, 1 << 20, Trust::Untrusted).await.unwrap();
        let mut leaves = 0;
        let mut refused = None;
        for item in export(&from, hash, ChunkRanges::all()).await {
            let item = match item {
                Encoded::Leaf(mut leaf) => {
                    leaves += 1;
                    if leaves == 20 {
                        let mut wrong = leaf.data.to_vec();
                        wrong[100] ^= 1;
                        leaf.data = wrong.into();
                    }
                    Encoded::Leaf(leaf)
                }
                other => other,
            };
            if let Err(error) = import.push(item).await {
                refused = Some(error);
                break;
            }
        }
        let error = refused.unwrap();
        assert_eq!(error.kind(), Kind::Invalid);
        assert_eq!(
            error.message(),
            "the sender's bytes are not those of the hash"
        );
        let here = import.finish().await.unwrap();
        assert_eq!(here.present_bytes(), 19 * 16 * 1024);
        let kept = to.read_to_bytes(hash, 0..19 * 16 * 1024).await.unwrap();
        assert_eq!(kept, data[..19 * 16 * 1024]);
    }
}

#[tokio::test]
async fn a_contradicting_size_is_refused() {
    let (from, _) = engine().await;
    let (to, _) = engine().await;
    let hash = from.add(bytes(9, 100_000)).await.unwrap().hash();
    let error = to.import(hash, 0, Trust::Untrusted).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    // A false size is detected when the first node or leaf arrives.
    let mut import = to.import(hash, 90_000, Trust::Untrusted).await.unwrap();
    let items = export(&from, hash, ChunkRanges::all()).await;
    let mut error = None;
    for item in items.into_iter().skip(1) {
        error = error.or(import.push(item).await.err());
    }
    assert_eq!(error.unwrap().kind(), Kind::Invalid);
    drop(import);
    transfer(&from, &to, hash, 100_000, ChunkRanges::all()).await;
    let error = to.import(hash, 90_000, Trust::Untrusted).await.unwrap_err();
    assert_eq!(error.message(), "the claimed size is not the blob's");
}

#[tokio::test]
async fn who_says_another_size_holds_up_nobody() {
    for to in engines().await {
        let (from, _) = engine().await;
        let data = bytes(9, 100_000);
        let hash = from.add(data.clone()).await.unwrap().hash();
        // The first peer claims another size, sends items that are valid for both, and stops.
        let mut liar = to.import(hash, 99_999, Trust::Untrusted).await.unwrap();
        let items = export(&from, hash, ChunkRanges::all()).await;
        let last = items.len() - 1;
        for item in items.into_iter().take(last).skip(1) {
            liar.push(item).await.unwrap();
        }
        transfer(&from, &to, hash, 100_000, ChunkRanges::all()).await;
        drop(liar.finish().await);
        let kept = to.read_to_bytes(hash, 0..u64::MAX).await.unwrap();
        assert_eq!(kept, data);
        // This also holds if the liar's data was recorded first, and an import continues from there.
        let (to, _) = engine().await;
        let mut liar = to.import(hash, 99_999, Trust::Untrusted).await.unwrap();
        let items = export(&from, hash, ChunkRanges::all()).await;
        for item in items.into_iter().take(last).skip(1) {
            liar.push(item).await.unwrap();
        }
        liar.finish().await.unwrap();
        transfer(&from, &to, hash, 100_000, ChunkRanges::all()).await;
        let kept = to.read_to_bytes(hash, 0..u64::MAX).await.unwrap();
        assert_eq!(kept, data);
        // Once the size is proven, another one is refused.
        let error = to.import(hash, 99_999, Trust::Untrusted).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
    }
}

#[tokio::test]
async fn several_imports_of_one_blob_share_their_work() {
    for to in engines().await {
        let (from, _) = engine().await;
        let data = bytes(10, 3 << 20);
        let size = data.len() as u64;
        let hash = from.add(data.clone()).await.unwrap().hash();
        let tasks = (0..4u64).map(|i| {
            let (from, to) = (from.clone(), to.clone());
            let part = ChunkRanges::from(ChunkNum(i * 768)..ChunkNum((i + 1) * 768));
            async move { transfer(&from, &to, hash, size, part).await }
        });
        futures_util::future::join_all(tasks).await;
        assert_eq!(
            to.status(hash).await.unwrap(),
            Some(BlobStatus::Complete { size })
        );
        assert_eq!(to.read_to_bytes(hash, 0..size).await.unwrap(), data);
    }
}

#[tokio::test]
async fn an_observer_sees_a_blob_come() {
    let (from, _) = engine().await;
    let (to, _) = engine().await;
    let hash = from.add(bytes(11, 200_000)).await.unwrap().hash();
    let mut seen = to.observe(hash);
    assert_eq!(seen.next().await.unwrap().unwrap(), Bitfield::empty());
    let half = ChunkRanges::from(..ChunkNum(96));
    transfer(&from, &to, hash, 200_000, half).await;
    let now = seen.next().await.unwrap().unwrap();
    assert_eq!(now.present_bytes(), 96 * 1024);
    transfer(&from, &to, hash, 200_000, ChunkRanges::all()).await;
    assert!(seen.next().await.unwrap().unwrap().is_complete());
}

#[tokio::test]
async fn absence_is_not_failure() {
    let (blobs, _) = engine().await;
    let hash = Hash::of(b"nowhere");
    assert_eq!(blobs.status(hash).await.unwrap(), None);
    let read = blobs.read_to_bytes(hash, 0..1).await.unwrap_err();
    assert_eq!(read.kind(), Kind::NotFound);
    let export = blobs.export(hash, ChunkRanges::all()).next().await.unwrap();
    assert_eq!(export.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(blobs.reader(hash).await.unwrap_err().kind(), Kind::NotFound);
    let empty = blobs.status(Hash::EMPTY).await.unwrap();
    assert_eq!(empty, Some(BlobStatus::Complete { size: 0 }));
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let (blobs, _) = engine().await;
    let hash = blobs.add(bytes(1, 10)).await.unwrap().hash();
    blobs.close().await.unwrap();
    assert_eq!(blobs.add(vec![1]).await.unwrap_err().kind(), Kind::Closed);
    assert_eq!(blobs.status(hash).await.unwrap_err().kind(), Kind::Closed);
    let read = blobs.read_to_bytes(hash, 0..1).await.unwrap_err();
    assert_eq!(read.to_string(), "blobs.read: closed: the store was closed");
}

//! Tests of sealed files: sealed bytes can be opened in any range, and nothing else can be.

mod common;
#[path = "../src/golden.rs"]
mod golden;

use std::{io, ops::Range};

use bytes::Bytes;
use common::{blobs, key};
use futures_util::{StreamExt, TryStreamExt};
use larder_store_api::{Kind, Result};
use larder_store_engine::{Blobs, ChunkNum, ChunkRanges, Encoded, Hash, Source, Trust};
use larder_sync_model::{
    seal::file::{FileKey, SEGMENT_LEN, open_range, seal_stream, sealed_len},
    tree::FileEntry,
};
use proptest::prelude::*;

const SEG: usize = SEGMENT_LEN;

fn text(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(b"text")
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

async fn sealed(key: &FileKey, plain: Vec<u8>) -> Vec<u8> {
    let stream = seal_stream(key, io::Cursor::new(plain));
    let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
    pieces.concat()
}

fn entry(blob: Hash, size: usize) -> FileEntry {
    FileEntry {
        size: size as u64,
        modified: 0,
        hash: Hash::EMPTY,
        blob,
        key: FileKey::from_bytes([5; 32]),
    }
}

async fn open(blobs: &Blobs, entry: &FileEntry, range: Range<u64>) -> Result<Vec<u8>> {
    let pieces = open_range(blobs, entry.blob, entry.size, &entry.key, range);
    let pieces: Vec<Bytes> = pieces.try_collect().await?;
    assert!(
        pieces
            .iter()
            .all(|piece| !piece.is_empty() && piece.len() <= SEG)
    );
    Ok(pieces.concat())
}

async fn add(blobs: &Blobs, bytes: Vec<u8>) -> Hash {
    blobs.add(bytes).await.unwrap().hash()
}

#[tokio::test]
async fn files_of_all_lengths_seal_and_open() {
    let blobs = blobs().await;
    let lens = [
        0,
        1,
        SEG - 1,
        SEG,
        SEG + 1,
        5 * SEG,
        16 * SEG - 1,
        16 * SEG,
        16 * SEG + 1,
        32 * SEG,
        50 * SEG + 7,
    ];
    for len in lens {
        let plain = text(len);
        let sealing = seal_stream(
            &FileKey::from_bytes([5; 32]),
            io::Cursor::new(plain.clone()),
        );
        let pin = blobs.add(Source::Stream(Box::pin(sealing))).await.unwrap();
        assert_eq!(pin.size(), Some(sealed_len(len as u64)), "{len}");
        let entry = entry(pin.hash(), len);
        assert_eq!(open(&blobs, &entry, 0..u64::MAX).await.unwrap(), plain);
        let (len, seg) = (len as u64, SEG as u64);
        for range in [
            0..1,
            0..seg,
            1..seg + 1,
            seg - 1..seg,
            seg..seg + 1,
            7..17 * seg + 3,
            len.saturating_sub(1)..len,
            len..len + 1,
            5..5,
            u64::MAX..u64::MAX,
        ] {
            let (from, to) = (range.start.min(len), range.end.min(len));
            let wanted = &plain[from as usize..to as usize];
            assert_eq!(
                open(&blobs, &entry, range).await.unwrap(),
                wanted,
                "{len} {from} {to}"
            );
        }
    }
}

#[tokio::test]
async fn the_layout_is_pinned() {
    let key = FileKey::from_bytes([5; 32]);
    let mut lines = Vec::new();
    for len in [0, 3, SEG, 2 * SEG + 5] {
        let bytes = sealed(&key, text(len)).await;
        lines.push(match len {
            0..=3 => data_encoding::HEXLOWER.encode(&bytes),
            _ => Hash::of(bytes).to_string(),
        });
    }
    let convergent = FileKey::convergent(&common::key(), Hash::from([1; 32]), 9);
    lines.push(Hash::from(*convergent.expose()).to_string());
    golden::check("file.hex", &lines);
}

#[tokio::test]
async fn only_what_was_sealed_opens() {
    let blobs = blobs().await;
    let key = FileKey::from_bytes([5; 32]);
    let len = 3 * SEG + 100;
    let whole = sealed(&key, text(len)).await;
    let kind = async |bytes: Vec<u8>, len: usize, range: Range<u64>| {
        let entry = entry(add(&blobs, bytes).await, len);
        open(&blobs, &entry, range).await.unwrap_err().kind()
    };
    let all = 0..u64::MAX;
    // The file is shorter or longer than the entry says, by a byte or by segments.
    for cut in [1, 16, 100, 116, SEG, SEG + 16] {
        let short = whole[..whole.len() - cut].to_vec();
        assert_eq!(kind(short, len, all.clone()).await, Kind::Corrupt);
    }
    assert_eq!(
        kind([&whole[..], &[0]].concat(), len, all.clone()).await,
        Kind::Corrupt
    );
    assert_eq!(
        kind([&whole[..], &[0; 16]].concat(), len, 0..1).await,
        Kind::Corrupt
    );
    // Here the entry agrees, but the segments show which one is the last.
    let cut = whole[..2 * (SEG + 16)].to_vec();
    assert_eq!(kind(cut, 2 * SEG, all.clone()).await, Kind::Corrupt);
    assert_eq!(kind(vec![0; 16], 0, all.clone()).await, Kind::Corrupt);
    // Segments are swapped or changed.
    let mut swapped = whole.clone();
    swapped[..2 * (SEG + 16)].rotate_left(SEG + 16);
    assert_eq!(kind(swapped, len, all.clone()).await, Kind::Corrupt);
    let mut changed = whole.clone();
    changed[SEG + 16 + 5] ^= 1;
    assert_eq!(kind(changed.clone(), len, all.clone()).await, Kind::Corrupt);
    // Other segments of it can still be opened.
    let entry = entry(add(&blobs, changed).await, len);
    let last = open(&blobs, &entry, 2 * SEG as u64..u64::MAX)
        .await
        .unwrap();
    assert_eq!(last, text(len)[2 * SEG..]);
    // Another key.
    let mut other = entry.clone();
    other.key = FileKey::from_bytes([6; 32]);
    let error = open(&blobs, &other, 0..1).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    other.blob = Hash::of("not here");
    let error = open(&blobs, &other, 0..1).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

/// Whoever lists a file says how long it is, and may be the one who gave its first bytes and nothing more.
#[tokio::test]
async fn a_length_that_nobody_has_is_an_error() {
    let (all, some) = (blobs().await, blobs().await);
    let hash = add(&all, text(4 * SEG)).await;
    let first = ChunkRanges::from(..ChunkNum(16));
    let mut import = some
        .import(hash, 4 * SEG as u64, Trust::Untrusted)
        .await
        .unwrap();
    let mut items = all.export(hash, first);
    while let Some(item) = items.try_next().await.unwrap() {
        if !matches!(item, Encoded::Size(_)) {
            import.push(item).await.unwrap();
        }
    }
    import.finish().await.unwrap();
    for size in [u64::MAX, u64::MAX - 1, u64::MAX / 2, 1 << 50] {
        for range in [0..u64::MAX, 0..1, size - 1..size, size / 2..size] {
            let key = FileKey::from_bytes([5; 32]);
            let opened = open_range(&some, hash, size, &key, range.clone());
            let opened: Result<Vec<Bytes>> = opened.try_collect().await;
            let kind = opened.unwrap_err().kind();
            assert!(
                matches!(kind, Kind::Corrupt | Kind::NotFound),
                "{size}, {range:?}: {kind:?}"
            );
        }
    }
}

#[tokio::test]
async fn what_comes_before_damage_is_handed_out() {
    let blobs = blobs().await;
    let len = 40 * SEG;
    let mut bytes = sealed(&FileKey::from_bytes([5; 32]), text(len)).await;
    bytes[33 * (SEG + 16)] ^= 1;
    let entry = entry(add(&blobs, bytes).await, len);
    let mut pieces = open_range(&blobs, entry.blob, entry.size, &entry.key, 0..u64::MAX);
    let mut got = Vec::new();
    let error = loop {
        match pieces.next().await.unwrap() {
            Ok(piece) => got.extend_from_slice(&piece),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::Corrupt);
    assert_eq!(got, text(len)[..32 * SEG]);
    assert!(pieces.next().await.is_none());
}

#[tokio::test]
async fn a_reader_that_fails_ends_the_sealing() {
    let reader = tokio_test_reader();
    let results: Vec<_> = seal_stream(&FileKey::random().unwrap(), reader)
        .collect()
        .await;
    assert!(results.last().unwrap().is_err());
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
}

/// Yields a few bytes, then fails.
fn tokio_test_reader() -> impl tokio::io::AsyncRead + Send + Unpin + 'static {
    let failed = tokio::io::AsyncReadExt::chain(io::Cursor::new(text(20 * SEG)), Failing);
    Box::pin(failed)
}

struct Failing;

impl tokio::io::AsyncRead for Failing {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Err(io::Error::other("the disk is gone")))
    }
}

#[tokio::test]
async fn sealing_and_opening_can_be_dropped() {
    let blobs = blobs().await;
    let len = 100 * SEG;
    let key = FileKey::from_bytes([5; 32]);
    let mut sealing = Box::pin(seal_stream(&key, io::Cursor::new(text(len))));
    sealing.next().await.unwrap().unwrap();
    drop(sealing);
    let entry = entry(add(&blobs, sealed(&key, text(len)).await).await, len);
    let mut opening = open_range(&blobs, entry.blob, entry.size, &entry.key, 0..u64::MAX);
    opening.next().await.unwrap().unwrap();
    drop(opening);
    assert_eq!(open(&blobs, &entry, 0..u64::MAX).await.unwrap(), text(len));
}

#[test]
fn keys_are_of_a_file_and_a_group() {
    let hash = Hash::of("file");
    let convergent = FileKey::convergent(&key(), hash, 4);
    assert_eq!(convergent, FileKey::convergent(&key(), hash, 4));
    assert_ne!(convergent, FileKey::convergent(&key(), hash, 5));
    let other = larder_sync_model::keys::ReadKey::from_bytes([8; 32], 0);
    assert_ne!(convergent, FileKey::convergent(&other, hash, 4));
    assert_ne!(FileKey::random().unwrap(), FileKey::random().unwrap());
    assert_eq!(format!("{convergent:?}"), "FileKey(…)");
}

#[test]
fn no_length_overflows() {
    assert_eq!(sealed_len(0), 16);
    assert_eq!(sealed_len(SEG as u64), SEG as u64 + 16);
    assert_eq!(sealed_len(SEG as u64 + 1), SEG as u64 + 1 + 32);
    assert_eq!(sealed_len(u64::MAX), u64::MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn opening_anything_is_safe(bytes: Vec<u8>, len in 0..300usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let blobs = blobs().await;
            let entry = entry(add(&blobs, bytes).await, len);
            assert!(open(&blobs, &entry, 0..u64::MAX).await.is_err());
        });
    }
}

//! Measures the speed of sealing and opening files, next to the bare cipher:
//! `cargo run --release -p larder-sync-model --example seal [MiB]`.
#![allow(clippy::print_stdout)]

use std::{io, sync::Arc, time::Instant};

use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, aead::AeadInOut};
use futures_util::TryStreamExt;
use larder_store_engine::{Blobs, Hash, Source};
use larder_store_testkit::MemoryStore;
use larder_sync_model::{
    seal::file::{FileKey, SEGMENT_LEN, open_range, seal_stream},
    tree::FileEntry,
};

const ROUNDS: usize = 5;

#[tokio::main]
async fn main() -> larder_store_api::Result<()> {
    let mib = std::env::args().nth(1).and_then(|mib| mib.parse().ok());
    let len = mib.unwrap_or(256_usize) * 1024 * 1024;
    let key = FileKey::from_bytes([1; 32]);
    let plain: Arc<[u8]> = vec![7; len].into();

    let cipher = ChaCha20Poly1305::new(&[1; 32].into());
    let mut buffer = vec![7; SEGMENT_LEN];
    let raw = best(len, async || {
        for _ in 0..len / SEGMENT_LEN {
            let sealed =
                cipher.encrypt_inout_detached(&Nonce::default(), &[], buffer.as_mut_slice().into());
            std::hint::black_box(sealed).expect("a short text");
        }
        Ok(())
    })
    .await?;
    println!("bare cipher, one thread   {raw:6.0} MB/s");

    let seal = best(len, async || {
        let mut sealed = std::pin::pin!(seal_stream(&key, io::Cursor::new(plain.clone())));
        while let Some(piece) = sealed.try_next().await.expect("memory does not fail") {
            std::hint::black_box(piece);
        }
        Ok(())
    })
    .await?;
    println!(
        "sealing a stream          {seal:6.0} MB/s  {:.2} of it",
        seal / raw
    );

    let store = Arc::new(MemoryStore::new());
    let blobs = Blobs::open(store.clone(), store).await?;
    let source = seal_stream(&key, io::Cursor::new(plain.clone()));
    let pin = blobs.add(Source::Stream(Box::pin(source))).await?;
    let entry = FileEntry {
        size: len as u64,
        modified: 0,
        hash: Hash::EMPTY,
        blob: pin.hash(),
        key,
    };
    let read = best(len, async || {
        let mut pieces = blobs.read(entry.blob, 0..u64::MAX);
        while let Some(piece) = pieces.try_next().await? {
            std::hint::black_box(piece);
        }
        Ok(())
    })
    .await?;
    println!("reading it, still sealed  {read:6.0} MB/s");
    let open = best(len, async || {
        let mut pieces = open_range(&blobs, entry.blob, entry.size, &entry.key, 0..u64::MAX);
        while let Some(piece) = pieces.try_next().await? {
            std::hint::black_box(piece);
        }
        Ok(())
    })
    .await?;
    println!(
        "opening it from a store   {open:6.0} MB/s  {:.2} of it",
        open / raw
    );
    Ok(())
}

/// Returns the best of several rounds, in MB/s.
async fn best(
    len: usize,
    mut work: impl AsyncFnMut() -> larder_store_api::Result<()>,
) -> larder_store_api::Result<f64> {
    let mut best: f64 = 0.0;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        work().await?;
        best = best.max(len as f64 / 1e6 / start.elapsed().as_secs_f64());
    }
    Ok(best)
}

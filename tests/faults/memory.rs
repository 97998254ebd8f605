//! Tests that memory is bounded: every operation on a large blob uses little of it.

use std::{path::Path, time::Duration};

use futures_util::TryStreamExt;
use larder::{
    ChunkRanges, Hash, Root, Store,
    engine::Source,
    iroh::{BlobTicket, FetchOptions, connect, fetch, ticket, to_engine_root},
};
use tests::{
    child::{self, Child},
    data::{MIB, stream},
    memory::Peak,
    node::{loopback, our_node},
    store::open,
};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// The most memory that each operation may use.
const MOST: u64 = 64 * MIB as u64;

/// Runs one operation, and reports its memory.
async fn measured<T>(what: &str, work: impl Future<Output = T>) -> T {
    let peak = Peak::begin();
    let done = work.await;
    let growth = peak.growth();
    child::say(format!("{what}: {} KiB", growth / 1024));
    assert!(growth <= MOST, "{what} took {growth} bytes");
    done
}

async fn count<T>(mut items: larder::Listing<T>, len: impl Fn(T) -> usize) -> u64 {
    let mut total = 0;
    while let Some(item) = items.try_next().await.unwrap() {
        total += len(item) as u64;
    }
    total
}

async fn use_it(store: &Store, dir: &Path, len: u64) -> Root {
    let blobs = store.blobs();
    let data = Source::Stream(stream(1, len as usize));
    let pin = measured("add a stream", blobs.add(data)).await.unwrap();
    let hash = pin.hash();
    let read = measured("read", count(blobs.read(hash, 0..len), |piece| piece.len())).await;
    assert_eq!(read, len);
    let items = blobs.export(hash, ChunkRanges::all());
    let leaf = |item| match item {
        larder::Encoded::Leaf(leaf) => leaf.data.len(),
        _ => 0,
    };
    assert_eq!(measured("export", count(items, leaf)).await, len);
    let file = dir.join("file");
    measured("read and seek", async {
        let mut reader = blobs.reader(hash).await.unwrap();
        let mut file = tokio::fs::File::create(&file).await.unwrap();
        tokio::io::copy(&mut reader, &mut file).await.unwrap();
        for i in 0..200 {
            reader
                .seek(std::io::SeekFrom::Start(i * len / 200))
                .await
                .unwrap();
            reader.read_exact(&mut [0; 1000]).await.unwrap();
        }
    })
    .await;
    measured("add a file", async {
        // Another blob, of nearly the same length.
        let longer = tokio::fs::File::options().append(true).open(&file).await;
        let mut longer = longer.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut longer, b"more")
            .await
            .unwrap();
        tokio::io::AsyncWriteExt::flush(&mut longer).await.unwrap();
        let added = blobs.add(file.as_path()).await.unwrap();
        assert_eq!(added.size(), Some(len + 4));
        let hash = added.hash();
        drop(added);
        blobs.delete(vec![hash]).await.unwrap();
    })
    .await;
    tokio::fs::remove_file(&file).await.unwrap();
    measured("scrub", async {
        assert_eq!(tests::store::unsound(blobs).await, []);
    })
    .await;
    pin.root()
}

async fn serve(dir: &Path, len: u64) {
    let store = open(&dir.join("from")).await;
    let root = use_it(&store, dir, len).await;
    let node = our_node(store.blobs(), &[root]).await;
    let ticket = ticket(node.endpoint(), root).await.unwrap();
    let peak = Peak::begin();
    child::say(format!("ticket {ticket}"));
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let growth = peak.growth();
        assert!(growth <= MOST, "serving took {growth} bytes");
        child::say(format!("serve: {} KiB", growth / 1024));
    }
}

async fn get(dir: &Path, len: u64) {
    let store = open(&dir.join("to")).await;
    let ticket: BlobTicket = child::argument("TICKET").parse().unwrap();
    let root = to_engine_root(ticket.hash_and_format());
    let endpoint = loopback().await;
    let connection = connect(&endpoint, ticket.addr().clone(), Duration::from_secs(30)).await;
    let connection = connection.unwrap();
    let fetched = fetch(store.blobs(), &connection, root, FetchOptions::default());
    let fetched = measured("fetch", fetched).await.unwrap();
    assert_eq!(fetched.bytes_received, len);
    child::say(format!("done {}", fetched.pin.hash()));
    endpoint.close().await;
}

#[test]
fn a_large_blob_takes_little() {
    takes_little("memory::a_large_blob_takes_little", 256 * MIB as u64);
}

mod slow {
    use super::*;

    #[test]
    #[ignore = "slow: it writes four gigabytes"]
    fn a_gigabyte_takes_little() {
        takes_little("memory::slow::a_gigabyte_takes_little", 1024 * MIB as u64);
    }
}

fn takes_little(test: &str, len: u64) {
    if let Some(job) = child::job() {
        let dir = child::argument("DIR");
        let dir = Path::new(&dir);
        return match job.as_str() {
            "serve" => child::run(serve(dir, len)),
            _ => child::run(get(dir, len)),
        };
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let server = Child::start(test, "serve", &[("DIR", &dir)]);
    let ticket = server.hear("ticket ");
    let said = Child::start(test, "get", &[("DIR", &dir), ("TICKET", &ticket)]).finish();
    let done = said.last().unwrap().strip_prefix("done ").unwrap();
    done.parse::<Hash>().unwrap();
    // For readers of the output.
    for line in server
        .kill()
        .iter()
        .chain(&said)
        .filter(|line| line.contains("KiB"))
    {
        if !line.starts_with("serve") {
            child::note(line);
        }
    }
}

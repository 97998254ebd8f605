//! Tests of peers that break the rules, against a store in a folder: they are refused at the first
//! wrong group, memory stays small, and data verified before stays.

use std::{path::Path, time::Duration};

use futures_util::TryStreamExt;
use iroh::{
    endpoint::Connection,
    protocol::{AcceptError, ProtocolHandler, Router},
};
use larder::{
    BlobStatus, Blobs, ChunkRanges, Encoded, Error, Hash, Kind, Root,
    iroh::{FetchOptions, fetch},
};
use tests::{
    child::{self, Child},
    data::{KIB, MIB, bytes},
    memory::Peak,
    node::{connection, get, loopback, our_node},
    store::{open, read, try_open, unsound},
};

const GROUP: usize = 16 * KIB;
const LEN: usize = 24 * MIB;
/// The most memory that any peer's behaviour may use.
const MOST: u64 = 64 * MIB as u64;

/// Answers every request in the same way.
#[derive(Debug, Clone)]
struct Peer {
    sends: bytes::Bytes,
    then: Then,
}

/// The behaviour of the peer after it has sent its data.
#[derive(Debug, Clone, Copy)]
enum Then {
    Ends,
    Stalls,
    /// Sends the same byte for ever.
    Floods(u8),
}

impl ProtocolHandler for Peer {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        while let Ok((mut send, mut recv)) = connection.accept_bi().await {
            let asked = recv.read_to_end(MIB).await;
            // A caller that has enough stops the stream.
            if asked.is_err() || send.write_all(&self.sends).await.is_err() {
                continue;
            }
            match self.then {
                Then::Ends => drop(send.finish()),
                Then::Stalls => {}
                Then::Floods(byte) => while send.write_all(&[byte; 64 * KIB]).await.is_ok() {},
            }
            send.stopped().await.ok();
        }
        Ok(())
    }
}

/// A blob as a correct peer sends it, and the position of each of its groups in that.
struct Good {
    root: Root,
    encoded: Vec<u8>,
    groups: Vec<usize>,
}

async fn good(blobs: &Blobs) -> Good {
    let root = blobs.add(bytes(1, LEN)).await.unwrap().root();
    let items: Vec<Encoded> = blobs
        .export(root.hash, ChunkRanges::all())
        .try_collect()
        .await
        .unwrap();
    let (mut encoded, mut groups) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Encoded::Size(size) => encoded.extend(size.to_le_bytes()),
            Encoded::Parent(parent) => {
                encoded.extend(parent.pair.0.as_bytes());
                encoded.extend(parent.pair.1.as_bytes());
            }
            Encoded::Leaf(leaf) => {
                groups.push(encoded.len());
                encoded.extend(leaf.data);
            }
        }
    }
    Good {
        root,
        encoded,
        groups,
    }
}

async fn refused(blobs: &Blobs, root: Root, peer: Peer, options: FetchOptions) -> Error {
    let router = Router::builder(loopback().await)
        .accept(larder::iroh::ALPN, peer)
        .spawn();
    let endpoint = loopback().await;
    let connection = connection(&endpoint, router.endpoint()).await;
    let error = fetch(blobs, &connection, root, options).await.unwrap_err();
    endpoint.close().await;
    router.shutdown().await.unwrap();
    error
}

/// Opens a store whose handles were dropped, after the work that they had begun has ended.
async fn open_again(dir: &Path) -> larder::Store {
    let opening = async {
        loop {
            match try_open(dir).await {
                Err(error) if error.kind() == Kind::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                opened => break opened.expect("the store opens"),
            }
        }
    };
    let opened = tokio::time::timeout(Duration::from_secs(60), opening).await;
    opened.expect("the store is let go")
}

/// Returns the number of bytes that are here.
async fn here(blobs: &Blobs, hash: Hash) -> u64 {
    match blobs.status(hash).await.unwrap() {
        None => 0,
        Some(BlobStatus::Complete { size }) => size,
        Some(BlobStatus::Partial { present, .. }) => present,
    }
}

async fn hostile(dir: &Path) {
    let source = open(&dir.join("source")).await;
    let good = good(source.blobs()).await;
    let quick = || FetchOptions {
        idle_timeout: Duration::from_millis(500),
        ..FetchOptions::default()
    };
    let peer = |sends: &[u8], then| Peer {
        sends: bytes::Bytes::copy_from_slice(sends),
        then,
    };
    let prefix = |groups: usize| &good.encoded[..good.groups[groups]];
    let wrong_byte = |groups: usize| {
        let mut encoded = good.encoded.clone();
        encoded[good.groups[groups] + 77] ^= 1;
        peer(&encoded, Then::Ends)
    };
    let wrong_size = |size: u64, then| {
        let mut encoded = good.encoded.clone();
        encoded[..8].copy_from_slice(&size.to_le_bytes());
        peer(&encoded, then)
    };
    let wrong = Kind::Corrupt;
    // The peer's behaviour, the expected error, and the number of correct groups that came before, if
    // that many must stay: fewer than the first request asks for, since these peers answer each request
    // from the start.
    let cases = [
        ("a wrong first group", wrong_byte(0), wrong, Some(0)),
        ("a wrong group", wrong_byte(500), wrong, Some(500)),
        (
            "a longer size",
            wrong_size(LEN as u64 + 1, Then::Ends),
            wrong,
            None,
        ),
        (
            "a shorter size",
            wrong_size(LEN as u64 - 1, Then::Ends),
            wrong,
            None,
        ),
        (
            "a size without end",
            wrong_size(1 << 40, Then::Floods(0)),
            wrong,
            None,
        ),
        // A size of zero means that the peer has nothing, whatever comes after it.
        ("zeros", peer(&[], Then::Floods(0)), Kind::NotFound, Some(0)),
        (
            "a flood",
            peer(&1000_u64.to_le_bytes(), Then::Floods(0)),
            wrong,
            Some(0),
        ),
        (
            "a flood after the size",
            peer(&good.encoded[..8], Then::Floods(255)),
            wrong,
            Some(0),
        ),
        (
            "a flood after a while",
            peer(prefix(450), Then::Floods(7)),
            wrong,
            Some(450),
        ),
        ("garbage", peer(&bytes(5, MIB), Then::Ends), wrong, Some(0)),
        (
            "a stall",
            peer(prefix(350), Then::Stalls),
            Kind::Unavailable,
            Some(350),
        ),
        (
            "silence",
            peer(&[], Then::Stalls),
            Kind::Unavailable,
            Some(0),
        ),
        (
            "an early end",
            peer(prefix(300), Then::Ends),
            Kind::NotFound,
            Some(300),
        ),
    ];
    let mut last = None;
    for (i, (what, peer, kind, kept)) in cases.into_iter().enumerate() {
        let dir = dir.join(format!("{i}"));
        let store = open(&dir).await;
        let peak = Peak::begin();
        let error = refused(store.blobs(), good.root, peer, quick()).await;
        let growth = peak.growth();
        // A size beyond all limits may be reported as such.
        let too_large = what == "garbage" && error.kind() == Kind::TooLarge;
        assert!(error.kind() == kind || too_large, "{what}: {error:?}");
        assert!(
            error.operation() == "blobs.fetch" || too_large,
            "{what}: {error:?}"
        );
        assert!(growth <= MOST, "{what} took {growth} bytes");
        // As after a crash: nothing is closed. Verified data stays, and is correct.
        drop(store);
        let store = open_again(&dir).await;
        let present = here(store.blobs(), good.root.hash).await;
        match kept {
            Some(groups) => assert_eq!(present, (groups * GROUP) as u64, "{what}"),
            None => assert!(present < LEN as u64, "{what}"),
        }
        assert_eq!(unsound(store.blobs()).await, [], "{what}");
        child::say(format!("{what}: {} KiB: {error}", growth / 1024));
        if kept == Some(350) {
            last = Some(store);
        }
    }
    // A correct peer sends the rest.
    let (store, node) = (last.unwrap(), our_node(source.blobs(), &[good.root]).await);
    let fetched = get(store.blobs(), &node, good.root).await.unwrap();
    assert_eq!(fetched.bytes_received, (LEN - 350 * GROUP) as u64);
    assert!(read(store.blobs(), good.root.hash).await == bytes(1, LEN));
    node.shutdown().await.unwrap();
    child::say("done");
}

#[test]
fn are_refused_in_little_memory() {
    const TEST: &str = "hostile::are_refused_in_little_memory";
    if child::job().is_some() {
        return child::run(hostile(Path::new(&child::argument("DIR"))));
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let said = Child::start(TEST, "fetch", &[("DIR", &dir)]).finish();
    assert_eq!(said.last().unwrap(), "done");
}

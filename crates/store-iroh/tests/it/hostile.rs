//! Peers that break the rules: refused at the first wrong group, with words for people, and what was
//! verified before stays.

use std::{sync::Arc, time::Duration};

use bao_tree::ChunkRanges;
use iroh::{
    Endpoint,
    endpoint::{Connection, SendStream, VarInt},
    protocol::{AcceptError, ProtocolHandler, Router},
};
use iroh_blobs::{
    Hash,
    api::Store,
    protocol::{ERR_INTERNAL, ERR_LIMIT, ERR_PERMISSION},
    store::mem::MemStore,
};
use larder_store_api::{Error, Kind, Result};
use larder_store_engine::{BlobStatus, Blobs, Root};
use larder_store_iroh::{FetchOptions, Fetched, fetch, to_engine_hash};

use crate::support::{KIB, MIB, bytes, connection, engine, iroh_node, loopback};

/// The behaviour of a peer once it was asked.
#[derive(Debug, Clone)]
enum Does {
    /// Sends these bytes, and then…
    Sends(Vec<u8>, Then),
}

#[derive(Debug, Clone, Copy)]
enum Then {
    /// …ends the stream.
    Ends,
    /// …nothing more, for good.
    Stalls,
    /// …gives up the stream with this code.
    Resets(VarInt),
    /// …closes the connection with this code.
    Closes(VarInt),
    /// …sends zeros for ever.
    Floods,
}

#[derive(Debug, Clone)]
struct Peer(Arc<Does>);

impl Peer {
    async fn answer(&self, connection: &Connection, mut send: SendStream) {
        let Does::Sends(bytes, then) = &*self.0;
        // A caller that has enough stops the stream.
        if send.write_all(bytes).await.is_err() {
            return;
        }
        match then {
            Then::Ends => {
                send.finish().ok();
                send.stopped().await.ok();
            }
            Then::Stalls => {
                send.stopped().await.ok();
            }
            Then::Resets(code) => {
                send.reset(*code).ok();
            }
            Then::Closes(code) => connection.close(*code, b"so there"),
            Then::Floods => while send.write_all(&[0; 64 * KIB]).await.is_ok() {},
        }
    }
}

impl ProtocolHandler for Peer {
    async fn accept(&self, connection: Connection) -> std::result::Result<(), AcceptError> {
        while let Ok((send, mut recv)) = connection.accept_bi().await {
            recv.read_to_end(MIB).await.unwrap();
            self.answer(&connection, send).await;
        }
        Ok(())
    }
}

struct Case {
    blobs: Blobs,
    endpoint: Endpoint,
    router: Router,
    connection: Connection,
}

impl Case {
    async fn start(bytes: Vec<u8>, then: Then) -> Self {
        let peer = Peer(Arc::new(Does::Sends(bytes, then)));
        let router = Router::builder(loopback().await)
            .accept(iroh_blobs::ALPN, peer)
            .spawn();
        let endpoint = loopback().await;
        let connection = connection(&endpoint, router.endpoint()).await;
        Self {
            blobs: engine().await,
            endpoint,
            router,
            connection,
        }
    }

    async fn fetch(&self, root: Root, options: FetchOptions) -> Result<Fetched> {
        fetch(&self.blobs, &self.connection, root, options).await
    }

    async fn end(self) {
        self.endpoint.close().await;
        self.router.shutdown().await.unwrap();
    }

    async fn here(&self, root: Root) -> u64 {
        match self.blobs.status(root.hash).await.unwrap() {
            None => 0,
            Some(BlobStatus::Complete { size }) => size,
            Some(BlobStatus::Partial { present, .. }) => present,
        }
    }
}

/// Some data as a good peer would send it.
struct Good {
    data: Vec<u8>,
    root: Root,
    encoded: Vec<u8>,
    /// The offset of each leaf in the encoding.
    leaves: Vec<usize>,
}

async fn good(len: usize) -> Good {
    let data = bytes(77, len);
    let memory = Store::from(MemStore::new());
    let tag = memory.add_slice(&data).temp_tag().await.unwrap();
    let encoded = memory.export_bao(tag.hash(), ChunkRanges::all());
    let encoded = encoded.bao_to_vec().await.unwrap();
    let leaves = data
        .chunks(16 * KIB)
        .map(|leaf| {
            let start = &leaf[..32.min(leaf.len())];
            let found = encoded.windows(start.len()).position(|w| w == start);
            found.unwrap()
        })
        .collect();
    Good {
        root: Root::raw(to_engine_hash(tag.hash())),
        data,
        encoded,
        leaves,
    }
}

fn options() -> FetchOptions {
    FetchOptions::default()
}

async fn refused(bytes: Vec<u8>, then: Then, root: Root, kept: u64) -> Error {
    let mut options = options();
    if matches!(then, Then::Stalls) {
        options.idle_timeout = Duration::from_millis(400);
    }
    let case = Case::start(bytes, then).await;
    let error = case.fetch(root, options).await.unwrap_err();
    let here = case.here(root).await;
    if matches!(then, Then::Ends) {
        assert_eq!(here, kept, "{error:?}");
    } else {
        // The end may overtake what was sent before, or come early on a slow machine.
        assert!(here <= kept, "{error:?}");
    }
    case.end().await;
    error
}

const WRONG: &str = "blobs.fetch: damaged: the peer sent bytes that are not those of the hash";
const LACKS: &str = "blobs.fetch: not found: the peer does not have all of it";
const STALLS: &str = "blobs.fetch: unavailable: the peer does not send anything any more";
const LOST: &str = "blobs.fetch: unavailable: the connection to the peer was lost";

#[tokio::test]
async fn a_good_peer_is_believed() {
    for len in [1, KIB, 16 * KIB, 16 * KIB + 1, 2 * MIB] {
        let good = good(len).await;
        let case = Case::start(good.encoded, Then::Ends).await;
        let fetched = case.fetch(good.root, options()).await.unwrap();
        assert_eq!(fetched.bytes_received, len as u64);
        let read = case.blobs.read_to_bytes(good.root.hash, 0..u64::MAX).await;
        assert!(read.unwrap() == good.data);
        case.end().await;
    }
}

#[tokio::test]
async fn wrong_bytes() {
    for len in [1, KIB, 16 * KIB, 16 * KIB + 1, 2 * MIB] {
        let good = good(len).await;
        for (i, leaf) in good.leaves.iter().enumerate().step_by(37) {
            let mut encoded = good.encoded.clone();
            encoded[*leaf] ^= 1;
            let kept = (i * 16 * KIB) as u64;
            let error = refused(encoded, Then::Ends, good.root, kept).await;
            assert_eq!(error.to_string(), WRONG, "length {len}, leaf {i}");
        }
        if len > 16 * KIB {
            // A wrong node of the tree, before any leaf.
            let mut encoded = good.encoded.clone();
            encoded[10] ^= 1;
            let error = refused(encoded, Then::Ends, good.root, 0).await;
            assert_eq!(error.to_string(), WRONG);
        }
    }
}

#[tokio::test]
async fn wrong_sizes() {
    for len in [1_u64, 1024, 16 * 1024, 16 * 1024 + 1, 2 * 1024 * 1024] {
        let good = good(usize::try_from(len).unwrap()).await;
        let claims = [
            0,
            len - 1,
            len + 1,
            len + 1024,
            2 * len + 16 * 1024,
            1 << 40,
            1 << 62,
            u64::MAX - 1023,
            u64::MAX,
        ];
        for claim in claims {
            let mut encoded = good.encoded.clone();
            encoded[..8].copy_from_slice(&claim.to_le_bytes());
            let case = Case::start(encoded, Then::Floods).await;
            let error = case.fetch(good.root, options()).await.unwrap_err();
            let kind = error.kind();
            // A size beyond what a store can keep is refused by its own limit.
            assert!(
                kind == Kind::Corrupt
                    || claim == 0 && kind == Kind::NotFound
                    || claim > 1 << 50 && kind == Kind::TooLarge,
                "length {len}, claim {claim}: {error:?}"
            );
            // Groups before the first wrong one may be right, whatever the size.
            assert!(case.here(good.root).await <= len);
            case.end().await;
        }
    }
}

#[tokio::test]
async fn a_flood_is_refused_at_the_first_group() {
    let good = good(16 * KIB + 1).await;
    let wrong_size = 1000_u64.to_le_bytes();
    for prefix in [&wrong_size[..], &good.encoded[..8], &good.encoded[..80]] {
        let case = Case::start(prefix.to_vec(), Then::Floods).await;
        let received = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let seen = received.clone();
        let options = FetchOptions {
            progress: Some(Arc::new(move |progress| {
                seen.store(
                    progress.bytes_received,
                    std::sync::atomic::Ordering::Relaxed,
                );
            })),
            ..FetchOptions::default()
        };
        let error = case.fetch(good.root, options).await.unwrap_err();
        assert_eq!(error.to_string(), WRONG);
        let received = received.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(received, 0, "no group was right");
        case.end().await;
    }
}

#[tokio::test]
async fn more_than_was_asked_for_is_not_taken() {
    let good = good(100 * KIB).await;
    let mut encoded = good.encoded.clone();
    encoded.extend(bytes(5, 1000));
    let case = Case::start(encoded, Then::Ends).await;
    let fetched = case.fetch(good.root, options()).await.unwrap();
    assert_eq!(fetched.bytes_received, 100 * KIB as u64);
    let read = case.blobs.read_to_bytes(good.root.hash, 0..u64::MAX).await;
    assert!(read.unwrap() == good.data);
    case.end().await;
}

#[tokio::test]
async fn garbage() {
    let good = good(100 * KIB).await;
    for seed in 0..5 {
        let error = refused(bytes(seed, 10_000), Then::Ends, good.root, 0).await;
        let kind = error.kind();
        assert!(matches!(kind, Kind::Corrupt | Kind::TooLarge), "{error:?}");
    }
}

#[tokio::test]
async fn stalls() {
    let good = good(2 * MIB).await;
    for (sent, kept) in [
        (0, 0),
        (4, 0),
        (8, 0),
        (good.leaves[3] + 100, 3),
        (good.leaves[100], 100),
    ] {
        let kept = (kept * 16 * KIB) as u64;
        let encoded = good.encoded[..sent].to_vec();
        let error = refused(encoded, Then::Stalls, good.root, kept).await;
        assert_eq!(error.to_string(), STALLS);
        assert!(error.can_retry());
    }
}

#[tokio::test]
async fn an_early_end() {
    let good = good(2 * MIB).await;
    for (sent, kept) in [
        (0, 0),
        (4, 0),
        (8, 0),
        (good.leaves[3], 3),
        (good.leaves[3] + 100, 3),
        (good.leaves[100], 100),
    ] {
        let kept = (kept * 16 * KIB) as u64;
        let encoded = good.encoded[..sent].to_vec();
        let error = refused(encoded, Then::Ends, good.root, kept).await;
        assert_eq!(error.to_string(), LACKS, "after {sent}: {error:?}");
    }
}

#[tokio::test]
async fn a_reset_says_why() {
    let good = good(2 * MIB).await;
    for (code, text) in [
        (
            ERR_PERMISSION,
            "blobs.fetch: denied: the peer refuses to give this",
        ),
        (ERR_INTERNAL, LACKS),
        (ERR_LIMIT, LOST),
    ] {
        let error = refused(Vec::new(), Then::Resets(code), good.root, 0).await;
        assert_eq!(error.to_string(), text);
        let encoded = good.encoded[..good.leaves[100]].to_vec();
        let kept = 100 * 16 * KIB as u64;
        let error = refused(encoded, Then::Resets(code), good.root, kept).await;
        assert_eq!(error.to_string(), text);
    }
}

#[tokio::test]
async fn a_lost_connection() {
    let good = good(2 * MIB).await;
    let encoded = good.encoded[..good.leaves[100]].to_vec();
    let kept = 100 * 16 * KIB as u64;
    let bye = VarInt::from_u32(0);
    let error = refused(encoded, Then::Closes(bye), good.root, kept).await;
    assert_eq!(error.to_string(), LOST);
    let error = refused(Vec::new(), Then::Closes(ERR_PERMISSION), good.root, 0).await;
    assert_eq!(error.kind(), Kind::Denied);
}

#[tokio::test]
async fn what_was_verified_is_not_fetched_again() {
    let good = good(2 * MIB).await;
    let encoded = good.encoded[..good.leaves[100]].to_vec();
    let case = Case::start(encoded, Then::Ends).await;
    case.fetch(good.root, options()).await.unwrap_err();
    let memory = Store::from(MemStore::new());
    let _tag = memory.add_slice(&good.data).temp_tag().await.unwrap();
    let node = iroh_node(&memory).await;
    let connection = connection(&case.endpoint, node.endpoint()).await;
    let fetched = fetch(&case.blobs, &connection, good.root, options()).await;
    assert_eq!(fetched.unwrap().bytes_received, 28 * 16 * KIB as u64);
    node.shutdown().await.unwrap();
    case.end().await;
}

#[tokio::test]
async fn more_than_is_allowed_is_not_taken() {
    let good = good(2 * MIB).await;
    let size = 2 * MIB as u64;
    for (limit, fits) in [(size, true), (size - 1, false), (0, false)] {
        let case = Case::start(good.encoded.clone(), Then::Ends).await;
        let options = FetchOptions {
            max_bytes: Some(limit),
            ..FetchOptions::default()
        };
        let fetched = case.fetch(good.root, options).await;
        if fits {
            fetched.unwrap();
        } else {
            let error = fetched.unwrap_err();
            assert_eq!(error.kind(), Kind::TooLarge, "{error}");
            assert_eq!(case.here(good.root).await, 0);
        }
        case.end().await;
    }
}

#[tokio::test]
async fn a_sequence_that_is_none() {
    let data = good(100).await;
    let root = Root::hash_seq(data.root.hash);
    let case = Case::start(data.encoded, Then::Ends).await;
    let error = case.fetch(root, options()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    case.end().await;

    // One that claims to be longer than any.
    let mut header = (65_u64 << 20).to_le_bytes().to_vec();
    header.extend(bytes(1, 1000));
    let case = Case::start(header, Then::Stalls).await;
    let root = Root::hash_seq(to_engine_hash(Hash::new(b"x")));
    let error = case.fetch(root, options()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge, "{error}");
    case.end().await;
}

//! Tests that kill a fetch repeatedly: durable data is not transferred again.
//!
//! Transferred bytes are counted at the sender, in UDP bytes.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use iroh::{
    endpoint::Connection,
    protocol::{AcceptError, ProtocolHandler, Router},
};
use larder::{
    Blobs, Hash, Root,
    engine::{RECORD_EVERY, RECORD_EVERY_BYTES, Source},
    iroh::{
        BlobTicket, FetchOptions, Provider, Shares, connect, fetch, load_collection,
        store_collection, ticket, to_engine_root,
    },
};
use rand::Rng as _;
use tests::{
    child::{self, Child},
    data::{KIB, MIB, Seed, bytes, rng, stream},
    node::loopback,
    store::{claimed_payloads, open, payloads, unsound},
};

/// The interval at which the counter is read.
const SAMPLE: Duration = Duration::from_millis(5);
/// The number of children that are killed; the next one may finish, and the cost shows whether any made
/// progress.
const MOST_KILLS: u32 = 30;
/// The most verified bytes that may wait for their record, however slow the disk is: the engine waits
/// before it accepts more.
const MOST_UNRECORDED: u64 = 9 * RECORD_EVERY_BYTES;

/// Serves blobs, and counts the bytes that are sent.
#[derive(Debug, Clone)]
struct Counting {
    provider: Provider,
    connections: Arc<Mutex<Vec<Connection>>>,
}

impl Counting {
    fn sent(&self) -> u64 {
        let connections = self.connections.lock().unwrap();
        connections.iter().map(|c| c.stats().udp_tx.bytes).sum()
    }
}

impl ProtocolHandler for Counting {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        self.connections.lock().unwrap().push(connection.clone());
        self.provider.accept(connection).await
    }
}

struct Server {
    counting: Counting,
    _router: Router,
    ticket: BlobTicket,
}

async fn serve(blobs: &Blobs, root: Root) -> Server {
    let shares = Shares::new(blobs);
    shares.allow(root).unwrap();
    let counting = Counting {
        provider: Provider::new(blobs, &shares),
        connections: Arc::default(),
    };
    let router = Router::builder(loopback().await)
        .accept(larder::iroh::ALPN, counting.clone())
        .spawn();
    let ticket = ticket(router.endpoint(), root).await.unwrap();
    Server {
        counting,
        _router: router,
        ticket,
    }
}

/// The cost that the kills may cause.
#[derive(Debug, Default)]
struct Cost {
    kills: u32,
    allowed: u64,
}

impl Server {
    /// Runs children that fetch, and kills them after `next` bytes, until one is done.
    async fn kill_until_done(&self, test: &str, dir: &Path, mut next: impl FnMut() -> u64) -> Cost {
        let mut cost = Cost::default();
        loop {
            let ticket = self.ticket.to_string();
            let mut child = Child::start(test, "fetch", &[("DIR", &dir), ("TICKET", &ticket)]);
            let limit = match cost.kills {
                MOST_KILLS => u64::MAX,
                _ => next(),
            };
            let begin = self.counting.sent();
            let mut samples = vec![(Instant::now(), begin)];
            while self.counting.sent() - begin < limit && !child.has_ended() {
                tokio::time::sleep(SAMPLE).await;
                samples.push((Instant::now(), self.counting.sent()));
            }
            if child.has_ended() {
                assert_eq!(child.finish().last().unwrap(), "done");
                return cost;
            }
            child.kill();
            // Data in transit still counts.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let end = self.counting.sent();
            let recent = samples.iter().rfind(|(at, _)| at.elapsed() > RECORD_EVERY);
            let last_second = end - recent.map_or(begin, |(_, sent)| *sent);
            cost.kills += 1;
            cost.allowed += (RECORD_EVERY_BYTES + last_second).min(MOST_UNRECORDED);
        }
    }

    /// Checks that no more was sent than `size` bytes, the allowed cost of the kills, and a share for
    /// the protocol: packets, the hash tree, and data sent to processes that had just been killed.
    fn check(&self, size: u64, cost: &Cost) {
        let payload = size + cost.allowed;
        let sent = self.counting.sent();
        assert!(
            sent <= payload + payload / 16 + u64::from(cost.kills) * 2 * MIB as u64,
            "sent {sent} bytes for {size}, {cost:?}"
        );
        assert!(sent >= size, "sent only {sent} bytes");
    }
}

async fn fetch_until_killed() {
    let store = open(Path::new(&child::argument("DIR"))).await;
    let ticket: BlobTicket = child::argument("TICKET").parse().unwrap();
    let root = to_engine_root(ticket.hash_and_format());
    let endpoint = loopback().await;
    let connected = connect(&endpoint, ticket.addr().clone(), Duration::from_secs(30)).await;
    let connection = connected.unwrap();
    let options = FetchOptions::default();
    let fetched = fetch(store.blobs(), &connection, root, options)
        .await
        .unwrap();
    let tags = store.blobs().tags();
    tags.set("root", fetched.pin.root()).await.unwrap();
    connection.close(0_u32.into(), b"done");
    endpoint.close().await;
    store.close().await.unwrap();
    child::say("done");
}

/// Checks that the fetched blobs are right, and that nothing else is on the disk.
async fn check_fetched(dir: &Path, root: Root) -> larder::Store {
    let store = open(dir).await;
    let tag = store.blobs().tags().get("root").await.unwrap();
    assert_eq!(tag, Some(root));
    assert_eq!(unsound(store.blobs()).await, []);
    assert_eq!(payloads(dir).len(), claimed_payloads(store.blobs()).await);
    store
}

#[test]
fn a_blob_is_resumed() {
    const TEST: &str = "fetches::a_blob_is_resumed";
    const LEN: usize = 256 * MIB;
    if child::job().is_some() {
        return child::run(fetch_until_killed());
    }
    let seed = Seed::or(21);
    let mut rng = rng(seed.number());
    let folder = tempfile::tempdir().unwrap();
    child::run(async {
        let source = open(&folder.path().join("from")).await;
        let data = Source::Stream(stream(seed.number(), LEN));
        let root = source.blobs().add(data).await.unwrap().root();
        let server = serve(source.blobs(), root).await;
        let to = folder.path().join("to");
        // Some die before anything was recorded, most after a few records.
        let next = || rng.random_range(0..64 * MIB as u64);
        let cost = server.kill_until_done(TEST, &to, next).await;
        assert!(cost.kills >= 4, "{cost:?}");
        server.check(LEN as u64, &cost);
        check_fetched(&to, root).await;
    });
}

#[test]
fn a_collection_is_resumed() {
    const TEST: &str = "fetches::a_collection_is_resumed";
    if child::job().is_some() {
        return child::run(fetch_until_killed());
    }
    let seed = Seed::or(22);
    let mut rng = rng(seed.number());
    let folder = tempfile::tempdir().unwrap();
    child::run(async {
        let source = open(&folder.path().join("from")).await;
        let blobs = source.blobs();
        let (mut entries, mut pins, mut size) = (Vec::new(), Vec::new(), 0);
        for i in 0..6000_u64 {
            let len = match i % 100 {
                0 => rng.random_range(MIB / 2..MIB),
                1..10 => rng.random_range(16 * KIB..64 * KIB),
                _ => rng.random_range(1..16 * KIB),
            };
            // They are not awaited one by one, so that they are committed together.
            let data = bytes(seed.number() ^ (i << 32), len);
            entries.push((format!("file {i}"), Hash::of(&data)));
            size += len as u64;
            let blobs = blobs.clone();
            pins.push(tokio::spawn(async move { blobs.add(data).await.unwrap() }));
        }
        for pin in pins {
            pin.await.unwrap();
        }
        let root = store_collection(blobs, entries.clone(), None)
            .await
            .unwrap()
            .root();
        let server = serve(blobs, root).await;
        let to = folder.path().join("to");
        let next = || rng.random_range(0..24 * MIB as u64);
        let cost = server.kill_until_done(TEST, &to, next).await;
        assert!(cost.kills >= 4, "{cost:?}");
        server.check(size, &cost);
        let store = check_fetched(&to, root).await;
        let fetched = load_collection(store.blobs(), root.hash).await.unwrap();
        assert_eq!(fetched, entries);
        for (_, hash) in fetched {
            assert!(store.blobs().status(hash).await.unwrap().is_some());
        }
    });
}

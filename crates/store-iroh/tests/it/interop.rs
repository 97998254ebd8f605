//! With unmodified nodes of iroh-blobs, memory and file store, in both directions.

use bao_tree::{ChunkNum, ChunkRanges};
use iroh::{Endpoint, protocol::Router};
use iroh_blobs::{
    Hash, HashAndFormat,
    api::{Store, TempTag, blobs::BlobStatus},
    format::collection::Collection,
    protocol::{GetManyRequest, GetRequest},
    store::{fs::FsStore, mem::MemStore},
};
use larder_store_api::Kind;
use larder_store_engine::{Blobs, Format, Hash as EngineHash, Root};
use larder_store_iroh::{
    FetchOptions, Fetched, Shares, fetch, iroh_store, load_collection, serve, store_collection,
    to_engine_hash, to_engine_root,
};

use crate::support::{KIB, MIB, SIZES, bytes, connection, engine, iroh_node, loopback};

/// A store of iroh-blobs, and the folder that it lives in.
struct Theirs {
    store: Store,
    _folder: Option<tempfile::TempDir>,
}

async fn memory_and_files() -> [Theirs; 2] {
    let folder = tempfile::tempdir().unwrap();
    let files = FsStore::load(folder.path().join("blobs")).await.unwrap();
    [
        Theirs {
            store: MemStore::new().into(),
            _folder: None,
        },
        Theirs {
            store: files.into(),
            _folder: Some(folder),
        },
    ]
}

async fn get(to: &Blobs, from: &Router, root: Root) -> larder_store_api::Result<Fetched> {
    let endpoint = loopback().await;
    let connection = connection(&endpoint, from.endpoint()).await;
    let fetched = fetch(to, &connection, root, FetchOptions::default()).await;
    endpoint.close().await;
    fetched
}

/// A collection of one blob of each size, some of them twice.
async fn their_collection(store: &Store) -> (TempTag, Vec<(String, Vec<u8>)>) {
    let mut files = Vec::new();
    let mut collection = Collection::default();
    let mut tags = Vec::new();
    for (seed, size) in (0..).zip(SIZES) {
        let data = bytes(seed, size);
        let tag = store.add_slice(&data).temp_tag().await.unwrap();
        for copy in 0..1 + seed % 2 {
            let name = format!("{size}/{copy}");
            collection.push(name.clone(), tag.hash());
            files.push((name, data.clone()));
        }
        tags.push(tag);
    }
    (collection.store(store).await.unwrap(), files)
}

async fn read(blobs: &Blobs, hash: EngineHash) -> Vec<u8> {
    blobs
        .read_to_bytes(hash, 0..u64::MAX)
        .await
        .unwrap()
        .to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_single_blobs_from_them() {
    for theirs in memory_and_files().await {
        let node = iroh_node(&theirs.store).await;
        let blobs = engine().await;
        for (seed, size) in (0..).zip(SIZES) {
            let data = bytes(seed, size);
            let tag = theirs.store.add_slice(&data).temp_tag().await.unwrap();
            let root = to_engine_root(tag.hash_and_format());
            let fetched = get(&blobs, &node, root).await.unwrap();
            assert_eq!(fetched.bytes_received, size as u64);
            assert_eq!(fetched.pin.root(), root);
            assert_eq!(fetched.blobs, 1);
            assert!(read(&blobs, root.hash).await == data, "size {size}");
            let again = get(&blobs, &node, root).await.unwrap();
            assert_eq!((again.bytes_received, again.blobs_fetched), (0, 0));
        }
        node.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetches_collections_from_them() {
    for theirs in memory_and_files().await {
        let node = iroh_node(&theirs.store).await;
        let blobs = engine().await;
        let (tag, files) = their_collection(&theirs.store).await;
        let root = to_engine_root(tag.hash_and_format());
        assert_eq!(root.format, Format::HashSeq);
        let fetched = get(&blobs, &node, root).await.unwrap();
        // The root, its names, and each size once.
        assert_eq!(fetched.blobs, 2 + SIZES.len() as u64);
        let entries = load_collection(&blobs, root.hash).await.unwrap();
        assert_eq!(entries.len(), files.len());
        for ((name, hash), (expected_name, data)) in entries.into_iter().zip(files) {
            assert_eq!(name, expected_name);
            assert!(read(&blobs, hash).await == data, "{name}");
        }
        node.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_on_from_what_is_here() {
    let theirs = Store::from(MemStore::new());
    let node = iroh_node(&theirs).await;
    let blobs = engine().await;
    let store = iroh_store(&blobs);
    let (tag, files) = their_collection(&theirs).await;
    let large = files
        .iter()
        .map(|(_, data)| data)
        .max_by_key(|data| data.len());
    let large = large.unwrap();
    let hash = Hash::new(large);
    // Some groups in the middle are here already.
    let here = ChunkRanges::from(ChunkNum(160)..ChunkNum(1600));
    let part = theirs.export_bao(hash, here.clone()).bao_to_vec();
    let part = part.await.unwrap();
    store.import_bao_bytes(hash, here, part).await.unwrap();
    let small = store.add_slice(bytes(5, 3 * KIB + 7)).temp_tag();
    let _small = small.await.unwrap();

    let root = to_engine_root(tag.hash_and_format());
    let fetched = get(&blobs, &node, root).await.unwrap();
    let sizes: usize = SIZES.iter().sum();
    let sequence = 32 * (1 + files.len() as u64);
    let entries = load_collection(&blobs, root.hash).await.unwrap();
    let names: u64 = {
        let links = blobs.read_to_bytes(root.hash, 0..32).await.unwrap();
        let names = EngineHash::from(<[u8; 32]>::try_from(&links[..]).unwrap());
        read(&blobs, names).await.len() as u64
    };
    let already = 1440 * KIB as u64 + 3 * KIB as u64 + 7;
    assert_eq!(
        fetched.bytes_received,
        sizes as u64 + sequence + names - already
    );
    for ((_, hash), (_, data)) in entries.into_iter().zip(&files) {
        assert!(read(&blobs, hash).await == *data);
    }
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_they_have_in_part_is_taken_and_the_rest_not_found() {
    let whole = Store::from(MemStore::new());
    let data = bytes(1, 4 * MIB);
    let tag = whole.add_slice(&data).temp_tag().await.unwrap();
    let first = ChunkRanges::from(..ChunkNum(1024));
    let encoded = whole.export_bao(tag.hash(), first.clone()).bao_to_vec();
    let encoded = encoded.await.unwrap();
    let theirs = Store::from(MemStore::new());
    let imported = theirs.import_bao_bytes(tag.hash(), first.clone(), encoded);
    imported.await.unwrap();
    let node = iroh_node(&theirs).await;
    let blobs = engine().await;
    let root = Root::raw(to_engine_hash(tag.hash()));
    let error = get(&blobs, &node, root).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    let here = blobs.bitfield(root.hash).await.unwrap();
    assert_eq!(here.ranges, first);

    let whole_node = iroh_node(&whole).await;
    let fetched = get(&blobs, &whole_node, root).await.unwrap();
    assert_eq!(
        fetched.bytes_received,
        data.len() as u64 - here.present_bytes()
    );
    assert!(read(&blobs, root.hash).await == data);
    node.shutdown().await.unwrap();
    whole_node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_collection_what_they_have_is_taken() {
    let whole = Store::from(MemStore::new());
    let (tag, files) = their_collection(&whole).await;
    let theirs = Store::from(MemStore::new());
    let copy = async |hash: Hash, ranges: ChunkRanges| {
        let encoded = whole.export_bao(hash, ranges.clone()).bao_to_vec();
        let encoded = encoded.await.unwrap();
        theirs
            .import_bao_bytes(hash, ranges, encoded)
            .await
            .unwrap();
    };
    let half = ChunkRanges::from(..ChunkNum(512));
    copy(tag.hash(), ChunkRanges::all()).await;
    let collection = Collection::load(tag.hash(), &whole).await;
    let links = whole.get_bytes(tag.hash()).await.unwrap();
    copy(
        Hash::from_bytes(links[..32].try_into().unwrap()),
        ChunkRanges::all(),
    )
    .await;
    for (name, hash) in collection.unwrap() {
        match name.split('/').next().unwrap() {
            "1024" | "32768" | "32769" => {}
            "1048576" => copy(hash, half.clone()).await,
            _ => copy(hash, ChunkRanges::all()).await,
        }
    }
    let node = iroh_node(&theirs).await;
    let blobs = engine().await;
    let root = to_engine_root(tag.hash_and_format());
    let _kept = blobs.pin(root).await;
    let error = get(&blobs, &node, root).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(
        error.to_string(),
        "blobs.fetch: not found: the peer does not have all of it (lacking=4)"
    );
    for (name, data) in &files {
        let hash = to_engine_hash(Hash::new(data));
        let here = blobs.bitfield(hash).await.unwrap();
        match data.len() {
            1024 | 32_768 | 32_769 => assert!(here.ranges.is_empty(), "{name}"),
            1_048_576 => assert_eq!(here.ranges, half),
            _ => assert!(here.is_complete(), "{name}"),
        }
    }
    let whole_node = iroh_node(&whole).await;
    let fetched = get(&blobs, &whole_node, root).await.unwrap();
    assert_eq!(fetched.blobs_fetched, 4);
    let lacked = 1024 + 32_768 + 32_769 + MIB as u64 / 2;
    assert_eq!(fetched.bytes_received, lacked);
    node.shutdown().await.unwrap();
    whole_node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_they_do_not_have_is_not_found() {
    let theirs = Store::from(MemStore::new());
    let node = iroh_node(&theirs).await;
    let blobs = engine().await;
    for root in [
        Root::raw(EngineHash::of(b"nobody has this")),
        Root::hash_seq(EngineHash::of(b"nobody has this")),
    ] {
        let error = get(&blobs, &node, root).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
        assert!(blobs.status(root.hash).await.unwrap().is_none());
    }
    node.shutdown().await.unwrap();
}

/// A node of ours, and what it shares: a collection of one blob of each size.
struct Ours {
    blobs: Blobs,
    node: Router,
    root: Root,
    files: Vec<(String, Vec<u8>)>,
}

async fn our_node() -> Ours {
    let blobs = engine().await;
    let mut entries = Vec::new();
    let mut files = Vec::new();
    let mut pins = Vec::new();
    for (seed, size) in (0..).zip(SIZES) {
        let data = bytes(seed, size);
        let pin = blobs.add(data.clone()).await.unwrap();
        entries.push((format!("{size}"), pin.hash()));
        files.push((format!("{size}"), data));
        pins.push(pin);
    }
    let root = store_collection(&blobs, entries, None)
        .await
        .unwrap()
        .root();
    let shares = Shares::new(&blobs);
    shares.allow(root).unwrap();
    let node = serve(&loopback().await, &blobs, &shares);
    Ours {
        blobs,
        node,
        root,
        files,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_fetch_collections_and_blobs_from_us() {
    let ours = our_node().await;
    let hash = Hash::from_bytes(*ours.root.hash.as_bytes());
    for theirs in memory_and_files().await {
        let endpoint = loopback().await;
        let connection = connection(&endpoint, ours.node.endpoint()).await;
        let fetch = theirs
            .store
            .remote()
            .fetch(connection.clone(), HashAndFormat::hash_seq(hash));
        fetch.await.unwrap();
        let collection = Collection::load(hash, &theirs.store).await.unwrap();
        for ((name, hash), (expected, data)) in collection.into_iter().zip(&ours.files) {
            assert_eq!(name, *expected);
            assert!(theirs.store.get_bytes(hash).await.unwrap() == *data);
        }
        let single = Store::from(MemStore::new());
        let (_, data) = ours.files.last().unwrap();
        let fetch = single.remote().fetch(connection, Hash::new(data));
        fetch.await.unwrap();
        assert!(single.get_bytes(Hash::new(data)).await.unwrap() == *data);
        endpoint.close().await;
    }
    ours.node.shutdown().await.unwrap();
    assert!(ours.blobs.status(ours.root.hash).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_get_ranges_and_several_blobs_and_observe_us() {
    let ours = our_node().await;
    let endpoint = loopback().await;
    let connection = connection(&endpoint, ours.node.endpoint()).await;
    let (_, data) = ours.files.last().unwrap();
    let hash = Hash::new(data);
    let theirs = Store::from(MemStore::new());
    let middle = ChunkRanges::from(ChunkNum(100)..ChunkNum(200));
    let request = GetRequest::blob_ranges(hash, middle);
    let get = theirs.remote().execute_get(connection.clone(), request);
    get.await.unwrap();
    let status = theirs.status(hash).await.unwrap();
    assert_eq!(status, BlobStatus::Partial { size: None });
    let part = theirs.export_ranges(hash, 102_400..204_800).concatenate();
    assert!(part.await.unwrap() == data[102_400..204_800]);

    let hashes = ours.files[3..6].iter().map(|(_, data)| Hash::new(data));
    let many = GetManyRequest::from_iter(hashes.clone());
    let get = theirs.remote().execute_get_many(connection.clone(), many);
    get.await.unwrap();
    for hash in hashes {
        assert!(theirs.has(hash).await.unwrap());
    }

    let request = iroh_blobs::protocol::ObserveRequest::new(hash);
    let mut states = Box::pin(theirs.remote().observe(connection, request));
    let state = futures_util::StreamExt::next(&mut states).await.unwrap();
    assert!(state.unwrap().is_complete());
    endpoint.close().await;
    ours.node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_fetch_from_ourselves() {
    let ours = our_node().await;
    let blobs = engine().await;
    let fetched = get(&blobs, &ours.node, ours.root).await.unwrap();
    assert_eq!(fetched.blobs, 2 + SIZES.len() as u64);
    let entries = load_collection(&blobs, ours.root.hash).await.unwrap();
    for ((_, hash), (_, data)) in entries.into_iter().zip(&ours.files) {
        assert!(read(&blobs, hash).await == *data);
    }
    ours.node.shutdown().await.unwrap();
}

/// Tests that requests of iroh-blobs' downloader, which go by the children's own hashes, are
/// answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn their_downloader_fetches_from_us() {
    let ours = our_node().await;
    let theirs = Store::from(MemStore::new());
    let endpoint: Endpoint = loopback().await;
    let lookup = iroh::address_lookup::memory::MemoryLookup::new();
    lookup.add_endpoint_info(ours.node.endpoint().addr());
    endpoint.address_lookup().unwrap().add(lookup);
    let downloader = theirs.downloader(&endpoint);
    let hash = Hash::from_bytes(*ours.root.hash.as_bytes());
    let peers = [ours.node.endpoint().id()];
    let download = downloader.download(HashAndFormat::hash_seq(hash), peers);
    download.await.unwrap();
    let collection = Collection::load(hash, &theirs).await.unwrap();
    for ((_, hash), (_, data)) in collection.into_iter().zip(&ours.files) {
        assert!(theirs.get_bytes(hash).await.unwrap() == *data);
    }
    endpoint.close().await;
    ours.node.shutdown().await.unwrap();
}

//! Every command of the protocol, as iroh-blobs' own tests use them.

use std::{io, path::Path, sync::Arc, time::Duration};

use bao_tree::{
    ChunkNum, ChunkRanges,
    io::{EncodeError, mixed::EncodedItem},
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use iroh_blobs::{
    BlobFormat, Hash, HashAndFormat,
    api::{
        self, Store,
        blobs::{
            AddPathOptions, AddProgressItem, BlobStatus, ExportMode, ExportOptions,
            ExportProgressItem, ImportMode,
        },
        proto::{BlobDeleteRequest, ClearProtectedRequest},
        tags::{TagInfo, Tags},
    },
    store::mem::MemStore,
};
use larder_store_api::{BlobStore, Block, Part};
use larder_store_engine::Blobs;
use larder_store_iroh::{OnShutdown, iroh_store, iroh_store_with, to_engine_hash};
use larder_store_testkit::MemoryStore;
use tokio::{
    io::{AsyncReadExt, AsyncSeekExt},
    time::timeout,
};

use crate::support::{KIB, MIB, bytes, client, engine};

async fn store() -> (Blobs, Store) {
    let blobs = engine().await;
    let store = iroh_store(&blobs);
    (blobs, store)
}

fn io_error(error: &api::RequestError) -> &io::Error {
    match error {
        api::RequestError::Inner {
            source: api::Error::Io(error),
            ..
        } => error,
        other => panic!("no io error: {other}"),
    }
}

fn io_kind(error: &api::RequestError) -> io::ErrorKind {
    io_error(error).kind()
}

#[tokio::test]
async fn adds_from_bytes_and_files_and_lists() {
    let (_, store) = store().await;
    let folder = tempfile::tempdir().unwrap();
    let tag = store.add_bytes(&b"hello"[..]).await.unwrap();
    assert_eq!(tag.hash, Hash::new(b"hello"));
    assert_eq!(store.get_bytes(tag.hash).await.unwrap(), &b"hello"[..]);

    let path = folder.path().join("small");
    std::fs::write(&path, b"somestuffinafile").unwrap();
    let tag = store.add_path(&path).await.unwrap();
    assert_eq!(tag.hash, Hash::new(b"somestuffinafile"));
    let out = folder.path().join("deep/er/out");
    assert_eq!(store.export(tag.hash, &out).await.unwrap(), 16);
    assert_eq!(std::fs::read(&out).unwrap(), b"somestuffinafile");

    let large = bytes(1, 3 * MIB + 5);
    std::fs::write(&path, &large).unwrap();
    let events: Vec<_> = store.add_path(&path).stream().await.collect().await;
    check_events(&events, large.len() as u64);
    let Some(AddProgressItem::Done(tag)) = events.last() else {
        panic!("not done: {events:?}");
    };
    assert_eq!(tag.hash(), Hash::new(&large));
    assert_eq!(store.get_bytes(tag.hash()).await.unwrap(), large);

    let mut expected = vec![
        Hash::new(b"hello"),
        Hash::new(b"somestuffinafile"),
        Hash::new(&large),
    ];
    expected.sort();
    assert_eq!(store.list().hashes().await.unwrap(), expected);
}

/// One size, then one end of copying, then done.
fn check_events(events: &[AddProgressItem], size: u64) {
    let at = |wanted: fn(&AddProgressItem) -> bool| {
        let found: Vec<_> = (0..events.len()).filter(|i| wanted(&events[*i])).collect();
        assert_eq!(found.len(), 1, "{events:?}");
        found[0]
    };
    let sized = at(|item| matches!(item, AddProgressItem::Size(_)));
    let copied = at(|item| matches!(item, AddProgressItem::CopyDone));
    let done = at(|item| matches!(item, AddProgressItem::Done(_)));
    assert!(matches!(events[sized], AddProgressItem::Size(n) if n == size));
    assert!(sized < copied && copied < done && done + 1 == events.len());
}

#[tokio::test]
async fn a_file_is_copied_even_where_it_could_be_referenced() {
    let (_, store) = store().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let data = bytes(2, 100 * KIB);
    std::fs::write(&path, &data).unwrap();
    let options = AddPathOptions {
        path: path.clone(),
        format: BlobFormat::Raw,
        mode: ImportMode::TryReference,
    };
    let tag = store.add_path_with_opts(options).await.unwrap();
    std::fs::write(&path, b"changed").unwrap();
    assert_eq!(store.get_bytes(tag.hash).await.unwrap(), data);
    let options = ExportOptions {
        hash: tag.hash,
        mode: ExportMode::TryReference,
        target: path.clone(),
    };
    store.export_with_opts(options).await.unwrap();
    std::fs::write(&path, b"changed").unwrap();
    assert_eq!(store.get_bytes(tag.hash).await.unwrap(), data);
}

#[tokio::test]
async fn a_path_that_cannot_be_read_is_an_error() {
    let (_, store) = store().await;
    let missing = tempfile::tempdir().unwrap().path().join("missing");
    let error = store.add_path(&missing).temp_tag().await.unwrap_err();
    assert_eq!(io_kind(&error), io::ErrorKind::NotFound);
    let relative = store.add_path("relative").temp_tag().await.unwrap_err();
    assert_eq!(io_kind(&relative), io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn adds_a_stream_whole_or_not_at_all() {
    let (_, store) = store().await;
    let data = bytes(3, MIB + 100);
    let chunks: Vec<io::Result<Bytes>> = data
        .chunks(10_000)
        .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
        .collect();
    let events = store.add_stream(stream::iter(chunks)).await.stream().await;
    let events: Vec<_> = events.collect().await;
    check_events(&events, data.len() as u64);
    assert!(store.has(Hash::new(&data)).await.unwrap());

    let broken = stream::iter([
        Ok(Bytes::from_static(b"half")),
        Err(io::Error::other("the source broke")),
    ]);
    let broken = store.add_stream(broken).await.temp_tag().await.unwrap_err();
    assert_eq!(io_error(&broken).to_string(), "the source broke");
    assert!(!store.has(Hash::new(b"half")).await.unwrap());
}

#[tokio::test]
async fn the_empty_blob_is_always_there() {
    let (_, store) = store().await;
    assert!(store.has(Hash::EMPTY).await.unwrap());
    let tag = store.add_bytes(Bytes::new()).await.unwrap();
    assert_eq!(tag.hash, Hash::EMPTY);
    assert_eq!(store.get_bytes(Hash::EMPTY).await.unwrap(), Bytes::new());
    let ranges = store.export_ranges(Hash::EMPTY, 0..100).concatenate();
    assert!(ranges.await.unwrap().is_empty());
}

#[tokio::test]
async fn tags_as_iroh_tests_them() {
    let (_, store) = store().await;
    tags_smoke(store.tags()).await.unwrap();
}

async fn names(
    tags: impl futures_util::Stream<Item = api::Result<TagInfo>>,
) -> api::Result<Vec<String>> {
    tags.map_ok(|tag| {
        assert_eq!(tag.hash, Hash::new(tag.name.as_ref()));
        String::from_utf8(tag.name.0.to_vec()).unwrap()
    })
    .try_collect()
    .await
}

async fn tags_smoke(tags: &Tags) -> n0_error::Result<()> {
    let set = async |names: &[&str]| {
        for name in names {
            tags.set(name, Hash::new(name)).await.unwrap();
        }
    };
    set(&["a", "b", "c", "d", "e"]).await;
    assert_eq!(names(tags.list().await?).await?, ["a", "b", "c", "d", "e"]);
    assert_eq!(names(tags.list_range("b".."d").await?).await?, ["b", "c"]);
    assert_eq!(
        names(tags.list_range("b"..).await?).await?,
        ["b", "c", "d", "e"]
    );
    assert_eq!(names(tags.list_range(.."c").await?).await?, ["a", "b"]);
    assert_eq!(names(tags.list_range(..="b").await?).await?, ["a", "b"]);
    let none = tags.list_range("d".."b").await?;
    assert!(names(none).await?.is_empty());
    assert_eq!(tags.delete_range("b"..).await?, 4);
    assert_eq!(tags.delete_range(..="a").await?, 1);
    assert!(names(tags.list().await?).await?.is_empty());

    set(&["a", "aa", "aaa", "aab", "b"]).await;
    let listed = names(tags.list_prefix("aa").await?).await?;
    assert_eq!(listed, ["aa", "aaa", "aab"]);
    assert_eq!(tags.delete_prefix("aa").await?, 3);
    assert_eq!(names(tags.list().await?).await?, ["a", "b"]);
    assert_eq!(tags.delete_prefix("").await?, 2);

    set(&["a", "b", "c"]).await;
    let b = tags.get("b").await?;
    assert_eq!(b, Some(TagInfo::new("b", Hash::new("b"))));
    assert_eq!(tags.delete("b").await?, 1);
    assert_eq!(tags.delete("b").await?, 0);
    assert_eq!(tags.get("b").await?, None);
    assert_eq!(tags.delete_all().await?, 2);

    tags.set("a", HashAndFormat::hash_seq(Hash::new("a")))
        .await?;
    tags.set("b", HashAndFormat::raw(Hash::new("b"))).await?;
    assert_eq!(names(tags.list_hash_seq().await?).await?, ["a"]);
    tags.delete_all().await?;

    tags.set("c", Hash::new("c")).await?;
    tags.rename("c", "f").await?;
    assert_eq!(tags.get("c").await?, None);
    assert_eq!(tags.get("f").await?.unwrap().hash, Hash::new("c"));
    let missing = tags.rename("y", "z").await.unwrap_err();
    assert_eq!(io_kind(&missing), io::ErrorKind::NotFound);

    let first = tags.create(Hash::new("x")).await?;
    let second = tags.create(Hash::new("x")).await?;
    assert_ne!(first, second);
    assert!(first.as_ref().starts_with(b"auto-"));
    let bad = tags.set("", Hash::new("x")).await.unwrap_err();
    assert_eq!(io_kind(&bad), io::ErrorKind::InvalidInput);
    Ok(())
}

/// The encoding of ranges of some data, as iroh-blobs makes it.
async fn encoded(data: &[u8], ranges: &ChunkRanges) -> (Hash, Vec<u8>) {
    let memory = MemStore::new();
    let tag = memory.add_slice(data).temp_tag().await.unwrap();
    let exported = memory.export_bao(tag.hash(), ranges.clone()).bao_to_vec();
    (tag.hash(), exported.await.unwrap())
}

#[tokio::test]
async fn imports_ranges_and_tells_observers() {
    let (blobs, store) = store().await;
    let data = bytes(4, 100 * KIB);
    let half = ChunkRanges::from(..ChunkNum(48));
    let (hash, first) = encoded(&data, &half).await;
    assert_eq!(store.status(hash).await.unwrap(), BlobStatus::NotFound);
    let states = store.observe(hash).stream().await.unwrap();
    let mut states = Box::pin(states);
    let nothing = states.next().await.unwrap();
    assert!(nothing.is_empty() && !nothing.is_complete());

    store
        .import_bao_bytes(hash, half.clone(), first)
        .await
        .unwrap();
    // Unlike iroh-blobs' own stores, this one has it for good once it says so.
    let here = blobs.bitfield(to_engine_hash(hash)).await.unwrap();
    assert_eq!(here.ranges, half);
    let status = store.status(hash).await.unwrap();
    assert_eq!(status, BlobStatus::Partial { size: None });
    let known = store.export_ranges(hash, 1000..40_000).concatenate();
    assert_eq!(known.await.unwrap(), data[1000..40_000]);
    let unknown = store.export_ranges(hash, 40_000..60_000).concatenate();
    let unknown = unknown.await.unwrap_err();
    assert_eq!(io_kind(&unknown), io::ErrorKind::NotFound);
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    let partial = store.export(hash, &target).await.unwrap_err();
    assert_eq!(io_kind(&partial), io::ErrorKind::NotFound);
    assert!(!target.exists());

    let rest = ChunkRanges::from(ChunkNum(48)..);
    let (_, second) = encoded(&data, &rest).await;
    store.import_bao_bytes(hash, rest, second).await.unwrap();
    let size = data.len() as u64;
    assert_eq!(
        store.status(hash).await.unwrap(),
        BlobStatus::Complete { size }
    );
    loop {
        let state = states.next().await.unwrap();
        if state.is_complete() {
            assert_eq!(state.size(), size);
            break;
        }
    }
    assert_eq!(store.get_bytes(hash).await.unwrap(), data);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let (_, store) = store().await;
    let hash = Hash::new(b"nobody has this");
    assert_eq!(store.status(hash).await.unwrap(), BlobStatus::NotFound);
    let bao = store.export_bao(hash, ChunkRanges::all()).bao_to_vec();
    assert_eq!(io_kind(&bao.await.unwrap_err()), io::ErrorKind::NotFound);
    let ranges = store.export_ranges(hash, 0..10).concatenate();
    assert_eq!(io_kind(&ranges.await.unwrap_err()), io::ErrorKind::NotFound);
    let target = tempfile::tempdir().unwrap().path().join("out");
    let export = store.export(hash, &target).await.unwrap_err();
    assert_eq!(io_kind(&export), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn reads_and_seeks() {
    let (_, store) = store().await;
    let data = bytes(5, 200 * KIB + 3);
    let tag = store.add_slice(&data).await.unwrap();
    let mut reader = store.reader(tag.hash);
    let mut all = Vec::new();
    reader.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, data);
    reader.seek(io::SeekFrom::Start(70_001)).await.unwrap();
    let mut some = vec![0; 33_333];
    reader.read_exact(&mut some).await.unwrap();
    assert_eq!(some, data[70_001..103_334]);
}

#[tokio::test]
async fn exports_to_a_file_whole_or_not_at_all() {
    let (_, store) = store().await;
    let data = bytes(6, 3 * MIB);
    let tag = store.add_slice(&data).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    let other = folder.path().join("other");
    std::fs::write(&other, b"other").unwrap();
    std::os::unix::fs::symlink(&other, &target).unwrap();

    let events = store.export(tag.hash, &target).stream().await;
    let events: Vec<_> = events.collect().await;
    let size = data.len() as u64;
    assert!(matches!(events[0], ExportProgressItem::Size(n) if n == size));
    assert!(matches!(events.last(), Some(ExportProgressItem::Done)));
    assert_eq!(std::fs::read(&target).unwrap(), data);
    // The link was replaced, and what it led to was not written.
    assert!(!target.is_symlink());
    assert_eq!(std::fs::read(&other).unwrap(), b"other");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);

    let relative = store.export(tag.hash, Path::new("out")).await.unwrap_err();
    assert_eq!(io_kind(&relative), io::ErrorKind::InvalidInput);
    // A folder cannot be replaced: nothing is left beside it.
    let taken = folder.path().join("taken");
    std::fs::create_dir_all(taken.join("full")).unwrap();
    store.export(tag.hash, &taken).await.unwrap_err();
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3);
}

#[tokio::test]
async fn deletes_what_is_not_protected() {
    let (blobs, store) = store().await;
    let client = client(&store);
    let delete = async |hash: Hash, force| {
        let hashes = vec![hash];
        client
            .rpc(BlobDeleteRequest { hashes, force })
            .await
            .unwrap()
    };
    let tagged = store.add_slice(b"tagged").await.unwrap().hash;
    delete(tagged, false).await.unwrap();
    assert!(!store.has(tagged).await.unwrap());

    let temporary = store.add_slice(b"temporary").temp_tag().await.unwrap();
    delete(temporary.hash(), false).await.unwrap();
    assert!(store.has(temporary.hash()).await.unwrap());

    let pin = blobs.add("pinned").await.unwrap();
    let pinned = Hash::new(b"pinned");
    delete(pinned, false).await.unwrap();
    assert!(store.has(pinned).await.unwrap());
    delete(pinned, true).await.unwrap_err();
    assert!(store.has(pinned).await.unwrap());
    drop(pin);
    delete(pinned, true).await.unwrap();
    assert!(!store.has(pinned).await.unwrap());
    client.rpc(ClearProtectedRequest).await.unwrap().unwrap();
}

#[tokio::test]
async fn one_slow_command_holds_up_no_other() {
    let (_, store) = store().await;
    let (tx, rx) = tokio::sync::mpsc::unbounded_channel::<io::Result<Bytes>>();
    let endless = stream::unfold(rx, |mut rx| async {
        rx.recv().await.map(|item| (item, rx))
    });
    let slow = store.clone();
    let slow = tokio::spawn(async move { slow.add_stream(endless).await.temp_tag().await });
    tx.send(Ok(Bytes::from_static(b"sl"))).unwrap();
    for i in 0..1000_u32 {
        let data = i.to_le_bytes();
        let tag = store.add_slice(data).temp_tag().await.unwrap();
        assert!(store.has(tag.hash()).await.unwrap());
    }
    store.sync_db().await.unwrap();
    tx.send(Ok(Bytes::from_static(b"ow"))).unwrap();
    drop(tx);
    let tag = slow.await.unwrap().unwrap();
    assert_eq!(tag.hash(), Hash::new(b"slow"));
}

#[tokio::test]
async fn many_commands_at_once_are_all_answered() {
    let (_, store) = store().await;
    let adds = (0..2000_u32).map(|i| {
        let store = store.clone();
        async move {
            let tag = store.add_slice(i.to_le_bytes()).temp_tag().await.unwrap();
            store.get_bytes(tag.hash()).await.unwrap()
        }
    });
    let all: Vec<Bytes> = stream::iter(adds).buffer_unordered(2000).collect().await;
    assert_eq!(all.len(), 2000);
}

#[tokio::test]
async fn too_many_observers_are_refused_and_nothing_else() {
    let (_, store) = store().await;
    let mut observers = Vec::new();
    for i in 0..4096_u32 {
        let hash = Hash::new(i.to_le_bytes());
        let mut states = Box::pin(store.observe(hash).stream().await.unwrap());
        assert!(states.next().await.is_some());
        observers.push(states);
    }
    let mut refused = Box::pin(store.observe(Hash::new(b"x")).stream().await.unwrap());
    assert!(refused.next().await.is_none());
    let refused = store.export_ranges(Hash::new(b"x"), 0..10).concatenate();
    assert_eq!(
        io_kind(&refused.await.unwrap_err()),
        io::ErrorKind::TimedOut
    );
    // Commands that end by themselves still work, and so do all others once there is room.
    let tag = store.add_slice(b"still").temp_tag().await.unwrap();
    observers.clear();
    loop {
        let ranges = store.export_ranges(tag.hash(), 0..10).concatenate();
        if let Ok(found) = ranges.await {
            assert_eq!(found, b"still");
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn idle_means_that_nothing_runs() {
    let (_, store) = store().await;
    store.wait_idle().await.unwrap();
    let data = bytes(7, MIB);
    let add = store.add_slice(&data).stream().await;
    let mut add = Box::pin(add);
    add.next().await.unwrap();
    store.wait_idle().await.unwrap();
    assert!(store.has(Hash::new(&data)).await.unwrap());
    // An observer is not work.
    let mut states = Box::pin(store.observe(Hash::new(b"x")).stream().await.unwrap());
    states.next().await.unwrap();
    store.wait_idle().await.unwrap();
}

#[tokio::test]
async fn shutdown_finishes_what_runs_and_leaves_the_engine_open() {
    let (blobs, store) = store().await;
    let data = bytes(8, 8 * MIB);
    let mut add = Box::pin(store.add_slice(&data).stream().await);
    add.next().await.unwrap();
    store.shutdown().await.unwrap();
    let last = add.by_ref().collect::<Vec<_>>().await.pop();
    assert!(matches!(last, Some(AddProgressItem::Done(_))), "{last:?}");
    store.status(Hash::new(b"x")).await.unwrap_err();
    let status = blobs.status(to_engine_hash(Hash::new(&data))).await;
    assert!(status.unwrap().is_some());
}

#[tokio::test]
async fn shutdown_closes_the_engine_where_asked() {
    let blobs = engine().await;
    let store = iroh_store_with(&blobs, OnShutdown::CloseEngine);
    store.add_slice(b"x").await.unwrap();
    store.shutdown().await.unwrap();
    let closed = blobs.add("y").await.unwrap_err();
    assert_eq!(closed.kind(), larder_store_api::Kind::Closed);
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_ever() {
    let (_, store) = store().await;
    let endless = stream::pending::<io::Result<Bytes>>();
    let slow = store.clone();
    let slow = tokio::spawn(async move { slow.add_stream(endless).await.temp_tag().await });
    // A stream that stays open is never idle: so it has arrived.
    let moment = Duration::from_millis(1);
    while timeout(moment, store.wait_idle()).await.is_ok() {}
    store.shutdown().await.unwrap();
    slow.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_a_read_that_nobody_goes_on_with() {
    let (_, store) = store().await;
    let data = bytes(8, 8 * MIB);
    let tag = store.add_slice(&data).temp_tag().await.unwrap();
    let mut export = store.export_bao(tag.hash(), ChunkRanges::all()).stream();
    export.next().await.unwrap();
    let moment = Duration::from_millis(1);
    assert!(timeout(moment, store.wait_idle()).await.is_err(), "it runs");
    let started = tokio::time::Instant::now();
    store.shutdown().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_payload_that_is_gone_is_not_found_and_a_damaged_one_is_damaged() {
    let below = Arc::new(MemoryStore::new());
    let blobs = Blobs::open(below.clone(), below.clone()).await.unwrap();
    let store = iroh_store(&blobs);
    let tag = store.add_slice(bytes(9, MIB)).temp_tag().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let kind = async || {
        let target = folder.path().join("out");
        let path = store.export(tag.hash(), target).await;
        let ends = store.export_bao(tag.hash(), ChunkRanges::all()).stream();
        let last = ends.collect::<Vec<_>>().await.pop();
        let Some(EncodedItem::Error(EncodeError::Io(stream))) = last else {
            panic!("{last:?}");
        };
        assert_eq!(io_error(&path.unwrap_err()).kind(), stream.kind());
        stream.kind()
    };
    let ids: Vec<_> = BlobStore::list(&*below, None).try_collect().await.unwrap();
    let block = Block {
        part: Part::Data,
        index: 3,
        bytes: vec![0; 16 * KIB].into(),
    };
    below.write(ids[0], vec![block]).await.unwrap();
    assert_eq!(kind().await, io::ErrorKind::InvalidData);
    below.delete(ids).await.unwrap();
    assert_eq!(kind().await, io::ErrorKind::NotFound);
}

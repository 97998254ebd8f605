//! Damaged files are noticed, reported, and repaired as far as they can be; a crash's leftovers are
//! not damage.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use larder_store_api::{
    Batch, BlobStore, Block, CollectionId, CollectionStore, Durability, Edit, Error, Kind, Part,
    PayloadId, Scan,
};
use larder_store_redb::{Options, RedbStore};

const C: CollectionId = CollectionId::from_static("c");

fn key(n: usize) -> Bytes {
    format!("key{n:03}").into()
}

fn value(n: usize) -> Bytes {
    format!("value {n} {}", "x".repeat(100)).into()
}

async fn open(dir: &Path) -> RedbStore {
    RedbStore::open(dir, Options::default())
        .await
        .expect("it opens")
}

async fn fails_to_open(dir: &Path) -> Error {
    match RedbStore::open(dir, Options::default()).await {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}

async fn put(store: &RedbStore, n: usize, durability: Durability) {
    let edit = Edit::Put {
        collection: C,
        key: key(n),
        value: value(n),
    };
    let batch = Batch::of(vec![edit]).durability(durability);
    store.commit(batch).await.expect("it commits");
}

/// A store with keys `0..count`, one frame each, that was stopped without closing.
async fn crashed(dir: &Path, count: usize) {
    let store = open(dir).await;
    for n in 0..count {
        put(&store, n, Durability::OnWrite).await;
    }
}

/// A store with keys `0..count`, closed.
async fn closed(dir: &Path, count: usize) {
    let store = open(dir).await;
    for n in 0..count {
        put(&store, n, Durability::OnWrite).await;
    }
    store.close().await.expect("it closes");
}

fn log(dir: &Path) -> PathBuf {
    dir.join("log/00000001.log")
}

/// Returns the offset of each frame of the log, and the end of the last one.
fn frames(dir: &Path) -> Vec<usize> {
    let bytes = fs::read(log(dir)).expect("there is a log");
    let mut at = 40;
    let mut starts = vec![at];
    while bytes.get(at..at + 4) == Some(b"LF01") {
        let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().expect("four bytes"));
        at += 56 + len as usize;
        starts.push(at);
    }
    starts
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("the file is there");
    change(&mut bytes);
    fs::write(path, bytes).expect("it can be written");
}

fn flip(path: &Path, at: usize) {
    change(path, |bytes| bytes[at] ^= 0x10);
}

async fn all(store: &RedbStore) -> Result<Vec<Bytes>, Error> {
    let entries: Vec<_> = store.scan(Scan::all(C)).try_collect().await?;
    Ok(entries.into_iter().map(|entry| entry.key).collect())
}

fn keys(numbers: impl IntoIterator<Item = usize>) -> Vec<Bytes> {
    numbers.into_iter().map(key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_anywhere_in_the_last_frame_loses_that_frame_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    crashed(dir.path(), 3).await;
    let starts = frames(dir.path());
    let whole = fs::read(log(dir.path())).expect("there is a log");
    let again = tempfile::tempdir().expect("a folder");
    drop(open(again.path()).await);
    let index = again.path().join("index.redb");
    let empty = fs::read(&index).expect("there is an index");
    for cut in starts[2]..starts[3] {
        // Both ends that a crash can leave: the file's, and zeros that were written ahead.
        let mut bytes = whole[..cut].to_vec();
        bytes.resize(cut + cut % 2 * 100, 0);
        fs::write(log(again.path()), bytes).expect("it is written");
        fs::write(&index, &empty).expect("it is written");
        let store = open(again.path()).await;
        let found = all(&store).await.expect("it scans");
        assert_eq!(found, keys(0..2), "cut at {cut}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_goes_on_after_its_torn_end_was_cut_off() {
    let dir = tempfile::tempdir().expect("a folder");
    crashed(dir.path(), 3).await;
    let starts = frames(dir.path());
    change(&log(dir.path()), |bytes| bytes.truncate(starts[3] - 1));
    let store = open(dir.path()).await;
    put(&store, 7, Durability::OnWrite).await;
    drop(store);
    let store = open(dir.path()).await;
    assert_eq!(all(&store).await.expect("it scans"), keys([0, 1, 7]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_before_a_durable_frame_is_damage_and_not_the_end() {
    let dir = tempfile::tempdir().expect("a folder");
    crashed(dir.path(), 4).await;
    let starts = frames(dir.path());
    let whole = fs::read(log(dir.path())).expect("there is a log");
    // The segment's header, and of the second frame: header, a record's header, key and value.
    let places = [4, 30, 0, 8, 20, 56, 72, 74, 76, 85, 120].map(|at| at as usize);
    for (i, at) in places.into_iter().enumerate() {
        let at = if i < 2 { at } else { starts[1] + at };
        let again = tempfile::tempdir().expect("a folder");
        fs::write(again.path().join("FORMAT"), "larder redb 1\n").expect("it is written");
        fs::create_dir(again.path().join("log")).expect("it is made");
        fs::write(log(again.path()), &whole).expect("it is written");
        flip(&log(again.path()), at);
        let error = fails_to_open(again.path()).await;
        assert_eq!(error.kind(), Kind::Corrupt, "{at}: {error}");
        assert!(error.to_string().contains("run a repair"), "{error}");

        let repaired = RedbStore::repair(again.path(), Options::default())
            .await
            .expect("repairs");
        assert_eq!(repaired.kept.len(), 1);
        assert!(repaired.kept[0].exists());
        let store = open(again.path()).await;
        let found = all(&store).await.expect("it scans");
        // Only the second frame's record can be lost, and then that is told.
        if found == keys([0, 2, 3]) {
            let told = repaired.lost_records == 1 || repaired.lost_bytes > 0;
            assert!(told, "{at}: {repaired:?}");
        } else {
            assert_eq!(found, keys(0..4), "{at}: {repaired:?}");
        }
        for n in [0, 2, 3] {
            let entry = store
                .get(C, key(n))
                .await
                .expect("it reads")
                .expect("it is there");
            assert_eq!(entry.value, value(n));
        }
        store.close().await.expect("it closes");
        // Once repaired it is whole.
        let again = RedbStore::repair(again.path(), Options::default())
            .await
            .expect("repairs");
        assert_eq!(again.kept.len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_record_does_not_bring_its_older_value_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path()).await;
    for n in [0, 1, 0, 2] {
        put(&store, n, Durability::OnWrite).await;
    }
    store.close().await.expect("it closes");
    let starts = frames(dir.path());
    // In the value of the third record, which put key 0 again.
    flip(&log(dir.path()), starts[2] + 56 + 24 + 3 + 6 + 20);
    let repaired = RedbStore::repair(dir.path(), Options::default())
        .await
        .expect("repairs");
    assert_eq!(repaired.lost_keys, [(C, key(0))]);
    assert_eq!(repaired.lost_records, 1);
    let store = open(dir.path()).await;
    assert_eq!(all(&store).await.expect("it scans"), keys([1, 2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn unsynced_frames_after_a_lost_one_are_the_suffix_that_a_power_loss_takes() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path()).await;
    put(&store, 0, Durability::OnWrite).await;
    for n in 1..4 {
        put(&store, n, Durability::OnSync).await;
    }
    drop(store);
    let starts = frames(dir.path());
    // As where the disk had kept the later frames and not the earlier.
    change(&log(dir.path()), |bytes| {
        bytes[starts[1]..starts[2]].fill(0)
    });
    let store = open(dir.path()).await;
    assert_eq!(all(&store).await.expect("it scans"), keys([0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_within_a_value_are_not_taken_for_frames_of_the_log() {
    let dir = tempfile::tempdir().expect("a folder");
    crashed(dir.path(), 3).await;
    let stored = fs::read(log(dir.path())).expect("there is a log");
    let other = tempfile::tempdir().expect("a folder");
    let store = open(other.path()).await;
    let edit = Edit::Put {
        collection: C,
        key: key(9),
        value: stored.into(),
    };
    store
        .commit(Batch::of(vec![edit]))
        .await
        .expect("it commits");
    drop(store);
    let starts = frames(other.path());
    change(&log(other.path()), |bytes| bytes[starts[0]] = 0);
    let store = open(other.path()).await;
    assert_eq!(all(&store).await.expect("it scans"), keys([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_fails_its_readers_and_no_other() {
    let dir = tempfile::tempdir().expect("a folder");
    closed(dir.path(), 5).await;
    let starts = frames(dir.path());
    flip(&log(dir.path()), starts[2] + 56 + 60);
    let store = open(dir.path()).await;
    for n in 0..5 {
        let found = store.get(C, key(n)).await;
        if n == 2 {
            assert_eq!(found.expect_err("it is damaged").kind(), Kind::Corrupt);
        } else {
            assert_eq!(
                found.expect("it reads").expect("it is there").value,
                value(n)
            );
        }
    }
    assert_eq!(
        all(&store).await.expect_err("it is damaged").kind(),
        Kind::Corrupt
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_foreign_index_is_made_again() {
    let dir = tempfile::tempdir().expect("a folder");
    closed(dir.path(), 300).await;
    let index = dir.path().join("index.redb");
    let whole = fs::read(&index).expect("there is an index");
    let mut variants = vec![None, Some(Vec::new()), Some(b"something else".repeat(1000))];
    variants.extend([1, 4096, 10_000, whole.len() / 2].map(|len| Some(whole[..len].to_vec())));
    for variant in variants {
        match variant {
            Some(bytes) => fs::write(&index, bytes).expect("it is written"),
            None => fs::remove_file(&index).expect("it is removed"),
        }
        let store = open(dir.path()).await;
        assert_eq!(all(&store).await.expect("it scans"), keys(0..300));
        store.close().await.expect("it closes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_the_index_is_never_an_absent_key() {
    let dir = tempfile::tempdir().expect("a folder");
    closed(dir.path(), 500).await;
    let index = dir.path().join("index.redb");
    let whole = fs::read(&index).expect("there is an index");
    let mut noticed = 0;
    // Every page once; those that are in use are among them.
    for at in (100..whole.len()).step_by(4096) {
        fs::write(&index, &whole).expect("it is written");
        flip(&index, at);
        let mut damaged = false;
        let store = open(dir.path()).await;
        for n in (0..500).step_by(7) {
            match store.get(C, key(n)).await {
                Ok(entry) => assert_eq!(entry.expect("it is there").value, value(n), "{at}"),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
                    damaged = true;
                }
            }
        }
        match all(&store).await {
            Ok(found) => assert_eq!(found, keys(0..500), "{at}"),
            Err(error) => assert_eq!(error.kind(), Kind::Corrupt, "{error}"),
        }
        drop(store);
        if damaged {
            noticed += 1;
            // So that the next opening makes it again.
            let store = open(dir.path()).await;
            assert_eq!(all(&store).await.expect("it scans"), keys(0..500), "{at}");
        }
    }
    assert!(noticed > 0, "no page was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_shorter_than_the_index_knows_is_damage() {
    let dir = tempfile::tempdir().expect("a folder");
    closed(dir.path(), 3).await;
    let starts = frames(dir.path());
    change(&log(dir.path()), |bytes| bytes.truncate(starts[2]));
    assert_eq!(fails_to_open(dir.path()).await.kind(), Kind::Corrupt);
    RedbStore::repair(dir.path(), Options::default())
        .await
        .expect("it repairs");
    let store = open(dir.path()).await;
    assert_eq!(all(&store).await.expect("it scans"), keys(0..2));
    drop(store);
    fs::remove_file(log(dir.path())).expect("it is removed");
    assert_eq!(fails_to_open(dir.path()).await.kind(), Kind::Corrupt);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_payload_is_not_found_where_it_is_short() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path()).await;
    let id = PayloadId([3; 16]);
    let block = Block {
        part: Part::Data,
        index: 0,
        bytes: vec![9; 40_000].into(),
    };
    store.write(id, vec![block]).await.expect("it writes");
    store.close().await.expect("it closes");
    let path = dir
        .path()
        .join("payload")
        .join("03".repeat(15))
        .join("03.data");
    change(&path, |bytes| bytes.truncate(20_000));
    let store = open(dir.path()).await;
    assert_eq!(
        store
            .read(id, Part::Data, 0..20_000)
            .await
            .expect("it reads")
            .len(),
        20_000
    );
    for range in [19_999..20_001, 30_000..40_000] {
        let error = store
            .read(id, Part::Data, range)
            .await
            .expect_err("it is gone");
        assert_eq!(error.kind(), Kind::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_of_others_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let expect = |error: Error, kind: Kind, text: &str| {
        let expected =
            format!("store.open: {text}").replace("DIR", &dir.path().display().to_string());
        assert_eq!((error.kind(), error.to_string()), (kind, expected));
    };
    fs::write(dir.path().join("photo"), "").expect("it is written");
    let text = "invalid: this folder is not empty and holds no Larder store (path=DIR)";
    expect(fails_to_open(dir.path()).await, Kind::Invalid, text);
    assert_eq!(
        fs::read_dir(dir.path()).expect("it reads").count(),
        1,
        "nothing was created"
    );

    fs::write(dir.path().join("FORMAT"), "larder redb 2\n").expect("it is written");
    let text = "unsupported: this store was written by a newer version; update the program \
                (path=DIR, format=2, supported=1)";
    expect(fails_to_open(dir.path()).await, Kind::Unsupported, text);
    fs::write(dir.path().join("FORMAT"), "elsewhere 1\n").expect("it is written");
    let text = "invalid: this folder holds another store (path=DIR)";
    expect(fails_to_open(dir.path()).await, Kind::Invalid, text);

    fs::remove_file(dir.path().join("photo")).expect("it is removed");
    fs::remove_file(dir.path().join("FORMAT")).expect("it is removed");
    let error = RedbStore::repair(dir.path(), Options::default())
        .await
        .expect_err("no store");
    assert_eq!(error.kind(), Kind::Invalid);

    let store = open(dir.path()).await;
    let text = "unavailable: this process already has the store open; use that handle, or close it \
                first (path=DIR)";
    expect(fails_to_open(dir.path()).await, Kind::Unavailable, text);
    // By another name too.
    let link = tempfile::tempdir().expect("a folder");
    #[cfg(unix)]
    {
        let name = link.path().join("store");
        std::os::unix::fs::symlink(dir.path(), &name).expect("it is linked");
        let error = fails_to_open(&name).await;
        assert!(
            error.message().starts_with("this process already"),
            "{error}"
        );
    }
    drop(link);
    store.close().await.expect("it closes");
    open(dir.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_format_file_is_written_again_by_a_repair() {
    for content in [Some(&b""[..]), Some(b"larder re"), Some(&[0; 4096]), None] {
        let dir = tempfile::tempdir().expect("a folder");
        crashed(dir.path(), 3).await;
        let format = dir.path().join("FORMAT");
        match content {
            Some(content) => fs::write(&format, content).expect("it is written"),
            None => fs::remove_file(&format).expect("it is removed"),
        }
        let error = fails_to_open(dir.path()).await;
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        assert!(error.message().contains("run a repair"), "{error}");
        let repaired = RedbStore::repair(dir.path(), Options::default())
            .await
            .expect("it repairs");
        assert_eq!((repaired.lost_records, repaired.lost_bytes), (0, 0));
        let store = open(dir.path()).await;
        assert_eq!(all(&store).await.expect("it scans"), keys(0..3));
    }
    // There is nothing in it to lose.
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["log", "payload"] {
        fs::create_dir(dir.path().join(name)).expect("it is made");
    }
    fs::write(dir.path().join("FORMAT"), "").expect("it is written");
    open(dir.path()).await;
}

//! Copying between stores.

use futures_util::TryStreamExt;
use larder::{
    BlobStatus, Bytes, ChunkNum, ChunkRanges, Hash, Store, StoreUrl, Trust,
    api::{CollectionId, Freshness, PutRecord, RecordDescriptor, RecordStore, SeqExpect},
    engine::{generate_key, public_key},
};

use super::support::{Place, noise, tree};

const LEN: u64 = 5_000_000;

/// Fills the store with a bit of everything, and gives the hash of a blob that is half there.
fn fill(place: &Place) -> Hash {
    place.write_folder("folder");
    place.ok(&["add", "folder"]);
    let whole = Bytes::from(noise(LEN as usize));
    let hash = Hash::of(&whole);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let items: Vec<_> = runtime.block_on(async {
        let store = Store::open("mem:").await.unwrap();
        let _pin = store.blobs().add(whole).await.unwrap();
        let half = ChunkRanges::from(ChunkNum(160)..ChunkNum(1600));
        store
            .blobs()
            .export(hash, half)
            .try_collect()
            .await
            .unwrap()
    });
    place.with_store(async |store| {
        let mut import = store
            .blobs()
            .import(hash, LEN, Trust::Untrusted)
            .await
            .unwrap();
        for item in items {
            import.push(item).await.unwrap();
        }
        import.finish().await.unwrap();
        let notes = CollectionId::from_static("notes");
        for key in 0..200_u8 {
            let value = vec![key; 10];
            store
                .collections()
                .put(notes.clone(), vec![key], value)
                .await
                .unwrap();
        }
        let writer = generate_key().unwrap();
        let id = store
            .records()
            .create(RecordDescriptor {
                owner: public_key(&writer),
                owner_slots: 3,
                members: Vec::new(),
            })
            .await
            .unwrap();
        let put = PutRecord::Write {
            value: Bytes::from_static(b"signed"),
            writer,
            expect: SeqExpect::Any,
        };
        store.records().put(id, 2, put).await.unwrap();
    });
    hash
}

#[test]
fn everything_is_copied_once() {
    let place = Place::new();
    let half = fill(&place);
    let from = place.url().to_string();
    let to = format!("redb:{}", place.path("other").display());
    let copied = &place.json(&["copy", &from, &to])[0];
    assert_eq!(copied["names"], 1);
    assert_eq!(copied["entries"], 200);
    assert_eq!(copied["records"], 1);
    let blobs = place.json(&["ls", "--blobs"]);
    assert_eq!(copied["blobs"], blobs.len());
    assert_eq!(place.json(&["--store", &to, "ls", "--blobs"]), blobs);
    assert_eq!(place.json(&["--store", &to, "ls"]), place.json(&["ls"]));
    assert!(
        place
            .ok(&["--store", &to, "verify"])
            .ends_with("all sound; 1 incomplete\n")
    );

    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let other = Store::open_url(&StoreUrl::redb(place.path("other")))
            .await
            .unwrap();
        let status = other.blobs().status(half).await.unwrap();
        let expected = BlobStatus::Partial {
            size: LEN,
            proven: false,
            present: 1440 * 1024,
        };
        assert_eq!(status, Some(expected));
        let notes = CollectionId::from_static("notes");
        let entry = other
            .collections()
            .get(notes, vec![7])
            .await
            .unwrap()
            .unwrap();
        assert_eq!(entry.value, vec![7; 10]);
        let records = CollectionId::from_static("larder/records");
        let mut ids = other.collections().scan(larder::api::Scan::all(records));
        let id = ids.try_next().await.unwrap().unwrap().key;
        let id = larder::api::RecordId(id.as_ref().try_into().unwrap());
        let signed = other.records().get(id, 2, Freshness::Local).await.unwrap();
        assert_eq!(signed.unwrap().value, "signed");
        other.close().await.unwrap();
    });

    let again = &place.json(&["copy", &from, &to])[0];
    assert_eq!(
        (&again["blobs"], &again["names"], &again["entries"]),
        (&0.into(), &0.into(), &0.into())
    );
    assert_eq!(again["already_there"], blobs.len());
}

#[test]
fn names_that_differ_are_not_overwritten_unless_asked() {
    let place = Place::new();
    place.write("a", "new");
    place.ok(&["add", "a"]);
    let other = format!("redb:{}", place.path("other").display());
    place.write("a", "old");
    place.ok(&["--store", &other, "add", "a"]);
    let from = place.url().to_string();
    let said = place.fails(1, &["copy", &from, &other]);
    assert_eq!(
        said,
        "error: 1 name(s) stand for other content in TO, nothing was copied\n  a\n  \
         now: rename or remove them in one of the stores, or take those of FROM with --overwrite\n"
    );
    assert_eq!(place.ok(&["--store", &other, "cat", "a"]), "old");
    place.ok(&["copy", &from, &other, "--overwrite"]);
    assert_eq!(place.ok(&["--store", &other, "cat", "a"]), "new");
}

#[test]
fn a_copy_into_memory_works_and_from_nowhere_does_not() {
    let place = Place::new();
    place.write("a", "A");
    place.ok(&["add", "a"]);
    let copied = &place.json(&["copy", &place.url().to_string(), "mem:"])[0];
    assert_eq!(copied["blobs"], 1);
    let said = place.fails(1, &["copy", "redb:nowhere", "mem:"]);
    assert!(
        said.starts_with("error: there is no store at redb:nowhere\n"),
        "{said}"
    );
}

#[test]
fn groups_are_copied_with_their_keys() {
    let place = Place::new();
    place.write_folder("folder");
    place.ok(&["group", "create", "g", "--as", "me"]);
    place.ok(&["put", "folder"]);
    let to = format!("redb:{}", place.path("to").display());
    let copied = &place.json(&["copy", &place.url().to_string(), &to])[0];
    let keys = "the device's, the group's root and the repo's";
    assert_eq!(copied["keys"], 3, "{keys}: {copied}");
    place.ok(&["--store", &to, "get", "g/me/folder", "-o", "out"]);
    assert_eq!(tree(&place.path("out")), tree(&place.path("folder")));
    // Both stores change on their own, and files that only one of them has do not conflict.
    place.write("more", "more");
    place.ok(&["put", "more"]);
    place.write("theirs", "theirs");
    place.ok(&["--store", &to, "put", "theirs"]);
    // Collect the blobs that neither store names any more.
    place.ok(&["gc"]);
    place.ok(&["--store", &to, "gc"]);
    let again = &place.json(&["copy", &place.url().to_string(), &to])[0];
    assert_eq!(again["keys"], 0);
    // The copied blobs are kept until both are merged: not even those of the other store are collected.
    assert_eq!(place.json(&["--store", &to, "gc"])[0]["deleted"], 0);
    assert_eq!(place.json(&["--store", &to, "ls", "g/me/theirs"]).len(), 1);
    assert_eq!(place.json(&["ls", "g/me/more"]).len(), 1);
}

#[test]
fn a_store_is_not_copied_into_itself() {
    let place = Place::new();
    place.write("a", "A");
    place.ok(&["add", "a"]);
    let from = place.url().to_string();
    for inside in ["store/payload", "store/new/deep", "store/../store/other"] {
        let to = format!("redb:{}", place.path(inside).display());
        let said = place.fails(2, &["copy", &from, &to]);
        assert!(said.contains("TO lies in the folder of FROM"), "{said}");
        let said = place.fails(2, &["copy", &to, &from]);
        assert!(said.contains("FROM lies in the folder of TO"), "{said}");
    }
    let same = format!("redb:{}", place.path("store/../store").display());
    let said = place.fails(2, &["copy", &from, &same]);
    assert!(said.contains("are the same store"), "{said}");
    assert!(!place.path("store/new").exists());
}

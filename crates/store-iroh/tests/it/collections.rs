//! Collections are those of iroh.

use iroh_blobs::{
    Hash as IrohHash, api::Store, format::collection::Collection, store::mem::MemStore,
};
use larder_store_api::Kind;
use larder_store_engine::{AddOptions, Format, Hash, TagName};
use larder_store_iroh::{
    folder_name, iroh_store, load_collection, load_folder, store_collection, store_folder,
    to_engine_hash, to_iroh_hash,
};

use crate::support::{collect_all, engine};

fn entries(count: u32) -> Vec<(String, Hash)> {
    (0..count)
        .map(|i| (format!("folder/ä {i}.txt"), Hash::of(i.to_le_bytes())))
        .collect()
}

#[tokio::test]
async fn the_bytes_are_those_of_iroh() {
    for count in [0, 1, 2, 1000] {
        let blobs = engine().await;
        let entries = entries(count);
        let pin = store_collection(&blobs, entries.clone(), None)
            .await
            .unwrap();
        assert_eq!(pin.root().format, Format::HashSeq);
        let theirs: Collection = entries
            .iter()
            .map(|(name, hash)| (name.clone(), to_iroh_hash(*hash)))
            .collect();
        let memory = Store::from(MemStore::new());
        let root = theirs.clone().store(&memory).await.unwrap();
        assert_eq!(to_engine_hash(root.hash()), pin.hash());
        let loaded = Collection::load(root.hash(), &iroh_store(&blobs)).await;
        assert_eq!(loaded.unwrap(), theirs);
        assert_eq!(load_collection(&blobs, pin.hash()).await.unwrap(), entries);
    }
}

#[tokio::test]
async fn a_tag_keeps_the_names_too() {
    let blobs = engine().await;
    let tag = TagName::try_from("folder").unwrap();
    let pin = store_collection(&blobs, entries(3), Some(tag))
        .await
        .unwrap();
    let hash = pin.hash();
    drop(pin);
    collect_all(&blobs).await;
    assert_eq!(load_collection(&blobs, hash).await.unwrap(), entries(3));
}

#[tokio::test]
async fn what_is_no_collection_is_refused() {
    let blobs = engine().await;
    let kind = async |hash: Hash| load_collection(&blobs, hash).await.unwrap_err().kind();
    let missing = Hash::of(b"missing");
    assert_eq!(kind(missing).await, Kind::NotFound);
    let text = blobs.add("not a multiple of 32").await.unwrap();
    assert_eq!(kind(text.hash()).await, Kind::Invalid);
    assert_eq!(kind(Hash::EMPTY).await, Kind::Invalid);
    let seq = |hashes: &[Hash]| {
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| *hash.as_bytes()).collect();
        let options = AddOptions::default().format(Format::HashSeq);
        blobs.add_with(bytes, options)
    };
    let without_names = seq(&[missing]).await.unwrap();
    assert_eq!(kind(without_names.hash()).await, Kind::NotFound);
    let garbage = seq(&[text.hash()]).await.unwrap();
    assert_eq!(kind(garbage.hash()).await, Kind::Invalid);
    let two = store_collection(&blobs, entries(2), None).await.unwrap();
    let links = blobs.read_to_bytes(two.hash(), 0..96).await.unwrap();
    let fewer = seq(&[Hash::from(<[u8; 32]>::try_from(&links[..32]).unwrap())]);
    assert_eq!(kind(fewer.await.unwrap().hash()).await, Kind::Invalid);
}

/// An empty name is one byte of a list and many in memory.
#[tokio::test]
async fn names_are_counted_before_they_are_read() {
    let blobs = engine().await;
    let names = [&b"CollectionV0."[..], &[255, 255, 255, 255, 15, 0, 0]].concat();
    let names = blobs.add(names).await.unwrap();
    let links = [*names.hash().as_bytes(), *Hash::EMPTY.as_bytes()].concat();
    let root = blobs.add(links).await.unwrap();
    let error = load_collection(&blobs, root.hash()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "collection.load: invalid: there are not as many names as hashes (hash={})",
            root.hash()
        )
    );
}

#[tokio::test]
async fn there_is_a_limit() {
    let blobs = engine().await;
    let name = "x".repeat(65 * 1024 * 1024);
    let entries = vec![(name, to_engine_hash(IrohHash::EMPTY))];
    let error = store_collection(&blobs, entries, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge);
}

/// Folders of iroh's programs have their name before each file; others have none.
#[tokio::test]
async fn a_folder_is_written_with_its_name_and_read_with_it_and_without() {
    let blobs = engine().await;
    let hash = Hash::EMPTY;
    let files = |names: &[&str]| {
        let named = names.iter().map(|name| ((*name).to_owned(), hash));
        named.collect::<Vec<_>>()
    };
    let plain = files(&["a", "sub/b"]);
    let pin = store_folder(&blobs, "my/photos", plain.clone(), None)
        .await
        .unwrap();
    let all = load_collection(&blobs, pin.hash()).await.unwrap();
    assert_eq!(all, files(&["photos/a", "photos/sub/b"]));
    assert_eq!(load_folder(&blobs, pin.hash()).await.unwrap(), plain);
    let name = folder_name(&blobs, pin.hash()).await.unwrap();
    assert_eq!(name.as_deref(), Some("photos"));
    // A folder in it stays, also the only one.
    let only = files(&["sub/b"]);
    let pin = store_folder(&blobs, "x", only.clone(), None).await.unwrap();
    assert_eq!(load_folder(&blobs, pin.hash()).await.unwrap(), only);

    let without: [&[&str]; 9] = [
        &["C:/x"],
        &["../a", "../b"],
        &["./a"],
        &[],
        &["a", "sub/b"],
        &["sub/b", "subs/b"],
        &["/a", "/b"],
        &["sub/", "sub/a"],
        &["sub/a", "sub"],
    ];
    for names in without {
        let pin = store_collection(&blobs, files(names), None).await.unwrap();
        assert_eq!(folder_name(&blobs, pin.hash()).await.unwrap(), None);
        let loaded = load_folder(&blobs, pin.hash()).await.unwrap();
        assert_eq!(loaded, files(names), "{names:?}");
    }
}

//! Calls as somebody writes them who has read nothing: each argument is given in the form in which it is at hand.

use futures_util::TryStreamExt;
use larder::{Kind, Root, Store, TagName, api::CollectionId};

#[tokio::test]
async fn collections_take_names_keys_and_values_as_they_are() {
    const NOTES: CollectionId = CollectionId::from_static("notes");
    let store = Store::open("mem:").await.unwrap();
    let collections = store.collections();
    let (title, text) = (String::from("milk"), String::from("2 litres"));
    let (key, value): (&str, &[u8]) = (&title, text.as_bytes());

    collections.put("notes", key, value).await.unwrap();
    collections.put(NOTES, &title, &text).await.unwrap();
    collections.put(&NOTES, b"a", [1, 2]).await.unwrap();
    collections
        .put(String::from("other"), title.clone(), vec![1])
        .await
        .unwrap();
    let entry = collections.get("notes", key).await.unwrap().unwrap();
    assert_eq!(entry.value, text);
    let refused = collections.put("", key, value).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid);
    let refused = collections
        .scan_prefix("", key)
        .try_next()
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid);

    let notes = collections.open("notes").unwrap();
    assert_eq!(notes.id(), collections.open(NOTES).unwrap().id());
    notes.put(title.as_str(), "3 litres").await.unwrap();
    assert_eq!(notes.get(&title).await.unwrap().unwrap().value, "3 litres");
    let keys = async |listed: larder::Listing<larder::api::Entry>| {
        let entries: Vec<_> = listed.try_collect().await.unwrap();
        entries
            .into_iter()
            .map(|entry| entry.key)
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(notes.list(..)).await, ["a", "milk"]);
    assert_eq!(keys(notes.list("b"..)).await, ["milk"]);
    assert_eq!(keys(notes.list(..=key)).await, ["a", "milk"]);
    assert_eq!(keys(notes.list(..key)).await, ["a"]);
    assert_eq!(keys(notes.list_prefix("m")).await, ["milk"]);
    notes.delete(key).await.unwrap();
    assert_eq!(keys(notes.list(..)).await, ["a"]);
}

#[tokio::test]
async fn tags_take_names_and_hashes() {
    let store = Store::open(String::from("mem:")).await.unwrap();
    let (blobs, tags) = (store.blobs(), store.blobs().tags());
    let pin = blobs.add("hello").await.unwrap();
    let hash = pin.hash();
    tags.set("greeting", hash).await.unwrap();
    tags.set(String::from("greeting 2"), &pin).await.unwrap();
    tags.set(TagName::try_from("x").unwrap(), Root::hash_seq(hash))
        .await
        .unwrap();
    assert_eq!(tags.get("greeting").await.unwrap(), Some(hash.into()));
    let names = async |listed: larder::Listing<larder::Tag>| {
        let tags: Vec<_> = listed.try_collect().await.unwrap();
        tags.iter()
            .map(|tag| tag.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(tags.list(..)).await, ["greeting", "greeting 2", "x"]);
    assert_eq!(names(tags.list("h"..)).await, ["x"]);
    tags.rename("x", "y").await.unwrap();
    assert!(tags.delete_one("y").await.unwrap());
    assert!(!tags.delete_one("y").await.unwrap());
    assert_eq!(tags.delete("greeting"..="greeting 2").await.unwrap(), 2);
    assert_eq!(tags.set("", hash).await.unwrap_err().kind(), Kind::Invalid);
}

#[tokio::test]
async fn blobs_take_text_bytes_files_and_ranges() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a file");
    std::fs::write(&path, "hello").unwrap();
    let store = Store::open("mem:").await.unwrap();
    let blobs = store.blobs();
    let hash = blobs.add(String::from("hello")).await.unwrap().hash();
    let text = String::from("hello");
    let buffer = text.clone().into_bytes();
    let file = tokio::fs::File::open(&path).await.unwrap();
    let std_file = std::fs::File::open(&path).unwrap();
    let added = [
        blobs.add(text.as_str()).await,
        blobs.add(&text).await,
        blobs.add(b"hello").await,
        blobs.add(&buffer[..]).await,
        blobs.add(buffer).await,
        blobs.add(larder::Bytes::from_static(b"hello")).await,
        blobs.add(path.as_path()).await,
        blobs.add(&path).await,
        blobs.add(path.clone()).await,
        blobs.add(file).await,
        blobs.add(std_file).await,
    ];
    for pin in added {
        assert_eq!(pin.unwrap().hash(), hash);
    }
    assert_eq!(blobs.read_to_bytes(hash, ..).await.unwrap(), "hello");
    assert_eq!(blobs.read_to_bytes(hash, 1..4).await.unwrap(), "ell");
    assert_eq!(blobs.read_to_bytes(hash, ..=1).await.unwrap(), "he");
    let pieces: Vec<_> = blobs.read(hash, 3..).try_collect().await.unwrap();
    assert_eq!(pieces, ["lo"]);
}

#[cfg(feature = "groups")]
#[tokio::test]
async fn repos_take_content_as_it_is() {
    use larder::groups::{AppContext, EndpointOptions, Named, Policy, Reach, ReplicateOptions};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jpg");
    std::fs::write(&path, "picture").unwrap();
    let store = Store::open("mem:").await.unwrap();
    let network = EndpointOptions::new(Reach::Loopback);
    let replicator = store
        .replicate(network, ReplicateOptions::default())
        .await
        .unwrap();
    let group = replicator.groups().create_group("hikers").await.unwrap();
    let repo = group.create_repo("ann").await.unwrap();

    let buffer = [7; 3];
    let text = String::from("text");
    repo.write("a.txt", format!("{} notes", 3)).await.unwrap();
    repo.write("b.jpg", path.as_path()).await.unwrap();
    repo.write("c", &buffer[..]).await.unwrap();
    repo.write("d", b"literal").await.unwrap();
    repo.write("e", text.as_str()).await.unwrap();
    repo.write("f", larder::Bytes::from("bytes")).await.unwrap();
    let file = tokio::fs::File::open(&path).await.unwrap();
    repo.write("g", file).await.unwrap();
    let listed: Vec<_> = repo.list("").await.unwrap().try_collect().await.unwrap();
    let mut sizes = Vec::new();
    for Named { name, entry } in listed {
        sizes.push((name.as_str().to_owned(), entry.size));
    }
    let sizes: Vec<_> = sizes
        .iter()
        .map(|(name, size)| (name.as_str(), *size))
        .collect();
    let expected = [
        ("a.txt", 7),
        ("b.jpg", 7),
        ("c", 3),
        ("d", 7),
        ("e", 4),
        ("f", 5),
        ("g", 7),
    ];
    assert_eq!(sizes, expected);
    let pieces: Vec<_> = repo
        .read("d", 3..)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(pieces.concat(), b"eral");

    group.set_policy(Policy::Names).await.unwrap();
    group.set_policy(None).await.unwrap();
    assert_eq!(replicator.members(&group).await.unwrap().len(), 0);
    assert_eq!(replicator.status(&group).await.unwrap().repos.len(), 1);
    assert_eq!(replicator.status(group.id()).await.unwrap().repos.len(), 1);
    assert_eq!(replicator.holders(&repo).await.unwrap(), []);
    let sealed = group
        .encrypt("hello", AppContext::new("chat"))
        .await
        .unwrap();
    assert_eq!(
        group.decrypt(&sealed, AppContext::new("chat")).unwrap(),
        "hello"
    );
    replicator.shutdown().await;
    store.close().await.unwrap();
}

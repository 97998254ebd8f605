//! Tests of trees: the same files make the same tree, and the cost of a change depends on its size.

#[path = "../common/mod.rs"]
mod common;
#[path = "../../src/golden.rs"]
mod golden;
mod hostile;
mod merge;
mod walk;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use common::{Files, contents, entry, key, many, name, tree};
use futures_util::{StreamExt, TryStreamExt, stream};
use larder_store_api::{Kind, Result};
use larder_store_engine::{Hash, TagName};
use larder_sync_model::{
    keyring::Keyring,
    tree::{Difference, Edited, FileEntry, Name, Named, Root, Tree},
};
use proptest::{collection::vec, prelude::*};

type Change = (Name, Option<FileEntry>);

async fn build(tree: &Tree, files: impl IntoIterator<Item = (Name, FileEntry)>) -> Edited {
    let files: BTreeMap<_, _> = files.into_iter().map(|(n, e)| (n, Some(e))).collect();
    tree.edit(Root::EMPTY, files).await.unwrap()
}

async fn differences(tree: &Tree, old: Root, new: Root) -> Vec<Difference> {
    tree.diff(old, new).try_collect().await.unwrap()
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(test);
}

/// Returns names in a few folders, so that edits affect the same ones.
fn names() -> impl Strategy<Value = Name> {
    (0..4u32, 0..400u32).prop_map(|(folder, file)| name(&format!("folder {folder}/{file}")))
}

fn edits() -> impl Strategy<Value = Vec<BTreeMap<Name, Option<FileEntry>>>> {
    let version = prop_oneof![3 => (0..50u64).prop_map(Some), 2 => Just(None)];
    let change = (names(), version).prop_map(|(name, version)| (name, version.map(entry)));
    // Some edits remove most of the files.
    let edit = (
        vec(change, 0..200),
        proptest::option::weighted(0.2, (0..4u32, 0..400u32)),
    );
    let edit = edit.prop_map(|(changes, removed)| {
        let mut changes: BTreeMap<_, _> = changes.into_iter().collect();
        if let Some((folder, from)) = removed {
            for (folder, file) in (0..=folder).flat_map(|f| (from..400).map(move |i| (f, i))) {
                changes.insert(name(&format!("folder {folder}/{file}")), None);
            }
        }
        changes
    });
    vec(edit, 1..12)
}

fn apply(model: &mut Files, changes: &BTreeMap<Name, Option<FileEntry>>) {
    for (name, entry) in changes {
        match entry {
            Some(entry) => model.insert(name.clone(), entry.clone()),
            None => model.remove(name),
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_tree_is_a_map_whatever_its_history(edits in edits(), start in 0..3000u64) {
        run(async {
            let tree = tree().await;
            let mut model: Files = many(start).collect();
            let mut root = build(&tree, model.clone()).await.root;
            for changes in edits {
                let before = (root, model.clone());
                apply(&mut model, &changes);
                root = tree.edit(root, changes).await.unwrap().root;
                assert_eq!(root.files, model.len() as u64);
                assert_eq!(root.bytes, model.values().map(|e| e.size).sum::<u64>());
                assert_eq!(contents(&tree, root).await, model);
                // Built from scratch, by a tree with an empty cache.
                let fresh = Tree::new(tree.blobs().clone(), Keyring::of_read(key()));
                assert_eq!(build(&fresh, model.clone()).await.root, root);
                let mut expected = BTreeMap::new();
                for name in before.1.keys().chain(model.keys()) {
                    let (old, new) = (before.1.get(name).cloned(), model.get(name).cloned());
                    if old != new {
                        expected.insert(name.clone(), Difference { name: name.clone(), old, new });
                    }
                }
                let found = differences(&tree, before.0, root).await;
                assert_eq!(found, expected.into_values().collect::<Vec<_>>());
                if let Some((name, entry)) = model.iter().nth(model.len() / 2) {
                    assert_eq!(tree.get(root, name).await.unwrap().as_ref(), Some(entry));
                }
                assert_eq!(tree.get(root, &name("folder")).await.unwrap(), None);
            }
        });
    }

    #[test]
    fn long_names_are_cut_into_short_pages(lens in vec(1..1500usize, 1..300)) {
        run(async {
            let tree = tree().await;
            let files = lens.iter().enumerate();
            let files = files.map(|(i, len)| (name(&format!("{i}{}", "/x".repeat(*len))), entry(1)));
            let model: Files = files.collect();
            let whole = build(&tree, model.clone()).await;
            let mut root = Root::EMPTY;
            for (name, entry) in &model {
                let change = BTreeMap::from([(name.clone(), Some(entry.clone()))]);
                root = tree.edit(root, change).await.unwrap().root;
            }
            assert_eq!(root, whole.root);
            assert_eq!(contents(&tree, root).await, model);
        });
    }

    #[test]
    fn a_listing_is_a_part_of_the_map(
        start in 0..2000u64, after in 0..2500u64, prefix in "(photos/(000[0-5](/IMG_0)?)?|p|q|)",
        is_after: bool,
    ) {
        run(async {
            let tree = tree().await;
            let model: Files = many(start).collect();
            let root = build(&tree, model.clone()).await.root;
            let after = many(after + 1).last().map(|(name, _)| name).filter(|_| is_after);
            let found: Vec<_> = tree.list(root, &prefix, after.as_ref()).try_collect().await.unwrap();
            let wanted = model.into_iter().filter(|(name, _)| {
                name.as_str().starts_with(&prefix) && Some(name) > after.as_ref()
            });
            assert_eq!(found, wanted.map(|(name, entry)| Named { name, entry }).collect::<Vec<_>>());
        });
    }
}

#[tokio::test]
async fn the_empty_tree_is_a_tree() {
    let tree = tree().await;
    let none = tree.edit(Root::EMPTY, BTreeMap::new()).await.unwrap();
    assert_eq!((none.root, none.pages), (Root::EMPTY, 0));
    let one = build(&tree, [(name("a"), entry(1))]).await;
    assert_eq!((one.root.level, one.root.files, one.pages), (0, 1, 1));
    let removed = BTreeMap::from([(name("a"), None), (name("b"), None)]);
    let none = tree.edit(one.root, removed).await.unwrap();
    assert_eq!((none.root, none.pages), (Root::EMPTY, 0));
    assert!(contents(&tree, none.root).await.is_empty());
    let error = tree.edit_sorted(
        Root::EMPTY,
        stream::iter([Ok::<Change, _>((name("b"), None)), Ok((name("a"), None))]),
    );
    assert_eq!(error.await.unwrap_err().kind(), Kind::Invalid);
}

#[tokio::test]
async fn a_tree_grows_and_shrinks_to_what_it_was() {
    let tree = tree().await;
    let mut root = Root::EMPTY;
    let mut before = Files::new();
    for count in [1, 31, 64, 65, 1000, 20_000, 4000, 33, 20_000, 2, 5000, 0] {
        // Alternates between the start and the end.
        let skip = if count % 2 == 0 { 20_000 - count } else { 0 };
        let now: Files = many(20_000)
            .skip(skip as usize)
            .take(count as usize)
            .collect();
        let mut changes: BTreeMap<_, _> = before.keys().map(|n| (n.clone(), None)).collect();
        changes.extend(now.iter().map(|(n, e)| (n.clone(), Some(e.clone()))));
        root = tree.edit(root, changes).await.unwrap().root;
        assert_eq!(root, build(&tree, now.clone()).await.root, "{count}");
        assert_eq!(contents(&tree, root).await, now);
        before = now;
    }
    assert_eq!(root, Root::EMPTY);
}

#[tokio::test]
async fn an_edit_that_changes_nothing_writes_nothing() {
    let tree = tree().await;
    let built = build(&tree, many(10_000)).await;
    let some = many(10_000)
        .step_by(77)
        .map(|(name, entry)| (name, Some(entry)));
    let nothing = [(name("no such file"), None)];
    let again = tree
        .edit(built.root, some.chain(nothing).collect())
        .await
        .unwrap();
    assert_eq!((again.root, again.pages, again.bytes), (built.root, 0, 0));
}

#[tokio::test]
async fn the_root_is_pinned() {
    let tree = tree().await;
    let root = build(&tree, many(5000)).await.root;
    let text = format!("{} {} {} {}", root.hash, root.level, root.files, root.bytes);
    golden::check("root.txt", &[text]);
}

#[tokio::test]
async fn cost_follows_the_change() {
    let tree = tree().await;
    let count = 100_000;
    let files = stream::iter(many(count).map(Ok)).boxed();
    let built = tree.build(files).await.unwrap();
    let average = count / built.pages;
    assert!((50..70).contains(&average), "{average} a page");
    let mut root = built.root;
    for i in 0..50 {
        let changed = match i % 3 {
            0 => (many(count).nth(i * 1999).unwrap().0, Some(entry(7))),
            1 => (many(count).nth(i * 1999).unwrap().0, None),
            _ => (name(&format!("photos/0100/new {i}")), Some(entry(7))),
        };
        let edited = tree
            .edit(root, BTreeMap::from([changed.clone()]))
            .await
            .unwrap();
        assert!(edited.pages <= 12, "{} pages", edited.pages);
        assert!(edited.bytes <= 200_000, "{} bytes", edited.bytes);
        let found = differences(&tree, root, edited.root).await;
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].name, &found[0].new), (&changed.0, &changed.1));
        root = edited.root;
    }
}

#[tokio::test]
async fn a_tag_keeps_a_tree_and_its_files() {
    let tree = tree().await;
    let blobs = tree.blobs();
    let mut pins = Vec::new();
    let mut files = Files::new();
    for i in 0..500u64 {
        let pin = blobs.add(i.to_be_bytes().to_vec()).await.unwrap();
        files.insert(
            name(&format!("{i}")),
            FileEntry {
                blob: pin.hash(),
                ..entry(i)
            },
        );
        pins.push(pin);
    }
    let first = build(&tree, files.clone()).await;
    drop(pins);
    blobs.collect(later()).await.unwrap();
    let tag = TagName::try_from("repo").unwrap();
    blobs
        .tags()
        .set(tag.clone(), first.root.keep())
        .await
        .unwrap();
    drop(first.pin);
    let changes = BTreeMap::from([(name("7"), None)]);
    let second = tree.edit(first.root, changes).await.unwrap();
    blobs.tags().set(tag, second.root.keep()).await.unwrap();
    drop(second.pin);
    let collected = blobs.collect(later()).await.unwrap();
    // The old leaf and the pages above it, with their sequences, and the file.
    assert_eq!(collected.deleted, 2 * second.pages + 1);
    let fresh = Tree::new(blobs.clone(), Keyring::of_read(key()));
    files.remove(&name("7"));
    assert_eq!(contents(&fresh, second.root).await, files);
    for file in files.values() {
        assert!(blobs.status(file.blob).await.unwrap().is_some());
    }
}

fn later() -> SystemTime {
    // A collection spares blobs that were added in the same millisecond.
    std::thread::sleep(Duration::from_millis(2));
    SystemTime::now()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_beside_collections_loses_nothing() {
    let tree = tree().await;
    let collecting = tokio::spawn({
        let blobs = tree.blobs().clone();
        async move {
            loop {
                blobs.collect(SystemTime::now()).await.unwrap();
            }
        }
    });
    let mut edited = build(&tree, many(3000)).await;
    for i in 0..40u64 {
        let changes = many(3000).skip(i as usize).step_by(97);
        let changes = changes.map(|(name, _)| (name, Some(entry(i)))).collect();
        edited = tree.edit(edited.root, changes).await.unwrap();
        let fresh = Tree::new(tree.blobs().clone(), Keyring::of_read(key()));
        assert_eq!(contents(&fresh, edited.root).await.len(), 3000);
    }
    collecting.abort();
}

//! Tests of what a collection deletes, and of what it must never delete.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use common::{bytes, engine, transfer};
use futures_util::StreamExt;
use larder_store_api::{BlobStore, Kind, Result};
use larder_store_engine::{
    AddOptions, Blobs, ChunkNum, ChunkRanges, Collected, Format, Hash, MAX_TREE_SEQUENCE_LEN, Root,
    Roots, TagName,
};
use tokio::sync::watch;

fn soon() -> SystemTime {
    // A collection spares blobs that were added in the same millisecond.
    std::thread::sleep(Duration::from_millis(2));
    SystemTime::now()
}

async fn names(blobs: &Blobs, children: &[Hash]) -> Hash {
    let list: Vec<u8> = children.iter().flat_map(|h| *h.as_bytes()).collect();
    let options = AddOptions::default()
        .format(Format::HashSeq)
        .tag(TagName::try_from("list").unwrap());
    blobs.add_with(list, options).await.unwrap().hash()
}

async fn here(blobs: &Blobs, hash: Hash) -> bool {
    blobs.status(hash).await.unwrap().is_some()
}

#[tokio::test]
async fn what_nothing_reaches_is_deleted() {
    let (blobs, store) = engine().await;
    let mut hashes = Vec::new();
    for i in 0..100u64 {
        let pin = blobs.add(bytes(i, 10 + 1000 * i as usize)).await.unwrap();
        hashes.push(pin.hash());
    }
    let tag = TagName::try_from("kept").unwrap();
    blobs.tags().set(tag, Root::raw(hashes[99])).await.unwrap();
    let pin = blobs.pin(Root::raw(hashes[50])).await;
    let list = names(&blobs, &hashes[..10]).await;
    let collected = blobs.collect(soon()).await.unwrap();
    assert_eq!((collected.kept, collected.deleted), (13, 88));
    for (i, hash) in hashes.iter().enumerate() {
        assert_eq!(here(&blobs, *hash).await, i < 10 || i == 50 || i == 99);
    }
    assert!(here(&blobs, list).await);
    drop(pin);
    blobs
        .tags()
        .delete_one(&TagName::try_from("list").unwrap())
        .await
        .unwrap();
    let collected = blobs.collect(soon()).await.unwrap();
    assert_eq!((collected.kept, collected.deleted), (1, 12));
    let payloads = BlobStore::list(&*store, None).count().await;
    assert_eq!(payloads, 1);
}

#[tokio::test]
async fn what_is_young_is_spared() {
    let (blobs, _) = engine().await;
    let hash = blobs.add(bytes(1, 100)).await.unwrap().hash();
    let hour = Duration::from_secs(3600);
    let collected = blobs.collect(SystemTime::now() - hour).await.unwrap();
    assert_eq!(collected.deleted, 0);
    // A time in the future is no earlier than now.
    soon();
    let collected = blobs.collect(SystemTime::now() + hour).await.unwrap();
    assert_eq!(collected.deleted, 1);
    assert!(!here(&blobs, hash).await);
}

#[tokio::test]
async fn a_partial_list_keeps_what_it_names_so_far() {
    let (from, _) = engine().await;
    let (to, _) = engine().await;
    let children: Vec<Hash> = (0..2000u32).map(|i| Hash::of(i.to_le_bytes())).collect();
    let list = names(&from, &children).await;
    let first = to.add(0u32.to_le_bytes().to_vec()).await.unwrap().hash();
    let last = to.add(1999u32.to_le_bytes().to_vec()).await.unwrap().hash();
    let start = ChunkRanges::from(..ChunkNum(16));
    transfer(&from, &to, list, 2000 * 32, start).await;
    let tag = TagName::try_from("list").unwrap();
    to.tags().set(tag, Root::hash_seq(list)).await.unwrap();
    let collected = to.collect(soon()).await.unwrap();
    assert_eq!(collected.deleted, 1);
    assert!(here(&to, first).await && !here(&to, last).await);
}

#[derive(Debug)]
struct Elsewhere(Root);

#[async_trait]
impl Roots for Elsewhere {
    async fn roots(&self, _blobs: &Blobs) -> Result<Vec<Root>> {
        Ok(vec![self.0])
    }
}

#[derive(Debug)]
struct Broken;

#[async_trait]
impl Roots for Broken {
    async fn roots(&self, _blobs: &Blobs) -> Result<Vec<Root>> {
        Err(larder_store_api::Error::new(
            Kind::Unavailable,
            "test.roots",
            "",
        ))
    }
}

#[tokio::test]
async fn pins_elsewhere_count_and_their_failure_deletes_nothing() {
    let (blobs, _) = engine().await;
    let kept = blobs.add(bytes(1, 100)).await.unwrap().hash();
    let lost = blobs.add(bytes(2, 100)).await.unwrap().hash();
    blobs.add_roots(Arc::new(Elsewhere(Root::raw(kept))));
    assert_eq!(blobs.collect(soon()).await.unwrap().deleted, 1);
    assert!(here(&blobs, kept).await && !here(&blobs, lost).await);
    blobs.add_roots(Arc::new(Broken));
    blobs.add(bytes(2, 100)).await.unwrap();
    let error = blobs.collect(soon()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(here(&blobs, lost).await);
}

#[tokio::test]
async fn a_pinned_blob_is_not_deleted_by_hand() {
    let (blobs, _) = engine().await;
    let pin = blobs.add(bytes(1, 100)).await.unwrap();
    let error = blobs.delete(vec![pin.hash()]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    let hash = pin.hash();
    drop(pin);
    blobs.delete(vec![hash]).await.unwrap();
    blobs.delete(vec![hash]).await.unwrap();
    assert!(!here(&blobs, hash).await);
}

/// Adders, taggers and importers race with a collector that spares no blob for its age.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_reachable_is_deleted_under_load() {
    let (blobs, _) = engine().await;
    let done = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for worker in 0..8u64 {
        let (blobs, done) = (blobs.clone(), done.clone());
        tasks.push(tokio::spawn(async move {
            let tag = TagName::try_from(format!("worker {worker}").as_str()).unwrap();
            let mut rounds = 0u64;
            while !done.load(Ordering::Relaxed) {
                // There are few different blobs, so that workers use the same ones.
                let seed = (worker * 31 + rounds) % 24;
                let len = if seed.is_multiple_of(3) { 20_000 } else { 100 };
                let pin = blobs.add(bytes(seed, len)).await.unwrap();
                assert!(here(&blobs, pin.hash()).await, "pinned");
                let children = [pin.hash()];
                let list: Vec<u8> = children.iter().flat_map(|h| *h.as_bytes()).collect();
                let list = blobs.add(list).await.unwrap();
                let root = Root::hash_seq(list.hash());
                blobs.tags().set(tag.clone(), root).await.unwrap();
                let hash = pin.hash();
                drop((pin, list));
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                    assert!(here(&blobs, hash).await, "tagged");
                }
                let read = blobs.read_to_bytes(hash, 0..u64::MAX).await.unwrap();
                assert_eq!(Hash::of(&read), hash);
                rounds += 1;
            }
            rounds
        }));
    }
    let mut total = Collected::default();
    let until = std::time::Instant::now() + Duration::from_secs(3);
    while std::time::Instant::now() < until {
        let collected = blobs.collect(SystemTime::now()).await.unwrap();
        total.deleted += collected.deleted;
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::Relaxed);
    let mut rounds = 0;
    for task in tasks {
        rounds += task.await.unwrap();
    }
    assert!(
        rounds > 100 && total.deleted > 10,
        "{rounds} rounds, {total:?}"
    );
}

async fn sequence(blobs: &Blobs, children: &[Hash]) -> Hash {
    let list: Vec<u8> = children.iter().flat_map(|h| *h.as_bytes()).collect();
    blobs.add(list).await.unwrap().hash()
}

/// Adds a tree of three levels of sequences, each with a page of its own, and the blobs that it names.
async fn tree(blobs: &Blobs, seed: u64) -> (Hash, Vec<Hash>) {
    let mut all = Vec::new();
    let mut next = 1000 * seed;
    let mut leaf = async |len| {
        next += 1;
        let hash = blobs.add(bytes(next, len)).await.unwrap().hash();
        all.push(hash);
        hash
    };
    let mut middle = vec![leaf(40).await];
    let mut sequences = Vec::new();
    for _ in 0..3 {
        let bottom = [leaf(50).await, leaf(20_000).await, leaf(64).await];
        middle.push(sequence(blobs, &bottom).await);
        sequences.push(middle[middle.len() - 1]);
    }
    let top = [leaf(60).await, sequence(blobs, &middle).await];
    sequences.push(top[1]);
    let root = sequence(blobs, &top).await;
    all.extend(sequences);
    all.push(root);
    (root, all)
}

/// A blob that is longer than any sequence of a tree names nothing as one, as a hash sequence it does.
#[tokio::test]
async fn a_long_blob_is_no_sequence_of_a_tree() {
    let (blobs, _) = engine().await;
    let named = blobs.add(bytes(1, 100)).await.unwrap().hash();
    let longest = usize::try_from(MAX_TREE_SEQUENCE_LEN / 32).unwrap();
    for (count, format, is_kept) in [
        (longest, Format::Tree { depth: 1 }, true),
        (longest + 1, Format::Tree { depth: 1 }, false),
        (longest + 1, Format::Tree { depth: 5 }, false),
        (longest + 1, Format::HashSeq, true),
    ] {
        let hash = sequence(&blobs, &vec![named; count]).await;
        let mut reachable = blobs.reachable();
        reachable.add(Root { hash, format }).await.unwrap();
        assert!(reachable.contains(&hash));
        assert_eq!(reachable.contains(&named), is_kept, "{count}, {format:?}");
    }
}

#[tokio::test]
async fn a_tree_keeps_all_of_itself() {
    let (blobs, _) = engine().await;
    let (root, all) = tree(&blobs, 1).await;
    let (_, others) = tree(&blobs, 2).await;
    let tag = TagName::try_from("tree").unwrap();
    blobs
        .tags()
        .set(tag.clone(), Root::tree(root, 3))
        .await
        .unwrap();
    assert_eq!(
        blobs.tags().get(&tag).await.unwrap(),
        Some(Root::tree(root, 3))
    );
    let collected = blobs.collect(soon()).await.unwrap();
    assert_eq!(collected.kept, all.len() as u64);
    assert_eq!(collected.deleted, others.len() as u64);
    // A pin keeps more than the tag does.
    let pin = blobs.pin(Root::tree(root, 3)).await;
    blobs
        .tags()
        .set(tag.clone(), Root::hash_seq(root))
        .await
        .unwrap();
    assert_eq!(blobs.collect(soon()).await.unwrap().deleted, 0);
    drop(pin);
    // Of depth 2, and of depth 1, which is a hash sequence.
    blobs
        .tags()
        .set(tag.clone(), Root::tree(root, 2))
        .await
        .unwrap();
    blobs.collect(soon()).await.unwrap();
    let mut left = 0;
    for hash in &all {
        left += usize::from(here(&blobs, *hash).await);
    }
    // The root, its page and its sequence; the page and the three sequences of that one.
    assert_eq!(left, 7);
    blobs.tags().set(tag, Root::tree(root, 1)).await.unwrap();
    assert_eq!(blobs.collect(soon()).await.unwrap().kept, 3);
}

#[tokio::test]
async fn one_sequence_at_two_depths_is_read_to_both() {
    let (blobs, _) = engine().await;
    let (root, all) = tree(&blobs, 1).await;
    // The lesser depth comes first, by name and from above.
    let above = sequence(&blobs, &[root, root]).await;
    let tags = [("a", Root::hash_seq(root)), ("b", Root::tree(above, 4))];
    for (name, root) in tags {
        blobs
            .tags()
            .set(TagName::try_from(name).unwrap(), root)
            .await
            .unwrap();
    }
    let collected = blobs.collect(soon()).await.unwrap();
    assert_eq!(
        (collected.kept, collected.deleted),
        (all.len() as u64 + 1, 0)
    );
}

#[tokio::test]
async fn the_first_of_a_tree_is_never_a_sequence() {
    let (blobs, _) = engine().await;
    let named = blobs.add(bytes(1, 32)).await.unwrap().hash();
    // A page that looks like a sequence.
    let page = sequence(&blobs, &[named]).await;
    let root = sequence(&blobs, &[page]).await;
    let tag = TagName::try_from("tree").unwrap();
    blobs.tags().set(tag, Root::tree(root, 2)).await.unwrap();
    assert_eq!(blobs.collect(soon()).await.unwrap().kept, 2);
    assert!(!here(&blobs, named).await);
}

#[tokio::test]
async fn a_tree_that_is_not_here_yet_keeps_what_comes() {
    let (from, _) = engine().await;
    let (to, _) = engine().await;
    let (root, all) = tree(&from, 1).await;
    let tag = TagName::try_from("tree").unwrap();
    to.tags().set(tag, Root::tree(root, 3)).await.unwrap();
    for hash in all.iter().rev() {
        let bytes = from.read_to_bytes(*hash, 0..u64::MAX).await.unwrap();
        to.add(bytes).await.unwrap();
        // Roots come first here, so that everything that has arrived is reached.
        assert_eq!(to.collect(soon()).await.unwrap().deleted, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_comes_while_collecting_stays() {
    let (blobs, _) = engine().await;
    let (from, _) = engine().await;
    let (rounds, mut ended) = watch::channel(0_u64);
    let collecting = tokio::spawn({
        let blobs = blobs.clone();
        async move {
            loop {
                blobs.collect(SystemTime::now()).await.unwrap();
                rounds.send_modify(|rounds| *rounds += 1);
            }
        }
    });
    let mut before: Vec<Hash> = Vec::new();
    for seed in 0..20 {
        let (root, all) = tree(&from, seed).await;
        let pin = blobs.pin(Root::tree(root, 3)).await;
        let mut held = Vec::new();
        for hash in &all {
            let bytes = from.read_to_bytes(*hash, 0..u64::MAX).await.unwrap();
            held.push(blobs.add(bytes).await.unwrap());
        }
        // From here on only the tree keeps them, and no round spares them for their age.
        drop(held);
        soon();
        // One round that began after that has ended.
        let rounds = *ended.borrow_and_update();
        let round = ended.wait_for(|ended| *ended >= rounds + 2);
        round.await.expect("the collections go on");
        for hash in &all {
            assert!(here(&blobs, *hash).await);
        }
        // Nothing kept the tree before, so this shows that the collections do delete.
        for hash in before.iter().filter(|hash| !all.contains(hash)) {
            assert!(!here(&blobs, *hash).await);
        }
        before = all;
        drop(pin);
    }
    collecting.abort();
}

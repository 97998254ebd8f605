//! What a holder of no read key can find out: all blobs of a tree, and no name.

use std::collections::HashSet;

use super::*;
use sync_model::tree::walk::{Part, Reached, children, missing, walk};

async fn all(tree: &Tree, root: Root, than: Option<Root>) -> Vec<Reached> {
    walk(tree.blobs(), root, than).try_collect().await.unwrap()
}

fn count(reached: &[Reached], wanted: fn(&Part) -> bool) -> usize {
    reached
        .iter()
        .filter(|reached| wanted(&reached.part))
        .count()
}

#[tokio::test]
async fn a_walk_reaches_every_blob() {
    let tree = tree().await;
    let built = build(&tree, many(20_000)).await;
    let reached = all(&tree, built.root, None).await;
    assert_eq!(count(&reached, |part| *part == Part::File), 20_000);
    assert_eq!(
        count(&reached, |part| *part == Part::Page) as u64,
        built.pages
    );
    let sequences = count(&reached, |part| matches!(part, Part::Sequence { .. }));
    assert_eq!(sequences as u64, built.pages);
    assert_eq!(all(&tree, Root::EMPTY, None).await, []);
    assert_eq!(all(&tree, built.root, Some(built.root)).await, []);
    let top = children(tree.blobs(), built.root.hash, built.root.level)
        .await
        .unwrap();
    assert_eq!(top[0].part, Part::Page);
    assert_eq!(
        top[1].part,
        Part::Sequence {
            level: built.root.level - 1
        }
    );
}

#[tokio::test]
async fn a_walk_leaves_out_what_an_older_tree_has() {
    let tree = tree().await;
    let old = build(&tree, many(20_000)).await;
    let changes = many(20_000)
        .step_by(5000)
        .map(|(name, _)| (name, Some(entry(99_999))));
    let new = tree.edit(old.root, changes.collect()).await.unwrap();
    let reached = all(&tree, new.root, Some(old.root)).await;
    let hashes: HashSet<Hash> = reached.iter().map(|reached| reached.hash).collect();
    assert_eq!(hashes.len() as u64, 2 * new.pages + 1);
    assert!(hashes.contains(&entry(99_999).blob));
    // Of another height, in both directions.
    let small = build(&tree, many(30)).await;
    assert_eq!(small.root.level, 0);
    let reached = all(&tree, old.root, Some(small.root)).await;
    let whole = all(&tree, old.root, None).await;
    assert_eq!(reached.len(), whole.len() - 30);
    let reached = all(&tree, small.root, Some(old.root)).await;
    assert!(reached.len() <= 3, "{reached:?}");
}

#[tokio::test]
async fn a_replica_fetches_what_is_missing_round_by_round() {
    let source = tree().await;
    let replica = blobs().await;
    let mut files = Files::new();
    for i in 0..3000u64 {
        let pin = source.blobs().add(i.to_be_bytes().to_vec()).await.unwrap();
        files.insert(
            name(&format!("{i}")),
            FileEntry {
                blob: pin.hash(),
                ..entry(i)
            },
        );
    }
    let old = build(&source, files.clone()).await;
    let pin = source.blobs().add("changed").await.unwrap();
    let file = FileEntry {
        blob: pin.hash(),
        ..entry(1)
    };
    let new = source
        .edit(old.root, BTreeMap::from([(name("7"), Some(file))]))
        .await
        .unwrap();
    let fetch = async |root: Root, than: Option<Root>| {
        let (mut rounds, mut fetched) = (0, 0);
        loop {
            let lacking: Vec<Reached> = missing(&replica, root, than).try_collect().await.unwrap();
            if lacking.is_empty() {
                return (rounds, fetched);
            }
            rounds += 1;
            fetched += lacking.len() as u64;
            for reached in lacking {
                let bytes = source
                    .blobs()
                    .read_to_bytes(reached.hash, 0..u64::MAX)
                    .await;
                replica.add(bytes.unwrap()).await.unwrap();
            }
        }
    };
    let (rounds, fetched) = fetch(old.root, None).await;
    assert_eq!(rounds, u64::from(old.root.level) + 2);
    assert_eq!(fetched, 2 * old.pages + 3000);
    let (_, fetched) = fetch(new.root, Some(old.root)).await;
    assert_eq!(fetched, 2 * new.pages + 1);
    let reader = Tree::new(replica.clone(), &key());
    assert_eq!(contents(&reader, new.root).await.len(), 3000);
    assert_eq!(differences(&reader, old.root, new.root).await.len(), 1);
}

#[tokio::test]
async fn a_walk_does_not_follow_what_is_no_tree() {
    let tree = tree().await;
    let root = build(&tree, many(1000)).await.root;
    let kind = async |root: Root| {
        let found: Result<Vec<_>> = walk(tree.blobs(), root, None).try_collect().await;
        found.unwrap_err().kind()
    };
    let deep = |level| Root { level, ..root };
    assert_eq!(kind(deep(200)).await, Kind::Corrupt);
    // Files of this test have no blobs; as sequences they would be missing.
    assert_eq!(kind(deep(5)).await, Kind::NotFound);
    let hash = tree.blobs().add(vec![7; 1 << 20]).await.unwrap().hash();
    assert_eq!(kind(Root { hash, ..root }).await, Kind::Corrupt);
}

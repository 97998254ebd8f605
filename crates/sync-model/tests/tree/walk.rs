//! Tests of what can be found out without the read key: all blobs of a tree, and no name.

use std::collections::HashSet;

use super::*;
use larder_sync_model::tree::walk::{Part, Reached, Walk, children, sequences};

/// Returns all blobs of a tree, from the root down; but not those below pages that the tree `than` has
/// too, nor files that its other pages have.
async fn try_all(tree: &Tree, root: Root, than: Root) -> Result<Vec<Reached>> {
    let blobs = tree.blobs();
    let mut walk = Walk::between(than, root)?;
    let mut all = Vec::new();
    while let Some(level) = walk.next_level() {
        let number = level.number;
        let mut old = HashSet::new();
        for page in level.old {
            let named = children(blobs, page, number).await?;
            walk.old_below(sequences(&named));
            old.extend(named.into_iter().map(|child| child.hash));
        }
        for chain in level.pages {
            assert_eq!(chain.len(), usize::from(root.level - number) + 1);
            let hash = *chain.last().unwrap();
            let part = Part::Sequence { level: number };
            all.push(Reached { hash, part });
            let named = children(blobs, hash, number).await?;
            walk.below(&chain, sequences(&named));
            let is_new = |child: &Reached| {
                !matches!(child.part, Part::Sequence { .. }) && !old.contains(&child.hash)
            };
            all.extend(named.into_iter().filter(is_new));
        }
    }
    Ok(all)
}

async fn all(tree: &Tree, root: Root, than: Option<Root>) -> Vec<Reached> {
    let than = than.unwrap_or(Root::EMPTY);
    try_all(tree, root, than).await.unwrap()
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
    // Trees of different heights, in both directions.
    let small = build(&tree, many(30)).await;
    assert_eq!(small.root.level, 0);
    let reached = all(&tree, old.root, Some(small.root)).await;
    let whole = all(&tree, old.root, None).await;
    assert_eq!(reached.len(), whole.len() - 30);
    let reached = all(&tree, small.root, Some(old.root)).await;
    assert!(reached.len() <= 3, "{reached:?}");
}

#[tokio::test]
async fn a_walk_does_not_follow_what_is_no_tree() {
    let tree = tree().await;
    let root = build(&tree, many(1000)).await.root;
    let kind = async |root: Root| try_all(&tree, root, Root::EMPTY).await.unwrap_err().kind();
    let deep = |level| Root { level, ..root };
    assert_eq!(kind(deep(200)).await, Kind::Corrupt);
    // Files of this test have no blobs; if they were taken as sequences, they would be missing.
    assert_eq!(kind(deep(5)).await, Kind::NotFound);
    let hash = tree.blobs().add(vec![7; 1 << 20]).await.unwrap().hash();
    assert_eq!(kind(Root { hash, ..root }).await, Kind::Corrupt);
}

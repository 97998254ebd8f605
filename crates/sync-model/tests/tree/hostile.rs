//! Tests that malformed pages cause errors, and never show other files.

use super::*;
use larder_store_engine::{Blobs, Source};
use larder_sync_model::{keyring::Keyring, keys::ReadKey, seal::page::PageKeys};

/// Returns the hashes of a sequence.
async fn sequence_of(blobs: &Blobs, hash: Hash) -> Vec<Hash> {
    let bytes = blobs.read_to_bytes(hash, 0..u64::MAX).await.unwrap();
    let (hashes, _) = bytes.as_chunks::<32>();
    hashes.iter().map(|hash| Hash::from(*hash)).collect()
}

async fn add(blobs: &Blobs, bytes: impl Into<Source>) -> Hash {
    // An in-memory store collects nothing unless asked.
    blobs.add(bytes).await.unwrap().hash()
}

async fn add_sequence(blobs: &Blobs, hashes: &[Hash]) -> Hash {
    let bytes: Vec<u8> = hashes.iter().flat_map(|h| *h.as_bytes()).collect();
    add(blobs, bytes).await
}

async fn fails(tree: &Tree, root: Root, kind: Kind) {
    let error = tree
        .list(root, "", None)
        .try_collect::<Vec<_>>()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    let error = tree
        .diff(Root::EMPTY, root)
        .try_collect::<Vec<_>>()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    let change = BTreeMap::from([(name("zzz"), Some(entry(1)))]);
    let error = tree.edit(root, change.clone()).await.err();
    // An edit reads only the pages that it changes; it may miss the damage.
    assert!(error.is_none_or(|error| error.kind() == kind));
}

#[tokio::test]
async fn a_root_that_says_something_else_is_refused() {
    let tree = tree().await;
    let root = build(&tree, many(1000)).await.root;
    assert_eq!(root.level, 1);
    let other = |change: fn(&mut Root)| {
        let mut root = root;
        change(&mut root);
        root
    };
    for root in [
        other(|root| root.level = 0),
        other(|root| root.level = 2),
        other(|root| root.level = 200),
        other(|root| root.files += 1),
        other(|root| root.bytes += 1),
        other(|root| root.hash = Hash::EMPTY),
    ] {
        fails(
            &Tree::new(tree.blobs().clone(), Keyring::of_read(key())),
            root,
            Kind::Corrupt,
        )
        .await;
        if root.level != 200 {
            fails(&tree, root, Kind::Corrupt).await;
        }
    }
    let missing = other(|root| root.hash = Hash::from([1; 32]));
    fails(&tree, missing, Kind::NotFound).await;
}

#[tokio::test]
async fn another_key_opens_no_page() {
    let tree = tree().await;
    let root = build(&tree, many(1000)).await.root;
    let with = |key| Tree::new(tree.blobs().clone(), Keyring::of_read(key));
    fails(&with(ReadKey::from_bytes([8; 32], 0)), root, Kind::Corrupt).await;
    fails(&with(ReadKey::from_bytes([7; 32], 1)), root, Kind::Denied).await;
}

#[tokio::test]
async fn a_sequence_that_is_none_is_refused() {
    let tree = tree().await;
    let blobs = tree.blobs();
    let root = build(&tree, many(20)).await.root;
    let good = sequence_of(blobs, root.hash).await;
    let mut swapped = good.clone();
    swapped.swap(1, 2);
    let mut page = good.clone();
    page[0] = add(blobs, vec![9; 300]).await;
    let mut long = good.clone();
    long.resize(514, good[1]);
    for hashes in [&good[..1], &good[1..], &good[..20], &swapped, &page, &long] {
        let hash = add_sequence(blobs, hashes).await;
        let fresh = Tree::new(blobs.clone(), Keyring::of_read(key()));
        if hashes == &good[1..] {
            // A file in the place of the page; its blob is not here.
            fails(&fresh, Root { hash, ..root }, Kind::NotFound).await;
        } else {
            fails(&fresh, Root { hash, ..root }, Kind::Corrupt).await;
        }
    }
    let hash = add(blobs, vec![7; 33]).await;
    fails(&tree, Root { hash, ..root }, Kind::Corrupt).await;
    let hash = add(blobs, vec![7; 1 << 20]).await;
    fails(&tree, Root { hash, ..root }, Kind::Corrupt).await;
}

/// Pages that a holder of the read key made from arbitrary bytes.
#[tokio::test]
async fn a_page_made_by_a_member_is_checked() {
    let tree = tree().await;
    let blobs = tree.blobs();
    let keys = PageKeys::new(&key());
    let pair = build(&tree, [(name("a"), entry(1)), (name("b"), entry(2))])
        .await
        .root;
    let single = build(&tree, [(name("b"), entry(2))]).await.root;
    let made = async |plain: Vec<u8>, links: &[Hash]| {
        let page = add(blobs, keys.seal(&plain)).await;
        add_sequence(blobs, &[&[page], links].concat()).await
    };
    let inner = |items: &[(&[u8], u64, u64)]| {
        let mut plain = vec![1, 1, 0, items.len() as u8];
        for (name, files, bytes) in items {
            plain.extend([0, 0, 0, name.len() as u8]);
            plain.extend(*name);
            plain.extend(files.to_be_bytes());
            plain.extend(bytes.to_be_bytes());
        }
        plain
    };
    let root = |hash, files, bytes| Root {
        hash,
        level: 1,
        files,
        bytes,
    };
    // A correct page, though cut in another way.
    let links = [pair.hash];
    let hash = made(inner(&[(b"b", 2, 3)]), &links).await;
    assert_eq!(contents(&tree, root(hash, 2, 3)).await.len(), 2);
    // The page below has another last name, other counts, or another order.
    let hash = made(inner(&[(b"c", 2, 3)]), &links).await;
    fails(&tree, root(hash, 2, 3), Kind::Corrupt).await;
    let hash = made(inner(&[(b"b", 3, 3)]), &links).await;
    fails(&tree, root(hash, 3, 3), Kind::Corrupt).await;
    let hash = made(inner(&[(b"b", 2, 4)]), &links).await;
    fails(&tree, root(hash, 2, 4), Kind::Corrupt).await;
    let hash = made(inner(&[(b"b", u64::MAX, 4), (b"c", 2, 4)]), &[pair.hash; 2]).await;
    fails(&tree, root(hash, 1, 8), Kind::Corrupt).await;
    // A page whose names begin before the end of the page before it.
    let first = build(&tree, [(name("a"), entry(1))]).await.root;
    let items: [(&[u8], u64, u64); 2] = [(b"a", 1, 1), (b"b", 2, 3)];
    let hash = made(inner(&items), &[first.hash, pair.hash]).await;
    fails(&tree, root(hash, 3, 4), Kind::Corrupt).await;
    let items: [(&[u8], u64, u64); 2] = [(b"a", 1, 1), (b"b", 1, 2)];
    let hash = made(inner(&items), &[first.hash, single.hash]).await;
    assert_eq!(contents(&tree, root(hash, 2, 3)).await.len(), 2);
}

#[tokio::test]
async fn what_is_not_here_is_missing_and_not_left_out() {
    let tree = tree().await;
    let root = build(&tree, many(5000)).await.root;
    let below = sequence_of(tree.blobs(), root.hash).await;
    tree.blobs().delete(vec![below[5]]).await.unwrap();
    let fresh = Tree::new(tree.blobs().clone(), Keyring::of_read(key()));
    let found: Vec<Result<_>> = fresh.list(root, "", None).collect().await;
    let (last, before) = found.split_last().unwrap();
    assert_eq!(last.as_ref().unwrap_err().kind(), Kind::NotFound);
    assert!(!before.is_empty() && before.iter().all(Result::is_ok));
}

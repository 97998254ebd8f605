//! Tests of merging: nobody's work is lost, and all devices get the same tree.

use super::*;

async fn merged(tree: &Tree, ours: Root, theirs: Root, base: Option<Root>) -> Files {
    let one = tree.merge(ours, theirs, base).await.unwrap().root;
    let other = tree.merge(theirs, ours, base).await.unwrap().root;
    assert_eq!(one, other);
    // Merging again changes nothing.
    let again = tree.merge(one, theirs, Some(theirs)).await.unwrap();
    assert_eq!(again.root, one);
    contents(tree, one).await
}

fn at(version: u64, modified: i64) -> FileEntry {
    let modified_entry = entry(version);
    FileEntry {
        modified,
        ..modified_entry
    }
}

fn copy_name(stem: &str, entry: &FileEntry, extension: &str) -> Name {
    name(&format!(
        "{stem} (conflict {}){extension}",
        entry.hash.fmt_short()
    ))
}

#[tokio::test]
async fn the_newest_wins_and_the_other_is_kept() {
    let tree = tree().await;
    let ours = build(
        &tree,
        [(name("a.txt"), at(1, 10)), (name("only ours"), at(3, 0))],
    )
    .await;
    let theirs = build(
        &tree,
        [(name("a.txt"), at(2, 5)), (name("only theirs"), at(4, 0))],
    )
    .await;
    let files = merged(&tree, ours.root, theirs.root, None).await;
    let expected = Files::from([
        (name("a.txt"), at(1, 10)),
        (copy_name("a", &at(2, 5), ".txt"), at(2, 5)),
        (name("only ours"), at(3, 0)),
        (name("only theirs"), at(4, 0)),
    ]);
    assert_eq!(files, expected);
    // At the same time, the greater hash wins.
    let theirs = build(&tree, [(name("a.txt"), at(2, 10))]).await;
    let files = merged(&tree, ours.root, theirs.root, None).await;
    let (a, b) = (at(1, 10), at(2, 10));
    let wins = if a.hash.as_bytes() > b.hash.as_bytes() {
        a
    } else {
        b
    };
    assert_eq!(files[&name("a.txt")], wins);
    assert_eq!(files.len(), 3);
    // Equal bytes at two times do not conflict.
    let theirs = build(&tree, [(name("a.txt"), at(1, 20))]).await;
    let files = merged(&tree, ours.root, theirs.root, None).await;
    assert_eq!(files[&name("a.txt")], at(1, 20));
    assert_eq!(files.len(), 2);
}

#[tokio::test]
async fn who_changed_nothing_yields() {
    let tree = tree().await;
    let files: Files = many(1000).collect();
    let base = build(&tree, files.clone()).await;
    let names: Vec<Name> = files.keys().cloned().collect();
    let mut ours = BTreeMap::new();
    let mut theirs = BTreeMap::new();
    // Changed on one side, though the time goes back; removed on one side; removed on both.
    ours.insert(names[1].clone(), Some(at(9, -5)));
    theirs.insert(names[2].clone(), None);
    ours.insert(names[3].clone(), None);
    theirs.insert(names[3].clone(), None);
    // Removed on one side, changed on the other: the changed file stays.
    ours.insert(names[4].clone(), Some(at(9, -5)));
    theirs.insert(names[4].clone(), None);
    let a = tree.edit(base.root, ours).await.unwrap();
    let b = tree.edit(base.root, theirs).await.unwrap();
    let found = merged(&tree, a.root, b.root, Some(base.root)).await;
    let mut expected = files.clone();
    expected.insert(names[1].clone(), at(9, -5));
    expected.remove(&names[2]);
    expected.remove(&names[3]);
    expected.insert(names[4].clone(), at(9, -5));
    assert_eq!(found, expected);
    // Without a base, files of one side stay.
    let found = merged(&tree, a.root, b.root, None).await;
    assert_eq!(found.get(&names[2]), files.get(&names[2]));
    assert_eq!(found.get(&names[3]), None);
}

#[tokio::test]
async fn a_copy_takes_no_name_of_another_file() {
    let tree = tree().await;
    let loser = at(2, 5);
    let taken = copy_name("a", &loser, ".txt");
    let ours = [(name("a.txt"), at(1, 10)), (taken.clone(), at(7, 0))];
    let ours = build(&tree, ours).await;
    let theirs = build(&tree, [(name("a.txt"), loser.clone())]).await;
    let files = merged(&tree, ours.root, theirs.root, None).await;
    assert_eq!(files[&taken], at(7, 0));
    let whole = name(&format!("a (conflict {}).txt", loser.hash));
    assert_eq!(files[&whole], loser);
    assert_eq!(files.len(), 3);
    // The conflict copy is there already.
    let ours = [(name("a.txt"), at(1, 10)), (taken.clone(), loser.clone())];
    let ours = build(&tree, ours).await;
    let files = merged(&tree, ours.root, theirs.root, None).await;
    assert_eq!(files.len(), 2);
}

fn side() -> impl Strategy<Value = BTreeMap<Name, Option<FileEntry>>> {
    let version = prop_oneof![3 => (0..6u64, 0..4i64).prop_map(Some), 1 => Just(None)];
    let change = (0..60u32, version).prop_map(|(file, version)| {
        (
            name(&format!("{file}.txt")),
            version.map(|(v, time)| at(v, time)),
        )
    });
    vec(change, 0..80).prop_map(|changes| changes.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_update_is_lost(start in 0..200u64, a in side(), b in side(), with_base: bool) {
        run(async {
            let tree = tree().await;
            let mut before: Files = (0..40).map(|i| (name(&format!("{i}.txt")), at(i, 1))).collect();
            before.extend(many(start));
            let base = build(&tree, before.clone()).await.root;
            let (mut ours, mut theirs) = (before.clone(), before.clone());
            apply(&mut ours, &a);
            apply(&mut theirs, &b);
            let x = tree.edit(base, a).await.unwrap().root;
            let y = tree.edit(base, b).await.unwrap().root;
            let found = merged(&tree, x, y, with_base.then_some(base)).await;
            let kept: std::collections::BTreeSet<Hash> = found.values().map(|e| e.hash).collect();
            for side in [&ours, &theirs] {
                for (name, entry) in side {
                    // Every file that a side wrote is there, under its name or as a conflict copy.
                    if before.get(name) != Some(entry) {
                        assert!(kept.contains(&entry.hash), "{name} is lost");
                    }
                }
            }
            for name in found.keys().filter(|name| !name.as_str().contains("conflict")) {
                assert!(ours.contains_key(name) || theirs.contains_key(name));
                if with_base && before.contains_key(name) {
                    let gone = |side: &Files, other: &Files| {
                        !side.contains_key(name) && other.get(name) == before.get(name)
                    };
                    assert!(!gone(&ours, &theirs) && !gone(&theirs, &ours), "{name} came back");
                }
            }
        });
    }
}

/// Checks that no name is a folder of another.
fn assert_no_clash(files: &Files) {
    for name in files.keys() {
        for (end, _) in name.as_str().match_indices('/') {
            let folder = &name.as_str()[..end];
            assert!(!files.contains_key(folder), "{folder} and {name}");
        }
    }
}

/// Makes one change as a repo does; one that is refused changes nothing.
async fn write(tree: &Tree, root: Root, name: &Name, file: Option<FileEntry>) -> Root {
    let mut changes = BTreeMap::from([(name.clone(), file)]);
    match tree.make_room("test", root, &mut changes).await {
        Ok(()) => tree.edit(root, changes).await.unwrap().root,
        Err(error) => {
            assert_eq!(error.kind(), Kind::Invalid);
            root
        }
    }
}

#[tokio::test]
async fn a_name_is_no_folder_too() {
    let tree = tree().await;
    let files = [
        (name("a"), at(1, 0)),
        (name("a.txt"), at(2, 0)),
        (name("b/c/d"), at(3, 0)),
    ];
    let root = build(&tree, files.clone()).await.root;
    // Whoever writes into a folder drops the file of its name, at any depth.
    let deep = write(&tree, root, &name("a/b/c"), Some(at(4, 0))).await;
    let expected: Files = [
        files[1].clone(),
        files[2].clone(),
        (name("a/b/c"), at(4, 0)),
    ]
    .into();
    assert_eq!(contents(&tree, deep).await, expected);
    // Whoever writes over a folder is refused, unless the same change empties it.
    for folder in ["b", "b/c"] {
        assert_eq!(
            write(&tree, root, &name(folder), Some(at(5, 0))).await,
            root
        );
    }
    let mut changes = BTreeMap::from([(name("b"), Some(at(5, 0))), (name("b/c/d"), None)]);
    tree.make_room("test", root, &mut changes).await.unwrap();
    let found = contents(&tree, tree.edit(root, changes).await.unwrap().root).await;
    assert_eq!(found[&name("b")], at(5, 0));
    assert_no_clash(&found);
    // Two new ones that exclude each other.
    let mut changes = BTreeMap::from([(name("x/y"), Some(at(5, 0))), (name("x"), Some(at(6, 0)))]);
    let error = tree.make_room("test", root, &mut changes).await;
    assert_eq!(error.unwrap_err().kind(), Kind::Invalid);
    // A file that goes makes room.
    let mut changes = BTreeMap::from([(name("a"), None), (name("a/x"), Some(at(5, 0)))]);
    tree.make_room("test", root, &mut changes).await.unwrap();
    assert_eq!(changes.len(), 2);
}

#[tokio::test]
async fn a_file_that_is_the_other_sides_folder_is_kept_beside_it() {
    let tree = tree().await;
    let base = build(&tree, [(name("n.d/k"), at(1, 0))]).await.root;
    let ours = write(&tree, base, &name("n.d/x"), Some(at(2, 9))).await;
    let ours = write(&tree, ours, &name("new"), Some(at(3, 9))).await;
    let theirs = tree
        .edit(base, BTreeMap::from([(name("n.d/k"), None)]))
        .await
        .unwrap()
        .root;
    let theirs = write(&tree, theirs, &name("n.d"), Some(at(4, 1))).await;
    let theirs = write(&tree, theirs, &name("new/deep/file"), Some(at(5, 1))).await;
    let found = merged(&tree, ours, theirs, Some(base)).await;
    let expected = Files::from([
        (copy_name("n", &at(4, 1), ".d"), at(4, 1)),
        (name("n.d/x"), at(2, 9)),
        (copy_name("new", &at(3, 9), ""), at(3, 9)),
        (name("new/deep/file"), at(5, 1)),
    ]);
    assert_eq!(found, expected);
    // A copy takes no name of a folder either.
    let taken = copy_name("new", &at(3, 9), "");
    let theirs = write(&tree, theirs, &name(&format!("{taken}/x")), Some(at(6, 1))).await;
    let found = merged(&tree, ours, theirs, Some(base)).await;
    let whole = name(&format!("new (conflict {})", at(3, 9).hash));
    assert_eq!(found[&whole], at(3, 9));
    assert_no_clash(&found);
}

/// Writes of files and folders that have each other's names.
fn nested() -> impl Strategy<Value = Vec<(Name, Option<FileEntry>)>> {
    let names = [
        "a", "a!", "a/b", "a/b/c", "a/b/d", "a.x", "a/c", "b/a", "b", "b/a/x",
    ];
    let version = prop_oneof![3 => (0..9u64, 0..4i64).prop_map(Some), 1 => Just(None)];
    let change = (0..names.len(), version).prop_map(move |(at_name, version)| {
        (name(names[at_name]), version.map(|(v, time)| at(v, time)))
    });
    vec(change, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_merge_makes_a_folder_of_a_file(start in nested(), a in nested(), b in nested(), with_base: bool) {
        run(async {
            let tree = tree().await;
            let mut roots = [Root::EMPTY; 3];
            for (name, file) in start {
                roots[0] = write(&tree, roots[0], &name, file).await;
            }
            let base = roots[0];
            roots = [base; 3];
            for (side, changes) in [(1, a), (2, b)] {
                for (name, file) in changes {
                    roots[side] = write(&tree, roots[side], &name, file).await;
                }
            }
            let [_, ours, theirs] = roots;
            let found = merged(&tree, ours, theirs, with_base.then_some(base)).await;
            assert_no_clash(&found);
            let before = contents(&tree, base).await;
            let kept: std::collections::BTreeSet<Hash> = found.values().map(|e| e.hash).collect();
            for side in [ours, theirs] {
                for (name, entry) in contents(&tree, side).await {
                    if before.get(&name) != Some(&entry) {
                        assert!(kept.contains(&entry.hash), "{name} is lost");
                    }
                }
            }
        });
    }
}

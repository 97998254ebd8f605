//! Writing out: what is refused, what is replaced, what is left alone.

use std::fs;

use larder::iroh::store_collection;

use super::support::{Place, noise, tree};

#[test]
fn a_folder_comes_back_as_it_was() {
    let place = Place::new();
    place.write_folder("folder");
    place.ok(&["add", "folder"]);
    let written = &place.json(&["get", "folder", "-o", "out"])[0];
    assert_eq!(tree(&place.path("out")), tree(&place.path("folder")));
    assert_eq!(written["already_there"], 0);
    let again = &place.json(&["get", "folder", "-o", "out"])[0];
    assert_eq!(
        (&again["files"], &again["already_there"]),
        (&0.into(), &written["files"])
    );
}

#[test]
fn one_file_of_a_folder_and_a_file_by_its_name() {
    let place = Place::new();
    place.write_folder("folder");
    place.ok(&["add", "folder", "folder/a.txt"]);
    place.ok(&["get", "folder/sub/deep/big.bin", "-o", "out"]);
    place.ok(&["get", "a.txt", "-o", "out"]);
    assert_eq!(
        fs::read(place.path("out/big.bin")).unwrap(),
        noise(3_000_000)
    );
    assert_eq!(fs::read(place.path("out/a.txt")).unwrap(), b"alpha\n");
}

#[test]
fn what_is_there_is_replaced_only_when_asked() {
    let place = Place::new();
    place.write("folder/a", "new");
    place.write("folder/b", "new");
    place.ok(&["add", "folder"]);
    place.write("out/a", "own");
    assert_eq!(
        place.fails(1, &["get", "folder", "-o", "out"]),
        "error: 1 file(s) are in the way, nothing was written\n  out/a\n  \
         now: choose another folder, or replace them with --overwrite\n"
    );
    assert_eq!(
        tree(&place.path("out")),
        [("a".to_owned(), b"own".to_vec())]
    );
    place.ok(&["get", "folder", "-o", "out", "--overwrite"]);
    assert_eq!(tree(&place.path("out")), tree(&place.path("folder")));
}

#[cfg(unix)]
#[test]
fn folders_and_links_are_never_replaced_or_followed() {
    let place = Place::new();
    place.write("folder/a", "new");
    place.write("folder/sub/b", "new");
    place.ok(&["add", "folder"]);
    fs::create_dir_all(place.path("elsewhere")).unwrap();
    fs::create_dir_all(place.path("out/a")).unwrap();
    std::os::unix::fs::symlink(place.path("elsewhere"), place.path("out/sub")).unwrap();
    let said = place.fails(1, &["get", "folder", "-o", "out", "--overwrite"]);
    assert_eq!(
        said,
        "error: 2 file(s) are in the way, nothing was written\n  out/a\n  out/sub\n  \
         now: folders and links are never replaced: choose another folder, or move them away\n"
    );
    assert!(tree(&place.path("elsewhere")).is_empty());
}

fn store_names(place: &Place, names: &[&str]) {
    place.with_store(async |store| {
        let pin = store.blobs().add("bad").await.unwrap();
        let entries = names.iter().map(|name| ((*name).to_owned(), pin.hash()));
        let tag = Some("evil".try_into().unwrap());
        store_collection(store.blobs(), entries.collect(), tag)
            .await
            .unwrap();
    });
}

#[test]
fn names_that_would_leave_the_folder_are_refused_before_anything_is_written() {
    let place = Place::new();
    fs::create_dir(place.path("out")).unwrap();
    for names in [
        &["ok", "../up"][..],
        &["/etc/larder"],
        &["C:/x"],
        &["a\\b"],
        &["nul\0"],
        &["CON"],
        &["a", "a"],
        &["Readme", "README"],
        &["a", "a/b"],
        &["trailing."],
        &[""],
    ] {
        store_names(&place, names);
        let said = place.fails(1, &["get", "evil", "-o", "out"]);
        assert!(
            said.starts_with("error: 1 unsafe name(s), nothing was written\n"),
            "{said}"
        );
        assert!(tree(&place.path("out")).is_empty(), "{names:?}");
    }
    assert!(!place.path("up").exists());
}

#[cfg(unix)]
#[test]
fn names_that_are_only_foreign_can_be_accepted() {
    let place = Place::new();
    store_names(&place, &["aux.c", "Makefile", "makefile"]);
    let said = place.fails(1, &["get", "evil", "-o", "out"]);
    assert!(said.ends_with("--any-name accepts them\n"), "{said}");
    place.ok(&["get", "evil", "-o", "out", "--any-name"]);
    assert_eq!(tree(&place.path("out")).len(), 3);
    store_names(&place, &["aux.c", "../up"]);
    place.fails(1, &["get", "evil", "-o", "out", "--any-name"]);
}

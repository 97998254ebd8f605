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
    let ended = place.run(&["get", "folder", "-o", "out"]);
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.out, "wrote 1 file(s), 3 B, to out\n");
    assert_eq!(
        ended.err,
        "error: 1 file(s) were not written\n  a: another file is in its place\n  \
         now: choose another folder, or replace them with --overwrite\n"
    );
    let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    assert_eq!(
        tree(&place.path("out")),
        [file("a", "own"), file("b", "new")]
    );
    place.ok(&["get", "folder", "-o", "out", "--overwrite"]);
    assert_eq!(tree(&place.path("out")), tree(&place.path("folder")));
}

#[cfg(unix)]
#[test]
fn folders_and_links_are_never_replaced_or_followed() {
    let place = Place::new();
    place.write("folder/a", "new");
    place.write("folder/c", "new");
    place.write("folder/sub/b", "new");
    place.ok(&["add", "folder"]);
    fs::create_dir_all(place.path("elsewhere")).unwrap();
    fs::create_dir_all(place.path("out/a")).unwrap();
    std::os::unix::fs::symlink(place.path("elsewhere"), place.path("out/sub")).unwrap();
    let said = place.fails(1, &["get", "folder", "-o", "out", "--overwrite"]);
    assert_eq!(
        said,
        "error: 2 file(s) were not written\n  a: a folder or a link is in its place\n  \
         sub/b: a folder or a link is in its place\n  \
         now: folders and links are never replaced: choose another folder, or move them away\n"
    );
    assert!(tree(&place.path("elsewhere")).is_empty());
    assert_eq!(fs::read(place.path("out/c")).unwrap(), b"new");
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

/// A bad name holds up no other, and nothing is written outside.
#[test]
fn names_that_would_leave_the_folder_are_refused_and_the_others_written() {
    let place = Place::new();
    for (names, written) in [
        (&["ok", "../up"][..], 1),
        (&["/etc/larder"], 0),
        (&["C:/x"], 0),
        (&["a\\b"], 0),
        (&["nul\0"], 0),
        (&["CON", "con fusion"], 1),
        (&["a", "a"], 1),
        (&["a", "a/b", "c"], 2),
        (&["trailing."], 0),
        (&["a\x1b[31mred\nline", "plain"], 1),
        (&[""], 0),
    ] {
        store_names(&place, names);
        let ended = place.run(&["get", "evil", "-o", "out"]);
        assert_eq!(ended.code, Some(1), "{names:?}: {ended:?}");
        assert!(
            ended.err.starts_with("error: 1 file(s) were not written\n"),
            "{}",
            ended.err
        );
        assert!(!ended.err.contains('\x1b'), "{}", ended.err);
        // A run that wrote nothing makes no folder.
        assert_eq!(place.path("out").exists(), written > 0, "{names:?}");
        if written > 0 {
            assert_eq!(tree(&place.path("out")).len(), written, "{names:?}");
            fs::remove_dir_all(place.path("out")).unwrap();
        }
    }
    assert!(!place.path("up").exists());
}

#[cfg(unix)]
#[test]
fn names_that_are_only_foreign_can_be_accepted() {
    let place = Place::new();
    store_names(&place, &["aux.c", "line\nbreak", "ok", "a:b"]);
    let said = place.fails(1, &["get", "evil", "-o", "out"]);
    assert!(said.ends_with("--any-name accepts them\n"), "{said}");
    assert_eq!(tree(&place.path("out")).len(), 1);
    assert!(
        said.contains("a:b: it contains a character that Windows does not allow"),
        "{said}"
    );
    place.ok(&["get", "evil", "-o", "out", "--any-name"]);
    assert_eq!(tree(&place.path("out")).len(), 4);
    store_names(&place, &["aux.c", "../up"]);
    place.fails(1, &["get", "evil", "-o", "out", "--any-name"]);
}

/// The file system that is written to says whether case tells names apart.
#[test]
fn names_that_differ_in_case_are_written_where_they_can_be() {
    let place = Place::new();
    store_names(&place, &["Makefile", "makefile"]);
    let (code, files) = match cfg!(any(windows, target_os = "macos")) {
        true => (Some(1), 1),
        false => (Some(0), 2),
    };
    let ended = place.run(&["get", "evil", "-o", "out"]);
    assert_eq!(ended.code, code, "{ended:?}");
    assert_eq!(tree(&place.path("out")).len(), files);
}

/// Zeros take no space when they are written out.
#[cfg(target_os = "linux")]
#[test]
fn a_sparse_file_is_sparse_again() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    let mut bytes = vec![0; 5_000_000];
    bytes[2_000_000] = 1;
    place.write("sparse", &bytes);
    place.write("zeros", vec![0; 300_000]);
    place.ok(&["add", "sparse", "zeros"]);
    place.ok(&["get", "sparse", "-o", "out"]);
    place.ok(&["get", "zeros", "-o", "out"]);
    assert_eq!(fs::read(place.path("out/sparse")).unwrap(), bytes);
    assert_eq!(fs::read(place.path("out/zeros")).unwrap(), vec![0; 300_000]);
    let blocks = |name: &str| fs::metadata(place.path(name)).unwrap().blocks();
    assert!(blocks("out/sparse") < blocks("sparse") / 2);
}

/// No file comes to lie outside through a link, however far above it the link is.
#[cfg(unix)]
#[test]
fn a_link_further_up_leads_nowhere() {
    let place = Place::new();
    place.write("src/link/b/file", "new");
    place.write("src/link/b/more", "more");
    place.write("src/fine", "fine");
    place.ok(&["add", "src"]);
    place.write("outside/b/file", "precious");
    fs::create_dir(place.path("out")).unwrap();
    std::os::unix::fs::symlink("../outside", place.path("out/link")).unwrap();
    for more in [&[][..], &["--overwrite"]] {
        let said = place.fails(1, &[&["get", "src", "-o", "out"], more].concat());
        assert!(said.contains("link/b/file"), "{said}");
        assert_eq!(
            tree(&place.path("outside")),
            [("b/file".to_owned(), b"precious".to_vec())]
        );
    }
    assert_eq!(fs::read_to_string(place.path("out/fine")).unwrap(), "fine");
}

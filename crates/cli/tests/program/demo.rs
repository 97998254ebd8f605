//! The first command of the README.

use std::fs;

use super::support::{Place, tree};

#[test]
fn a_folder_is_stored_served_fetched_and_compared() {
    let place = Place::new();
    place.write_folder("my folder");
    place.write(
        "my folder/target/CACHEDIR.TAG",
        "Signature: 8a477f597d28d172789f06886806bc55\n",
    );
    let done = &place.json(&["demo", "my folder"])[0];
    let files = if cfg!(unix) { 6 } else { 5 };
    assert_eq!(
        (&done["files"], &done["identical"]),
        (&files.into(), &files.into())
    );
    assert_eq!(done["skipped"]["caches"], 1);
    assert_eq!(done["changed_meanwhile"], 0);
    // Both stores are there to look at.
    for store in done["stores"].as_array().unwrap() {
        let listed = place.json(&["--store", store.as_str().unwrap(), "ls"]);
        assert_eq!(listed[0]["hash"], done["hash"]);
        assert_eq!(listed[0]["name"], "my folder");
    }
    let second = done["stores"][1].as_str().unwrap();
    place.ok(&["--store", second, "get", "my folder", "-o", "copy"]);
    fs::remove_dir_all(place.path("my folder/target")).unwrap();
    assert_eq!(tree(&place.path("copy")), tree(&place.path("my folder")));
}

#[test]
fn it_says_each_step_and_where_the_data_lies() {
    let place = Place::new();
    place.write("folder/a", "A");
    let text = place.ok(&["demo", "folder", "--dir", "here"]);
    for part in [
        "1. stored folder: 1 file(s), 1 B, in ",
        "2. serving it from process ",
        "3. fetched it in process ",
        "4. compared the second store with the folder, byte for byte: 1 of 1 file(s) identical",
        "\nThe same hash names it in both stores: ",
        "\nClean up:     rm -r '",
    ] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert_eq!(fs::read_dir(place.path("here")).unwrap().count(), 1);
    assert!(
        !place.path("store").exists(),
        "it touches no store of yours"
    );
    // An empty folder is a folder.
    fs::create_dir(place.path("empty")).unwrap();
    assert_eq!(place.json(&["demo", "empty"])[0]["files"], 0);
}

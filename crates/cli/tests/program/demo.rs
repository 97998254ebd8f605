//! The first command of the README.

use std::fs;

use super::support::{Place, tree};

#[test]
fn members_share_a_folder_and_a_replica_learns_nothing() {
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
    assert_eq!(done["left_out"]["counts"]["cache"], 1);
    assert_eq!(done["changed_meanwhile"], 0);
    assert_eq!(done["found_in_replica"], 0);
    assert!(done["samples"].as_u64().unwrap() > 2, "{done}");
    assert!(
        done["replica_bytes"].as_u64().unwrap() > 3_000_000,
        "{done}"
    );
    // All stores are there to look at.
    let key = format!("{}/secrets.key", done["data"].as_str().unwrap());
    let stores = done["stores"].as_array().unwrap();
    assert_eq!(stores.len(), 4);
    let mut command = place.command(&["get", "demo/ann/my folder", "-o", "copy"]);
    command
        .env("LARDER_STORE", stores[2].as_str().unwrap())
        .env("LARDER_SECRETS_KEY", key);
    assert_eq!(super::support::run(&mut command).code, Some(0));
    fs::remove_dir_all(place.path("my folder/target")).unwrap();
    assert_eq!(tree(&place.path("copy")), tree(&place.path("my folder")));
}

#[test]
fn it_says_each_step_and_where_the_data_lies() {
    let place = Place::new();
    place.write("folder/a", "A");
    let text = place.ok(&["demo", "folder", "--dir", "here"]);
    for part in [
        "1. ann made a group and put folder into it: 1 file(s), 1 B, sealed, in ",
        "processes: ann is ",
        "3. all four have all 3 file(s), after ",
        "4. killed cleo's process (kill -9)",
        "5. cleo came back: all four have all 6 file(s), after ",
        "1 of 1 file(s) identical",
        " is found in it",
        "8. ann removed bob",
        "\nLook around:  export LARDER_SECRETS_KEY=",
        "\nClean up:     rm -r '",
    ] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert_eq!(fs::read_dir(place.path("here")).unwrap().count(), 1);
    assert!(
        !place.path("store").exists(),
        "it touches no store of yours"
    );
}

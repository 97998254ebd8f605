//! Storing, listing, reading and removing.

use super::backend;
use super::support::{Place, Running, noise, run};

#[test]
fn a_folder_is_stored_listed_and_read_back() {
    let place = Place::new();
    place.write_folder("folder");
    let added = place.json(&["add", "folder"]);
    assert_eq!(added[0]["name"], "folder");
    assert_eq!(added[0]["kind"], "folder");
    let files = if cfg!(unix) { 6 } else { 5 };
    assert_eq!(added[0]["files"], files);

    let listed = place.json(&["ls"]);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["hash"], added[0]["hash"]);
    assert_eq!(listed[0]["complete"], true);
    let inside = place.json(&["ls", "folder"]);
    let names: Vec<_> = inside.iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert!(
        names.contains(&"sub/deep/big.bin") && names.is_sorted(),
        "{names:?}"
    );
    assert_eq!(place.ok(&["ls", "folder"]).lines().count(), files + 1);

    assert_eq!(place.ok(&["cat", "folder/a.txt"]), "alpha\n");
    let hash = inside
        .iter()
        .find(|file| file["name"] == "a.txt")
        .map(|file| file["hash"].as_str().unwrap().to_owned())
        .unwrap();
    assert_eq!(place.ok(&["cat", &hash]), "alpha\n");
    for (range, expected) in [("1..3", "lp"), ("4..", "a\n"), ("..2", "al"), ("6..20", "")] {
        assert_eq!(place.ok(&["cat", &hash, "--range", range]), expected);
    }
    // The folder, its list of names, and the files; an empty one takes no space.
    assert_eq!(place.json(&["ls", "--blobs"]).len(), files + 1);
}

#[test]
fn storing_the_same_again_changes_nothing_and_new_content_takes_the_name() {
    let place = Place::new();
    place.write("folder/a", "one");
    let first = place.json(&["add", "folder"]);
    assert_eq!(place.json(&["add", "folder"])[0]["hash"], first[0]["hash"]);
    place.write("folder/a", "two");
    let ended = place.run(&["add", "folder"]);
    assert_eq!(ended.code, Some(0));
    let hash = first[0]["hash"].as_str().unwrap();
    let note = format!("folder: was {hash} before; `larder gc` frees what only that needed\n");
    assert_eq!(ended.err, note);
    assert_eq!(place.ok(&["cat", "folder/a"]), "two");
    assert_eq!(place.json(&["ls"]).len(), 1);
}

#[test]
fn several_paths_names_and_standard_input() {
    let place = Place::new();
    place.write("a", "A");
    place.write("b", noise(100_000));
    place.ok(&["add", "a", "b"]);
    place.ok(&["add", "a", "--name", "other"]);
    let mut stdin = Running::start(place.command(&["--json", "add", "-", "--name", "piped"]));
    stdin.write(b"from a pipe");
    stdin.end_input();
    assert_eq!(stdin.json()["size"], 11);
    assert_eq!(stdin.child.wait().unwrap().code(), Some(0));
    let names: Vec<_> = place
        .json(&["ls"])
        .iter()
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["a", "b", "other", "piped"]);
    assert_eq!(place.ok(&["cat", "piped"]), "from a pipe");
}

#[test]
fn what_is_left_out_is_said_and_counted() {
    let place = Place::new();
    place.write("folder/a", "A");
    place.write(
        "folder/target/CACHEDIR.TAG",
        "Signature: 8a477f597d28d172789f06886806bc55\n",
    );
    std::fs::create_dir(place.path("folder/empty")).unwrap();
    let ended = place.run(&["add", "folder"]);
    assert_eq!(
        ended.err,
        "folder: left out: 1 empty folder(s), 1 cache folder(s) marked by CACHEDIR.TAG \
         (--include-caches takes them)\n"
    );
    let added = place.json(&["add", "folder", "--include-caches"]);
    assert_eq!(added[0]["files"], 2);
    assert_eq!(added[0]["left_out"]["counts"]["empty_folder"], 1);
    // A store that lies in the folder is not stored in itself.
    let store = format!("redb:{}", place.path("folder/store").display());
    let mut command = place.command(&["--json", "--store", &store, "add", "folder"]);
    let ended = run(&mut command);
    let added: serde_json::Value = serde_json::from_str(ended.out.trim()).unwrap();
    assert_eq!(added["left_out"]["counts"]["open_store"], 1);
}

#[test]
fn removing_and_collecting_frees_what_nothing_names() {
    let place = Place::new();
    place.write("keep/a", noise(200_000));
    place.write("go/same", noise(200_000));
    place.write("go/own", noise(300_000));
    place.ok(&["add", "keep", "go"]);
    assert!(
        place
            .fails(1, &["rm", "go", "gone"])
            .contains("nothing is stored under the name \"gone\"")
    );
    assert_eq!(
        place.json(&["ls"]).len(),
        2,
        "one wrong name removes nothing"
    );
    assert_eq!(place.ok(&["rm", "go"]), "removed go\n");
    let freed = place.json(&["gc", "--grace", "1d"]);
    assert_eq!(freed[0]["deleted"], 0, "all of it is younger than a day");
    let freed = place.json(&["gc"]);
    // The folder, its names, and the file that only it had.
    assert_eq!(freed[0]["deleted"], 3);
    assert!(freed[0]["freed"].as_u64().unwrap() >= 300_000);
    assert_eq!(
        place.ok(&["verify", "--quiet"]),
        "verified 3 blob(s), 195.4 KiB: all sound\n"
    );
}

#[test]
fn stats_say_what_is_there() {
    let place = Place::new();
    place.write("a", noise(200_000));
    place.ok(&["add", "a"]);
    let stats = &place.json(&["stats"])[0];
    assert_eq!(stats["backend"], backend::SCHEME);
    assert_eq!((&stats["names"], &stats["blobs"]), (&1.into(), &1.into()));
    assert_eq!(stats["bytes"], 200_000);
    assert!(stats["disk"]["payloads"].as_u64().unwrap() >= 200_000);
    let text = place.ok(&["stats"]);
    assert!(text.contains("blobs       1, 195.3 KiB\n"), "{text}");
}

#[test]
fn without_a_url_the_store_is_in_the_users_data() {
    let place = Place::new();
    place.write("a", "A");
    let mut command = place.command(&["add", "a"]);
    command.env_remove("LARDER_STORE");
    assert_eq!(run(&mut command).code, Some(0));
    if cfg!(target_os = "linux") {
        assert!(place.path("data/larder/store/FORMAT").exists());
    }
}

#[test]
fn completions_are_for_the_program() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let text = place.ok(&["completions", shell]);
        assert!(
            text.contains("larder") && text.contains("verify"),
            "{shell}"
        );
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_things_whole() {
    let place = Place::new();
    place.write("before", "B");
    place.ok(&["add", "before"]);
    let mut adding = Running::start(place.command(&["add", "-", "--name", "half"]));
    adding.write(&noise(5_000_000));
    let (code, err) = adding.signal("-INT");
    assert_eq!(code, Some(130));
    assert_eq!(err, "interrupted: what was stored stays\n");
    let names = place.json(&["ls"]);
    assert_eq!(names.len(), 1);
    assert_eq!(
        place.ok(&["-q", "verify"]),
        "verified 1 blob(s), 1 B: all sound\n"
    );
    let adding = Running::start(place.command(&["add", "-", "--name", "half"]));
    let (code, _) = adding.signal("-TERM");
    assert!(matches!(code, Some(143) | None), "{code:?}");
}

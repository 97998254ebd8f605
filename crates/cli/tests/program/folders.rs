//! Folders that are put, added and got again, with all that can happen to a folder meanwhile.

use std::fs;

use serde_json::Value;

use super::support::{Place, Running, noise, run, tree};

fn with_group() -> Place {
    let place = Place::new();
    place.ok(&["group", "create", "g", "--as", "me"]);
    place
}

fn names(listed: &[Value]) -> Vec<&str> {
    let names = listed.iter().map(|item| item["name"].as_str());
    names.map(Option::unwrap).collect()
}

#[test]
fn a_deleted_file_stays_until_the_folder_is_mirrored_and_is_named() {
    let place = with_group();
    place.write("d/keep", "keep");
    place.write("d/oops", "private");
    place.write("d/sub/gone", "gone");
    place.ok(&["put", "d", "--to", "in"]);
    place.write("other", "not of the folder");
    place.ok(&["put", "other", "--to", "in"]);
    fs::remove_file(place.path("d/oops")).unwrap();
    fs::remove_dir_all(place.path("d/sub")).unwrap();
    let ended = place.run(&["put", "d", "--to", "in"]);
    assert_eq!(ended.code, Some(0));
    assert_eq!(
        ended.err,
        "d: 2 file(s) are in the repo and not in the folder; they stay there: `larder rm` removes them, and `larder put \
         --mirror` those whose folder is not empty:\n  in/d/oops\n  in/d/sub/gone\n"
    );
    assert_eq!(place.json(&["ls", "g/me"]).len(), 4);
    let put = &place.json(&["put", "d", "--to", "in", "--mirror"])[0];
    assert_eq!(put["removed"]["count"], 2, "{put}");
    assert_eq!(put["removed"]["names"][0], "in/d/oops");
    assert_eq!(
        names(&place.json(&["ls", "g/me"])),
        ["in/d/keep", "in/other"]
    );
    assert_eq!(
        place.json(&["put", "d", "--to", "in"])[0]["kept"]["count"],
        0
    );
}

#[test]
fn share_gives_no_deleted_file_any_longer() {
    let place = Place::new();
    place.write("photos/keep", "keep");
    place.write("photos/oops", "private");
    let share = |more: &[&str]| {
        let args = [&["--json", "share", "photos", "--loopback"], more].concat();
        let mut sharing = Running::start(place.command(&args));
        let put = sharing.json();
        sharing.invite();
        put
    };
    share(&[]);
    fs::remove_file(place.path("photos/oops")).unwrap();
    assert_eq!(share(&["--no-mirror"])["kept"]["names"][0], "photos/oops");
    assert_eq!(place.json(&["ls", "photos/me"]).len(), 2);
    assert_eq!(share(&[])["removed"]["names"][0], "photos/oops");
    assert_eq!(names(&place.json(&["ls", "photos/me"])), ["photos/keep"]);
    // As if its disk were not mounted.
    fs::remove_file(place.path("photos/keep")).unwrap();
    assert_eq!(share(&[])["kept"]["count"], 1);
}

/// A mirror removes nothing that it did not look into.
#[cfg(unix)]
#[test]
fn a_mirror_keeps_what_it_leaves_out() {
    use std::os::unix::fs::symlink;
    let place = with_group();
    for folder in ["moved", "cache", "mount", "plain"] {
        place.write(&format!("d/{folder}/a"), folder);
    }
    place.ok(&["put", "d"]);
    // A folder moved to another disk; one that became a cache; one whose disk is gone; and one that was deleted.
    fs::rename(place.path("d/moved"), place.path("elsewhere")).unwrap();
    symlink(place.path("elsewhere"), place.path("d/moved")).unwrap();
    let mark = "Signature: 8a477f597d28d172789f06886806bc55";
    place.write("d/cache/CACHEDIR.TAG", mark);
    fs::remove_file(place.path("d/mount/a")).unwrap();
    fs::remove_dir_all(place.path("d/plain")).unwrap();
    let put = &place.json(&["put", "d", "--mirror"])[0];
    assert_eq!(
        put["removed"]["count"], 0,
        "no file is left to mirror: {put}"
    );
    place.write("d/new", "new");
    let put = &place.json(&["put", "d", "--mirror"])[0];
    assert_eq!(
        put["removed"]["names"],
        serde_json::json!(["d/plain/a"]),
        "{put}"
    );
    assert_eq!(
        put["kept"]["names"],
        serde_json::json!(["d/mount/a"]),
        "{put}"
    );
    assert_eq!(
        names(&place.json(&["ls", "g/me"])),
        ["d/cache/a", "d/mount/a", "d/moved/a", "d/new"]
    );
}

#[test]
fn a_single_file_says_what_it_replaces() {
    let place = with_group();
    place.write("a", "a file");
    place.write("b", "another");
    place.write("other/a", "of the same name");
    place.ok(&["put", "a"]);
    let put = &place.json(&["put", "b", "--to", "a"])[0];
    assert_eq!(put["removed"]["names"], serde_json::json!(["a"]), "{put}");
    let said = place.fails(2, &["put", "a", "other/a"]);
    assert!(
        said.contains("two paths would be put under the name"),
        "{said}"
    );
}

#[test]
fn names_of_groups_are_theirs() {
    let place = with_group();
    place.write("a", "a");
    place.ok(&["put", "a"]);
    for command in [&["add", "a", "--name", "sync/a"][..], &["rm", "sync/a"]] {
        let said = place.fails(1, command);
        assert!(said.contains("belong to groups"), "{said}");
    }
}

/// A `get` that was killed leaves files with names of their own, which are no files of the folder.
#[test]
fn leftovers_of_get_are_left_out() {
    let place = with_group();
    place.write("d/a", "a");
    place.write("d/.larder-0123456789abcdef.tmp", "half");
    place.write("d/.larder-mine.tmp", "mine");
    let put = &place.json(&["put", "d"])[0];
    assert_eq!(
        (&put["files"], &put["left_out"]["counts"]["temporary"]),
        (&2.into(), &1.into()),
        "{put}"
    );
}

#[test]
fn a_file_becomes_a_folder_and_the_other_way_round() {
    let place = with_group();
    for (before, after) in [("d/n", "d/n/g"), ("d/n/g", "d/n"), ("d/n/a/b", "d/n/a")] {
        let folder = place.path("d");
        fs::remove_dir_all(&folder).ok();
        place.write("d/other", "other");
        place.write(before, "before");
        place.ok(&["put", "d"]);
        fs::remove_dir_all(&folder).unwrap();
        place.write("d/other", "other");
        place.write(after, "after");
        let put = &place.json(&["put", "d"])[0];
        assert_eq!(put["removed"]["names"][0], before, "{put}");
        place.ok(&["get", "g/me/d", "-o", "out"]);
        assert_eq!(tree(&place.path("out")), tree(&folder), "{before} {after}");
        fs::remove_dir_all(place.path("out")).unwrap();
        place.ok(&["rm", "-r", "g/me/d"]);
    }
    // The folder itself.
    place.write("x", "a file");
    place.ok(&["put", "x"]);
    fs::remove_file(place.path("x")).unwrap();
    place.write("x/in", "in it");
    assert_eq!(place.json(&["put", "x"])[0]["removed"]["names"][0], "x");
    // One file does not empty a folder.
    place.write("single/x", "a file");
    let said = place.fails(1, &["put", "single/x"]);
    assert!(said.contains("a folder has this name"), "{said}");
    assert_eq!(names(&place.json(&["ls", "g/me"])), ["x/in"]);
}

#[test]
fn a_rename_in_case_replaces_the_old_name() {
    let place = with_group();
    place.write("d/Readme", "1");
    place.write("d/Sub/x", "2");
    place.ok(&["put", "d"]);
    fs::rename(place.path("d/Readme"), place.path("d/README")).unwrap();
    fs::rename(place.path("d/Sub"), place.path("d/sub")).unwrap();
    let put = &place.json(&["put", "d"])[0];
    assert_eq!(put["removed"]["count"], 2, "{put}");
    assert_eq!(names(&place.json(&["ls", "g/me"])), ["d/README", "d/sub/x"]);
    // A folder that has both keeps both.
    if cfg!(target_os = "linux") {
        place.write("d/readme", "3");
        let put = &place.json(&["put", "d"])[0];
        assert_eq!(
            (&put["files"], &put["removed"]["count"]),
            (&1.into(), &0.into())
        );
        place.ok(&["get", "g/me/d", "-o", "out"]);
        assert_eq!(tree(&place.path("out")), tree(&place.path("d")));
    }
}

/// Files that cannot be read hold up no other; a mirror keeps whatever the repo has of them.
#[cfg(target_os = "linux")]
#[test]
fn bad_files_are_named_and_the_others_stored() {
    use std::os::unix::ffi::OsStrExt;
    let place = with_group();
    place.write("d/a", "a");
    place.write("d/z", "z");
    let bad = std::ffi::OsStr::from_bytes(b"caf\xe9");
    fs::write(place.path("d").join(bad), "x").unwrap();
    for command in ["add", "put"] {
        let ended = place.run(&["--json", command, "d"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let done: Value = serde_json::from_str(&ended.out).unwrap();
        assert_eq!(done["files"], 2);
        let item = &done["left_out"]["items"][0];
        assert_eq!(item["reason"], "not_unicode");
        assert!(item["path"].as_str().unwrap().contains("caf"));
        let said: Value = serde_json::from_str(&ended.err).unwrap();
        let error = said["error"].as_str().unwrap();
        assert!(error.starts_with("1 file(s) were left out\n"), "{error}");
        let ended = place.run(&[command, "d"]);
        assert!(
            ended
                .err
                .contains(&format!("\n  now: rename it, and {command} it again; ")),
            "{ended:?}"
        );
        let ended = place.run(&[command, "d", "--skip-unreadable"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.err.contains("the name is not Unicode"), "{ended:?}");
    }
}

/// Whatever goes in comes out.
#[cfg(target_os = "linux")]
#[test]
fn names_that_are_too_long_are_refused_at_the_door() {
    let place = with_group();
    let deep = |len: usize| {
        let mut name = "d".to_owned();
        while name.len() + 101 < len {
            name += &format!("/{}", "x".repeat(100));
        }
        let last = "y".repeat(len - name.len() - 1);
        format!("{name}/{last}")
    };
    // With the name of the folder before it, a name in a repo is two bytes longer.
    place.write("d/flat", "flat");
    place.write(&deep(3000), "deep");
    for (command, out) in [("add", "d"), ("put", "g/me/d")] {
        place.ok(&[command, "d"]);
        place.ok(&["get", out, "-o", "out"]);
        assert_eq!(tree(&place.path("out")), tree(&place.path("d")));
        fs::remove_dir_all(place.path("out")).unwrap();
    }
    place.write(&deep(3300), "deeper");
    for command in ["add", "put"] {
        let ended = place.run(&["--json", command, "d"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let done: Value = serde_json::from_str(&ended.out).unwrap();
        assert_eq!(done["left_out"]["counts"]["too_long"], 1, "{done}");
        assert_eq!(done["left_out"]["items"].as_array().unwrap().len(), 1);
    }
}

#[cfg(unix)]
#[test]
fn an_open_store_is_left_out_by_any_path() {
    let place = Place::new();
    place.write("d/f", noise(50_000));
    std::os::unix::fs::symlink(place.path("d"), place.path("link")).unwrap();
    let with = |store: &str, args: &[&str]| {
        let store = format!("redb:{}", place.path(store).display());
        run(&mut place.command(&[&["--json", "--store", &store], args].concat()))
    };
    for (store, folder) in [
        ("d/store", "d"),
        ("link/store", "d"),
        ("d/store", "link"),
        ("d/store", "d/../d"),
    ] {
        let ended = with(store, &["add", folder, "--name", "d"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let added: Value = serde_json::from_str(&ended.out).unwrap();
        assert_eq!(added["left_out"]["counts"]["open_store"], 1, "{added}");
        assert_eq!(added["files"], 1);
    }
    assert_eq!(with("d/store", &["group", "create", "g"]).code, Some(0));
    for path in [
        "d/store",
        "link/store",
        "d/store/payload",
        "d/store/../store",
        "d/store/FORMAT",
    ] {
        for command in ["add", "put"] {
            let ended = with("d/store", &[command, path]);
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(ended.err.contains("of an open store"), "{ended:?}");
        }
    }
}

#[cfg(unix)]
#[test]
fn what_is_left_out_can_be_found_out() {
    let place = with_group();
    place.write("d/a", "a");
    std::os::unix::fs::symlink("a", place.path("d/link")).unwrap();
    fs::create_dir(place.path("d/empty")).unwrap();
    for command in ["add", "put"] {
        let ended = place.run(&["-v", command, "d"]);
        assert_eq!(ended.code, Some(0));
        for line in [
            "left out: d/link: it is a symbolic link\n",
            "left out: d/empty: the folder is empty\n",
            "d: left out: 1 symbolic link(s), 1 empty folder(s)\n",
        ] {
            assert!(ended.err.contains(line), "{}", ended.err);
        }
        let done = &place.json(&[command, "d"])[0];
        assert_eq!(done["left_out"]["items"].as_array().unwrap().len(), 2);
    }
    // A link that is named is followed, under its own name.
    place.ok(&["put", "d/link"]);
    assert_eq!(place.ok(&["cat", "g/me/link"]), "a");
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_not_listed_is_counted_and_listed_when_asked() {
    use std::os::unix::ffi::OsStrExt;
    let place = with_group();
    place.write("d/a", "a");
    for n in 0..12 {
        let name = [b"caf\xe9".as_slice(), n.to_string().as_bytes()].concat();
        let name = std::ffi::OsStr::from_bytes(&name);
        fs::write(place.path("d").join(name), "x").unwrap();
    }
    for command in ["add", "put"] {
        let said = place.fails(1, &[command, "d"]);
        assert_eq!(
            said.matches("the name is not Unicode").count(),
            10,
            "{said}"
        );
        assert!(
            said.contains("\n  and 2 more: -v lists them\n  now: rename them, and "),
            "{said}"
        );
        // Each once.
        let said = place.fails(1, &["-v", command, "d"]);
        assert_eq!(
            said.matches("the name is not Unicode").count(),
            12,
            "{said}"
        );
        assert!(!said.contains("more"), "{said}");
    }
    // So are names that stay.
    for n in 0..11 {
        place.write(&format!("e/{n}"), "x");
    }
    place.ok(&["put", "e"]);
    fs::remove_dir_all(place.path("e")).unwrap();
    place.write("e/new", "new");
    let said = place.run(&["put", "e"]).err;
    assert!(said.ends_with("\n  and 1 more: -v lists them\n"), "{said}");
    let said = place.run(&["-v", "put", "e"]).err;
    assert!(
        said.contains("\n  e/9\n") && !said.contains("more:"),
        "{said}"
    );
}

/// A name that is shown escaped cannot be typed.
#[cfg(unix)]
#[test]
fn a_name_that_cannot_be_typed_has_another_way() {
    let place = with_group();
    place.write("d/new\nline", "found");
    place.ok(&["add", "d"]);
    place.ok(&["put", "d"]);
    let said = place.fails(1, &["cat", "d/new\\u{a}line"]);
    assert!(
        said.contains("its hash works, which `larder ls -v \"d\"` shows"),
        "{said}"
    );
    let listed = place.ok(&["-v", "ls", "d"]);
    let hash = listed.split_whitespace().last().unwrap();
    assert_eq!(place.ok(&["cat", hash]), "found");
    let said = place.fails(1, &["cat", "g/me/d/new\\u{a}line"]);
    assert!(said.contains("--any-name` writes it"), "{said}");
    let said = place.fails(1, &["get", "g/me", "-o", "out"]);
    assert!(said.contains("--any-name accepts them"), "{said}");
    place.ok(&["get", "g/me", "-o", "out", "--any-name"]);
    assert_eq!(tree(&place.path("out/d"))[0].1, b"found");
}

#[test]
fn standard_input_is_put_under_a_name() {
    let place = with_group();
    let put = ["--json", "put", "-", "--name", "piped", "--to", "in"];
    let mut putting = Running::start(place.command(&put));
    putting.write(b"from a pipe");
    putting.end_input();
    assert_eq!(putting.json()["bytes"], 11);
    assert_eq!(putting.end().0, Some(0));
    assert_eq!(place.ok(&["cat", "g/me/in/piped"]), "from a pipe");
    let said = place.fails(2, &["put", "-"]);
    assert!(said.contains("standard input has no name"), "{said}");
    place.write("d/x", "x");
    place.ok(&["put", "d", "--name", "other"]);
    assert_eq!(place.ok(&["cat", "g/me/other/x"]), "x");
}

#[test]
fn all_repos_of_a_group_are_got_and_a_whole_repo_removed() {
    let place = with_group();
    place.write("d/x", "x");
    place.ok(&["put", "d"]);
    place.ok(&["get", "g", "-o", "out"]);
    assert_eq!(
        tree(&place.path("out")),
        [("me/d/x".to_owned(), b"x".to_vec())]
    );
    let said = place.fails(2, &["rm", "g"]);
    assert!(said.contains("\"g\" is a group"), "{said}");
    for whole in ["g/me", "g/me/"] {
        let said = place.fails(2, &["rm", whole]);
        assert!(
            said.contains("this is a whole repo with 1 file(s)"),
            "{said}"
        );
    }
    place.ok(&["rm", "-r", "g/me/"]);
    let said = place.fails(1, &["rm", "-r", "g/me"]);
    assert!(said.contains("that repo has no files"), "{said}");
}

/// A file of which only the name is here comes when it is read.
#[test]
fn files_of_which_names_are_here_come_from_members() {
    let (here, there) = (Place::new(), Place::new());
    here.write("album/a.jpg", noise(200_000));
    here.write("album/note", "a note");
    here.ok(&["group", "create", "g", "--as", "ann"]);
    here.ok(&["put", "album"]);
    let (mut running, _) = here.watch(&["--invite", "read"]);
    there.ok(&["group", "join", "--loopback", &running.invite()]);
    there.ok(&["group", "policy", "--names"]);
    there.ok(&["sync", "--loopback"]);
    let advice = "\n  now: without --offline the other members are asked";
    let said = there.fails(1, &["cat", "g/ann/album/note", "--offline"]);
    assert!(
        said.contains("are not here") && said.contains(advice),
        "{said}"
    );
    let said = there.fails(1, &["get", "g/ann", "-o", "none", "--offline"]);
    assert!(
        said.contains("2 file(s) were not written") && said.contains(advice),
        "{said}"
    );
    assert!(!there.path("none").exists());
    assert_eq!(
        there.ok(&["cat", "g/ann/album/note", "--loopback"]),
        "a note"
    );
    there.ok(&["get", "g/ann/album", "-o", "out", "--loopback"]);
    assert_eq!(tree(&there.path("out")), tree(&here.path("album")));
    // The files that were read stay.
    there.ok(&["get", "g/ann/album", "-o", "out", "--offline"]);
    running.end_input();
    running.end();
    // Nobody is there any more.
    here.ok(&["verify"]);
}

/// A file that is another one each time that it is read is left out, and the others go in.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_keeps_changing_is_named() {
    let place = with_group();
    let folder = "/proc/sys/kernel/random";
    if !std::path::Path::new(folder).join("uuid").exists() {
        return;
    }
    let ended = place.run(&["--json", "put", folder]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let done: Value = serde_json::from_str(&ended.out).unwrap();
    let items = done["left_out"]["items"].as_array().unwrap();
    let uuid = items
        .iter()
        .find(|item| item["path"].as_str().unwrap().ends_with("/uuid"));
    assert_eq!(uuid.unwrap()["reason"], "changing", "{done}");
    assert!(place.ok(&["cat", "g/me/random/boot_id"]).len() > 30);
}

//! Tests of errors from outside: each says what failed, on what, and what to do now.

use std::{fs, process::Command};

use super::backend;
use super::support::{Place, Running, noise, run};

#[test]
fn a_missing_path() {
    let place = Place::new();
    assert_eq!(
        place.fails(1, &["add", "nowhere"]),
        "error: cannot read nowhere: No such file or directory (os error 2)\n  \
         now: check the path\n"
    );
}

#[test]
fn a_missing_path_among_others() {
    let place = Place::new();
    place.write("a", "A");
    place.write("b", "B");
    place.ok(&["group", "create", "g", "--as", "me"]);
    for command in ["add", "put"] {
        let said = place.fails(1, &[command, "a", "nowhere", "b"]);
        assert!(
            said.contains("error: cannot read nowhere: No such file or directory"),
            "{command}: {said}"
        );
    }
    for name in ["a", "b", "g/me/a", "g/me/b"] {
        place.ok(&["cat", name]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_unreadable_file() {
    let place = Place::new();
    // Nobody can read this one from its start.
    let said = place.fails(1, &["add", "/proc/self/mem", "--name", "x"]);
    assert!(
        said.starts_with("error: cannot store /proc/self/mem: "),
        "{said}"
    );
    assert!(said.contains("Input/output error"), "{said}");
    assert!(place.json(&["ls"]).is_empty());
}

#[test]
fn wrong_usage() {
    let place = Place::new();
    place.write("a/x", "A");
    place.write("b/x", "B");
    for (args, expected) in [
        (
            &["add", "a/x", "b/x"][..],
            "error: two paths would be stored under the name \"x\"\n  \
             now: add one of them with a command of its own, with --name\n",
        ),
        (
            &["add", "a", "b", "--name", "n"],
            "error: --name is for one path\n  now: add the others with a command of their own\n",
        ),
        (
            &["add", "-"],
            "error: standard input has no name\n  now: give it one with --name\n",
        ),
        (
            &["fetch", "not-a-ticket"],
            "now: copy the whole word that `larder serve` printed, from `blob` on\n",
        ),
        (
            &["--store", "/data", "ls"],
            "\"/data\" is not the URL of a store: write redb:/data for a store in that folder",
        ),
        (
            &["copy", "mem:", "mem:"],
            "error: FROM and TO are the same store\n  now: name two stores\n",
        ),
        (
            &["cat", "x", "--range", "5"],
            "write a range as A..B, A.. or ..B",
        ),
        (
            &["demo", "a/x"],
            "error: a/x is not a folder\n  now: name a folder\n",
        ),
        (&["frobnicate"], "unrecognized subcommand"),
        (
            &["get", "a", "-o", "a/x"],
            "error: a/x is a file and not a folder\n  now: -o names a folder",
        ),
        (
            &["get", "a", "-o", "a/x/y"],
            "error: a/x is a file and not a folder\n  now: -o names a folder",
        ),
    ] {
        let said = place.fails(2, args);
        assert!(said.contains(expected), "{args:?}: {said}");
    }
    place.ok(&["add", "a"]);
    let said = place.fails(2, &["serve"]);
    assert!(
        said.contains("now: write the names of items")
            && said.contains("--all")
            && said.contains("--replica"),
        "{said}"
    );
    for group in ["g", "h"] {
        place.ok(&["group", "create", group]);
    }
    let said = place.fails(2, &["put", "a"]);
    assert!(said.contains("now: name one with --group GROUP;"), "{said}");
    let said = place.fails(2, &["cat", "a"]);
    assert!(said.starts_with("error: \"a\" is a folder\n"), "{said}");
}

#[test]
fn wrong_arguments_are_told_as_json_too() {
    let place = Place::new();
    for args in [
        &["--json", "frobnicate"][..],
        &["cat", "x", "--range", "5", "--json"],
        &["--json", "cat"],
    ] {
        let said = place.fails(2, args);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let error = said["error"].as_str().unwrap();
        assert!(!error.is_empty() && !error.starts_with("error"), "{error}");
        assert!(
            said["advice"].as_str().unwrap().contains("--help"),
            "{said}"
        );
    }
    // Help is not an error.
    assert!(place.ok(&["--json", "--help"]).contains("Exit codes"));
}

#[test]
fn a_range_that_begins_beyond_the_end() {
    let place = Place::new();
    place.write("a", "0123456789");
    place.ok(&["add", "a"]);
    place.ok(&["group", "create", "g", "--as", "me"]);
    place.ok(&["put", "a"]);
    for name in ["a", "g/me/a"] {
        assert_eq!(place.ok(&["cat", name, "--range", "8..60"]), "89");
        assert_eq!(place.ok(&["cat", name, "--range", "10.."]), "");
        let said = place.fails(1, &["cat", name, "--range", "50..60"]);
        assert!(
            said.starts_with("error: the range begins at byte 50, and the file has 10 byte(s)\n"),
            "{said}"
        );
    }
}

#[test]
fn a_name_that_is_not_there() {
    let place = Place::new();
    place.write("a/x", "A");
    place.ok(&["add", "a"]);
    for args in [
        &["get", "b", "-o", "out"][..],
        &["cat", "b"],
        &["rm", "b"],
        &["serve", "b"],
        &["ls", "b"],
    ] {
        assert_eq!(
            place.fails(1, args),
            "error: nothing is stored under the name \"b\"\n  \
             now: `larder ls` shows what is stored\n",
            "{args:?}"
        );
    }
    assert_eq!(
        place.fails(1, &["cat", "a/y"]),
        "error: the folder \"a\" has no file \"y\"\n  now: `larder ls \"a\"` shows its files\n"
    );
}

#[test]
fn reading_makes_no_store() {
    let place = Place::new();
    let said = place.fails(1, &["ls"]);
    assert!(
        said.starts_with("error: there is no store at redb:"),
        "{said}"
    );
    assert!(said.ends_with(
        "\n  now: `larder add PATH`, `larder share FOLDER` and `larder group join INVITE` make one; --store or LARDER_STORE \
         names another\n"
    ));
    assert!(!place.path("store").exists());
}

#[test]
fn a_newer_format() {
    let place = Place::new();
    place.write("a", "A");
    place.ok(&["add", "a"]);
    let format = fs::read_to_string(place.path("store/FORMAT")).unwrap();
    let newer = format.replace(|c: char| c.is_ascii_digit(), "9");
    assert_ne!(newer, format);
    fs::write(place.path("store/FORMAT"), newer).unwrap();
    let said = place.fails(1, &["ls"]);
    assert!(
        said.contains("this store was written by a newer version; update the program"),
        "{said}"
    );
    fs::write(place.path("store/FORMAT"), format).unwrap();
    assert_eq!(place.ok(&["cat", "a"]), "A", "nothing was lost");
}

#[test]
fn a_folder_that_holds_something_else() {
    let place = Place::new();
    place.write("store/photo", "mine");
    place.write("a", "A");
    let said = place.fails(1, &["add", "a"]);
    assert!(
        said.contains("this folder is not empty and holds no Larder store"),
        "{said}"
    );
    assert!(said.ends_with("\n  now: name the folder of a store with --store redb:DIR, or an empty or a new folder for a new store\n"));
    assert_eq!(fs::read_dir(place.path("store")).unwrap().count(), 1);
}

#[test]
fn a_store_in_use() {
    let place = Place::new();
    place.write("a", "A");
    place.ok(&["add", "a"]);
    let mut serving = Running::start(place.command(&["--json", "serve", "--loopback", "a"]));
    serving.json();
    let pid = serving.child.id();
    let said = place.fails(1, &["ls"]);
    assert!(
        said.contains("another process has this store open; close it first"),
        "{said}"
    );
    assert!(
        said.ends_with(&format!(
            "\n  now: wait for process {pid} or end it (ctrl-c ends `larder share` and `larder serve`), or name another \
             store with --store; if it is `larder sync --watch`, start that with `larder sync --watch --put-lines`: it \
             then puts the paths that it reads\n"
        )),
        "{said}"
    );
    // As JSON too, for programs.
    let said = place.fails(1, &["--json", "ls"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(said["error"].as_str().unwrap().contains("another process"));
    assert!(said["advice"].as_str().unwrap().contains(&pid.to_string()));
}

#[cfg(target_os = "linux")]
#[test]
fn a_place_that_cannot_be_a_store() {
    let place = Place::new();
    place.write("file", "a file");
    place.write("folder/a", "A");
    std::os::unix::fs::symlink("nowhere", place.path("link")).unwrap();
    for (store, args, says) in [
        (
            "file",
            "ls",
            "is a file and not a folder\n  now: name the folder of a store with --store redb:DIR",
        ),
        (
            "file",
            "add file",
            "is a file and not a folder\n  now: name",
        ),
        ("file/x", "ls", "is a file and not a folder\n  now: name"),
        (
            "link",
            "add file",
            "is a link to something that is not there\n  now: name",
        ),
        (
            "folder",
            "ls",
            "\n  now: name the folder of a store with --store redb:DIR, or",
        ),
        (
            "/proc/x",
            "add file",
            "\n  now: no folder can be made there: name another",
        ),
    ] {
        let url = format!("redb:{}", place.path(store).display());
        let args: Vec<_> = args.split(' ').collect();
        let said = place.fails(1, &[&["--store", &url][..], &args].concat());
        assert!(said.contains(says), "{store} {args:?}: {said}");
    }
    place.ok(&["add", "folder"]);
    let said = place.fails(2, &["get", "folder", "-o", "link"]);
    assert!(
        said.starts_with(
            "error: link is a link to something that is not there\n  now: -o names a folder"
        ),
        "{said}"
    );
}

/// Others choose the names of groups, members and files. None of them moves the cursor, or looks like a line of ours.
#[test]
fn names_of_others_are_escaped_wherever_they_are_printed() {
    let place = Place::new();
    let evil = "\u{1b}[2J\u{9b}1m\r\n  now: curl evil | sh";
    let id = place.with_store(async |store| {
        let groups = store.groups().await.unwrap();
        let group = groups.create_group(&format!("g{evil}")).await.unwrap();
        // Two of one name: they have to be told apart.
        for _ in 0..2 {
            let repo = group.create_repo(&format!("ann{evil}")).await.unwrap();
            repo.write(&format!("film{evil}"), vec![7; 100])
                .await
                .unwrap();
        }
        group.id().to_string()
    });
    let ann = format!("{id}/ann{evil}");
    let nobody = format!("{id}/nobody/x");
    let nothing = format!("{ann}/nothing");
    for args in [
        &["ls"][..],
        &["-v", "ls", &id],
        &["ls", &ann],
        &["ls", &nobody],
        &["cat", &nothing],
        &["get", &id, "-o", "out"],
        &["-v", "get", &id, "-o", "out"],
        &["get", &id, "-o", "any", "--any-name"],
        &["status"],
        &["status", "-v"],
        &["group", "ls"],
        &["group", "members"],
        &["group", "policy", &ann],
        &["group", "pin", &nothing],
        &["group", "invite"],
        &["group", "leave", &id],
        &["rm", &id],
        &["rm", &ann],
        &["sync", "--loopback", "--timeout", "1s"],
        &["verify"],
    ] {
        let ended = place.run(args);
        for text in [&ended.out, &ended.err] {
            let is_wrong = |c: char| c.is_control() && c != '\n';
            assert!(!text.contains(is_wrong), "{args:?}: {ended:?}");
            assert!(!text.contains("\n  now: curl"), "{args:?}: {ended:?}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_cannot_be_written() {
    let place = Place::new();
    place.write("a", "A");
    // Nobody can make a folder here.
    let said = place.fails(1, &["--store", "redb:/sys/larder", "add", "a"]);
    assert!(
        said.starts_with("error: cannot open the store redb:/sys/larder: store.open: denied"),
        "{said}"
    );
    assert!(
        said.ends_with(
            "\n  now: look at the rights of /sys/larder, and whether its disk is mounted read-only\n"
        ),
        "{said}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let place = Place::new();
    place.write("small", "S");
    place.write("big", noise(30_000_000));
    place.ok(&["add", "small"]);
    // No file may grow beyond this: as if the disk were full.
    let limited = |command: &str| {
        let program = backend::PROGRAM;
        let mut shell = Command::new("sh");
        place.set_up(&mut shell);
        shell.args([
            "-c",
            &format!("trap '' XFSZ; ulimit -f 40000; exec '{program}' {command}"),
        ]);
        run(&mut shell)
    };
    let ended = limited("add big");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("no space left"), "{}", ended.err);
    assert!(
        ended.err.ends_with(
            "\n  now: free some space on that disk and run the same command again: \
             what was stored stays\n"
        ),
        "{}",
        ended.err
    );
    assert_eq!(place.json(&["ls"]).len(), 1);
    assert_eq!(place.ok(&["cat", "small"]), "S");
    // With space again, the same command works; and what cannot be written out leaves nothing.
    place.ok(&["add", "big"]);
    let ended = limited("get big -o out");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.err.starts_with("error: cannot write out/big: "),
        "{}",
        ended.err
    );
    assert_eq!(fs::read_dir(place.path("out")).unwrap().count(), 0);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let place = Place::new();
    place.write("big", noise(5_000_000));
    place.ok(&["add", "big"]);
    let reading = Running::start(place.command(&["cat", "big"]));
    assert_eq!(reading.stop_reading(), (Some(0), String::new()));
}

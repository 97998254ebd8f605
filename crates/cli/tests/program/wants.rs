//! Tests of what is kept here of others' files, and of what is deleted.

use serde_json::{Value, json};

use super::support::{Place, noise, tree};

/// A member with some files, who watches, and another one who has met it and wants nothing yet.
fn met() -> (Place, super::support::Running, Place) {
    let (here, there) = (Place::new(), Place::new());
    here.write("album/small.jpg", noise(20_000));
    here.write("album/long.mov", noise(3_000_000));
    here.write("album/notes/a b.txt", "a note");
    here.ok(&["group", "create", "g", "--as", "ann"]);
    here.ok(&["put", "album"]);
    let (mut running, _) = here.watch(&["--invite", "read"]);
    there.ok(&["group", "join", "--loopback", &running.invite()]);
    let said = there.ok(&["group", "policy", "--names"]);
    assert!(
        said.contains(": names; contents when they are read, and then they stay\n"),
        "{said}"
    );
    there.ok(&["sync", "--loopback"]);
    (here, running, there)
}

fn complete(place: &Place) -> Vec<String> {
    let all = place.json(&["ls", "g/ann"]);
    let complete = all.iter().filter(|file| file["complete"] == true);
    let names = complete.map(|file| file["name"].as_str().unwrap().to_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn what_is_wanted_comes_and_what_is_not_goes() {
    let (here, mut running, there) = met();
    assert!(complete(&there).is_empty());
    // By path and size, for one member.
    let set = [
        "group", "policy", "g/ann", "--prefix", "album/", "--up-to", "100K",
    ];
    let said = there.ok(&set);
    assert!(
        said.starts_with("g/ann: paths that begin with album/, up to 100.0 KiB\n"),
        "{said}"
    );
    there.ok(&["sync", "--loopback"]);
    assert_eq!(complete(&there), ["album/notes/a b.txt", "album/small.jpg"]);
    // Pinned whatever else.
    there.ok(&["group", "policy", "g/ann", "--default"]);
    there.ok(&["group", "policy", "g", "--pinned"]);
    there.ok(&["group", "pin", "g/ann/album/notes", "g/ann/album/long.mov"]);
    there.ok(&["group", "unpin", "g/ann/album/long.mov"]);
    let shown = there.json(&["group", "policy", "g"]);
    let member = json!({"group": "g", "member": "ann", "policy": null, "pinned": ["album/notes"]});
    assert_eq!(shown, [json!({"group": "g", "policy": "pinned"}), member]);
    let freed = &there.json(&["group", "free", "--loopback"])[..];
    let freed = freed.last().unwrap();
    assert_eq!(
        (&freed["files"], &freed["files_that_stay"]),
        (&json!(1), &json!(0))
    );
    assert!(freed["bytes"].as_u64().unwrap() > 20_000, "{freed}");
    assert_eq!(complete(&there), ["album/notes/a b.txt"]);
    // Everything again; and it stays where only names are wanted.
    there.ok(&["group", "policy", "g", "--everything"]);
    there.ok(&["sync", "--loopback"]);
    there.ok(&["group", "policy", "g", "--names"]);
    let freed = there.run(&["group", "free", "--loopback"]);
    assert!(freed.out.ends_with("g: nothing was let go\n"), "{freed:?}");
    assert!(
        freed.err.contains("stays where only names are wanted"),
        "{freed:?}"
    );
    there.ok(&["get", "g/ann", "-o", "all"]);
    assert!(tree(&there.path("all/album")) == tree(&here.path("album")));

    // Nobody shows that it has them: they stay, unless told.
    running.end_input();
    drop(running);
    there.ok(&["group", "policy", "g", "--pinned"]);
    let said = there.fails(1, &["group", "free", "--loopback", "--timeout", "1s"]);
    assert!(
        said.contains("no other member could be reached in 1s"),
        "{said}"
    );
    assert_eq!(complete(&there).len(), 3);
    let freed = there.json(&["group", "free", "--loopback", "--last-copies"]);
    assert_eq!(freed.last().unwrap()["files"], 2);
    assert_eq!(complete(&there), ["album/notes/a b.txt"]);
}

/// Whatever the policy is, and whatever was read or let go, lists tell what is here.
#[test]
fn figures_of_what_is_here_are_true() {
    let (_here, _running, there) = met();
    let figures = |name: &str| {
        let all = there.json(&["ls", name]);
        let figure = |item: &Value| (item["present"].as_u64().unwrap(), item["complete"] == true);
        all.iter().map(figure).collect::<Vec<_>>()
    };
    let (note, small, long) = (6, 20_000, 3_000_000);
    let expect = |present: u64| {
        let line = (present, present == note + small + long);
        assert_eq!(figures("g"), [line]);
        let group = &there.json(&["ls"])[0];
        assert_eq!(
            (&group["present"], &group["complete"]),
            (&json!(line.0), &json!(line.1))
        );
    };
    expect(0);
    there.ok(&["cat", "g/ann/album/notes/a b.txt", "--loopback"]);
    expect(note);
    there.ok(&["group", "policy", "--everything"]);
    there.ok(&["sync", "--loopback"]);
    expect(note + small + long);
    // In order: the film, the note, the picture.
    assert_eq!(
        figures("g/ann"),
        [(long, true), (note, true), (small, true)]
    );
    there.ok(&["group", "policy", "--up-to", "200K"]);
    there.ok(&["group", "free", "--loopback"]);
    expect(note + small);
    assert_eq!(figures("g/ann"), [(0, false), (note, true), (small, true)]);
    let listed = there.ok(&["ls", "g/ann"]);
    let marked: Vec<_> = listed
        .lines()
        .filter(|line| line.contains("incomplete"))
        .collect();
    assert_eq!(marked.len(), 1, "{listed}");
    assert!(marked[0].starts_with("album/long.mov"), "{listed}");
    there.ok(&["get", "g/ann/album/long.mov", "-o", "out", "--loopback"]);
    expect(note + small + long);
    assert!(!there.ok(&["ls", "g"]).contains("incomplete"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let place = Place::new();
    place.ok(&["group", "create", "g", "--as", "ann"]);
    for (args, said) in [
        (
            &["group", "policy", "--names", "--pinned"][..],
            "cannot be used with",
        ),
        (
            &["group", "policy", "--names", "--up-to", "5M"],
            "cannot be used with",
        ),
        (
            &["group", "policy", "--up-to", "much"],
            "is not a size: write 500K",
        ),
        (
            &["group", "policy", "g/ann/x", "--names"],
            "for a group or a member, and not for",
        ),
        (&["group", "pin", "g/ann"], "names no path of a member"),
    ] {
        let error = place.fails(2, args);
        assert!(error.contains(said), "{args:?}: {error}");
    }
    let error = place.fails(1, &["group", "pin", "none/ann/x"]);
    assert!(error.contains("is in no group that"), "{error}");
    let shown: Vec<Value> = place.json(&["group", "policy"]);
    assert_eq!(shown, [json!({"group": "g", "policy": null})]);
}

#[test]
fn choosing_less_is_no_news_and_a_pin_of_nothing_is_said() {
    let (here, there) = (Place::new(), Place::new());
    here.write("photos/a", "A");
    here.write("photos/b", "B");
    here.ok(&["group", "create", "g", "--as", "ann"]);
    here.ok(&["put", "photos"]);
    let (mut running, _) = here.watch(&["--invite", "read"]);
    there.ok(&["group", "join", "--loopback", &running.invite()]);
    there.ok(&["sync", "--loopback"]);
    there.ok(&["group", "policy", "g", "--prefix", "photos/a"]);
    let status = there.ok(&["status"]);
    assert!(!status.contains("newer"), "{status}");
    let line = status.lines().find(|line| line.contains("ann  ")).unwrap();
    assert!(line.ends_with("  here"), "{status}");
    assert_eq!(there.json(&["status"])[1]["here"], true);

    let pinned = there.run(&["group", "pin", "g/ann/nosuch"]);
    assert_eq!(pinned.code, Some(0));
    assert!(
        pinned.err.contains("ann of g has no nosuch now"),
        "{pinned:?}"
    );
    assert_eq!(
        there.ok(&["group", "unpin", "g/ann/nosuch"]),
        "unpinned nosuch of ann\n"
    );
    assert_eq!(
        there.ok(&["group", "unpin", "g/ann/nosuch"]),
        "nosuch of ann was not pinned\n"
    );
    let pinned = there.run(&["group", "pin", "g/ann/photos"]);
    assert!(!pinned.err.contains("has no"), "{pinned:?}");
}

//! Invites, as they are typed, mistyped and read; and names in groups.

use std::process::Stdio;

use super::support::{Place, Running, run};

fn invite(place: &Place, args: &[&str]) -> String {
    let printed = place.json(&[&["group", "invite"], args].concat());
    printed[0]["invite"].as_str().unwrap().to_owned()
}

#[test]
fn an_invite_is_one_word_and_tells_the_name_of_the_group() {
    let (here, there) = (Place::new(), Place::new());
    here.ok(&["group", "create", "the hikers", "--as", "ann"]);
    let read = invite(&here, &["--read"]);
    assert!(
        read.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()),
        "{read}"
    );
    let said = there.ok(&["group", "join", "--timeout", "0s", &read, "--names"]);
    let waiting = "waiting to be let in to the group the hikers (";
    assert!(said.starts_with(waiting), "{said}");
    assert_eq!(there.json(&["group", "ls"])[0]["name"], "the hikers");
    // Nobody was met, and its policy was chosen and can be.
    let policy = || there.json(&["group", "policy", "the hikers"])[0]["policy"].clone();
    assert_eq!(policy(), "names");
    there.ok(&["group", "policy", "the hikers", "--pinned"]);
    assert_eq!(policy(), "pinned");

    // As a QR code has it, from standard input, and with a better invite.
    let write = invite(&here, &[]).to_uppercase();
    let mut joining = Running::start(there.command(&[
        "--json",
        "group",
        "join",
        "--timeout",
        "0s",
        "-",
        "--as",
        "bob",
    ]));
    joining.write(format!("  {write}\r\n").as_bytes());
    joining.end_input();
    let joined = joining.json();
    assert_eq!(
        (&joined["group"], &joined["member"], &joined["again"]),
        (&"the hikers".into(), &"bob".into(), &true.into())
    );
    assert_eq!(joining.end().0, Some(0));
    let said = there.ok(&[
        "group",
        "join",
        "--timeout",
        "0s",
        &read,
        "--prefix",
        "a",
        "--up-to",
        "1M",
    ]);
    assert!(said.starts_with(waiting), "{said}");
    assert_eq!(policy(), "selected");
    assert_eq!(there.json(&["group", "ls"]).len(), 1);
}

#[test]
fn a_mistyped_invite_joins_nothing() {
    let (here, there) = (Place::new(), Place::new());
    here.ok(&["group", "create", "g", "--as", "ann"]);
    let good = invite(&here, &[]);
    let at = good.len() / 2;
    let other = if &good[at..=at] == "a" { "b" } else { "a" };
    let one = format!("{}{other}{}", &good[..at], &good[at + 1..]);
    for (wrong, what) in [
        (one, "not complete, or one of its characters is wrong"),
        (good[..at].to_owned(), "not complete"),
        (format!("{good}1"), "one character is wrong"),
        (good.replace("larder", "lader"), "begins with `larder`"),
    ] {
        let said = there.fails(2, &["group", "join", "--loopback", &wrong]);
        assert!(
            said.contains("this is no invite: ") && said.contains(what),
            "{said}"
        );
        assert!(said.contains("now: copy the whole word"), "{said}");
        assert!(
            !said.contains(&good[20..at]),
            "no part of a key is shown: {said}"
        );
    }
    let said = there.fails(2, &["group", "join", "--loopback", "blobaaaa"]);
    assert!(
        said.contains("now: a ticket is fetched with `larder fetch TICKET`"),
        "{said}"
    );
    let said = there.fails(2, &["fetch", &good]);
    assert!(
        said.contains("now: an invite to a group is joined with"),
        "{said}"
    );
    assert!(!there.path("store").exists());
}

#[test]
fn an_invite_for_a_replica_joins_nothing_and_a_bad_line_is_told_by_its_number() {
    let (here, there) = (Place::new(), Place::new());
    here.ok(&["group", "create", "g", "--as", "ann"]);
    let (replica, read) = (invite(&here, &["--replica"]), invite(&here, &["--read"]));
    let said = there.fails(2, &["group", "join", "--loopback", &replica]);
    assert!(said.contains("`larder serve --replica INVITE`"), "{said}");
    for (wrong, what) in [(&*read, "lets its holder read"), ("larderx", "no invite")] {
        let serve = ["serve", "--replica", "--loopback", "-"];
        let mut serving = Running::start(there.command(&serve));
        serving.write(format!("{replica}\n\n{wrong}\n").as_bytes());
        serving.end_input();
        let (code, said) = serving.end();
        assert_eq!(code, Some(2), "{said}");
        let start = "error: line 3 of standard input: this ";
        assert!(said.starts_with(start) && said.contains(what), "{said}");
    }
    assert!(!there.path("store").exists());
}

#[test]
fn names_that_are_parts_of_a_path_are_refused() {
    let place = Place::new();
    for wrong in ["a/b", ".", "..", "a\nb", ""] {
        place.fails(2, &["group", "create", wrong]);
        place.fails(2, &["group", "create", "g", "--as", wrong]);
    }
    assert!(!place.path("store").exists());
    place.ok(&["group", "create", "g", "--as", "me"]);
    for renamed in ["g", "g/me"] {
        let said = place.fails(2, &["group", "rename", renamed, "a/b"]);
        assert!(said.contains("a name has no \"/\""), "{said}");
    }
    place.write("folder/a", "A");
    place.fails(2, &["share", "folder", "--name", "a/b"]);
    place.fails(2, &["share", "folder", "--as", ".."]);
}

#[test]
fn a_mistyped_ticket_is_refused() {
    let (here, there) = (Place::new(), Place::new());
    here.write("a", "A");
    here.ok(&["add", "a"]);
    let mut serving = Running::start(here.command(&["--json", "serve", "--loopback", "a"]));
    let ticket = serving.json()["ticket"].as_str().unwrap().to_owned();
    for (wrong, what) in [
        (
            &ticket[..ticket.len() - 3],
            "the ticket is cut or mistyped\n",
        ),
        (&ticket[1..], "this is not a ticket\n"),
        (&format!("{ticket}!"), "the ticket is cut or mistyped\n"),
    ] {
        let said = there.fails(2, &["fetch", wrong]);
        assert!(said.starts_with(&format!("error: {what}")), "{said}");
        assert!(said.contains("now: copy the whole word"), "{said}");
    }
}

#[test]
fn names_that_would_be_two_are_said() {
    let (here, there) = (Place::new(), Place::new());
    here.ok(&["group", "create", "g"]);
    let said = here.fails(1, &["group", "create", "g"]);
    assert!(said.contains("in a group \"g\" already"), "{said}");
    assert!(said.contains("for example \"g-2\""), "{said}");
    // Two members of one name, told apart by their keys; and one takes another name.
    let (mut running, _) = here.watch(&["--invite", "write"]);
    there.ok(&["group", "join", "--loopback", &running.invite()]);
    there.ok(&["sync", "--loopback"]);
    let said = there.fails(2, &["ls", "g/me"]);
    assert!(said.contains("2 members of g may be meant"), "{said}");
    assert!(said.contains(", yours"), "{said}");
    let key = said.split("as in g/").nth(1).unwrap()[..10].to_owned();
    there.ok(&["ls", &format!("g/{key}")]);
    let mut mine = there.json(&["group", "members"]);
    mine.retain(|member| said.contains(&member["repos"][0].as_str().unwrap()[..10]));
    assert_eq!(mine.len(), 2);
    running.end_input();
    running.end();
    let said = here.fails(2, &["ls", "g/me"]);
    let mine = said.lines().find(|line| line.ends_with(", yours")).unwrap();
    let mine = mine.split_whitespace().next().unwrap();
    here.ok(&["group", "rename", &format!("g/{mine}"), "ann"]);
    here.ok(&["group", "rename", "g", "the hikers"]);
    here.ok(&["ls", "the hikers/ann"]);
    here.ok(&["ls", "the hikers/me"]);
    let said = here.fails(1, &["group", "rename", "the hikers/me", "bob"]);
    assert!(
        said.contains("only a member can give itself another name"),
        "{said}"
    );
    // A second folder of one name.
    for (folder, group) in [("one/photos", "photos"), ("other/photos", "photos-2")] {
        here.write(&format!("{folder}/a"), folder);
        let mut sharing = Running::start(here.command(&["--json", "share", folder, "--loopback"]));
        assert_eq!(sharing.json()["group"], group);
    }
}

#[test]
fn a_command_that_fails_leaves_no_group() {
    let place = Place::new();
    let long = "m".repeat(2000);
    for args in [
        &["group", "create", "x", "--as", &long][..],
        &["group", "create", &long],
        &["group", "create", "", "--as", "me"],
    ] {
        let said = place.fails(2, args);
        assert!(said.contains("a name has at "), "{said}");
    }
    assert!(!place.path("store").exists());
}

#[test]
fn who_has_no_name_is_called_like_the_machine() {
    let place = Place::new();
    let mut command = place.command(&["--json", "group", "create", "g"]);
    for variable in ["USER", "USERNAME", "LOGNAME", "COMPUTERNAME"] {
        command.env_remove(variable);
    }
    let made = run(command.stdin(Stdio::null()));
    assert_eq!(made.code, Some(0), "{made:?}");
    let made: serde_json::Value = serde_json::from_str(&made.out).unwrap();
    let name = made["member"].as_str().unwrap();
    assert!(!name.is_empty() && name != "me", "{made}");
}

#[test]
fn an_empty_store_says_how_groups_begin() {
    let place = Place::new();
    for args in [
        &["sync"][..],
        &["status"],
        &["group", "ls"],
        &["put", "Cargo.toml"],
        &["group", "invite"],
    ] {
        let said = place.fails(1, args);
        for way in [
            "larder share FOLDER",
            "larder group create NAME",
            "larder group join",
        ] {
            assert!(said.contains(way), "{args:?}: {said}");
        }
    }
}

#[test]
fn the_key_to_back_up_is_named() {
    let place = Place::new();
    let key = place.path("secrets.key").display().to_string();
    let said = place.run(&["group", "create", "g"]).err;
    assert!(
        said.contains(&format!("back up {key}: without it")),
        "{said}"
    );
    let path = &place.json(&["secrets", "path"])[0];
    assert_eq!(
        (&path["path"], &path["exists"]),
        (&key.into(), &true.into())
    );

    // Without the key blobs are still listed; then it is said that groups are not.
    place.write("a", "A");
    place.ok(&["add", "a"]);
    let mut locked = place.command(&["ls"]);
    locked.env("LARDER_SECRETS_KEY", place.path("another.key"));
    let locked = run(&mut locked);
    assert_eq!(locked.code, Some(1), "{locked:?}");
    assert!(locked.out.contains("\na  "), "{locked:?}");
    assert!(
        locked
            .err
            .contains("LARDER_SECRETS_KEY to the file of the key"),
        "{locked:?}"
    );
}

//! How members meet: both at once, blindly, by names alone; and with whom a folder is shared.

use std::net::UdpSocket;

use larder::groups::Invite;

use super::support::{Place, Running, noise, tree};

#[test]
fn two_who_only_sync_meet_and_both_are_done() {
    let (here, there) = (Place::new(), Place::new());
    here.write("from ann", noise(300_000));
    there.write("from bob", noise(200_000));
    here.ok(&["group", "create", "g", "--as", "ann"]);
    here.ok(&["put", "from ann"]);
    // The port at which ann will be found.
    let port = {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port().to_string()
    };
    let invite = here.json(&["group", "invite"])[0]["invite"].clone();
    let invite: Invite = invite.as_str().unwrap().parse().unwrap();
    let at = format!("{}?ip=127.0.0.1:{port}", invite.addresses()[0]);
    let invite = here.json(&["group", "invite", "--at", &at])[0]["invite"].clone();
    // Somebody is there who lets bob in, and then nobody.
    let (mut running, _) = here.watch(&["--port", &port]);
    there.ok(&[
        "group",
        "join",
        "--loopback",
        invite.as_str().unwrap(),
        "--as",
        "bob",
    ]);
    running.end_input();
    running.end();
    there.ok(&["put", "from bob"]);

    let sync = ["--json", "sync", "--loopback", "--timeout", "60s"];
    let meet = || {
        let both = [
            Running::start(here.command(&[&sync[..], &["--port", &port]].concat())),
            Running::start(there.command(&sync)),
        ];
        for mut one in both {
            let synced = one.next("synced");
            assert_eq!(synced["peers"], 1);
            while one.next_line().is_some() {}
            assert_eq!(one.end().0, Some(0));
        }
    };
    meet();
    for place in [&here, &there] {
        place.ok(&["get", "g/ann", "-o", "all"]);
        place.ok(&["get", "g/bob", "-o", "all"]);
        let files = [("from ann", 300_000), ("from bob", 200_000)];
        let files = files.map(|(name, len)| (name.to_owned(), noise(len)));
        assert!(tree(&place.path("all")) == files);
    }
}

#[test]
fn names_alone_are_not_called_all() {
    let (here, there) = (Place::new(), Place::new());
    here.write("big", noise(2_000_000));
    here.ok(&["group", "create", "g", "--as", "ann"]);
    here.ok(&["put", "big"]);
    let (mut running, _) = here.watch(&["--invite", "read"]);
    there.ok(&["group", "join", "--loopback", &running.invite()]);
    let updated = |lines: Vec<serde_json::Value>| {
        let found = lines.into_iter().find(|line| line["event"] == "updated");
        found.map(|line| (line["files"].clone(), line["complete"].clone()))
    };
    let names = there.json(&["sync", "--loopback", "--names-only"]);
    assert_eq!(updated(names), Some((1.into(), false.into())));
    assert_eq!(there.json(&["ls", "g/ann"])[0]["complete"], false);
    let said = there.ok(&["sync", "--loopback", "--names-only"]);
    assert!(
        said.contains("g: ann has 1 file(s), 1.9 MiB, of which the names are here\n"),
        "{said}"
    );
    let all = there.json(&["sync", "--loopback"]);
    assert_eq!(updated(all), Some((1.into(), true.into())));
    let said = there.ok(&["sync", "--loopback"]);
    assert!(
        said.contains("g: ann has 1 file(s), 1.9 MiB, all here\n"),
        "{said}"
    );
}

#[test]
fn a_folder_is_shared_with_no_group_that_is_only_called_like_it() {
    let (here, there) = (Place::new(), Place::new());
    let made = &here.json(&["group", "create", "photos", "--as", "ann"])[0];
    let (mut running, _) = here.watch(&["--invite", "write"]);
    there.ok(&[
        "group",
        "join",
        "--loopback",
        &running.invite(),
        "--as",
        "bob",
    ]);
    there.ok(&["sync", "--loopback"]);
    assert_eq!(there.json(&["group", "ls"])[0]["name"], "photos");

    there.write("photos/private.jpg", "for others");
    let share = |place: &Place| {
        let mut sharing =
            Running::start(place.command(&["--json", "share", "photos", "--loopback"]));
        assert_eq!(sharing.json()["group"], "photos-2");
        let invite: Invite = sharing.invite().parse().unwrap();
        invite.group().to_string()
    };
    let shared = share(&there);
    assert_ne!(shared, made["id"], "ann was not invited to this folder");
    let groups = there.json(&["group", "ls"]);
    assert_eq!(groups.len(), 2);
    let theirs = groups.iter().find(|group| group["hash"] == made["id"]);
    assert_eq!(theirs.unwrap()["files"], 0, "{groups:?}");
    // Once more is the same group.
    assert_eq!(share(&there), shared);
    assert_eq!(there.json(&["group", "ls"]).len(), 2);
}

#[test]
fn a_replica_reads_its_invites_from_standard_input() {
    let (here, keeper) = (Place::new(), Place::new());
    here.write("a", noise(100_000));
    for group in ["one", "other"] {
        here.ok(&["group", "create", group, "--as", "ann"]);
        here.ok(&["put", "a", "--group", group]);
    }
    let (mut running, _) = here.watch(&["--invite", "replica"]);
    let invites = [running.invite(), running.invite()];
    let serve = ["--json", "serve", "--replica", "--loopback", "-"];

    // Nothing is joined unless all are invites, for a replica.
    for (lines, said) in [
        (String::new(), "standard input has no invite"),
        (format!("{}\nlarderwhat\n", invites[0]), "this is no invite"),
    ] {
        let mut failing = Running::start(keeper.command(&serve));
        failing.write(lines.as_bytes());
        failing.end_input();
        let (code, err) = failing.end();
        assert_eq!(code, Some(2));
        assert!(err.contains(said), "{err}");
        assert!(!keeper.path("store").exists());
    }

    let mut keeping = Running::start(keeper.command(&serve));
    keeping.write(format!("{}\n\n  {}\r\n", invites[0], invites[1]).as_bytes());
    keeping.end_input();
    for _ in 0..2 {
        assert_eq!(keeping.next("synced")["files"], 1);
    }
    #[cfg(unix)]
    assert_eq!(
        keeping.signal("-INT").0,
        Some(0),
        "its input's end did not end it"
    );
    #[cfg(not(unix))]
    drop(keeping);
    assert_eq!(keeper.json(&["group", "ls"]).len(), 2);

    let both = ["serve", "--replica", "--until-stdin-ends", "-"];
    let said = keeper.fails(2, &both);
    assert!(
        said.contains("now: write the invites as arguments"),
        "{said}"
    );
}

#[test]
fn comparing_too_often_is_refused() {
    let said = Place::new().fails(2, &["sync", "--compare-every", "10ms"]);
    assert!(
        said.contains("that is too often: write 1s or more"),
        "{said}"
    );
}

/// Tests that are slow. A test of `sync`, in virtual time, shows that a device that is told not to
/// push pushes nothing; that the program's flags get there is a test of `groups/network.rs`.
mod slow {
    use std::time::Duration;

    use super::*;

    #[test]
    #[ignore = "slow: it waits for what must not come"]
    fn who_does_not_push_tells_nothing_before_comparing() {
        let (here, there) = (Place::new(), Place::new());
        here.ok(&["group", "create", "g", "--as", "ann"]);
        here.write("later", noise(1000));
        // Neither of them, as who is told something says what is new there.
        let quiet = ["--no-push", "--compare-every", "1h"];
        let (mut silent, _) = here.watch(&[&quiet[..], &["--invite", "write"]].concat());
        there.ok(&[
            "group",
            "join",
            "--loopback",
            &silent.invite(),
            "--as",
            "bob",
        ]);
        let (mut other, _) = there.watch(&quiet);
        for running in [&mut silent, &mut other] {
            running.next("synced");
        }
        // Each connects to the other, and a new connection begins with comparing.
        std::thread::sleep(Duration::from_secs(5));
        silent.write(b"later\n");
        while silent.json()["path"] != "later" {}
        // Much longer than what is pushed takes.
        std::thread::sleep(Duration::from_secs(2));
        other.child.kill().unwrap();
        while let Some(line) = other.next_line() {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_ne!(line["event"], "updated", "{line}");
        }
        silent.end_input();
        assert_eq!(silent.end().0, Some(0));
    }
}

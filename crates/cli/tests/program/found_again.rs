//! Devices that are found again after a restart, and what is said while nobody is.

use std::net::UdpSocket;

use super::support::{Place, Running};

/// The port in an address.
fn port_of(address: &str) -> u16 {
    let (_, rest) = address.split_once("127.0.0.1:").unwrap();
    rest.split('&').next().unwrap().parse().unwrap()
}

#[test]
fn a_ticket_stays_good_after_a_restart() {
    let (here, there) = (Place::new(), Place::new());
    here.write("a", "A");
    here.ok(&["add", "a"]);
    for reach in ["--loopback", "--lan-only"] {
        let serve = || {
            let mut serving = Running::start(here.command(&["--json", "serve", reach, "a"]));
            let ticket = serving.json()["ticket"].as_str().unwrap().to_owned();
            (serving, ticket)
        };
        let (mut serving, ticket) = serve();
        serving.child.kill().unwrap();
        serving.child.wait().unwrap();
        let (_serving, again) = serve();
        assert_eq!(again, ticket);
        there.ok(&["fetch", "--lan-only", &ticket, "--name", &reach[2..]]);
    }
}

#[test]
fn an_invite_stays_good_after_a_restart() {
    let (here, there) = (Place::new(), Place::new());
    here.write("photos/a", "A");
    let share = || Running::start(here.command(&["--json", "share", "photos", "--loopback"]));
    let mut sharing = share();
    let invite = {
        sharing.json();
        sharing.invite()
    };
    drop(sharing);
    there.ok(&["group", "join", "--loopback", &invite, "--as", "bob"]);
    let _sharing = share();
    there.ok(&["sync", "--loopback", "--timeout", "60s"]);
    // Another command of the same store is found there too, and a port that was asked for is remembered.
    drop(_sharing);
    let (running, at) = here.watch(&[]);
    assert!(
        invite
            .parse::<larder::groups::Invite>()
            .unwrap()
            .addresses()
            .contains(&at)
    );
    drop(running);
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let (running, at) = here.watch(&["--port", &port.to_string()]);
    assert_eq!(port_of(&at), port);
    drop(running);
    let (_running, again) = here.watch(&[]);
    assert_eq!(again, at);
}

#[test]
fn a_port_that_is_taken_meanwhile_is_said_and_not_forgotten() {
    let here = Place::new();
    here.ok(&["group", "create", "g"]);
    let (running, at) = here.watch(&[]);
    drop(running);
    let taken = UdpSocket::bind(("127.0.0.1", port_of(&at))).unwrap();
    let (mut running, elsewhere) = here.watch(&[]);
    assert_ne!(elsewhere, at);
    running.end_input();
    let (code, said) = running.end();
    assert_eq!(code, Some(0));
    let expected = format!(
        "port {}, where others look for this device, is in use",
        port_of(&at)
    );
    assert!(said.contains(&expected), "{said}");
    drop(taken);
    assert_eq!(here.watch(&[]).1, at);
}

#[test]
fn it_is_said_whom_is_looked_for_where_and_how_it_failed() {
    let (here, there) = (Place::new(), Place::new());
    here.ok(&["group", "create", "g", "--as", "ann"]);
    // Somebody is there, who never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
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
    running.end_input();
    running.end();
    let printed = here.json(&["group", "invite"]);
    let own: larder::groups::Invite = printed[0]["invite"].as_str().unwrap().parse().unwrap();
    let at = format!("{}?ip={silent}", own.addresses()[0]);
    let printed = here.json(&["group", "invite", "--at", &at]);
    there.ok(&[
        "group",
        "join",
        "--loopback",
        printed[0]["invite"].as_str().unwrap(),
    ]);

    let status = there.ok(&["status", "-v"]);
    assert!(
        status.contains(&format!("looked for at {silent}")),
        "{status}"
    );
    let known = there.json(&["status", "-v"]);
    assert!(
        known
            .iter()
            .any(|line| line["kind"] == "address" && line["address"] == at),
        "{known:?}"
    );
    assert!(!there.ok(&["status"]).contains(&silent));

    // The second time it is known how the first attempt ended.
    let sync = ["--json", "sync", "--loopback", "--timeout", "25s"];
    let mut syncing = Running::start(there.command(&sync));
    let looking = syncing.next("looking");
    assert_eq!(looking["group"], "g");
    let member = &looking["members"][0];
    assert_eq!(member["member"], "ann", "{looking}");
    let addresses = member["addresses"].as_array().unwrap();
    assert!(addresses.contains(&at.into()), "{looking}");
    let looking = syncing.next("looking");
    let failure = looking["members"][0]["failure"].as_str().unwrap();
    assert!(!failure.is_empty(), "{looking}");
    let (code, said) = syncing.end();
    assert_eq!(code, Some(1));
    assert!(
        said.contains("no member of g could be reached in 25s"),
        "{said}"
    );
    assert!(
        said.contains("g: looked for ann (") && said.contains(&silent),
        "{said}"
    );
}

/// Interrupting what has no other end is its end, as the help says; and it does not wait for those who are
/// absent.
#[cfg(unix)]
#[test]
fn an_interrupt_ends_what_goes_on() {
    let place = Place::new();
    place.write("a", "A");
    place.ok(&["add", "a"]);
    place.ok(&["group", "create", "g"]);
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let absent = Place::new();
    absent.ok(&["group", "create", "h"]);
    let printed = absent.json(&["group", "invite"]);
    let own: larder::groups::Invite = printed[0]["invite"].as_str().unwrap().parse().unwrap();
    let at = format!("{}?ip={silent}", own.addresses()[0]);
    let printed = absent.json(&["group", "invite", "--at", &at]);
    place.ok(&[
        "group",
        "join",
        "--loopback",
        printed[0]["invite"].as_str().unwrap(),
    ]);

    let (mut watching, _) = place.watch(&[]);
    watching.next("looking");
    assert_eq!(watching.signal("-INT").0, Some(0));
    let mut serving = Running::start(place.command(&["--json", "serve", "--loopback", "a"]));
    serving.json();
    assert_eq!(serving.signal("-INT").0, Some(0));
    let mut syncing = Running::start(place.command(&["--json", "sync", "--loopback"]));
    syncing.next("looking");
    assert_eq!(syncing.signal("-INT").0, Some(130));
    let (watching, _) = place.watch(&[]);
    assert_eq!(watching.signal("-TERM").0, Some(143));
    let help = place.ok(&["--help"]);
    let help: Vec<_> = help.split_whitespace().collect();
    let help = help.join(" ");
    assert!(
        help.contains(
            "130 interrupted (ctrl-c; `larder serve`, `larder share` and `larder sync --watch` end so, with 0)"
        ),
        "{help}"
    );
}

//! Commands that are stopped in the middle, and made again: nothing is taken for stored that is not
//! there.

use std::time::{Duration, Instant};

use super::backend;
use super::support::{Place, Running, noise, tree};

const FILES: usize = 200;
const ROUNDS: u32 = 6;

/// Runs a command and interrupts it at several moments of the time that it takes, each in a place of
/// its own. Then what is there must be sound, and once the command succeeds, all of it must be there.
fn interrupted(prepare: &[&[&str]], command: &[&str], get: &[&str]) {
    let place = || {
        let place = Place::new();
        for n in 0..FILES {
            place.write(&format!("folder/{n}"), noise(40_000 + n));
        }
        for command in prepare {
            place.ok(command);
        }
        place
    };
    let whole = place();
    let begun = Instant::now();
    whole.ok(command);
    let takes = begun.elapsed();
    let mut stopped = 0;
    for round in 0..ROUNDS {
        let place = place();
        let running = Running::start(place.command(command));
        std::thread::sleep(takes * round / ROUNDS + Duration::from_millis(1));
        let (code, said) = running.signal("-INT");
        stopped += u32::from(code != Some(0));
        // Before the store is there, there is nothing to verify.
        if backend::is_there(&place.path("store")) {
            place.ok(&["verify"]);
        }
        place.ok(command);
        place.ok(&["verify"]);
        place.ok(&[get, &["-o", "out"]].concat());
        let (there, back) = (tree(&place.path("folder")), tree(&place.path("out")));
        assert!(
            there == back,
            "round {round}: other files came back; {said}"
        );
    }
    assert!(stopped > 0, "nothing was stopped in the middle");
}

#[test]
fn an_add() {
    interrupted(&[], &["add", "folder"], &["get", "folder"]);
}

#[test]
fn a_put() {
    let create = ["group", "create", "g", "--as", "me"];
    interrupted(&[&create], &["put", "folder"], &["get", "g/me/folder"]);
}

/// Until it serves, ctrl-c ends a share as it ends a put; from then on it is how serving ends.
#[test]
fn a_share() {
    let place = || {
        let place = Place::new();
        for n in 0..FILES {
            place.write(&format!("folder/{n}"), noise(400_000 + n));
        }
        place
    };
    let share = ["--json", "share", "folder", "--loopback"];
    for (signal, expected) in [("-INT", 130), ("-TERM", 143)] {
        let place = place();
        let running = Running::start(place.command(&share));
        // It has the store, and most of the sealing is still to do.
        while !backend::is_there(&place.path("store")) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(20));
        let (code, said) = running.signal(signal);
        assert_eq!(code, Some(expected), "{said}");
        assert!(!said.contains("serving until ctrl-c"), "{said}");
        let is_said = said.contains("interrupted: what was stored stays");
        assert_eq!(is_said, signal == "-INT", "{said}");
    }
    let place = place();
    let mut running = Running::start(place.command(&share));
    running.next("looking");
    let (code, said) = running.signal("-INT");
    assert_eq!(code, Some(0), "{said}");
    place.ok(&["verify"]);
}

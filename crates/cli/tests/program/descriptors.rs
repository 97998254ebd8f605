//! The program where the system lets it have few files open: it waits for its turn, or says what is
//! wrong, and never takes what it could not open for missing or damaged.

use std::process::Command;

use larder::descriptors::SMALLEST_LIMIT;

use super::backend;
use super::support::{Ended, Place, Running, noise, run, tree};

/// Files of which each has a payload of two files: more than a small limit has descriptors.
const LARGE: usize = 260;
/// Files that are stored within the index.
const SMALL: usize = 40;

/// A place where the program may have few files open.
struct Few {
    place: Place,
    limit: u64,
    store: String,
}

impl Few {
    fn new(limit: u64, scheme: &str) -> Self {
        let place = Place::new();
        let store = format!("{scheme}:{}", place.path("store").display());
        Self {
            place,
            limit,
            store,
        }
    }

    fn redb(limit: u64) -> Self {
        Self::new(limit, "redb")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("sh");
        self.place.set_up(&mut command);
        let limit = self.limit.to_string();
        command
            .env("LARDER_STORE", &self.store)
            .args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &limit])
            .arg(backend::PROGRAM)
            .args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Ended {
        run(&mut self.command(args))
    }

    /// Runs what must succeed, and gives its standard output.
    fn ok(&self, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!(ended.code, Some(0), "{args:?}, {}: {ended:?}", self.limit);
        ended.out
    }

    fn is_sound(&self, store: &str) {
        let verified = self.ok(&["--store", store, "verify"]);
        assert!(verified.ends_with("all sound\n"), "{verified}");
    }

    /// Writes more files than there are descriptors, and gives what is in them.
    fn write_many(&self) -> Vec<(String, Vec<u8>)> {
        let noise = noise(40_000);
        for number in 0..LARGE {
            let content = [number.to_string().as_bytes(), &noise[..]].concat();
            self.place.write(&format!("many/large {number}"), content);
        }
        for number in 0..SMALL {
            let name = format!("many/small {number}");
            self.place.write(&name, number.to_string());
        }
        self.files("many")
    }

    fn files(&self, folder: &str) -> Vec<(String, Vec<u8>)> {
        tree(&self.place.path(folder))
    }
}

/// Does everything that has to do with many files.
fn everything_works(here: &Few, there: &Few) {
    let files = here.write_many();
    here.ok(&["add", "many"]);
    here.is_sound(&here.store);
    here.ok(&["get", "many", "-o", "out"]);
    assert!(here.files("out") == files);
    // Existing files are compared with the stored ones.
    here.ok(&["get", "many", "-o", "out"]);
    let copy = format!("redb:{}", here.place.path("copy").display());
    here.ok(&["copy", &here.store, &copy]);
    here.is_sound(&copy);
    here.ok(&["stats"]);

    let serve = ["--json", "serve", "--loopback", "many"];
    let mut serving = Running::start(here.command(&serve));
    let served = serving.json();
    let ticket = served["ticket"].as_str().unwrap();
    there.ok(&["fetch", ticket, "--name", "many", "-o", "out"]);
    assert!(there.files("out") == files);
    there.is_sound(&there.store);
    there.ok(&["rm", "many"]);
    there.ok(&["gc"]);
}

/// Gives many files to another member of a group.
fn groups_work(here: &Few, there: &Few) {
    let files = here.write_many();
    here.ok(&["group", "create", "g", "--as", "ann"]);
    here.ok(&["put", "many"]);
    let watch = [
        "--json",
        "sync",
        "--watch",
        "--loopback",
        "--invite",
        "read",
    ];
    let mut running = Running::start(here.command(&watch));
    running.next("listening");
    there.ok(&["group", "join", "--loopback", &running.invite()]);
    there.ok(&["sync", "--loopback"]);
    there.ok(&["get", "g/ann/many", "-o", "out"]);
    assert!(there.files("out") == files);
    there.is_sound(&there.store);
}

#[test]
fn what_macos_allows_is_enough() {
    everything_works(&Few::redb(256), &Few::redb(256));
    groups_work(&Few::redb(256), &Few::redb(256));
}

#[test]
fn the_smallest_limit_is_enough() {
    let few = || Few::redb(SMALLEST_LIMIT);
    everything_works(&few(), &few());
    groups_work(&few(), &few());
}

#[test]
fn the_smallest_limit_of_a_veilid_node_is_enough() {
    let few = || Few::new(64, "veilid+insecure");
    everything_works(&few(), &few());
    groups_work(&few(), &few());
}

/// Returns true if a command did its work; if not, it must say that it needs more descriptors.
fn worked(ended: &Ended, limit: u64) -> bool {
    let said = ["open too few files", "Too many open files", "ulimit -n"];
    let has_said = said.iter().any(|text| ended.err.contains(text));
    match ended.code {
        Some(0) => true,
        Some(1) if has_said && !ended.err.contains("internal error") => false,
        _ => panic!("with {limit}: {ended:?}"),
    }
}

#[test]
fn fewer_than_are_needed_are_refused_or_named_and_harm_nothing() {
    for (scheme, smallest) in [("redb", SMALLEST_LIMIT), ("veilid+insecure", 64)] {
        let mut few = Few::new(1024, scheme);
        let files = few.write_many();
        few.ok(&["add", "many"]);
        for limit in [8, 12, 16, 20, 24, 28, 32, smallest - 1] {
            few.limit = limit;
            let commands: [&[&str]; 4] = [
                &["add", "many", "--name", "again"],
                &["verify", "--repair"],
                &["get", "many", "-o", "none"],
                &["gc"],
            ];
            for args in commands {
                let ended = few.run(args);
                assert!(!worked(&ended, limit), "{args:?} with {limit}: {ended:?}");
            }
        }
        let said = few.run(&["ls"]).err;
        let refused = "this process may open too few files at once; raise its limit";
        assert!(said.contains(refused), "{said}");
        few.limit = 1024;
        few.is_sound(&few.store);
        few.ok(&["get", "many", "-o", "out"]);
        assert!(few.files("out") == files);
    }
}

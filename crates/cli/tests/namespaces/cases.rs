//! The cases.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{
    Case,
    net::{Machine, Net, Watched},
    support::{Place, noise, tree},
};

/// All of them.
pub const ALL: &[(&str, Case)] = &[
    (
        "a_partition_heals_with_pushing_off",
        a_partition_heals_with_pushing_off,
    ),
    (
        "a_sync_goes_on_while_it_only_sends",
        a_sync_goes_on_while_it_only_sends,
    ),
    ("either_family_is_enough", either_family_is_enough),
];

const NAMES: [&str; 3] = ["ann", "bob", "cleo"];
/// Changes are found by comparing, and by nothing else.
const BY_COMPARING: [&str; 3] = ["--no-push", "--compare-every", "1s"];

fn ok(machine: &Machine, args: &[&str]) -> String {
    let ended = machine.larder(args);
    assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
    ended.out
}

fn invite(running: &mut Watched) -> String {
    let line = running.wait_for("it prints an invite", |line| line["invite"].is_string());
    line["invite"].as_str().unwrap().to_owned()
}

/// A file that this member puts, and nobody else has.
fn write(machine: &Machine, name: &str, round: u32) -> (String, Vec<u8>) {
    let file = format!("{name} {round}");
    let mut data = noise(50_000);
    data.extend_from_slice(file.as_bytes());
    machine.place.write(&file, &data);
    (file, data)
}

fn is_synced(files: usize) -> impl Fn(&Value) -> bool {
    move |line| line["event"] == "synced" && line["peers"] == 2 && line["files"] == files
}

/// Returns true if a line says that the second file of this member came.
fn is_second(line: &Value, name: &str) -> bool {
    line["event"] == "updated" && line["member"] == name && line["files"] == 2
}

/// One of three is cut off, both sides write, and when it is back all have the same.
fn a_partition_heals_with_pushing_off() {
    let net = Net::new();
    let machines = [1, 2, 3].map(|number| net.machine(number));
    let mut files = Vec::new();
    ok(&machines[0], &["group", "create", "g", "--as", NAMES[0]]);
    let two = ["--invite", "write", "--invite", "write"];
    let with_invites = [&BY_COMPARING[..], &two].concat();
    let mut all: Vec<Watched> = Vec::new();
    let mut printed: Vec<String> = Vec::new();
    for (machine, name) in machines.iter().zip(NAMES) {
        if let Some(invite) = printed.pop() {
            ok(machine, &["group", "join", &invite, "--as", name]);
        }
        let file = write(machine, name, 1);
        ok(machine, &["put", &file.0]);
        files.push(file);
        let mut running = match all.is_empty() {
            true => machine.watch(&with_invites),
            false => machine.watch(&BY_COMPARING),
        };
        if all.is_empty() {
            printed.extend([invite(&mut running), invite(&mut running)]);
        }
        all.push(running);
    }
    for running in &mut all {
        running.wait_for("all three meet", is_synced(3));
    }

    machines[2].cut();
    for ((machine, running), name) in machines.iter().zip(&mut all).zip(NAMES) {
        let file = write(machine, name, 2);
        running.put(&file.0);
        files.push(file);
    }
    // The two who are left have what each of them wrote, and nothing crosses the cut.
    all[0].wait_for("ann gets bob's", |line| is_second(line, "bob"));
    all[1].wait_for("bob gets ann's", |line| is_second(line, "ann"));
    let across = [&["cleo"][..], &["cleo"], &["ann", "bob"]];
    for (running, others) in all.iter_mut().zip(across) {
        running.listen(Duration::from_secs(2));
        let has_crossed = |line: &Value| others.iter().any(|name| is_second(line, name));
        assert!(
            !running.heard.iter().any(has_crossed),
            "{:?}",
            running.heard
        );
    }

    machines[2].heal();
    for running in &mut all {
        running.wait_for("all three meet again", is_synced(6));
    }
    for running in all {
        running.end();
    }
    files.sort();
    for machine in &machines {
        for name in NAMES {
            ok(machine, &["get", &format!("g/{name}"), "-o", "all"]);
        }
        assert!(tree(&machine.place.path("all")) == files);
        assert!(ok(machine, &["verify"]).ends_with("all sound\n"));
    }
}

/// Nothing comes while a member gives a large file to another over a slow link, and it does not give up.
fn a_sync_goes_on_while_it_only_sends() {
    const TIMEOUT: Duration = Duration::from_secs(4);

    let net = Net::new();
    let (here, there) = (net.machine(1), net.machine(2));
    ok(&there, &["group", "create", "g", "--as", "bob"]);
    let mut running = there.watch(&["--invite", "write"]);
    ok(
        &here,
        &["group", "join", &invite(&mut running), "--as", "ann"],
    );
    // In one piece, so that no more of it than a stream takes is ever under way.
    here.place.write("large", noise(8_000_000));
    ok(&here, &["put", "large"]);

    here.slow_down();
    let started = Instant::now();
    let timeout = format!("{}s", TIMEOUT.as_secs());
    ok(&here, &["sync", "--timeout", &timeout]);
    let took = started.elapsed();
    assert!(
        took > TIMEOUT + Duration::from_secs(2),
        "the link is not slow: {took:?}"
    );
    running.end();
    ok(&there, &["get", "g/ann/large", "-o", "out"]);
    assert!(std::fs::read(there.place.path("out/large")).unwrap() == noise(8_000_000));
}

/// A machine with only one of IPv4 and IPv6 on its loopback interface does all that others do; without both it says
/// so.
fn either_family_is_enough() {
    let net = Net::new();
    for (number, without) in [
        (1, "ip -4 addr flush dev lo"),
        (2, "ip -6 addr flush dev lo"),
    ] {
        let machine = net.machine(number);
        machine.inside(without);
        let other = Place::new();
        machine.place.write("a", "A");
        ok(&machine, &["group", "create", "g", "--as", "ann"]);
        ok(&machine, &["put", "a"]);
        let mut running = machine.watch(&["--loopback", "--invite", "write"]);
        let invite = invite(&mut running);
        for args in [
            &["group", "join", &invite, "--as", "bob"][..],
            &["sync", "--loopback"],
            &["get", "g/ann/a", "-o", "out"],
        ] {
            let ended = machine.larder_of(&other, args);
            assert_eq!(ended.code, Some(0), "{without}: {args:?}: {ended:?}");
        }
        assert_eq!(std::fs::read(other.path("out/a")).unwrap(), b"A");
        running.end();
    }
    let machine = net.machine(3);
    machine.inside("ip addr flush dev lo");
    ok(&machine, &["group", "create", "g", "--as", "ann"]);
    let ended = machine.larder(&["sync", "--loopback"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("neither 127.0.0.1 nor ::1"), "{ended:?}");
    assert!(
        ended.err.contains("now: on Linux, `ip link set lo up`"),
        "{ended:?}"
    );
}

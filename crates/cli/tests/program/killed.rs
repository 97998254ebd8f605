//! Members of a group are killed at random points, and nothing that was acknowledged is lost.

use std::{collections::BTreeMap, net::UdpSocket, process::Command, time::Duration};

use super::support::{Place, Running, noise};

const ROUNDS: u64 = 9;
const PUTS: usize = 4;

/// A member, and the port where it is found again.
struct Member {
    place: Place,
    port: String,
    running: Option<Running>,
}

impl Member {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        Self {
            place: Place::new(),
            port: socket.local_addr().unwrap().port().to_string(),
            running: None,
        }
    }

    /// Starts it, unless it runs, and gives where it can be reached and the invites that it prints.
    fn start(&mut self, invites: &[&str]) -> Option<(String, Vec<String>)> {
        if self.running.is_some() {
            return None;
        }
        let mut args = vec!["--port", &self.port];
        for kind in invites {
            args.extend(["--invite", kind]);
        }
        let (mut running, at) = self.place.watch(&args);
        let printed = invites.iter().map(|_| running.invite()).collect();
        self.running = Some(running);
        Some((at, printed))
    }

    fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.end_input();
            let (code, said) = running.end();
            assert_eq!(code, Some(0), "{said}");
        }
    }
}

/// Numbers that look like chance, the same every time.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
#[cfg(unix)]
fn a_writer_a_reader_and_a_replica_are_killed_and_come_back() {
    let mut members = [Member::new(), Member::new(), Member::new()];
    members[0]
        .place
        .ok(&["group", "create", "g", "--as", "ann"]);
    let (_, invites) = members[0].start(&["write", "replica"]).unwrap();
    members[1]
        .place
        .ok(&["group", "join", "--loopback", &invites[0], "--as", "bob"]);
    // Standard input has ended: it joins, and ends.
    let serve = ["serve", "--replica", "--loopback", "--until-stdin-ends"];
    members[2].place.ok(&[&serve[..], &[&invites[1]]].concat());
    let mut chance = 88_172_645_463_325_252;
    let mut acknowledged: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for round in 0..ROUNDS {
        for member in &mut members {
            member.start(&[]);
        }
        let victim = (round % 3) as usize;
        let pid = members[victim]
            .running
            .as_ref()
            .unwrap()
            .child
            .id()
            .to_string();
        let delay = Duration::from_millis(next(&mut chance) % 250);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay);
            let killed = Command::new("kill").args(["-9", &pid]).status().unwrap();
            assert!(killed.success());
        });
        let writer = &mut members[0];
        let mut files = BTreeMap::new();
        for n in 0..PUTS {
            let name = format!("{round} {n}");
            let data = noise(1 + (next(&mut chance) % 200_000) as usize);
            let path = writer.place.write(&name, &data);
            files.insert(path.to_str().unwrap().to_owned(), (name, data));
        }
        let running = writer.running.as_mut().unwrap();
        let lines: String = files.keys().map(|path| format!("{path}\n")).collect();
        // It may be dead by now.
        running.try_write(lines.as_bytes());
        let mut left = PUTS;
        while left > 0
            && let Some(line) = running.next_line()
        {
            // A line that was cut off acknowledges nothing.
            let Ok(line) = serde_json::from_str::<serde_json::Value>(&line) else {
                break;
            };
            if let Some((name, data)) = line["path"].as_str().and_then(|path| files.remove(path)) {
                acknowledged.insert(name, data);
                left -= 1;
            }
        }
        killer.join().unwrap();
        members[victim].running = None;
    }
    assert!(
        acknowledged.len() >= PUTS * 6,
        "only {} were acknowledged",
        acknowledged.len()
    );

    let [ann, bob, keeper] = &mut members;
    ann.start(&[]);
    keeper.start(&[]);
    bob.stop();
    bob.place.ok(&[
        "sync",
        "--loopback",
        "--timeout",
        "60s",
        "--port",
        &bob.port,
    ]);
    check(&bob.place, &acknowledged);
    assert!(bob.place.ok(&["verify"]).ends_with("all sound\n"));
    // A member that comes when only the replica is there gets everything too.
    ann.stop();
    keeper.stop();
    let (at, _) = keeper.start(&[]).unwrap();
    let invite = &ann.place.json(&["group", "invite", "--read", "--at", &at])[0]["invite"];
    let invite = invite.as_str().unwrap().to_owned();
    // The replica hears of the invite.
    ann.place.ok(&["sync", "--loopback", "--port", &ann.port]);
    let late = Place::new();
    late.ok(&["group", "join", "--loopback", &invite]);
    late.ok(&["sync", "--loopback", "--timeout", "60s"]);
    check(&late, &acknowledged);
    keeper.stop();
    assert!(keeper.place.ok(&["verify"]).ends_with("all sound\n"));
}

fn check(place: &Place, acknowledged: &BTreeMap<String, Vec<u8>>) {
    place.ok(&["get", "g/ann", "-o", "all"]);
    for (name, data) in acknowledged {
        let found = std::fs::read(place.path("all").join(name));
        assert!(found.is_ok_and(|found| found == *data), "{name} is lost");
    }
}

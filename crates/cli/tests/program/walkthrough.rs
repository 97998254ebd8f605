//! The walk-through of the README's "As a program", run from top to bottom.
//!
//! A line whose comment says "on another machine" runs in a home folder of its own; "from here on" stays there.
//! INVITE, TICKET and HASH stand for what lines before have printed.

use std::{collections::BTreeMap, path::Path};

use super::support::{Place, Running};

/// Returns the commands of each block of the section, with their comments.
fn blocks() -> Vec<Vec<(String, String)>> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let section = readme.split("## As a program").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    let lines = |block: &str| {
        let block = block.split("```").next().unwrap();
        let lines = block.lines().filter(|line| line.starts_with("larder "));
        let parts = lines.map(|line| line.split_once('#').unwrap_or((line, "")));
        parts
            .map(|(command, comment)| (command.trim().to_owned(), comment.trim().to_owned()))
            .collect()
    };
    blocks.map(lines).collect()
}

/// Returns the words of a command, with what was printed before in place of the names for it.
fn words(command: &str, printed: &BTreeMap<&str, String>) -> Vec<String> {
    let words = command.split_whitespace().skip(1);
    words
        .map(|word| {
            printed
                .get(word)
                .cloned()
                .unwrap_or_else(|| word.to_owned())
        })
        .collect()
}

#[test]
fn the_lines_of_the_readme_run_from_top_to_bottom() {
    let (ann, bob) = (Place::new(), Place::new());
    for place in [&ann, &bob] {
        place.write("photos/lake.jpg", "a lake");
        place.write("photos/2026/hut.jpg", "a hut");
        place.write("notes.txt", "notes");
        place.ok(&["--store", "redb:here", "add", "notes.txt"]);
    }
    let mut printed: BTreeMap<&str, String> = BTreeMap::new();
    let mut ran = 0;
    let mut all = blocks();
    assert_eq!(all.len(), 2, "a block for groups and one for blobs");
    all[1].iter_mut().for_each(|(command, _)| {
        // At a size for a test.
        *command = command.replace("bench redb:/tmp/a", "bench --scale 0.001 --runs 1 redb:a");
        *command = command.replace("--lan-only", "");
    });
    for lines in all {
        let mut moved = false;
        let mut running = Vec::new();
        for (line, comment) in lines {
            let is_there = moved || comment.contains("on another machine");
            moved |= comment.contains("from here on");
            let (place, user) = if is_there {
                (&bob, "bob")
            } else {
                (&ann, "ann")
            };
            for command in line.split("&&") {
                let mut args = words(command, &printed);
                let meets = ["share", "sync", "serve", "fetch"].contains(&args[0].as_str())
                    || (args[0] == "group"
                        && ["free", "join", "leave"].contains(&args[1].as_str()));
                if meets {
                    args.push("--loopback".to_owned());
                }
                let args: Vec<_> = args.iter().map(String::as_str).collect();
                let stays = ["share", "serve"].contains(&args[0]) && !args.contains(&"--replica");
                if stays {
                    let args = [&["--json"], &args[..]].concat();
                    let mut command = place.command(&args);
                    command.env("USER", user);
                    let mut started = Running::start(command);
                    let said = loop {
                        let said = started.json();
                        if said["invite"].is_string() || said["ticket"].is_string() {
                            break said;
                        }
                    };
                    for (name, field) in [("INVITE", "invite"), ("TICKET", "ticket")] {
                        if let Some(text) = said[field].as_str() {
                            printed.insert(name, text.to_owned());
                        }
                    }
                    running.push(started);
                } else {
                    // Whoever serves has the store for itself.
                    if !is_there {
                        for stopped in running.drain(..) {
                            drop::<Running>(stopped);
                        }
                    }
                    let mut command = place.command(&args);
                    command.env("USER", user);
                    let ended = super::support::run(&mut command);
                    assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
                    if args[0] == "add" {
                        let hash = ended.out.split_whitespace().find(|word| word.len() == 64);
                        // A folder: what is read is a file of it.
                        hash.expect("it prints the hash");
                        let file = &place.json(&["ls", "photos"])[0];
                        printed.insert("HASH", file["hash"].as_str().unwrap().to_owned());
                    }
                }
                ran += 1;
            }
        }
    }
    assert!(ran >= 20, "{ran} lines are not the walk-through");
    // It did what it says.
    assert_eq!(std::fs::read(ann.path("copy/lake.jpg")).unwrap(), b"a lake");
}

#[test]
fn a_replica_is_what_the_readme_says() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    assert!(readme.contains("`larder serve --replica INVITE`"));
    let (ann, keeper) = (Place::new(), Place::new());
    ann.ok(&["group", "create", "g"]);
    let invite = ann.json(&["group", "invite", "--replica"])[0]["invite"].clone();
    let args = [
        "--json",
        "serve",
        "--loopback",
        "--replica",
        invite.as_str().unwrap(),
    ];
    let mut keeping = Running::start(keeper.command(&args));
    assert_eq!(
        keeping.next("looking")["members"][0]["member"],
        serde_json::Value::Null
    );
}

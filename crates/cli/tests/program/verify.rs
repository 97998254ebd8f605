//! Damage: found, named, repaired, restored.

use std::{fs, path::PathBuf};

use super::support::{Place, noise, run, tree};

/// The largest file below a folder of the store.
fn largest(place: &Place, folder: &str) -> PathBuf {
    let files = tree(&place.path(folder));
    let (name, _) = files
        .iter()
        .max_by_key(|(_, content)| content.len())
        .unwrap();
    place.path(folder).join(name)
}

fn flip(path: &PathBuf, at: usize) {
    let mut content = fs::read(path).unwrap();
    content[at] ^= 1;
    fs::write(path, content).unwrap();
}

#[test]
fn one_flipped_bit_is_found_named_repaired_and_restored() {
    let place = Place::new();
    place.write_folder("folder");
    place.ok(&["add", "folder"]);
    flip(&largest(&place, "store/payload"), 1_000_000);

    let ended = place.run(&["verify"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let lines: Vec<_> = ended.out.lines().collect();
    assert!(lines[0].starts_with("damaged    "), "{}", ended.out);
    assert!(lines[0].ends_with("  16.0 KiB of 2.9 MiB"), "{}", ended.out);
    assert_eq!(lines[1], "affected   folder/sub/deep/big.bin");
    assert!(lines[2].ends_with(": 1 damaged"), "{}", ended.out);
    // Bytes before the damage are right; the damaged ones, a group of 16 KiB, never come.
    let range = [
        "cat",
        "folder/sub/deep/big.bin",
        "--range",
        "999000..1000001",
    ];
    let ended = place.command(&range).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(ended.stdout, noise(3_000_000)[999_000..61 * 16_384]);
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("`larder verify --repair`"), "{said}");
    place.ok(&["get", "folder/a.txt", "-o", "out"]);

    let json = place.run(&["--json", "verify", "--repair"]);
    assert_eq!(json.code, Some(3), "{json:?}");
    let first: serde_json::Value = serde_json::from_str(json.out.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["finding"], &first["damaged_bytes"]),
        (&"damaged".into(), &16384.into())
    );
    assert_eq!(first["repaired"], true);
    // As long as it is missing, it is said, by its name.
    for repair in [false, true] {
        let ended = place.run(if repair {
            &["verify", "--repair"]
        } else {
            &["verify"]
        });
        assert_eq!(ended.code, Some(3), "{ended:?}");
        let lines: Vec<_> = ended.out.lines().collect();
        assert_eq!(lines[0], "incomplete  folder/sub/deep/big.bin");
        let end = ": all sound; 1 incomplete; 1 stored file(s) not here as a whole";
        assert!(lines[1].ends_with(end), "{}", ended.out);
    }
    let said = place.fails(1, &["get", "folder", "-o", "out"]);
    assert_eq!(
        said,
        "error: 1 file(s) were not written\n  sub/deep/big.bin: its bytes are not here\n  \
         now: fetch or add it again: what is here is not fetched twice\n"
    );
    place.ok(&["add", "folder"]);
    place.ok(&["get", "folder", "-o", "out"]);
    assert_eq!(tree(&place.path("out")), tree(&place.path("folder")));
}

#[test]
fn a_repair_that_makes_a_file_of_a_group_missing_ends_as_one_of_a_stored_file() {
    let place = Place::new();
    place.write("big", noise(500_000));
    place.ok(&["group", "create", "g", "--as", "me"]);
    place.ok(&["put", "big"]);
    flip(&largest(&place, "store/payload"), 100_000);
    for repair in [&[][..], &["--repair"]] {
        let ended = place.run(&[&["verify"], repair].concat());
        assert_eq!(ended.code, Some(3), "{repair:?}: {ended:?}");
        assert!(ended.out.contains("affected   g/me/big\n"), "{ended:?}");
    }
    place.ok(&["put", "big"]);
    place.ok(&["verify"]);
    assert_eq!(place.ok(&["cat", "g/me/big", "--range", "..0"]), "");
}

#[test]
fn a_missing_payload_is_lost_and_comes_back_when_added() {
    let place = Place::new();
    place.write("big", noise(500_000));
    place.ok(&["add", "big"]);
    for (name, _) in tree(&place.path("store/payload")) {
        fs::remove_file(place.path("store/payload").join(name)).unwrap();
    }
    let ended = place.run(&["verify"]);
    assert_eq!(ended.code, Some(3));
    assert!(ended.out.contains("affected   big\n"), "{}", ended.out);
    let ended = place.run(&["verify", "--repair"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let end =
        ": 1 damaged, now missing; fetch or add it again; 1 stored file(s) not here as a whole\n";
    assert!(ended.out.ends_with(end), "{}", ended.out);
    let ended = place.run(&["verify"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.out.starts_with("incomplete  big\n"), "{}", ended.out);
    place.ok(&["add", "big"]);
    assert!(place.ok(&["verify"]).ends_with("all sound\n"));
}

#[test]
fn a_damaged_index_is_made_again() {
    let place = Place::new();
    place.write_folder("folder");
    place.ok(&["add", "folder"]);
    let index = place.path("store/index.redb");
    let len = fs::metadata(&index).unwrap().len() as usize;
    for at in (0..len).step_by(500) {
        flip(&index, at);
    }
    // The log has it all.
    assert!(place.ok(&["verify", "--repair"]).ends_with("all sound\n"));
    assert_eq!(place.ok(&["cat", "folder/a.txt"]), "alpha\n");
}

#[test]
fn a_damaged_log_is_found_and_what_can_be_read_is_kept() {
    let place = Place::new();
    for name in ["a", "b", "c", "d"] {
        place.write(name, noise(10_000 + name.len()));
        place.write(name, [name.as_bytes(), &noise(10_000)].concat());
        place.ok(&["add", name]);
    }
    let log = largest(&place, "store/log");
    flip(&log, fs::metadata(&log).unwrap().len() as usize / 2);
    fs::remove_file(place.path("store/index.redb")).unwrap();
    let ended = place.run(&["verify"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(
        ended
            .err
            .starts_with("error: the index of the store is damaged: "),
        "{}",
        ended.err
    );
    assert!(
        ended
            .err
            .ends_with("\n  now: `larder verify --repair` keeps all that can still be read\n")
    );
    let said = place.fails(1, &["ls"]);
    assert!(said.contains("`larder verify --repair`"), "{said}");
    let repaired = place.run(&["verify", "--repair"]);
    assert_eq!(repaired.code, Some(3), "{repaired:?}");
    assert!(
        repaired.out.starts_with("index      repaired: "),
        "{}",
        repaired.out
    );
    assert!(place.json(&["ls"]).len() >= 2);
    // Lost blobs are named until they are here again.
    assert!(repaired.out.contains("incomplete  "), "{}", repaired.out);
    place.ok(&["add", "a", "b", "c", "d"]);
    assert!(place.ok(&["verify"]).ends_with("all sound\n"));
}

#[test]
fn a_damaged_hash_tree_is_named_and_made_again() {
    let place = Place::new();
    place.write("big", noise(5_000_000));
    place.ok(&["add", "big"]);
    let files = tree(&place.path("store/payload"));
    let (outboard, _) = files
        .iter()
        .find(|(name, _)| name.ends_with("outboard"))
        .unwrap();
    flip(&place.path("store/payload").join(outboard), 70);
    let ended = place.run(&["verify"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.out.starts_with("hash tree  "), "{}", ended.out);
    assert!(ended.out.ends_with(": 1 damaged\n"), "{}", ended.out);
    assert!(!ended.out.contains("affected"), "{}", ended.out);
    let said = place.ok(&["verify", "--repair"]);
    assert!(said.ends_with(": 1 damaged and repaired\n"), "{said}");
    assert!(place.ok(&["verify"]).ends_with(": all sound\n"));
}

#[test]
fn a_damaged_format_file_is_repaired_and_damaged_keys_are_not_called_blobs() {
    let place = Place::new();
    place.write("a", "A");
    place.ok(&["add", "a"]);
    place.ok(&["group", "create", "g", "--as", "me"]);
    fs::write(place.path("store/FORMAT"), "").unwrap();
    let said = place.fails(1, &["ls"]);
    assert!(said.contains("`larder verify --repair`"), "{said}");
    let ended = place.run(&["verify", "--repair"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(place.ok(&["cat", "a"]), "A");

    let secrets = place.path("store/secrets");
    let whole = fs::read(&secrets).unwrap();
    for damaged in [
        &b""[..],
        b"not a file of secrets, and no shorter than one would be, for which it needs some more",
    ] {
        fs::write(&secrets, damaged).unwrap();
        let said = place.fails(1, &["group", "ls"]);
        assert!(said.contains("back from a backup"), "{said}");
        assert!(!said.contains("--repair"), "{said}");
        assert!(!said.contains("fetch or add"), "{said}");
    }
    fs::write(&secrets, whole).unwrap();
    place.ok(&["group", "ls"]);
}

#[test]
fn a_damaged_index_prints_no_panic() {
    let place = Place::new();
    place.write_folder("folder");
    place.ok(&["add", "folder"]);
    let index = place.path("store/index.redb");
    let whole = fs::read(&index).unwrap();
    for page in 1..whole.len() / 4096 {
        fs::write(&index, &whole).unwrap();
        flip(&index, page * 4096);
        let ended = place.run(&["ls", "folder"]);
        assert!(
            !ended.err.contains("panicked"),
            "page {page}: {}",
            ended.err
        );
        // If the damage was noticed while the index was read, the next run makes the index again.
        place.ok(&["ls", "folder"]);
    }
}

/// Damages or deletes the payloads of a store that are longer than this.
fn spoil(place: &Place, longer_than: usize, delete: bool) -> usize {
    let payload = place.path("store/payload");
    let mut spoilt = 0;
    for (name, mut content) in tree(&payload) {
        if content.len() <= longer_than {
            continue;
        }
        spoilt += 1;
        match delete {
            true => std::fs::remove_file(payload.join(name)).unwrap(),
            false => {
                content[100_000] ^= 1;
                std::fs::write(payload.join(name), content).unwrap();
            }
        }
    }
    spoilt
}

#[test]
fn damaged_and_missing_blobs_are_named_and_the_others_copied() {
    for delete in [false, true] {
        let place = Place::new();
        place.write("d/big", noise(500_000));
        place.write("d/small", "small");
        place.write("d/middle", &noise(400_000)[300_000..]);
        place.ok(&["group", "create", "g", "--as", "me"]);
        place.write("sealed/film", noise(600_000));
        place.write("sealed/note", "note");
        place.ok(&["put", "sealed"]);
        place.ok(&["add", "d"]);
        assert_eq!(spoil(&place, 450_000, delete), 2);
        let from = place.url().to_string();
        let to = format!("redb:{}", place.path("to").display());
        for again in [false, true] {
            let ended = place.run(&["copy", &from, &to]);
            assert_eq!(ended.code, Some(1), "{ended:?}");
            let lines: Vec<_> = ended.out.lines().collect();
            assert!(lines[0].starts_with("unreadable  "), "{ended:?}");
            assert!(lines[1].starts_with("unreadable  "), "{ended:?}");
            assert_eq!(
                lines[2..4],
                ["affected   d/big", "affected   g/me/sealed/film"]
            );
            let copied = if again { "copied 0 blob(s)" } else { "copied " };
            assert!(lines[4].starts_with(copied), "{ended:?}");
            assert_eq!(
                ended.err.lines().rev().nth(1).unwrap(),
                "error: 2 blob(s) are damaged or missing in FROM, and were not copied; all else was"
            );
            assert!(
                ended
                    .err
                    .contains("\n  now: `larder verify --repair --store")
            );
        }
        let copy = |args: &[&str]| place.ok(&[&["--store", &to], args].concat());
        assert_eq!(copy(&["cat", "d/small"]), "small");
        assert_eq!(copy(&["cat", "g/me/sealed/note"]), "note");
        copy(&["get", "d/middle", "-o", "out"]);
        // A blob that did not come does not count as here.
        let listed = copy(&["ls", "g/me"]);
        assert_eq!(listed.matches("incomplete").count(), 1, "{listed}");
        let listed = copy(&["ls", "g"]);
        assert_eq!(listed.matches("incomplete").count(), 1, "{listed}");
        // It goes on once that is there again.
        place.run(&["verify", "--repair"]);
        place.ok(&["add", "d"]);
        place.ok(&["put", "sealed", "--read-all"]);
        place.ok(&["copy", &from, &to]);
        copy(&["get", "d", "-o", "all"]);
        copy(&["get", "g/me", "-o", "sealed-copy"]);
        assert_eq!(tree(&place.path("all")), tree(&place.path("d")));
    }
}

/// The names of files are for those with the keys; that they are not shown is said.
#[test]
fn files_that_cannot_be_named_without_keys_are_said() {
    let place = Place::new();
    place.write("big", noise(500_000));
    place.ok(&["group", "create", "g", "--as", "me"]);
    place.ok(&["put", "big"]);
    flip(&largest(&place, "store/payload"), 100_000);
    let mut locked = place.command(&["verify"]);
    locked.env("LARDER_SECRETS_KEY", place.path("another.key"));
    let ended = run(&mut locked);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(!ended.out.contains("affected"), "{ended:?}");
    let note = "files of groups that need what is damaged are not named: their keys cannot be read";
    assert!(ended.err.contains(note), "{ended:?}");
    let ended = place.run(&["verify"]);
    assert!(ended.out.contains("affected   g/me/big\n"), "{ended:?}");
    assert!(!ended.err.contains("not named"), "{ended:?}");
}

//! Damage: found, named, repaired, restored.

use std::{fs, path::PathBuf};

use super::support::{Place, noise, tree};

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
    assert_eq!(json.code, Some(0), "{json:?}");
    let first: serde_json::Value = serde_json::from_str(json.out.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["finding"], &first["damaged_bytes"]),
        (&"damaged".into(), &16384.into())
    );
    assert_eq!(first["repaired"], true);
    assert!(place.ok(&["verify"]).ends_with("all sound; 1 incomplete\n"));
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
    place.ok(&["verify", "--repair"]);
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
    assert_eq!(repaired.code, Some(0), "{repaired:?}");
    assert!(
        repaired.out.starts_with("index      repaired: "),
        "{}",
        repaired.out
    );
    assert!(place.json(&["ls"]).len() >= 2);
    assert!(place.ok(&["verify"]).ends_with("all sound\n"));
}

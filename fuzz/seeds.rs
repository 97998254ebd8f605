//! Writes the seeds of all targets into `corpus`, from the files that pin the layouts. Run it after
//! those have changed, in the folder `fuzz`: `rustc --edition 2024 -o ../target/seeds seeds.rs &&
//! ../target/seeds`.

use std::{fs, path::Path};

/// The folders of files that pin layouts; no two contain a file with the same name.
const GOLDEN: [&str; 2] = [
    "../crates/sync-model/tests/golden",
    "../crates/sync/tests/golden",
];

fn main() {
    for (target, file, prefix) in [
        ("message", "messages.hex", &[][..]),
        ("message", "frames.hex", &[]),
        ("get", "gets.hex", &[]),
        ("proof", "proof.hex", &[]),
        ("records", "records.hex", &[3, 4]),
        ("records", "slots.hex", &[5, 5, 5, 5]),
        ("records", "app_values.hex", &[6, 5]),
        ("page", "tree.hex", &[]),
        ("sealed", "page.hex", &[]),
        ("sealed", "value.hex", &[]),
        ("sealed", "app.hex", &[]),
        ("kept", "kept.hex", &[0, 1, 3, 7]),
        ("kept", "device.hex", &[4]),
        ("kept", "local.hex", &[6, 2]),
        ("kept", "policies.hex", &[8, 8, 8, 8, 8]),
        ("kept", "contacts.hex", &[5, 5, 5]),
        ("membership", "membership.hex", &[1; 9]),
        ("membership", "saw.hex", &[0]),
    ] {
        for (n, line) in lines(file).iter().enumerate() {
            let chooser = prefix.get(n).copied();
            let bytes: Vec<u8> = chooser.into_iter().chain(unhex(line)).collect();
            write(target, &format!("{file}-{n}"), &bytes);
        }
    }
    for (n, line) in lines("invites.txt").iter().enumerate() {
        write("invite", &format!("invites.txt-{n}"), line.as_bytes());
    }
    write("records", "name", b"\x00\x01\0\0\0\0\0\0\0\x07Family");
    write("records", "profile", b"\x02{\"name\":\"Ada\"}");
    write("sealed", "short", b"a file\x00\x05\x01");

    let descriptor = [&[1][..], &[9; 32], &[0, 64, 1], &[8; 32], &[0, 2]].concat();
    let signed = [
        &[1, 0, 0, 0, 0, 0, 0, 0, 7][..],
        &[3; 32],
        &[4; 64],
        b"value",
    ]
    .concat();
    let record = [&[1, 0, 0, 0, 0, 5][..], &descriptor].concat();
    let secret = b"\x07group/1\x00\x02ab";
    let complete = [
        &[1, 1, 2, 1, 0, 0, 0, 0, 0, 0][..],
        &65_536_u64.to_le_bytes(),
        &[0xab; 16],
    ];
    let partial = [
        &[1, 2, 2, 1, 0, 0, 0, 0, 0, 0][..],
        &100_000_u64.to_le_bytes(),
        &[9; 16],
        // Runs 0..2 and 4..5; a fragment of group 6 with its first chunk and one node.
        &[2, 0, 2, 4, 5, 1, 6, 1, 1, 0, 1],
        &[1; 32],
        &[2; 32],
    ];
    for (n, stored) in [
        [&[0][..], b"\x01\x00\x01\0\0\0\0\0\0\0hi"].concat(),
        [&[0][..], &complete.concat()].concat(),
        [&[0][..], &partial.concat()].concat(),
        [&[1, 1, 2, 3][..], &[7; 32]].concat(),
        [&[2][..], &descriptor].concat(),
        [&[3][..], &signed].concat(),
        [&[4][..], &record].concat(),
        [&[5][..], secret].concat(),
    ]
    .iter()
    .enumerate()
    {
        write("engine", &format!("stored-{n}"), stored);
    }
    write("log", "edits", b"\x03\x05\x02keyvalue\x05\x00\x01other");
    write(
        "log",
        "frame",
        b"LF01\x3d\0\0\0\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0",
    );

    let key = format!("iroh:58{}", "66".repeat(31));
    let parts = "ip=127.0.0.1:1234&ip=[fe80::1%2]:9&relay=https://relay.example./?a=b&ip=c";
    write("address", "whole", format!("{key}?{parts}").as_bytes());
    write("address", "bare", key.as_bytes());
    write("address", "parts", parts.as_bytes());

    // The encoding of iroh-blobs.
    let requests = [
        // A blob, all that a hash sequence names, ranges of it and of a child, and of two blobs.
        [&[0][..], &[7; 32], &[2, 0, 1, 0, 1, 0]].concat(),
        [&[0][..], &[7; 32], &[1, 0, 1, 0]].concat(),
        [&[0][..], &[7; 32], &[4, 0, 2, 1, 2, 1, 0, 4, 1, 3, 1, 0]].concat(),
        [&[9, 2][..], &[7; 32], &[8; 32], &[2, 0, 1, 0, 2, 0]].concat(),
        [&[1][..], &[7; 32], &[1, 0]].concat(),
    ];
    for (n, request) in requests.iter().enumerate() {
        let bytes = [&[0][..], request].concat();
        write("peer", &format!("request-{n}"), &bytes);
    }
    write("peer", "answer", &[1, 6, 77, 3, 3, 70, 0xe8, 7]);
    write("peer", "names", b"\x02\x02CollectionV0.\x02\x01a\x03b/c");
}

fn lines(file: &str) -> Vec<String> {
    let mut found = GOLDEN.iter().filter_map(|folder| {
        let path = Path::new(folder).join(file);
        fs::read_to_string(path).ok()
    });
    let text = found.next().expect("a golden file");
    text.lines().map(str::to_owned).collect()
}

fn unhex(line: &str) -> Vec<u8> {
    let digits = line.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).expect("digits"), 16);
    digits.map(|pair| byte(pair).expect("digits")).collect()
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new("corpus").join(target);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(name), bytes).expect("a file");
}

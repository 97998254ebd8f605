//! The bytes of every layout, pinned: one line of text for each case, in `tests/golden` of the crate
//! that compiles this file.
//!
//! `LARDER_GOLDEN=write cargo test -p larder-sync -p larder-sync-model` writes the files instead of
//! comparing them. After changing a layout, do that, check the difference, and commit both; a layout
//! that was released must first get another version.
//! another version first.

#![allow(dead_code, reason = "not every test pins bytes")]

use std::{env, fs, path::Path};

/// Compares `lines` with the file, or writes it.
pub(crate) fn check(file: &str, lines: &[String]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(file);
    let text = lines.join("\n") + "\n";
    if env::var_os("LARDER_GOLDEN").is_some_and(|what| what == "write") {
        fs::write(&path, &text).expect("the file can be written");
    }
    let pinned = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text, pinned,
        "{file} has other bytes; if that is meant, LARDER_GOLDEN=write writes it anew"
    );
}

/// Checks bytes as [`check`] does, with one line of hexadecimal digits for each case.
pub(crate) fn check_hex(file: &str, cases: &[&[u8]]) {
    let lines: Vec<_> = cases.iter().map(|bytes| hex(bytes)).collect();
    check(file, &lines);
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

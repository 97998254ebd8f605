//! The backend under test, and the program that knows it. A backend of somebody else runs these tests with a file
//! of its own in this place, as `examples/sqlite` does.

use std::{fs, path::Path};

use larder::{StoreBuilder, StoreUrl};

/// The scheme of the stores.
pub const SCHEME: &str = "redb";

/// The path of the program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_larder");

/// A part of the text where a file may not grow any more.
pub const FILE_TOO_LONG: &str = "no space left";

/// Opens a store of this kind inside the test.
pub fn builder(url: StoreUrl) -> StoreBuilder {
    StoreBuilder::from_url(url)
}

/// Returns true if the folder has a store in it.
pub fn is_there(dir: &Path) -> bool {
    dir.join("FORMAT").exists()
}

/// Deletes the bytes of one of the store's payloads behind its back.
pub fn lose_one_payload(dir: &Path) {
    let mut folders = vec![dir.join("payload")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|end| end == "data") => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    fs::remove_file(&found[0]).unwrap();
}

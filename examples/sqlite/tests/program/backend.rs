//! This backend, for the tests of the program.

use std::path::Path;

use larder::{StoreBuilder, StoreUrl};

/// The scheme of the stores.
pub const SCHEME: &str = "sqlite";

/// The path of the program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_larder-sqlite");

/// A part of the text where a file may not grow any more.
pub const FILE_TOO_LONG: &str = "the disk does not work";

/// Opens a store of this kind inside the test.
pub fn builder(url: StoreUrl) -> StoreBuilder {
    StoreBuilder::from_url(url).backend(larder_sqlite::Sqlite)
}

/// Returns true if the folder has a store in it.
pub fn is_there(dir: &Path) -> bool {
    dir.join("larder.sqlite").exists()
}

/// Deletes the bytes of one of the store's payloads behind its back.
pub fn lose_one_payload(dir: &Path) {
    let file = rusqlite::Connection::open(dir.join("larder.sqlite")).unwrap();
    let sql = "DELETE FROM blocks WHERE part = 0 AND payload = (SELECT min(payload) FROM blocks WHERE part = 0)";
    assert_eq!(file.execute(sql, []).unwrap(), 1);
}

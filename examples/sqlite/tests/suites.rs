//! The suites that every backend must pass.

use std::sync::Arc;

use larder_sqlite::SqliteStore;
use larder_store_testkit::suite::Subject;

// ANCHOR: suites
async fn subject() -> larder::Result<Subject<SqliteStore>> {
    let dir = Arc::new(tempfile::tempdir().expect("a folder"));
    let again = Arc::clone(&dir);
    let store = SqliteStore::open(dir.path()).await?;
    let subject = Subject::new(store)
        .opening(move || {
            let dir = Arc::clone(&again);
            async move { SqliteStore::open(dir.path()).await }
        })
        .closing(|store| async move { store.close().await });
    Ok(subject.keeping(dir))
}

mod blobs {
    larder_store_testkit::blob_store_suite!(super::subject);
}

mod collections {
    larder_store_testkit::collection_store_suite!(super::subject, lacks: [Watch = "the engine announces instead"]);
}

larder_store_testkit::model_suite!(blobs: subject, collections: subject);
// ANCHOR_END: suites

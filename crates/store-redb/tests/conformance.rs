//! The suites that every backend must pass.

use std::sync::Arc;

use larder_store_redb::{Options, RedbStore};
use larder_store_testkit::{blob_store_suite, collection_store_suite, model_suite, suite::Subject};

async fn subject() -> larder_store_api::Result<Subject<RedbStore>> {
    let dir = Arc::new(tempfile::tempdir().expect("a folder"));
    let again = Arc::clone(&dir);
    let store = RedbStore::open(dir.path(), Options::default()).await?;
    Ok(Subject::new(store)
        .opening(move || {
            let path = again.path().to_owned();
            RedbStore::open(path, Options::default())
        })
        .closing(|store| async move { store.close().await })
        .keeping(dir))
}

/// Makes a store that is dropped without closing, as by an app that forgets.
async fn forgetful() -> larder_store_api::Result<Subject<RedbStore>> {
    let dir = Arc::new(tempfile::tempdir().expect("a folder"));
    let again = Arc::clone(&dir);
    let store = RedbStore::open(dir.path(), Options::default()).await?;
    Ok(Subject::new(store)
        .opening(move || {
            let path = again.path().to_owned();
            RedbStore::open(path, Options::default())
        })
        .keeping(dir))
}

mod blobs {
    use super::*;
    blob_store_suite!(subject);
}

mod collections {
    use super::*;
    collection_store_suite!(subject);
}

mod blobs_without_close {
    use super::*;
    blob_store_suite!(forgetful, lacks: [Close = "is dropped instead"]);
}

mod collections_without_close {
    use super::*;
    collection_store_suite!(forgetful, lacks: [Close = "is dropped instead"]);
}

mod models {
    use super::*;
    model_suite!(blobs: subject, collections: subject);
}

mod models_without_close {
    use super::*;
    model_suite!(blobs: forgetful, collections: forgetful);
}

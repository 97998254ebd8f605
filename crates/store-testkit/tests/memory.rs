//! The memory store passes every suite: it is the reference that they are written against.

use store_testkit::{MemoryStore, suite::Subject};

async fn subject() -> store_api::Result<Subject<MemoryStore>> {
    let subject = Subject::new(MemoryStore::new());
    Ok(subject.closing(|store| async move {
        store.close();
        store_api::Result::<()>::Ok(())
    }))
}

mod blobs {
    store_testkit::blob_store_suite!(super::subject, lacks: [Reopen = "it lives in memory"]);
}

mod collections {
    store_testkit::collection_store_suite!(super::subject, lacks: [Reopen = "it lives in memory"]);
}

store_testkit::model_suite!(blobs: subject, collections: subject);

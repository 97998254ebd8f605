//! The store in memory passes every suite: it is the reference that they are written against.

use store_memory::{MemorySecrets, MemoryStore};
use store_testkit::suite::{Subject, check_secrets};

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

#[tokio::test]
async fn secrets_keep_the_contract() {
    check_secrets(&MemorySecrets::new()).await;
}

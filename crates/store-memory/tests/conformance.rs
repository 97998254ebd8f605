//! The in-memory store passes every suite: it is the reference for which they are written.

use larder_store_memory::{MemorySecrets, MemoryStore};
use larder_store_testkit::suite::{Subject, check_secrets};

async fn subject() -> larder_store_api::Result<Subject<MemoryStore>> {
    let subject = Subject::new(MemoryStore::new());
    Ok(subject.closing(|store| async move {
        store.close();
        larder_store_api::Result::<()>::Ok(())
    }))
}

mod blobs {
    larder_store_testkit::blob_store_suite!(super::subject, lacks: [Reopen = "it lives in memory"]);
}

mod collections {
    larder_store_testkit::collection_store_suite!(super::subject, lacks: [Reopen = "it lives in memory"]);
}

larder_store_testkit::model_suite!(blobs: subject, collections: subject);

#[tokio::test]
async fn secrets_keep_the_contract() {
    check_secrets(&MemorySecrets::new()).await;
}

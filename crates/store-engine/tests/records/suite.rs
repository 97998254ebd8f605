//! The suite of every record store, over a full store of collections and over the most limited one.

mod over_memory {
    use larder_store_engine::Records;
    use larder_store_testkit::{MemoryStore, record_store_suite, suite::Subject};

    async fn subject() -> larder_store_api::Result<Subject<Records>> {
        let store = MemoryStore::new();
        let closing = store.clone();
        Ok(Subject::new(super::super::over(store)).closing(move |_| {
            closing.close();
            std::future::ready(larder_store_api::Result::<_>::Ok(()))
        }))
    }
    record_store_suite!(subject, lacks: [Reopen = "lives in memory"]);
}

mod over_the_barest {
    use larder_store_engine::Records;
    use larder_store_testkit::{record_store_suite, suite::Subject};

    use super::super::{over, support::BareStore};

    async fn subject() -> larder_store_api::Result<Subject<Records>> {
        let store = BareStore::new();
        let again = store.clone();
        Ok(Subject::new(over(store)).opening(move || {
            std::future::ready(larder_store_api::Result::<_>::Ok(over(again.clone())))
        }))
    }
    record_store_suite!(subject, lacks: [Close = "the double has no close"]);
}

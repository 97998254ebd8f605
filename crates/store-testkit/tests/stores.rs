//! Tests that the stores for tests keep the contracts too, as long as no fault is injected.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use larder_store_api::Result;
use larder_store_testkit::{
    MemoryStore,
    stores::{Faults, FaultyStore, LateStore, PowerStore, StrictStore},
    suite::Subject,
};

async fn strict() -> Result<Subject<StrictStore>> {
    let subject = Subject::new(StrictStore::new().reusing_ids());
    Ok(subject.closing(|store| async move {
        store.close();
        Result::<()>::Ok(())
    }))
}

async fn unwatched() -> Result<Subject<StrictStore>> {
    Ok(Subject::new(StrictStore::new().without_watch()))
}

async fn faulty() -> Result<Subject<FaultyStore<MemoryStore>>> {
    Ok(Subject::new(FaultyStore::new(
        MemoryStore::new(),
        Faults::seeded(1),
    )))
}

async fn late() -> Result<Subject<LateStore<MemoryStore>>> {
    Ok(Subject::new(LateStore::new(MemoryStore::new(), 1)))
}

/// Returns a subject that, when it is opened again, is what was left after a loss of power.
async fn power() -> Result<Subject<PowerStore>> {
    let store = PowerStore::new();
    let current = Arc::new(std::sync::Mutex::new(store.clone()));
    let seed = AtomicU64::new(0);
    Ok(Subject::new(store).opening(move || {
        let mut current = current.lock().expect("nobody panics with it");
        *current = current.lose_power(seed.fetch_add(1, Ordering::Relaxed));
        let store = current.clone();
        async move { Result::<PowerStore>::Ok(store) }
    }))
}

mod strict_blobs {
    larder_store_testkit::blob_store_suite!(super::strict, lacks: [Reopen = "it lives in memory"]);
}

mod strict_collections {
    larder_store_testkit::collection_store_suite!(super::strict, lacks: [Reopen = "it lives in memory"]);
}

mod unwatched_collections {
    larder_store_testkit::collection_store_suite!(
        super::unwatched,
        lacks: [
            Reopen = "it lives in memory",
            Close = "its variant is closed",
            Watch = "that is the variant",
        ]
    );
}

mod faulty_blobs {
    larder_store_testkit::blob_store_suite!(
        super::faulty,
        lacks: [Reopen = "it lives in memory", Close = "the wrapped store is closed"]
    );
}

mod faulty_collections {
    larder_store_testkit::collection_store_suite!(
        super::faulty,
        lacks: [Reopen = "it lives in memory", Close = "the wrapped store is closed"]
    );
}

mod late_blobs {
    larder_store_testkit::blob_store_suite!(
        super::late,
        lacks: [Reopen = "it lives in memory", Close = "the wrapped store is closed"]
    );
}

mod late_collections {
    larder_store_testkit::collection_store_suite!(
        super::late,
        lacks: [Reopen = "it lives in memory", Close = "the wrapped store is closed"]
    );
}

mod power_blobs {
    larder_store_testkit::blob_store_suite!(super::power, lacks: [Close = "its power fails instead"]);
}

mod power_collections {
    larder_store_testkit::collection_store_suite!(super::power, lacks: [Close = "its power fails instead"]);
}

mod strict_model {
    larder_store_testkit::model_suite!(blobs: super::strict, collections: super::unwatched);
}

mod power_model {
    larder_store_testkit::model_suite!(blobs: super::power, collections: super::power);
}

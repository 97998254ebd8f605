//! Tests that the suite of `RecordStore` passes a correct store, and fails every broken one.

mod store;

use std::time::Duration;

use larder_store_api::{RecordStore, Result};
use larder_store_testkit::suite::{Subject, run_all};
use store::{Defect, Records};

async fn subject() -> Result<Subject<Records>> {
    Ok(
        Subject::new(Records::new(None)).closing(|store| async move {
            store.close();
            Result::<()>::Ok(())
        }),
    )
}

larder_store_testkit::record_store_suite!(subject, lacks: [Reopen = "it lives in memory"]);

#[test]
fn every_broken_store_fails() {
    for defect in Defect::ALL {
        let report = run_all::<dyn RecordStore, _, _, _>(|| async move {
            let subject = Subject::new(Records::new(Some(defect)));
            Result::<_>::Ok(subject.patience(Duration::from_millis(200)))
        });
        assert!(!report.failed.is_empty(), "{defect:?} passes all cases");
        assert!(!report.passed.is_empty(), "{defect:?} fails all cases");
    }
}

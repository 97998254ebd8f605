//! Tests of the suites themselves: every broken store fails them, and they report it if they test
//! nothing.

use std::{panic, sync::Arc, time::Duration};

use larder_store_api::{BlobStore, CollectionStore, Error, Kind, Result};
use larder_store_testkit::{
    MemoryStore, model,
    stores::{BrokenStore, Defect, Fault, Faults, FaultyStore, Operation, PowerStore, When},
    suite::{Report, Subject, Suite, check_lacks, run_all, run_case},
};

/// Do not wait long for a broken store.
const PATIENCE: Duration = Duration::from_millis(200);

async fn broken(defect: Defect) -> Result<Subject<BrokenStore<MemoryStore>>> {
    let subject = Subject::new(BrokenStore::new(MemoryStore::new(), defect));
    Ok(subject.patience(PATIENCE).closing(|store| async move {
        store.inner().close();
        Result::<()>::Ok(())
    }))
}

async fn memory() -> Result<Subject<MemoryStore>> {
    Ok(Subject::new(MemoryStore::new()))
}

fn fails(defect: Defect, report: &Report) {
    assert!(!report.failed.is_empty(), "{defect:?} passes all cases");
    assert!(!report.passed.is_empty(), "{defect:?} fails all cases");
}

#[test]
fn every_broken_blob_store_fails() {
    for defect in Defect::BLOBS {
        let report = run_all::<dyn BlobStore, _, _, _>(|| broken(defect));
        fails(defect, &report);
    }
}

#[test]
fn every_broken_collection_store_fails() {
    for defect in Defect::COLLECTIONS {
        let report = run_all::<dyn CollectionStore, _, _, _>(|| broken(defect));
        fails(defect, &report);
    }
}

#[test]
fn the_memory_store_fails_nothing() {
    for report in [
        run_all::<dyn BlobStore, _, _, _>(memory),
        run_all::<dyn CollectionStore, _, _, _>(memory),
    ] {
        assert_eq!(report.failed, []);
        assert!(report.passed.len() > 30, "{} passed", report.passed.len());
        assert!(!report.ignored.is_empty());
    }
}

/// A store whose disk lies about syncs and then loses power.
async fn lying() -> Result<Subject<FaultyStore<PowerStore>>> {
    let faults = Faults::seeded(1);
    faults.inject(Operation::SyncBlobs, When::Always, Fault::LostSync);
    let power = PowerStore::new();
    let store = FaultyStore::new(power.clone(), faults.clone());
    Ok(Subject::new(store).opening(move || {
        let store = FaultyStore::new(power.lose_power(1), faults.clone());
        async move { Result::<_>::Ok(store) }
    }))
}

#[test]
fn a_store_that_loses_what_was_synced_fails() {
    let report = run_all::<dyn BlobStore, _, _, _>(lying);
    let failed: Vec<_> = report.failed.iter().map(|(name, _)| *name).collect();
    assert!(
        failed.contains(&"reopening_keeps_what_was_synced"),
        "{failed:?}"
    );
    assert!(
        failed.iter().all(|name| name.starts_with("reopening")),
        "{failed:?}"
    );
}

/// A store whose lock is released by the last handle, and not by closing.
async fn locked_until_dropped() -> Result<Subject<Arc<MemoryStore>>> {
    let store = Arc::new(MemoryStore::new());
    let lock = Arc::downgrade(&store);
    let subject = Subject::new(store).opening(move || {
        let opened = match lock.upgrade() {
            Some(_) => Err(Error::new(
                Kind::Unavailable,
                "open",
                "somebody has it open",
            )),
            None => Ok(Arc::new(MemoryStore::new())),
        };
        async move { opened }
    });
    Ok(subject.closing(|store| async move {
        store.close();
        Result::<()>::Ok(())
    }))
}

#[test]
fn a_store_that_stays_locked_after_it_was_closed_fails() {
    let case = "a_closed_store_can_be_opened_while_handles_live";
    for report in [
        run_all::<dyn BlobStore, _, _, _>(locked_until_dropped),
        run_all::<dyn CollectionStore, _, _, _>(locked_until_dropped),
    ] {
        let failed: Vec<_> = report.failed.iter().map(|(name, _)| *name).collect();
        assert!(failed.contains(&case), "{failed:?}");
    }
}

#[test]
fn names_of_cases_are_unique() {
    fn names<T: Suite + ?Sized>() {
        let mut names: Vec<_> = T::cases().iter().map(|case| case.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
    names::<dyn BlobStore>();
    names::<dyn CollectionStore>();
    names::<dyn larder_store_api::RecordStore>();
}

#[test]
#[should_panic(expected = "the case needs Reopen, which this store lacks")]
fn a_case_whose_need_is_missing_fails_if_run() {
    run_case::<dyn BlobStore, _, _, _>("reopening_keeps_the_listing", memory);
}

#[test]
#[should_panic(expected = "the suite has no case nothing")]
fn a_case_that_is_not_there_fails() {
    run_case::<dyn BlobStore, _, _, _>("nothing", memory);
}

#[test]
#[should_panic(expected = "`lacks` names Watch, which this store has")]
fn lacking_what_is_there_fails() {
    let lacks = ["Reopen", "Close", "Watch"];
    check_lacks::<dyn CollectionStore, _, _, _>(&lacks, memory);
}

#[test]
#[should_panic(expected = "this store lacks Close, which `lacks` omits")]
fn omitting_what_is_lacking_fails() {
    check_lacks::<dyn CollectionStore, _, _, _>(&["Reopen"], memory);
}

#[test]
#[should_panic(expected = "`lacks` names Speed, which is not one of")]
fn lacking_what_nobody_asks_for_fails() {
    check_lacks::<dyn BlobStore, _, _, _>(&["Reopen", "Close", "Speed"], memory);
}

#[test]
#[should_panic(expected = "the subject can be opened again")]
fn claiming_durability_without_showing_it_fails() {
    let durable = || async { Result::<_>::Ok(Subject::new(PowerStore::new())) };
    run_case::<dyn BlobStore, _, _, _>("reopening_keeps_the_listing", durable);
}

/// Returns the number of steps in the shortest failure, which must be small.
fn steps_that_show(drive: impl FnOnce()) -> usize {
    let failed =
        panic::catch_unwind(panic::AssertUnwindSafe(drive)).expect_err("it leaves the model");
    let text = failed.downcast_ref::<String>().expect("it says so");
    assert!(text.starts_with("the store left the model: "), "{text}");
    text.lines()
        .filter(|line| line.starts_with("    ") && !line.starts_with("     "))
        .count()
        / 2
}

#[test]
fn a_broken_store_leaves_the_model() {
    let payloads = steps_that_show(|| model::payloads(|| broken(Defect::DeleteLeavesTheOutboard)));
    assert!(payloads < 8, "{payloads} steps");
    let collections = steps_that_show(|| model::collections(|| broken(Defect::EarlierEditWins)));
    assert!(collections < 8, "{collections} steps");
}

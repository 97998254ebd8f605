//! A layer that breaks one contract at a time, to show that the suites catch it.

mod blobs;
mod collections;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use larder_store_api::{CollectionId, Entry};

/// A small mistake that a backend can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named by what it does wrong")]
pub enum Defect {
    ReadPadsWithZeros,
    ReadDropsTheLastByte,
    ReadOfAbsentIsEmpty,
    ReadOfInvertedIsEmpty,
    ReadIsStale,
    WriteIgnoresTheSecondBlock,
    WriteKeepsOldBlocks,
    WriteTakesEmptyBlocks,
    WriteChecksTooLate,
    PartsShareBlocks,
    DeleteLeavesTheOutboard,
    DeleteStopsAtTheFirst,
    DeleteOfAbsentFails,
    ListGoesDown,
    ListStopsAfterAPage,
    ListIncludesAfter,
    ListRepeats,
    ListEndsAtErrors,
    SyncOfAbsentFails,
    GetIsStale,
    GetOfErrorsIsNone,
    RevisionIsThatOfTheStore,
    RevisionIsReused,
    EmptyBatchIsIgnored,
    EarlierEditWins,
    DeleteIsIgnored,
    BatchIsNotAtomic,
    BatchIsCutByCancelling,
    ExpectationsAreIgnored,
    OnlyTheFirstExpectationCounts,
    AnyRevisionWillDo,
    ExpectationsAreCheckedApart,
    LimitsAreNotKept,
    ScanDropsTheLast,
    ScanIncludesExcluded,
    ScanIgnoresOrder,
    ScanIsUnordered,
    ScanStopsAfterAPage,
    ScanEndsAtErrors,
    CollectionsRemainWithoutEntries,
    WatchIsSilentOnLag,
    WatchTellsOfOneKey,
    WatchTellsOfOneCollection,
}

impl Defect {
    /// The defects of a blob store.
    pub const BLOBS: [Defect; 19] = [
        Defect::ReadPadsWithZeros,
        Defect::ReadDropsTheLastByte,
        Defect::ReadOfAbsentIsEmpty,
        Defect::ReadOfInvertedIsEmpty,
        Defect::ReadIsStale,
        Defect::WriteIgnoresTheSecondBlock,
        Defect::WriteKeepsOldBlocks,
        Defect::WriteTakesEmptyBlocks,
        Defect::WriteChecksTooLate,
        Defect::PartsShareBlocks,
        Defect::DeleteLeavesTheOutboard,
        Defect::DeleteStopsAtTheFirst,
        Defect::DeleteOfAbsentFails,
        Defect::ListGoesDown,
        Defect::ListStopsAfterAPage,
        Defect::ListIncludesAfter,
        Defect::ListRepeats,
        Defect::ListEndsAtErrors,
        Defect::SyncOfAbsentFails,
    ];

    /// The defects of a collection store.
    pub const COLLECTIONS: [Defect; 24] = [
        Defect::GetIsStale,
        Defect::GetOfErrorsIsNone,
        Defect::RevisionIsThatOfTheStore,
        Defect::RevisionIsReused,
        Defect::EmptyBatchIsIgnored,
        Defect::EarlierEditWins,
        Defect::DeleteIsIgnored,
        Defect::BatchIsNotAtomic,
        Defect::BatchIsCutByCancelling,
        Defect::ExpectationsAreIgnored,
        Defect::OnlyTheFirstExpectationCounts,
        Defect::AnyRevisionWillDo,
        Defect::ExpectationsAreCheckedApart,
        Defect::LimitsAreNotKept,
        Defect::ScanDropsTheLast,
        Defect::ScanIncludesExcluded,
        Defect::ScanIgnoresOrder,
        Defect::ScanIsUnordered,
        Defect::ScanStopsAfterAPage,
        Defect::ScanEndsAtErrors,
        Defect::CollectionsRemainWithoutEntries,
        Defect::WatchIsSilentOnLag,
        Defect::WatchTellsOfOneKey,
        Defect::WatchTellsOfOneCollection,
    ];
}

/// The number of items in a page, for the defects that stop after one.
const PAGE: usize = 256;

/// A store that works correctly except for one [`Defect`].
#[derive(Debug, Clone)]
pub struct BrokenStore<S> {
    inner: S,
    defect: Defect,
    memory: Arc<Mutex<Memory>>,
}

/// The memory of the defects that remember too much; never larger than the store.
#[derive(Debug, Default)]
struct Memory {
    blocks: BTreeMap<Question, Bytes>,
    entries: BTreeMap<(CollectionId, Bytes), Option<Entry>>,
    last: Option<larder_store_api::Revision>,
    names: std::collections::BTreeSet<CollectionId>,
}

/// A read: payload, part, start and end.
type Question = (
    larder_store_api::PayloadId,
    larder_store_api::Part,
    u64,
    u64,
);

impl<S> BrokenStore<S> {
    /// Wraps `inner` with one defect.
    pub fn new(inner: S, defect: Defect) -> Self {
        Self {
            inner,
            defect,
            memory: Arc::default(),
        }
    }

    /// Returns the wrapped store.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

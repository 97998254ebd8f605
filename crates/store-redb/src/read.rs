//! The threads that read collections and short ranges of payloads: they take what waits in batches,
//! so that a read costs no thread switch when there are many.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use larder_store_api::{
    CollectionId, Entry, Error, Kind, Order, Part, PayloadId, Result, Revision,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    core::Core,
    disk::lock,
    frame,
    item::{Item, Value},
    key::{self, KeyRange},
    payload::Payloads,
};

/// The number of reads that may wait; further callers wait for room.
pub(crate) const QUEUE_LEN: usize = 1024;
/// The number of reads that a thread takes at once.
const BATCH: usize = 16;
/// The most entries that a page of a scan has.
const PAGE_ENTRIES: usize = 256;
/// A page of a scan with this many bytes ends.
const PAGE_LEN: usize = 1 << 20;
/// The number of times that a key is looked up again because compaction moved its record meanwhile.
const MOVED_RETRIES: usize = 16;

/// A value and its revision.
type Found = Option<(Bytes, u64)>;
type Reply<T> = oneshot::Sender<Result<T>>;

/// A request to a reader.
#[derive(Debug)]
pub(crate) enum Job {
    Get {
        key: Bytes,
        reply: Reply<Found>,
    },
    Scan {
        range: KeyRange,
        order: Order,
        reply: Reply<ScanPage>,
    },
    /// The first collection that has an entry within the range.
    Collection {
        range: KeyRange,
        reply: Reply<Option<CollectionId>>,
    },
    /// A short range of a payload.
    Payload {
        id: PayloadId,
        part: Part,
        range: Range<u64>,
        reply: Reply<Bytes>,
    },
}

/// Consecutive entries of a scan.
#[derive(Debug)]
pub(crate) struct ScanPage {
    pub(crate) entries: Vec<Entry>,
    /// The composite key after which the scan goes on, unless it is complete.
    pub(crate) next: Option<Bytes>,
}

/// Serves reads until every handle of the store is gone.
pub(crate) fn run(core: &Core, payloads: &Payloads, jobs: &Mutex<mpsc::Receiver<Job>>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut answers = Vec::with_capacity(BATCH);
    while lock(jobs).blocking_recv_many(&mut batch, BATCH) > 0 {
        answers.extend(batch.drain(..).map(|job| answer(core, payloads, job)));
        // All at once: the first wakes the runtime, and the others are there when it looks.
        answers.drain(..).for_each(Answer::send);
    }
}

/// The result of a job, and the caller that waits for it.
enum Answer {
    Get(Reply<Found>, Result<Found>),
    Scan(Reply<ScanPage>, Result<ScanPage>),
    Collection(Reply<Option<CollectionId>>, Result<Option<CollectionId>>),
    Payload(Reply<Bytes>, Result<Bytes>),
}

impl Answer {
    fn send(self) {
        // A caller that is gone does not want to know.
        match self {
            Answer::Get(reply, result) => drop(reply.send(result)),
            Answer::Scan(reply, result) => drop(reply.send(result)),
            Answer::Collection(reply, result) => drop(reply.send(result)),
            Answer::Payload(reply, result) => drop(reply.send(result)),
        }
    }
}

fn answer(core: &Core, payloads: &Payloads, job: Job) -> Answer {
    match job {
        Job::Get { key, reply } => Answer::Get(reply, get(core, key)),
        Job::Scan {
            range,
            order,
            reply,
        } => Answer::Scan(reply, scan(core, &range, order)),
        Job::Collection { range, reply } => {
            Answer::Collection(reply, first_collection(core, range))
        }
        Job::Payload {
            id,
            part,
            range,
            reply,
        } => Answer::Payload(reply, payloads.read(id, part, range)),
    }
}

/// The key's value and revision.
fn get(core: &Core, key: Bytes) -> Result<Found> {
    let moment = core.cache.moment();
    let found = look_up(core, &key)?;
    core.cache.fill(key, found.clone(), moment);
    Ok(found)
}

fn look_up(core: &Core, key: &[u8]) -> Result<Found> {
    let mut segment = 0;
    for _ in 0..MOVED_RETRIES {
        let Some(item) = core.overlay.get(key)? else {
            return Ok(None);
        };
        if let Some(value) = value(core, key, &item)? {
            return Ok(Some((value, item.revision)));
        }
        segment = item.at.segment;
    }
    let message = "a segment of the log is missing; run a repair";
    Err(Error::new(Kind::Corrupt, "collection.get", message)
        .with("path", core.log.path(segment).display()))
}

/// The item's value, or `None` if its segment was removed meanwhile.
fn value(core: &Core, key: &[u8], item: &Item) -> Result<Option<Bytes>> {
    match &item.value {
        Value::Inline(value) => return Ok(Some(value.clone())),
        Value::Deleted => return Ok(None),
        Value::Stored => {}
    }
    let Some(record) = core.log.read(item.at)? else {
        return Ok(None);
    };
    let value = frame::value_of(record, key, item.revision);
    value.map(Some).ok_or_else(|| {
        let message = "a record of the log is damaged; run a repair";
        Error::new(Kind::Corrupt, "collection.get", message)
            .with("path", core.log.path(item.at.segment).display())
            .with("offset", item.at.offset)
            .with("key", key.escape_ascii())
    })
}

fn scan(core: &Core, range: &KeyRange, order: Order) -> Result<ScanPage> {
    let page = core.overlay.page(range, order, PAGE_ENTRIES)?;
    let mut next = page.last.filter(|_| page.more);
    let mut entries = Vec::with_capacity(page.items.len());
    let mut bytes = 0;
    for (composite, item) in page.items {
        let found = match value(core, &composite, &item)? {
            Some(value) => Some((value, item.revision)),
            None => look_up(core, &composite)?,
        };
        let (_, key) = key::decode(&composite).ok_or_else(|| {
            let message = "the index has an invalid key; run a repair";
            Error::new(Kind::Corrupt, "collection.scan", message)
                .with("key", composite.escape_ascii())
        })?;
        if let Some((value, revision)) = found {
            bytes += key.len() + value.len();
            entries.push(Entry {
                key,
                value,
                revision: Revision(revision),
            });
        }
        if bytes >= PAGE_LEN {
            next = Some(composite);
            break;
        }
    }
    Ok(ScanPage { entries, next })
}

fn first_collection(core: &Core, mut range: KeyRange) -> Result<Option<CollectionId>> {
    loop {
        let page = core.overlay.page(&range, Order::Ascending, 1)?;
        if let Some((composite, _)) = page.items.first() {
            let (collection, _) = key::decode(composite).ok_or_else(|| {
                let message = "the index has an invalid key; run a repair";
                Error::new(Kind::Corrupt, "collection.list", message)
                    .with("key", composite.escape_ascii())
            })?;
            return Ok(Some(collection));
        }
        match page.last {
            Some(last) if page.more => range.0 = std::ops::Bound::Excluded(last),
            _ => return Ok(None),
        }
    }
}

/// Returns the number of threads that read.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8))
}

/// Starts the readers.
pub(crate) fn spawn(
    core: &Arc<Core>,
    payloads: &Arc<Payloads>,
    jobs: mpsc::Receiver<Job>,
) -> Result<Vec<std::thread::JoinHandle<()>>> {
    let jobs = Arc::new(Mutex::new(jobs));
    let start = |_| {
        let (core, jobs) = (Arc::clone(core), Arc::clone(&jobs));
        let payloads = Arc::clone(payloads);
        crate::core::spawn("larder-read", move || run(&core, &payloads, &jobs))
    };
    (0..threads()).map(start).collect()
}

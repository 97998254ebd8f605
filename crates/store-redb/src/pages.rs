//! The index's file, with a checksum for every page: a damaged page is noticed when it is read, and
//! never taken for a key that is not there.
//!
//! redb checks its pages only when it repairs. Here each run of 512 pages has one page of checksums
//! before it: XXH3 of the page, seeded with its number. Page 0, redb's header, is checked by redb.
//!
//! A crash may leave pages and checksums that do not fit. Those are pages of a transaction that was
//! not committed, which redb does not read: the checksums go to the disk with the sync that comes
//! before its header points at the pages.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use redb::StorageBackend;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    disk::{self, lock},
    silence,
};

const PAGE: usize = 4096;
pub(crate) const PAGE_LEN: u64 = PAGE as u64;
/// The number of pages that one page of checksums covers.
const RUN: u64 = PAGE_LEN / 8;
/// The byte with which a damaged page is filled: no valid page of redb.
const DAMAGED: u8 = 0xff;
/// The time to wait before a write is tried again while the disk is full.
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// The state that the store and the index's file share.
#[derive(Debug, Default)]
pub(crate) struct PageState {
    /// Wait for space where the disk is full, instead of failing: redb does not recover from a
    /// failed write.
    pub(crate) patient: AtomicBool,
    /// The disk is full, and a write waits.
    pub(crate) full: AtomicBool,
    /// A damaged page was read.
    pub(crate) damaged: AtomicBool,
    /// Called once when the disk turns out to be full.
    pub(crate) on_full: OnceLock<Notice>,
}

/// Something to tell.
pub(crate) struct Notice(pub(crate) Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notice")
    }
}

/// The file, as redb sees it.
#[derive(Debug)]
pub(crate) struct Pages {
    file: File,
    path: PathBuf,
    /// Of every page; zero where nothing was written.
    sums: RwLock<Vec<u64>>,
    /// The runs whose checksums changed since the last sync.
    changed: Mutex<BTreeSet<u64>>,
    state: Arc<PageState>,
}

/// Returns the offset of page `number` in the file.
fn place(number: u64) -> u64 {
    (number / RUN * (RUN + 1) + 1 + number % RUN) * PAGE_LEN
}

/// Returns the offset of the checksums of `run`.
fn sums_place(run: u64) -> u64 {
    run * (RUN + 1) * PAGE_LEN
}

/// Returns the length of the file with `pages` pages.
fn file_len(pages: u64) -> u64 {
    pages
        .checked_sub(1)
        .map_or(0, |last| place(last) + PAGE_LEN)
}

/// Returns the number of pages in a file of this length.
fn pages_in(file_len: u64) -> u64 {
    let all = file_len / PAGE_LEN;
    all / (RUN + 1) * RUN + (all % (RUN + 1)).saturating_sub(1)
}

fn checksum(number: u64, page: &[u8]) -> u64 {
    xxh3_64_with_seed(page, number).max(1)
}

impl Pages {
    /// Opens or creates the file.
    pub(crate) fn open(path: &Path, state: Arc<PageState>) -> io::Result<Self> {
        Self::of(disk::open_or_create(path)?, path, state)
    }

    /// Opens the file, of which nothing is written.
    pub(crate) fn open_to_read(path: &Path, state: Arc<PageState>) -> io::Result<Self> {
        Self::of(File::open(path)?, path, state)
    }

    fn of(file: File, path: &Path, state: Arc<PageState>) -> io::Result<Self> {
        let pages = pages_in(file.metadata()?.len());
        let mut sums = Vec::new();
        let mut bytes = [0; PAGE];
        for run in 0..pages.div_ceil(RUN) {
            disk::read_exact_at(&file, &mut bytes, sums_place(run))?;
            let of_run = bytes.chunks_exact(8);
            sums.extend(of_run.map(|sum| u64::from_le_bytes(sum.try_into().expect("eight bytes"))));
        }
        sums.truncate(usize::try_from(pages).expect("pages fit into memory"));
        Ok(Self {
            file,
            path: path.to_owned(),
            sums: RwLock::new(sums),
            changed: Mutex::default(),
            state,
        })
    }

    /// Reads whole pages of one run from page `first` on; what is damaged reads as such.
    fn read_run(&self, first: u64, out: &mut [u8]) {
        let read = disk::read_exact_at(&self.file, out, place(first));
        let sums = self.sums.read().unwrap_or_else(PoisonError::into_inner);
        for (number, page) in (first..).zip(out.chunks_exact_mut(PAGE)) {
            let at = usize::try_from(number).expect("pages fit into memory");
            let expected = sums.get(at).copied().unwrap_or_default();
            if read.is_err() || checksum(number, page) != expected {
                page.fill(DAMAGED);
                self.report(number);
            }
        }
    }

    /// Notes that a page is damaged: the index is made again when the store is next opened.
    fn report(&self, page: u64) {
        if self.state.damaged.swap(true, Ordering::Relaxed) {
            return;
        }
        silence::expect_panics();
        let path = self.path.display();
        tracing::error!(%path, page, "the index is damaged; it is made again at the next opening");
        if let Err(error) = File::create(self.path.with_extension("damaged")) {
            tracing::error!(%error, %path, "the index cannot be marked as damaged");
        }
    }

    /// Does `write`, again and again while the disk is full and the store wants to wait.
    fn persist(&self, mut write: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        loop {
            let result = write();
            let full = matches!(
                result.as_ref().map_err(io::Error::kind),
                Err(io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::FileTooLarge)
            );
            if full && self.state.patient.load(Ordering::Acquire) {
                if !self.state.full.swap(true, Ordering::AcqRel) {
                    tracing::warn!(path = %self.path.display(), "the disk is full; the index waits for space");
                    if let Some(notice) = self.state.on_full.get() {
                        (notice.0)();
                    }
                }
                thread::sleep(FULL_PAUSE);
                continue;
            }
            self.state.full.store(false, Ordering::Release);
            return result;
        }
    }
}

/// Calls `each` with the first page and the bytes of every run that whole pages from `offset` on
/// lie in.
fn runs(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut number = offset / PAGE_LEN;
    let mut at = 0;
    std::iter::from_fn(move || {
        let left = (len - at) as u64;
        if left == 0 {
            return None;
        }
        let of_run = ((RUN - number % RUN) * PAGE_LEN).min(left);
        let first = number;
        let start = at;
        at += usize::try_from(of_run).expect("it is part of a length");
        number += of_run / PAGE_LEN;
        Some((first, start..at))
    })
}

fn check_aligned(offset: u64, len: usize) -> io::Result<()> {
    if offset.is_multiple_of(PAGE_LEN) && len.is_multiple_of(PAGE) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "not whole pages",
    ))
}

impl StorageBackend for Pages {
    fn len(&self) -> io::Result<u64> {
        Ok(pages_in(self.file.metadata()?.len()) * PAGE_LEN)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 <= PAGE_LEN {
            return disk::read_exact_at(&self.file, out, place(0) + offset);
        }
        check_aligned(offset, out.len())?;
        for (first, range) in runs(offset, out.len()) {
            self.read_run(first, &mut out[range]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        check_aligned(len, 0)?;
        let pages = len / PAGE_LEN;
        self.persist(|| self.file.set_len(file_len(pages)))?;
        let mut sums = self.sums.write().unwrap_or_else(PoisonError::into_inner);
        sums.resize(usize::try_from(pages).expect("pages fit into memory"), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let changed = std::mem::take(&mut *lock(&self.changed));
        for run in changed {
            let mut bytes = Vec::with_capacity(PAGE);
            {
                let sums = self.sums.read().unwrap_or_else(PoisonError::into_inner);
                let of_run = sums
                    .iter()
                    .skip(usize::try_from(run * RUN).expect("pages fit into memory"));
                for sum in of_run.take(PAGE / 8) {
                    bytes.extend_from_slice(&sum.to_le_bytes());
                }
            }
            bytes.resize(PAGE, 0);
            self.persist(|| disk::write_all_at(&self.file, &bytes, sums_place(run)))?;
        }
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset + data.len() as u64 <= PAGE_LEN {
            return self.persist(|| disk::write_all_at(&self.file, data, place(0) + offset));
        }
        check_aligned(offset, data.len())?;
        for (first, range) in runs(offset, data.len()) {
            let bytes = &data[range];
            self.persist(|| disk::write_all_at(&self.file, bytes, place(first)))?;
            let mut sums = self.sums.write().unwrap_or_else(PoisonError::into_inner);
            for (number, page) in (first..).zip(bytes.chunks_exact(PAGE)) {
                let at = usize::try_from(number).expect("pages fit into memory");
                let sum = sums.get_mut(at).ok_or(io::ErrorKind::InvalidInput)?;
                *sum = checksum(number, page);
            }
            lock(&self.changed).insert(first / RUN);
        }
        Ok(())
    }
}

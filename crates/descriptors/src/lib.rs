//! A budget of file descriptors, shared by the parts of one process.
//!
//! A process may have only so many files and sockets open: 256 is the usual limit on macOS, 1,024 on
//! Linux. [`Descriptors`] divides that limit into fixed shares, so that work waits for its turn instead
//! of failing with "too many open files":
//!
//! | share | used for | a request |
//! |---|---|---|
//! | reserve | standard streams, the runtime, sockets, a store's own files | is not needed |
//! | files | files that are read or written from end to end: [`file`](Descriptors::file) | waits |
//! | calls | short calls into a store's files: [`call`](Descriptors::call) | waits |
//! | kept | files that a cache keeps open: [`keep`](Descriptors::keep) | never waits |
//!
//! # Why waiting always ends
//!
//! A task that holds a permit waits for others only in this order: files, then calls. A call holds its
//! permit while one blocking function runs and waits for no other permit, so every call ends and
//! returns its permit. A file's permit is held across calls, but calls have their own share, which
//! files cannot exhaust, so every file is read or written to its end too. A task holds at most one
//! file's permit; two tasks that each held one and waited for a second would wait forever. Caches keep
//! their files open for as long as they want, so nobody waits for that share: a cache that gets no
//! permit closes one of its older files, or works without keeping the new one open. Both queues are
//! fair: the task that has waited longest is next.

use std::sync::{Arc, LazyLock};

use larder_store_api::{Error, Kind, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The smallest limit that can be divided.
pub const SMALLEST_LIMIT: u64 = 40;
/// The limit that is assumed if the system states none.
const ASSUMED_LIMIT: u64 = 8192;
/// The descriptors that one call may have open at the same time: a file and its folder.
const PER_CALL: usize = 2;
/// The minimum and maximum that is left for sockets, the runtime and a store's own files.
const RESERVE: (usize, usize) = (24, 256);
/// The minimum and maximum number of simultaneous calls.
const CALLS: (usize, usize) = (2, 64);
/// The minimum and maximum number of files that are read or written at the same time.
const FILES: (usize, usize) = (4, 1024);
/// The most files that all caches keep open.
const MOST_KEPT: usize = 4096;
/// A cache may keep at most this fraction of the files of all caches, so that a process can have
/// several.
const CACHE_SHARE: usize = 2;

/// A budget of file descriptors, divided into shares. See the [crate] for the shares.
#[derive(Debug)]
pub struct Descriptors {
    limit: u64,
    files: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    kept: Arc<Semaphore>,
    cache: usize,
}

/// A permit to have a file open; dropping it returns it.
#[derive(Debug)]
#[must_use = "the permit is given back when it is dropped"]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
}

impl Descriptors {
    /// Divides `limit` descriptors. A limit below [`SMALLEST_LIMIT`] gets the shares of
    /// [`SMALLEST_LIMIT`], and [`check`](Self::check) refuses it.
    pub fn new(limit: u64) -> Self {
        let usable = usize::try_from(limit.max(SMALLEST_LIMIT)).unwrap_or(usize::MAX);
        let rest = usable - (usable / 4).clamp(RESERVE.0, RESERVE.1);
        let calls = (rest / 16).clamp(CALLS.0, CALLS.1);
        let files = (rest / 4).clamp(FILES.0, FILES.1);
        let kept = (rest - calls * PER_CALL - files).min(MOST_KEPT);
        Self {
            limit,
            files: Arc::new(Semaphore::new(files)),
            calls: Arc::new(Semaphore::new(calls)),
            kept: Arc::new(Semaphore::new(kept)),
            cache: kept / CACHE_SHARE,
        }
    }

    /// Returns the budget of this process, from the limit that was in force at the first call.
    pub fn of_process() -> Arc<Self> {
        static PROCESS: LazyLock<Arc<Descriptors>> =
            LazyLock::new(|| Arc::new(Descriptors::new(soft_limit())));
        Arc::clone(&PROCESS)
    }

    /// Returns the limit that was divided.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Checks that the limit is large enough for `needed` descriptors.
    ///
    /// # Errors
    /// [`Kind::Denied`] if it is below `needed` or [`SMALLEST_LIMIT`].
    pub fn check(&self, operation: &'static str, needed: u64) -> Result<()> {
        let needed = needed.max(SMALLEST_LIMIT);
        if self.limit >= needed {
            return Ok(());
        }
        let message = "this process may open too few files at once; raise its limit, for example \
                       with `ulimit -n 1024`";
        Err(Error::new(Kind::Denied, operation, message)
            .with("limit", self.limit)
            .with("needed", needed))
    }

    /// Waits until a file may be opened and read or written from end to end. The holder may wait for
    /// [`call`](Self::call)s, but not for a second file.
    pub async fn file(&self) -> Permit {
        permit(&self.files).await
    }

    /// Waits until a short call into a store's files may run. The holder must not wait for anything
    /// else.
    pub async fn call(&self) -> Permit {
        permit(&self.calls).await
    }

    /// Returns a permit for a cache to keep one more file open; `None` if none is free.
    pub fn keep(&self) -> Option<Permit> {
        let permit = Arc::clone(&self.kept).try_acquire_owned().ok()?;
        Some(Permit { _permit: permit })
    }

    /// Returns how many files one cache should keep open at most.
    pub fn most_kept(&self) -> usize {
        self.cache
    }
}

async fn permit(share: &Arc<Semaphore>) -> Permit {
    let permit = Arc::clone(share).acquire_owned().await;
    Permit {
        _permit: permit.expect("the semaphore is never closed"),
    }
}

/// Raises the process's limit of open files as far as the system allows. A program calls this when it
/// starts, before it uses [`Descriptors::of_process`]; a library leaves the limit alone.
///
/// # Errors
/// The system's error if it refuses; the limit then stays as it was.
pub fn raise_limit() -> std::io::Result<()> {
    rlimit::increase_nofile_limit(u64::MAX).map(drop)
}

/// Returns the number of descriptors that this process may have open now.
#[cfg(unix)]
fn soft_limit() -> u64 {
    rlimit::Resource::NOFILE.get_soft().unwrap_or(ASSUMED_LIMIT)
}

/// Windows limits handles only by memory.
#[cfg(not(unix))]
fn soft_limit() -> u64 {
    ASSUMED_LIMIT
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn free(descriptors: &Descriptors) -> [usize; 3] {
        [
            descriptors.files.available_permits(),
            descriptors.calls.available_permits(),
            descriptors.kept.available_permits(),
        ]
    }

    #[test]
    fn the_shares_never_exceed_the_limit() {
        for limit in (SMALLEST_LIMIT..10_000).chain([1 << 20, u64::from(u32::MAX), u64::MAX]) {
            let descriptors = Descriptors::new(limit);
            let [files, calls, kept] = free(&descriptors);
            let all = RESERVE.0 + files + calls * PER_CALL + kept;
            assert!(all as u64 <= limit, "{limit}: {descriptors:?}");
            assert!(files >= FILES.0 && calls >= CALLS.0 && descriptors.most_kept() > 0);
        }
        assert_eq!(free(&Descriptors::new(256)), [48, 12, 120]);
        assert_eq!(free(&Descriptors::new(1024)), [192, 48, 480]);
        assert_eq!(free(&Descriptors::new(u64::MAX)), [1024, 64, 4096]);
    }

    #[test]
    fn a_limit_that_is_too_small_is_refused_with_what_to_do() {
        let check = |limit, needed| Descriptors::new(limit).check("store.open", needed);
        check(SMALLEST_LIMIT, 0).unwrap();
        check(64, 64).unwrap();
        let error = check(63, 64).unwrap_err();
        assert!(error.to_string().ends_with("(limit=63, needed=64)"));
        let error = check(39, 0).unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        assert_eq!(
            error.to_string(),
            "store.open: denied: this process may open too few files at once; raise its limit, for \
             example with `ulimit -n 1024` (limit=39, needed=40)"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn files_wait_for_each_other_and_calls_do_not_wait_for_files() {
        let descriptors = Arc::new(Descriptors::new(SMALLEST_LIMIT));
        let mut held = Vec::new();
        for _ in 0..FILES.0 {
            held.push(descriptors.file().await);
        }
        let second = Duration::from_secs(1);
        let waits = tokio::time::timeout(second, descriptors.file()).await;
        assert!(waits.is_err(), "all files were taken");
        let call = tokio::time::timeout(second, descriptors.call()).await;
        assert!(call.is_ok(), "calls have a share of their own");
        held.pop();
        let next = tokio::time::timeout(second, descriptors.file()).await;
        assert!(next.is_ok(), "a file was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_gets_to_the_end() {
        const TASKS: u64 = 200;
        let descriptors = Arc::new(Descriptors::new(SMALLEST_LIMIT));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..TASKS {
            let descriptors = Arc::clone(&descriptors);
            tasks.spawn(async move {
                // Half of them read or write a file at the same time.
                let _file = match number % 2 {
                    0 => Some(descriptors.file().await),
                    _ => None,
                };
                for _ in 0..3 {
                    let _call = descriptors.call().await;
                    tokio::time::sleep(Duration::from_millis(number % 7)).await;
                }
            });
        }
        let all = async { while tasks.join_next().await.is_some() {} };
        let ended = tokio::time::timeout(Duration::from_secs(60), all).await;
        assert!(
            ended.is_ok(),
            "some wait for ever: {:?}",
            free(&descriptors)
        );
        assert_eq!(free(&descriptors), [FILES.0, CALLS.0, 8]);
    }

    #[test]
    fn what_is_kept_is_given_back() {
        let descriptors = Descriptors::new(SMALLEST_LIMIT);
        let kept: Vec<_> = std::iter::from_fn(|| descriptors.keep()).collect();
        assert_eq!(kept.len(), 8);
        drop(kept);
        assert!(descriptors.keep().is_some());
    }

    #[cfg(unix)]
    #[test]
    fn the_limit_of_this_process_is_known() {
        assert_eq!(Descriptors::of_process().limit(), soft_limit());
    }
}

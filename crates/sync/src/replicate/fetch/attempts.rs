//! Schedules when to fetch each repo again.

use std::{collections::BTreeMap, time::Duration};

use larder_store_api::RecordId;
use tokio::time::Instant;

use super::{Fetched, index::Behind};
use crate::groups::Holding;

/// The first pause after a failed fetch, if nothing changes; it doubles each time.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest pause after a failed fetch.
pub(super) const AT_THE_LATEST: Duration = Duration::from_secs(300);
/// The first pause before a repo is tried again because peers say that they now hold something else; it
/// doubles each time, up to [`AGAIN`], so that a peer that keeps announcing changes cannot keep us
/// busy.
const SOON_AGAIN: Duration = Duration::from_millis(10);

/// The last attempt to fetch a repo, and the peers that were asked.
#[derive(PartialEq, Eq)]
pub(super) struct Tried {
    pub(super) behind: Behind,
    pub(super) holders: BTreeMap<u64, Option<Holding>>,
}

/// The last attempt, and the time of the next one.
struct Attempt {
    tried: Tried,
    /// True while the attempt runs.
    runs: bool,
    turn: u64,
    pause: Duration,
    at: Instant,
    /// The pause before the next attempt if something has changed.
    short_pause: Duration,
    at_soonest: Instant,
}

/// The attempts to fetch each repo.
pub(super) struct Attempts {
    of: BTreeMap<RecordId, Attempt>,
    turns: u64,
    began: Instant,
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self {
            of: BTreeMap::new(),
            turns: 0,
            began: Instant::now(),
        }
    }

    /// Returns the time of the next attempt; `None` while one is under way.
    pub(super) fn due(&self, repo: RecordId, now: &Tried) -> Option<Instant> {
        let Some(attempt) = self.of.get(&repo) else {
            return Some(self.began);
        };
        let at = match &attempt.tried {
            tried if tried == now => attempt.at,
            tried if tried.behind == now.behind => attempt.at_soonest.min(attempt.at),
            // Its owner wrote another tree, or the user wants different files.
            _ => self.began,
        };
        (!attempt.runs).then_some(at)
    }

    pub(super) fn begin(&mut self, repo: RecordId, tried: Tried) {
        let before = self.of.remove(&repo);
        let before = before.filter(|before| before.tried.behind == tried.behind);
        let short_pause = before
            .as_ref()
            .map_or(SOON_AGAIN, |before| (before.short_pause * 2).min(AGAIN));
        let before = before.filter(|before| before.tried == tried);
        self.turns += 1;
        let attempt = Attempt {
            tried,
            runs: true,
            turn: self.turns,
            pause: before.map_or(AGAIN, |before| (before.pause * 2).min(AT_THE_LATEST)),
            at: Instant::now(),
            short_pause,
            at_soonest: Instant::now(),
        };
        self.of.insert(repo, attempt);
    }

    pub(super) fn end(&mut self, repo: RecordId, fetched: Fetched) {
        if fetched != Fetched::Some {
            self.of.remove(&repo);
        } else if let Some(attempt) = self.of.get_mut(&repo) {
            attempt.runs = false;
            attempt.at = Instant::now() + attempt.pause;
            attempt.at_soonest = Instant::now() + attempt.short_pause;
        }
    }

    pub(super) fn count_running(&self) -> usize {
        self.of.values().filter(|attempt| attempt.runs).count()
    }

    /// Forgets all repos, except those that are being fetched or are still to be fetched.
    pub(super) fn retain(&mut self, is_left: impl Fn(RecordId) -> bool) {
        self.of.retain(|id, attempt| attempt.runs || is_left(*id));
    }

    /// Returns the repo's position in the order in which repos were tried.
    pub(super) fn turn(&self, repo: RecordId) -> Option<u64> {
        self.of.get(&repo).map(|attempt| attempt.turn)
    }
}

#[cfg(test)]
mod tests {
    use larder_store_engine::Hash;

    use super::*;
    use crate::groups::Wants;

    fn id(n: u8) -> RecordId {
        RecordId([n; 32])
    }

    fn tried(root: &str, holders: impl IntoIterator<Item = u64>) -> Tried {
        Tried {
            behind: Behind {
                root: Some(Hash::of(root)),
                wanted: Wants::EVERYTHING.digest().expect("a digest"),
            },
            holders: holders.into_iter().map(|id| (id, None)).collect(),
        }
    }

    fn is_due(attempts: &Attempts, now: &Tried) -> bool {
        let due = attempts.due(id(1), now);
        due.is_some_and(|at| at <= Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_something_else_all_the_time_makes_nobody_busy() {
        let mut attempts = Attempts::new();
        let (began, mut count) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(60) {
            let now = tried("root", [count]);
            if is_due(&attempts, &now) {
                attempts.begin(id(1), now);
                assert!(!is_due(&attempts, &tried("another", [])), "it runs");
                attempts.end(id(1), Fetched::Some);
                count += 1;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!((10..30).contains(&count), "{count}");
        // Another tree is fetched at once.
        assert!(is_due(&attempts, &tried("another", [])));
    }

    #[tokio::test(start_paused = true)]
    async fn of_whom_nothing_is_new_is_asked_less_and_less() {
        let mut attempts = Attempts::new();
        let (began, mut count) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(3600) {
            if is_due(&attempts, &tried("root", [1])) {
                attempts.begin(id(1), tried("root", [1]));
                attempts.end(id(1), Fetched::Some);
                count += 1;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!((12..25).contains(&count), "{count}");
        // A new peer is asked at once.
        assert!(is_due(&attempts, &tried("root", [1, 2])));
    }
}

//! Classifies failures by who is at fault: this device, the peer or the network.

use std::{collections::BTreeMap, io, sync::Mutex};

use larder_store_api::{Error, Kind, RecordId, Result};
use larder_store_engine::metrics::Counter;
use tokio::time::{Duration, Instant};

use super::{Replicator, lock};

const PEER: &str = "sync.peer";
/// The time for which a store's failure stays listed if the store is not used again. Our own work retries sooner
/// than that; a peer's request is not retried.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(320);
/// The most failed stores that are remembered.
const MAX_TROUBLES: usize = 1024;

pub(super) use larder_store_engine::fetch::{Fault, Misconduct};

/// The result of replication with a peer.
pub(super) type Outcome<T, E = Fault> = std::result::Result<T, E>;

/// Returns a fault for a peer that sent something wrong, as `message` says.
pub(super) fn lies(message: &'static str) -> Fault {
    Fault::Peer(Misconduct::Lies, Error::new(Kind::Invalid, PEER, message))
}

/// Returns a fault for a peer that refused something.
pub(super) fn refuses(message: &'static str) -> Fault {
    Fault::Peer(Misconduct::Refuses, Error::new(Kind::Denied, PEER, message))
}

/// Marks an error with its origin, at the place where it occurs.
pub(super) trait Blame<T> {
    /// A store of this device returned the error.
    fn local(self) -> Outcome<T>;
    /// The peer sent something wrong.
    fn peer(self) -> Outcome<T>;
    /// The network returned the error.
    fn link(self) -> Outcome<T>;
}

impl<T> Blame<T> for Result<T> {
    fn local(self) -> Outcome<T> {
        self.map_err(Fault::Local)
    }

    fn peer(self) -> Outcome<T> {
        self.map_err(|error| Fault::Peer(Misconduct::Lies, error))
    }

    fn link(self) -> Outcome<T> {
        self.map_err(Fault::Link)
    }
}

/// Returns a fault for a stream that failed.
pub(super) fn lost(error: io::Error) -> Fault {
    Fault::Link(Error::new(Kind::Unavailable, PEER, "the peer is gone").because(error))
}

/// A store of this device that failed, and has not worked since.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Trouble {
    /// The group that the work was for; `None` if it was for all groups.
    pub group: Option<RecordId>,
    /// The work that failed, in a word or two.
    pub work: &'static str,
    /// The error that it returned.
    pub error: Error,
    /// The time since it began to fail.
    pub failing: Duration,
}

/// The failures of this device's stores.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<BTreeMap<(Option<RecordId>, &'static str), Noted>>);

#[derive(Debug)]
struct Noted {
    trouble: Trouble,
    /// The time at which it began to fail.
    since: Instant,
    /// The time at which it failed last.
    last: Instant,
}

impl Troubles {
    /// Records that a store failed. Logs the first failure, and any later one that differs from it.
    pub(super) fn note(&self, group: Option<RecordId>, work: &'static str, error: &Error) {
        Counter::StoreFailures.add(1);
        let mut all = lock(&self.0);
        all.retain(|_, known| known.is_shown());
        let known = all.get_mut(&(group, work));
        let is_known = known.is_some();
        if let Some(known) = known {
            known.last = Instant::now();
            let before = &known.trouble.error;
            if (before.kind(), before.operation()) == (error.kind(), error.operation()) {
                return;
            }
        }
        tracing::warn!(?group, work, %error, "a store of this device failed; it is tried again");
        if all.len() < MAX_TROUBLES || is_known {
            let trouble = Trouble {
                group,
                work,
                error: error.clone(),
                failing: Duration::ZERO,
            };
            let since = Instant::now();
            let noted = Noted {
                trouble,
                since,
                last: since,
            };
            all.insert((group, work), noted);
        }
    }

    /// Records that the store worked again.
    pub(super) fn clear(&self, group: Option<RecordId>, work: &'static str) {
        if lock(&self.0).remove(&(group, work)).is_some() {
            tracing::info!(?group, work, "a store of this device works again");
        }
    }
}

impl Noted {
    fn is_shown(&self) -> bool {
        self.last.elapsed() < FORGOTTEN_AFTER
    }
}

impl Replicator {
    /// Returns the stores of this device that are failing, with their errors. Their work is retried
    /// until it succeeds. No peer is to blame for them.
    pub fn troubles(&self) -> Vec<Trouble> {
        let all = lock(&self.0.troubles.0);
        let shown = all.values().filter(|noted| noted.is_shown());
        let now = |noted: &Noted| Trouble {
            failing: noted.since.elapsed(),
            ..noted.trouble.clone()
        };
        shown.map(now).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_known_until_it_is_over_or_long_ago() {
        let troubles = Troubles::default();
        let denied = Error::new(Kind::Denied, "log.append", "");
        let group = Some(RecordId([1; 32]));
        troubles.note(group, "fetch", &denied);
        let since = lock(&troubles.0)[&(group, "fetch")].since;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        troubles.note(group, "fetch", &denied);
        assert_eq!(lock(&troubles.0)[&(group, "fetch")].since, since);
        troubles.note(group, "fetch", &Error::new(Kind::Full, "log.append", ""));
        assert_eq!(lock(&troubles.0).len(), 1);
        assert_eq!(
            lock(&troubles.0)[&(group, "fetch")].trouble.error.kind(),
            Kind::Full
        );
        troubles.note(None, "fetch", &denied);
        troubles.clear(group, "fetch");
        assert_eq!(lock(&troubles.0).len(), 1);
        tokio::time::sleep(FORGOTTEN_AFTER).await;
        troubles.note(group, "serve", &denied);
        assert_eq!(lock(&troubles.0).len(), 1, "the other was not needed again");
    }

    #[test]
    fn blame_lies_where_it_is_laid() {
        let denied = || Err::<(), _>(Error::new(Kind::Denied, "x", ""));
        assert!(matches!(denied().local(), Err(Fault::Local(_))));
        assert!(denied().peer().unwrap_err().is_peers(Misconduct::Lies));
        assert!(matches!(denied().link(), Err(Fault::Link(_))));
    }
}

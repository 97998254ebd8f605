//! Knows whether all that was committed survives the loss of power.

use std::sync::atomic::{AtomicU64, Ordering};

use larder_store_api::{Durability, Kind, Result};

/// Counts the commits that may be visible and are not durable. One that is durable covers all that had
/// returned when it began.
#[derive(Debug, Default)]
pub(super) struct Durable {
    begun: AtomicU64,
    ended: AtomicU64,
    /// The number of commits that are durable by now.
    covered: AtomicU64,
    /// The number of durable commits under way: a store may show one before it is durable.
    under_way: AtomicU64,
}

impl Durable {
    /// Returns true if all that is visible is durable.
    pub(super) fn is_all(&self) -> bool {
        // In this order: a durable commit that fails is counted as begun before it is under way no more.
        self.under_way.load(Ordering::SeqCst) == 0
            && self.covered.load(Ordering::SeqCst) >= self.begun.load(Ordering::SeqCst)
    }

    /// Runs a commit, or a sync.
    pub(super) async fn commit<T>(
        &self,
        durability: Durability,
        commit: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if durability != Durability::OnWrite {
            self.begun.fetch_add(1, Ordering::SeqCst);
            // One that is dropped is applied before all that begin later, or never.
            let _ended = Ended(self);
            return commit.await;
        }
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let mut running = Running {
            durable: self,
            is_known: false,
        };
        // In this order: where both are equal, none was under way at that moment.
        let ended = self.ended.load(Ordering::SeqCst);
        let begun = self.begun.load(Ordering::SeqCst);
        let committed = commit.await;
        match &committed {
            Ok(_) => {
                if ended == begun {
                    self.covered.fetch_max(begun, Ordering::SeqCst);
                }
                running.is_known = true;
            }
            // Nothing was applied.
            Err(error) => {
                running.is_known = matches!(error.kind(), Kind::Conflict | Kind::TooLarge);
            }
        }
        committed
    }
}

struct Ended<'a>(&'a Durable);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// A durable commit under way.
struct Running<'a> {
    durable: &'a Durable,
    /// False if it may be visible and not durable: it failed, or was dropped.
    is_known: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.is_known {
            self.durable.begun.fetch_add(1, Ordering::SeqCst);
            self.durable.ended.fetch_add(1, Ordering::SeqCst);
        }
        self.durable.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::FutureExt;

    use super::*;

    async fn commit(durable: &Durable, durability: Durability) {
        durable
            .commit(durability, ready(Ok(())))
            .await
            .expect("a commit");
    }

    #[tokio::test]
    async fn a_durable_commit_covers_those_that_had_returned() {
        let durable = Durable::default();
        assert!(durable.is_all());
        commit(&durable, Durability::OnSync).await;
        commit(&durable, Durability::Memory).await;
        assert!(!durable.is_all());
        commit(&durable, Durability::OnWrite).await;
        assert!(durable.is_all());

        let failing = ready(Err::<(), _>(larder_store_api::Error::new(
            larder_store_api::Kind::Full,
            "collection.commit",
            "",
        )));
        commit(&durable, Durability::OnSync).await;
        let failed = durable.commit(Durability::OnWrite, failing).await;
        assert!(failed.is_err() && !durable.is_all());
        commit(&durable, Durability::OnWrite).await;

        // One under way may be applied after it.
        {
            let mut under_way =
                Box::pin(durable.commit(Durability::OnSync, pending::<Result<()>>()));
            assert!((&mut under_way).now_or_never().is_none());
            commit(&durable, Durability::OnWrite).await;
            assert!(!durable.is_all());
        }
        commit(&durable, Durability::OnWrite).await;
        assert!(durable.is_all());
    }

    #[tokio::test]
    async fn a_durable_commit_that_has_not_returned_may_be_visible() {
        let durable = Durable::default();
        {
            let mut under_way =
                Box::pin(durable.commit(Durability::OnWrite, pending::<Result<()>>()));
            assert!((&mut under_way).now_or_never().is_none());
            assert!(!durable.is_all());
        }
        // It was dropped, and may be applied all the same.
        assert!(!durable.is_all());
        commit(&durable, Durability::OnWrite).await;
        assert!(durable.is_all());
        for (kind, is_all) in [(Kind::Conflict, true), (Kind::Unavailable, false)] {
            let error = larder_store_api::Error::new(kind, "collection.commit", "");
            let failing = ready(Err::<(), _>(error));
            let failed = durable.commit(Durability::OnWrite, failing).await;
            assert!(failed.is_err());
            assert_eq!(durable.is_all(), is_all, "{kind:?}");
        }
    }
}

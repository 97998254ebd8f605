//! Knows whether all that was committed survives the loss of power.

use std::sync::atomic::{AtomicU64, Ordering};

use store_api::{Durability, Result};

/// Counts the commits that are not durable when they return. One that is covers all that had returned
/// when it began.
#[derive(Debug, Default)]
pub(super) struct Durable {
    begun: AtomicU64,
    ended: AtomicU64,
    /// The number of commits that are durable by now.
    covered: AtomicU64,
}

impl Durable {
    /// Returns true if all commits without a sync are durable, also those that have not returned.
    pub(super) fn is_all(&self) -> bool {
        self.covered.load(Ordering::SeqCst) >= self.begun.load(Ordering::SeqCst)
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
        // In this order: where both are equal, none was under way at that moment.
        let ended = self.ended.load(Ordering::SeqCst);
        let begun = self.begun.load(Ordering::SeqCst);
        let value = commit.await?;
        if ended == begun {
            self.covered.fetch_max(begun, Ordering::SeqCst);
        }
        Ok(value)
    }
}

struct Ended<'a>(&'a Durable);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
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

        let failing = ready(Err::<(), _>(store_api::Error::new(
            store_api::Kind::Full,
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
}

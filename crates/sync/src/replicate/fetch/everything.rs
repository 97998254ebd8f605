//! Fetches a whole repo, regardless of the policy.

use std::time::Duration;

#[cfg(doc)]
use larder_store_api::Kind;
use larder_store_api::Result;

use super::{Fetched, Shared, progress::RepoProgress, tree::nobody_has};
use crate::{
    groups::{Repo, Wants},
    replicate::Replicator,
    tree::Root,
};

/// The shortest time between two reports of progress.
const TELL_EVERY: Duration = Duration::from_millis(100);

impl Replicator {
    /// Fetches the whole newest known tree of a repo, regardless of the
    /// [policy](crate::groups::Policy), and reports progress from time to time. If the fetch fails or
    /// is dropped, everything that has arrived stays. For a repo of ours there is nothing to fetch.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if no connected member can provide what is missing.
    pub async fn sync_all(
        &self,
        repo: &Repo,
        mut progress: impl FnMut(RepoProgress),
    ) -> Result<Root> {
        let telling = async {
            loop {
                tokio::time::sleep(TELL_EVERY).await;
                progress(self.progress(repo));
            }
        };
        let root = tokio::select! {
            biased;
            root = self.0.fetch_everything(repo) => root?,
            () = telling => unreachable!("it never ends"),
        };
        progress(self.progress(repo));
        Ok(root)
    }
}

impl Shared {
    async fn fetch_everything(&self, repo: &Repo) -> Result<Root> {
        let _one = repo.fetching().await;
        if repo.is_ours() {
            return repo.root().await;
        }
        loop {
            let Some(known) = repo.readable_root().await? else {
                return Ok(Root::EMPTY);
            };
            let everything = Wants::EVERYTHING;
            match self.fetch_root(repo, known.root, &everything).await? {
                Fetched::All => {
                    repo.group().blobs().make_durable().await?;
                    return Ok(known.root);
                }
                Fetched::Some => return Err(nobody_has("sync.fetch").with("repo", repo.key())),
                Fetched::Again => {}
            }
        }
    }
}

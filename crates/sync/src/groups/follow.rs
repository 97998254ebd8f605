//! Following another member's repo: the roots that come.

use larder_store_api::{Durability, Error, Kind, Put, PutRecord, Result, Signed};
use larder_store_engine::Transaction;

use super::{Repo, merge_devices::Turn};
use crate::{records::REPO_ROOT, tree::Root};

/// The number of times that storing a root is tried again after another slot of the record changed
/// meanwhile.
const MAX_ATTEMPTS: usize = 64;

impl Repo {
    /// Takes in a root that another member wrote. It becomes durable with the commit that says what is here of
    /// its tree: until then, nobody was told that anything is. Its tree is kept once it is fetched, and not now: the
    /// one that is being fetched must stay.
    pub(crate) async fn take_root(&self, _turn: &Turn<'_>, signed: Signed) -> Result<Put> {
        const OPERATION: &str = "sync.repo.follow";
        let group = self.group();
        let (blobs, records) = (group.blobs(), group.records());
        for _ in 0..MAX_ATTEMPTS {
            let transaction = blobs.transaction()?;
            let slot = records.slot(self.id(), REPO_ROOT).await?;
            let put = PutRecord::Import(signed.clone());
            let put = transaction.put_slot(records, &slot, put).await?;
            match transaction.commit_with(Durability::OnSync).await {
                Ok(_) => return Ok(put),
                Err(error) if error.kind() == Kind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        let message = "the record was changed meanwhile, again and again";
        Err(Error::new(Kind::Unavailable, OPERATION, message).with("repo", self.key()))
    }

    /// Has a transaction keep what comes of this tree from now on, also over a restart, beside those that are
    /// here; what came of roots in between goes.
    pub(crate) async fn follow_in(&self, transaction: &Transaction, root: Root) -> Result<()> {
        let local = self.group().inner().local(self.id()).await?;
        let roots = [&local.roots()[..], &[root]].concat();
        self.keep_only_in(transaction, &roots).await
    }
}

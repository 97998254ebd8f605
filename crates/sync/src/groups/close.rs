//! Closing a repo, and all groups.

use larder_store_api::Result;

use super::{Group, Groups, Repo, close_guard::Pass};

impl Groups {
    /// Closes all groups and repos: waits for changes that run, and lets nothing begin any more. Reading and
    /// changing are [`Kind::Closed`](larder_store_api::Kind::Closed) from then on, also through handles that there
    /// were before. Acknowledged changes are durable without this. Closing again is not an error, and waits too.
    ///
    /// [Shut down](crate::replicate::Replicator::shutdown) a replicator of the groups before: this does not
    /// stop it, and it finds groups that it cannot read. Streams that were begun go on.
    pub async fn close(&self) {
        self.0.gate.close().await;
    }
}

impl Group {
    /// Begins a change.
    pub(super) fn enter(&self, operation: &'static str) -> Result<Pass<'_>> {
        let pass = self.inner().gate.enter(operation);
        pass.map_err(|error| error.with("group", self.id()))
    }

    /// Refuses to read when all is closed.
    pub(super) fn check_open(&self, operation: &'static str) -> Result<()> {
        let open = self.inner().gate.check(operation);
        open.map_err(|error| error.with("group", self.id()))
    }
}

impl Repo {
    /// Closes this handle and its clones: waits for changes that run through them, and lets none begin any
    /// more. Reading and changing through them are [`Kind::Closed`](larder_store_api::Kind::Closed) from then on.
    /// Acknowledged changes are durable without this. Closing again is not an error, and waits too.
    ///
    /// The repo itself stays, and goes on replicating: [`Group::repo`] gives another handle, and those
    /// that it has given stay open. Streams that were begun go on.
    pub async fn close(&self) {
        self.1.close().await;
    }

    /// Begins a change. The parts of a change do not begin another: the repo may be closed by then.
    pub(super) fn enter(&self, operation: &'static str) -> Result<(Pass<'_>, Pass<'_>)> {
        let pass = self.1.enter(operation);
        let pass = pass.map_err(|error| error.with("repo", self.key()))?;
        Ok((pass, self.group().enter(operation)?))
    }

    /// Refuses to read when it is closed.
    pub(super) fn check_open(&self, operation: &'static str) -> Result<()> {
        let open = self.1.check(operation);
        open.map_err(|error| error.with("repo", self.key()))?;
        self.group().check_open(operation)
    }
}

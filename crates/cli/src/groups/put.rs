//! Files of this machine, put into a repo.

use std::path::Path;

use anyhow::Result;
use larder::{
    files::{self, PutDone, PutRequest},
    groups::Repo,
};

use crate::{app::App, observed::observe};

/// The options for putting files.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct PutOptions {
    /// Succeed even if files cannot be read or have names that cannot be stored; they are left out either way
    #[arg(long)]
    pub(crate) skip_unreadable: bool,
    /// Include folders that a CACHEDIR.TAG marks as caches, such as cargo's `target`
    #[arg(long)]
    pub(crate) include_caches: bool,
    /// Read files too whose length and time are those of the file in the repo
    #[arg(long)]
    pub(crate) read_all: bool,
}

impl PutOptions {
    /// The request to put a path into a repo's root.
    pub(crate) fn request(&self, path: &Path) -> PutRequest {
        let mut request = PutRequest::new(path);
        request.include_caches = self.include_caches;
        request.read_all = self.read_all;
        request
    }
}

/// Puts what the request names into `repo`, and shows progress. Durable when it returns.
pub(crate) async fn put(app: &App, repo: &Repo, request: &PutRequest) -> Result<PutDone> {
    let (_bar, observer) = observe(&app.out, "sealing");
    let store = app.opened()?;
    Ok(files::put(&store, repo, request, &observer).await?)
}

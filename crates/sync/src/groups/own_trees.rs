//! Keeps the files of repos of this device from being collected where a page that names them is lost.

use async_trait::async_trait;
use futures_util::TryStreamExt;
use larder_store_api::{Error, Kind, Result};
use larder_store_engine::{Blobs, Collections, Root, Roots};

use super::{TAG_PREFIX, local_state, tree_tags::MAX_KEPT};

/// Ends a collection if the tree of a repo of this device is not whole. Needs none of the keys.
///
/// A lost page no longer names its files, although they may be here. Other members may send the page again; until
/// then, nothing tells its files from garbage.
#[derive(Debug)]
pub struct OwnTrees(Collections);

impl OwnTrees {
    /// Watches over the repos of a store with these collections.
    pub fn new(collections: &Collections) -> Self {
        Self(collections.clone())
    }

    /// Returns true if a tree that a tag keeps is whole. A tree that only comes may be in part.
    fn must_be_whole(tag: &[u8], of_repo: &[u8]) -> bool {
        let number = tag.strip_suffix(MAX_KEPT.to_string().as_bytes());
        tag.len() > of_repo.len() && number != Some(of_repo)
    }
}

#[async_trait]
impl Roots for OwnTrees {
    async fn roots(&self, blobs: &Blobs) -> Result<Vec<Root>> {
        for (group, repo) in local_state::our_repos(&self.0).await? {
            let of_repo = format!("{TAG_PREFIX}{group}/{repo}/");
            let mut tags = blobs.tags().list_prefix(of_repo.as_str());
            while let Some(tag) = tags.try_next().await? {
                if !Self::must_be_whole(tag.name.as_bytes(), of_repo.as_bytes()) {
                    continue;
                }
                let mut tree = blobs.reachable();
                tree.add(tag.root).await?;
                if tree.has_gaps() {
                    let message = "a page of your repo is lost, and its files cannot be told from garbage: sync with a \
                                   member who has it, or leave the group";
                    return Err(Error::new(Kind::Corrupt, "groups.collect", message)
                        .with("group", group)
                        .with("repo", repo));
                }
            }
        }
        Ok(Vec::new())
    }
}

//! The trees that a repo keeps from being collected, each by a tag.

use std::collections::BTreeSet;

use larder_store_api::{Error, Kind, Result};
use larder_store_engine::{Tag, TagName, Tags, Transaction};

use super::{Groups, Repo, TAG_PREFIX};
use crate::tree::Root;

/// The most trees that are kept at a time: those that are here as far as something is wanted of them, and one
/// that comes. There are few tags, so that each is looked up and nothing is listed.
pub(super) const MAX_KEPT: usize = 4;

impl Groups {
    /// Returns a name in `tags` for a tag of the same group in another store, so that both trees are kept until the
    /// repo is changed or fetched next: that of a tag that keeps the same, or one that is free. Returns `None` for a
    /// tag that is not a group's.
    ///
    /// # Errors
    /// The errors of [`Tags::get`].
    pub async fn tag_beside(tags: &Tags, tag: &Tag) -> Result<Option<TagName>> {
        let name = tag.name.as_bytes();
        let of_repo = name.iter().rposition(|byte| *byte == b'/');
        let Some(of_repo) = of_repo.filter(|_| name.starts_with(TAG_PREFIX.as_bytes())) else {
            return Ok(None);
        };
        let mut free = None;
        for n in 0..=MAX_KEPT {
            let number = n.to_string();
            let beside = TagName::new([&name[..=of_repo], number.as_bytes()].concat())?;
            match tags.get(&beside).await? {
                Some(root) if root == tag.root => return Ok(Some(beside)),
                // The last one is the one that may be replaced.
                None => {
                    free.get_or_insert(beside);
                }
                Some(_) if n == MAX_KEPT => {
                    free.get_or_insert(beside);
                }
                Some(_) => {}
            }
        }
        Ok(free)
    }
}

impl Repo {
    /// Has a transaction tag these trees, and let those of all other roots go.
    pub(crate) async fn keep_only_in(
        &self,
        transaction: &Transaction,
        roots: &[Root],
    ) -> Result<()> {
        let mut wanted: Vec<Root> = Vec::with_capacity(MAX_KEPT);
        for root in roots {
            if !root.is_empty() && !wanted.iter().any(|other| other.hash == root.hash) {
                wanted.push(*root);
            }
        }
        if wanted.len() > MAX_KEPT {
            let message = format!("a repo keeps at most {MAX_KEPT} trees");
            return Err(Error::new(Kind::Internal, "sync.repo.keep", message));
        }
        let kept = self.kept().await?;
        let mut taken: BTreeSet<TagName> = BTreeSet::new();
        for tag in kept {
            match wanted.iter().position(|root| root.hash == tag.root.hash) {
                // That of a tree that was on its way goes: it may be replaced.
                Some(at) if tag.name != self.tag(MAX_KEPT)? => {
                    wanted.swap_remove(at);
                    taken.insert(tag.name);
                }
                _ => transaction.delete_tag(tag.name)?,
            }
        }
        for n in 0..MAX_KEPT {
            let tag = self.tag(n)?;
            if !taken.contains(&tag)
                && let Some(root) = wanted.pop()
            {
                transaction.set_tag(tag, root.keep()).await?;
            }
        }
        Ok(())
    }

    /// Keeps a tree that the record does not name yet, until trees are [kept](Self::keep_only) the next time, in
    /// place of another such tree.
    pub(crate) async fn keep(&self, root: Root) -> Result<()> {
        if root.is_empty() {
            return Ok(());
        }
        let tags = self.group().blobs().tags();
        tags.set(self.tag(MAX_KEPT)?, root.keep()).await
    }

    /// Tags these trees, and lets those of all other roots go.
    pub(crate) async fn keep_only(&self, roots: &[Root]) -> Result<()> {
        let transaction = self.group().blobs().transaction()?;
        self.keep_only_in(&transaction, roots).await?;
        transaction.commit().await.map(drop)
    }

    /// The tags of the trees that are kept.
    pub(crate) async fn kept(&self) -> Result<Vec<Tag>> {
        let tags = self.group().blobs().tags();
        let mut kept = Vec::new();
        for n in 0..=MAX_KEPT {
            let name = self.tag(n)?;
            if let Some(root) = tags.get(&name).await? {
                kept.push(Tag { name, root });
            }
        }
        Ok(kept)
    }

    fn tag(&self, n: usize) -> Result<TagName> {
        TagName::new(format!(
            "{TAG_PREFIX}{}/{}/{n}",
            self.group().id(),
            self.id()
        ))
    }
}

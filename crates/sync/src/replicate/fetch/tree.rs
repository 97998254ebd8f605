//! What of a tree is not here, level by level.

use std::collections::HashSet;

use store_api::{Error, Kind, Result};
use store_engine::{Hash, Pin};

use super::{
    Chain, Policy, Shared,
    jobs::Job,
    missing::{Files, is_page_here},
};
use crate::{
    groups::{Group, Repo},
    tree::{
        FileEntry, Name, Root,
        walk::{Part, children},
    },
};

/// How often it is looked in vain whether more of the files of a level is here: all of them is, the first
/// time, unless one is very long or somebody lied about how long one is.
const ROUNDS: usize = 4;

impl Shared {
    /// Fetches what of a tree is not here, as far as the policy wants it. All of `held` is here so far.
    pub(super) async fn fetch_tree(
        &self,
        group: &Group,
        repo: &Repo,
        root: Root,
        held: Root,
    ) -> Result<()> {
        let blobs = group.blobs();
        let mut new: Vec<Chain> = Vec::new();
        let mut old: HashSet<Hash> = HashSet::new();
        let mut pins = Vec::new();
        for level in (0..=root.level.max(held.level)).rev() {
            if level == root.level {
                new.push(vec![root.hash]);
            }
            if level == held.level && !held.is_empty() {
                old.insert(held.hash);
            }
            let last = |chain: &Chain| *chain.last().expect("a chain has a page");
            let shared: HashSet<Hash> = new
                .iter()
                .map(last)
                .filter(|hash| old.contains(hash))
                .collect();
            new.retain(|chain| !shared.contains(&last(chain)));
            old.retain(|hash| !shared.contains(hash));

            let mut jobs = Vec::new();
            for chain in &new {
                let page = last(chain);
                if !is_page_here(blobs, page, level).await? {
                    jobs.push(Job::page(chain.clone(), page));
                }
            }
            pins.extend(self.run(group, repo, jobs).await?);

            let (mut old_below, mut old_files) = (HashSet::new(), HashSet::new());
            for page in std::mem::take(&mut old) {
                let known = match children(blobs, page, level).await {
                    Ok(known) => known,
                    // A page that was damaged and is gone: what is below is looked for one by one.
                    Err(error) if error.kind() == Kind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                for child in known {
                    match child.part {
                        Part::Sequence { .. } => drop(old_below.insert(child.hash)),
                        Part::File => drop(old_files.insert(child.hash)),
                        Part::Page => {}
                    }
                }
            }
            let mut below = Vec::new();
            let mut files = Vec::new();
            for chain in std::mem::take(&mut new) {
                let mut named = Vec::new();
                for (offset, child) in (1..).zip(children(blobs, last(&chain), level).await?) {
                    match child.part {
                        Part::Sequence { .. } => {
                            let mut chain = chain.clone();
                            chain.push(child.hash);
                            below.push(chain);
                        }
                        Part::File if self.options.policy == Policy::Names => {}
                        Part::File if old_files.contains(&child.hash) => {}
                        Part::File => named.push((offset, child.hash)),
                        Part::Page => {}
                    }
                }
                if let Some(files_of) = Files::missing(blobs, chain, named).await? {
                    files.push(files_of);
                }
            }
            pins.extend(self.fetch_files(group, repo, files).await?);
            (new, old) = (below, old_below);
        }
        drop(pins);
        Ok(())
    }

    /// Fetches what of these files is not here.
    async fn fetch_files(
        &self,
        group: &Group,
        repo: &Repo,
        mut files: Vec<Files>,
    ) -> Result<Vec<Pin>> {
        let mut pins = Vec::new();
        let mut rounds = 0..ROUNDS;
        let mut least = u64::MAX;
        while !files.is_empty() {
            let left = files.iter().map(Files::left).fold(0, u64::saturating_add);
            if left < least {
                (least, rounds) = (left, 0..ROUNDS);
            } else if rounds.next().is_none() {
                let message = "files are not whole, whoever is asked";
                let error = Error::new(Kind::Unavailable, "sync.fetch", message);
                return Err(error.with("repo", repo.key()));
            }
            let jobs = files.iter().flat_map(Files::jobs).collect();
            pins.extend(self.run(group, repo, jobs).await?);
            let mut left = Vec::new();
            for known in files {
                let named = known
                    .missing
                    .into_iter()
                    .map(|(offset, hash, _)| (offset, hash));
                left.extend(Files::missing(group.blobs(), known.chain, named).await?);
            }
            files = left;
        }
        Ok(pins)
    }

    /// Fetches one file of the tree that reads see, and says what is said of it.
    pub(in crate::replicate) async fn fetch_file(
        &self,
        repo: &Repo,
        path: &str,
    ) -> Result<FileEntry> {
        const OPERATION: &str = "sync.read";
        let group = repo.group();
        let (tree, root) = (group.tree(OPERATION)?, repo.root().await?);
        // It may be replaced meanwhile.
        let _tree = group.blobs().pin(root.keep()).await;
        let located = tree.locate(root, &Name::new(path)?).await?;
        let (chain, offset, entry) = located.ok_or_else(|| {
            Error::new(Kind::NotFound, OPERATION, "there is no such file")
                .with("path", path.escape_debug())
        })?;
        let named = [(offset, entry.blob)];
        let missing = Files::missing(group.blobs(), chain, named).await?;
        // From now on the tree keeps it.
        let files = missing.into_iter().collect();
        drop(self.fetch_files(group, repo, files).await?);
        Ok(entry)
    }
}

//! What of a tree is not here, level by level.

use std::{collections::HashSet, sync::Arc};

use store_api::{Error, Kind, Result};
use store_engine::{Hash, Pin};

use super::{
    Chain, Shared,
    jobs::{Job, Named},
    missing::{Files, is_page_here, wanted_of},
    progress::{Coming, Moved},
};
use crate::{
    groups::{Repo, Wants},
    seal::file::sealed_len,
    tree::{
        FileEntry, Name, Root,
        walk::{Part, children},
    },
};

/// How often it is looked in vain whether more of the files of a level is here: all of them is, the first
/// time, unless one is very long or somebody lied about how long one is.
const ROUNDS: usize = 4;

impl Shared {
    /// Fetches what of a tree is not here, as far as it is wanted. All of `held` is here so far, as far
    /// as that is wanted.
    pub(in crate::replicate) async fn fetch_tree(
        &self,
        repo: &Repo,
        root: Root,
        held: Root,
        wants: &Wants,
        progress: &Arc<Moved>,
    ) -> Result<()> {
        let blobs = repo.group().blobs();
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
                    jobs.push(Job::page(chain.clone()));
                }
            }
            pins.extend(self.run(repo, jobs, progress).await?);

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
            // An author may name a page again and again, and that level by level.
            let mut seen = HashSet::new();
            let mut files = Vec::new();
            for chain in std::mem::take(&mut new) {
                if level > 0 {
                    for child in children(blobs, last(&chain), level).await? {
                        if let Part::Sequence { .. } = child.part
                            && seen.insert(child.hash)
                        {
                            let mut chain = chain.clone();
                            chain.push(child.hash);
                            below.push(chain);
                        }
                    }
                    continue;
                }
                let mut named = wanted_of(repo, last(&chain), wants).await?;
                if wants.all() {
                    // A file of an old page is here.
                    named.retain(|file| !old_files.contains(&file.hash));
                }
                let longest = wants_at_most(repo, wants);
                if let Some(files_of) = Files::missing(blobs, chain, named, longest).await? {
                    let (count, bytes) = files_of.sum();
                    progress.expect(count, bytes);
                    files.push(files_of);
                }
            }
            pins.extend(self.fetch_files(repo, files, progress).await?);
            (new, old) = (below, old_below);
        }
        drop(pins);
        Ok(())
    }

    /// Fetches what of these files is not here.
    async fn fetch_files(
        &self,
        repo: &Repo,
        mut files: Vec<Files>,
        progress: &Arc<Moved>,
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
            pins.extend(self.run(repo, jobs, progress).await?);
            let mut left = Vec::new();
            for known in files {
                left.extend(known.still_missing(repo.group().blobs()).await?);
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
        let file = Named {
            offset,
            hash: entry.blob,
            len: Some(sealed_len(entry.size)),
            coming: Some(Coming::new(Name::new(path)?, sealed_len(entry.size))),
        };
        let missing = Files::missing(group.blobs(), chain, [file], u64::MAX).await?;
        // From now on the tree keeps it.
        let files = missing.into_iter().collect();
        drop(self.fetch_files(repo, files, &Arc::default()).await?);
        Ok(entry)
    }
}

/// How long a file is at most that is wanted, where that does not show in its page.
fn wants_at_most(repo: &Repo, wants: &Wants) -> u64 {
    match repo.group().keys().read() {
        Some(_) => u64::MAX,
        None => wants.longest_sealed(),
    }
}

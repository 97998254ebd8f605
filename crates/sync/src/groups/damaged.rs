//! Files that this device has, as its index says, and could not read.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use store_api::RecordId;
use store_engine::Hash;

use super::local::Place;

/// The most files of which it is remembered, over all repos.
const MAX_DAMAGED: usize = 4096;

/// Which files could not be read, until somebody stores them again or the program ends.
#[derive(Debug, Default)]
pub(crate) struct Damaged(Mutex<BTreeMap<(RecordId, Place), Hash>>);

impl Damaged {
    fn all(&self) -> MutexGuard<'_, BTreeMap<(RecordId, Place), Hash>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a file. Says whether that is news.
    pub(crate) fn note(&self, repo: RecordId, place: Place, blob: Hash) -> bool {
        let mut all = self.all();
        all.len() < MAX_DAMAGED && all.insert((repo, place), blob).is_none()
    }

    /// The blob can be read. Says whether that is news.
    pub(crate) fn forget(&self, blob: Hash) -> bool {
        let mut all = self.all();
        let before = all.len();
        all.retain(|_, damaged| *damaged != blob);
        all.len() < before
    }

    /// Whether any file of a repo could not be read.
    pub(crate) fn has(&self, repo: RecordId) -> bool {
        self.all().keys().any(|(of, _)| *of == repo)
    }

    /// Those in the tree of a repo that has this root, with their blobs.
    pub(crate) fn of(&self, repo: RecordId, root: Hash) -> Vec<(Place, Hash)> {
        let all = self.all();
        let of_repo = all.iter().filter(|((of, _), _)| *of == repo);
        let places = of_repo.map(|((_, place), blob)| (place.clone(), *blob));
        places
            .filter(|(place, _)| place.chain.first() == Some(&root))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_known_until_it_is_whole() {
        let damaged = Damaged::default();
        let (repo, root) = (RecordId([1; 32]), Hash::of("root"));
        let place = |root, offset| Place {
            chain: vec![root],
            offset,
        };
        assert!(damaged.note(repo, place(root, 2), Hash::of("a")));
        assert!(!damaged.note(repo, place(root, 2), Hash::of("a")));
        assert!(damaged.note(repo, place(Hash::of("older"), 2), Hash::of("a")));
        assert!(damaged.note(RecordId([2; 32]), place(root, 3), Hash::of("b")));
        assert_eq!(damaged.of(repo, root), [(place(root, 2), Hash::of("a"))]);
        assert!(damaged.has(repo) && !damaged.has(RecordId([3; 32])));
        assert!(damaged.forget(Hash::of("a")));
        assert!(!damaged.forget(Hash::of("a")));
        assert_eq!(damaged.of(repo, root), []);
        for offset in 0..2 * MAX_DAMAGED as u32 {
            damaged.note(repo, place(root, offset), Hash::of("c"));
        }
        assert_eq!(damaged.all().len(), MAX_DAMAGED);
    }
}

//! Finds the files of a folder, and says what it left out.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{SystemTime, UNIX_EPOCH},
};

use larder_store_api::{Error, Kind, Result, is_out_of_descriptors};
use serde::{Deserialize, Serialize};

use super::{
    LeftOut, LeftOutItem, OPERATION, Observer, Reason, blocking, cannot_read, is_temporary,
    names::check_len, stores::OpenStores,
};

/// The file that marks a folder as a cache (<https://bford.info/cachedir/>), and how it begins.
const CACHE_TAG: (&str, &[u8]) = (
    "CACHEDIR.TAG",
    b"Signature: 8a477f597d28d172789f06886806bc55",
);

/// The options for walking a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WalkOptions {
    /// Take folders that are marked as caches too.
    pub include_caches: bool,
    /// End with an error at the first item that cannot be read, instead of leaving it out.
    pub fail_fast: bool,
    /// Folders of open stores, which are left out by whatever path they are reached.
    pub open_stores: Vec<PathBuf>,
}

/// A file that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Found {
    /// The path of the file.
    pub path: PathBuf,
    /// Its name: the path within the folder, with `/`.
    pub name: String,
    /// Its length when it was found, in bytes.
    pub size: u64,
    /// The time at which it was last written, in milliseconds since 1970; 0 if the system does not know it.
    pub modified: i64,
}

impl Found {
    /// Looks at one file.
    ///
    /// # Errors
    /// Those of the system.
    pub fn look(path: impl Into<PathBuf>, name: impl Into<String>) -> Result<Self> {
        let path = path.into();
        let metadata = fs::metadata(&path).map_err(|error| cannot_read(&path, error))?;
        Ok(Self::new(path, name.into(), &metadata))
    }

    /// Returns true if the file still has the length and time with which it was found.
    pub fn is_unchanged(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| {
            let modified = metadata.modified().map_or(0, millis);
            (metadata.len(), modified) == (self.size, self.modified)
        })
    }

    pub(super) fn new(path: PathBuf, name: String, metadata: &fs::Metadata) -> Self {
        Self {
            path,
            name,
            size: metadata.len(),
            modified: metadata.modified().map_or(0, millis),
        }
    }
}

/// The files of a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Walk {
    /// The files, ascending by the bytes of their names.
    pub files: Vec<Found>,
    /// The items that were left out.
    pub left_out: LeftOut,
    /// The names of the files and folders that were left out, or could not be read: whatever lies there is not known.
    pub unknown: Vec<String>,
    /// The names of the folders without any entry. One may be where a disk is not mounted.
    pub empty: Vec<String>,
}

impl Walk {
    /// Returns the length of all files, in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// Finds the files of `root`, as deep as it goes. Links in it are not followed. Memory grows with the number of
/// files.
///
/// # Errors
/// Those of reading `root` itself, and of any item with [`fail_fast`](WalkOptions::fail_fast); [`Kind::Invalid`]
/// if it lies in an open store; [`Kind::Unavailable`] if the process can open no more files.
pub async fn walk(root: &Path, options: &WalkOptions, observer: &Observer) -> Result<Walk> {
    // Dropped with this future, which ends the work.
    let wanted = Arc::new(());
    let mut walker = Walker {
        options: options.clone(),
        stores: OpenStores::default(),
        observer: observer.clone(),
        walk: Walk::default(),
        folders: vec![(root.to_owned(), String::new())],
        wanted: Arc::downgrade(&wanted),
    };
    let root = root.to_owned();
    blocking(move || {
        walker.stores = OpenStores::new(&walker.options.open_stores);
        walker.stores.check_outside(&root)?;
        walker.run()
    })
    .await
}

struct Walker {
    options: WalkOptions,
    stores: OpenStores,
    observer: Observer,
    walk: Walk,
    folders: Vec<(PathBuf, String)>,
    wanted: Weak<()>,
}

impl Walker {
    fn run(mut self) -> Result<Walk> {
        while let Some((folder, prefix)) = self.folders.pop() {
            if self.wanted.strong_count() == 0 {
                return Err(Error::new(Kind::Closed, OPERATION, "nobody waits for it"));
            }
            match self.visit(&folder, &prefix) {
                Err(error) if !prefix.is_empty() => self.unreadable(&folder, &prefix, error)?,
                visited => visited?,
            }
        }
        self.walk.files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(self.walk)
    }

    fn visit(&mut self, folder: &Path, prefix: &str) -> Result<()> {
        if !prefix.is_empty() {
            if self.stores.have(folder)? {
                self.leave_out_name(folder, prefix, Reason::OpenStore);
                return Ok(());
            }
            if !self.options.include_caches && is_cache(folder)? {
                self.leave_out_name(folder, prefix, Reason::Cache);
                return Ok(());
            }
        }
        let fail = |error| cannot_read(folder, error);
        let mut empty = true;
        for entry in fs::read_dir(folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            empty = false;
            self.visit_entry(&entry, prefix)?;
        }
        if empty && !prefix.is_empty() {
            self.leave_out(folder, Reason::EmptyFolder);
            self.walk.empty.push(prefix.to_owned());
        }
        Ok(())
    }

    fn visit_entry(&mut self, entry: &fs::DirEntry, prefix: &str) -> Result<()> {
        let path = entry.path();
        let file_name = entry.file_name();
        let joined = |own: &str| match prefix {
            "" => own.to_owned(),
            prefix => format!("{prefix}/{own}"),
        };
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(error) => {
                let name = joined(&file_name.to_string_lossy());
                return self.unreadable(&path, &name, cannot_read(&path, error));
            }
        };
        let left_out = match kind {
            kind if kind.is_symlink() => Some(Reason::Symlink),
            kind if !kind.is_dir() && !kind.is_file() => Some(Reason::Special),
            kind if kind.is_file() && is_temporary(&file_name) => Some(Reason::Temporary),
            _ => None,
        };
        if let Some(reason) = left_out {
            self.leave_out_name(&path, &joined(&file_name.to_string_lossy()), reason);
            return Ok(());
        }
        let Some(own) = file_name.to_str() else {
            let message = format!("{}: the name is not Unicode: rename it", path.display());
            return self.bad_name(&path, Reason::NotUnicode, message);
        };
        let name = joined(own);
        if let Err(reason) = check_len(&name) {
            let message = format!("{}: the name is too long: shorten it", path.display());
            return self.bad_name(&path, reason, message);
        }
        if kind.is_dir() {
            self.folders.push((path, name));
            return Ok(());
        }
        match entry.metadata() {
            Ok(metadata) => self.walk.files.push(Found::new(path, name, &metadata)),
            Err(error) => {
                let error = cannot_read(&path, error);
                self.unreadable(&path, &name, error)?;
            }
        }
        Ok(())
    }

    fn leave_out(&mut self, path: &Path, reason: Reason) {
        let item = LeftOutItem::new(path.to_string_lossy(), reason);
        self.observer.leave_out(&mut self.walk.left_out, item);
    }

    /// Leaves out an item of this name: whatever lies there is not known.
    fn leave_out_name(&mut self, path: &Path, name: &str, reason: Reason) {
        self.leave_out(path, reason);
        self.walk.unknown.push(name.to_owned());
    }

    fn bad_name(&mut self, path: &Path, reason: Reason, message: String) -> Result<()> {
        if self.options.fail_fast {
            return Err(Error::new(Kind::Invalid, OPERATION, message));
        }
        self.leave_out(path, reason);
        Ok(())
    }

    /// Leaves out a file or folder that cannot be read. A process that can open no more files has read nothing.
    fn unreadable(&mut self, path: &Path, name: &str, error: Error) -> Result<()> {
        if self.options.fail_fast || is_out_of_descriptors(&error) {
            return Err(error);
        }
        let item = LeftOutItem::new(path.to_string_lossy(), Reason::Unreadable).because(&error);
        self.observer.leave_out(&mut self.walk.left_out, item);
        self.walk.unknown.push(name.to_owned());
        Ok(())
    }
}

/// Returns true if a folder is marked as a cache. One whose mark cannot be read is not.
fn is_cache(folder: &Path) -> Result<bool> {
    let mut start = [0; CACHE_TAG.1.len()];
    let read = fs::File::open(folder.join(CACHE_TAG.0))
        .and_then(|mut file| io::Read::read_exact(&mut file, &mut start));
    match read {
        Err(error) if is_out_of_descriptors(&error) => Err(cannot_read(folder, error)),
        read => Ok(read.is_ok() && start == CACHE_TAG.1),
    }
}

/// Returns a time in milliseconds since 1970.
fn millis(time: SystemTime) -> i64 {
    let millis = |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => millis(since),
        Err(before) => -millis(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(walk: &Walk) -> Vec<&str> {
        walk.files.iter().map(|file| file.name.as_str()).collect()
    }

    async fn walk_with(root: &Path, options: &WalkOptions) -> Result<Walk> {
        walk(root, options, &Observer::none()).await
    }

    #[tokio::test]
    async fn files_come_sorted_by_name_with_their_size() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("b/c")).unwrap();
        for name in ["b/z", "a", "b/c/x", "b.txt", "ü"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let walk = walk_with(dir.path(), &WalkOptions::default())
            .await
            .unwrap();
        assert_eq!(names(&walk), ["a", "b.txt", "b/c/x", "b/z", "ü"]);
        assert_eq!(walk.size(), 1 + 5 + 5 + 3 + 2);
        assert_eq!(walk.left_out.count(), 0);
    }

    #[tokio::test]
    async fn items_that_are_left_out_are_counted_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        let store = dir.path().join("store");
        for folder in [&cache, &store, &dir.path().join("empty")] {
            fs::create_dir(folder).unwrap();
        }
        let tag = format!("{}\n# a cache\n", str::from_utf8(CACHE_TAG.1).unwrap());
        fs::write(cache.join(CACHE_TAG.0), tag).unwrap();
        fs::write(store.join("x"), "x").unwrap();
        fs::write(dir.path().join("a"), "a").unwrap();
        let mut options = WalkOptions {
            open_stores: vec![store.clone()],
            ..WalkOptions::default()
        };
        let found = walk_with(dir.path(), &options).await.unwrap();
        assert_eq!(names(&found), ["a"]);
        let mut items: Vec<_> = found.left_out.items.iter().collect();
        items.sort_by_key(|item| item.reason);
        assert_eq!(
            items.iter().map(|item| item.reason).collect::<Vec<_>>(),
            [Reason::EmptyFolder, Reason::Cache, Reason::OpenStore]
        );
        assert_eq!(items[2].path, store.to_string_lossy());
        assert_eq!(found.left_out.failures(), 0);
        options.include_caches = true;
        let found = walk_with(dir.path(), &options).await.unwrap();
        assert_eq!(names(&found), ["a", "cache/CACHEDIR.TAG"]);
        // A folder that was named is taken, whatever it is marked as; but no open store, nor a part of one.
        let found = walk_with(&cache, &WalkOptions::default()).await.unwrap();
        assert_eq!(names(&found), [CACHE_TAG.0]);
        fs::create_dir(store.join("payload")).unwrap();
        for inside in [store.clone(), store.join("payload"), store.join("../store")] {
            let error = walk_with(&inside, &options).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn links_are_not_followed_and_special_files_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("dangling")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let found = walk_with(dir.path(), &WalkOptions::default())
            .await
            .unwrap();
        drop(socket);
        assert!(found.files.is_empty());
        assert_eq!(found.left_out.of(Reason::Symlink), 2);
        assert_eq!(found.left_out.of(Reason::Special), 1);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn bad_names_are_left_out_or_end_it() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
        fs::write(dir.path().join(name), "x").unwrap();
        let mut options = WalkOptions::default();
        let found = walk_with(dir.path(), &options).await.unwrap();
        assert_eq!(found.left_out.of(Reason::NotUnicode), 1);
        assert_eq!(found.left_out.failures(), 1);
        options.fail_fast = true;
        let error = walk_with(dir.path(), &options).await.unwrap_err();
        assert!(error.message().ends_with("not Unicode: rename it"));
    }

    #[tokio::test]
    async fn a_missing_folder_is_named() {
        let error = walk_with(Path::new("/no/such/folder"), &WalkOptions::default())
            .await
            .unwrap_err();
        assert_eq!(error.message(), "cannot read /no/such/folder");
        assert_eq!(error.kind(), Kind::NotFound);
    }
}

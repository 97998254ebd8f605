//! Finds the files of a folder, and says what it left out.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result, bail};
use larder::api::is_out_of_descriptors;
use serde::Serialize;

/// The file that marks a folder as a cache (<https://bford.info/cachedir/>), and how it begins.
const CACHE_TAG: (&str, &[u8]) = (
    "CACHEDIR.TAG",
    b"Signature: 8a477f597d28d172789f06886806bc55",
);

/// The options for items that can be left out.
#[derive(Debug, Clone, Default)]
pub(crate) struct WalkOptions {
    /// Take folders that are marked as caches too.
    pub(crate) include_caches: bool,
    /// Leave out what cannot be read, instead of failing.
    pub(crate) skip_unreadable: bool,
    /// Folders that are never entered: a store that is open must not be added to itself.
    pub(crate) never: Vec<PathBuf>,
}

impl WalkOptions {
    /// Returns true if the item that failed may be left out. A process that can open no more files
    /// has read nothing.
    fn may_skip(&self, error: &anyhow::Error) -> bool {
        self.skip_unreadable && !error.chain().any(is_out_of_descriptors)
    }
}

/// A file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The path of the file.
    pub(crate) path: PathBuf,
    /// Its name: the path within the folder, with `/`.
    pub(crate) name: String,
    /// Its length when it was found, in bytes.
    pub(crate) size: u64,
    /// The time at which it was written last, if the system knows it.
    pub(crate) modified: Option<SystemTime>,
}

/// The numbers of items that were left out, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Skipped {
    /// Symbolic links; they are not followed.
    pub(crate) symlinks: u64,
    /// Sockets, devices and pipes.
    pub(crate) special: u64,
    /// Folders without any entry: a collection has names of files only.
    pub(crate) empty_folders: u64,
    /// Folders that are marked as caches.
    pub(crate) caches: u64,
    /// Open stores of ours.
    pub(crate) stores: u64,
    /// The number of items that could not be read, or have a name that is not Unicode, if that was
    /// allowed.
    pub(crate) unreadable: u64,
}

impl Skipped {
    /// In words, or `None` where nothing was left out.
    pub(crate) fn summary(&self) -> Option<String> {
        let parts: Vec<_> = [
            (self.symlinks, "symbolic link(s)"),
            (self.special, "special file(s)"),
            (self.empty_folders, "empty folder(s)"),
            (
                self.caches,
                "cache folder(s) marked by CACHEDIR.TAG (--include-caches takes them)",
            ),
            (self.stores, "folder(s) of an open store"),
            (self.unreadable, "unreadable file(s)"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        (!parts.is_empty()).then(|| format!("left out: {}", parts.join(", ")))
    }
}

/// The files of a folder.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// The files, ascending by the bytes of their names.
    pub(crate) files: Vec<Found>,
    /// The items that were left out.
    pub(crate) skipped: Skipped,
}

impl Walk {
    /// The length of all files, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// Finds the files of `root`, as deep as it goes. Blocks; memory grows with the number of files.
pub(crate) fn walk(root: &Path, options: &WalkOptions) -> Result<Walk> {
    let mut walk = Walk::default();
    let mut folders = vec![(root.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        if let Err(error) = visit(&folder, &prefix, options, &mut walk, &mut folders) {
            if !options.may_skip(&error) {
                return Err(error);
            }
            tracing::warn!(folder = %folder.display(), "left out: {error:#}");
            walk.skipped.unreadable += 1;
        }
    }
    walk.files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(walk)
}

fn visit(
    folder: &Path,
    prefix: &str,
    options: &WalkOptions,
    walk: &mut Walk,
    folders: &mut Vec<(PathBuf, String)>,
) -> Result<()> {
    if !prefix.is_empty() {
        if !options.include_caches && is_cache(folder)? {
            walk.skipped.caches += 1;
            return Ok(());
        }
        if !options.never.is_empty() {
            let real = fs::canonicalize(folder).with_context(|| cannot_read(folder))?;
            if options.never.contains(&real) {
                walk.skipped.stores += 1;
                return Ok(());
            }
        }
    }
    let mut empty = true;
    for entry in fs::read_dir(folder).with_context(|| cannot_read(folder))? {
        let entry = entry.with_context(|| cannot_read(folder))?;
        empty = false;
        if let Err(error) = visit_entry(&entry, prefix, walk, folders) {
            if !options.may_skip(&error) {
                return Err(error);
            }
            tracing::warn!(path = %entry.path().display(), "left out: {error:#}");
            walk.skipped.unreadable += 1;
        }
    }
    if empty && !prefix.is_empty() {
        walk.skipped.empty_folders += 1;
    }
    Ok(())
}

fn visit_entry(
    entry: &fs::DirEntry,
    prefix: &str,
    walk: &mut Walk,
    folders: &mut Vec<(PathBuf, String)>,
) -> Result<()> {
    let path = entry.path();
    let kind = entry.file_type().with_context(|| cannot_read(&path))?;
    if kind.is_symlink() {
        walk.skipped.symlinks += 1;
        return Ok(());
    }
    if !kind.is_dir() && !kind.is_file() {
        walk.skipped.special += 1;
        return Ok(());
    }
    let Some(own) = entry.file_name().to_str().map(str::to_owned) else {
        bail!("{}: the name is not Unicode: rename it", path.display());
    };
    let name = if prefix.is_empty() {
        own
    } else {
        format!("{prefix}/{own}")
    };
    if kind.is_dir() {
        folders.push((path, name));
    } else {
        let metadata = entry.metadata().with_context(|| cannot_read(&path))?;
        walk.files.push(Found {
            path,
            name,
            size: metadata.len(),
            modified: metadata.modified().ok(),
        });
    }
    Ok(())
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

/// Returns true if a folder is marked as a cache. One whose mark cannot be read is not.
fn is_cache(folder: &Path) -> Result<bool> {
    let mut start = [0; CACHE_TAG.1.len()];
    let read = fs::File::open(folder.join(CACHE_TAG.0))
        .and_then(|mut file| io::Read::read_exact(&mut file, &mut start));
    match read {
        Err(error) if is_out_of_descriptors(&error) => {
            Err(error).with_context(|| cannot_read(folder))
        }
        read => Ok(read.is_ok() && start == CACHE_TAG.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(walk: &Walk) -> Vec<&str> {
        walk.files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn files_come_sorted_by_name_with_their_size() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("b/c")).unwrap();
        for name in ["b/z", "a", "b/c/x", "b.txt", "ü"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let walk = walk(dir.path(), &WalkOptions::default()).unwrap();
        assert_eq!(names(&walk), ["a", "b.txt", "b/c/x", "b/z", "ü"]);
        assert_eq!(walk.size(), 1 + 5 + 5 + 3 + 2);
        assert_eq!(walk.skipped.summary(), None);
    }

    #[test]
    fn what_is_left_out_is_counted() {
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
            never: vec![fs::canonicalize(&store).unwrap()],
            ..WalkOptions::default()
        };
        let found = walk(dir.path(), &options).unwrap();
        assert_eq!(names(&found), ["a"]);
        assert_eq!(
            found.skipped.summary().unwrap(),
            "left out: 1 empty folder(s), 1 cache folder(s) marked by CACHEDIR.TAG \
             (--include-caches takes them), 1 folder(s) of an open store"
        );
        options.include_caches = true;
        let found = walk(dir.path(), &options).unwrap();
        assert_eq!(names(&found), ["a", "cache/CACHEDIR.TAG"]);
        // A folder that was named is taken, whatever it is marked as.
        let found = walk(&cache, &WalkOptions::default()).unwrap();
        assert_eq!(names(&found), [CACHE_TAG.0]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed_and_special_files_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("dangling")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let found = walk(dir.path(), &WalkOptions::default()).unwrap();
        drop(socket);
        assert!(found.files.is_empty());
        assert_eq!((found.skipped.symlinks, found.skipped.special), (2, 1));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_that_is_not_unicode_is_refused_or_left_out() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
        fs::write(dir.path().join(name), "x").unwrap();
        let mut options = WalkOptions::default();
        let error = walk(dir.path(), &options).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("the name is not Unicode: rename it")
        );
        options.skip_unreadable = true;
        assert_eq!(walk(dir.path(), &options).unwrap().skipped.unreadable, 1);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = walk(Path::new("/no/such/folder"), &WalkOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /no/such/folder");
    }
}

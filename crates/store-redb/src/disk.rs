//! The operating system's functions that this crate needs: positional reads and writes, durable
//! directories, and a bounded cache of open files.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File, OpenOptions},
    hash::Hash,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use larder_descriptors::{Descriptors, Permit};
use larder_store_api::{Error, Result};

/// Locks; a panic elsewhere while it was held left nothing half done that matters here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fills `buffer` from `offset` on.
pub(crate) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            match std::os::windows::fs::FileExt::seek_read(file, &mut buffer[done..], at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Writes all of `bytes` from `offset` on.
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, bytes, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            match std::os::windows::fs::FileExt::seek_write(file, &bytes[done..], at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Opens for reading and writing, creating the file where it is absent.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path)
}

/// Makes the names in a directory survive the loss of power.
pub(crate) fn sync_dir(operation: &'static str, dir: &Path) -> Result<()> {
    // Directories can be opened and synced only on Unix; elsewhere the file system sees to it.
    #[cfg(unix)]
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| Error::io(operation, dir, error))?;
    Ok(())
}

/// Creates a directory where it is absent.
pub(crate) fn create_dir(operation: &'static str, dir: &Path) -> Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::io(operation, dir, error))
        }
        _ => Ok(()),
    }
}

/// Gives a file a second name, or copies it where the file system has no such thing.
pub(crate) fn keep_as(operation: &'static str, path: &Path, name: &Path) -> Result<()> {
    remove_file(operation, name)?;
    fs::hard_link(path, name)
        .or_else(|_| fs::copy(path, name).map(drop))
        .map_err(|error| Error::io(operation, name, error))
}

/// Removes a file; no error where it is absent.
pub(crate) fn remove_file(operation: &'static str, path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(operation, path, error))
        }
        _ => Ok(()),
    }
}

/// A bounded cache of open files by name. The file that was not used for longest makes room. Each has
/// a permit of the process's budget; where that has none left, the cache keeps fewer files.
#[derive(Debug)]
pub(crate) struct Handles<K> {
    limit: usize,
    descriptors: Arc<Descriptors>,
    inner: Mutex<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    files: HashMap<K, Kept>,
    /// In the order of the second-chance clock: used ones are passed over once.
    clock: VecDeque<K>,
}

/// An open file in the cache.
#[derive(Debug)]
struct Kept {
    file: Arc<File>,
    used: bool,
    permit: Permit,
}

impl<K: Copy + Eq + Hash> Handles<K> {
    /// Returns an empty cache that keeps at most `limit` files, and fewer where the budget is small.
    pub(crate) fn new(limit: usize, descriptors: Arc<Descriptors>) -> Self {
        let inner = Inner {
            files: HashMap::new(),
            clock: VecDeque::new(),
        };
        Self {
            limit: limit.min(descriptors.most_kept()),
            descriptors,
            inner: Mutex::new(inner),
        }
    }

    pub(crate) fn get(&self, key: K) -> Option<Arc<File>> {
        let mut inner = lock(&self.inner);
        let kept = inner.files.get_mut(&key)?;
        kept.used = true;
        Some(Arc::clone(&kept.file))
    }

    /// Keeps a file, in place of an older one where there is no room. A file that cannot be kept,
    /// because other caches have every permit, is closed after its use.
    pub(crate) fn insert(&self, key: K, file: Arc<File>) {
        // Dropped after the lock: closing a file can take long.
        let mut closed = None;
        let mut inner = lock(&self.inner);
        if let Some(kept) = inner.files.get_mut(&key) {
            closed = Some(std::mem::replace(&mut kept.file, file));
        } else {
            let has_room = inner.files.len() < self.limit;
            let free = has_room.then(|| self.descriptors.keep()).flatten();
            let permit = free.or_else(|| {
                let oldest = inner.take_oldest()?;
                closed = Some(oldest.file);
                Some(oldest.permit)
            });
            if let Some(permit) = permit {
                let kept = Kept {
                    file,
                    used: false,
                    permit,
                };
                inner.files.insert(key, kept);
                inner.clock.push_back(key);
            }
        }
        drop(inner);
        drop(closed);
    }

    pub(crate) fn remove(&self, key: K) {
        let mut inner = lock(&self.inner);
        let closed = inner.files.remove(&key);
        if closed.is_some() {
            inner.clock.retain(|other| *other != key);
        }
        drop(inner);
        drop(closed);
    }

    pub(crate) fn clear(&self) {
        let mut inner = lock(&self.inner);
        inner.clock.clear();
        let closed = std::mem::take(&mut inner.files);
        drop(inner);
        drop(closed);
    }
}

impl<K: Copy + Eq + Hash> Inner<K> {
    /// Takes out the file that was not used for longest; `None` if there is none.
    fn take_oldest(&mut self) -> Option<Kept> {
        while let Some(oldest) = self.clock.pop_front() {
            match self.files.get_mut(&oldest) {
                Some(kept) if kept.used => {
                    kept.used = false;
                    self.clock.push_back(oldest);
                }
                Some(_) => return self.files.remove(&oldest),
                None => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<File> {
        Arc::new(tempfile::tempfile().expect("a file"))
    }

    #[test]
    fn a_cache_keeps_its_share_and_what_is_used_stays() {
        let descriptors = Arc::new(Descriptors::new(1024));
        let share = descriptors.most_kept();
        let handles = Handles::new(usize::MAX, Arc::clone(&descriptors));
        handles.insert(0, file());
        for key in 1..2 * share {
            handles.insert(key, file());
            assert!(handles.get(0).is_some(), "{key}: it is used all the time");
        }
        let kept = (0..2 * share).filter(|key| handles.get(*key).is_some());
        assert_eq!(kept.count(), share);
        assert!(handles.get(share / 2).is_none(), "an old one made room");
    }

    #[test]
    fn caches_share_what_there_is_and_work_without() {
        let descriptors = Arc::new(Descriptors::new(larder_descriptors::SMALLEST_LIMIT));
        let others: Vec<_> = std::iter::from_fn(|| descriptors.keep()).collect();
        let handles = Handles::new(8, Arc::clone(&descriptors));
        handles.insert(1, file());
        assert!(handles.get(1).is_none(), "nothing is free");
        drop(others);
        handles.insert(1, file());
        assert!(handles.get(1).is_some());
        let others: Vec<_> = std::iter::from_fn(|| descriptors.keep()).collect();
        handles.insert(2, file());
        assert!(handles.get(1).is_none(), "its permit is the next one's");
        assert!(handles.get(2).is_some());
        handles.remove(2);
        assert!(descriptors.keep().is_some(), "it was given back");
        handles.insert(3, file());
        handles.clear();
        let freed: Vec<_> = std::iter::from_fn(|| descriptors.keep()).collect();
        assert_eq!(freed.len() + others.len(), 8);
    }

    #[test]
    fn a_file_that_is_kept_again_takes_no_second_permit() {
        let descriptors = Arc::new(Descriptors::new(larder_descriptors::SMALLEST_LIMIT));
        let handles = Handles::new(8, Arc::clone(&descriptors));
        handles.insert(1, file());
        handles.insert(1, file());
        let rest: Vec<_> = std::iter::from_fn(|| descriptors.keep()).collect();
        assert_eq!(rest.len(), 7);
    }
}

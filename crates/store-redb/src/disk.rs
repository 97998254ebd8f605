//! What this crate asks of the operating system: positional reads and writes, durable directories,
//! and a bounded cache of open files.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File, OpenOptions},
    hash::Hash,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use store_api::{Error, Result};

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

/// Open files by name, at most `limit`; the one that was not used for longest makes room.
#[derive(Debug)]
pub(crate) struct Handles<K> {
    limit: usize,
    inner: Mutex<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    files: HashMap<K, (Arc<File>, bool)>,
    /// In the order of the second-chance clock: used ones are passed over once.
    clock: VecDeque<K>,
}

impl<K: Copy + Eq + Hash> Handles<K> {
    pub(crate) fn new(limit: usize) -> Self {
        let inner = Inner {
            files: HashMap::new(),
            clock: VecDeque::new(),
        };
        Self {
            limit,
            inner: Mutex::new(inner),
        }
    }

    pub(crate) fn get(&self, key: K) -> Option<Arc<File>> {
        let mut inner = lock(&self.inner);
        let (file, used) = inner.files.get_mut(&key)?;
        *used = true;
        Some(Arc::clone(file))
    }

    pub(crate) fn insert(&self, key: K, file: Arc<File>) {
        // Dropped after the lock: closing a file can take long.
        let mut closed = None;
        let mut inner = lock(&self.inner);
        if let Some(old) = inner.files.insert(key, (file, false)) {
            closed.replace(old.0);
        } else {
            inner.clock.push_back(key);
        }
        while inner.files.len() > self.limit {
            let Some(oldest) = inner.clock.pop_front() else {
                break;
            };
            match inner.files.get_mut(&oldest) {
                Some((_, used)) if *used => {
                    *used = false;
                    inner.clock.push_back(oldest);
                }
                _ => {
                    closed = inner.files.remove(&oldest).map(|(file, _)| file).or(closed);
                }
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

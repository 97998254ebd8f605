//! The store's folder: what says that it is one, and who has it open.

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Mutex,
};

use larder_store_api::{Error, Kind, Result, private};

use crate::{disk, log::Log};

/// The file that names the format. Its version changes when an older program could not read the
/// folder any more.
const FORMAT_FILE: &str = "FORMAT";
const FORMAT_NAME: &str = "larder redb";
const FORMAT_VERSION: u32 = 1;
const LOCK_FILE: &str = "lock";
const OPEN: &str = "store.open";

/// The message for a FORMAT file that does not say what the folder's log says.
const DAMAGED: &str =
    "the file FORMAT of this store is damaged or missing; run a repair, which writes it again";

/// The folders that this process has open for writing.
static OPEN_HERE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A store's folder, locked until this is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: Lock,
}

/// Says if a store's folder is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Write,
    /// Nothing in it is changed.
    Read,
}

/// The content of a folder, as far as its FORMAT file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Nothing says that it is a store.
    Unknown,
    /// The log of a store, whose FORMAT file is damaged or missing.
    Damaged,
    /// A store of this version.
    Store,
}

impl Folder {
    /// Opens the folder, and makes an absent or empty one a store.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        private::dir_builder()
            .recursive(true)
            .create(path)
            .map_err(|error| Error::io(OPEN, path, error))?;
        // Looked at before anything is created in a folder that may be somebody else's.
        match content(path)? {
            Content::Store => {}
            Content::Unknown => check_empty(path)?,
            Content::Damaged => return Err(damaged_format(path)),
        }
        Self::make(path)
    }

    fn make(path: &Path) -> Result<Self> {
        let lock = Lock::take(path)?;
        // Another process may have made the folder a store since.
        if content(path)? != Content::Store {
            write_format(path)?;
        }
        for dir in ["log", "payload"] {
            disk::create_dir(OPEN, &path.join(dir))?;
        }
        // Also where nothing is new: a crash may have come before this the last time.
        disk::sync_dir(OPEN, path)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Opens the folder of a store that is there; a FORMAT file that is damaged or missing is written again.
    pub(crate) fn open_existing(path: &Path) -> Result<Self> {
        if content(path)? == Content::Unknown {
            let message = "there is no Larder store in this folder";
            return Err(Error::new(Kind::Invalid, OPEN, message).with("path", path.display()));
        }
        Self::make(path)
    }

    /// Opens the folder of a store that is there, in which nothing is written.
    pub(crate) fn open_to_read(path: &Path) -> Result<Self> {
        match content(path)? {
            Content::Store => {}
            Content::Damaged => return Err(damaged_format(path)),
            Content::Unknown => {
                let message = "there is no Larder store in this folder, and none can be made";
                return Err(Error::new(Kind::NotFound, OPEN, message).with("path", path.display()));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: Lock::share(path)?,
        })
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(crate) fn payload(&self) -> PathBuf {
        self.path.join("payload")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.path.join("index.redb")
    }

    /// Returns the path of the file whose presence says that the index was found to be damaged.
    pub(crate) fn damaged_index(&self) -> PathBuf {
        self.path.join("index.damaged")
    }
}

/// Says what is in the folder. Another version, or another store, is an error.
fn content(path: &Path) -> Result<Content> {
    let file = path.join(FORMAT_FILE);
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::io(OPEN, &file, error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let version = text.trim_end().strip_prefix(FORMAT_NAME);
    let version = version.and_then(|version| version.trim_start().parse::<u32>().ok());
    match version {
        Some(FORMAT_VERSION) => Ok(Content::Store),
        Some(version) if version > FORMAT_VERSION => {
            let message = "this store was written by a newer version; update the program";
            Err(Error::new(Kind::Unsupported, OPEN, message)
                .with("path", path.display())
                .with("format", version)
                .with("supported", FORMAT_VERSION))
        }
        // Its log tells a store of ours from what is somebody else's.
        _ if has_log(path)? => Ok(Content::Damaged),
        _ if bytes.is_empty() => Ok(Content::Unknown),
        _ => {
            let message = "this folder holds another store";
            Err(Error::new(Kind::Invalid, OPEN, message).with("path", path.display()))
        }
    }
}

/// Returns true if the folder has a log that is ours.
fn has_log(path: &Path) -> Result<bool> {
    let log = path.join("log");
    match fs::metadata(&log) {
        Ok(data) if data.is_dir() => Log::is_one(&log),
        _ => Ok(false),
    }
}

fn damaged_format(path: &Path) -> Error {
    Error::new(Kind::Corrupt, OPEN, DAMAGED).with("path", path.join(FORMAT_FILE).display())
}

fn check_empty(path: &Path) -> Result<()> {
    let entries = fs::read_dir(path).map_err(|error| Error::io(OPEN, path, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Error::io(OPEN, path, error))?;
        // A crash, or another process, may have just locked the folder and not yet named it. A FORMAT file
        // that is here is empty.
        let leftovers = [LOCK_FILE, FORMAT_FILE, "FORMAT.new"];
        let is_ours = leftovers.iter().any(|name| entry.file_name() == *name)
            || ["log", "payload"]
                .iter()
                .any(|name| entry.file_name() == *name)
                && fs::read_dir(entry.path()).is_ok_and(|mut entries| entries.next().is_none());
        if !is_ours {
            let message = "this folder is not empty and holds no Larder store";
            return Err(Error::new(Kind::Invalid, OPEN, message).with("path", path.display()));
        }
    }
    Ok(())
}

/// Names the format in one step, so that a crash leaves the name whole or absent.
fn write_format(path: &Path) -> Result<()> {
    let new = path.join("FORMAT.new");
    let mut file = disk::create(&new).map_err(|error| Error::io(OPEN, &new, error))?;
    file.write_all(format!("{FORMAT_NAME} {FORMAT_VERSION}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&new, path.join(FORMAT_FILE)))
        .map_err(|error| Error::io(OPEN, &new, error))
}

/// The lock of a folder, held until this is dropped.
#[derive(Debug)]
struct Lock {
    /// `None` if the folder cannot be written and has no file to lock.
    file: Option<File>,
    /// The folder's name among those that this process has open.
    name: Option<PathBuf>,
}

impl Lock {
    /// Locks the folder for this process, or tells who has it.
    fn take(path: &Path) -> Result<Self> {
        let name = path.join(LOCK_FILE);
        let fail = |error| Error::io(OPEN, &name, error);
        let mut file = disk::open_or_create(&name).map_err(fail)?;
        let canonical = fs::canonicalize(path).map_err(|error| Error::io(OPEN, path, error))?;
        let mut here = disk::lock(&OPEN_HERE);
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(fail(error)),
            Err(TryLockError::WouldBlock) => {
                return Err(held(path, &mut file, here.contains(&canonical)));
            }
        }
        here.insert(canonical.clone());
        drop(here);
        // The holder's process id only helps people; on a full disk there is no room for it.
        let noted = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        if let Err(error) = noted {
            tracing::debug!(path = %name.display(), %error, "the lock does not say who holds it");
        }
        Ok(Self {
            file: Some(file),
            name: Some(canonical),
        })
    }

    /// Keeps others from writing, as far as the rights of this process go; several may read.
    fn share(path: &Path) -> Result<Self> {
        let name = path.join(LOCK_FILE);
        let fail = |error| Error::io(OPEN, &name, error);
        let mut file = match File::open(&name) {
            // Nobody had it open where it lies now.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self {
                    file: None,
                    name: None,
                });
            }
            other => other.map_err(fail)?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Self {
                file: Some(file),
                name: None,
            }),
            Err(TryLockError::Error(error)) => Err(fail(error)),
            Err(TryLockError::WouldBlock) => Err(held(path, &mut file, false)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut here = disk::lock(&OPEN_HERE);
        if let Some(name) = &self.name {
            here.remove(name);
        }
        // Closing it alone would leave the lock to a process that is just being started, until that runs its program.
        if let Some(file) = self.file.take()
            && let Err(error) = file.unlock()
        {
            tracing::debug!(%error, "the lock of a store is released as its file is closed");
        }
    }
}

/// Returns the error that says who has the folder.
fn held(path: &Path, file: &mut File, is_here: bool) -> Error {
    if is_here {
        let message = "this process already has the store open; use that handle, or close it first";
        return Error::new(Kind::Unavailable, OPEN, message).with("path", path.display());
    }
    let mut holder = String::new();
    // The holder's process id only helps people; the lock itself is what counts.
    if file.read_to_string(&mut holder).is_err() || holder.trim().is_empty() {
        holder = "unknown".to_owned();
    }
    let message = "another process has this store open; close it first";
    Error::new(Kind::Unavailable, OPEN, message)
        .with("path", path.display())
        .with("pid", holder.trim())
}

//! The store's folder: what says that it is one, and who has it open.

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use larder_store_api::{Error, Kind, Result};

use crate::disk;

/// The file that names the format. Its version changes when an older program could not read the
/// folder any more.
const FORMAT_FILE: &str = "FORMAT";
const FORMAT_NAME: &str = "larder redb";
const FORMAT_VERSION: u32 = 1;
const LOCK_FILE: &str = "lock";
const OPEN: &str = "store.open";

/// A store's folder, locked until this is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens the folder, and makes an absent or empty one a store.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|error| Error::io(OPEN, path, error))?;
        // Looked at before anything is created in a folder that may be somebody else's.
        let known = read_format(path)?;
        if !known {
            check_empty(path)?;
        }
        let lock = take_lock(path)?;
        // Another process may have made the folder a store since.
        if !read_format(path)? {
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

    /// The folder of a store that is there.
    pub(crate) fn open_existing(path: &Path) -> Result<Self> {
        if !read_format(path)? {
            let message = "there is no Larder store in this folder";
            return Err(Error::new(Kind::Invalid, OPEN, message).with("path", path.display()));
        }
        Self::open(path)
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(crate) fn payload(&self) -> PathBuf {
        self.path.join("payload")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.path.join("index.redb")
    }

    /// Returns the path of the file whose presence says that the index was found to be damaged.
    pub(crate) fn damaged_index(&self) -> PathBuf {
        self.path.join("index.damaged")
    }
}

/// Returns true if the folder says that it is a store of this version. Another version, or another
/// store, is an error.
fn read_format(path: &Path) -> Result<bool> {
    let file = path.join(FORMAT_FILE);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io(OPEN, &file, error)),
    };
    let not_ours = || {
        Error::new(Kind::Invalid, OPEN, "this folder holds another store")
            .with("path", path.display())
    };
    let version = text
        .trim_end()
        .strip_prefix(FORMAT_NAME)
        .ok_or_else(not_ours)?;
    let version: u32 = version.trim_start().parse().map_err(|_| not_ours())?;
    if version > FORMAT_VERSION {
        let message = "this store was written by a newer version; update the program";
        return Err(Error::new(Kind::Unsupported, OPEN, message)
            .with("path", path.display())
            .with("format", version)
            .with("supported", FORMAT_VERSION));
    }
    if version < FORMAT_VERSION {
        return Err(not_ours());
    }
    Ok(true)
}

fn check_empty(path: &Path) -> Result<()> {
    let entries = fs::read_dir(path).map_err(|error| Error::io(OPEN, path, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Error::io(OPEN, path, error))?;
        // A crash, or another process, may have just locked the folder and not yet named it.
        if entry.file_name() != LOCK_FILE && entry.file_name() != "FORMAT.new" {
            let message = "this folder is not empty and holds no Larder store";
            return Err(Error::new(Kind::Invalid, OPEN, message).with("path", path.display()));
        }
    }
    Ok(())
}

/// Names the format in one step, so that a crash leaves the name whole or absent.
fn write_format(path: &Path) -> Result<()> {
    let new = path.join("FORMAT.new");
    let mut file = File::create(&new).map_err(|error| Error::io(OPEN, &new, error))?;
    file.write_all(format!("{FORMAT_NAME} {FORMAT_VERSION}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&new, path.join(FORMAT_FILE)))
        .map_err(|error| Error::io(OPEN, &new, error))
}

/// Locks the folder for this process, or tells who has it.
fn take_lock(path: &Path) -> Result<File> {
    let name = path.join(LOCK_FILE);
    let fail = |error| Error::io(OPEN, &name, error);
    let mut file = disk::open_or_create(&name).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(fail(error)),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Who holds it is a help for people; that it is held is what counts.
            if file.read_to_string(&mut holder).is_err() || holder.trim().is_empty() {
                holder = "unknown".to_owned();
            }
            let message = "another process has this store open; close it first";
            return Err(Error::new(Kind::Unavailable, OPEN, message)
                .with("path", path.display())
                .with("pid", holder.trim()));
        }
    }
    file.set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
        .map_err(fail)?;
    Ok(file)
}

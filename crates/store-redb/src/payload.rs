//! Payloads as plain files: `payload/<first 15 bytes in hex>/<last byte in hex>.data` and
//! `.outboard`. Ids that follow each other share a folder.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use bytes::Bytes;
use larder_descriptors::Descriptors;
use larder_store_api::{Block, Error, GROUP_LEN, Kind, Part, PayloadId, Result};

use crate::disk::{self, Handles, lock};

/// The length of a block.
pub(crate) const BLOCK_LEN: u32 = GROUP_LEN as u32;
/// The longest part.
pub(crate) const MAX_PART_LEN: u64 = 1 << 43;
/// The most payload files that are kept open; fewer where the process may have few.
const OPEN_FILES: usize = 256;
/// The number of times that a write makes its folder again after a delete removed it meanwhile.
const FOLDER_RETRIES: usize = 16;

/// The payloads' folder.
#[derive(Debug)]
pub(crate) struct Payloads {
    dir: PathBuf,
    handles: Handles<(PayloadId, Part)>,
    /// Held while a file is looked up by name and its handle kept, and exclusively while a name and
    /// its handle are removed: a handle that is kept always has a name.
    names: RwLock<()>,
    /// Folders that got names since they were last synced, and how many.
    unsynced: Mutex<HashMap<PathBuf, u64>>,
}

/// More folders than this with unsynced names are synced at once.
const UNSYNCED_FOLDERS: usize = 4096;

fn part_name(part: Part) -> &'static str {
    match part {
        Part::Data => "data",
        Part::Outboard => "outboard",
    }
}

impl Payloads {
    pub(crate) fn new(dir: PathBuf, descriptors: Arc<Descriptors>) -> Self {
        Self {
            dir,
            handles: Handles::new(OPEN_FILES, descriptors),
            names: RwLock::default(),
            unsynced: Mutex::default(),
        }
    }

    fn folder(&self, id: PayloadId) -> PathBuf {
        let name = id.to_string();
        self.dir.join(&name[..30])
    }

    fn path(&self, id: PayloadId, part: Part) -> PathBuf {
        self.folder(id)
            .join(format!("{:02x}.{}", id.0[15], part_name(part)))
    }

    /// The file, or `None` if there is none.
    fn existing(
        &self,
        operation: &'static str,
        id: PayloadId,
        part: Part,
    ) -> Result<Option<Arc<File>>> {
        if let Some(file) = self.handles.get((id, part)) {
            return Ok(Some(file));
        }
        let _names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let path = self.path(id, part);
        match File::options().read(true).write(true).open(&path) {
            Ok(file) => Ok(Some(self.keep(id, part, file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(operation, &path, error)),
        }
    }

    /// The file to read from; what is on a disk that became read-only can still be read.
    fn readable(
        &self,
        operation: &'static str,
        id: PayloadId,
        part: Part,
    ) -> Result<Option<Arc<File>>> {
        match self.existing(operation, id, part) {
            Err(error) if error.kind() == Kind::Denied => match File::open(self.path(id, part)) {
                Ok(file) => Ok(Some(Arc::new(file))),
                Err(_) => Err(error),
            },
            other => other,
        }
    }

    fn keep(&self, id: PayloadId, part: Part, file: File) -> Arc<File> {
        let file = Arc::new(file);
        self.handles.insert((id, part), Arc::clone(&file));
        file
    }

    /// The file, which is created where it is absent.
    fn created(&self, id: PayloadId, part: Part) -> Result<Arc<File>> {
        const OPERATION: &str = "blobs.write";
        if let Some(file) = self.existing(OPERATION, id, part)? {
            return Ok(file);
        }
        let path = self.path(id, part);
        let folder = self.folder(id);
        let mut tries = 0;
        let file = loop {
            let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
            match disk::open_or_create(&path) {
                Ok(file) => break self.keep(id, part, file),
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < FOLDER_RETRIES => {
                    drop(names);
                    tries += 1;
                    disk::create_dir(OPERATION, &folder)?;
                    self.named_in(self.dir.clone());
                }
                Err(error) => return Err(Error::io(OPERATION, &path, error)),
            }
        };
        if self.named_in(folder) > UNSYNCED_FOLDERS {
            self.sync_folders(|_| true)?;
        }
        Ok(file)
    }

    /// Notes that a folder got a name; returns how many folders have unsynced ones.
    fn named_in(&self, folder: PathBuf) -> usize {
        let mut unsynced = lock(&self.unsynced);
        *unsynced.entry(folder).or_default() += 1;
        unsynced.len()
    }

    pub(crate) fn read(&self, id: PayloadId, part: Part, range: Range<u64>) -> Result<Bytes> {
        const OPERATION: &str = "blobs.read";
        let absent = || {
            Error::new(Kind::NotFound, OPERATION, "the payload has no such bytes")
                .with("payload", id)
                .with("part", part_name(part))
                .with("range", format!("{}..{}", range.start, range.end))
        };
        let file = self.readable(OPERATION, id, part)?.ok_or_else(absent)?;
        let fail = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => absent(),
            _ => Error::io(OPERATION, &self.path(id, part), error),
        };
        // A range that is much longer than the file is not worth memory.
        if range.end > MAX_PART_LEN || range.end - range.start > u64::from(BLOCK_LEN) * 4 {
            let len = file.metadata().map_err(fail)?.len();
            if range.end > len {
                return Err(absent());
            }
        }
        let len = usize::try_from(range.end - range.start).map_err(|_| absent())?;
        let mut bytes = vec![0; len];
        disk::read_exact_at(&file, &mut bytes, range.start).map_err(fail)?;
        Ok(bytes.into())
    }

    pub(crate) fn write(&self, id: PayloadId, blocks: &[Block]) -> Result<()> {
        for block in blocks {
            let file = self.created(id, block.part)?;
            let offset = block.index * u64::from(BLOCK_LEN);
            disk::write_all_at(&file, &block.bytes, offset).map_err(|error| {
                Error::io("blobs.write", &self.path(id, block.part), error).with("offset", offset)
            })?;
        }
        Ok(())
    }

    pub(crate) fn delete(&self, id: PayloadId) -> Result<()> {
        const OPERATION: &str = "blobs.delete";
        for part in [Part::Data, Part::Outboard] {
            let path = self.path(id, part);
            // Kept open until the names are unlocked: freeing the space of a large file takes long.
            let file = self
                .handles
                .get((id, part))
                .or_else(|| File::open(&path).ok().map(Arc::new));
            let names = self.names.write().unwrap_or_else(PoisonError::into_inner);
            disk::remove_file(OPERATION, &path)?;
            self.handles.remove((id, part));
            drop(names);
            drop(file);
        }
        let folder = self.folder(id);
        match fs::remove_dir(&folder) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Err(Error::io(OPERATION, &folder, error))
            }
            _ => Ok(()),
        }
    }

    /// Makes the files of `id` durable, though not yet their names.
    pub(crate) fn sync(&self, id: PayloadId) -> Result<()> {
        const OPERATION: &str = "blobs.sync";
        for part in [Part::Data, Part::Outboard] {
            if let Some(file) = self.readable(OPERATION, id, part)? {
                file.sync_data()
                    .map_err(|error| Error::io(OPERATION, &self.path(id, part), error))?;
            }
        }
        Ok(())
    }

    /// Makes the names of `ids` durable.
    pub(crate) fn sync_names(&self, ids: &[PayloadId]) -> Result<()> {
        let mut folders: HashSet<PathBuf> = ids.iter().map(|id| self.folder(*id)).collect();
        folders.insert(self.dir.clone());
        self.sync_folders(|folder| folders.contains(folder))
    }

    fn sync_folders(&self, wanted: impl Fn(&Path) -> bool) -> Result<()> {
        let all = lock(&self.unsynced).clone();
        for (folder, names) in all.into_iter().filter(|(folder, _)| wanted(folder)) {
            match disk::sync_dir("blobs.sync", &folder) {
                // It was removed, and with it all names in it.
                Err(error) if error.kind() == Kind::NotFound => {}
                other => other?,
            }
            let mut unsynced = lock(&self.unsynced);
            // A name that was added meanwhile needs another sync.
            if unsynced.get(&folder) == Some(&names) {
                unsynced.remove(&folder);
            }
        }
        Ok(())
    }

    /// The names of the folders, ascending, from that of `after` on.
    pub(crate) fn folders(&self, after: Option<PayloadId>) -> Result<Vec<[u8; 15]>> {
        let mut folders = Vec::new();
        for name in names(&self.dir)? {
            let Some(folder) = parse_hex::<15>(&name) else {
                continue;
            };
            if after.is_none_or(|after| folder[..] >= after.0[..15]) {
                folders.push(folder);
            }
        }
        folders.sort_unstable();
        Ok(folders)
    }

    /// The ids in one folder after `after`, ascending.
    pub(crate) fn ids(&self, folder: [u8; 15], after: Option<PayloadId>) -> Result<Vec<PayloadId>> {
        let mut id = PayloadId([0; 16]);
        id.0[..15].copy_from_slice(&folder);
        let mut ids = Vec::new();
        for name in names(&self.folder(id))? {
            let Some((number, "data" | "outboard")) = name.split_once('.') else {
                continue;
            };
            let Some([last]) = parse_hex::<1>(number) else {
                continue;
            };
            id.0[15] = last;
            if after.is_none_or(|after| id > after) {
                ids.push(id);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Closes the files.
    pub(crate) fn close(&self) {
        self.handles.clear();
    }
}

/// The names in a folder; none where it is absent.
fn names(dir: &Path) -> Result<Vec<String>> {
    let fail = |error| Error::io("blobs.list", dir, error);
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(fail)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.map_err(fail)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Lowercase hex of exactly `N` bytes.
fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

//! Secrets in an encrypted file that only its owner can read.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use store_api::{Error, Kind, Result, Secret, SecretKey, SecretName, Secrets};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::format::{FileKey, MAX_FILE_LEN, Table};
use crate::{blocking::blocking, chance::random};

const OPEN: &str = "secrets.open";

/// What opens a file of secrets.
pub enum Unlock {
    /// A key that is kept elsewhere.
    Key(SecretKey),
    /// A password; trying one costs 64 MiB of memory and about a tenth of a second.
    Password(Zeroizing<String>),
}

impl std::fmt::Debug for Unlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key(…)",
            Self::Password(_) => "Password(…)",
        })
    }
}

impl Unlock {
    /// The key in the file at `path`, 64 hexadecimal digits, which only its owner may read; made
    /// where there is none. Keep it elsewhere than what it unlocks.
    ///
    /// # Errors
    /// [`Kind::Denied`] where others could read it, [`Kind::Corrupt`] where it holds no key.
    pub fn key_file(path: &Path) -> Result<Self> {
        let fail = |error| Error::io("secrets.unlock", path, error);
        match read_private(path, 1 << 10) {
            Ok(text) => {
                let digits = text.trim_ascii_end();
                let key = blake3::Hash::from_hex(digits).map_err(|_| {
                    let message = "the key file is damaged; bring it back from a backup";
                    Error::new(Kind::Corrupt, "secrets.unlock", message)
                        .with("path", path.display())
                })?;
                Ok(Self::Key(SecretKey::from_bytes(*key.as_bytes())))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mut key = Zeroizing::new([0; 32]);
                random("secrets.unlock", &mut *key)?;
                let text = Zeroizing::new(blake3::Hash::from_bytes(*key).to_hex().to_string());
                let folder = parent(path);
                fs::create_dir_all(folder).map_err(fail)?;
                // Of two that make it at once, the second finds the first one's.
                match write_private(path, text.as_bytes(), Existing::Stays) {
                    Ok(()) => Ok(Self::Key(SecretKey::from_bytes(*key))),
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => Self::key_file(path),
                    Err(error) => Err(fail(error)),
                }
            }
            Err(error) => Err(fail(error)),
        }
    }
}

/// Secrets in one encrypted file. Every change writes a new file beside it and puts it in its place.
#[derive(Debug, Clone)]
pub struct FileSecrets(Arc<Inner>);

struct Inner {
    path: PathBuf,
    key: FileKey,
    table: Arc<Mutex<Table>>,
    _lock: File,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSecrets")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl FileSecrets {
    /// Opens the file, or makes one with the first secret that is put.
    ///
    /// # Errors
    /// [`Kind::Denied`] where the key or the password is another, or others could read the file;
    /// [`Kind::Corrupt`] and [`Kind::Unsupported`] as they say; [`Kind::Unavailable`] where another
    /// process has it open. Nothing is changed then.
    pub async fn open(path: impl Into<PathBuf>, unlock: Unlock) -> Result<Self> {
        let path = path.into();
        blocking(OPEN, move || Self::open_now(path, &unlock)).await?
    }

    fn open_now(path: PathBuf, unlock: &Unlock) -> Result<Self> {
        let fail = |error| Error::io(OPEN, &path, error);
        fs::create_dir_all(parent(&path)).map_err(fail)?;
        let lock_path = beside(&path, "lock");
        let lock = private().create(true).write(true).open(&lock_path);
        let lock = lock.map_err(|error| Error::io(OPEN, &lock_path, error))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                let message = "another program has these secrets open; stop it, or wait for it";
                Error::new(Kind::Unavailable, OPEN, message).with("path", path.display())
            }
            fs::TryLockError::Error(error) => Error::io(OPEN, &lock_path, error),
        })?;
        let (key, table) = match read_private(&path, MAX_FILE_LEN) {
            Ok(file) => {
                FileKey::open(unlock, &file).map_err(|error| error.with("path", path.display()))?
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                (FileKey::create(unlock)?, Table::new())
            }
            Err(error) => return Err(fail(error)),
        };
        Ok(Self(Arc::new(Inner {
            path,
            key,
            table: Arc::new(Mutex::new(table)),
            _lock: lock,
        })))
    }

    /// Changes the table and writes it, whole or not at all. Once it has its turn it runs to its end
    /// even if the caller goes, and no later change comes before it.
    async fn change(
        &self,
        operation: &'static str,
        change: impl FnOnce(&mut Table) + Send + 'static,
    ) -> Result<()> {
        let inner = Arc::clone(&self.0);
        let mut table = Arc::clone(&self.0.table).lock_owned().await;
        blocking(operation, move || {
            let mut changed = table.clone();
            change(&mut changed);
            let file = inner.key.seal(&changed)?;
            write_private(&inner.path, &file, Existing::Replaced)
                .map_err(|error| Error::io(operation, &inner.path, error))?;
            *table = changed;
            Ok(())
        })
        .await?
    }
}

#[async_trait]
impl Secrets for FileSecrets {
    fn name(&self) -> &str {
        "file"
    }

    async fn get(&self, name: SecretName) -> Result<Option<Secret>> {
        Ok(self.0.table.lock().await.get(&name).cloned())
    }

    async fn put(&self, name: SecretName, secret: Secret) -> Result<()> {
        let put = |table: &mut Table| drop(table.insert(name, secret));
        self.change("secrets.put", put).await
    }

    async fn delete(&self, name: SecretName) -> Result<()> {
        if !self.0.table.lock().await.contains_key(&name) {
            return Ok(());
        }
        let delete = move |table: &mut Table| drop(table.remove(&name));
        self.change("secrets.delete", delete).await
    }

    async fn list(&self) -> Result<Vec<SecretName>> {
        Ok(self.0.table.lock().await.keys().cloned().collect())
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

/// How a file is made that only its owner can read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// The file's bytes; one that others could read is refused.
fn read_private(path: &Path, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut file = File::open(path)?;
    let facts = file.metadata()?;
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&facts.permissions()) & 0o077 != 0 {
        let message =
            "others can read this file; `chmod 600` it, and think of its secrets as known";
        return Err(io::Error::new(ErrorKind::PermissionDenied, message));
    }
    if facts.len() > limit {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            "the file is too long",
        ));
    }
    let len = usize::try_from(facts.len()).map_err(io::Error::other)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(len));
    Read::take(&mut file, facts.len()).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    Stays,
    Replaced,
}

/// Writes a file that only its owner can read, durably, whole or not at all.
fn write_private(path: &Path, bytes: &[u8], existing: Existing) -> io::Result<()> {
    let new = match existing {
        Existing::Replaced => beside(path, "new"),
        // There is no lock: whoever makes it at the same time has a file of its own.
        Existing::Stays => beside(path, &format!("{}.new", std::process::id())),
    };
    let written = (|| {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private().create_new(true).write(true).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        match existing {
            Existing::Replaced => fs::rename(&new, path),
            Existing::Stays => fs::hard_link(&new, path).and_then(|()| fs::remove_file(&new)),
        }
    })();
    if written.is_err() {
        // Nothing is lost if it stays: the next write begins it anew.
        drop(fs::remove_file(&new));
    }
    written?;
    #[cfg(unix)]
    File::open(parent(path))?.sync_all()?;
    Ok(())
}

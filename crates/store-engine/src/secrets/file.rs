//! Secrets in an encrypted file that only its owner can read.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use larder_store_api::{Error, Kind, Result, Secret, SecretName, Secrets};
use tokio::sync::Mutex;

use super::{
    format::{FileKey, MAX_FILE_LEN, Table},
    private::{Existing, beside, parent, private, read_private, write_private},
    unlock::Unlock,
};
use crate::blocking::blocking;

const OPEN: &str = "secrets.open";

/// Secrets in one encrypted file. Every change writes a new file beside it and replaces the old one.
#[derive(Debug, Clone)]
pub struct FileSecrets(Arc<Inner>);

struct Inner {
    path: PathBuf,
    key: FileKey,
    table: Arc<Mutex<Table>>,
    _lock: Option<File>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSecrets")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl FileSecrets {
    /// Opens the file; if there is none, the first secret that is put creates it.
    ///
    /// # Errors
    /// [`Kind::Denied`] if the key or the password is wrong, or others could read the file;
    /// [`Kind::Corrupt`] if it is damaged; [`Kind::Unsupported`] if a newer version wrote it;
    /// [`Kind::Unavailable`] if another process has it open. Nothing is changed in these cases. A file whose folder
    /// cannot be written is opened, and changing it is [`Kind::Denied`].
    pub async fn open(path: impl Into<PathBuf>, unlock: Unlock) -> Result<Self> {
        let path = path.into();
        blocking(OPEN, move || Self::open_now(path, &unlock)).await?
    }

    fn open_now(path: PathBuf, unlock: &Unlock) -> Result<Self> {
        let fail = |error| Error::io(OPEN, &path, error);
        fs::create_dir_all(parent(&path)).map_err(fail)?;
        let lock = lock(&path)?;
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

    /// Changes the table and writes it atomically. After it has got its turn it runs to its end even if
    /// the caller goes away, and no later change comes before it.
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

/// Locks the file for this process; where its folder cannot be written, others may read beside us.
fn lock(path: &Path) -> Result<Option<File>> {
    let lock_path = beside(path, "lock");
    let fail = |error| Error::io(OPEN, &lock_path, error);
    let lock = private().create(true).write(true).open(&lock_path);
    let (lock, locked) = match lock {
        Ok(lock) => {
            let locked = lock.try_lock();
            (lock, locked)
        }
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied
            ) =>
        {
            let lock = match File::open(&lock_path) {
                // Nobody had it open where it lies now.
                Err(absent) if absent.kind() == ErrorKind::NotFound => return Ok(None),
                Err(_) => return Err(fail(error)),
                Ok(lock) => lock,
            };
            let locked = lock.try_lock_shared();
            (lock, locked)
        }
        Err(error) => return Err(fail(error)),
    };
    match locked {
        Ok(()) => Ok(Some(lock)),
        Err(fs::TryLockError::WouldBlock) => {
            let message = "another program has these secrets open; stop it, or wait for it";
            Err(Error::new(Kind::Unavailable, OPEN, message).with("path", path.display()))
        }
        Err(fs::TryLockError::Error(error)) => Err(fail(error)),
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

//! One SQLite file, and the thread that works on it.
//!
//! SQLite blocks, so a thread of its own takes work in turn. That order also keeps what a commit promises when its
//! caller gives up: it is applied before all that come after it, or never.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use larder::{Error, Kind, Result};
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

/// The file in the folder of a store.
const FILE: &str = "larder.sqlite";
/// The most calls that wait for their turn; more wait before they are in the queue.
const QUEUE: usize = 64;
/// Says in the file's header that it is one of ours: "Lard".
const APPLICATION_ID: i32 = 0x4c61_7264;
/// The version of the tables.
const VERSION: i32 = 1;

const TABLES: &str = "
    CREATE TABLE blocks (
        payload BLOB NOT NULL, part INTEGER NOT NULL, number INTEGER NOT NULL, bytes BLOB NOT NULL,
        PRIMARY KEY (payload, part, number)
    );
    CREATE TABLE entries (
        collection BLOB NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, revision INTEGER NOT NULL,
        PRIMARY KEY (collection, key)
    ) WITHOUT ROWID;
    CREATE TABLE commits (latest INTEGER NOT NULL);
    INSERT INTO commits VALUES (0);
";

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// An open file.
#[derive(Debug, Clone)]
pub(crate) struct Database(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` once it is closed.
    queue: Mutex<Option<mpsc::Sender<Work>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Database {
    pub(crate) async fn open(dir: PathBuf) -> Result<Self> {
        let (queue, mut work) = mpsc::channel::<Work>(QUEUE);
        let (opened, outcome) = oneshot::channel();
        let run = move || {
            let mut connection = match open(&dir) {
                Ok(connection) => connection,
                Err(error) => return drop(opened.send(Err(error))),
            };
            if opened.send(Ok(())).is_err() {
                return; // Nobody waits any more: the file is closed again.
            }
            while let Some(work) = work.blocking_recv() {
                work(&mut connection);
            }
        };
        let thread = std::thread::Builder::new().name("larder-sqlite".to_owned());
        let thread = thread
            .spawn(run)
            .map_err(|error| failed("store.open").because(error))?;
        outcome
            .await
            .map_err(|error| failed("store.open").because(error))??;
        Ok(Self(Arc::new(Inner {
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread)),
        })))
    }

    /// Runs `work` in its turn. It runs to its end even if nobody waits for it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let queue = lock(&self.0.queue).clone();
        let queue =
            queue.ok_or_else(|| Error::new(Kind::Closed, operation, "the store was closed"))?;
        let (done, outcome) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            // If the caller is gone, nobody wants the result.
            done.send(work(connection)).ok();
        });
        queue.send(work).await.map_err(|_| failed(operation))?;
        outcome.await.map_err(|_| failed(operation))?
    }

    pub(crate) async fn close(&self) -> Result<()> {
        drop(lock(&self.0.queue).take());
        let thread = lock(&self.0.thread).take();
        let Some(thread) = thread else {
            return Ok(());
        };
        let ended = tokio::task::spawn_blocking(move || thread.join());
        match ended.await {
            Ok(Ok(())) => Ok(()),
            _ => Err(failed("store.close")),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Each value is replaced whole, so that a panic leaves no half of one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(operation: &'static str) -> Error {
    Error::new(
        Kind::Internal,
        operation,
        "the thread of the database ended",
    )
}

fn open(dir: &Path) -> Result<Connection> {
    let path = dir.join(FILE);
    let io = |error: io::Error| Error::io("store.open", dir, error);
    fs::create_dir_all(dir).map_err(io)?;
    if !path.exists() && fs::read_dir(dir).map_err(io)?.next().is_some() {
        let message = "the folder is not empty and holds no SQLite store";
        return Err(Error::new(Kind::Invalid, "store.open", message).with("path", dir.display()));
    }
    let store = || -> rusqlite::Result<Connection> {
        let mut connection = Connection::open(&path)?;
        // One opener at a time; a commit is on the disk when it returns.
        connection.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
        )?;
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let version: i32 =
            transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version == 0 {
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        transaction.commit()?;
        Ok(connection)
    };
    let at = |error: Error| error.with("path", path.display());
    let connection = store().map_err(|error| at(error_of("store.open", error)))?;
    let header = |name| -> Result<i32> {
        let value = connection.pragma_query_value(None, name, |row| row.get(0));
        value.map_err(|error| at(error_of("store.open", error)))
    };
    if header("application_id")? != APPLICATION_ID {
        let message = "the database was not made by this backend";
        return Err(at(Error::new(Kind::Invalid, "store.open", message)));
    }
    if header("user_version")? != VERSION {
        let message = "a newer version wrote this store";
        return Err(at(Error::new(Kind::Unsupported, "store.open", message)));
    }
    Ok(connection)
}

/// An error of SQLite, by what its code means to the caller.
pub(crate) fn error_of(operation: &'static str, error: rusqlite::Error) -> Error {
    let (kind, message) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            Kind::Unavailable,
            "the store is open elsewhere; close it there first",
        ),
        Some(ErrorCode::DiskFull) => (Kind::Full, "the disk is full; free some space"),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            (Kind::Corrupt, "the database is damaged")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => (
            Kind::Denied,
            "the database cannot be opened or written there",
        ),
        Some(ErrorCode::TooBig) => (Kind::TooLarge, "it is longer than SQLite allows"),
        Some(ErrorCode::SystemIoFailure) => (Kind::Unavailable, "the disk does not work"),
        _ => (Kind::Internal, "SQLite reported an unexpected error"),
    };
    Error::new(kind, operation, message).because(error)
}

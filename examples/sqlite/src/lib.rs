//! A backend of Larder in one SQLite file, as somebody else would write it: `sqlite:DIR`.
//!
//! [`SqliteStore`] implements the two traits of a backend, and [`Sqlite`] registers it, so that URLs name it:
//!
//! ```
//! # async fn example(dir: &std::path::Path) -> larder::Result<()> {
//! let store = larder::StoreBuilder::new(format!("sqlite:{}", dir.display()))
//!     .backend(larder_sqlite::Sqlite)
//!     .open()
//!     .await?;
//! let pin = store.blobs().add("kept by SQLite").await?;
//! assert_eq!(store.blobs().read_to_bytes(pin.hash(), 8..14).await?, "SQLite");
//! store.close().await
//! # }
//! # let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
//! # runtime.block_on(example(tempfile::tempdir().expect("a folder").path()))?;
//! # larder::Result::<()>::Ok(())
//! ```

mod blobs;
mod collections;
mod database;
mod driver;

use std::path::Path;

use larder::Result;

use database::Database;
pub use driver::Sqlite;

/// A store of payloads and collections in one SQLite file. It has the file for itself.
#[derive(Debug)]
pub struct SqliteStore {
    database: Database,
}

impl SqliteStore {
    /// Opens the store in a folder, and makes a new one if there is none.
    ///
    /// # Errors
    /// [`Kind::Unavailable`](larder::Kind::Unavailable) if it is open elsewhere,
    /// [`Kind::Corrupt`](larder::Kind::Corrupt) if the file is damaged or no database.
    pub async fn open(dir: &Path) -> Result<Self> {
        let database = Database::open(dir.to_owned()).await?;
        Ok(Self { database })
    }

    /// Closes the store. Calls answer [`Kind::Closed`](larder::Kind::Closed) from then on.
    ///
    /// # Errors
    /// [`Kind::Internal`](larder::Kind::Internal) if the thread that works on the file has failed.
    pub async fn close(&self) -> Result<()> {
        self.database.close().await
    }
}

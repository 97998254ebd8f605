//! Files and folders of this machine: into a store or a group, and out again (feature `files`).
//!
//! The steps that a program, a daemon or a binding to another language shows: nothing here prints, and
//! requests, results and events are plain data that can be serialized.
//!
//! * [`add`](fn@add) stores a file as a blob, and a folder as an iroh collection (feature `iroh`).
//! * `put` puts files into a repo of a group, and mirrors a folder where that is asked for (feature `groups`).
//! * [`write_out`] writes stored files into a folder, each whole or not at all.
//! * `shared_group` and `set_shared_group` know the group that a folder is shared with (feature `groups`).
//!
//! One bad file ends nothing: it is [left out](LeftOut) with its path and the reason, and the others go on. An
//! error is returned where the store, the disk or the request itself is at fault. To cancel, drop the future: what
//! was stored stays, and no file is left half-written.
//!
//! ```
//! use larder::{
//!     Store,
//!     files::{self, AddRequest, Event, GetRequest, Observer, Stored},
//! };
//!
//! # async fn example() -> larder::Result<()> {
//! # let dir = tempfile::tempdir().expect("a folder");
//! # let (note, copy) = (dir.path().join("note.txt"), dir.path().join("copy"));
//! # std::fs::write(&note, "milk").expect("a file");
//! let store = Store::open("mem:").await?;
//! let observer = Observer::new(|event| {
//!     if let Event::LeftOut(item) = event {
//!         eprintln!("{}: {}", item.path, item.reason);
//!     }
//! });
//! let added = files::add(&store, &AddRequest::new(&note), &observer).await?;
//! assert_eq!((added.name.as_str(), added.size), ("note.txt", 4));
//!
//! let stored = vec![("note.txt".to_owned(), Stored::from(added.hash))];
//! let got = files::write_out(store.blobs(), stored, &GetRequest::new(&copy), &observer).await?;
//! assert_eq!((got.files, got.left_out.count()), (1, 0));
//! # assert_eq!(std::fs::read(copy.join("note.txt")).expect("it was written"), b"milk");
//! store.close().await
//! # }
//! # tokio::runtime::Runtime::new().expect("a runtime").block_on(example())?;
//! # larder::Result::<()>::Ok(())
//! ```

mod add;
#[cfg(feature = "iroh")]
mod find;
mod left_out;
mod names;
mod observe;
mod out;
#[cfg(feature = "groups")]
mod put;
#[cfg(feature = "groups")]
mod remove;
#[cfg(feature = "groups")]
mod share;
mod stores;
mod walk;

use std::{ffi::OsStr, path::Path};

use larder_store_api::{Error, Kind, Result};
use larder_store_engine::TagName;

#[cfg(feature = "iroh")]
pub use self::find::{Named, files_of, find};
pub use self::{
    add::{AddRequest, Added, add, add_stream},
    left_out::{LeftOut, LeftOutItem, Listed, MAX_LISTED, Reason},
    names::{MAX_NAME_LEN, MAX_PART_LEN, Rules, to_paths},
    observe::{Event, Observer},
    out::{GetRequest, Got, Stored, is_same, write_out},
    walk::{Found, Walk, WalkOptions, walk},
};
#[cfg(feature = "groups")]
pub use self::{
    out::files_in,
    put::{PutDone, PutRequest, put, put_stream},
    remove::removal,
    share::{set_shared_group, shared_group},
};

/// The operation of errors about files of this machine. Their messages are sentences for people.
pub const OPERATION: &str = "files";

/// The number of small files that are read at once: so many of them share a commit.
#[cfg(any(feature = "iroh", feature = "groups"))]
const IN_FLIGHT: usize = 64;

/// Returns the name that a path is stored under unless another is given: its last component. A link has the name
/// that was given, and not that of the item that it points to.
///
/// # Errors
/// [`Kind::Invalid`] if it has none, or one that is not Unicode; [`Kind::NotFound`] if there is no such path.
pub fn default_name(path: &Path) -> Result<String> {
    // Resolved, so that `.` has a name.
    let real = std::fs::canonicalize(path).map_err(|error| cannot_read(path, error))?;
    let named = path.file_name().or(real.file_name());
    let message = match named.map(|name| name.to_str()) {
        Some(Some(name)) => return Ok(name.to_owned()),
        Some(None) => format!("{}: the name is not Unicode", path.display()),
        None => format!("{} has no name of its own", path.display()),
    };
    Err(Error::new(Kind::Invalid, OPERATION, message).with("name", "needed"))
}

/// Returns true if an error says that a [name](default_name) must be given.
pub fn needs_name(error: &Error) -> bool {
    error.operation() == OPERATION && error.context().any(|(key, _)| key == "name")
}

/// An error of the operating system about a path that was to be read.
fn cannot_read(path: &Path, error: std::io::Error) -> Error {
    about(format!("cannot read {}", path.display()), error)
}

/// An error of the operating system about a path that was to be written.
fn cannot_write(path: &Path, error: std::io::Error) -> Error {
    about(format!("cannot write {}", path.display()), error)
}

fn about(message: String, error: std::io::Error) -> Error {
    // For its kind alone: the message names the path already.
    let kind = Error::io(OPERATION, Path::new(""), same(&error)).kind();
    Error::new(kind, OPERATION, message).because(error)
}

/// Returns an error of the operating system of the same kind and number.
fn same(error: &std::io::Error) -> std::io::Error {
    match error.raw_os_error() {
        Some(number) => std::io::Error::from_raw_os_error(number),
        None => error.kind().into(),
    }
}

/// Returns the error of a store with the path that it was about.
fn failed(verb: &str, path: &Path, error: Error) -> Error {
    let message = format!("cannot {verb} {}", path.display());
    Error::new(error.kind(), OPERATION, message).because(error)
}

/// Runs work that blocks on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    larder_store_engine::blocking(OPERATION, work).await?
}

/// The beginning of the tags that groups have for themselves.
const OF_GROUPS: &str = "sync/";

/// Returns the tag of a name that somebody chose.
///
/// # Errors
/// [`Kind::Invalid`] for a name that belongs to groups, and for one that no tag can have.
pub fn tag_of(name: &str) -> Result<TagName> {
    if name.starts_with(OF_GROUPS) {
        let message = format!("names that begin with {OF_GROUPS:?} belong to groups: {name:?}");
        return Err(Error::new(Kind::Invalid, OPERATION, message));
    }
    TagName::try_from(name)
}

/// The beginning and the end of the names of temporary files.
const TEMPORARY: (&str, &str) = (".larder-", ".tmp");

/// Returns a name for a temporary file that nobody else has chosen.
fn temporary_name() -> Result<String> {
    let mut bytes = [0; 8];
    larder_store_engine::random(OPERATION, &mut bytes)?;
    let (begin, end) = TEMPORARY;
    Ok(format!("{begin}{:016x}{end}", u64::from_be_bytes(bytes)))
}

/// Returns true if a file has a [temporary name](temporary_name): its writer was killed, or still writes.
fn is_temporary(name: &OsStr) -> bool {
    let (begin, end) = TEMPORARY;
    let digits = name
        .to_str()
        .and_then(|name| name.strip_prefix(begin)?.strip_suffix(end));
    digits.is_some_and(|digits| {
        digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// A value as its text, in serialized data.
mod as_text {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
        from: D,
    ) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

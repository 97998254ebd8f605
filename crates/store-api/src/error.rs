//! The error type of every store.

use std::{borrow::Cow, error::Error as StdError, fmt, io, path::Path, sync::Arc};

/// The kind of an error, by how the caller should react to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The requested item is not there. Fetch it from elsewhere, or accept that.
    NotFound,
    /// Another writer changed it first. Read again and decide again.
    Conflict,
    /// Stored bytes differ from those that were written. Scrub with repair, then fetch again.
    Corrupt,
    /// The request itself is wrong. Fix the caller.
    Invalid,
    /// The request is over a limit, which the error names. Split it, or pick another backend.
    TooLarge,
    /// There is no space left. Free some and call again.
    Full,
    /// The operating system or a policy forbids it. Change rights or ask for less.
    Denied,
    /// This backend cannot do that. See its capabilities.
    Unsupported,
    /// It cannot be reached or is in use now. Try later.
    Unavailable,
    /// The store was closed. Open it again.
    Closed,
    /// A defect of ours or of a library below. Report it.
    Internal,
}

impl Kind {
    const fn words(self) -> &'static str {
        match self {
            Kind::NotFound => "not found",
            Kind::Conflict => "changed by somebody else",
            Kind::Corrupt => "damaged",
            Kind::Invalid => "invalid",
            Kind::TooLarge => "too large",
            Kind::Full => "no space left",
            Kind::Denied => "denied",
            Kind::Unsupported => "unsupported",
            Kind::Unavailable => "unavailable",
            Kind::Closed => "closed",
            Kind::Internal => "internal error",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// The error of every store: a [`Kind`] that tells how to react, the operation that failed, a description
/// of the problem, its context, and its cause.
///
/// It is one word wide and cheap to clone, so that one failed group commit can answer many callers.
/// Its text is meant for people and is stable: tests pin it.
///
/// ```
/// use larder_store_api::{Error, Kind};
/// let error = Error::new(Kind::TooLarge, "collection.commit", "a value is at most 4 bytes")
///     .with("key", "photo");
/// assert_eq!(error.to_string(), "collection.commit: too large: a value is at most 4 bytes (key=photo)");
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    operation: &'static str,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The result of every store call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes an error of `kind` in `operation` (`noun.verb`, as in `blobs.read`). `message` may be empty.
    pub fn new(kind: Kind, operation: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            operation,
            message: message.into(),
            context: Vec::new(),
            source: None,
        }))
    }

    /// Converts an input or output error of the operating system, by the meaning of its kind to a store.
    pub fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let message = if is_out_of_descriptors(&source) {
            TOO_MANY_OPEN
        } else {
            ""
        };
        Self::new(kind_of_io(&source), operation, message)
            .with("path", path.display())
            .because(source)
    }

    /// Adds one key and value to the context of the error.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        Arc::make_mut(&mut self.0)
            .context
            .push((key, value.to_string()));
        self
    }

    /// Sets the cause of the error.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::from(source.into()));
        self
    }

    /// Returns the kind, which tells the caller how to react.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Returns true if the same call may succeed later, without any change by the caller.
    pub fn can_retry(&self) -> bool {
        self.0.kind == Kind::Unavailable
    }

    /// Returns the operation that failed, as `noun.verb`.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// Returns the description of the problem, in words; may be empty.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the context of the error, as keys and values.
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.context.iter().map(|(k, v)| (*k, v.as_str()))
    }
}

const TOO_MANY_OPEN: &str = "too many files and sockets are open; close some, or raise the limit";

/// Returns true if an error, or its cause, says that no file or socket can be opened now, because
/// this process or the whole system has as many open as it may.
pub fn is_out_of_descriptors(error: &(dyn StdError + 'static)) -> bool {
    // The standard library has no kind for this. ENFILE and EMFILE have these numbers on every Unix;
    // Windows has ERROR_TOO_MANY_OPEN_FILES.
    let numbers: &[i32] = match cfg!(windows) {
        true => &[4],
        false => &[23, 24],
    };
    let mut next = Some(error);
    while let Some(error) = next {
        next = match error.downcast_ref::<io::Error>() {
            Some(system) => match system.raw_os_error() {
                Some(number) => return numbers.contains(&number),
                // The source of an error that carries another leaves out the one that it carries.
                None => system.get_ref().map(|inner| inner as _),
            },
            None => error.source(),
        };
    }
    false
}

/// Returns the kind that an operating-system error has for a store.
fn kind_of_io(error: &io::Error) -> Kind {
    use io::ErrorKind as Io;
    if is_out_of_descriptors(error) {
        return Kind::Unavailable;
    }
    match error.kind() {
        Io::NotFound => Kind::NotFound,
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => Kind::Full,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => Kind::Denied,
        Io::InvalidInput | Io::InvalidFilename | Io::NotADirectory | Io::IsADirectory => {
            Kind::Invalid
        }
        Io::UnexpectedEof | Io::InvalidData => Kind::Corrupt,
        Io::ResourceBusy | Io::TimedOut | Io::WouldBlock => Kind::Unavailable,
        Io::Unsupported => Kind::Unsupported,
        _ => Kind::Internal,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.operation, self.0.kind)?;
        if !self.0.message.is_empty() {
            write!(f, ": {}", self.0.message)?;
        }
        for (i, (key, value)) in self.0.context.iter().enumerate() {
            let open = if i == 0 { " (" } else { ", " };
            write!(f, "{open}{key}={value}")?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut source = self.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_word_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }

    #[test]
    fn texts_are_pinned() {
        let plain = Error::new(Kind::NotFound, "blobs.read", "");
        assert_eq!(plain.to_string(), "blobs.read: not found");
        let full = Error::io(
            "log.append",
            Path::new("/data/log/1"),
            io::Error::from(io::ErrorKind::StorageFull),
        );
        assert_eq!(full.kind(), Kind::Full);
        assert_eq!(
            full.to_string(),
            "log.append: no space left (path=/data/log/1)"
        );
        assert_eq!(
            format!("{full:?}"),
            "log.append: no space left (path=/data/log/1): no storage space"
        );
    }

    #[cfg(unix)]
    #[test]
    fn too_many_open_files_can_be_tried_again() {
        for number in [23, 24] {
            let system = io::Error::from_raw_os_error(number);
            assert!(is_out_of_descriptors(&system));
            let error = Error::io("blobs.read", Path::new("/data/p"), system);
            assert_eq!(error.kind(), Kind::Unavailable);
            assert!(error.can_retry());
            assert_eq!(
                error.to_string(),
                "blobs.read: unavailable: too many files and sockets are open; close some, or raise \
                 the limit (path=/data/p)"
            );
        }
        let inner = Error::io(
            "blobs.read",
            Path::new("p"),
            io::Error::from_raw_os_error(24),
        );
        let outer = Error::new(Kind::Unavailable, "blobs.add", "the source failed");
        let outer = outer.because(io::Error::other(inner));
        assert!(is_out_of_descriptors(&outer), "a cause of it is");
        let absent = io::Error::from(io::ErrorKind::NotFound);
        assert!(!is_out_of_descriptors(&absent));
        let denied = Error::io(
            "blobs.read",
            Path::new("p"),
            io::Error::from_raw_os_error(13),
        );
        assert!(!is_out_of_descriptors(&denied));
    }

    #[test]
    fn a_clone_keeps_its_own_context() {
        let first = Error::new(Kind::Corrupt, "blobs.read", "").with("offset", 0);
        let second = first.clone().with("hash", "ab");
        assert_eq!(first.context().count(), 1);
        assert_eq!(second.context().count(), 2);
    }

    #[test]
    fn only_what_is_unavailable_can_be_tried_again() {
        assert!(Error::new(Kind::Unavailable, "node.call", "").can_retry());
        assert!(!Error::new(Kind::Full, "node.call", "").can_retry());
    }
}

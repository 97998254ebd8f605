//! The names of files within a repo.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use larder_store_api::{Error, Kind, Result};

/// The longest name, in bytes.
pub const MAX_NAME_LEN: usize = 4096;

/// The name of a file in a repo: a path of 1 to [`MAX_NAME_LEN`] bytes whose parts are separated
/// by `/`. Names are ordered by their bytes. A clone is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Makes a name; [`Kind::Invalid`] if it is empty or too long, or has a part that is empty, `.` or
    /// `..`, or contains a NUL.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        let name = name.as_ref();
        let wrong = |message| {
            let error = Error::new(Kind::Invalid, "sync.name", message);
            Err(error.with("len", name.len()))
        };
        if name.is_empty() || name.len() > MAX_NAME_LEN {
            return wrong("a name has 1 to 4096 bytes");
        }
        if name.contains('\0') {
            return wrong("a name has no NUL");
        }
        if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return wrong("a part of a name is not empty and neither . nor ..");
        }
        Ok(Self(name.into()))
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl TryFrom<&str> for Name {
    type Error = Error;

    fn try_from(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_are_names() {
        for good in [
            "a",
            "a/b",
            "…/ü",
            "a.b/..c/d..",
            " ",
            "a\\b",
            &"x".repeat(4096),
        ] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        let long = "x".repeat(4097);
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0", &long,
        ] {
            assert_eq!(Name::new(bad).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
        }
    }
}

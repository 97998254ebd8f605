//! The names of files within a repo.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use larder_store_api::{Error, Kind, Result};

/// The longest name, in bytes. With room for the folder that it is written into, that is what usual systems allow.
pub const MAX_NAME_LEN: usize = 3072;

/// The longest part of a name, in bytes: the limit of the usual file systems.
pub const MAX_PART_LEN: usize = 255;

/// The name of a file in a repo: a path of 1 to [`MAX_NAME_LEN`] bytes whose parts, of at most [`MAX_PART_LEN`], are
/// separated by `/`. Names are ordered by their bytes. A clone is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Makes a name; [`Kind::Invalid`] if it is empty or too long, or has a part that is empty, too long, `.` or `..`,
    /// or contains a NUL.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        let name = name.as_ref();
        let wrong = |message| {
            let error = Error::new(Kind::Invalid, "sync.name", message);
            Err(error.with("len", name.len()))
        };
        if name.is_empty() || name.len() > MAX_NAME_LEN {
            return wrong("a name has 1 to 3072 bytes");
        }
        if name.contains('\0') {
            return wrong("a name has no NUL");
        }
        if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return wrong("a part of a name is not empty and neither . nor ..");
        }
        if name.split('/').any(|part| part.len() > MAX_PART_LEN) {
            return wrong("a part of a name has at most 255 bytes");
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
            &"x".repeat(255),
            &format!("{}xx", "x/".repeat(1535)),
        ] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        let (long, deep) = ("x".repeat(256), "x/".repeat(1536) + "x");
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0", &long, &deep,
        ] {
            assert_eq!(Name::new(bad).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
        }
    }
}

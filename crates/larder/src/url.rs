//! The URL of a store: its place, as one line of text.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use store_api::{Error, Kind, Result};

/// The place of the key that encrypts what a Veilid node has on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceKey {
    /// In the system's keychain; a system without one is refused.
    Keychain,
    /// In a plain file in the same folder: whoever has the folder can read it.
    InsecureFile,
}

#[cfg(feature = "veilid")]
impl DeviceKey {
    pub(crate) fn protection(self) -> veilid_node::Protection {
        match self {
            Self::Keychain => veilid_node::Protection::Keychain,
            Self::InsecureFile => veilid_node::Protection::InsecureFile,
        }
    }
}

/// The URL of a store: `redb:DIR`, `veilid:DIR`, `veilid+insecure:DIR` or `mem:`.
///
/// A path alone is refused, so that a typing error never makes a new store.
///
/// ```
/// use larder::StoreUrl;
/// let url: StoreUrl = "redb:/data/store".parse()?;
/// assert_eq!(url.to_string(), "redb:/data/store");
/// # larder::Result::<()>::Ok(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StoreUrl {
    /// `mem:`, in memory: empty at first, gone when it is closed.
    Memory,
    /// `redb:DIR`, a folder on this machine, made where there is none.
    Redb(PathBuf),
    /// `veilid:DIR`, a Veilid node's folder on this machine, made where there is none. With
    /// `veilid+insecure:DIR` its key lies in the same folder instead of the system's keychain.
    Veilid(PathBuf, DeviceKey),
}

impl StoreUrl {
    /// The folder that the store lies in; `None` where it lies in none.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Memory => None,
            Self::Redb(dir) | Self::Veilid(dir, _) => Some(dir),
        }
    }

    /// A store of the same kind in another folder. One in memory has none.
    #[must_use]
    pub fn in_folder(&self, dir: PathBuf) -> Self {
        match self {
            Self::Memory => Self::Memory,
            Self::Redb(_) => Self::Redb(dir),
            Self::Veilid(_, key) => Self::Veilid(dir, *key),
        }
    }

    /// Returns the scheme of the URL, which names the kind of store.
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Memory => "mem",
            Self::Redb(_) => "redb",
            Self::Veilid(_, DeviceKey::Keychain) => "veilid",
            Self::Veilid(_, DeviceKey::InsecureFile) => "veilid+insecure",
        }
    }
}

impl FromStr for StoreUrl {
    type Err = Error;

    /// [`Kind::Invalid`] with a message that says how to write it.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = |message: String| Error::new(Kind::Invalid, "store.url", message);
        match text.split_once(':') {
            Some(("mem", "")) => Ok(Self::Memory),
            Some(("mem", _)) => Err(invalid(format!(
                "{text:?}: a store in memory has no name: write mem:"
            ))),
            Some(("redb", "")) => Err(invalid(format!(
                "{text:?}: the folder is missing: write redb:DIR"
            ))),
            Some(("redb", dir)) => Ok(Self::Redb(PathBuf::from(dir))),
            Some((scheme @ ("veilid" | "veilid+insecure"), "")) => Err(invalid(format!(
                "{text:?}: the folder is missing: write {scheme}:DIR"
            ))),
            Some(("veilid", dir)) => Ok(Self::Veilid(dir.into(), DeviceKey::Keychain)),
            Some(("veilid+insecure", dir)) => Ok(Self::Veilid(dir.into(), DeviceKey::InsecureFile)),
            // One letter is a drive, not a scheme.
            Some((scheme, _)) if is_scheme(scheme) => Err(invalid(format!(
                "{text:?}: there is no kind of store named {scheme}: write redb:DIR, veilid:DIR or mem:"
            ))),
            _ => Err(invalid(format!(
                "{text:?} is not the URL of a store: write redb:{text} for a store in that folder"
            ))),
        }
    }
}

fn is_scheme(text: &str) -> bool {
    text.len() > 1
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'+')
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme())?;
        self.folder().map_or(Ok(()), |dir| dir.display().fmt(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_are_read_and_written() {
        for text in [
            "mem:",
            "redb:/data",
            "redb:relative dir",
            "redb:C:\\data",
            "veilid:/data",
            "veilid+insecure:/data",
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_url_says_what_to_write() {
        for (text, expected) in [
            (
                "/data",
                "store.url: invalid: \"/data\" is not the URL of a store: write redb:/data for a \
                 store in that folder",
            ),
            (
                "c:x",
                "store.url: invalid: \"c:x\" is not the URL of a store: write redb:c:x for a store \
                 in that folder",
            ),
            (
                "redb:",
                "store.url: invalid: \"redb:\": the folder is missing: write redb:DIR",
            ),
            (
                "mem:x",
                "store.url: invalid: \"mem:x\": a store in memory has no name: write mem:",
            ),
            (
                "s3:bucket",
                "store.url: invalid: \"s3:bucket\": there is no kind of store named s3: write \
                 redb:DIR, veilid:DIR or mem:",
            ),
        ] {
            assert_eq!(text.parse::<StoreUrl>().unwrap_err().to_string(), expected);
        }
    }
}

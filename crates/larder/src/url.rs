//! Where a store is, as one line of text.

use std::{fmt, path::PathBuf, str::FromStr};

use store_api::{Error, Kind, Result};

/// Where a store is: `redb:DIR` or `mem:`.
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
            // One letter is a drive, not a scheme.
            Some((scheme, _)) if is_scheme(scheme) => Err(invalid(format!(
                "{text:?}: there is no kind of store named {scheme}: write redb:DIR or mem:"
            ))),
            _ => Err(invalid(format!(
                "{text:?} is not the URL of a store: write redb:{text} for a store in that folder"
            ))),
        }
    }
}

fn is_scheme(text: &str) -> bool {
    text.len() > 1 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("mem:"),
            Self::Redb(dir) => write!(f, "redb:{}", dir.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_read_and_written() {
        for text in ["mem:", "redb:/data", "redb:relative dir", "redb:C:\\data"] {
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
                 redb:DIR or mem:",
            ),
        ] {
            assert_eq!(text.parse::<StoreUrl>().unwrap_err().to_string(), expected);
        }
    }
}

//! The URL of a store: its place, as one line of text.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    str::FromStr,
};

use larder_store_api::{Error, Kind, Result};

/// The place of the key that encrypts what a Veilid node has on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceKey {
    /// In the system's keychain; a system without one is refused.
    Keychain,
    /// In a plain file in the same folder: anyone who has the folder can read it.
    InsecureFile,
}

/// The URL of a store: the scheme of its backend, a colon, and the place that the backend reads from the rest.
///
/// | URL | store |
/// |---|---|
/// | `redb:DIR` | a folder on this machine, made if it is missing |
/// | `veilid:DIR` | a Veilid node's folder on this machine, made if it is missing |
/// | `veilid+insecure:DIR` | a Veilid node's folder, with its key in the folder and not in the system's keychain |
/// | `mem:` | in memory: empty at first, gone when it is closed |
///
/// Backends of an app have [schemes of their own](crate::Driver). A path alone is refused, so that a typing error
/// never makes a new store.
///
/// ```
/// use larder::StoreUrl;
/// let url: StoreUrl = "redb:/data/store".parse()?;
/// assert_eq!(url.to_string(), "redb:/data/store");
/// # larder::Result::<()>::Ok(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoreUrl {
    scheme: String,
    rest: OsString,
}

impl StoreUrl {
    /// Makes a URL of this scheme. The rest need not be text: it may be the path of a folder.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if the scheme is malformed.
    pub fn new(scheme: &str, rest: impl Into<OsString>) -> Result<Self> {
        if !is_scheme(scheme) {
            let message = "a scheme has two or more letters, digits and +";
            return Err(Error::new(Kind::Invalid, "store.url", message).with("scheme", scheme));
        }
        Ok(Self::of(scheme, rest))
    }

    fn of(scheme: &str, rest: impl Into<OsString>) -> Self {
        Self {
            scheme: scheme.to_owned(),
            rest: rest.into(),
        }
    }

    /// Returns the URL of a store in memory: `mem:`.
    pub fn memory() -> Self {
        Self::of("mem", "")
    }

    /// Returns the URL of a store in a folder: `redb:DIR`.
    pub fn redb(dir: impl Into<OsString>) -> Self {
        Self::of("redb", dir)
    }

    /// Returns the URL of a store in the folder of a Veilid node: `veilid:DIR`, or `veilid+insecure:DIR`.
    pub fn veilid(dir: impl Into<OsString>, key: DeviceKey) -> Self {
        let scheme = match key {
            DeviceKey::Keychain => "veilid",
            DeviceKey::InsecureFile => "veilid+insecure",
        };
        Self::of(scheme, dir)
    }

    /// Returns the scheme, which names the backend.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Returns the part after the scheme and its colon.
    pub fn rest(&self) -> &OsStr {
        &self.rest
    }
}

impl FromStr for StoreUrl {
    type Err = Error;

    /// [`Kind::Invalid`] with a message that says how to write it.
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            // One letter is a drive, not a scheme.
            Some((scheme, rest)) if is_scheme(scheme) => Ok(Self::of(scheme, rest)),
            _ => {
                let message = format!(
                    "{text:?} is not the URL of a store: write redb:{text} for a store in that folder"
                );
                Err(Error::new(Kind::Invalid, "store.url", message))
            }
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
        write!(f, "{}:{}", self.scheme, self.rest.display())
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
    fn text_that_is_no_url_says_what_to_write() {
        for text in ["/data", "c:x", ":x", "a b:x"] {
            let error = text.parse::<StoreUrl>().unwrap_err();
            let expected = format!(
                "store.url: invalid: {text:?} is not the URL of a store: write redb:{text} for a store in that \
                 folder"
            );
            assert_eq!(error.to_string(), expected);
        }
        assert_eq!(StoreUrl::new("x", "y").unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn a_url_that_no_backend_takes_says_what_to_write() {
        for (text, expected) in [
            ("redb:", "the folder is missing: write redb:DIR"),
            ("mem:x", "a store in memory has no name: write mem:"),
            (
                "s3:bucket",
                "there is no backend for s3: here; write one of redb:DIR",
            ),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            let error = crate::Backends::default().check(&url).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

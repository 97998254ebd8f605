//! The items that a call left out, each with its reason.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// The most paths that a result lists. All are counted, and each is told as an [event](super::Event::LeftOut).
pub const MAX_LISTED: usize = 1000;

/// The reason why an item was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// A symbolic link within a folder; these are not followed.
    Symlink,
    /// A socket, device or pipe.
    Special,
    /// A folder without any entry: a store has names of files only.
    EmptyFolder,
    /// A folder that is marked as a cache.
    Cache,
    /// The folder of an open store.
    OpenStore,
    /// A file that was being written out: it has a temporary name still.
    Temporary,
    /// A file or folder that cannot be read.
    Unreadable,
    /// A file that changes while it is read, each time that this was tried.
    Changing,
    /// A name that is not Unicode.
    NotUnicode,
    /// A name beyond [`MAX_NAME_LEN`](super::MAX_NAME_LEN), or with a part beyond
    /// [`MAX_PART_LEN`](super::MAX_PART_LEN).
    TooLong,
    /// An empty name.
    EmptyName,
    /// An absolute path.
    Absolute,
    /// A name with an empty part.
    EmptyPart,
    /// A name with the part `.` or `..`.
    Dots,
    /// A name with a NUL.
    Nul,
    /// A name with another control character.
    Control,
    /// A name with a backslash.
    Backslash,
    /// A name with one of the characters `<>:"|?*`, which Windows does not allow.
    Character,
    /// A name that Windows gives to a device.
    Reserved,
    /// A part of a name that ends with a dot or a space.
    TrailingDotOrSpace,
    /// A name that appears twice.
    Duplicate,
    /// A name that differs from another one only in case, if the target ignores case.
    CaseClash,
    /// A name that another one has as a folder, or the other way round.
    FileAndFolder,
    /// A file whose bytes are not here, or not all of them.
    NotHere,
    /// A file whose bytes are damaged in the store.
    Damaged,
    /// A file with another content is in its place.
    InTheWay,
    /// A folder or a link is in its place; these are never replaced.
    Blocked,
    /// A file that the system does not let be written.
    Unwritable,
}

impl Reason {
    /// Returns true if the item is one that should have been taken: a person may want to do something about it.
    pub fn is_failure(self) -> bool {
        !matches!(
            self,
            Self::Symlink
                | Self::Special
                | Self::EmptyFolder
                | Self::Cache
                | Self::OpenStore
                | Self::Temporary
        )
    }

    /// Returns true if [`Rules::Here`](super::Rules::Here) accepts the name.
    pub fn is_about_portability(self) -> bool {
        let everywhere = matches!(
            self,
            Self::Backslash
                | Self::Reserved
                | Self::TrailingDotOrSpace
                | Self::Control
                | Self::Character
        );
        everywhere && !cfg!(windows)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Symlink => "it is a symbolic link",
            Self::Special => "it is a socket, device or pipe",
            Self::EmptyFolder => "the folder is empty",
            Self::Cache => "a CACHEDIR.TAG marks it as a cache",
            Self::OpenStore => "it is the folder of an open store",
            Self::Temporary => "it was being written out when that was interrupted",
            Self::Unreadable => "it cannot be read",
            Self::Changing => "it changed each time that it was read",
            Self::NotUnicode => "the name is not Unicode",
            Self::TooLong => "the name is too long",
            Self::EmptyName => "the name is empty",
            Self::Absolute => "it is an absolute path",
            Self::EmptyPart => "a part of the path is empty",
            Self::Dots => "\".\" or \"..\" would leave or bend the path",
            Self::Nul => "it contains a NUL byte",
            Self::Control => "it contains a control character",
            Self::Backslash => "it contains a backslash",
            Self::Character => "it contains a character that Windows does not allow in a name",
            Self::Reserved => "Windows reserves this name for a device",
            Self::TrailingDotOrSpace => "a part of the path ends with a dot or a space",
            Self::Duplicate => "the name appears twice",
            Self::CaseClash => "it differs from another name only in upper and lower case",
            Self::FileAndFolder => "another name uses it as a folder, or the other way round",
            Self::NotHere => "its bytes are not here",
            Self::Damaged => "its bytes are damaged in the store",
            Self::InTheWay => "another file is in its place",
            Self::Blocked => "a folder or a link is in its place",
            Self::Unwritable => "it cannot be written",
        })
    }
}

/// An item that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeftOutItem {
    /// Its path on this machine, or its name in the store. Bytes that are not Unicode are replaced.
    pub path: String,
    /// The reason.
    pub reason: Reason,
    /// The error that the system or the store gave; empty if the reason is all that there is to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

impl LeftOutItem {
    /// An item that is left out for this reason.
    pub fn new(path: impl Into<String>, reason: Reason) -> Self {
        Self {
            path: path.into(),
            reason,
            error: String::new(),
        }
    }

    /// Adds the error that says more.
    #[must_use]
    pub fn because(mut self, error: &dyn std::error::Error) -> Self {
        // The deepest cause is the system's word; those above it repeat path and operation.
        let mut deepest = error;
        while let Some(source) = deepest.source() {
            deepest = source;
        }
        self.error = deepest.to_string();
        self
    }
}

impl fmt::Display for LeftOutItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.path, self.reason)?;
        if !self.error.is_empty() {
            write!(f, " ({})", self.error)?;
        }
        Ok(())
    }
}

/// All that a call left out: counted by reason, and listed up to [`MAX_LISTED`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeftOut {
    /// The number of items for each reason.
    pub counts: BTreeMap<Reason, u64>,
    /// The first of them. Failures displace items that were left out on purpose.
    pub items: Vec<LeftOutItem>,
}

impl LeftOut {
    /// Returns the number of all items.
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Returns the number of items that should have been taken.
    pub fn failures(&self) -> u64 {
        let failures = self.counts.iter().filter(|(reason, _)| reason.is_failure());
        failures.map(|(_, count)| count).sum()
    }

    /// Returns the number of items that were left out for this reason.
    pub fn of(&self, reason: Reason) -> u64 {
        self.counts.get(&reason).copied().unwrap_or(0)
    }

    /// Returns the listed items that should have been taken.
    pub fn failed_items(&self) -> impl Iterator<Item = &LeftOutItem> {
        self.items.iter().filter(|item| item.reason.is_failure())
    }

    /// Adds an item.
    pub(super) fn add(&mut self, item: LeftOutItem) {
        *self.counts.entry(item.reason).or_default() += 1;
        if self.items.len() < MAX_LISTED {
            self.items.push(item);
        } else if item.reason.is_failure()
            && let Some(place) = self.items.iter_mut().rfind(|i| !i.reason.is_failure())
        {
            *place = item;
        }
    }
}

/// Names: counted, and listed up to [`MAX_LISTED`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Listed {
    /// The number of all names.
    pub count: u64,
    /// The first of them.
    pub names: Vec<String>,
}

impl Listed {
    #[cfg(feature = "groups")]
    pub(super) fn add(&mut self, name: &str) {
        self.count += 1;
        if self.names.len() < MAX_LISTED {
            self.names.push(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bounded_and_keep_the_failures() {
        let mut left_out = LeftOut::default();
        for n in 0..MAX_LISTED {
            left_out.add(LeftOutItem::new(n.to_string(), Reason::Symlink));
        }
        left_out.add(LeftOutItem::new("bad", Reason::Unreadable));
        left_out.add(LeftOutItem::new("link", Reason::Symlink));
        assert_eq!((left_out.count(), left_out.failures()), (1002, 1));
        assert_eq!(left_out.items.len(), MAX_LISTED);
        let failed: Vec<_> = left_out.failed_items().map(|item| &*item.path).collect();
        assert_eq!(failed, ["bad"]);
    }
}

//! The rights of a member.

use std::{
    fmt,
    ops::{BitAnd, BitOr},
};

/// A set of rights.
///
/// Only sets that make sense can be made: whoever reads also locates, and whoever writes, invites or
/// removes also reads, for these make keys of epochs or hand them on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rights(u8);

impl Rights {
    /// No right at all.
    pub const NONE: Self = Self(0);
    /// Finds members and keeps a sealed copy of what they have.
    pub const REPLICA: Self = Self(1);
    /// Reads as well.
    pub const READ: Self = Self(3);
    /// Reads, and writes a repo of its own.
    pub const WRITE: Self = Self(7);
    /// Reads, and invites others.
    pub const INVITE: Self = Self(3 | 8);
    /// Reads, and removes others.
    pub const REMOVE: Self = Self(3 | 16);
    /// All rights.
    pub const ADMIN: Self = Self(31);

    /// Returns the set with these bits, if it makes sense.
    pub fn from_bits(bits: u8) -> Option<Self> {
        let above = bits & (4 | 8 | 16) != 0;
        let valid = bits < 32 && (!above || bits & 2 != 0) && (bits & 2 == 0 || bits & 1 != 0);
        valid.then_some(Self(bits))
    }

    /// Returns the bits: locate 1, read 2, write 4, invite 8, remove 16.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Returns whether all of `other` are among these.
    pub fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Rights {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Rights {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["locate", "read", "write", "invite", "remove"];
        let held = names.iter().enumerate();
        let held = held.filter(|(bit, _)| self.0 >> bit & 1 == 1);
        let held: Vec<_> = held.map(|(_, name)| *name).collect();
        write!(f, "Rights({})", held.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sets_that_make_sense_can_be_made() {
        let valid: Vec<_> = (0..=255)
            .filter(|bits| Rights::from_bits(*bits).is_some())
            .collect();
        assert_eq!(valid, [0, 1, 3, 7, 11, 15, 19, 23, 27, 31]);
        assert!(Rights::ADMIN.covers(Rights::INVITE) && !Rights::WRITE.covers(Rights::INVITE));
    }
}

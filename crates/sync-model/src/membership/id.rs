//! Names of operations.

use std::fmt;

/// The name of an operation: a hash of all of it but its signature.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct OpId(pub [u8; 32]);

impl OpId {
    /// The id of nothing, where an operation has none to name.
    pub const NONE: Self = Self([0; 32]);
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpId({})", data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

impl OpId {
    /// The label that pages and values sealed in the epoch with this id carry. Two epochs may have one label.
    pub fn label(&self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

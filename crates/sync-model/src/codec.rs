//! Reads the fixed layouts of groups field by field, from untrusted bytes, without panics.

use larder_store_api::{Error, Kind, Result};

/// Reads fields one after the other. Bytes that do not fit are [`Kind::Invalid`].
#[derive(Debug)]
pub struct Fields<'a> {
    operation: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Reads fields from these bytes.
    pub fn new(operation: &'static str, rest: &'a [u8]) -> Self {
        Self { operation, rest }
    }

    /// Reads the fields after the version byte, which must be `version`.
    pub fn versioned(operation: &'static str, version: u8, bytes: &'a [u8]) -> Result<Self> {
        let mut fields = Self {
            operation,
            rest: bytes,
        };
        match fields.u8()? {
            found if found == version => Ok(fields),
            found => Err(fields
                .invalid("the bytes have a version that is not known here")
                .with("version", found)),
        }
    }

    /// Returns the error for bytes that do not have the layout.
    pub fn invalid(&self, message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::new(Kind::Invalid, self.operation, message)
    }

    /// Reads `N` bytes.
    pub fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((field, rest)) = self.rest.split_first_chunk() else {
            return Err(self.invalid("the bytes end too early"));
        };
        self.rest = rest;
        Ok(*field)
    }

    /// Reads `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let Some((field, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.invalid("the bytes end too early"));
        };
        self.rest = rest;
        Ok(field)
    }

    /// Reads a byte.
    pub fn u8(&mut self) -> Result<u8> {
        self.take().map(u8::from_be_bytes)
    }

    /// Reads a big-endian number.
    pub fn u16(&mut self) -> Result<u16> {
        self.take().map(u16::from_be_bytes)
    }

    /// Reads a big-endian number.
    pub fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_be_bytes)
    }

    /// Reads a big-endian number.
    pub fn u64(&mut self) -> Result<u64> {
        self.take().map(u64::from_be_bytes)
    }

    /// Reads a big-endian number.
    pub fn i64(&mut self) -> Result<i64> {
        self.take().map(i64::from_be_bytes)
    }

    /// Returns true if no byte is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Returns the bytes that are left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Checks that no byte is left.
    pub fn end(self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let len = self.rest.len();
        Err(self
            .invalid("there are bytes after the end")
            .with("len", len))
    }
}

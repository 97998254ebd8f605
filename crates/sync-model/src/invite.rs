//! Invites: the keys of a group as one word of letters and digits, to be shown, scanned, pasted or sent.
//!
//! ```text
//! invite     "larder" | base32 of the bytes below, lower case, without padding
//! bytes      version u8 = 1 | kind u8 | epoch u32 | keys | name | count u8 | addresses | checksum [4]
//! kind, keys 1 write       secret
//!            2 read        group's key | read key | locate key
//!            3 replica     group's key | locate key
//!            4 device      secret | repo's secret                                 of a writer
//!            5 device      group's key | read key | locate key | repo's secret    of a reader
//!            (each key [32])
//! name       length u16 | text: the group's name, for those who may read it; empty where it is not known.
//!            An invite of kind 3 has no such field
//! address    0 | length u16 | text
//!            1 | length u8 | scheme | key [32] | length u16 | rest    of the text `scheme:KEYrest`, whose
//!            key is 64 hexadecimal digits in lower case
//! checksum   the first bytes of the BLAKE3 hash of all bytes before
//! ```
//!
//! An invite has exactly one text. Upper case, as QR codes like it, stands for the same; either is read. The
//! checksum is the first thing that is looked at, in every version: it tells what was mistyped or cut.

use std::{fmt, str::FromStr};

use bytes::BufMut;
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use larder_store_api::{Error, Kind, PublicKey, Result, SecretKey};
use zeroize::Zeroizing;

use crate::{
    codec::Fields,
    keys::{Access, GroupKeys, GroupSecret, LocateKey, ReadKey},
    records::{MAX_ADDRESS_LEN, MAX_LABEL_LEN},
};

/// The prefix of every invite.
pub const PREFIX: &str = "larder";

/// The most addresses of an invite.
pub const MAX_ADDRESSES: usize = 16;

/// The longest invite, in bytes.
pub const MAX_INVITE_LEN: usize = 28 * 1024;

const VERSION: u8 = 1;
const CHECKSUM_LEN: usize = 4;
const WRITE: u8 = 1;
const READ: u8 = 2;
const REPLICA: u8 = 3;
const WRITER_DEVICE: u8 = 4;
const READER_DEVICE: u8 = 5;
const TEXT: u8 = 0;
const KEYED: u8 = 1;

const PARSE: &str = "sync.invite.parse";
const NEW: &str = "sync.invite.new";

/// The purpose of an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InviteKind {
    /// A member who may write the group's record.
    Write,
    /// A member who may read.
    Read,
    /// A member who keeps a copy of everything, sealed.
    Replica,
    /// Another device of the same member: it writes the member's repo too.
    Device,
}

/// The keys of a group, its name, and addresses where members may be found.
///
/// Its text has the secrets in it; its `Debug` has not.
#[derive(Debug, Clone)]
pub struct Invite {
    keys: GroupKeys,
    repo: Option<SecretKey>,
    name: Option<String>,
    addresses: Vec<String>,
}

impl Invite {
    /// Makes an invite for a member, who gets these keys: see [`GroupKeys::to_read_only`] and
    /// [`GroupKeys::to_replica`] for lesser ones.
    ///
    /// More than [`MAX_ADDRESSES`] addresses, or one that is empty or longer than
    /// [`MAX_ADDRESS_LEN`], are [`Kind::Invalid`].
    pub fn member(keys: GroupKeys, addresses: Vec<String>) -> Result<Self> {
        check_addresses(NEW, &addresses)?;
        Ok(Self {
            keys,
            repo: None,
            name: None,
            addresses,
        })
    }

    /// Makes an invite for another device of the same member; `repo` is the secret of the member's repo.
    ///
    /// Keys of a replica, which has no repo, are [`Kind::Invalid`]; addresses as in
    /// [`member`](Self::member).
    pub fn device(keys: GroupKeys, repo: SecretKey, addresses: Vec<String>) -> Result<Self> {
        check_addresses(NEW, &addresses)?;
        if keys.read().is_none() {
            let message = "a replica has no repo";
            return Err(Error::new(Kind::Invalid, NEW, message));
        }
        Ok(Self {
            keys,
            repo: Some(repo),
            name: None,
            addresses,
        })
    }

    /// Adds the name of the group, so that it is known before anybody was met. An empty name counts as absent.
    ///
    /// More than [`MAX_LABEL_LEN`] bytes are [`Kind::TooLarge`]; a name for a replica, which must not
    /// read it, is [`Kind::Invalid`].
    pub fn with_name(mut self, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        if name.len() > MAX_LABEL_LEN {
            let message = format!("a name has at most {MAX_LABEL_LEN} bytes");
            return Err(Error::new(Kind::TooLarge, NEW, message).with("len", name.len()));
        }
        if self.keys.read().is_none() {
            let message = "a replica may not read the name of its group";
            return Err(Error::new(Kind::Invalid, NEW, message));
        }
        self.name = Some(name).filter(|name| !name.is_empty());
        Ok(self)
    }

    /// Returns the purpose of the invite.
    pub fn kind(&self) -> InviteKind {
        match (&self.repo, self.keys.access()) {
            (Some(_), _) => InviteKind::Device,
            (None, Access::Write { .. }) => InviteKind::Write,
            (None, Access::Read { .. }) => InviteKind::Read,
            (None, Access::Replica { .. }) => InviteKind::Replica,
        }
    }

    /// Returns the keys that it gives.
    pub fn keys(&self) -> &GroupKeys {
        &self.keys
    }

    /// Returns the secret of the repo, if the invite is for a device.
    pub fn repo(&self) -> Option<&SecretKey> {
        self.repo.as_ref()
    }

    /// Returns the name of the group; `None` in an invite for a replica, and where it is not known.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the addresses at which members may be found.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Returns the bytes that the text stands for, without their checksum.
    fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Enough for all but addresses, so that no secret is left behind by a vector that grows.
        let mut bytes = Zeroizing::new(Vec::with_capacity(256 + MAX_LABEL_LEN));
        let kind = match (self.keys.access(), &self.repo) {
            (Access::Write { .. }, None) => WRITE,
            (Access::Read { .. }, None) => READ,
            (Access::Write { .. }, Some(_)) => WRITER_DEVICE,
            (Access::Read { .. }, Some(_)) => READER_DEVICE,
            (Access::Replica { .. }, _) => REPLICA,
        };
        bytes.put_u8(VERSION);
        bytes.put_u8(kind);
        bytes.put_u32(self.keys.epoch());
        match self.keys.access() {
            Access::Write { secret, .. } => bytes.put_slice(secret.key().expose()),
            Access::Read { read, locate } => {
                bytes.put_slice(&self.keys.group().0);
                bytes.put_slice(read.expose());
                bytes.put_slice(locate.expose());
            }
            Access::Replica { locate } => {
                bytes.put_slice(&self.keys.group().0);
                bytes.put_slice(locate.expose());
            }
        }
        if let Some(repo) = &self.repo {
            bytes.put_slice(repo.expose());
        }
        if kind != REPLICA {
            put_text(&mut bytes, self.name.as_deref().unwrap_or_default());
        }
        bytes.put_u8(
            u8::try_from(self.addresses.len()).expect("an invite has at most 16 addresses"),
        );
        for address in &self.addresses {
            put_address(&mut bytes, address);
        }
        bytes
    }

    /// Reads the bytes that the text stands for, after their checksum was compared.
    fn decode(bytes: &[u8]) -> Result<Self> {
        let Some((&VERSION, fields)) = bytes.split_first() else {
            let message = "the invite was made by another version: update";
            return Err(Error::new(Kind::Unsupported, PARSE, message));
        };
        let mut fields = Fields::new(PARSE, fields);
        let kind = fields.u8()?;
        let epoch = fields.u32()?;
        let keys = match kind {
            WRITE | WRITER_DEVICE => {
                GroupKeys::write(GroupSecret::from_key(take_key(&mut fields)?), epoch)
            }
            READ | READER_DEVICE => {
                let group = PublicKey(fields.take()?);
                let read = ReadKey::from_bytes(*take_key(&mut fields)?.expose(), epoch);
                let locate = LocateKey::from_bytes(*take_key(&mut fields)?.expose(), epoch);
                GroupKeys::read_only(group, read, locate)?
            }
            REPLICA => {
                let group = PublicKey(fields.take()?);
                let locate = LocateKey::from_bytes(*take_key(&mut fields)?.expose(), epoch);
                GroupKeys::replica(group, locate)
            }
            kind => {
                let error = fields.invalid("the kind of the invite is not known here");
                return Err(error.with("kind", kind));
            }
        };
        let repo = match kind {
            WRITER_DEVICE | READER_DEVICE => Some(take_key(&mut fields)?),
            _ => None,
        };
        let name = match kind {
            REPLICA => None,
            _ => Some(take_text(&mut fields)?).filter(|name| !name.is_empty()),
        };
        if name.as_ref().is_some_and(|name| name.len() > MAX_LABEL_LEN) {
            return Err(fields.invalid("the name of the group is too long"));
        }
        let count = fields.u8()?;
        let addresses = (0..count).map(|_| take_address(&mut fields));
        let addresses = addresses.collect::<Result<Vec<_>>>()?;
        fields.end()?;
        check_addresses(PARSE, &addresses)?;
        let invite = Self {
            keys,
            repo,
            name,
            addresses,
        };
        // An address has two forms, of which one is right.
        if *invite.encode() != bytes {
            let message = "the invite is not written as invites are";
            return Err(Error::new(Kind::Invalid, PARSE, message));
        }
        Ok(invite)
    }
}

impl PartialEq for Invite {
    fn eq(&self, other: &Self) -> bool {
        let repo = |invite: &Self| invite.repo.as_ref().map(|key| *key.expose());
        self.keys == other.keys
            && repo(self) == repo(other)
            && self.name == other.name
            && self.addresses == other.addresses
    }
}

impl Eq for Invite {}

/// The text of the invite, secrets and all.
impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text_of(&self.encode()))
    }
}

impl FromStr for Invite {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.len() > MAX_INVITE_LEN {
            let message = format!("an invite has at most {MAX_INVITE_LEN} bytes");
            return Err(Error::new(Kind::TooLarge, PARSE, message).with("len", text.len()));
        }
        let invalid = |message: &'static str| Error::new(Kind::Invalid, PARSE, message);
        let text = Zeroizing::new(text.to_ascii_uppercase());
        let prefix = PREFIX.to_ascii_uppercase();
        let digits = text.strip_prefix(&*prefix);
        let digits = digits.ok_or_else(|| invalid("an invite begins with `larder`"))?;
        let is_strange = |c: char| !matches!(c, 'A'..='Z' | '2'..='7');
        if let Some((before, _)) = digits.split_once(is_strange) {
            let at = PREFIX.len() + before.chars().count() + 1;
            let message =
                "an invite has only letters and the digits 2 to 7: one character is wrong";
            return Err(invalid(message).with("position", at));
        }
        let garbled = || invalid("the invite is not complete, or one of its characters is wrong");
        let bytes = BASE32_NOPAD.decode(digits.as_bytes()).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| garbled())?;
        let (bytes, check) = bytes.split_last_chunk().ok_or_else(garbled)?;
        if checksum(bytes) != *check {
            return Err(garbled());
        }
        Self::decode(bytes)
    }
}

/// Returns the text that stands for these bytes and their checksum.
pub(crate) fn text_of(bytes: &[u8]) -> Zeroizing<String> {
    let mut all = Zeroizing::new(Vec::with_capacity(bytes.len() + CHECKSUM_LEN));
    all.extend_from_slice(bytes);
    all.extend_from_slice(&checksum(bytes));
    let digits = Zeroizing::new(BASE32_NOPAD.encode(&all));
    let mut text = Zeroizing::new([PREFIX, &digits].concat());
    text.make_ascii_lowercase();
    text
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let [a, b, c, d, ..] = *blake3::hash(bytes).as_bytes();
    [a, b, c, d]
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("names and addresses have at most 1 KiB");
    bytes.put_u16(len);
    bytes.put_slice(text.as_bytes());
}

fn put_address(bytes: &mut Vec<u8>, address: &str) {
    let Some((scheme, key, rest)) = split_key(address) else {
        bytes.put_u8(TEXT);
        return put_text(bytes, address);
    };
    bytes.put_u8(KEYED);
    bytes.put_u8(u8::try_from(scheme.len()).expect("it was split off"));
    bytes.put_slice(scheme.as_bytes());
    bytes.put_slice(&key);
    put_text(bytes, rest);
}

/// Splits the text of an address into its scheme, its key and the rest, where it has a key.
fn split_key(address: &str) -> Option<(&str, [u8; 32], &str)> {
    let (scheme, rest) = address.split_once(':')?;
    let (key, rest) = rest.split_at_checked(64)?;
    let key = HEXLOWER.decode(key.as_bytes()).ok()?.try_into().ok()?;
    (scheme.len() <= u8::MAX.into()).then_some((scheme, key, rest))
}

fn take_key(fields: &mut Fields<'_>) -> Result<SecretKey> {
    let key = Zeroizing::new(fields.take()?);
    Ok(SecretKey::from_bytes(*key))
}

fn take_text(fields: &mut Fields<'_>) -> Result<String> {
    let len = fields.u16()?;
    take_str(fields, len.into()).map(str::to_owned)
}

fn take_str<'a>(fields: &mut Fields<'a>, len: usize) -> Result<&'a str> {
    let text = str::from_utf8(fields.bytes(len)?);
    text.map_err(|error| {
        let error = fields
            .invalid("a name or an address is not valid UTF-8")
            .because(error);
        error.with("len", len)
    })
}

fn take_address(fields: &mut Fields<'_>) -> Result<String> {
    match fields.u8()? {
        TEXT => take_text(fields),
        KEYED => {
            let len = fields.u8()?;
            let scheme = take_str(fields, len.into())?;
            let key = HEXLOWER.encode(&fields.take::<32>()?);
            Ok(format!("{scheme}:{key}{}", take_text(fields)?))
        }
        form => {
            let error = fields.invalid("the form of an address is not known here");
            Err(error.with("form", form))
        }
    }
}

fn check_addresses(operation: &'static str, addresses: &[String]) -> Result<()> {
    let invalid =
        |message: String| Error::new(Kind::Invalid, operation, message).with("field", "at");
    if addresses.len() > MAX_ADDRESSES {
        let message = format!("an invite has at most {MAX_ADDRESSES} addresses");
        return Err(invalid(message).with("addresses", addresses.len()));
    }
    let wrong = |address: &&String| address.is_empty() || address.len() > MAX_ADDRESS_LEN;
    if let Some(address) = addresses.iter().find(wrong) {
        let message = format!("an address has 1 to {MAX_ADDRESS_LEN} bytes");
        return Err(invalid(message).with("len", address.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

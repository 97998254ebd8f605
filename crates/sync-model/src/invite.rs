//! Invites: the key of an invite and the group that it leads to, as one word of letters and digits, to be shown,
//! scanned, pasted or sent.
//!
//! ```text
//! invite     "larder" | base32 of the bytes below, lower case, without padding
//! bytes      version u8 = 2 | kind u8 | seed [32] | group [32] | repos | name | count u8 | addresses | checksum [4]
//! kind       1 write, 2 read, 3 replica, 4 device, 5 admin, 6 recovery
//! seed       derives the keys of the invite; of a recovery, the secret of the group's root
//! repos      of kind 4 alone: count u8 | for each, its secret [32]
//! name       length u16 | text: the group's name, for those who may read it; empty where it is not known.
//!            Invites of the kinds 3 and 6 have no such field
//! address    0 | length u16 | text
//!            1 | length u8 | scheme | key [32] | length u16 | rest    of the text `scheme:KEYrest`, whose
//!            key is 64 hexadecimal digits in lower case
//! checksum   the first bytes of the BLAKE3 hash of all bytes before
//! ```
//!
//! No key that opens anything is in it: what the invite gives is said by an operation that names its key, and others
//! can end it.
//!
//! An invite has exactly one text. Upper case, as QR codes like it, stands for the same; either is read. The
//! checksum is the first thing that is looked at, in every version: it tells what was mistyped or cut.

use std::{fmt, str::FromStr};

use bytes::BufMut;
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use larder_store_api::{Error, Kind, PublicKey, RecordId, Result, SecretKey};
use larder_store_engine::{public_key, random};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::{
    codec::Fields,
    keys::same,
    membership::{BoxSecret, Rights},
    records::{MAX_ADDRESS_LEN, MAX_LABEL_LEN},
};

/// The prefix of every invite.
pub const PREFIX: &str = "larder";

/// The most addresses of an invite.
pub const MAX_ADDRESSES: usize = 16;

/// The longest invite, in bytes.
pub const MAX_INVITE_LEN: usize = 28 * 1024;

/// The most repos whose secrets an invite brings.
pub const MAX_REPOS: usize = 8;

const VERSION: u8 = 2;
const CHECKSUM_LEN: usize = 4;
const TEXT: u8 = 0;
const KEYED: u8 = 1;

const SIGN: &str = "larder 2026 group invite key v1";
const BOX: &str = "larder 2026 group invite box key v1";

const PARSE: &str = "sync.invite.parse";
const NEW: &str = "sync.invite.new";

/// The purpose of an invite. The rights that it gives are said by the group's operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InviteKind {
    /// A member who reads everything and writes a repo of its own.
    Write,
    /// A member who may read.
    Read,
    /// A member who keeps a copy of everything, sealed.
    Replica,
    /// Another device of the same member: it writes the member's repos too.
    Device,
    /// A member who may also invite and remove others.
    Admin,
    /// The root of the group: whoever has it gets all rights, for a device of the group's creator.
    Recovery,
}

impl InviteKind {
    fn number(self) -> u8 {
        match self {
            Self::Write => 1,
            Self::Read => 2,
            Self::Replica => 3,
            Self::Device => 4,
            Self::Admin => 5,
            Self::Recovery => 6,
        }
    }

    fn of(number: u8) -> Option<Self> {
        let all = [
            Self::Write,
            Self::Read,
            Self::Replica,
            Self::Device,
            Self::Admin,
            Self::Recovery,
        ];
        all.into_iter().find(|kind| kind.number() == number)
    }

    /// Returns the rights that such an invite gives; of a device those that its owner has.
    pub fn rights(self) -> Rights {
        match self {
            Self::Write => Rights::WRITE,
            Self::Read => Rights::READ,
            Self::Replica => Rights::REPLICA,
            Self::Device | Self::Admin | Self::Recovery => Rights::ADMIN,
        }
    }

    fn has_name(self) -> bool {
        !matches!(self, Self::Replica | Self::Recovery)
    }
}

/// The secret of an invite, from which its keys follow.
#[derive(Clone, ZeroizeOnDrop)]
pub struct InviteSeed([u8; 32]);

impl InviteSeed {
    /// A new one, from the operating system's randomness; [`Kind::Unavailable`] if it has none.
    pub fn generate() -> Result<Self> {
        let mut seed = Self([0; 32]);
        random("sync.invite.generate", &mut seed.0)?;
        Ok(seed)
    }

    /// A seed from its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes, for whoever keeps them.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the key that signs the claim of the invite.
    pub fn key(&self) -> SecretKey {
        SecretKey::from_bytes(blake3::derive_key(SIGN, &self.0))
    }

    /// Returns the name of the invite in the group's operations.
    pub fn public(&self) -> PublicKey {
        public_key(&self.key())
    }

    /// Returns the secret that opens the boxes to the invite.
    pub fn boxes(&self) -> BoxSecret {
        BoxSecret::from_seed(blake3::derive_key(BOX, &self.0))
    }
}

impl fmt::Debug for InviteSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteSeed(…)")
    }
}

impl PartialEq for InviteSeed {
    /// Compares in constant time.
    fn eq(&self, other: &Self) -> bool {
        same(&self.0, &other.0)
    }
}

impl Eq for InviteSeed {}

/// The key of an invite, the group that it leads to, and addresses where members may be found.
///
/// Its text has the secret in it; its `Debug` has not.
#[derive(Debug, Clone)]
pub struct Invite {
    kind: InviteKind,
    seed: InviteSeed,
    group: RecordId,
    repos: Vec<SecretKey>,
    name: Option<String>,
    addresses: Vec<String>,
}

impl Invite {
    /// Makes the text for an invite that the group's operations name.
    ///
    /// More than [`MAX_ADDRESSES`] addresses, or one that is empty or longer than
    /// [`MAX_ADDRESS_LEN`], are [`Kind::Invalid`].
    pub fn new(
        kind: InviteKind,
        group: RecordId,
        seed: InviteSeed,
        addresses: Vec<String>,
    ) -> Result<Self> {
        check_addresses(NEW, &addresses)?;
        Ok(Self {
            kind,
            seed,
            group,
            repos: Vec::new(),
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
        if !self.kind.has_name() {
            let message = "a replica may not read the name of its group";
            return Err(Error::new(Kind::Invalid, NEW, message));
        }
        self.name = Some(name).filter(|name| !name.is_empty());
        Ok(self)
    }

    /// Adds the secrets of the repos that a further device of their owner writes too.
    ///
    /// More than [`MAX_REPOS`], or any in an invite that is not for a device, are [`Kind::Invalid`].
    pub fn with_repos(mut self, repos: Vec<SecretKey>) -> Result<Self> {
        if self.kind != InviteKind::Device || repos.len() > MAX_REPOS {
            let message = "only an invite for a device brings repos, and not many";
            return Err(Error::new(Kind::Invalid, NEW, message).with("repos", repos.len()));
        }
        self.repos = repos;
        Ok(self)
    }

    /// Returns the purpose of the invite.
    pub fn kind(&self) -> InviteKind {
        self.kind
    }

    /// Returns the secret of the invite.
    pub fn seed(&self) -> &InviteSeed {
        &self.seed
    }

    /// Returns the id of the group.
    pub fn group(&self) -> RecordId {
        self.group
    }

    /// Returns the secrets of the repos that it brings, if it is for a device.
    pub fn repos(&self) -> &[SecretKey] {
        &self.repos
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
        let capacity = 256 + 32 * MAX_REPOS + MAX_LABEL_LEN;
        let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
        bytes.put_u8(VERSION);
        bytes.put_u8(self.kind.number());
        bytes.put_slice(self.seed.expose());
        bytes.put_slice(&self.group.0);
        if self.kind == InviteKind::Device {
            bytes.put_u8(u8::try_from(self.repos.len()).expect("checked: at most 8"));
            for repo in &self.repos {
                bytes.put_slice(repo.expose());
            }
        }
        if self.kind.has_name() {
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
            let error = Error::new(
                Kind::Unsupported,
                PARSE,
                "the invite was made by another version: update, or ask for a new one",
            );
            return Err(error.with("version", bytes.first().copied().unwrap_or_default()));
        };
        let mut fields = Fields::new(PARSE, fields);
        let number = fields.u8()?;
        let kind = InviteKind::of(number).ok_or_else(|| {
            let error = fields.invalid("the kind of the invite is not known here");
            error.with("kind", number)
        })?;
        let seed = InviteSeed(*Zeroizing::new(fields.take()?));
        let group = RecordId(fields.take()?);
        let mut repos = Vec::new();
        if kind == InviteKind::Device {
            let count = usize::from(fields.u8()?);
            if count > MAX_REPOS {
                return Err(fields.invalid("the invite brings too many repos"));
            }
            for _ in 0..count {
                repos.push(take_key(&mut fields)?);
            }
        }
        let name = match kind.has_name() {
            true => Some(take_text(&mut fields)?).filter(|name| !name.is_empty()),
            false => None,
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
            kind,
            seed,
            group,
            repos,
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
        *self.encode() == *other.encode()
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

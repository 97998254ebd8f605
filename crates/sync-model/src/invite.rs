//! Invites: the keys of a group as one line of text, to be shown, scanned or sent.
//!
//! ```text
//! larder:group/1?kind=write&key=K&epoch=E&at=A…
//! larder:group/1?kind=read&group=G&read=R&locate=L&epoch=E&at=A…
//! larder:group/1?kind=replica&group=G&locate=L&epoch=E&at=A…
//! larder:group/1?kind=device&key=K&epoch=E&repo=S&at=A…
//! larder:group/1?kind=device&group=G&read=R&locate=L&epoch=E&repo=S&at=A…
//! ```
//!
//! K, G, R, L and S are 32 bytes in base64url without padding: the group's secret, its public key,
//! its read key and its locate key, and the secret of a repo. E is decimal. Each A is an address of
//! a member, text that a network understands, in base64url. `kind` comes first; the others may come
//! in any order.

use std::{fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use larder_store_api::{Error, Kind, PublicKey, Result, SecretKey};
use zeroize::Zeroizing;

use crate::{
    keys::{Access, GroupKeys, GroupSecret, LocateKey, ReadKey},
    records::MAX_ADDRESS_LEN,
};

/// The prefix of every invite of this version.
pub const PREFIX: &str = "larder:group/1?";

/// The most addresses of an invite.
pub const MAX_ADDRESSES: usize = 16;

/// The longest invite, in bytes.
pub const MAX_INVITE_LEN: usize = 24 * 1024;

const SCHEME: &str = "larder:group/";
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

impl InviteKind {
    fn name(self) -> &'static str {
        match self {
            InviteKind::Write => "write",
            InviteKind::Read => "read",
            InviteKind::Replica => "replica",
            InviteKind::Device => "device",
        }
    }
}

/// The keys of a group, and addresses where members may be found.
///
/// Its text has the secrets in it; its `Debug` has not.
#[derive(Debug, Clone)]
pub struct Invite {
    keys: GroupKeys,
    repo: Option<SecretKey>,
    addresses: Vec<String>,
}

impl Invite {
    /// An invite for a member, who gets these keys: see [`GroupKeys::to_read_only`] and
    /// [`GroupKeys::to_replica`] for lesser ones.
    ///
    /// More than [`MAX_ADDRESSES`] addresses, or one that is empty or longer than
    /// [`MAX_ADDRESS_LEN`], are [`Kind::Invalid`].
    pub fn member(keys: GroupKeys, addresses: Vec<String>) -> Result<Self> {
        check_addresses(NEW, &addresses)?;
        Ok(Self {
            keys,
            repo: None,
            addresses,
        })
    }

    /// An invite for another device of the same member; `repo` is the secret of the member's repo.
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
            addresses,
        })
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

    /// The keys that it gives.
    pub fn keys(&self) -> &GroupKeys {
        &self.keys
    }

    /// The secret of the repo, where it is for a device.
    pub fn repo(&self) -> Option<&SecretKey> {
        self.repo.as_ref()
    }

    /// Returns the addresses at which members may be found.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }
}

impl PartialEq for Invite {
    fn eq(&self, other: &Self) -> bool {
        let repo = |invite: &Self| invite.repo.as_ref().map(|key| *key.expose());
        self.keys == other.keys && repo(self) == repo(other) && self.addresses == other.addresses
    }
}

impl Eq for Invite {}

/// The text of the invite, secrets and all.
impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = |f: &mut fmt::Formatter<'_>, name: &str, key: &[u8; 32]| {
            let text = Zeroizing::new(BASE64URL_NOPAD.encode(key));
            write!(f, "&{name}={}", *text)
        };
        write!(f, "{PREFIX}kind={}", self.kind().name())?;
        match self.keys.access() {
            Access::Write { secret, .. } => key(f, "key", secret.key().expose())?,
            Access::Read { read, locate } => {
                key(f, "group", &self.keys.group().0)?;
                key(f, "read", read.expose())?;
                key(f, "locate", locate.expose())?;
            }
            Access::Replica { locate } => {
                key(f, "group", &self.keys.group().0)?;
                key(f, "locate", locate.expose())?;
            }
        }
        write!(f, "&epoch={}", self.keys.epoch())?;
        if let Some(repo) = &self.repo {
            key(f, "repo", repo.expose())?;
        }
        self.addresses
            .iter()
            .try_for_each(|address| write!(f, "&at={}", BASE64URL_NOPAD.encode(address.as_bytes())))
    }
}

impl FromStr for Invite {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.len() > MAX_INVITE_LEN {
            let message = format!("an invite has at most {MAX_INVITE_LEN} bytes");
            return Err(Error::new(Kind::TooLarge, PARSE, message).with("len", text.len()));
        }
        let fields = match text.strip_prefix(PREFIX) {
            Some(fields) => fields,
            None if text.starts_with(SCHEME) => {
                let message = "the invite was made by another version: update";
                return Err(Error::new(Kind::Unsupported, PARSE, message));
            }
            None => {
                let message = format!("an invite begins with {PREFIX}");
                return Err(Error::new(Kind::Invalid, PARSE, message));
            }
        };
        Parts::parse(fields)?.invite()
    }
}

/// The fields of an invite, as far as they are there.
#[derive(Default)]
struct Parts {
    kind: Option<InviteKind>,
    key: Option<SecretKey>,
    group: Option<SecretKey>,
    read: Option<SecretKey>,
    locate: Option<SecretKey>,
    repo: Option<SecretKey>,
    epoch: Option<u32>,
    addresses: Vec<String>,
}

impl Parts {
    fn parse(text: &str) -> Result<Self> {
        let mut parts = Self::default();
        for field in text.split('&') {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            if parts.kind.is_none() && name != "kind" {
                return Err(bad("kind", "the field comes first"));
            }
            match name {
                "kind" => put("kind", &mut parts.kind, parse_kind(value)?)?,
                "key" => put("key", &mut parts.key, parse_key("key", value)?)?,
                "group" => put("group", &mut parts.group, parse_key("group", value)?)?,
                "read" => put("read", &mut parts.read, parse_key("read", value)?)?,
                "locate" => put("locate", &mut parts.locate, parse_key("locate", value)?)?,
                "repo" => put("repo", &mut parts.repo, parse_key("repo", value)?)?,
                "epoch" => put("epoch", &mut parts.epoch, parse_epoch(value)?)?,
                "at" => parts.addresses.push(parse_address(value)?),
                _ => {
                    // Whatever it is, it may be part of a secret that was cut or garbled.
                    let known = name.len() <= 16 && name.bytes().all(|b| b.is_ascii_lowercase());
                    return Err(bad(
                        if known { name } else { "…" },
                        "there is no such field",
                    ));
                }
            }
        }
        check_addresses(PARSE, &parts.addresses)?;
        Ok(parts)
    }

    fn invite(mut self) -> Result<Invite> {
        let kind = self
            .kind
            .ok_or_else(|| bad("kind", "the field is missing"))?;
        let secret = match kind {
            InviteKind::Write => true,
            InviteKind::Device => self.key.is_some(),
            InviteKind::Read | InviteKind::Replica => false,
        };
        let epoch = need("epoch", &mut self.epoch)?;
        let keys = if secret {
            GroupKeys::write(GroupSecret::from_key(need("key", &mut self.key)?), epoch)
        } else {
            let group = PublicKey(*need("group", &mut self.group)?.expose());
            let locate = need("locate", &mut self.locate)?;
            let locate = LocateKey::from_bytes(*locate.expose(), epoch);
            if kind == InviteKind::Replica {
                GroupKeys::replica(group, locate)
            } else {
                let read = ReadKey::from_bytes(*need("read", &mut self.read)?.expose(), epoch);
                GroupKeys::read_only(group, read, locate)?
            }
        };
        let repo = match kind {
            InviteKind::Device => Some(need("repo", &mut self.repo)?),
            _ => None,
        };
        // What is left contradicts the kind or another field.
        let left = [
            ("key", &self.key),
            ("group", &self.group),
            ("read", &self.read),
            ("locate", &self.locate),
            ("repo", &self.repo),
        ];
        if let Some((name, _)) = left.iter().find(|(_, field)| field.is_some()) {
            return Err(bad(name, "the field contradicts the others").with("kind", kind.name()));
        }
        Ok(Invite {
            keys,
            repo,
            addresses: self.addresses,
        })
    }
}

/// An error that names its field, and nothing of what is in it.
fn bad(field: &str, message: &'static str) -> Error {
    Error::new(Kind::Invalid, PARSE, message).with("field", field)
}

fn put<T>(name: &str, field: &mut Option<T>, value: T) -> Result<()> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(bad(name, "the field comes twice")),
    }
}

fn need<T>(name: &str, field: &mut Option<T>) -> Result<T> {
    field
        .take()
        .ok_or_else(|| bad(name, "the field is missing"))
}

fn parse_kind(text: &str) -> Result<InviteKind> {
    use InviteKind::{Device, Read, Replica, Write};
    [Write, Read, Replica, Device]
        .into_iter()
        .find(|kind| kind.name() == text)
        .ok_or_else(|| bad("kind", "the kind is not known here"))
}

fn parse_key(name: &str, text: &str) -> Result<SecretKey> {
    let garbled = || bad(name, "the field is no key of 32 bytes");
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map(Zeroizing::new);
    let bytes = bytes.map_err(|_| garbled())?;
    let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| garbled())?;
    Ok(SecretKey::from_bytes(key))
}

fn parse_epoch(text: &str) -> Result<u32> {
    let epoch = text.parse::<u32>().ok();
    // Only as it is printed: no sign, no leading zeros.
    epoch
        .filter(|epoch| epoch.to_string() == text)
        .ok_or_else(|| bad("epoch", "the field is no number of an epoch"))
}

fn parse_address(text: &str) -> Result<String> {
    let garbled = |_| bad("at", "the field is no address");
    let bytes = BASE64URL_NOPAD
        .decode(text.as_bytes())
        .map_err(|_| bad("at", "the field is no address"))?;
    String::from_utf8(bytes).map_err(garbled)
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> GroupKeys {
        GroupKeys::write(GroupSecret::from_key(SecretKey::from_bytes([7; 32])), 3)
    }

    fn all() -> Vec<Invite> {
        let (write, repo) = (keys(), SecretKey::from_bytes([8; 32]));
        let read = write.to_read_only().unwrap();
        let at = vec!["mem://a".to_owned(), "ticket b&c=d".to_owned()];
        vec![
            Invite::member(write.clone(), at.clone()).unwrap(),
            Invite::member(read.clone(), vec![]).unwrap(),
            Invite::member(write.to_replica(), at.clone()).unwrap(),
            Invite::device(write, repo.clone(), at).unwrap(),
            Invite::device(read, repo, vec![]).unwrap(),
        ]
    }

    #[test]
    fn texts_are_pinned_and_parse() {
        let lines: Vec<_> = all().iter().map(ToString::to_string).collect();
        crate::golden::check("invites.txt", &lines);
        for (line, invite) in lines.iter().zip(all()) {
            let parsed: Invite = line.parse().unwrap();
            assert_eq!(parsed, invite);
            assert_eq!(parsed.kind(), invite.kind());
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        for invite in all() {
            let debug = format!("{invite:?}");
            assert!(
                !debug.contains("7, 7") && !debug.contains("0707"),
                "{debug}"
            );
            assert!(
                !debug.contains(&BASE64URL_NOPAD.encode(&[7; 32])),
                "{debug}"
            );
            assert!(debug.contains("(…"), "{debug}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        let lines: Vec<_> = all().iter().map(ToString::to_string).collect();
        let [write, read, replica, device, _] = &lines[..] else {
            panic!("five invites");
        };
        let key = BASE64URL_NOPAD.encode(&[7; 32]);
        let cases = [
            (write.replace("&epoch=3", ""), "epoch", "missing"),
            (write.replace("epoch=3", "epoch=03"), "epoch", "no number"),
            (write.replace("epoch=3", "epoch=+3"), "epoch", "no number"),
            (
                write.replace("epoch=3", "epoch=4294967296"),
                "epoch",
                "no number",
            ),
            (write.replace("&key=", "&kee="), "kee", "no such"),
            (write.replace("&key=B", "&key="), "key", "no key"),
            (write.replace("&key=B", "&key=="), "key", "no key"),
            (
                write.replace("kind=write", "kind=owner"),
                "kind",
                "not known",
            ),
            (write.replace("kind=write&", ""), "kind", "first"),
            (write.replace("kind=write", "kind=read"), "group", "missing"),
            (format!("{write}&epoch=3"), "epoch", "twice"),
            (format!("{write}&kind=write"), "kind", "twice"),
            (format!("{write}&group={key}"), "group", "contradicts"),
            (format!("{write}&repo={key}"), "repo", "contradicts"),
            (format!("{write}&at=!"), "at", "no address"),
            (format!("{write}&at=_w"), "at", "no address"),
            (format!("{write}&at="), "at", "1 to 1024"),
            (
                format!("{write}{}", "&at=YQ".repeat(15)),
                "at",
                "at most 16",
            ),
            (format!("{write}&"), "", "no such"),
            (format!("{write}&{key}"), "…", "no such"),
            (format!("{read}&key={key}"), "key", "contradicts"),
            (format!("{replica}&read={key}"), "read", "contradicts"),
            (format!("{device}&locate={key}"), "locate", "contradicts"),
            (device.replace("&repo=", "&key="), "key", "twice"),
        ];
        for (text, field, message) in cases {
            let error = text.parse::<Invite>().unwrap_err();
            let error_text = error.to_string();
            assert_eq!(error.kind(), Kind::Invalid, "{text}");
            assert!(
                error_text.contains(&format!("field={field}")),
                "{error_text}"
            );
            assert!(error_text.contains(message), "{error_text}");
            assert!(!format!("{error:?}").contains(&key), "{error:?}");
        }
        let newer = write.replace("group/1", "group/2");
        let error = newer.parse::<Invite>().unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        let long = format!("{write}&at={}", "YQ".repeat(MAX_INVITE_LEN));
        let error = long.parse::<Invite>().unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
        for none in ["", PREFIX] {
            let error = none.parse::<Invite>().unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{none:?}");
        }
    }

    #[test]
    fn the_longest_invite_parses() {
        let at = vec!["a".repeat(MAX_ADDRESS_LEN); MAX_ADDRESSES];
        let read = keys().to_read_only().unwrap();
        let invite = Invite::device(read, SecretKey::from_bytes([8; 32]), at).unwrap();
        assert_eq!(invite.to_string().parse::<Invite>().unwrap(), invite);
    }

    #[test]
    fn a_replica_has_no_device() {
        let error = Invite::device(keys().to_replica(), SecretKey::from_bytes([8; 32]), vec![]);
        assert_eq!(error.unwrap_err().kind(), Kind::Invalid);
    }

    proptest! {
        #[test]
        fn any_text_is_safe(text in ".*", fields in "(&?(kind|key|epoch|at|read)=[a-zA-Z0-9]*)*") {
            let fields = format!("{PREFIX}{fields}");
            for text in [text, fields] {
                let error = text.parse::<Invite>().expect_err("it has no key");
                let expected = match text.len() > MAX_INVITE_LEN {
                    true => Kind::TooLarge,
                    false => Kind::Invalid,
                };
                prop_assert_eq!(error.kind(), expected);
            }
        }

        #[test]
        fn what_is_printed_parses(secret: [u8; 32], repo: [u8; 32], epoch: u32, level in 0..5,
            at in proptest::collection::vec(".{1,64}", 0..16))
        {
            let write = GroupKeys::write(GroupSecret::from_key(SecretKey::from_bytes(secret)), epoch);
            let read = write.to_read_only().unwrap();
            let repo = SecretKey::from_bytes(repo);
            let invite = match level {
                0 => Invite::member(write, at),
                1 => Invite::member(read, at),
                2 => Invite::member(write.to_replica(), at),
                3 => Invite::device(write, repo, at),
                _ => Invite::device(read, repo, at),
            };
            let invite = invite.unwrap();
            prop_assert_eq!(invite.to_string().parse::<Invite>().unwrap(), invite);
        }
    }
}

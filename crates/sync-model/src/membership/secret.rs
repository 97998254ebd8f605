//! The secrets of epochs: made at random, boxed to each recipient, and linked to those before.
//!
//! ```text
//! read, locate   BLAKE3 derive_key(context, S)          S: 32 random bytes
//! commit         BLAKE3 derive_key(context, S), and of the locate key
//! box            suite u8=1 | encapsulated key [32] | HPKE base mode, X25519, HKDF-SHA256, ChaCha20-Poly1305
//!                of S, of the locate key for a replica; info: context, group, recipient, commit
//! box list       version u8=1 | a box for each recipient, in their order
//! link           ChaCha20-Poly1305, nonce 0, under derive_key(context, read | id of the earlier epoch), of the
//!                earlier S; and under one of the locate key, of the earlier locate key
//! ```

use std::fmt;

use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, aead::Aead};
use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable,
    aead::ChaCha20Poly1305 as BoxCipher,
    kdf::HkdfSha256,
    kem::X25519HkdfSha256,
    rand_core::{TryCryptoRng, TryRng},
    single_shot_open, single_shot_seal_with_rng,
};
use larder_store_api::{Error, Kind, PublicKey, Result};
use larder_store_engine::{Hash, random};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::{
    MAX_OPS,
    body::{BOX_LEN, BoxKey, Epoch, Link, SealedBox},
    epoch::{Recipient, Recipients},
    id::OpId,
};
use crate::keys::{LocateKey, ReadKey, same};

const READ: &str = "larder 2026 group epoch read key v1";
const LOCATE: &str = "larder 2026 group epoch locate key v1";
const COMMIT: &str = "larder 2026 group epoch commitment v1";
const LOCATE_COMMIT: &str = "larder 2026 group epoch locate commitment v1";
const LINK: &str = "larder 2026 group epoch link v1";
const LOCATE_LINK: &str = "larder 2026 group epoch locate link v1";
const BOX: &[u8] = b"larder 2026 group box v1";
const STREAM: &str = "larder 2026 group box randomness v1";

/// The longest list of boxes: one for each device that a group can have.
pub const MAX_LIST_LEN: usize = 1 + MAX_OPS * BOX_LEN;

const SUITE: u8 = 1;
const LIST_VERSION: u8 = 1;
const SEAL: &str = "membership.box.seal";
const OPEN: &str = "membership.box.open";

/// The secret of an epoch.
#[derive(Clone, ZeroizeOnDrop)]
pub struct EpochSecret([u8; 32]);

impl EpochSecret {
    /// A new one, from the operating system's randomness; [`Kind::Unavailable`] if it has none.
    pub fn generate() -> Result<Self> {
        let mut secret = Self([0; 32]);
        random("membership.epoch.generate", &mut secret.0)?;
        Ok(secret)
    }

    /// A secret from its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes, for whoever keeps them.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the key that opens names, pages and files of the epoch with this label.
    pub fn read(&self, label: u32) -> ReadKey {
        ReadKey::from_bytes(blake3::derive_key(READ, &self.0), label)
    }

    /// Returns the key that finds and copies what was sealed in the epoch with this label.
    pub fn locate(&self, label: u32) -> LocateKey {
        LocateKey::from_bytes(blake3::derive_key(LOCATE, &self.0), label)
    }

    /// Returns the statement that the secret exists. `boxes` is the blob that [`seal_list`](Self::seal_list) made
    /// for these recipients.
    pub fn statement(&self, recipients: &Recipients, boxes: Hash, links: Vec<Link>) -> Epoch {
        Epoch {
            secret: blake3::derive_key(COMMIT, &self.0),
            locate: locate_commitment(&self.locate(0)),
            recipients: recipients.hash(),
            boxes,
            links,
        }
    }

    /// Returns whether this is the secret of an epoch.
    pub fn is_of(&self, epoch: &Epoch) -> bool {
        same(&blake3::derive_key(COMMIT, &self.0), &epoch.secret)
    }

    /// Seals the secret of an earlier epoch under this one.
    pub fn link(&self, earlier: OpId, secret: &Self) -> Result<Link> {
        let read = link_key(LINK, self.read(0).expose(), earlier);
        let locate = link_key(LOCATE_LINK, self.locate(0).expose(), earlier);
        Ok(Link {
            epoch: earlier,
            read: seal_link(&read, &secret.0)?,
            locate: seal_link(&locate, secret.locate(0).expose())?,
        })
    }

    /// Boxes the secret to one recipient, to a replica its locate key alone. An invalid box key is
    /// [`Kind::Invalid`].
    pub fn seal_box(&self, group: OpId, to: &Recipient) -> Result<SealedBox> {
        let locate = self.locate(0);
        let (plain, commit) = if to.reads {
            (&self.0, blake3::derive_key(COMMIT, &self.0))
        } else {
            (locate.expose(), locate_commitment(&locate))
        };
        seal_box(plain, &info(group, to.key, &commit), to.box_key)
    }

    /// Boxes the secret to each recipient. A box key that nothing can be boxed to gets noise: no member keeps
    /// others from making an epoch.
    pub fn seal_list(&self, group: OpId, recipients: &Recipients) -> Result<Vec<u8>> {
        let mut list = Vec::with_capacity(1 + recipients.iter().len() * BOX_LEN);
        list.push(LIST_VERSION);
        for recipient in recipients.iter() {
            match self.seal_box(group, recipient) {
                Ok(sealed) => list.extend(sealed),
                Err(error) if error.kind() == Kind::Invalid => list.extend([0; BOX_LEN]),
                Err(error) => return Err(error),
            }
        }
        Ok(list)
    }
}

impl fmt::Debug for EpochSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochSecret(…)")
    }
}

/// The secret of a device's or an invite's box key.
#[derive(Clone, ZeroizeOnDrop)]
pub struct BoxSecret([u8; 32]);

impl BoxSecret {
    /// A new one, from the operating system's randomness; [`Kind::Unavailable`] if it has none.
    pub fn generate() -> Result<Self> {
        let mut secret = Self([0; 32]);
        random("membership.box.generate", &mut secret.0)?;
        Ok(secret)
    }

    /// The secret that follows from these bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// The key to which others box.
    pub fn public(&self) -> BoxKey {
        let (_, public) = X25519HkdfSha256::derive_keypair(&self.0);
        BoxKey(public.to_bytes().into())
    }

    /// Opens this device's box of an epoch, which was sealed to its key `me`. Anything that is not a box for it, or has another
    /// secret than the epoch names, is [`Kind::Invalid`].
    pub fn open(
        &self,
        group: OpId,
        me: PublicKey,
        epoch: &Epoch,
        sealed: &SealedBox,
    ) -> Result<EpochSecret> {
        let secret = EpochSecret(*self.open_with(&info(group, me, &epoch.secret), sealed)?);
        if secret.is_of(epoch) {
            return Ok(secret);
        }
        Err(Error::new(
            Kind::Invalid,
            OPEN,
            "a box has another secret than its epoch",
        ))
    }

    /// Opens a replica's box of an epoch, as [`open`](Self::open) does one of who reads. The key gets this label.
    pub fn open_locate(
        &self,
        group: OpId,
        me: PublicKey,
        epoch: &Epoch,
        sealed: &SealedBox,
        label: u32,
    ) -> Result<LocateKey> {
        let opened = self.open_with(&info(group, me, &epoch.locate), sealed)?;
        let locate = LocateKey::from_bytes(*opened, label);
        if is_locate_of(&locate, epoch) {
            return Ok(locate);
        }
        Err(Error::new(
            Kind::Invalid,
            OPEN,
            "a box has another key than its epoch",
        ))
    }

    fn open_with(&self, info: &[u8], sealed: &SealedBox) -> Result<Zeroizing<[u8; 32]>> {
        let invalid = || Error::new(Kind::Invalid, OPEN, "a box is not for this device");
        let (suite, rest) = (sealed[0], &sealed[1..]);
        if suite != SUITE {
            let message = "a box was sealed in a way that is not known here";
            return Err(Error::new(Kind::Invalid, OPEN, message).with("suite", suite));
        }
        let (secret, _) = X25519HkdfSha256::derive_keypair(&self.0);
        let key = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&rest[..32]);
        let key = key.map_err(|_| invalid())?;
        let opened = single_shot_open::<BoxCipher, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &secret,
            &key,
            info,
            &rest[32..],
            &[],
        );
        let opened = Zeroizing::new(opened.map_err(|_| invalid())?);
        let opened: [u8; 32] = opened.as_slice().try_into().map_err(|_| invalid())?;
        Ok(Zeroizing::new(opened))
    }
}

impl fmt::Debug for BoxSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxSecret(…)")
    }
}

/// Boxes a locate key of an epoch to a replica, as who holds no more of the epoch can. An invalid box key, and a
/// recipient who reads, are [`Kind::Invalid`].
pub fn seal_locate_box(group: OpId, locate: &LocateKey, to: &Recipient) -> Result<SealedBox> {
    if to.reads {
        let message = "who reads needs more than a locate key";
        return Err(Error::new(Kind::Invalid, SEAL, message));
    }
    let commit = locate_commitment(locate);
    seal_box(locate.expose(), &info(group, to.key, &commit), to.box_key)
}

/// Returns the box at this place of a box list; a list that is invalid or too short is [`Kind::Invalid`].
pub fn box_at(list: &[u8], place: usize) -> Result<&SealedBox> {
    let boxes = list.strip_prefix(&[LIST_VERSION]);
    let found = boxes.and_then(|boxes| {
        let start = place.checked_mul(BOX_LEN)?;
        boxes.get(start..start.checked_add(BOX_LEN)?)?.first_chunk()
    });
    found.ok_or_else(|| {
        Error::new(Kind::Invalid, OPEN, "a box list does not have this box").with("place", place)
    })
}

/// Opens a link of `epoch`, whose secret this is: the secret of an earlier epoch. Anything else than what was
/// sealed is [`Kind::Invalid`].
pub fn open_link(secret: &EpochSecret, link: &Link) -> Result<EpochSecret> {
    let key = link_key(LINK, secret.read(0).expose(), link.epoch);
    open_sealed(&key, &link.read).map(|plain| EpochSecret(*plain))
}

/// Opens a link as a replica does: the locate key of an earlier epoch, with this label.
pub fn open_link_locate(locate: &LocateKey, link: &Link, label: u32) -> Result<LocateKey> {
    let key = link_key(LOCATE_LINK, locate.expose(), link.epoch);
    open_sealed(&key, &link.locate).map(|plain| LocateKey::from_bytes(*plain, label))
}

/// Returns whether this is the locate key of an epoch.
pub fn is_locate_of(locate: &LocateKey, epoch: &Epoch) -> bool {
    same(&locate_commitment(locate), &epoch.locate)
}

fn locate_commitment(locate: &LocateKey) -> [u8; 32] {
    blake3::derive_key(LOCATE_COMMIT, locate.expose())
}

fn info(group: OpId, recipient: PublicKey, commit: &[u8; 32]) -> Vec<u8> {
    [BOX, &group.0, &recipient.0, commit].concat()
}

/// Each key seals one text, so that the nonce may be the same.
fn link_key(context: &str, key: &[u8; 32], earlier: OpId) -> Zeroizing<[u8; 32]> {
    let mut material = Zeroizing::new([0; 64]);
    material[..32].copy_from_slice(key);
    material[32..].copy_from_slice(&earlier.0);
    Zeroizing::new(blake3::derive_key(context, &*material))
}

fn seal_link(key: &[u8; 32], plain: &[u8; 32]) -> Result<[u8; 48]> {
    let cipher = ChaCha20Poly1305::new(key.into());
    let sealed = cipher.encrypt(&Nonce::default(), plain.as_slice());
    let sealed = sealed.ok().and_then(|sealed| sealed.try_into().ok());
    sealed.ok_or_else(|| Error::new(Kind::Internal, SEAL, "32 bytes could not be sealed"))
}

fn open_sealed(key: &[u8; 32], sealed: &[u8; 48]) -> Result<Zeroizing<[u8; 32]>> {
    let cipher = ChaCha20Poly1305::new(key.into());
    let plain = cipher.decrypt(&Nonce::default(), sealed.as_slice());
    let plain = plain.ok().map(Zeroizing::new);
    let plain = plain.and_then(|plain| plain.as_slice().try_into().ok());
    plain.map(Zeroizing::new).ok_or_else(|| {
        let message = "a link does not open with the key of its epoch";
        Error::new(Kind::Invalid, OPEN, message)
    })
}

fn seal_box(plain: &[u8; 32], info: &[u8], to: BoxKey) -> Result<SealedBox> {
    let invalid = || Error::new(Kind::Invalid, SEAL, "nothing can be boxed to this key");
    let key = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&to.0).map_err(|_| invalid())?;
    let mut stream = Stream::new()?;
    let (key, sealed) = single_shot_seal_with_rng::<BoxCipher, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &key,
        info,
        plain,
        &[],
        &mut stream,
    )
    .map_err(|_| invalid())?;
    let mut found = [SUITE; BOX_LEN];
    let key: [u8; 32] = key.to_bytes().into();
    let (begin, end) = found[1..].split_at_mut(32);
    begin.copy_from_slice(&key);
    if sealed.len() != end.len() {
        return Err(Error::new(
            Kind::Internal,
            SEAL,
            "a box has another length than boxes have",
        ));
    }
    end.copy_from_slice(&sealed);
    Ok(found)
}

/// Randomness of the one source that all keys come from, in the form that HPKE reads.
struct Stream(blake3::OutputReader);

impl Stream {
    fn new() -> Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        random(SEAL, &mut *seed)?;
        let mut hasher = blake3::Hasher::new_derive_key(STREAM);
        hasher.update(&*seed);
        Ok(Self(hasher.finalize_xof()))
    }
}

impl TryRng for Stream {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> std::result::Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> std::result::Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> std::result::Result<(), Self::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Stream {}

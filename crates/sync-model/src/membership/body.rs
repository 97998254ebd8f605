//! The statements of operations and their layout.
//!
//! ```text
//! 0 genesis  nonce [32]                                                     author: the root key
//! 1 cap      flags u8 (own 1 | confirm 2 | invite 4), key [32], rights u8, depth u8, uses u16, until i64,
//!            prefixes: count u8, (len u8, text) each; of an invite its box key [32]
//! 2 claim    invite [32], signature [64], keys
//! 3 remove   flags u8 (hard 1 | forget 2 | leave 4 | with invited 8 | epoch 16), targets: count u16, key [32],
//!            frozen: count u8, (repo [32], seq u64, len u16, signed root), kept: count u8, id [32]; epoch
//! 4 epoch    commit(S) [32], commit(locate) [32], recipients [32], box list [32],
//!            links: count u8, (epoch [32], read [48], locate [48])
//! 5 boxes    recipient [32], claim [32], count u8, (epoch [32], box [81])
//! 6 keys     box key [32], has repo u8, repo [32], signature [64]
//! 7 succeed  old repo [32], new repo [32], signature [64], count u8, (device [32], box [81])
//! ```

use larder_store_api::{PublicKey, Result};
use larder_store_engine::Hash;

use super::{
    MAX_BOXES, MAX_FROZEN, MAX_KEPT, MAX_LINKS, MAX_PREFIXES, MAX_ROOT_LEN, MAX_TARGETS, MAX_USES,
    id::OpId, rights::Rights,
};
use crate::codec::Fields;

/// The length of a box: suite, encapsulated key, sealed secret.
pub const BOX_LEN: usize = 1 + 32 + 48;

/// A sealed secret of an epoch, by HPKE.
pub type SealedBox = [u8; BOX_LEN];

/// A key to which secrets are boxed: X25519.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoxKey(pub [u8; 32]);

/// The statement of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// The beginning of a group. Its author is the root, which nobody removes.
    Genesis {
        /// Makes the group differ from all others.
        nonce: [u8; 32],
    },
    /// Gives rights to a device or to whoever claims an invite.
    Cap(Cap),
    /// A device uses an invite.
    Claim(Claim),
    /// Takes all rights from devices and invites.
    Remove(Remove),
    /// A new secret under which to seal.
    Epoch(Epoch),
    /// Secrets of epochs for one device; lets in who claimed an invite.
    Boxes(Boxes),
    /// A device's new keys.
    Keys(DeviceKeys),
    /// A new repo goes on from an old one.
    Succeed(Succeed),
}

/// Rights for a device, or for those who claim an invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cap {
    /// The device, or the invite.
    pub key: PublicKey,
    /// The key to which epochs are boxed for who has the invite; `None` for a device.
    pub invite: Option<BoxKey>,
    /// It is for a further device of the author's owner.
    pub own: bool,
    /// A claim of it gives nothing until the device has a cap of its own.
    pub confirm: bool,
    /// The rights.
    pub rights: Rights,
    /// The number of times that they may be handed on.
    pub depth: u8,
    /// The number of devices that may use the invite; 0 for a device.
    pub uses: u16,
    /// The time at which it ends: the invite, or the rights of the device.
    pub until: Option<i64>,
    /// The beginnings of names that may be written; empty for all.
    pub prefixes: Vec<String>,
}

/// The use of an invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The key of the invite.
    pub invite: PublicKey,
    /// Its signature, of [`sign_claim`](super::sign_claim).
    pub signature: [u8; 64],
    /// The keys of the device.
    pub keys: DeviceKeys,
}

/// The keys of a device beside the one that signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceKeys {
    /// Secrets are boxed to it.
    pub box_key: BoxKey,
    /// The repo that the device writes; `None` if it has none, or writes that of its owner's other devices.
    pub repo: Option<RepoProof>,
}

/// A repo that says whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoProof {
    /// The key of the repo.
    pub key: PublicKey,
    /// Its signature, of [`sign_repo`](super::sign_repo).
    pub signature: [u8; 64],
}

/// Takes rights away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remove {
    /// Of all that the targets said, only what is in `kept` or before it counts.
    pub hard: bool,
    /// Asks all members to delete their copies.
    pub forget: bool,
    /// The author leaves.
    pub leave: bool,
    /// Takes them also from all to whom the targets gave any.
    pub with_invited: bool,
    /// Devices and invites.
    pub targets: Vec<PublicKey>,
    /// The last roots of their repos that count.
    pub frozen: Vec<FrozenRoot>,
    /// The last operations of the targets that count, where it is hard.
    pub kept: Vec<OpId>,
    /// A secret that the targets do not get.
    pub epoch: Option<Epoch>,
}

/// The last root of a repo that counts, as its owner signed it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrozenRoot {
    /// The key of the repo.
    pub repo: PublicKey,
    /// The number of the signed value; 0 where no root is known.
    pub seq: u64,
    /// The signed value; empty where no root is known.
    pub signed: Vec<u8>,
}

/// The statement that a secret exists, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// A commitment to the secret.
    pub secret: [u8; 32],
    /// A commitment to its locate key.
    pub locate: [u8; 32],
    /// The hash of all recipients; see [`Recipients`](super::Recipients).
    pub recipients: [u8; 32],
    /// The blob with a box for each recipient, in their order.
    pub boxes: Hash,
    /// The secrets of epochs before, sealed under this one.
    pub links: Vec<Link>,
}

/// The secret of an epoch before, sealed under a later one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The epoch before.
    pub epoch: OpId,
    /// Its secret, for who reads.
    pub read: [u8; 48],
    /// Its locate key, for replicas.
    pub locate: [u8; 48],
}

/// Secrets of epochs for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boxes {
    /// The device or invite.
    pub recipient: PublicKey,
    /// The claim that this admits, or [`OpId::NONE`].
    pub claim: OpId,
    /// A box for each epoch.
    pub boxes: Vec<(OpId, SealedBox)>,
}

/// A new repo in place of one whose key is known to a stolen device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Succeed {
    /// The repo that ends.
    pub old: PublicKey,
    /// The repo that goes on.
    pub new: RepoProof,
    /// Its secret, for the owner's other devices.
    pub boxes: Vec<(PublicKey, SealedBox)>,
}

impl Body {
    /// Returns the number of its kind.
    pub fn kind(&self) -> u8 {
        match self {
            Body::Genesis { .. } => 0,
            Body::Cap(_) => 1,
            Body::Claim(_) => 2,
            Body::Remove(_) => 3,
            Body::Epoch(_) => 4,
            Body::Boxes(_) => 5,
            Body::Keys(_) => 6,
            Body::Succeed(_) => 7,
        }
    }

    /// Returns the epoch that it makes, alone or with a removal.
    pub fn epoch(&self) -> Option<&Epoch> {
        match self {
            Body::Epoch(epoch) => Some(epoch),
            Body::Remove(remove) => remove.epoch.as_ref(),
            _ => None,
        }
    }

    /// Returns the keys that it tells.
    pub fn keys(&self) -> Option<&DeviceKeys> {
        match self {
            Body::Claim(claim) => Some(&claim.keys),
            Body::Keys(keys) => Some(keys),
            _ => None,
        }
    }

    /// Returns the repo that it names as its author's.
    pub fn repo(&self) -> Option<&RepoProof> {
        match self {
            Body::Succeed(succeed) => Some(&succeed.new),
            _ => self.keys()?.repo.as_ref(),
        }
    }

    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Body::Genesis { nonce } => to.extend(nonce),
            Body::Cap(cap) => cap.encode(to),
            Body::Claim(claim) => {
                to.extend(claim.invite.0);
                to.extend(claim.signature);
                claim.keys.encode(to);
            }
            Body::Remove(remove) => remove.encode(to),
            Body::Epoch(epoch) => epoch.encode(to),
            Body::Boxes(boxes) => {
                to.extend(boxes.recipient.0);
                to.extend(boxes.claim.0);
                count(to, boxes.boxes.len());
                for (epoch, sealed) in &boxes.boxes {
                    to.extend(epoch.0);
                    to.extend(sealed);
                }
            }
            Body::Keys(keys) => keys.encode(to),
            Body::Succeed(succeed) => {
                to.extend(succeed.old.0);
                succeed.new.encode(to);
                count(to, succeed.boxes.len());
                for (device, sealed) in &succeed.boxes {
                    to.extend(device.0);
                    to.extend(sealed);
                }
            }
        }
    }

    pub(super) fn decode(kind: u8, from: &mut Fields<'_>) -> Result<Self> {
        Ok(match kind {
            0 => Body::Genesis {
                nonce: from.take()?,
            },
            1 => Body::Cap(Cap::decode(from)?),
            2 => Body::Claim(Claim {
                invite: PublicKey(from.take()?),
                signature: from.take()?,
                keys: DeviceKeys::decode(from)?,
            }),
            3 => Body::Remove(Remove::decode(from)?),
            4 => Body::Epoch(Epoch::decode(from)?),
            5 => Body::Boxes(Boxes {
                recipient: PublicKey(from.take()?),
                claim: OpId(from.take()?),
                boxes: list(from, MAX_BOXES, |from| {
                    Ok((OpId(from.take()?), from.take()?))
                })?,
            }),
            6 => Body::Keys(DeviceKeys::decode(from)?),
            7 => Body::Succeed(Succeed {
                old: PublicKey(from.take()?),
                new: RepoProof::decode(from)?,
                boxes: list(from, MAX_BOXES, |from| {
                    Ok((PublicKey(from.take()?), from.take()?))
                })?,
            }),
            _ => {
                let error = from.invalid("an operation has a kind that is not known here");
                return Err(error.with("kind", kind));
            }
        })
    }
}

impl Cap {
    fn encode(&self, to: &mut Vec<u8>) {
        let invite = u8::from(self.invite.is_some()) << 2;
        to.push(u8::from(self.own) | u8::from(self.confirm) << 1 | invite);
        to.extend(self.key.0);
        to.extend([self.rights.bits(), self.depth]);
        to.extend(self.uses.to_be_bytes());
        to.extend(self.until.unwrap_or_default().to_be_bytes());
        count(to, self.prefixes.len());
        for prefix in &self.prefixes {
            count(to, prefix.len());
            to.extend(prefix.as_bytes());
        }
        if let Some(key) = &self.invite {
            to.extend(key.0);
        }
    }

    fn decode(from: &mut Fields<'_>) -> Result<Self> {
        let flags = from.u8()?;
        let key = PublicKey(from.take()?);
        let rights = Rights::from_bits(from.u8()?);
        let Some(rights) = rights.filter(|_| flags < 8) else {
            return Err(from.invalid("a cap has flags or rights that are not known here"));
        };
        let (depth, uses, until) = (from.u8()?, from.u16()?, from.i64()?);
        let prefixes = list(from, MAX_PREFIXES, |from| {
            let len = usize::from(from.u8()?);
            let text = str::from_utf8(from.bytes(len)?).map(str::to_owned);
            text.map_err(|_| from.invalid("a prefix of names is not UTF-8"))
        })?;
        let is_invite = flags & 4 != 0;
        if is_invite != (uses > 0) || uses > MAX_USES || (flags & 2 != 0 && !is_invite) {
            return Err(
                from.invalid("only an invite has uses, which are few, and waits for confirmation")
            );
        }
        Ok(Self {
            key,
            invite: is_invite.then(|| from.take().map(BoxKey)).transpose()?,
            own: flags & 1 != 0,
            confirm: flags & 2 != 0,
            rights,
            depth,
            uses,
            until: (until != 0).then_some(until),
            prefixes,
        })
    }
}

impl DeviceKeys {
    fn encode(&self, to: &mut Vec<u8>) {
        to.extend(self.box_key.0);
        to.push(u8::from(self.repo.is_some()));
        if let Some(repo) = &self.repo {
            repo.encode(to);
        }
    }

    fn decode(from: &mut Fields<'_>) -> Result<Self> {
        let box_key = BoxKey(from.take()?);
        let repo = match from.u8()? {
            0 => None,
            1 => Some(RepoProof::decode(from)?),
            _ => return Err(from.invalid("a device has one repo or none")),
        };
        Ok(Self { box_key, repo })
    }
}

impl RepoProof {
    fn encode(&self, to: &mut Vec<u8>) {
        to.extend(self.key.0);
        to.extend(self.signature);
    }

    fn decode(from: &mut Fields<'_>) -> Result<Self> {
        Ok(Self {
            key: PublicKey(from.take()?),
            signature: from.take()?,
        })
    }
}

impl Remove {
    fn encode(&self, to: &mut Vec<u8>) {
        let flags = [
            self.hard,
            self.forget,
            self.leave,
            self.with_invited,
            self.epoch.is_some(),
        ];
        let flags = flags.iter().enumerate();
        to.push(flags.fold(0, |all, (bit, set)| all | u8::from(*set) << bit));
        let targets = u16::try_from(self.targets.len()).unwrap_or(u16::MAX);
        to.extend(targets.to_be_bytes());
        for target in &self.targets {
            to.extend(target.0);
        }
        count(to, self.frozen.len());
        for root in &self.frozen {
            to.extend(root.repo.0);
            to.extend(root.seq.to_be_bytes());
            let len = u16::try_from(root.signed.len()).unwrap_or(u16::MAX);
            to.extend(len.to_be_bytes());
            to.extend(&root.signed);
        }
        count(to, self.kept.len());
        for id in &self.kept {
            to.extend(id.0);
        }
        if let Some(epoch) = &self.epoch {
            epoch.encode(to);
        }
    }

    fn decode(from: &mut Fields<'_>) -> Result<Self> {
        let flags = from.u8()?;
        let targets = usize::from(from.u16()?);
        if flags >= 32 || targets == 0 || targets > MAX_TARGETS {
            return Err(from.invalid("a removal has unknown flags, no targets or too many"));
        }
        let targets = (0..targets).map(|_| from.take().map(PublicKey));
        let targets = targets.collect::<Result<_>>()?;
        let frozen = list(from, MAX_FROZEN, |from| {
            let (repo, seq) = (PublicKey(from.take()?), from.u64()?);
            let len = usize::from(from.u16()?);
            if len > MAX_ROOT_LEN {
                return Err(from.invalid("a frozen root is longer than they may be"));
            }
            let signed = from.bytes(len)?.to_vec();
            Ok(FrozenRoot { repo, seq, signed })
        })?;
        let kept = list(from, MAX_KEPT, |from| from.take().map(OpId))?;
        Ok(Self {
            hard: flags & 1 != 0,
            forget: flags & 2 != 0,
            leave: flags & 4 != 0,
            with_invited: flags & 8 != 0,
            targets,
            frozen,
            kept,
            epoch: (flags & 16 != 0).then(|| Epoch::decode(from)).transpose()?,
        })
    }
}

impl Epoch {
    fn encode(&self, to: &mut Vec<u8>) {
        to.extend(self.secret);
        to.extend(self.locate);
        to.extend(self.recipients);
        to.extend(self.boxes.as_bytes());
        count(to, self.links.len());
        for link in &self.links {
            to.extend(link.epoch.0);
            to.extend(link.read);
            to.extend(link.locate);
        }
    }

    fn decode(from: &mut Fields<'_>) -> Result<Self> {
        Ok(Self {
            secret: from.take()?,
            locate: from.take()?,
            recipients: from.take()?,
            boxes: Hash::from(from.take::<32>()?),
            links: list(from, MAX_LINKS, |from| {
                Ok(Link {
                    epoch: OpId(from.take()?),
                    read: from.take()?,
                    locate: from.take()?,
                })
            })?,
        })
    }
}

/// Writes the length of a list. One that is too long does not decode, so that it is never signed.
pub(super) fn count(to: &mut Vec<u8>, len: usize) {
    to.push(u8::try_from(len).unwrap_or(u8::MAX));
}

fn list<T>(
    from: &mut Fields<'_>,
    most: usize,
    item: impl Fn(&mut Fields<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = usize::from(from.u8()?);
    if count > most {
        let error = from.invalid("a list of an operation is longer than they may be");
        return Err(error.with("count", count));
    }
    (0..count).map(|_| item(from)).collect()
}

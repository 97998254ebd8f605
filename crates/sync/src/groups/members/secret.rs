//! The secrets of a device in a group: its keys, the invites that it uses, and the secrets of epochs.
//!
//! ```text
//! version u8 = 2 | device's key [32] | box seed [32] | invites u8 | for each: seed [32]
//!   | epochs u8 | for each: id [32] | u8 (1 its secret, 2 its locate key) | key [32]
//! ```
//!
//! Only epochs to which no other one leads that is kept; the others are opened by the links between them.

use bytes::BufMut;
use larder_store_api::{Error, Kind, PublicKey, RecordId, Result, Secret, SecretKey};
use larder_store_engine::{generate_key, public_key, random};
use zeroize::Zeroizing;

use crate::{
    codec::Fields,
    invite::InviteSeed,
    keyring::EpochKeys,
    keys::{LocateKey, ReadKey},
    membership::{BoxKey, BoxSecret, DeviceKeys, EpochSecret, OpId, RepoProof, sign_repo},
};

const VERSION: u8 = 2;
const SECRET: u8 = 1;
const LOCATE: u8 = 2;
const OPEN: &str = "sync.open";
const LOCAL: &str = "larder 2026 group local key v1";

/// The most invites of which a device remembers the seed: what was boxed to them may still come.
pub(super) const MAX_INVITES: usize = 8;

/// The most epochs that are kept: all others follow from them, unless members never met.
pub(super) const MAX_EPOCHS: usize = 24;

/// The key of an epoch, as far as this device holds it.
#[derive(Debug, Clone)]
pub(crate) enum HeldEpoch {
    Secret(EpochSecret),
    Locate(LocateKey),
}

/// The secrets of a device in a group.
#[derive(Debug, Clone)]
pub(crate) struct DeviceSecret {
    pub(super) device: SecretKey,
    boxes: Zeroizing<[u8; 32]>,
    pub(super) invites: Vec<InviteSeed>,
    pub(super) epochs: Vec<(OpId, HeldEpoch)>,
}

impl DeviceSecret {
    pub(crate) fn generate() -> Result<Self> {
        let mut boxes = Zeroizing::new([0; 32]);
        random("sync.device", &mut *boxes)?;
        Ok(Self {
            device: generate_key()?,
            boxes,
            invites: Vec::new(),
            epochs: Vec::new(),
        })
    }

    pub(crate) fn key(&self) -> PublicKey {
        public_key(&self.device)
    }

    pub(super) fn boxes(&self) -> BoxSecret {
        BoxSecret::from_seed(*self.boxes)
    }

    fn box_key(&self) -> BoxKey {
        self.boxes().public()
    }

    /// The keys that the device tells, with a repo of its own.
    pub(crate) fn keys(&self, group: OpId, repo: Option<&SecretKey>) -> DeviceKeys {
        DeviceKeys {
            box_key: self.box_key(),
            repo: repo.map(|repo| RepoProof {
                key: public_key(repo),
                signature: sign_repo(repo, group, self.key()),
            }),
        }
    }

    /// Seals what this device remembers of the group before it can read it.
    pub(crate) fn local_key(&self) -> ReadKey {
        ReadKey::from_bytes(blake3::derive_key(LOCAL, &*self.boxes), 0)
    }

    /// Adds the seed of an invite, in place of the oldest where there are too many.
    pub(crate) fn add_invite(&mut self, seed: InviteSeed) {
        self.invites.retain(|known| *known != seed);
        self.invites.push(seed);
        let many = self.invites.len().saturating_sub(MAX_INVITES);
        self.invites.drain(..many);
    }

    /// Keeps these epochs, the latest of them if they are too many.
    pub(super) fn keep_epochs(&mut self, mut epochs: Vec<(OpId, HeldEpoch)>) {
        let many = epochs.len().saturating_sub(MAX_EPOCHS);
        epochs.drain(..many);
        self.epochs = epochs;
    }

    pub(crate) fn encode(&self) -> Result<Secret> {
        let len = 67 + 32 * self.invites.len() + 65 * self.epochs.len();
        let mut bytes = Zeroizing::new(Vec::with_capacity(len));
        bytes.put_u8(VERSION);
        bytes.put_slice(self.device.expose());
        bytes.put_slice(&*self.boxes);
        let fits = "there are few, of each";
        bytes.put_u8(self.invites.len().try_into().expect(fits));
        for seed in &self.invites {
            bytes.put_slice(seed.expose());
        }
        bytes.put_u8(self.epochs.len().try_into().expect(fits));
        for (id, held) in &self.epochs {
            bytes.put_slice(&id.0);
            match held {
                HeldEpoch::Secret(secret) => {
                    bytes.put_u8(SECRET);
                    bytes.put_slice(secret.expose());
                }
                HeldEpoch::Locate(locate) => {
                    bytes.put_u8(LOCATE);
                    bytes.put_slice(locate.expose());
                }
            }
        }
        Secret::new(bytes.as_slice())
    }

    pub(crate) fn decode(secret: &Secret) -> Result<Self> {
        let bytes = secret.expose();
        if bytes.first() == Some(&1) {
            let message = "a group of this store is of a format before members could be removed: leave it, and make \
                           another";
            return Err(Error::new(Kind::Unsupported, OPEN, message));
        }
        let mut fields = Fields::versioned(OPEN, VERSION, bytes)?;
        let device = SecretKey::from_bytes(*Zeroizing::new(fields.take()?));
        let boxes = Zeroizing::new(fields.take()?);
        let count = fields.u8()?;
        if usize::from(count) > MAX_INVITES {
            return Err(fields.invalid("a device has too many invites"));
        }
        let mut invites = Vec::new();
        for _ in 0..count {
            invites.push(InviteSeed::from_bytes(*Zeroizing::new(fields.take()?)));
        }
        let count = fields.u8()?;
        if usize::from(count) > MAX_EPOCHS {
            return Err(fields.invalid("a device has too many epochs"));
        }
        let mut epochs = Vec::new();
        for _ in 0..count {
            let id = OpId(fields.take()?);
            let kind = fields.u8()?;
            let key = Zeroizing::new(fields.take::<32>()?);
            let held = match kind {
                SECRET => HeldEpoch::Secret(EpochSecret::from_bytes(*key)),
                LOCATE => HeldEpoch::Locate(LocateKey::from_bytes(*key, id.label())),
                other => {
                    let error = fields.invalid("the key of an epoch is of a kind not known here");
                    return Err(error.with("kind", other));
                }
            };
            epochs.push((id, held));
        }
        fields.end()?;
        Ok(Self {
            device,
            boxes,
            invites,
            epochs,
        })
    }
}

impl HeldEpoch {
    /// As much of an epoch as a ring holds.
    pub(super) fn of(keys: &EpochKeys) -> Self {
        match keys.secret() {
            Some(secret) => Self::Secret(secret.clone()),
            None => Self::Locate(keys.locate().clone()),
        }
    }
}

/// The name of a group among the groups' operations.
pub(crate) fn op_id(group: RecordId) -> OpId {
    OpId(group.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_kept_as_they_were() {
        let mut secret = DeviceSecret {
            device: SecretKey::from_bytes([1; 32]),
            boxes: Zeroizing::new([2; 32]),
            invites: Vec::new(),
            epochs: Vec::new(),
        };
        secret.add_invite(InviteSeed::from_bytes([3; 32]));
        let locate = LocateKey::from_bytes([6; 32], OpId([5; 32]).label());
        secret.keep_epochs(vec![
            (
                OpId([4; 32]),
                HeldEpoch::Secret(EpochSecret::from_bytes([7; 32])),
            ),
            (OpId([5; 32]), HeldEpoch::Locate(locate)),
        ]);
        let bytes = secret.encode().unwrap();
        crate::golden::check_hex("device.hex", &[bytes.expose()]);
        let again = DeviceSecret::decode(&bytes).unwrap();
        assert_eq!(again.encode().unwrap().expose(), bytes.expose());
        for len in 0..bytes.expose().len() {
            let cut = Secret::new(&bytes.expose()[..len]).unwrap();
            assert_eq!(
                DeviceSecret::decode(&cut).unwrap_err().kind(),
                Kind::Invalid
            );
        }
    }

    #[test]
    fn as_many_as_there_can_be_fit_into_a_secret() {
        let mut secret = DeviceSecret::generate().unwrap();
        for n in 0..20 {
            secret.add_invite(InviteSeed::from_bytes([n; 32]));
        }
        let epoch = |n| {
            (
                OpId([n; 32]),
                HeldEpoch::Secret(EpochSecret::from_bytes([n; 32])),
            )
        };
        secret.keep_epochs((0..100).map(epoch).collect());
        assert_eq!((secret.invites.len(), secret.epochs.len()), (8, 24));
        assert_eq!(secret.epochs[23].0, OpId([99; 32]));
        let again = DeviceSecret::decode(&secret.encode().unwrap()).unwrap();
        assert_eq!(again.epochs.len(), 24);
    }
}

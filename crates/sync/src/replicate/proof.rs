//! The proof by which two peers show each other who they are in a group, before anything else is exchanged.
//!
//! ```text
//! proof key        BLAKE3 derive_key("larder 2026 group proof key v2", group's id)
//! hello            version u8 = 2 | nonce [32] | tag [32]
//! answer           nonce [32] | tag [32]
//! tag of a hello   BLAKE3 keyed_hash(proof key, 0 u8 | binding [32] | asker [32] | answerer [32] | nonce)
//! of an answer     BLAKE3 keyed_hash(proof key, 1 u8 | binding | asker | answerer | nonce | own nonce)
//! who              device [32] | signature [64] | keys u8 | for each: key [32], signature [64]
//!                  | tags u8 | for each: tag [32]
//! transcript       BLAKE3 derive_key("larder 2026 group session transcript v1",
//!                  0 u8 of the asker, 1 u8 of the answerer | binding | asker | answerer | group's id | device)
//! tag of an epoch  BLAKE3 keyed_hash(derive_key("larder 2026 group session epoch v1", locate key), transcript)
//! ```
//!
//! The tags hide from strangers which groups are here: they are noise to who does not know the group's id, which
//! members, those who were, and holders of invites do. They give no right to anything. Then both say who they are:
//! the right is the device's, as the group's operations give it. Who has an invite, or the group's root, signs with
//! that key too, and who holds keys of epochs shows that, so that members who have not heard of each other yet can
//! tell each other why they are members.
//!
//! The binding is a value that only the two ends of this connection know, and the network has proven
//! both peers' keys, so a proof cannot be reused on another connection or at another time.

use larder_store_api::{PublicKey, RecordId, Result, SecretKey};
use larder_store_engine::{public_key, random};

use crate::{
    codec::Fields,
    groups::Group,
    keyring::Keyring,
    keys::{LocateKey, derive, same},
    membership::{Log, OpId, sign_session, verify_session},
};

use super::{
    fault::{Blame, Outcome, lies, refuses},
    wire::VERSION,
};

const CONTEXT: &str = "larder 2026 group proof key v2";
const TRANSCRIPT: &str = "larder 2026 group session transcript v1";
const EPOCH: &str = "larder 2026 group session epoch v1";
const READ: &str = "sync.peer.prove";

/// The length of an answer.
pub(super) const ANSWER_LEN: usize = 64;

/// The most keys beside its own with which a device signs.
const MAX_KEYS: usize = 9;

/// The most epochs whose key a device shows that it holds.
const MAX_TAGS: usize = 8;

/// Both ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) binding: [u8; 32],
    /// The key of the side that opened the stream.
    pub(super) asker: PublicKey,
    pub(super) answerer: PublicKey,
}

/// A side of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Asker,
    Answerer,
}

impl Ends {
    fn tag(&self, group: RecordId, role: u8, nonces: &[&[u8; 32]]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&blake3::derive_key(CONTEXT, &group.0));
        hasher.update(&[role]);
        hasher.update(&self.binding);
        hasher.update(&self.asker.0);
        hasher.update(&self.answerer.0);
        for nonce in nonces {
            hasher.update(*nonce);
        }
        *hasher.finalize().as_bytes()
    }

    fn transcript(&self, role: Role, group: RecordId, device: PublicKey) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(TRANSCRIPT);
        hasher.update(&[u8::from(role == Role::Answerer)]);
        hasher.update(&self.binding);
        hasher.update(&self.asker.0);
        hasher.update(&self.answerer.0);
        hasher.update(&group.0);
        hasher.update(&device.0);
        *hasher.finalize().as_bytes()
    }
}

fn nonce() -> Result<[u8; 32]> {
    let mut nonce = [0; 32];
    random(READ, &mut nonce)?;
    Ok(nonce)
}

/// Returns a hello for a group, and its nonce.
pub(super) fn hello(ends: &Ends, group: RecordId) -> Result<(Vec<u8>, [u8; 32])> {
    let nonce = nonce()?;
    Ok((hello_with(ends, group, nonce), nonce))
}

fn hello_with(ends: &Ends, group: RecordId, nonce: [u8; 32]) -> Vec<u8> {
    let tag = ends.tag(group, 0, &[&nonce]);
    [&[VERSION][..], &nonce, &tag].concat()
}

/// Returns our group that a hello names, if any, and the answer to it.
pub(super) fn answer(
    ends: &Ends,
    groups: impl IntoIterator<Item = RecordId>,
    hello: &[u8],
) -> Outcome<(Option<RecordId>, Vec<u8>)> {
    answer_with(ends, groups, hello, nonce().local()?)
}

fn answer_with(
    ends: &Ends,
    groups: impl IntoIterator<Item = RecordId>,
    hello: &[u8],
    own: [u8; 32],
) -> Outcome<(Option<RecordId>, Vec<u8>)> {
    let wrong = lies;
    let Some((&version, rest)) = hello.split_first() else {
        return Err(wrong("the peer's hello is empty"));
    };
    if version != VERSION {
        return Err(refuses("the peer uses an unknown protocol version")
            .with("version", version)
            .with("known", VERSION));
    }
    let (parts, []) = rest.as_chunks::<32>() else {
        return Err(wrong("the peer's hello has another length"));
    };
    let [theirs, tag] = parts else {
        return Err(wrong("the peer's hello has another length"));
    };
    // All groups are tried, so that the time does not reveal which one matched.
    let mut found = None;
    for group in groups {
        if same(&ends.tag(group, 0, &[theirs]), tag) {
            found = Some(group);
        }
    }
    let tag = match found {
        Some(group) => ends.tag(group, 1, &[theirs, &own]),
        None => nonce().local()?,
    };
    Ok((found, [own, tag].concat()))
}

/// Returns true if an answer names the group too.
pub(super) fn check(ends: &Ends, group: RecordId, nonce: &[u8; 32], answer: &[u8]) -> bool {
    match answer.as_chunks::<32>() {
        ([theirs, tag], []) => same(&ends.tag(group, 1, &[nonce, theirs]), tag),
        _ => false,
    }
}

/// The facts that a peer has proven about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who {
    /// The key of its device in the group.
    pub(super) device: PublicKey,
    /// Invites, or the root, whose secrets it has.
    pub(super) keys: Vec<PublicKey>,
    /// It holds the key of an epoch under which is sealed here: whoever was removed does not.
    pub(super) has_epoch: bool,
}

/// Says who this device is.
pub(super) fn say_who(ends: &Ends, role: Role, group: &Group, root: Option<&SecretKey>) -> Vec<u8> {
    let mut keys: Vec<SecretKey> = group.invite_seeds().iter().map(|seed| seed.key()).collect();
    keys.extend(root.cloned());
    let heads = group.with_log(Log::head_epochs).unwrap_or_default();
    let secret = group.device_secret();
    say_who_with(
        ends,
        role,
        group.id(),
        &secret,
        &keys,
        group.keyring(),
        &heads,
    )
}

pub(super) fn say_who_with(
    ends: &Ends,
    role: Role,
    group: RecordId,
    device: &SecretKey,
    keys: &[SecretKey],
    ring: &Keyring,
    heads: &[OpId],
) -> Vec<u8> {
    let key = public_key(device);
    let transcript = ends.transcript(role, group, key);
    let mut bytes = key.0.to_vec();
    bytes.extend(sign_session(device, &transcript));
    let count = |count: usize| u8::try_from(count).expect("there are few");
    bytes.push(count(keys.len().min(MAX_KEYS)));
    for key in keys.iter().take(MAX_KEYS) {
        bytes.extend(public_key(key).0);
        bytes.extend(sign_session(key, &transcript));
    }
    // The first one leads to all others, the last are those of who came late.
    let first = ring.first().into_iter();
    let heads = heads.iter().filter_map(|id| ring.get(*id));
    let tags: Vec<_> = first
        .chain(heads)
        .take(MAX_TAGS)
        .map(|epoch| epoch_tag(epoch.locate(), &transcript))
        .collect();
    bytes.push(count(tags.len()));
    for tag in tags {
        bytes.extend(tag);
    }
    bytes
}

fn epoch_tag(locate: &LocateKey, transcript: &[u8; 32]) -> [u8; 32] {
    *blake3::keyed_hash(&derive(locate, EPOCH), transcript).as_bytes()
}

/// Reads who a peer is, and checks all its signatures. `held` are the keys of the epochs that count.
pub(super) fn hear_who(
    ends: &Ends,
    role: Role,
    group: RecordId,
    held: &[LocateKey],
    bytes: &[u8],
) -> Result<Who> {
    let mut fields = Fields::new(READ, bytes);
    let device = PublicKey(fields.take()?);
    let transcript = ends.transcript(role, group, device);
    verify_session(device, &transcript, &fields.take()?)?;
    let count = usize::from(fields.u8()?);
    if count > MAX_KEYS {
        return Err(fields.invalid("the peer signs with too many keys"));
    }
    let mut keys = Vec::with_capacity(count);
    for _ in 0..count {
        let key = PublicKey(fields.take()?);
        verify_session(key, &transcript, &fields.take()?)?;
        keys.push(key);
    }
    let count = usize::from(fields.u8()?);
    if count > MAX_TAGS {
        return Err(fields.invalid("the peer shows too many epochs"));
    }
    let mut has_epoch = false;
    for _ in 0..count {
        let tag = fields.take()?;
        has_epoch |= held
            .iter()
            .any(|locate| same(&epoch_tag(locate, &transcript), &tag));
    }
    fields.end()?;
    Ok(Who {
        device,
        keys,
        has_epoch,
    })
}

#[cfg(test)]
mod tests {
    use larder_store_api::SecretKey;

    use super::*;
    use crate::{keys::ReadKey, replicate::fault::Misconduct};

    fn group(seed: u8) -> RecordId {
        RecordId([seed; 32])
    }

    fn ends() -> Ends {
        Ends {
            binding: [1; 32],
            asker: PublicKey([2; 32]),
            answerer: PublicKey([3; 32]),
        }
    }

    fn who(role: Role, ring: &Keyring) -> Vec<u8> {
        let key = |n| SecretKey::from_bytes([n; 32]);
        say_who_with(&ends(), role, group(1), &key(5), &[key(6)], ring, &[])
    }

    fn ring(seed: u8) -> Keyring {
        Keyring::of_read(ReadKey::from_bytes([seed; 32], 0))
    }

    fn held(seed: u8) -> Vec<LocateKey> {
        vec![ring(seed).sealing().unwrap().locate().clone()]
    }

    #[test]
    fn the_layout_is_pinned() {
        let ours = group(1);
        let hello = hello_with(&ends(), ours, [4; 32]);
        let (found, answer) = answer_with(&ends(), [ours], &hello, [5; 32]).unwrap();
        assert!(found.is_some() && check(&ends(), ours, &[4; 32], &answer));
        let who = who(Role::Asker, &ring(7));
        crate::golden::check_hex("proof.hex", &[&hello, &answer, &who]);
    }

    #[test]
    fn who_knows_a_group_finds_it_and_nobody_else() {
        let (ours, other) = (group(1), group(2));
        let (said, nonce) = hello(&ends(), ours).unwrap();
        assert_eq!(said.len(), 1 + 64);
        let (found, answered) = answer(&ends(), [other, ours], &said).unwrap();
        assert!(found == Some(ours) && answered.len() == ANSWER_LEN);
        assert!(check(&ends(), ours, &nonce, &answered));
        // A peer that answers without knowing it is detected.
        let (found, answered) = answer(&ends(), [other], &said).unwrap();
        assert!(found.is_none() && answered.len() == ANSWER_LEN);
        assert!(!check(&ends(), ours, &nonce, &answered));
    }

    #[test]
    fn a_proof_is_worth_nothing_elsewhere() {
        let ours = group(1);
        let (said, nonce) = hello(&ends(), ours).unwrap();
        let (_, answered) = answer(&ends(), [ours], &said).unwrap();
        let swapped = Ends {
            asker: ends().answerer,
            answerer: ends().asker,
            ..ends()
        };
        let elsewhere = Ends {
            binding: [9; 32],
            ..ends()
        };
        let person = who(Role::Asker, &ring(7));
        for ends in [swapped, elsewhere] {
            assert!(answer(&ends, [ours], &said).unwrap().0.is_none());
            assert!(!check(&ends, ours, &nonce, &answered));
            assert!(hear_who(&ends, Role::Asker, ours, &held(7), &person).is_err());
        }
        assert!(hear_who(&ends(), Role::Answerer, ours, &held(7), &person).is_err());
        assert!(hear_who(&ends(), Role::Asker, group(2), &held(7), &person).is_err());
        // An answer is not a valid hello, and an old answer is not a valid new one.
        let reflected = [&[VERSION][..], &answered].concat();
        assert!(answer(&swapped, [ours], &reflected).unwrap().0.is_none());
        let (_, later) = hello(&ends(), ours).unwrap();
        assert!(!check(&ends(), ours, &later, &answered));
    }

    #[test]
    fn a_device_shows_its_keys_and_an_epoch() {
        let said = who(Role::Asker, &ring(7));
        let hear =
            |held: &[LocateKey], said: &[u8]| hear_who(&ends(), Role::Asker, group(1), held, said);
        let found = hear(&held(7), &said).unwrap();
        let key = |n| public_key(&SecretKey::from_bytes([n; 32]));
        assert_eq!((found.device, found.keys), (key(5), vec![key(6)]));
        assert!(found.has_epoch);
        assert!(!hear(&held(8), &said).unwrap().has_epoch);
        for at in 0..said.len() {
            assert!(hear(&held(7), &said[..at]).is_err(), "{at}");
            let mut wrong = said.clone();
            wrong[at] ^= 1;
            let found = hear(&held(7), &wrong);
            assert!(found.is_err() || !found.unwrap().has_epoch, "{at}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        let ours = group(1);
        let (mut said, _) = hello(&ends(), ours).unwrap();
        for len in 0..said.len() {
            let fault = answer(&ends(), [ours], &said[..len]).unwrap_err();
            assert!(fault.is_peers(Misconduct::Lies), "{len}");
            let expected = match len {
                0 => "the peer's hello is empty",
                _ => "the peer's hello has another length",
            };
            assert_eq!(fault.error().message(), expected, "{len}");
        }
        said[0] = 1;
        let fault = answer(&ends(), [ours], &said).unwrap_err();
        assert!(fault.is_peers(Misconduct::Refuses));
        assert!(fault.to_string().contains("version=1, known=2"), "{fault}");
    }
}

//! The proof by which two peers show each other that they hold a group's key, before anything else is
//! exchanged.
//!
//! ```text
//! proof key        BLAKE3 derive_key("larder 2026 group proof key v1", locate key)
//! tag of a hello   BLAKE3 keyed_hash(proof key, 0 u8 | binding [32] | asker [32] | answerer [32] | nonce)
//! of an answer     BLAKE3 keyed_hash(proof key, 1 u8 | binding | asker | answerer | nonce | own nonce)
//! ```
//!
//! The binding is a value that only the two ends of this connection know, and the network has proven
//! both peers' keys, so a proof cannot be reused on another connection or at another time. Without the
//! group's key, a tag is indistinguishable from noise. A peer that does not hold the asker's key
//! answers with noise of its own, so that a stranger does not learn which groups are here.

use larder_store_api::{PublicKey, Result};
use larder_store_engine::random;
use zeroize::Zeroizing;

use crate::keys::{GroupKeys, derive, same};

use super::{
    fault::{Blame, Outcome, lies, refuses},
    wire::VERSION,
};

const CONTEXT: &str = "larder 2026 group proof key v1";
/// The length of an answer.
pub(super) const ANSWER_LEN: usize = 64;

/// Both ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) binding: [u8; 32],
    /// The key of the side that opened the stream.
    pub(super) asker: PublicKey,
    pub(super) answerer: PublicKey,
}

impl Ends {
    fn tag(&self, keys: &GroupKeys, role: u8, nonces: &[&[u8; 32]]) -> [u8; 32] {
        let key: Zeroizing<[u8; 32]> = derive(keys.locate(), CONTEXT);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(&[role]);
        hasher.update(&self.binding);
        hasher.update(&self.asker.0);
        hasher.update(&self.answerer.0);
        for nonce in nonces {
            hasher.update(*nonce);
        }
        *hasher.finalize().as_bytes()
    }
}

fn nonce() -> Result<[u8; 32]> {
    let mut nonce = [0; 32];
    random("sync.peer.prove", &mut nonce)?;
    Ok(nonce)
}

/// Returns a hello for a group, and its nonce.
pub(super) fn hello(ends: &Ends, keys: &GroupKeys) -> Result<(Vec<u8>, [u8; 32])> {
    let nonce = nonce()?;
    Ok((hello_with(ends, keys, nonce), nonce))
}

fn hello_with(ends: &Ends, keys: &GroupKeys, nonce: [u8; 32]) -> Vec<u8> {
    let tag = ends.tag(keys, 0, &[&nonce]);
    [&[VERSION][..], &nonce, &tag].concat()
}

/// Returns our group that a hello proves, if any, and the answer to it.
pub(super) fn answer<'a>(
    ends: &Ends,
    groups: impl IntoIterator<Item = &'a GroupKeys>,
    hello: &[u8],
) -> Outcome<(Option<&'a GroupKeys>, Vec<u8>)> {
    answer_with(ends, groups, hello, nonce().local()?)
}

fn answer_with<'a>(
    ends: &Ends,
    groups: impl IntoIterator<Item = &'a GroupKeys>,
    hello: &[u8],
    own: [u8; 32],
) -> Outcome<(Option<&'a GroupKeys>, Vec<u8>)> {
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
    for keys in groups {
        if same(&ends.tag(keys, 0, &[theirs]), tag) {
            found = Some(keys);
        }
    }
    let tag = match found {
        Some(keys) => ends.tag(keys, 1, &[theirs, &own]),
        None => nonce().local()?,
    };
    Ok((found, [own, tag].concat()))
}

/// Returns true if an answer proves the group.
pub(super) fn check(ends: &Ends, keys: &GroupKeys, nonce: &[u8; 32], answer: &[u8]) -> bool {
    match answer.as_chunks::<32>() {
        ([theirs, tag], []) => same(&ends.tag(keys, 1, &[nonce, theirs]), tag),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use larder_store_api::SecretKey;

    use super::*;
    use crate::{keys::GroupSecret, replicate::fault::Misconduct};

    fn keys(seed: u8) -> GroupKeys {
        GroupKeys::write(GroupSecret::from_key(SecretKey::from_bytes([seed; 32])), 0)
    }

    fn ends() -> Ends {
        Ends {
            binding: [1; 32],
            asker: PublicKey([2; 32]),
            answerer: PublicKey([3; 32]),
        }
    }

    #[test]
    fn the_layout_is_pinned() {
        let ours = keys(1);
        let hello = hello_with(&ends(), &ours, [4; 32]);
        let (found, answer) = answer_with(&ends(), [&ours], &hello, [5; 32]).unwrap();
        assert!(found.is_some() && check(&ends(), &ours, &[4; 32], &answer));
        crate::golden::check_hex("proof.hex", &[&hello, &answer]);
    }

    #[test]
    fn members_prove_a_group_to_each_other() {
        let (ours, other) = (keys(1), keys(2));
        // A replica's key is enough.
        let (said, nonce) = hello(&ends(), &ours.to_replica()).unwrap();
        assert_eq!(said.len(), 1 + 64);
        let (found, answered) = answer(&ends(), [&other, &ours], &said).unwrap();
        assert!(found == Some(&ours) && answered.len() == ANSWER_LEN);
        assert!(check(&ends(), &ours, &nonce, &answered));
        // A peer that answers without the key is detected.
        let (found, answered) = answer(&ends(), [&other], &said).unwrap();
        assert!(found.is_none() && answered.len() == ANSWER_LEN);
        assert!(!check(&ends(), &ours, &nonce, &answered));
    }

    #[test]
    fn a_proof_is_worth_nothing_elsewhere() {
        let ours = keys(1);
        let (said, nonce) = hello(&ends(), &ours).unwrap();
        let (_, answered) = answer(&ends(), [&ours], &said).unwrap();
        let swapped = Ends {
            asker: ends().answerer,
            answerer: ends().asker,
            ..ends()
        };
        let elsewhere = Ends {
            binding: [9; 32],
            ..ends()
        };
        for ends in [swapped, elsewhere] {
            assert!(answer(&ends, [&ours], &said).unwrap().0.is_none());
            assert!(!check(&ends, &ours, &nonce, &answered));
        }
        // An answer is not a valid hello, and an old answer is not a valid new one.
        let reflected = [&[VERSION][..], &answered].concat();
        assert!(answer(&swapped, [&ours], &reflected).unwrap().0.is_none());
        let (_, later) = hello(&ends(), &ours).unwrap();
        assert!(!check(&ends(), &ours, &later, &answered));
    }

    #[test]
    fn garbage_is_refused() {
        let ours = keys(1);
        let (mut said, _) = hello(&ends(), &ours).unwrap();
        for len in 0..said.len() {
            let fault = answer(&ends(), [&ours], &said[..len]).unwrap_err();
            assert!(fault.is_peers(Misconduct::Lies), "{len}");
            let expected = match len {
                0 => "the peer's hello is empty",
                _ => "the peer's hello has another length",
            };
            assert_eq!(fault.error().message(), expected, "{len}");
        }
        said[0] = 2;
        let fault = answer(&ends(), [&ours], &said).unwrap_err();
        assert!(fault.is_peers(Misconduct::Refuses));
        assert!(fault.to_string().contains("version=2, known=1"), "{fault}");
    }
}

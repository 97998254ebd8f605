//! Signed operations: the only words in which members come and go.
//!
//! ```text
//! op    version u8=1 | kind u8 | group [32] | author [32] | proof [32] | seq u32 | time i64
//!       | after: count u8, id [32] each, ascending | body | signature [64]          numbers big-endian
//! id    BLAKE3 derive_key("larder 2026 group op id v1", all but the signature)
//! ```
//!
//! The group is the id of its genesis, in which group and proof are zero. The proof is the operation from which
//! the author has the right to say this.

use larder_store_api::{Error, Kind, PublicKey, Result, SecretKey};

use super::{
    MAX_AFTER, MAX_OP_LEN,
    body::Body,
    id::OpId,
    sign::{sign_op, verify_claim, verify_op, verify_repo},
};
use crate::codec::Fields;

/// The version of the layout.
pub const VERSION: u8 = 1;

const ID: &str = "larder 2026 group op id v1";
const DECODE: &str = "membership.op.decode";
const SIGN: &str = "membership.op.sign";

/// The content of an operation, before it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The group: the id of its genesis, in which it is [`OpId::NONE`].
    pub group: OpId,
    /// The key that signs.
    pub author: PublicKey,
    /// The operation from which the author has the right to say this; of a claim, the cap of its invite.
    pub proof: OpId,
    /// The number of operations of this author that come before.
    pub seq: u32,
    /// The time that the author's clock shows, in milliseconds since 1970.
    pub time: i64,
    /// The latest operations that the author knows, ascending; all before them belong to its past.
    pub after: Vec<OpId>,
    /// The statement itself.
    pub body: Body,
}

/// A signed operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    id: OpId,
    content: Content,
    signature: [u8; 64],
}

impl Op {
    /// Signs an operation. A content that is over a limit is [`Kind::TooLarge`], one that has another
    /// author than this key or makes no sense is [`Kind::Invalid`].
    pub fn sign(key: &SecretKey, mut content: Content) -> Result<Self> {
        content.after.sort_unstable();
        content.after.dedup();
        let id = content.id();
        let op = Self {
            id,
            signature: sign_op(key, &id),
            content,
        };
        let bytes = op.encode();
        if bytes.len() > MAX_OP_LEN {
            let message = "an operation is longer than they may be";
            return Err(Error::new(Kind::TooLarge, SIGN, message).with("len", bytes.len()));
        }
        // Nothing is signed that others would not read, or read otherwise.
        let read = Self::decode(&bytes)?;
        if read != op {
            let message = "an operation does not fit its layout";
            return Err(Error::new(Kind::Invalid, SIGN, message));
        }
        Ok(op)
    }

    /// Reads an operation and checks all its signatures; anything else than what [`encode`](Self::encode)
    /// gives is [`Kind::Invalid`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let op = Self::decode_trusted(bytes)?;
        op.verify()?;
        Ok(op)
    }

    /// Reads an operation that was checked before it was stored: only its layout is checked.
    pub fn decode_trusted(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(DECODE, bytes);
        if bytes.len() > MAX_OP_LEN {
            return Err(fields.invalid("an operation is longer than they may be"));
        }
        let Some((signed, signature)) = bytes.split_last_chunk() else {
            return Err(fields.invalid("the bytes end too early"));
        };
        fields = Fields::versioned(DECODE, VERSION, signed)?;
        let kind = fields.u8()?;
        let group = OpId(fields.take()?);
        let author = PublicKey(fields.take()?);
        let proof = OpId(fields.take()?);
        let seq = fields.u32()?;
        let time = fields.i64()?;
        let count = usize::from(fields.u8()?);
        if count > MAX_AFTER {
            return Err(fields
                .invalid("an operation names too many others")
                .with("count", count));
        }
        let mut after: Vec<OpId> = Vec::with_capacity(count);
        for _ in 0..count {
            let id = OpId(fields.take()?);
            if after.last().is_some_and(|last| *last >= id) {
                return Err(fields.invalid("the ids of an operation are not ascending"));
            }
            after.push(id);
        }
        let body = Body::decode(kind, &mut fields)?;
        fields.end()?;
        let content = Content {
            group,
            author,
            proof,
            seq,
            time,
            after,
            body,
        };
        let is_genesis = matches!(content.body, Body::Genesis { .. });
        let none = OpId::NONE;
        let first = group == none && proof == none && seq == 0 && content.after.is_empty();
        let later = group != none && proof != none && !content.after.is_empty();
        if (is_genesis && !first) || (!is_genesis && !later) {
            return Err(Error::new(
                Kind::Invalid,
                DECODE,
                "only a genesis names no group, no proof and nothing before it",
            ));
        }
        Ok(Self {
            id: id_of(signed),
            content,
            signature: *signature,
        })
    }

    /// Checks the signatures of the author, of the invite that is claimed, and of the repo that is named.
    pub fn verify(&self) -> Result<()> {
        let content = &self.content;
        verify_op(content.author, &self.id, &self.signature)?;
        if let Body::Claim(claim) = &content.body {
            verify_claim(
                claim.invite,
                content.group,
                content.proof,
                content.author,
                &claim.signature,
            )?;
        }
        let repo = content.body.repo();
        repo.map_or(Ok(()), |repo| {
            verify_repo(repo.key, content.group, content.author, &repo.signature)
        })
    }

    /// Returns the bytes of the operation, which every holder of it has alike.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.content.encode();
        bytes.extend(self.signature);
        bytes
    }

    /// The name of the operation.
    pub fn id(&self) -> OpId {
        self.id
    }

    /// The content that was signed.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The statement itself.
    pub fn body(&self) -> &Body {
        &self.content.body
    }

    /// The group that the operation is of; a genesis is of its own.
    pub fn group(&self) -> OpId {
        match self.content.body {
            Body::Genesis { .. } => self.id,
            _ => self.content.group,
        }
    }

    /// Returns whether its time is later than `now` allows: it is kept back until then, so that nobody
    /// ends what expires before its time. Both are in milliseconds.
    pub fn is_early(&self, now: i64) -> bool {
        self.content.time > now.saturating_add(super::MAX_AHEAD)
    }
}

impl Content {
    fn id(&self) -> OpId {
        id_of(&self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, self.body.kind()];
        bytes.extend(self.group.0);
        bytes.extend(self.author.0);
        bytes.extend(self.proof.0);
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.time.to_be_bytes());
        super::body::count(&mut bytes, self.after.len());
        for id in &self.after {
            bytes.extend(id.0);
        }
        self.body.encode(&mut bytes);
        bytes
    }
}

fn id_of(signed: &[u8]) -> OpId {
    OpId(blake3::derive_key(ID, signed))
}

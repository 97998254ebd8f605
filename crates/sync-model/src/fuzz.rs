//! Entry points of the fuzzer: each passes arbitrary bytes to a parser of this crate, and checks the
//! result.
//! Only in builds with `--cfg fuzzing`; the targets are in `fuzz/` of the repository.

use std::num::NonZeroU64;

use larder_store_api::RecordId;
use larder_store_engine::Hash;

use crate::{
    invite::Invite,
    keyring::Keyring,
    keys::{LocateKey, ReadKey},
    membership::{Added, Log, Op, Saw, box_at},
    records::{
        FIRST_APP, Profile, RepoRoot, Route, decode_app_value, decode_name, open_app_value,
        open_group_name,
    },
    seal::{
        app::{open_app, seal_app},
        file::{self, FileKey},
        page::PageKeys,
        value::{open_value, seal_value},
    },
    tree::{
        FileEntry, Name,
        page::{Child, Item, Page},
    },
};

const RECORD: RecordId = RecordId([3; 32]);

fn read() -> ReadKey {
    ReadKey::from_bytes([1; 32], 2)
}

fn locate() -> LocateKey {
    LocateKey::from_bytes([2; 32], 2)
}

/// Parses an invite, as a text and as the bytes behind one with the right checksum: a valid one has one text.
pub fn invite(bytes: &[u8]) {
    let text = str::from_utf8(bytes).unwrap_or_default().to_owned();
    for text in [text, crate::invite::text_of(bytes).to_string()] {
        if let Ok(invite) = text.parse::<Invite>() {
            assert_eq!(invite.to_string(), text.to_ascii_lowercase());
        }
    }
}

/// Decodes the contents of records' slots. The first byte chooses the content.
///
/// Most inputs skip the seal, which random bytes never pass.
pub fn records(bytes: &[u8]) {
    let Some((&which, bytes)) = bytes.split_first() else {
        return;
    };
    match which % 8 {
        0 => {
            if let Ok((_, name)) = decode_name(bytes) {
                assert_eq!(name.as_bytes(), &bytes[9..]);
            }
        }
        1 => {
            let ring = Keyring::of_read(read());
            assert!(ring.open_page(bytes).is_err());
        }
        2 => {
            if let Ok(profile) = Profile::decode(bytes) {
                let again = serde_json::to_vec(&profile).expect("it was read");
                assert_eq!(Profile::decode(&again).expect("it was written"), profile);
            }
        }
        3 => {
            if let Ok(root) = RepoRoot::decode(bytes) {
                assert_eq!(root.encode().expect("it was read"), bytes);
            }
        }
        4 => {
            if let Ok(route) = Route::decode(bytes) {
                assert_eq!(route.encode().expect("it was read"), bytes);
            }
        }
        5 => {
            // As it comes from peers: bytes that were not sealed must not open.
            assert!(open_group_name(&read(), RECORD, bytes).is_err());
            assert!(open_app_value(&read(), RECORD, FIRST_APP, bytes).is_err());
            assert!(Profile::open(&read(), RECORD, bytes).is_err());
            assert!(RepoRoot::open(&locate(), RECORD, bytes).is_err());
            assert!(Route::open(&locate(), RECORD, 2, bytes).is_err());
        }
        6 => {
            if let Ok((_, value)) = decode_app_value(bytes) {
                assert_eq!(value, bytes[9..]);
            }
        }
        _ => {
            // Any bytes, sealed by a holder of the keys.
            let seal = |slot| seal_value(&locate(), RECORD, slot, bytes);
            let Ok(sealed) = seal(1) else { return };
            drop(RepoRoot::open(&locate(), RECORD, &sealed));
            let sealed = seal(2).expect("it is as long");
            drop(Route::open(&locate(), RECORD, 2, &sealed));
        }
    }
}

/// Decodes operations of a group, each after its length, and what a device saw. The first byte chooses which.
///
/// Signatures, which random bytes never have, are not checked here: every set of operations means something, in any
/// order the same.
pub fn membership(bytes: &[u8]) {
    let Some((&which, mut rest)) = bytes.split_first() else {
        return;
    };
    match which % 3 {
        0 => {
            if let Ok(saw) = Saw::decode(rest) {
                assert_eq!(saw.encode(), rest);
            }
            drop(box_at(rest, usize::from(which)));
        }
        1 => {
            if let Ok(op) = Op::decode_trusted(rest) {
                assert_eq!(op.encode(), rest);
                assert!(op.verify().is_ok() || Op::decode(rest).is_err());
            }
        }
        _ => {
            let mut ops = Vec::new();
            while let Some((len, after)) = rest.split_first_chunk() {
                let len = usize::from(u16::from_be_bytes(*len)).min(after.len());
                let (op, after) = after.split_at(len);
                ops.extend(Op::decode_trusted(op));
                rest = after;
            }
            let Some(Ok(log)) = ops.first().map(|genesis| Log::new(genesis.clone())) else {
                return;
            };
            let (mut one, mut two) = (log.clone(), log);
            for (first, last) in ops.iter().zip(ops.iter().rev()) {
                assert!(!matches!(one.add(first.clone()), Added::New(none) if none.is_empty()));
                two.add(last.clone());
            }
            assert_eq!(one.state(), two.state());
            assert_eq!(one.usable(0), two.usable(0));
        }
    }
}

/// Decodes a page of a tree: a valid one must encode to the same bytes.
pub fn page(bytes: &[u8]) {
    let level = bytes.get(1).copied().unwrap_or_default();
    let count = bytes.get(2..4).map_or(0, |count| {
        usize::from(u16::from_be_bytes([count[0], count[1]]))
    });
    // Nobody guesses 32 bytes, so the sequence is made to fit, as a dishonest owner would.
    let count = count.min(1024);
    decode_page::<FileEntry>(bytes, level, &blobs_in(bytes, count));
    decode_page::<Child>(bytes, level, &vec![Hash::of(b"below"); count]);
    if let Ok(name) = str::from_utf8(bytes).map(Name::new)
        && let Ok(name) = name
    {
        assert_eq!(name.as_str().as_bytes(), bytes);
    }
}

fn decode_page<T: Item + std::fmt::Debug>(bytes: &[u8], level: u8, links: &[Hash]) {
    if let Ok(page) = Page::<T>::decode(bytes, level, links) {
        assert_eq!(page.encode(), bytes);
        assert_eq!(page.sequence(Hash::EMPTY).len(), 32 * (1 + links.len()));
        for (at, (name, _)) in page.items.iter().enumerate() {
            assert_eq!(page.position(name.as_str()), at);
        }
    }
}

/// Returns the blobs that a page of level 0 names, as far as its lengths lead to any.
fn blobs_in(bytes: &[u8], count: usize) -> Vec<Hash> {
    let mut at = 4;
    let mut found = Vec::new();
    for _ in 0..count {
        let Some(rest) = bytes.get(at + 2..at + 4) else {
            break;
        };
        let entry = at + 4 + usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        let Some(blob) = bytes.get(entry + 48..entry + 80) else {
            break;
        };
        found.push(Hash::from(<[u8; 32]>::try_from(blob).expect("32 bytes")));
        at = entry + FileEntry::LEN;
    }
    found.resize(count, Hash::EMPTY);
    found
}

/// Opens sealed pages, values, app data and files: bytes that were not sealed must not open, and sealed
/// ones must open unchanged.
pub fn sealed(bytes: &[u8]) {
    let pages = PageKeys::new(&read());
    let key = FileKey::from_bytes([5; 32]);
    if let Ok(plain) = pages.open(bytes) {
        assert_eq!(pages.seal(&plain), bytes);
    }
    if let Ok(plain) = open_value(&read(), RECORD, 3, bytes) {
        assert_eq!(bytes.len(), plain.len() + crate::seal::value::OVERHEAD);
    }
    if let Ok(plain) = open_app(&read(), RECORD, b"context", bytes) {
        assert_eq!(bytes.len(), plain.len() + crate::seal::app::OVERHEAD);
    }
    drop(file::open_all(&key, bytes));

    // The last bytes choose a change of the sealed bytes.
    let Some((plain, [high, low, flip])) = bytes.split_last_chunk() else {
        return;
    };
    let Some(flip) = NonZeroU64::new(u64::from(*flip)) else {
        return;
    };
    let flip = flip.get() as u8;
    let change = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let at = usize::from(u16::from_be_bytes([*high, *low])) % bytes.len();
        bytes[at] ^= flip;
        bytes
    };
    let page = pages.seal(plain);
    assert_eq!(pages.open(&page).expect("it was sealed"), plain);
    assert!(pages.open(&change(&page)).is_err());
    if let Ok(value) = seal_value(&read(), RECORD, 3, plain) {
        let opened = open_value(&read(), RECORD, 3, &value);
        assert_eq!(opened.expect("it was sealed"), plain);
        assert!(open_value(&read(), RECORD, 3, &change(&value)).is_err());
    }
    let data = seal_app(&read(), RECORD, b"context", plain).expect("it is not that long");
    let opened = open_app(&read(), RECORD, b"context", &data);
    assert_eq!(opened.expect("it was sealed"), plain);
    assert!(open_app(&read(), RECORD, b"context", &change(&data)).is_err());
    let file = file::seal_all(&key, plain);
    assert_eq!(file::sealed_len(plain.len() as u64), file.len() as u64);
    assert_eq!(file::open_all(&key, &file).expect("it was sealed"), plain);
    assert!(file::open_all(&key, &change(&file)).is_err());
}

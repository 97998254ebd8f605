//! The encoding of pages before sealing.
//!
//! ```text
//! page             version u8 = 1 | level u8 | items u16 | for each: name, item
//! name             length of what it shares with the one before u16 | length of the rest u16 | rest
//! item, level 0    size u64 | modified i64 | BLAKE3(file) [32] | BLAKE3(sealed file) [32]
//!                  | file key [32]
//! item, above      files below u64 | sum of their sizes u64; its name is the last one below
//!
//! sequence         BLAKE3(sealed page) [32] | for each item: BLAKE3(sealed file) at level 0,
//!                  BLAKE3(sequence of the page below) above
//! ```
//!
//! Names ascend, and share the longest possible prefix. A page is identified by the hash of its
//! sequence. Following sequences, everybody can reach all that is below a page without the read key.

use std::sync::Arc;

use bytes::BufMut;
use larder_store_api::{Error, Kind, Result};
use larder_store_engine::Hash;

use super::{FileEntry, Name, name::MAX_NAME_LEN};
use crate::{codec::Fields, seal::file::FileKey};

/// The version of the layout.
pub const VERSION: u8 = 1;

/// The most items of a page.
pub const MAX_ITEMS: usize = 512;

/// The length that ends a page, in bytes of its items with uncompressed names.
pub const FULL_LEN: usize = 256 * 1024;

/// The longest page, in bytes.
pub const MAX_PAGE_LEN: usize = HEAD_LEN + FULL_LEN + MAX_NAME_LEN + 4 + FileEntry::LEN;

const HEAD_LEN: usize = 4;
const DECODE: &str = "sync.page.decode";

/// An item of a page, which belongs to a name.
pub(crate) trait Item: Clone + PartialEq + Send + Sync + Sized + 'static {
    /// The length of the item in a page, without the name.
    const LEN: usize;

    /// Returns true if pages of this level have such items.
    fn fits(level: u8) -> bool;
    fn files(&self) -> u64;
    fn bytes(&self) -> u64;
    /// Returns the hash that represents the item in the page's sequence.
    fn link(&self) -> Hash;
    fn encode(&self, page: &mut Vec<u8>);
    fn decode(fields: &mut Fields<'_>, link: Hash) -> Result<Self>;
    fn node(page: Arc<Page<Self>>) -> Node;
    fn of(node: &Node) -> Option<Arc<Page<Self>>>;
}

/// A page of any level.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Leaf(Arc<Page<FileEntry>>),
    Inner(Arc<Page<Child>>),
}

impl Item for FileEntry {
    const LEN: usize = 8 + 8 + 32 + 32 + 32;

    fn fits(level: u8) -> bool {
        level == 0
    }

    fn files(&self) -> u64 {
        1
    }

    fn bytes(&self) -> u64 {
        self.size
    }

    fn link(&self) -> Hash {
        self.blob
    }

    fn encode(&self, page: &mut Vec<u8>) {
        page.put_u64(self.size);
        page.put_i64(self.modified);
        page.put_slice(self.hash.as_bytes());
        page.put_slice(self.blob.as_bytes());
        page.put_slice(self.key.expose());
    }

    fn decode(fields: &mut Fields<'_>, link: Hash) -> Result<Self> {
        let entry = FileEntry {
            size: fields.u64()?,
            modified: fields.i64()?,
            hash: Hash::from(fields.take::<32>()?),
            blob: Hash::from(fields.take::<32>()?),
            key: FileKey::from_bytes(fields.take()?),
        };
        if entry.blob != link {
            return Err(fields.invalid("the page and its sequence name different blobs"));
        }
        Ok(entry)
    }

    fn node(page: Arc<Page<Self>>) -> Node {
        Node::Leaf(page)
    }

    fn of(node: &Node) -> Option<Arc<Page<Self>>> {
        match node {
            Node::Leaf(page) => Some(page.clone()),
            Node::Inner(_) => None,
        }
    }
}

/// The item that represents a page in the page above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Child {
    pub hash: Hash,
    pub files: u64,
    pub bytes: u64,
}

impl Item for Child {
    const LEN: usize = 8 + 8;

    fn fits(level: u8) -> bool {
        level > 0
    }

    fn files(&self) -> u64 {
        self.files
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn link(&self) -> Hash {
        self.hash
    }

    fn encode(&self, page: &mut Vec<u8>) {
        page.put_u64(self.files);
        page.put_u64(self.bytes);
    }

    fn decode(fields: &mut Fields<'_>, link: Hash) -> Result<Self> {
        Ok(Self {
            hash: link,
            files: fields.u64()?,
            bytes: fields.u64()?,
        })
    }

    fn node(page: Arc<Page<Self>>) -> Node {
        Node::Inner(page)
    }

    fn of(node: &Node) -> Option<Arc<Page<Self>>> {
        match node {
            Node::Inner(page) => Some(page.clone()),
            Node::Leaf(_) => None,
        }
    }
}

/// The items of a page; there is at least one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Page<T> {
    pub level: u8,
    pub items: Vec<(Name, T)>,
    pub files: u64,
    pub bytes: u64,
}

impl<T: Item> Page<T> {
    /// Makes a page; [`Kind::Invalid`] if the sum of its sizes overflows.
    pub(crate) fn new(level: u8, items: Vec<(Name, T)>) -> Result<Self> {
        let sum = |of: fn(&T) -> u64| {
            let mut counts = items.iter().map(|(_, item)| of(item));
            counts.try_fold(0, u64::checked_add)
        };
        let (Some(files), Some(bytes)) = (sum(T::files), sum(T::bytes)) else {
            let message = "the files of a page have more bytes than can be counted";
            return Err(Error::new(Kind::Invalid, "sync.page", message));
        };
        Ok(Self {
            level,
            items,
            files,
            bytes,
        })
    }

    /// Returns the greatest name.
    pub(crate) fn last(&self) -> &Name {
        &self.items.last().expect("a page has an item").0
    }

    /// Returns the position of `name`, or of the next name after it.
    pub(crate) fn position(&self, name: &str) -> usize {
        self.items.partition_point(|(n, _)| n.as_str() < name)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(HEAD_LEN + self.items.len() * (32 + T::LEN));
        page.put_u8(VERSION);
        page.put_u8(self.level);
        page.put_u16(u16::try_from(self.items.len()).expect("a page has at most 512 items"));
        let mut before = "";
        for (name, item) in &self.items {
            let name = name.as_str();
            let shared = shared_len(before.as_bytes(), name.as_bytes());
            let len = |len: usize| u16::try_from(len).expect("a name has at most 3072 bytes");
            page.put_u16(len(shared));
            page.put_u16(len(name.len() - shared));
            page.put_slice(&name.as_bytes()[shared..]);
            item.encode(&mut page);
            before = name;
        }
        page
    }

    /// Decodes a page of `level` from all of these bytes; `links` is the rest of its sequence.
    ///
    /// Malformed bytes are [`Kind::Invalid`].
    pub(crate) fn decode(bytes: &[u8], level: u8, links: &[Hash]) -> Result<Self> {
        let mut fields = Fields::versioned(DECODE, VERSION, bytes)?;
        if bytes.len() > MAX_PAGE_LEN {
            return Err(fields
                .invalid("the page is too long")
                .with("len", bytes.len()));
        }
        let found = fields.u8()?;
        if found != level || !T::fits(level) {
            let error = fields.invalid("the page does not have the expected level");
            return Err(error.with("level", found).with("wanted", level));
        }
        let count = usize::from(fields.u16()?);
        if count == 0 || count > MAX_ITEMS || count != links.len() {
            let error = fields.invalid("the page has another number of items than its sequence");
            return Err(error.with("items", count).with("sequence", links.len()));
        }
        let mut items: Vec<(Name, T)> = Vec::with_capacity(count);
        let mut whole = 0;
        let mut name = Vec::new();
        for link in links {
            next_name(&mut fields, &mut name)?;
            // Names with long shared prefixes count with their full length.
            if whole >= FULL_LEN {
                return Err(fields.invalid("the page is too long"));
            }
            whole += name.len() + 4 + T::LEN;
            let text =
                str::from_utf8(&name).map_err(|_| fields.invalid("a name is not valid UTF-8"))?;
            items.push((Name::new(text)?, T::decode(&mut fields, *link)?));
        }
        fields.end()?;
        Self::new(level, items)
    }

    /// Returns the sequence of this page, given the hash of the sealed page.
    pub(crate) fn sequence(&self, sealed: Hash) -> Vec<u8> {
        let mut sequence = Vec::with_capacity(32 * (1 + self.items.len()));
        sequence.put_slice(sealed.as_bytes());
        for (_, item) in &self.items {
            sequence.put_slice(item.link().as_bytes());
        }
        sequence
    }
}

fn shared_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Reads the name after `name`, and replaces `name` by it.
fn next_name(fields: &mut Fields<'_>, name: &mut Vec<u8>) -> Result<()> {
    let shared = usize::from(fields.u16()?);
    let rest = usize::from(fields.u16()?);
    let rest = fields.bytes(rest)?;
    let Some(before) = name.get(shared..) else {
        return Err(fields.invalid("a name shares more bytes than the previous name has"));
    };
    if shared + rest.len() > MAX_NAME_LEN {
        return Err(fields.invalid("a name is too long"));
    }
    if rest <= before {
        return Err(fields.invalid("the names do not ascend"));
    }
    if rest.first() == before.first() {
        return Err(fields.invalid("a name does not share the longest possible prefix"));
    }
    name.truncate(shared);
    name.extend_from_slice(rest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_map, prelude::*};

    use super::*;

    fn entry(n: u8) -> FileEntry {
        FileEntry {
            size: u64::from(n),
            modified: -i64::from(n),
            hash: Hash::from([n; 32]),
            blob: Hash::from([n + 1; 32]),
            key: FileKey::from_bytes([n + 2; 32]),
        }
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn links<T: Item>(page: &Page<T>) -> Vec<Hash> {
        page.items.iter().map(|(_, item)| item.link()).collect()
    }

    #[test]
    fn the_layout_is_pinned() {
        let leaf = [(name("a/b"), entry(1)), (name("a/ü"), entry(5))];
        let leaf = Page::new(0, leaf.to_vec()).unwrap();
        let hash = Hash::from([9; 32]);
        let (files, bytes) = (2, 6);
        let child = Child { hash, files, bytes };
        let inner = Page::new(3, vec![(name("a/ü"), child)]).unwrap();
        let lines = [leaf.encode(), inner.encode(), inner.sequence(hash)];
        crate::golden::check_hex("tree.hex", &lines.each_ref().map(|line| &line[..]));
        assert_eq!((leaf.files, leaf.bytes), (2, 6));
        assert_eq!(
            Page::decode(&leaf.encode(), 0, &links(&leaf)).unwrap(),
            leaf
        );
        assert_eq!(
            Page::decode(&inner.encode(), 3, &links(&inner)).unwrap(),
            inner
        );
    }

    #[test]
    fn what_is_no_page_is_refused() {
        let items = vec![(name("ab"), entry(1)), (name("ac"), entry(5))];
        let page = Page::new(0, items).unwrap();
        let (bytes, links) = (page.encode().to_vec(), links(&page));
        let refused = |bytes: &[u8], level, links: &[Hash]| {
            let error = Page::<FileEntry>::decode(bytes, level, links).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            error.message().to_owned()
        };
        assert!(refused(&bytes, 1, &links).contains("level"));
        assert!(refused(&bytes, 0, &links[1..]).contains("number"));
        assert!(refused(&bytes, 0, &[links[1], links[0]]).contains("different blobs"));
        assert!(refused(&bytes[..bytes.len() - 1], 0, &links).contains("too early"));
        assert!(refused(&[&bytes[..], &[0]].concat(), 0, &links).contains("after"));
        let mut other = bytes.clone();
        other[0] = 2;
        assert!(refused(&other, 0, &links).contains("version"));
        // The second name: shares 1, rest 1, "c".
        let at = HEAD_LEN + 4 + 2 + FileEntry::LEN;
        assert_eq!(bytes[at..at + 5], [0, 1, 0, 1, b'c']);
        let mut other = bytes.clone();
        other[at + 4] = b'a';
        assert!(refused(&other, 0, &links).contains("ascend"));
        let mut other = bytes.clone();
        other[at + 4] = 0xff;
        assert!(refused(&other, 0, &links).contains("not valid UTF-8"));
        let mut other = bytes.clone();
        other[at + 1] = 3;
        assert!(refused(&other, 0, &links).contains("more bytes than the previous"));
        let mut other = bytes.clone();
        other[at..at + 5].copy_from_slice(&[0, 0, 0, 2, b'a']);
        other.insert(at + 5, b'c');
        assert!(refused(&other, 0, &links).contains("longest possible prefix"));
        let child = |files| Child {
            hash: Hash::EMPTY,
            files,
            bytes: 0,
        };
        let items = vec![(name("a"), child(u64::MAX)), (name("b"), child(1))];
        assert_eq!(Page::new(1, items).unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn a_page_is_not_longer_than_it_may_be_with_whole_names() {
        let file = |i| (name(&format!("{}{i:04}", "x/".repeat(1500))), entry(1));
        let most = FULL_LEN.div_ceil(3004 + 4 + FileEntry::LEN);
        for (count, fits) in [(most, true), (most + 1, false)] {
            let page = Page::new(0, (0..count).map(file).collect()).unwrap();
            let decoded = Page::<FileEntry>::decode(&page.encode(), 0, &links(&page));
            assert_eq!(decoded.is_ok(), fits);
        }
    }

    proptest! {
        #[test]
        fn decoding_anything_is_safe(bytes: Vec<u8>, level in 0..20u8, count in 0..4usize) {
            let links = vec![Hash::EMPTY; count];
            prop_assert!(Page::<FileEntry>::decode(&bytes, level, &links).is_err());
            prop_assert!(Page::<Child>::decode(&bytes, level, &links).is_err());
        }

        #[test]
        fn what_is_encoded_decodes(
            names in btree_map("[a-c/ü]{1,12}", 0..100u8, 1..40), flip: usize,
        ) {
            let names = names.into_iter().filter_map(|(n, i)| Some((Name::new(n).ok()?, entry(i))));
            let items: Vec<_> = names.collect();
            prop_assume!(!items.is_empty());
            let page = Page::new(0, items).unwrap();
            let (bytes, links) = (page.encode(), links(&page));
            prop_assert_eq!(&Page::decode(&bytes, 0, &links).unwrap(), &page);
            // Any other bytes that decode must encode to the same bytes.
            let mut other = bytes.to_vec();
            let at = flip % other.len();
            other[at] ^= 1;
            if let Ok(page) = Page::<FileEntry>::decode(&other, 0, &links) {
                prop_assert_eq!(page.encode(), other);
            }
        }
    }
}

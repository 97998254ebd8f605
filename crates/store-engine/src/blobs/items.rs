//! Items of the bao encoding.

use bao_tree::io::{Leaf, Parent};

/// An item of the bao encoding of a blob, over groups of 16 KiB, in pre-order.
#[derive(Debug)]
pub enum Encoded {
    /// The blob's size in bytes; the first item.
    Size(u64),
    /// A node of the tree.
    Parent(Parent),
    /// Up to 16 KiB of the blob.
    Leaf(Leaf),
}

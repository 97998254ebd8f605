//! A file that is read twice, of which the second reading gives only bytes that the first one hashed.
//!
//! The key of a sealed file is a function of its bytes, and its nonces count. Other bytes under that key would tell
//! whoever has both what they differ in, so they must not even be sealed. The file's BLAKE3 tree has a node for each
//! window, which is checked before the window's bytes go on.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use larder_store_engine::{Hash, blocking};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// The number of bytes that are hashed together: a power of two, so that they are a subtree.
const WINDOW: usize = 1 << 20;

/// The hashes of a file, as it was read first.
pub(super) struct FirstReading {
    pub(super) hash: Hash,
    pub(super) size: u64,
    /// The node of each window.
    nodes: Vec<ChainingValue>,
}

impl FirstReading {
    /// Reads a file, but at most `longest` bytes of it. Calls `report` with the number of bytes read so far.
    pub(super) async fn of(
        mut file: impl AsyncRead + Unpin,
        longest: u64,
        report: impl Fn(u64),
    ) -> io::Result<Self> {
        let (mut nodes, mut size) = (Vec::new(), 0);
        let mut hash = blake3::hash(b"");
        let mut window = Vec::with_capacity(WINDOW);
        loop {
            window.clear();
            let most = (WINDOW as u64).min(longest - size);
            let read = (&mut file).take(most).read_to_end(&mut window).await?;
            if read == 0 {
                break;
            }
            // A long file must not hold up the other tasks of this thread.
            let hashed = blocking("groups.write", move || {
                let hasher = hash_window(size, &window);
                (hasher.finalize_non_root(), hasher, window)
            });
            let (node, hasher, back) = hashed.await.map_err(io::Error::other)?;
            if nodes.is_empty() {
                hash = hasher.finalize();
            }
            window = back;
            nodes.push(node);
            size += read as u64;
            report(size);
        }
        if nodes.len() > 1 {
            let (left, right) = halves(&nodes);
            hash = merge_subtrees_root(&node_of(left), &node_of(right), Mode::Hash);
        }
        Ok(Self {
            hash: hash.into(),
            size,
            nodes,
        })
    }

    /// Reads the file again, from its beginning.
    pub(super) fn again<R>(self, file: R) -> (SecondReading<R>, Changed) {
        let changed = Changed::default();
        let reading = SecondReading {
            file,
            first: self,
            at: 0,
            window: Vec::new(),
            read: 0,
            given: 0,
            changed: changed.clone(),
        };
        (reading, changed)
    }
}

fn hash_window(at: u64, window: &[u8]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    // Of the first window, which may be the whole file, the root can be asked for too.
    if at > 0 {
        hasher.set_input_offset(at);
    }
    hasher.update(window);
    hasher
}

/// Splits windows where BLAKE3 does: the left half is the greatest power of two.
fn halves(nodes: &[ChainingValue]) -> (&[ChainingValue], &[ChainingValue]) {
    nodes.split_at(nodes.len().next_power_of_two() / 2)
}

/// Returns the node of consecutive windows.
fn node_of(nodes: &[ChainingValue]) -> ChainingValue {
    match nodes {
        [node] => *node,
        _ => {
            let (left, right) = halves(nodes);
            merge_subtrees_non_root(&node_of(left), &node_of(right), Mode::Hash)
        }
    }
}

/// Says if a file was found to be another at its second reading.
#[derive(Debug, Clone, Default)]
pub(super) struct Changed(Arc<AtomicBool>);

impl Changed {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Gives the bytes of the first reading, and an error in place of others.
pub(super) struct SecondReading<R> {
    file: R,
    first: FirstReading,
    /// The number of windows before this one.
    at: usize,
    window: Vec<u8>,
    /// The number of its bytes that were read.
    read: usize,
    /// The number of its bytes that went on, once it is read and checked.
    given: usize,
    changed: Changed,
}

impl<R: AsyncRead + Unpin> SecondReading<R> {
    /// Reads the rest of the window, and checks it.
    fn poll_window(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.read < self.window.len() {
            let mut rest = ReadBuf::new(&mut self.window[self.read..]);
            ready!(Pin::new(&mut self.file).poll_read(context, &mut rest))?;
            match rest.filled().len() {
                0 => return Poll::Ready(Err(self.change())),
                read => self.read += read,
            }
        }
        let node = hash_window((self.at * WINDOW) as u64, &self.window).finalize_non_root();
        Poll::Ready(match node == self.first.nodes[self.at] {
            true => Ok(()),
            false => Err(self.change()),
        })
    }

    fn change(&self) -> io::Error {
        self.changed.0.store(true, Ordering::Relaxed);
        io::Error::other("the file changed while it was read")
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for SecondReading<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.given == this.window.len() {
            if !this.window.is_empty() {
                this.at += 1;
            }
            let rest = this.first.size - this.first.size.min((this.at * WINDOW) as u64);
            this.window.resize(rest.min(WINDOW as u64) as usize, 0);
            (this.read, this.given) = (0, 0);
        }
        if this.window.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if this.given == 0 {
            ready!(this.poll_window(context))?;
        }
        let rest = &this.window[this.given..];
        let given = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..given]);
        this.given += given;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n / 5 % 251) as u8).collect()
    }

    async fn first(bytes: &[u8]) -> FirstReading {
        let reading = FirstReading::of(bytes, u64::MAX, |_| ()).await;
        reading.expect("bytes can be read")
    }

    /// Returns what the second reading gave before it ended, and its end.
    async fn second(first: FirstReading, bytes: &[u8]) -> (Vec<u8>, io::Result<()>, bool) {
        let (mut reading, changed) = first.again(bytes);
        let (mut given, mut piece) = (Vec::new(), vec![0; 70_000]);
        loop {
            match reading.read(&mut piece).await {
                Ok(0) => return (given, Ok(()), changed.get()),
                Ok(read) => given.extend_from_slice(&piece[..read]),
                Err(error) => return (given, Err(error), changed.get()),
            }
        }
    }

    #[tokio::test]
    async fn the_hash_is_that_of_the_bytes_and_they_are_given_again() {
        for windows in 0..8 {
            for rest in [0, 1, 1025, WINDOW - 1] {
                let bytes = data(windows * WINDOW + rest);
                let reading = first(&bytes).await;
                assert_eq!(reading.hash, Hash::of(&bytes), "{windows} {rest}");
                assert_eq!(reading.size, bytes.len() as u64);
                // Bytes that are appended are not read.
                let mut longer = bytes.clone();
                longer.extend_from_slice(b"and more");
                let (given, end, changed) = second(reading, &longer).await;
                end.expect("nothing that counts changed");
                assert!(given == bytes && !changed);
            }
        }
    }

    #[tokio::test]
    async fn no_byte_of_a_changed_window_is_given() {
        let bytes = data(3 * WINDOW + 100);
        for at in [0, WINDOW - 1, WINDOW, 2 * WINDOW + 5, bytes.len() - 1] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            let (given, end, changed) = second(first(&bytes).await, &other).await;
            assert!(end.is_err() && changed, "{at}");
            assert!(given == bytes[..at / WINDOW * WINDOW], "{at}");
        }
        for len in [0, 5, WINDOW, bytes.len() - 1] {
            let (given, end, changed) = second(first(&bytes).await, &bytes[..len]).await;
            assert!(end.is_err() && changed, "{len}");
            assert!(given == bytes[..len / WINDOW * WINDOW], "{len}");
        }
    }

    #[tokio::test]
    async fn at_most_the_longest_length_is_read() {
        let bytes = data(WINDOW + 10);
        let reading = FirstReading::of(&bytes[..], 7, |_| ()).await;
        let reading = reading.expect("bytes can be read");
        assert_eq!((reading.hash, reading.size), (Hash::of(&bytes[..7]), 7));
    }
}

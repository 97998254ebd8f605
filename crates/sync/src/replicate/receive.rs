//! Receives the answer to a request, for the engine's fetch.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use larder_store_engine::fetch::{self, Fault};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf, repeat},
    time::timeout,
};

use super::{
    Link, PATIENCE,
    fault::{Blame, Outcome, lost},
    status::Running,
    wire::{ABSENT, Answer, Get, write_frame},
};
use crate::network::Stream;

/// The longest file length that is accepted: far beyond any disk, and far from any overflow.
pub(super) const MAX_FILE_LEN: u64 = 1 << 50;

/// Receives the blobs that a peer sends.
pub(super) type Receiver = fetch::Receiver<Body>;

/// The bytes of the blobs that a peer sends.
pub(super) struct Body {
    recv: Box<dyn AsyncRead + Send + Unpin>,
    link: Arc<Link>,
    /// Counts the received bytes, if progress is shown.
    running: Option<Running>,
}

impl Body {
    /// Sends a request to get blobs or to be shown them.
    pub(super) async fn ask(
        link: &Arc<Link>,
        what: u8,
        get: &Get,
        running: Option<Running>,
    ) -> Outcome<Self> {
        let Stream { mut send, mut recv } = link.connection.open().await.link()?;
        send.write_all(&[what]).await.map_err(lost)?;
        write_frame(&mut send, &get.encode().local()?).await?;
        // This fails only if the peer has read all that it needs, or refuses to read: the answer tells
        // which.
        send.shutdown().await.ok();
        let answer = timeout(PATIENCE, recv.read_u8()).await;
        let answer = answer.map_err(|_| Fault::stalls())?.map_err(lost)?;
        let recv = match Answer::decode(answer).peer()? {
            Answer::Here => recv,
            // This answer means that each blob is absent.
            Answer::NotHere => {
                let [byte, ..] = ABSENT.to_le_bytes();
                let sizes = size_of_val(&ABSENT) * get.ranges.len();
                Box::new(repeat(byte).take(sizes as u64))
            }
            Answer::Denied => return Err(Fault::refuses()),
        };
        let link = Arc::clone(link);
        Ok(Self {
            recv,
            link,
            running,
        })
    }

    /// Returns the receiver of the blobs.
    pub(super) fn receiver(self) -> Receiver {
        Receiver::new(self, PATIENCE)
    }
}

impl AsyncRead for Body {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let ended = match ready!(Pin::new(&mut self.recv).poll_read(cx, buf)) {
            Ok(()) if buf.filled().len() > before => return Poll::Ready(Ok(())),
            Ok(()) => io::ErrorKind::UnexpectedEof.into(),
            Err(error) => error,
        };
        let kind = match self.link.connection_lives() {
            // The peer stopped sending: it may be unable to read this blob.
            true => io::ErrorKind::UnexpectedEof,
            false => io::ErrorKind::ConnectionAborted,
        };
        Poll::Ready(Err(io::Error::new(kind, ended)))
    }
}

impl fetch::Answer for Body {
    fn is_absent(size: u64) -> bool {
        size == ABSENT
    }

    fn fault(error: io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::lacks().because(error),
            _ => lost(error),
        }
    }

    fn verified(&mut self, bytes: u64) {
        if let Some(running) = &mut self.running {
            running.count(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use larder_store_api::{Error, Kind, PublicKey, RecordId, Result};
    use larder_store_engine::{ChunkRanges, Hash};
    use tokio::io::AsyncWrite;

    use super::*;
    use crate::replicate::{
        connections::{Connections, Side},
        wire::GET,
    };

    /// A peer that answers as soon as it has read a request, and does not wait for the end of its stream; with
    /// nothing to say, it takes the request and is silent.
    #[derive(Debug)]
    struct Quick(Option<Vec<u8>>);

    #[async_trait::async_trait]
    impl crate::network::ConnectionApi for Quick {
        fn peer(&self) -> PublicKey {
            PublicKey([1; 32])
        }

        fn binding(&self) -> [u8; 32] {
            [0; 32]
        }

        async fn open(&self) -> Result<Stream> {
            Ok(Stream {
                send: Box::new(Gone),
                recv: match &self.0 {
                    Some(answer) => Box::new(Cursor::new(answer.clone())),
                    None => Box::new(Silence),
                },
            })
        }

        async fn accept(&self) -> Result<Stream> {
            Err(self.closed().await)
        }

        fn close(&self, _reason: &str) {}

        async fn closed(&self) -> Error {
            std::future::pending().await
        }
    }

    /// A stream that gives nothing, and does not end.
    struct Silence;

    impl AsyncRead for Silence {
        fn poll_read(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            _buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    /// Takes all bytes; that they end is not heard any more.
    struct Gone;

    impl AsyncWrite for Gone {
        fn poll_write(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }
    }

    async fn ask(peer: Quick) -> Outcome<Body> {
        let connections = Connections::new(PublicKey([2; 32]));
        let link = connections.admit(Arc::new(peer), Side::Dialed);
        let get = Get {
            group: RecordId([3; 32]),
            repo: PublicKey([4; 32]),
            chain: vec![Hash::of("page")],
            ranges: vec![(1, ChunkRanges::all()), (2, ChunkRanges::all())],
        };
        Body::ask(&link.unwrap(), GET, &get, None).await
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_waited_for_no_longer_than_patience() {
        let started = tokio::time::Instant::now();
        let Err(fault) = ask(Quick(None)).await else {
            panic!("it gave nothing");
        };
        assert!(fault.is_peers(fetch::Misconduct::Stalls), "{fault}");
        assert_eq!(started.elapsed().as_secs(), PATIENCE.as_secs());
    }

    #[tokio::test]
    async fn who_answers_before_a_request_ends_is_heard() {
        let file = b"a file";
        let len = (file.len() as u64).to_le_bytes();
        let answer = [&[Answer::Here.encode()][..], &len, file].concat();
        let asked = ask(Quick(Some(answer))).await;
        let (mut receiver, hash) = (asked.unwrap().receiver(), Hash::of(file));
        let size = receiver.size(hash).await.unwrap().unwrap();
        let mut items = receiver.items(hash, size, &ChunkRanges::all());
        assert!(items.next().await.unwrap().is_some());
        // The peer stops sending, and its connection lives: it cannot provide the other blob.
        let fault = receiver.size(Hash::of("other")).await.unwrap_err();
        assert!(fault.is_peers(fetch::Misconduct::Lacks), "{fault}");
        assert_eq!(fault.error().kind(), Kind::NotFound);
    }
}

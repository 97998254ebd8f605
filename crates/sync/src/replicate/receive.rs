//! The answer to a request, as the engine's receiver reads it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use store_engine::fetch::{self, Fault};
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

/// The longest file that is believed to exist: far beyond any disk, and far from any overflow.
pub(super) const MAX_FILE_LEN: u64 = 1 << 50;

/// The blobs that a peer gives.
pub(super) type Receiver = fetch::Receiver<Body>;

/// The bytes of the blobs that a peer gives.
pub(super) struct Body {
    recv: Box<dyn AsyncRead + Send + Unpin>,
    link: Arc<Link>,
    /// Counts what comes, where that is shown.
    running: Option<Running>,
}

impl Body {
    /// Asks, to get something or to be shown it.
    pub(super) async fn ask(
        link: &Arc<Link>,
        what: u8,
        get: &Get,
        running: Option<Running>,
    ) -> Outcome<Self> {
        let Stream { mut send, mut recv } = link.connection.open().await.link()?;
        send.write_all(&[what]).await.map_err(lost)?;
        write_frame(&mut send, &get.encode().local()?).await?;
        // It fails only where the peer has read all that it needs, or refuses to: the answer says which.
        send.shutdown().await.ok();
        let answer = timeout(PATIENCE, recv.read_u8()).await;
        let answer = answer.map_err(|_| Fault::stalls())?.map_err(lost)?;
        let recv = match Answer::decode(answer).peer()? {
            Answer::Here => recv,
            // That says of each blob that it is absent.
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

    /// Receives the blobs.
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
            // It stopped giving: it may not be able to read this blob.
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
        if let Some(running) = &self.running {
            running.count(bytes);
        }
    }
}

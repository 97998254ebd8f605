//! The two halves of a stream.
//!
//! The library's own halves are not what the contract asks for: its sender finishes when it is
//! dropped, so that half a message looks like a whole one; and its reader says that a stream was
//! reset once, and then that it ended cleanly.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use iroh::endpoint::{Connection, ReadError, RecvStream, SendStream, VarInt, WriteError};
use larder_net_api::Stream;
use larder_store_api::{Error, Kind};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
};

use crate::error::ended;

/// The code with which a stream is reset or stopped because it was dropped.
const DROPPED: VarInt = VarInt::from_u32(0);

/// The place of a stream that the other side opened, which its halves share until both have ended.
pub(crate) type Place = Arc<OwnedSemaphorePermit>;

/// Makes a stream that this side opened from its halves.
pub(crate) fn stream(conn: &Arc<Connection>, send: SendStream, recv: RecvStream) -> Stream {
    Stream {
        send: Box::new(Send::new(conn, send, None)),
        recv: Box::new(Recv::new(conn, recv, None)),
    }
}

/// Waits until the other side says something on a stream that it opened; `None` if it gave it up before.
pub(crate) async fn incoming(
    conn: Arc<Connection>,
    send: SendStream,
    recv: RecvStream,
    place: Place,
) -> Option<Stream> {
    let send = Send::new(&conn, send, Some(place.clone()));
    let mut recv = Recv::new(&conn, recv, Some(place));
    let mut byte = [0];
    match recv.inner.read(&mut byte).await {
        Ok(Some(_)) => recv.first = Some(byte[0]),
        Ok(None) => {
            recv.end_with(End::Clean);
        }
        Err(_) => return None,
    }
    Some(Stream {
        send: Box::new(send),
        recv: Box::new(recv),
    })
}

/// The reason why a half does not go on.
#[derive(Debug, Clone)]
enum End {
    Clean,
    Connection(Error),
    Stream(io::ErrorKind, &'static str),
}

impl End {
    fn error(&self) -> Option<io::Error> {
        match self {
            End::Clean => None,
            End::Connection(error) => {
                let kind = match error.kind() {
                    Kind::Closed => io::ErrorKind::NotConnected,
                    _ => io::ErrorKind::ConnectionReset,
                };
                Some(io::Error::new(kind, error.clone()))
            }
            End::Stream(kind, why) => Some(io::Error::new(*kind, *why)),
        }
    }

    fn result(&self) -> io::Result<()> {
        self.error().map_or(Ok(()), Err)
    }
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => End::Connection(ended(&error)),
            ReadError::Reset(_) => End::Stream(
                io::ErrorKind::ConnectionReset,
                "the other side reset the stream",
            ),
            _ => End::Stream(io::ErrorKind::NotConnected, "the stream is gone"),
        }
    }
}

impl From<WriteError> for End {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => End::Connection(ended(&error)),
            WriteError::Stopped(_) => End::Stream(
                io::ErrorKind::BrokenPipe,
                "the other side does not read any more",
            ),
            _ => End::Stream(io::ErrorKind::NotConnected, "the stream is gone"),
        }
    }
}

/// The half that writes.
struct Send {
    inner: SendStream,
    conn: Arc<Connection>,
    /// It was shut down, or has failed.
    end: Option<End>,
    place: Option<Place>,
}

impl Send {
    fn new(conn: &Arc<Connection>, inner: SendStream, place: Option<Place>) -> Self {
        Self {
            inner,
            conn: conn.clone(),
            end: None,
            place,
        }
    }

    fn end_with(&mut self, end: End) -> &End {
        self.place = None;
        self.end.insert(end)
    }
}

impl AsyncWrite for Send {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(end) = &self.end {
            let shut = || io::Error::new(io::ErrorKind::BrokenPipe, "the stream was shut down");
            return Poll::Ready(Err(end.error().unwrap_or_else(shut)));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let wrote = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes));
        Poll::Ready(wrote.map_err(|error| {
            let end = self.end_with(End::from(error));
            end.error()
                .unwrap_or_else(|| io::ErrorKind::NotConnected.into())
        }))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.end.is_none() {
            // The library does not say so itself.
            let end = match self.conn.close_reason() {
                Some(error) => End::Connection(ended(&error)),
                None => match self.inner.finish() {
                    Ok(()) => End::Clean,
                    Err(_) => End::Stream(io::ErrorKind::NotConnected, "the stream is gone"),
                },
            };
            self.end_with(end);
        }
        Poll::Ready(self.end.as_ref().map_or(Ok(()), End::result))
    }
}

impl Drop for Send {
    fn drop(&mut self) {
        if !matches!(self.end, Some(End::Clean)) {
            // It fails where the stream has ended already.
            self.inner.reset(DROPPED).ok();
        }
    }
}

/// The half that reads. Dropped before its end, the library's own tells the other side.
struct Recv {
    inner: RecvStream,
    /// The byte that was read to learn that the other side has sent something.
    first: Option<u8>,
    end: Option<End>,
    place: Option<Place>,
    /// It keeps the connection, as the other half does.
    _conn: Arc<Connection>,
}

impl Recv {
    fn new(conn: &Arc<Connection>, inner: RecvStream, place: Option<Place>) -> Self {
        Self {
            inner,
            first: None,
            end: None,
            place,
            _conn: conn.clone(),
        }
    }

    fn end_with(&mut self, end: End) -> &End {
        self.place = None;
        self.end.insert(end)
    }
}

impl AsyncRead for Recv {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(first) = self.first.take() {
            buf.put_slice(&[first]);
            // More is taken where it is there; how that ends, the next call tells.
            if buf.remaining() > 0 && self.end.is_none() {
                drop(self.poll_more(cx, buf));
            }
            return Poll::Ready(Ok(()));
        }
        self.poll_more(cx, buf)
    }
}

impl Recv {
    fn poll_more(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(end) = &self.end {
            return Poll::Ready(end.result());
        }
        let room = buf.initialize_unfilled();
        let end = match ready!(RecvStream::poll_read(&mut self.inner, cx, room)) {
            Ok(0) => End::Clean,
            Ok(len) => {
                buf.advance(len);
                return Poll::Ready(Ok(()));
            }
            Err(error) => End::from(error),
        };
        Poll::Ready(self.end_with(end).result())
    }
}

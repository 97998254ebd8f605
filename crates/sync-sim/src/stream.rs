//! The two halves of a simulated stream.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use larder_store_api::{Error, Kind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    anchor::Anchor,
    pipe::{End, Pipe, wait},
    trace::PipeId,
    world::World,
};
use larder_net_api::Stream;

/// Returns the stream with this number, on the side of `anchor`.
pub(super) fn stream(anchor: &Arc<Anchor>, number: u64, opener: usize) -> Stream {
    let pipe = |direction| PipeId {
        connection: anchor.id,
        stream: number,
        direction,
    };
    let out = anchor.side ^ opener;
    Stream {
        send: Box::new(Send {
            anchor: anchor.clone(),
            pipe: pipe(out),
            done: false,
        }),
        recv: Box::new(Recv {
            anchor: anchor.clone(),
            pipe: pipe(1 - out),
            done: false,
        }),
    }
}

fn io_error(error: Error) -> io::Error {
    let kind = match error.kind() {
        Kind::Closed => io::ErrorKind::NotConnected,
        _ => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, error)
}

fn broken(kind: io::ErrorKind, why: &'static str) -> io::Error {
    io::Error::new(kind, why)
}

/// Runs a function on a pipe, unless its connection has ended.
fn with_pipe<R>(
    anchor: &Anchor,
    id: PipeId,
    work: impl FnOnce(&mut World, PipeId) -> Option<R>,
) -> io::Result<R> {
    anchor.sim.with(|world| {
        if let Some(error) = anchor.state.ended.get() {
            return Err(io_error(error.clone()));
        }
        let gone = || broken(io::ErrorKind::NotConnected, "the stream is gone");
        work(world, id).ok_or_else(gone)
    })
}

struct Send {
    anchor: Arc<Anchor>,
    pipe: PipeId,
    /// True after it was shut down.
    done: bool,
}

impl AsyncWrite for Send {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.done {
            let why = "the stream was shut down";
            return Poll::Ready(Err(broken(io::ErrorKind::BrokenPipe, why)));
        }
        let wrote = with_pipe(&self.anchor, self.pipe, |world, id| {
            let pipe = world.pipe(id)?;
            if pipe.stopped {
                let why = "the other side does not read any more";
                return Some(Poll::Ready(Err(broken(io::ErrorKind::BrokenPipe, why))));
            }
            let len = pipe.write(bytes);
            if len == 0 && !bytes.is_empty() {
                wait(&mut pipe.writer, cx.waker());
                return Some(Poll::Pending);
            }
            let (from, to) = world.ways(id)?;
            world.enqueue(id, from, to);
            Some(Poll::Ready(Ok(len)))
        });
        match wrote {
            Ok(wrote) => wrote,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        let finished = with_pipe(&self.anchor, self.pipe, |world, id| {
            let pipe = world.pipe(id)?;
            if pipe.stopped {
                let why = "the other side does not read any more";
                return Some(Err(broken(io::ErrorKind::BrokenPipe, why)));
            }
            pipe.finish(End::Clean);
            let (from, to) = world.ways(id)?;
            world.enqueue(id, from, to);
            Some(Ok(()))
        });
        let finished = finished.and_then(|finished| finished);
        self.done = finished.is_ok();
        Poll::Ready(finished)
    }
}

impl Drop for Send {
    fn drop(&mut self) {
        let pipe = self.pipe;
        self.anchor.sim.with(|world| world.drop_half(pipe, true));
    }
}

struct Recv {
    anchor: Arc<Anchor>,
    pipe: PipeId,
    /// True after its end was read.
    done: bool,
}

/// Fills `buf` with the bytes that have arrived. Returns `None` if there are none and the stream has
/// not ended.
fn read(pipe: &mut Pipe, buf: &mut ReadBuf<'_>) -> Option<io::Result<bool>> {
    let before = buf.remaining();
    while buf.remaining() > 0
        && let Some(bytes) = pipe.read(buf.remaining())
    {
        buf.put_slice(&bytes);
    }
    if buf.remaining() < before {
        return Some(Ok(false));
    }
    pipe.arrived_end.map(|end| match end {
        End::Clean => Ok(true),
        End::Reset => {
            let why = "the other side reset the stream";
            Err(broken(io::ErrorKind::ConnectionReset, why))
        }
    })
}

impl AsyncRead for Recv {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.done || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let got = with_pipe(&self.anchor, self.pipe, |world, id| {
            let pipe = world.pipe(id)?;
            Some(match read(pipe, buf) {
                Some(got) => Poll::Ready(got),
                None => {
                    wait(&mut pipe.reader, cx.waker());
                    Poll::Pending
                }
            })
        });
        match got {
            Ok(Poll::Ready(Ok(end))) => {
                self.done = end;
                Poll::Ready(Ok(()))
            }
            Ok(Poll::Ready(Err(error))) | Err(error) => Poll::Ready(Err(error)),
            Ok(Poll::Pending) => Poll::Pending,
        }
    }
}

impl Drop for Recv {
    fn drop(&mut self) {
        let pipe = self.pipe;
        self.anchor.sim.with(|world| world.drop_half(pipe, false));
    }
}

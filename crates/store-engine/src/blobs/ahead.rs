//! Reading ahead: windows are read and verified in tasks of their own, several at a time, and
//! delivered in order.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{FutureExt, Stream, stream::BoxStream};
use larder_store_api::{Error, Kind, Result};
use tokio::task::JoinHandle;

use super::Inner;

/// The number of bytes that a window covers.
pub(crate) const WINDOW_LEN: u64 = 1024 * 1024;
/// The most bytes that a stream has in memory: windows that are read, verified or wait to be taken.
const MAX_AHEAD: u64 = 8 * 1024 * 1024;

impl Inner {
    /// Returns the number of windows that a stream reads at a time, once it is known to read on.
    pub(crate) fn windows_ahead(&self) -> usize {
        // Two at least: one is verified while the next is read.
        let fastest = usize::from(self.payloads.capabilities().concurrency).max(2);
        fastest.min((MAX_AHEAD / WINDOW_LEN) as usize)
    }
}

/// The result of a window: its verified part, and whether that is all.
pub(crate) type Verified<T> = (Option<T>, Result<()>);

/// A stream of what `work` makes of each window, in their order, up to and including the first
/// error. At most `most` are under way; dropping the stream ends them.
///
/// It begins with one, and works on more the further it is read: a reader that takes little causes
/// little work.
pub(crate) fn ahead<W, T, F>(
    most: usize,
    windows: impl Stream<Item = Result<W>> + Send + 'static,
    work: impl Fn(W) -> F + Send + 'static,
) -> impl Stream<Item = Result<T>> + Send
where
    T: Send + 'static,
    F: Future<Output = Verified<T>> + Send + 'static,
{
    Ahead {
        windows: Some(Box::pin(windows)),
        work,
        running: VecDeque::new(),
        allowed: 1,
        most,
    }
}

struct Ahead<W, T, Work> {
    /// `None` after its end.
    windows: Option<BoxStream<'static, Result<W>>>,
    work: Work,
    running: VecDeque<Window<T>>,
    /// The number of windows that may be under way now.
    allowed: usize,
    most: usize,
}

/// A window under way.
enum Window<T> {
    Running(Task<T>),
    /// Nothing more comes, for this reason.
    Failed(Error),
}

fn worker_failed(error: tokio::task::JoinError) -> Error {
    Error::new(Kind::Internal, "blobs.read", "the task that reads failed").because(error)
}

/// A task that ends when it is dropped.
struct Task<T>(JoinHandle<Verified<T>>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<W, T, F, Work> Ahead<W, T, Work>
where
    T: Send + 'static,
    F: Future<Output = Verified<T>> + Send + 'static,
    Work: Fn(W) -> F,
{
    /// Begins as many windows as may be under way.
    fn begin(&mut self, cx: &mut Context<'_>) {
        while self.running.len() < self.allowed
            && let Some(windows) = &mut self.windows
        {
            match windows.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(window))) => {
                    let task = Task(tokio::spawn((self.work)(window)));
                    self.running.push_back(Window::Running(task));
                }
                Poll::Ready(Some(Err(error))) => {
                    self.windows = None;
                    self.running.push_back(Window::Failed(error));
                }
                Poll::Ready(None) => self.windows = None,
                Poll::Pending => return,
            }
        }
    }
}

// Nothing in it is pinned in place.
impl<W, T, Work> Unpin for Ahead<W, T, Work> {}

impl<W, T, F, Work> Stream for Ahead<W, T, Work>
where
    T: Send + 'static,
    F: Future<Output = Verified<T>> + Send + 'static,
    Work: Fn(W) -> F,
{
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            this.begin(cx);
            let (good, ended) = match this.running.front_mut() {
                Some(Window::Running(task)) => match ready!(task.0.poll_unpin(cx)) {
                    Ok(verified) => verified,
                    Err(error) => (None, Err(worker_failed(error))),
                },
                Some(Window::Failed(error)) => {
                    let error = error.clone();
                    this.running.clear();
                    return Poll::Ready(Some(Err(error)));
                }
                None if this.windows.is_none() => return Poll::Ready(None),
                None => return Poll::Pending,
            };
            this.running.pop_front();
            match ended {
                Ok(()) => {
                    this.allowed = (this.allowed * 2).min(this.most);
                    // The next windows are worked on while this one is used.
                    this.begin(cx);
                }
                Err(error) => {
                    this.windows = None;
                    this.running.clear();
                    this.running.push_back(Window::Failed(error));
                }
            }
            if let Some(good) = good {
                return Poll::Ready(Some(Ok(good)));
            }
        }
    }
}

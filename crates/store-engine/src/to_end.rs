//! Work that runs to its end, whatever becomes of the caller that waits for it.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

/// A future that, once polled, runs to its end: where it is dropped before, the rest of it becomes a
/// task of the runtime that polled it. Dropped without having been polled, it does nothing.
///
/// A commit is such work: a store may apply it after its caller is gone, and then what follows from
/// it must still be done. Outside of a runtime, and where the runtime shuts down, the work is dropped
/// in the middle; it must then hold what says so.
pub(crate) struct ToEnd<T: 'static> {
    work: Option<BoxFuture<'static, T>>,
    /// The runtime that polled it first.
    runtime: Option<Handle>,
    is_begun: bool,
}

impl<T: 'static> ToEnd<T> {
    pub(crate) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self {
            work: Some(Box::pin(work)),
            runtime: None,
            is_begun: false,
        }
    }
}

impl<T: 'static> Future for ToEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        if !this.is_begun {
            this.is_begun = true;
            this.runtime = Handle::try_current().ok();
        }
        let work = this
            .work
            .as_mut()
            .expect("no future is polled after its end");
        let polled = work.as_mut().poll(context);
        if polled.is_ready() {
            this.work = None;
        }
        polled
    }
}

impl<T: 'static> Drop for ToEnd<T> {
    fn drop(&mut self) {
        if self.is_begun
            && let Some(work) = self.work.take()
            && let Some(runtime) = &self.runtime
        {
            runtime.spawn(async move { drop(work.await) });
        }
    }
}

impl<T: 'static> fmt::Debug for ToEnd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToEnd")
            .field("is_begun", &self.is_begun)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, poll_fn},
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use futures_util::FutureExt;
    use tokio::task::yield_now;

    use super::*;

    fn counting(steps: &Arc<AtomicUsize>) -> ToEnd<()> {
        let steps = steps.clone();
        ToEnd::new(async move {
            for _ in 0..3 {
                steps.fetch_add(1, Ordering::SeqCst);
                yield_now().await;
            }
        })
    }

    #[tokio::test]
    async fn what_was_begun_ends() {
        let steps = Arc::new(AtomicUsize::new(0));
        let mut work = counting(&steps);
        assert!((&mut work).now_or_never().is_none());
        drop(work);
        assert_eq!(steps.load(Ordering::SeqCst), 1);
        while steps.load(Ordering::SeqCst) < 3 {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_was_not_begun_does_nothing() {
        let steps = Arc::new(AtomicUsize::new(0));
        drop(counting(&steps));
        for _ in 0..10 {
            yield_now().await;
        }
        assert_eq!(steps.load(Ordering::SeqCst), 0);
    }

    /// Work that is dropped outside of its runtime still becomes a task of it.
    #[test]
    fn the_runtime_that_began_ends_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime");
        let steps = Arc::new(AtomicUsize::new(0));
        let mut work = counting(&steps);
        runtime.block_on(poll_fn(|context| {
            assert!(Pin::new(&mut work).poll(context).is_pending());
            Poll::Ready(())
        }));
        drop(work);
        runtime.block_on(async {
            while steps.load(Ordering::SeqCst) < 3 {
                yield_now().await;
            }
        });
    }

    /// Tests that work is dropped, and says so, if there is no runtime any more.
    #[test]
    fn what_cannot_end_is_dropped() {
        struct Told(Arc<AtomicUsize>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let dropped = Arc::new(AtomicUsize::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime");
        let told = Told(dropped.clone());
        let mut work = ToEnd::new(async move {
            let _told = told;
            pending::<()>().await;
        });
        runtime.block_on(poll_fn(|context| {
            assert!(Pin::new(&mut work).poll(context).is_pending());
            Poll::Ready(())
        }));
        drop(runtime);
        drop(work);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    }
}

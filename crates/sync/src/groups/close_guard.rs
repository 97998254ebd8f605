//! The close barrier: a change holds a pass of a gate, and closing the gate waits for all passes.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use larder_store_api::{Error, Kind, Result};
use tokio::sync::Notify;

/// Open until it is closed, for good.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    left: Notify,
}

#[derive(Debug, Default)]
struct State {
    is_closed: bool,
    inside: u64,
}

/// One who is inside, until it is dropped.
#[derive(Debug)]
pub(super) struct Pass<'a>(&'a Gate);

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acquires a pass for a change. Not re-entrant: a holder must not acquire another one, as the
    /// gate may be closed by then.
    pub(super) fn enter(&self, operation: &'static str) -> Result<Pass<'_>> {
        let mut state = self.state();
        if state.is_closed {
            return Err(closed(operation));
        }
        state.inside += 1;
        Ok(Pass(self))
    }

    /// Looks whether it is open, for what does not change anything.
    pub(super) fn check(&self, operation: &'static str) -> Result<()> {
        match self.state().is_closed {
            true => Err(closed(operation)),
            false => Ok(()),
        }
    }

    /// Lets nobody in any more, and waits until nobody is inside. If it is given up before, the gate is
    /// closed all the same.
    pub(super) async fn close(&self) {
        self.state().is_closed = true;
        loop {
            let left = self.left.notified();
            if self.state().inside == 0 {
                return;
            }
            left.await;
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.inside -= 1;
        if state.inside == 0 {
            self.0.left.notify_waiters();
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state().fmt(f)
    }
}

fn closed(operation: &'static str) -> Error {
    Error::new(
        Kind::Closed,
        operation,
        "the groups, or this repo, were closed",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_is_inside_is_waited_for_and_nobody_else_gets_in() {
        let gate = Gate::default();
        let (one, two) = (gate.enter("test").unwrap(), gate.enter("test").unwrap());
        gate.check("test").unwrap();
        let mut closing = Box::pin(gate.close());
        assert!(closing.as_mut().now_or_never().is_none());
        assert_eq!(gate.enter("test").unwrap_err().kind(), Kind::Closed);
        assert_eq!(gate.check("test").unwrap_err().kind(), Kind::Closed);
        drop(one);
        assert!(closing.as_mut().now_or_never().is_none());
        drop(two);
        closing.await;
        gate.close().await;
    }

    #[tokio::test]
    async fn all_who_close_are_told() {
        let gate = Arc::new(Gate::default());
        let pass = gate.enter("test").unwrap();
        let closing = [gate.clone(), gate.clone()].map(|gate| {
            tokio::spawn(async move {
                gate.close().await;
            })
        });
        tokio::task::yield_now().await;
        assert!(closing.iter().all(|closing| !closing.is_finished()));
        drop(pass);
        for closing in closing {
            closing.await.unwrap();
        }
    }
}

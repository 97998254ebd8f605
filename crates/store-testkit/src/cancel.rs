//! Tests calls that are dropped at every one of their awaits.
//!
//! A dropped call must not leave anything harmful behind: acknowledged data stays, everything that the
//! store claims to have is there, and the call can be repeated. [`at_every_await`] runs a scenario once
//! for each await of the call that it cancels. Over a [`LateStore`](crate::stores::LateStore),
//! operations that the call had begun take effect after it was dropped, as in a store that has threads
//! of its own.
//!
//! ```
//! use larder_store_api::{Batch, CollectionStore};
//! use larder_store_testkit::{MemoryStore, cancel::at_every_await, stores::LateStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let cuts = at_every_await(async |mut cut| {
//!     let store = LateStore::new(MemoryStore::new(), cut.polls() as u64);
//!     // `None` where the call was cut off.
//!     let answer = cut.call(store.commit(Batch::of(Vec::new()))).await;
//!     store.settle().await;
//!     // Here the scenario checks what must hold, whatever became of the call.
//!     assert!(answer.is_none_or(|revision| revision.is_ok()));
//!     cut
//! })
//! .await;
//! assert!(cuts > 1);
//! # }
//! ```

use std::{future::poll_fn, pin::pin, task::Poll};

/// More polls than any call needs to complete.
const MAX_POLLS: usize = 100_000;

/// The point at which a call is cancelled. One scenario cancels one call.
#[derive(Debug)]
pub struct Cut {
    polls: usize,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Unused,
    CutOff,
    Completed,
}

impl Cut {
    /// Returns a cut that drops the call after this many polls.
    pub fn after(polls: usize) -> Self {
        let state = State::Unused;
        Self { polls, state }
    }

    /// Returns the number of times that the call is polled before it is dropped; 0 means that it is
    /// dropped before it begins.
    pub fn polls(&self) -> usize {
        self.polls
    }

    /// Returns true if the call was made and dropped before it completed.
    pub fn was_cut(&self) -> bool {
        self.state == State::CutOff
    }

    /// Polls `call` whenever it is woken, and drops it after the chosen number of polls. Returns the
    /// call's result, or `None` if it was dropped.
    ///
    /// # Panics
    /// If another call was dropped already.
    pub async fn call<T>(&mut self, call: impl Future<Output = T>) -> Option<T> {
        assert_eq!(self.state, State::Unused, "one scenario cuts off one call");
        self.state = State::CutOff;
        let mut left = self.polls;
        if left == 0 {
            return None;
        }
        let answer = {
            let mut call = pin!(call);
            poll_fn(|context| {
                if let Poll::Ready(answer) = call.as_mut().poll(context) {
                    return Poll::Ready(Some(answer));
                }
                left -= 1;
                match left {
                    0 => Poll::Ready(None),
                    _ => Poll::Pending,
                }
            })
            .await
        };
        if answer.is_some() {
            self.state = State::Completed;
        }
        answer
    }
}

/// Runs `scenario` repeatedly, with a call that is polled never, once, twice and so on, until the call
/// completes; returns how often the call was dropped. The scenario makes a new world each time, makes
/// its call through [`Cut::call`], checks the invariants, and returns the [`Cut`].
///
/// # Panics
/// If a scenario does not make its call, or if the call never completes.
pub async fn at_every_await(scenario: impl AsyncFn(Cut) -> Cut) -> usize {
    for polls in 0..MAX_POLLS {
        let cut = scenario(Cut::after(polls)).await;
        match cut.state {
            State::Unused => panic!("the scenario makes no call"),
            State::CutOff => {}
            State::Completed => return polls,
        }
    }
    panic!("the call does not complete in {MAX_POLLS} polls");
}

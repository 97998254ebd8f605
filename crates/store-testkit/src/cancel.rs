//! Calls that are dropped at every one of their awaits.
//!
//! A call that is dropped must leave nothing behind that harms: what was acknowledged stays, what is
//! claimed is there, and the call can be made again. [`at_every_await`] runs a scenario once for each
//! await of the call that it cuts off. Over a [`LateStore`](crate::stores::LateStore), what the call
//! had begun takes effect after it was dropped, as with a store that has threads of its own.
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

/// More polls than any call takes before it completes.
const MAX_POLLS: usize = 100_000;

/// The point at which a call is cut off. One scenario cuts off one call.
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
    /// A call that is dropped after so many polls.
    pub fn after(polls: usize) -> Self {
        let state = State::Unused;
        Self { polls, state }
    }

    /// Returns the number of times that the call is polled before it is dropped: 0 is dropped
    /// without having begun.
    pub fn polls(&self) -> usize {
        self.polls
    }

    /// Returns true if the call was made, and was cut off before it completed.
    pub fn was_cut(&self) -> bool {
        self.state == State::CutOff
    }

    /// Polls `call` when it is woken, drops it after so many polls, and returns `None`; or its answer
    /// where it completes earlier.
    ///
    /// # Panics
    /// Where another call was cut off already.
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

/// Runs `scenario` again and again, with a call that is polled never, once, twice and so on, until
/// it completes; says how often it was cut off. The scenario makes a new world each time, makes its
/// call through [`Cut::call`], checks what must hold, and hands the [`Cut`] back.
///
/// # Panics
/// Where a scenario does not make its call, or the call never completes.
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

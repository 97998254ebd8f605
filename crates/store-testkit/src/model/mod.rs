//! Models of stores, each driven side by side with a real store by the same random steps.

mod collections;
mod payloads;

use std::{fmt, future::Future, panic};

use futures_util::future::BoxFuture;
use larder_store_api::{BlobStore, CollectionStore};
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use proptest_state_machine::ReferenceStateMachine;

use crate::suite::{Erase, Fixture, Subject, Suite, runtime};

/// The seed, which makes the steps the same in every run, on every machine.
const SEED: [u8; 32] = *b"the same steps, on every machine";

/// Tests that a backend follows the model: a [`BTreeMap`](std::collections::BTreeMap) of the content
/// that it should have. The arguments are constructors, as for
/// [`blob_store_suite`](crate::blob_store_suite), of a store of blobs, of collections, or of each.
///
/// If the [`Subject`](crate::suite::Subject) can be opened again, this happens at random, after a sync.
///
/// ```no_run
/// use larder_store_testkit::{MemoryStore, model_suite, suite::Subject};
///
/// async fn subject() -> larder_store_api::Result<Subject<MemoryStore>> {
///     Ok(Subject::new(MemoryStore::new()))
/// }
/// model_suite!(blobs: subject, collections: subject);
/// ```
#[macro_export]
macro_rules! model_suite {
    (blobs: $blobs:expr, collections: $collections:expr $(,)?) => {
        $crate::model_suite!(blobs: $blobs);
        $crate::model_suite!(collections: $collections);
    };
    (blobs: $construct:expr $(,)?) => {
        #[test]
        fn payloads_follow_the_model() {
            $crate::model::payloads($construct);
        }
    };
    (collections: $construct:expr $(,)?) => {
        #[test]
        fn collections_follow_the_model() {
            $crate::model::collections($construct);
        }
    };
}

/// Drives a blob store and its model side by side.
///
/// # Panics
/// If they differ; the panic shows the fewest steps found that reproduce it.
pub fn payloads<S, E, F>(construct: impl Fn() -> F)
where
    S: Erase<dyn BlobStore>,
    E: fmt::Debug,
    F: Future<Output = Result<Subject<S>, E>>,
{
    drive::<dyn BlobStore, payloads::Model, _, _, _>(construct);
}

/// Drives a collection store and its model side by side.
///
/// # Panics
/// If they differ; the panic shows the fewest steps found that reproduce it.
pub fn collections<S, E, F>(construct: impl Fn() -> F)
where
    S: Erase<dyn CollectionStore>,
    E: fmt::Debug,
    F: Future<Output = Result<Subject<S>, E>>,
{
    drive::<dyn CollectionStore, collections::Model, _, _, _>(construct);
}

/// The expected behaviour of a store of the trait `T`.
trait Driven<T: ?Sized>: ReferenceStateMachine {
    /// The number of fresh stores to drive.
    const RUNS: u32;
    /// The most steps for each of them.
    const STEPS: usize;

    /// Runs `steps` on a store and the model, and panics if they differ.
    fn follow(
        fixture: Fixture<T>,
        initial: Self::State,
        steps: Steps<Self::Transition>,
    ) -> BoxFuture<'static, ()>;
}

/// Steps to run, with a count of those that were reached. Steps that were not reached do not help to
/// find a shorter failure.
struct Steps<T> {
    steps: std::vec::IntoIter<T>,
    seen: Option<std::sync::Arc<std::sync::atomic::AtomicUsize>>,
}

impl<T> Iterator for Steps<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let step = self.steps.next()?;
        if let Some(seen) = &self.seen {
            seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        Some(step)
    }
}

fn drive<T, M, S, E, F>(construct: impl Fn() -> F)
where
    T: Suite + ?Sized,
    M: Driven<T>,
    M::Transition: Send + 'static,
    S: Erase<T>,
    E: fmt::Debug,
    F: Future<Output = Result<Subject<S>, E>>,
{
    let config = Config {
        cases: M::RUNS,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &SEED);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let steps = M::sequential_strategy(1..=M::STEPS);
    let outcome = runner.run(&steps, |(initial, steps, seen)| {
        let runtime = runtime();
        let fixture = runtime
            .block_on(construct())
            .expect("the subject is made")
            .erase();
        let steps = Steps {
            steps: steps.into_iter(),
            seen,
        };
        let followed = runtime.block_on(runtime.spawn(M::follow(fixture, initial, steps)));
        followed.unwrap_or_else(|error| panic::resume_unwind(error.into_panic()));
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Abort(reason)) => panic!("no steps were found: {reason}"),
        Err(TestError::Fail(reason, (_, steps, _))) => {
            panic!("the store left the model: {reason}\nsteps: {steps:#?}")
        }
    }
}

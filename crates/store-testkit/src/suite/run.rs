//! Runs cases: one by one under libtest, or all of them from a program.

use std::{any::Any, fmt, future::Future, panic, time::Duration};

use tokio::runtime::{Builder, Runtime};

use super::{Case, Erase, Need, Subject, Suite};

/// The time after which a case counts as hanging; far longer than the slowest disk needs.
const CASE_LIMIT: Duration = Duration::from_secs(600);
/// The time for which the runtime of a failed case waits for its blocking work.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// Two workers, so that tasks of a case really run in parallel.
const WORKERS: usize = 2;

type Panic = Box<dyn Any + Send>;

/// Runs the case called `name` on a fresh subject. Panics if the case fails, if the subject lacks a
/// needed capability, and if there is no such case.
pub fn run_case<T, S, E, F>(name: &str, construct: impl Fn() -> F)
where
    T: Suite + ?Sized,
    S: Erase<T>,
    E: fmt::Debug,
    F: Future<Output = Result<Subject<S>, E>>,
{
    let case = T::cases().iter().find(|case| case.name == name);
    let case = case.unwrap_or_else(|| panic!("the suite has no case {name}"));
    match run_one(case, &construct) {
        Outcome::Passed => {}
        Outcome::Failed(cause) => panic::resume_unwind(cause),
        Outcome::Lacking => panic!(
            "the case needs {0}, which this store lacks: list it, as in `lacks: [{0} = \"why\"]`",
            case.need.name()
        ),
    }
}

/// Panics unless `lacks` names exactly the capabilities that the suite's cases need and the subject
/// lacks, and at least one case is left to run.
pub fn check_lacks<T, S, E, F>(lacks: &[&str], construct: impl Fn() -> F)
where
    T: Suite + ?Sized,
    S: Erase<T>,
    E: fmt::Debug,
    F: Future<Output = Result<Subject<S>, E>>,
{
    for name in lacks {
        assert!(
            Need::ALL.iter().any(|need| need.name() == *name),
            "`lacks` names {name}, which is not one of {:?}",
            Need::ALL
        );
    }
    let runtime = runtime();
    let fixture = runtime
        .block_on(construct())
        .expect("the subject is made")
        .erase();
    let needed = Need::ALL
        .into_iter()
        .filter(|need| T::cases().iter().any(|case| case.need == *need));
    for need in needed {
        match (fixture.has(need), lacks.contains(&need.name())) {
            (true, true) => panic!("`lacks` names {}, which this store has", need.name()),
            (false, false) => panic!("this store lacks {}, which `lacks` omits", need.name()),
            _ => {}
        }
    }
    let left = T::cases().iter().filter(|case| fixture.has(case.need));
    assert!(left.count() > 0, "no case is left to run");
}

/// The outcomes of a suite's cases, by name.
#[derive(Debug, Default)]
pub struct Report {
    /// The cases that passed.
    pub passed: Vec<&'static str>,
    /// The cases that need a capability that the store lacks.
    pub ignored: Vec<&'static str>,
    /// The cases that failed, with their panic messages.
    pub failed: Vec<(&'static str, String)>,
}

/// Runs every case of the suite of `T`, each on a fresh subject.
///
/// # Panics
/// If no case was run, or if a subject could not be made.
pub fn run_all<T, S, E, F>(construct: impl Fn() -> F) -> Report
where
    T: Suite + ?Sized,
    S: Erase<T>,
    E: fmt::Debug,
    F: Future<Output = Result<Subject<S>, E>>,
{
    let mut report = Report::default();
    for case in T::cases() {
        match run_one(case, &construct) {
            Outcome::Passed => report.passed.push(case.name),
            Outcome::Lacking => report.ignored.push(case.name),
            Outcome::Failed(cause) => report.failed.push((case.name, words(&cause))),
        }
    }
    let ran = report.passed.len() + report.failed.len();
    assert!(ran > 0, "no case was run");
    report
}

enum Outcome {
    Passed,
    Failed(Panic),
    Lacking,
}

fn run_one<T, S, E, F>(case: &Case<T>, construct: &impl Fn() -> F) -> Outcome
where
    T: Suite + ?Sized,
    S: Erase<T>,
    E: fmt::Debug,
    F: Future<Output = Result<Subject<S>, E>>,
{
    let runtime = runtime();
    let fixture = runtime
        .block_on(construct())
        .expect("the subject is made")
        .erase();
    if !fixture.has(case.need) {
        return Outcome::Lacking;
    }
    let running = runtime.spawn((case.run)(fixture));
    // The timeout is outside the task, so that it also ends a case that never yields.
    let limited = async { tokio::time::timeout(CASE_LIMIT, running).await };
    let outcome = match runtime.block_on(limited) {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(error)) => Outcome::Failed(error.into_panic()),
        Err(_) => Outcome::Failed(Box::new(format!("hangs: not done in {CASE_LIMIT:?}"))),
    };
    runtime.shutdown_timeout(SHUTDOWN_LIMIT);
    outcome
}

/// Returns the runtime of one case.
pub(crate) fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .expect("a runtime can be built")
}

fn words(cause: &Panic) -> String {
    let text = cause.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| cause.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panicked without words".to_owned())
}

//! Tests of records on a real private network: five nodes of this process, in a network namespace of
//! its own that the program makes by starting itself again.
//!
//! If namespaces cannot be made, every case shows as ignored; with `LARDER_NAMESPACES=required` that is
//! a failure.

#![allow(clippy::print_stderr, reason = "it says why cases are ignored")]

#[path = "network/cases.rs"]
mod cases;
#[path = "network/net.rs"]
mod net;

use std::{
    process::{Command, ExitCode},
    time::Duration,
};

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

/// Set in the program that runs inside the namespace.
const INSIDE: &str = "LARDER_IN_NAMESPACE";
/// The time limit of a case; none takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let args = Arguments::from_args();
    if std::env::var_os(INSIDE).is_some() {
        return run(args);
    }
    if args.list {
        return without_network(&args, &Ok(()));
    }
    if let Err(reason) = net::can_isolate() {
        eprintln!("{reason}");
        return without_network(&args, &Err(reason));
    }
    let program = std::env::current_exe().expect("a program knows where it is");
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(program)
        .args(std::env::args().skip(1))
        .env(INSIDE, "1")
        .status();
    match status.expect("it could be started before").success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Lists the cases, or shows them as ignored; if tests are required to run, it is a failure that they
/// cannot.
fn without_network(args: &Arguments, isolated: &Result<(), String>) -> ExitCode {
    let is_required = std::env::var("LARDER_NAMESPACES").is_ok_and(|must| must == "required");
    let trial = |(name, _): &(&'static str, cases::Case)| {
        let isolated = isolated.clone();
        let is_ignored = isolated.is_err() && !is_required;
        Trial::test(*name, || isolated.map_err(Failed::from)).with_ignored_flag(is_ignored)
    };
    let all = cases::TOGETHER.iter().chain(cases::ALONE).map(trial);
    libtest_mimic::run(args, all.collect()).exit_code()
}

fn run(mut args: Arguments) -> ExitCode {
    net::set_up();
    let runtime = Runtime::new().expect("a runtime");
    let network = runtime.block_on(net::Net::start());
    let trials = |cases: &[(&'static str, cases::Case)]| -> Vec<Trial> {
        let trial = |(name, case): &(&'static str, cases::Case)| {
            let (case, network, runtime) = (*case, network.clone(), runtime.handle().clone());
            Trial::test(*name, move || {
                let case = async { tokio::time::timeout(PATIENCE, case(network)).await };
                runtime.block_on(case).map_err(|_| "it hangs".into())
            })
        };
        cases.iter().map(trial).collect()
    };
    args.test_threads = Some(cases::TOGETHER.len());
    let together = libtest_mimic::run(&args, trials(cases::TOGETHER));
    args.test_threads = Some(1);
    let alone = libtest_mimic::run(&args, trials(cases::ALONE));
    runtime.block_on(network.shutdown());
    match together.has_failed() || alone.has_failed() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

//! Members in a network namespace each, joined by a bridge: links that are cut, healed and slow.
//!
//! The program starts itself again for each case, in a user and network namespace of its own. Where those
//! cannot be made, every case shows as ignored; with `LARDER_NAMESPACES=required` that is a failure.

#![allow(clippy::print_stderr, reason = "it says why cases are ignored")]

#[allow(dead_code, reason = "the tests of the program use the rest")]
#[path = "../program/backend.rs"]
mod backend;
mod cases;
mod net;
#[allow(dead_code, reason = "the tests of the program use the rest")]
#[path = "../program/support.rs"]
mod support;

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

/// Set in the program that runs inside the namespace: the name of a case.
const INSIDE: &str = "LARDER_IN_NAMESPACE";

/// A case.
type Case = fn();

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(INSIDE) {
        let case = cases::ALL.iter().find(|(known, _)| *known == name);
        case.expect("the program that started this one knows its cases")
            .1();
        return ExitCode::SUCCESS;
    }
    let mut args = Arguments::from_args();
    // Each has several processes.
    args.test_threads = Some(1);
    let isolated = net::can_isolate();
    // If these tests are required, it is a failure that they cannot run.
    let is_required = std::env::var("LARDER_NAMESPACES").is_ok_and(|must| must == "required");
    if let Err(reason) = &isolated {
        eprintln!("{reason}");
    }
    let trial = |(name, _): &(&'static str, Case)| {
        let (name, isolated) = (*name, isolated.clone());
        let is_ignored = isolated.is_err() && !is_required;
        let run = move || isolated.map_err(Failed::from).and_then(|()| run(name));
        Trial::test(name, run).with_ignored_flag(is_ignored)
    };
    libtest_mimic::run(&args, cases::ALL.iter().map(trial).collect()).exit_code()
}

fn run(case: &str) -> Result<(), Failed> {
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(std::env::current_exe()?)
        .env(INSIDE, case)
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err("it failed, as was said above".into()),
    }
}

//! Members in a network namespace each, joined by a bridge: links that are cut, healed and slow.
//!
//! The program starts itself again for each case, in a user and network namespace of its own. Where those
//! cannot be made, every case shows as ignored; with `LARDER_NAMESPACES=required` that is a failure.

#![allow(clippy::print_stdout, reason = "it is its own harness")]

mod cases;
mod net;
#[allow(dead_code, reason = "the tests of the program use the rest")]
#[path = "../program/support.rs"]
mod support;

use std::{
    process::{Command, ExitCode},
    time::Instant,
};

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
    let args: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let is_chosen = |name: &str| {
        let mut filters = filters.iter();
        filters.len() == 0 || filters.any(|filter| name.contains(filter.as_str()))
    };
    let chosen = cases::ALL.iter().map(|(name, _)| *name);
    let chosen: Vec<_> = chosen.filter(|name| is_chosen(name)).collect();
    if args.iter().any(|arg| arg == "--list") {
        chosen.iter().for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    if let Err(reason) = net::can_isolate() {
        for name in &chosen {
            println!("test {name} ... ignored, {reason}");
        }
        let ignored = chosen.len();
        println!("\ntest result: ok. 0 passed; 0 failed; {ignored} ignored\n");
        // Where tests must run, not running is a failure.
        return match std::env::var("LARDER_NAMESPACES").as_deref() {
            Ok("required") => ExitCode::FAILURE,
            Ok(_) | Err(_) => ExitCode::SUCCESS,
        };
    }
    let mut failed = 0;
    for name in &chosen {
        let start = Instant::now();
        let verdict = match run(name) {
            true => "ok",
            false => "FAILED",
        };
        failed += usize::from(verdict != "ok");
        let seconds = start.elapsed().as_secs_f32();
        println!("test {name} ... {verdict} <{seconds:.1}s>");
    }
    let passed = chosen.len() - failed;
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored\n");
    ExitCode::from(u8::from(failed > 0))
}

fn run(case: &str) -> bool {
    let program = std::env::current_exe().expect("a program knows where it is");
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(program)
        .env(INSIDE, case)
        .status();
    status.expect("it could be started before").success()
}

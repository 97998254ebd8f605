//! Records on a real private network: five nodes of this process, in a network namespace of its own
//! that the program makes by starting itself again.
//!
//! Where namespaces cannot be made, every case shows as ignored; with `LARDER_NAMESPACES=required` that
//! is a failure.

#![allow(clippy::print_stdout, reason = "it is its own harness")]

#[path = "network/cases.rs"]
mod cases;
#[path = "network/net.rs"]
mod net;

use std::{
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use tokio::{task::JoinHandle, time::error::Elapsed};

/// Set in the program that runs inside the namespace.
const INSIDE: &str = "LARDER_IN_NAMESPACE";
/// No case takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let filter = args.iter().find(|arg| !arg.starts_with('-'));
    let choose = |cases: &'static [(&'static str, cases::Case)]| -> Vec<_> {
        let cases = cases.iter();
        cases
            .filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter.as_str())))
            .copied()
            .collect()
    };
    let (together, alone) = (choose(cases::TOGETHER), choose(cases::ALONE));
    let chosen = [&together[..], &alone[..]].concat();
    if args.iter().any(|arg| arg == "--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(INSIDE).is_some() {
        return run(&together, &alone);
    }
    if let Err(reason) = net::can_isolate() {
        println!("\nrunning {} tests", chosen.len());
        for (name, _) in &chosen {
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
    let program = std::env::current_exe().expect("a program knows where it is");
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(program)
        .args(&args)
        .env(INSIDE, "1")
        .status();
    match status.expect("it could be started before").success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// A case that runs, in a task of its own, so that a panic fails it alone.
type Running = (&'static str, Instant, JoinHandle<Result<(), Elapsed>>);

fn run(
    together: &[(&'static str, cases::Case)],
    alone: &[(&'static str, cases::Case)],
) -> ExitCode {
    net::set_up();
    println!("\nrunning {} tests", together.len() + alone.len());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let failed = runtime.block_on(async {
        let network = net::Net::start().await;
        let spawn = |(name, case): &(&'static str, cases::Case)| -> Running {
            let case = tokio::time::timeout(PATIENCE, case(network.clone()));
            (*name, Instant::now(), tokio::spawn(case))
        };
        let mut failed = 0;
        for running in together.iter().map(spawn).collect::<Vec<_>>() {
            failed += finish(running).await;
        }
        for case in alone {
            failed += finish(spawn(case)).await;
        }
        network.shutdown().await;
        failed
    });
    let passed = together.len() + alone.len() - failed;
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored\n");
    ExitCode::from(u8::from(failed > 0))
}

/// Says how a case ended, and counts it where it failed.
async fn finish((name, start, case): Running) -> usize {
    let verdict = match case.await {
        Ok(Ok(())) => "ok",
        Ok(Err(_)) => "FAILED (it hangs)",
        Err(_) => "FAILED",
    };
    println!(
        "test {name} ... {verdict} <{:.1}s>",
        start.elapsed().as_secs_f32()
    );
    usize::from(verdict != "ok")
}

//! The suite of records on Veilid's mock network. There is one network per process, so each case has a
//! process of its own. The mock is fast and lenient: this tests how this crate handles Veilid's
//! answers, and shows nothing about a real network.

mod node;

use std::process::{Command, ExitCode};

use larder_store_api::{RecordStore, Result};
use larder_store_testkit::suite::{Need, Subject, Suite, check_lacks, run_case};
use larder_store_veilid::VeilidRecords;

/// Set in the process of a case.
const CASE: &str = "LARDER_SUITE_CASE";
/// The name of the case that compares [`LACKS`] with what the store claims.
const HONEST: &str = "lacks_what_is_listed_and_nothing_else";

const LACKS: [(Need, &str); 3] = [
    (
        Need::Import,
        "Veilid's interface takes no values that were signed elsewhere",
    ),
    (
        Need::SharedRoom,
        "Veilid divides a record's room among its slots",
    ),
    (Need::Reopen, "the mock keeps nothing when a node ends"),
];

/// The case that is valid only for a store whose records nobody else holds.
const OF_A_STORE_ALONE: (&str, &str) = (
    "forget_removes_record_and_values",
    "the network still has a record that a node forgets",
);

async fn subject() -> Result<Subject<VeilidRecords>> {
    let dir = tempfile::tempdir().expect("a folder");
    let subject = Subject::new(node::records(dir.path()).await?);
    Ok(subject
        .closing(|records| async move {
            records.node().shutdown().await;
            Result::<()>::Ok(())
        })
        .keeping(dir))
}

fn main() -> ExitCode {
    if let Ok(case) = std::env::var(CASE) {
        if case == HONEST {
            let lacks = LACKS.map(|(need, _)| need.name());
            check_lacks::<dyn RecordStore, _, _, _>(&lacks, subject);
        } else {
            run_case::<dyn RecordStore, _, _, _>(&case, subject);
        }
        return ExitCode::SUCCESS;
    }
    let cases = <dyn RecordStore as Suite>::cases().iter();
    let cases: Vec<_> = cases
        .map(|case| (case.name, case.need))
        .chain([(HONEST, Need::Always)])
        .collect();
    println!("\nrunning {} tests", cases.len());
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for (name, need) in cases {
        let lacking = LACKS.iter().find(|(lacking, _)| *lacking == need);
        let alone = (name == OF_A_STORE_ALONE.0).then_some(OF_A_STORE_ALONE.1);
        if let Some(reason) = lacking.map(|(_, reason)| *reason).or(alone) {
            println!("test {name} ... ignored, {reason}");
            ignored += 1;
            continue;
        }
        let program = std::env::current_exe().expect("a program knows where it is");
        let status = Command::new(program).env(CASE, name).status();
        let succeeded = status.expect("it starts again").success();
        let (count, verdict) = match succeeded {
            true => (&mut passed, "ok"),
            false => (&mut failed, "FAILED"),
        };
        *count += 1;
        println!("test {name} ... {verdict}");
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored\n");
    // A suite that ran no case shows nothing.
    match (passed, failed) {
        (1.., 0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

//! The program `larder`: keeps folders, serves them and fetches them. The library is what the
//! program and the benches share.

mod app;
mod args;
mod backends;
pub mod bench;
mod commands;
mod endpoint;
mod find;
mod groups;
mod item;
mod observed;
mod output;
mod problem;

use std::{
    env,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{CommandFactory, Parser};
use larder::Backends;
use tracing_subscriber::EnvFilter;

use self::{
    app::App,
    commands::{Args, Command},
    problem::{Exit, Report},
};

/// The time for which the end of the run waits for a call of the operating system that does not
/// return.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    main_with(Backends::default())
}

/// Runs the program with backends of an app: their URLs are like those that are built in, in every command.
/// To be called once in a process: a later call runs with the backends of the first.
pub fn main_with(backends: Backends) -> ExitCode {
    backends::set(backends);
    let args = Args::parse();
    if let Command::Completions { shell } = args.command {
        return ExitCode::from(print_completions(shell).code());
    }
    let filter = EnvFilter::try_from_env("LARDER_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none())
        .init();
    // Where the system refuses, the program shares out what it has.
    if let Err(error) = larder::descriptors::raise_limit() {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let runtime = match tokio::runtime::Runtime::new().context("cannot start") {
        Ok(runtime) => runtime,
        Err(error) => {
            output::to_stderr(Report::of(&error));
            return ExitCode::from(Exit::Failed.code());
        }
    };
    let exit = runtime.block_on(run(args));
    runtime.shutdown_timeout(SHUTDOWN);
    ExitCode::from(exit.code())
}

/// Prints the completions for a shell.
fn print_completions(shell: clap_complete::Shell) -> Exit {
    // Into memory first: the generator panics where it cannot write.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "larder", &mut text);
    let mut out = io::stdout().lock();
    let printed = out.write_all(&text).and_then(|()| out.flush());
    match printed.context("cannot write to standard output") {
        Ok(()) => Exit::Done,
        Err(error) if is_broken_pipe(&error) => Exit::Done,
        Err(error) => {
            let report = Report::of(&error);
            output::to_stderr(&report);
            report.exit
        }
    }
}

async fn run(args: Args) -> Exit {
    let app = App::new(&args.global);
    // These wait for ctrl-c by themselves, and take leave of their peers.
    let serves = matches!(
        args.command,
        Command::Serve(_) | Command::Sync(_) | Command::Share(_)
    );
    tokio::spawn(end_when_insisted());
    let result = tokio::select! {
        biased;
        result = commands::run(&app, args.command) => result,
        exit = signalled(), if !serves => Ok(exit),
    };
    // What was cut off is whole: now its stores are closed, unless somebody insists.
    let closed = app.close().await;
    let result = match (result, closed) {
        (Ok(Exit::Done), Err(error)) => Err(error),
        (Ok(Exit::Done), Ok(())) => match output::lost() {
            // The work is done; that it could not be said is an error, unless nobody wants to know.
            Some(error) => {
                Err(io::Error::from(error.kind())).context("cannot write to standard output")
            }
            None => Ok(Exit::Done),
        },
        (result, _) => result,
    };
    match result {
        Ok(exit) => {
            if exit == Exit::Interrupted {
                app.out.note("interrupted: what was stored stays");
            }
            exit
        }
        // Whoever read our output has seen enough, as `head` does.
        Err(error) if is_broken_pipe(&error) => Exit::Done,
        Err(error) => {
            let report = Report::of(&error);
            report.say(app.out);
            report.exit
        }
    }
}

/// Ends the process at the second signal, whatever is still being done: what was stored stays.
async fn end_when_insisted() {
    let mut signals = Signals::new();
    signals.next().await;
    let exit = signals.next().await;
    std::process::exit(exit.code().into());
}

/// Returns when the user, or the system, wants the program to end.
pub(crate) async fn signalled() -> Exit {
    Signals::new().next().await
}

/// The signals that ask the program to end, from now on.
#[cfg(unix)]
struct Signals {
    interrupt: Option<tokio::signal::unix::Signal>,
    terminate: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self {
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
        }
    }

    async fn next(&mut self) -> Exit {
        async fn received(signal: &mut Option<tokio::signal::unix::Signal>) {
            let received = match signal {
                Some(signal) => signal.recv().await,
                None => None,
            };
            // One that cannot be listened to never comes.
            if received.is_none() {
                std::future::pending().await
            }
        }
        tokio::select! {
            () = received(&mut self.interrupt) => Exit::Interrupted,
            () = received(&mut self.terminate) => Exit::Terminated,
        }
    }
}

/// The signals that ask the program to end.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Self {
        Self
    }

    async fn next(&mut self) -> Exit {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
        Exit::Interrupted
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

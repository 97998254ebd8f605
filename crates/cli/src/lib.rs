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
use tokio::sync::watch;
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
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return ExitCode::from(refuse(&error).code()),
    };
    if let Command::Completions { shell } = args.command {
        return ExitCode::from(print_completions(shell).code());
    }
    let filter = EnvFilter::try_from_env("LARDER_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none())
        .init();
    // If the system refuses, the program works within the present limit.
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

/// Prints why the arguments are wrong, or the help that they ask for.
fn refuse(error: &clap::Error) -> Exit {
    let asks_for_json = env::args_os()
        .take_while(|argument| argument != "--")
        .any(|argument| argument == "--json");
    let is_wrong = error.use_stderr();
    if is_wrong && asks_for_json {
        output::to_stderr(Report::of_usage(&error.to_string()).json());
    } else if let Err(error) = error.print() {
        // Nobody may be there to read it.
        tracing::debug!(%error, "cannot print");
    }
    match is_wrong {
        true => Exit::Usage,
        false => Exit::Done,
    }
}

/// Prints the completions for a shell.
fn print_completions(shell: clap_complete::Shell) -> Exit {
    // Into memory first: the generator panics if it cannot write.
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
    // From now on: also a signal that comes before the command waits for one is heard.
    let (heard, stop) = watch::channel(None);
    tokio::spawn(hear(Signals::new(), heard));
    let app = App::new(&args.global, stop);
    let result = tokio::select! {
        biased;
        result = commands::run(&app, args.command) => result,
        exit = app.interrupted() => Ok(exit),
    };
    // Interrupted work leaves whole stores. They are closed now, unless the user interrupts again.
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

/// Passes the first signal on, and ends the process at the second, whatever is still being done: what was stored stays.
async fn hear(mut signals: Signals, heard: watch::Sender<Option<Exit>>) {
    heard.send_replace(Some(signals.next().await));
    let exit = signals.next().await;
    std::process::exit(exit.code().into());
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

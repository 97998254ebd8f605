//! Child processes: a test runs its own binary again, gives it a job, reads its output, and may kill it
//! at any moment.
//!
//! ```no_run
//! # use tests::child::{self, Child};
//! #[test]
//! fn a_test() {
//!     if let Some(job) = child::job() {
//!         return child::say(format!("did {job}"));
//!     }
//!     let child = Child::start("module::a_test", "this", &[]);
//!     assert_eq!(child.finish(), ["did this"]);
//! }
//! ```

use std::{
    ffi::OsStr,
    fmt::Display,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

const JOB: &str = "LARDER_TEST_JOB";
/// The prefix of lines for the parent; everything else is output of the test harness.
const MARK: &str = "\u{1}";
/// The time within which a child must report something.
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns the job of this process, if it is a child. A child ends when its parent does.
pub fn job() -> Option<String> {
    let job = std::env::var(JOB).ok()?;
    std::thread::spawn(|| {
        std::io::stdin().read_to_end(&mut Vec::new()).ok();
        std::process::exit(0);
    });
    Some(job)
}

/// Returns one of the arguments that the parent gave.
///
/// # Panics
/// If the parent gave none with this name.
pub fn argument(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("the child has no argument {name}"))
}

/// Sends one line to the parent. The parent receives lines that were sent before the process was
/// killed.
pub fn say(line: impl Display) {
    let line = format!("{MARK}{line}\n");
    let mut stdout = std::io::stdout().lock();
    // If nobody reads it, the child is about to end.
    stdout.write_all(line.as_bytes()).ok();
    stdout.flush().ok();
}

/// Shows a text to the person who runs the tests, whatever the result of the test.
pub fn note(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // There is nobody else to tell.
    stderr.write_all(format!("{text}\n").as_bytes()).ok();
}

/// Runs a child's work on two workers.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built")
        .block_on(work)
}

/// A child process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    /// Held open: the child ends when it is closed.
    _stdin: ChildStdin,
    heard: Arc<Heard>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Heard {
    state: Mutex<(Vec<String>, bool)>,
    news: Condvar,
}

impl Child {
    /// Runs the test with this name (with the modules, without the crate) in a child process.
    pub fn start(test: &str, job: &str, arguments: &[(&str, &dyn AsRef<OsStr>)]) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        Self::start_with(Command::new(program), test, job, arguments)
    }

    /// Starts a child, as [`start`](Self::start) does, through a shell (a command that ends in `sh`)
    /// which first runs `prologue`, with `$1` set to `folder`.
    pub fn start_in_shell(
        shell: &[&str],
        prologue: &str,
        folder: &Path,
        test: &str,
        job: &str,
        arguments: &[(&str, &dyn AsRef<OsStr>)],
    ) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(shell[0]);
        command.args(&shell[1..]);
        let script = format!("set -e\n{prologue}\nshift\nexec \"$@\"");
        command.arg("-c").arg(script).arg("sh").arg(folder);
        command.arg(program);
        Self::start_with(command, test, job, arguments)
    }

    fn start_with(
        mut command: Command,
        test: &str,
        job: &str,
        arguments: &[(&str, &dyn AsRef<OsStr>)],
    ) -> Self {
        // Any test that is started needs its child, even if it is ignored by default.
        command.args([test, "--exact", "--include-ignored"]);
        command.args(["--nocapture", "--test-threads=1"]);
        command.env(JOB, job);
        for (name, value) in arguments {
            command.env(name, value);
        }
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = process.expect("the test's own program can be run");
        let stdin = process.stdin.take().expect("it was asked for");
        let stdout = process.stdout.take().expect("it was asked for");
        let heard = Arc::new(Heard::default());
        let listener = std::thread::spawn({
            let heard = heard.clone();
            move || heard.listen(BufReader::new(stdout))
        });
        Self {
            process,
            _stdin: stdin,
            heard,
            listener: Some(listener),
        }
    }

    /// Returns the lines that the child has sent so far.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().0.clone()
    }

    /// Waits for a line with this beginning, and returns the rest of it.
    ///
    /// # Panics
    /// If the child ends, or sends no such line for a long time.
    pub fn hear(&self, beginning: &str) -> String {
        let until = Instant::now() + PATIENCE;
        let mut state = self.heard.lock();
        loop {
            let found = state.0.iter().find_map(|line| line.strip_prefix(beginning));
            if let Some(rest) = found {
                return rest.to_owned();
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(
                !state.1 && !left.is_zero(),
                "the child never said {beginning:?}"
            );
            let waited = self.heard.news.wait_timeout(state, left);
            state = waited.expect("no code panics while it holds the lines").0;
        }
    }

    /// Returns true if the child ended by itself.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.process.try_wait();
        ended.expect("a child can be asked for").is_some()
    }

    /// Kills the child with SIGKILL, and returns all lines that it has sent.
    ///
    /// # Panics
    /// If it had ended by itself, which was not supposed to happen.
    pub fn kill(mut self) -> Vec<String> {
        assert!(!self.has_ended(), "the child failed before it was killed");
        self.process
            .kill()
            .expect("a child that runs can be killed");
        self.process.wait().expect("a child can be waited for");
        self.all()
    }

    /// Waits for the end of the child, and returns all lines that it has sent.
    ///
    /// # Panics
    /// If it failed.
    pub fn finish(mut self) -> Vec<String> {
        let status = self.process.wait().expect("a child can be waited for");
        let said = self.all();
        assert!(
            status.success(),
            "the child failed: {status}; it said {said:?}"
        );
        assert!(
            !said.is_empty(),
            "the child said nothing: is the test's name right?"
        );
        said
    }

    fn all(&mut self) -> Vec<String> {
        if let Some(listener) = self.listener.take() {
            listener.join().expect("the listener does not panic");
        }
        self.heard()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Heard {
    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<String>, bool)> {
        self.state
            .lock()
            .expect("no code panics while it holds the lines")
    }

    fn listen(&self, mut lines: impl BufRead) {
        let mut line = String::new();
        // A line of a killed child counts only if it is complete.
        while lines.read_line(&mut line).is_ok_and(|len| len > 0) && line.ends_with('\n') {
            if let Some((_, said)) = line.split_once(MARK) {
                self.lock().0.push(said.trim_end().to_owned());
                self.news.notify_all();
            }
            line.clear();
        }
        self.lock().1 = true;
        self.news.notify_all();
    }
}

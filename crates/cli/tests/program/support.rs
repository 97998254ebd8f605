//! A place to run the program in, away from the user's own data.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use larder::{Store, StoreUrl, Unlock};
use serde_json::Value;

use super::backend;

/// A folder to work in, with a store of its own.
pub struct Place {
    dir: tempfile::TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn url(&self) -> StoreUrl {
        let url = format!("{}:{}", backend::SCHEME, self.path("store").display());
        url.parse().unwrap()
    }

    /// Writes a file, and the folders above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A folder with small and large files and odd names.
    pub fn write_folder(&self, name: &str) {
        self.write(&format!("{name}/a.txt"), "alpha\n");
        self.write(&format!("{name}/empty"), "");
        self.write(&format!("{name}/sub/deep/big.bin"), noise(3_000_000));
        self.write(&format!("{name}/sub/ü ñ 日本 🦀"), "unicode");
        self.write(&format!("{name}/{}", "long".repeat(60)), "long");
        self.write(&format!("{name}/it's #odd & 'quoted'"), "odd");
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(backend::PROGRAM);
        self.set_up(&mut command);
        command.args(args);
        command
    }

    pub fn set_up(&self, command: &mut Command) {
        command
            .current_dir(self.dir.path())
            .env("HOME", self.path("home"))
            .env("XDG_DATA_HOME", self.path("data"))
            .env("LARDER_STORE", self.url().to_string())
            .env("USER", "me")
            .env("LARDER_SECRETS_KEY", self.path("secrets.key"))
            .env_remove("LARDER_PASSWORD")
            .env_remove("LARDER_LOG");
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        run(&mut self.command(args))
    }

    /// Runs what must succeed, and gives its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
        ended.out
    }

    /// Runs what must succeed, and gives its lines of JSON.
    pub fn json(&self, args: &[&str]) -> Vec<Value> {
        let out = self.ok(&[&["--json"], args].concat());
        out.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Runs what must fail, and gives what it says.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
        ended.err
    }

    /// Starts a sync over loopback that goes on, and puts what it is told to. Gives it with where it can
    /// be reached.
    pub fn watch(&self, args: &[&str]) -> (Running, String) {
        let watch = ["--json", "sync", "--watch", "--loopback", "--put-lines"];
        let mut running = Running::start(self.command(&[&watch, args].concat()));
        let listening = running.json();
        assert_eq!(listening["event"], "listening");
        let at = listening["addresses"][0].as_str().unwrap().to_owned();
        (running, at)
    }

    /// Uses this place's store from inside this process.
    pub fn with_store<T>(&self, work: impl AsyncFnOnce(&Store) -> T) -> T {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let key = self.path("secrets.key");
            let builder = backend::builder(self.url());
            let builder = builder.unlock_with(move || Unlock::key_file(&key));
            let store = builder.open().await.unwrap();
            let result = work(&store).await;
            store.close().await.unwrap();
            result
        })
    }
}

pub fn run(command: &mut Command) -> Ended {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Bytes that no other seed has, the same every time.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// The files below a folder, with their content, sorted by name.
pub fn tree(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap();
                files.push((name.to_owned(), std::fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// A run that goes on, and is killed when the test ends.
pub struct Running {
    pub child: Child,
    stdin: Option<ChildStdin>,
    lines: Option<std::io::Lines<BufReader<std::process::ChildStdout>>>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let stdin = child.stdin.take();
        Self {
            child,
            stdin,
            lines: Some(lines),
        }
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        let line = self.lines.as_mut().unwrap().next();
        line.unwrap_or_else(|| panic!("it ended: {:?}", self.end()))
            .unwrap()
    }

    /// Returns the next line; `None` if the program has ended.
    pub fn next_line(&mut self) -> Option<String> {
        self.lines.as_mut()?.next()?.ok()
    }

    /// Returns the next [`line`](Self::line), as JSON.
    pub fn json(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// The invite that it prints next.
    pub fn invite(&mut self) -> String {
        let invite = self.json()["invite"].as_str().unwrap().to_owned();
        assert!(invite.starts_with("larder"), "{invite}");
        invite
    }

    /// The next of its lines that says that this happened.
    pub fn next(&mut self, event: &str) -> Value {
        loop {
            let line = self.json();
            if line["event"] == event {
                return line;
            }
        }
    }

    /// Returns the next of its lines that has this field.
    pub fn next_with(&mut self, field: &str) -> Value {
        loop {
            let line = self.json();
            if !line[field].is_null() {
                return line;
            }
        }
    }

    /// Writes, unless it has ended.
    pub fn try_write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).ok();
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Ends its standard input.
    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Closes its standard output, and waits for the end.
    pub fn stop_reading(mut self) -> (Option<i32>, String) {
        self.lines = None;
        self.end()
    }

    /// Waits for the end, and gives the exit code and what it said.
    pub fn end(&mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        let mut err = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut err).unwrap();
        (code, err)
    }

    /// Sends a signal, waits for the end, and gives the exit code and what it said.
    #[cfg(unix)]
    pub fn signal(mut self, signal: &str) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
        self.end()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

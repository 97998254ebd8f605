//! A bridge, and machines on it: a namespace each, with the processes of one member.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::support::{Ended, Place, run};

/// No process takes nearly as long for what is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// A link that takes 1 MB/s.
const SLOW: &str = "root tbf rate 8mbit burst 32kb latency 400ms";

/// Checks that such a network can be made here, or says why not.
pub fn can_isolate() -> Result<(), String> {
    let all = format!(
        "ip link add br0 type bridge && ip link add v0 type veth peer name v1 && \
         tc qdisc add dev v0 {SLOW} && nsenter --net=/proc/self/ns/net true"
    );
    let isolated = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", &all])
        .output()
        .map_err(|error| format!("unshare cannot be run: {error}"))?;
    match isolated.status.success() {
        true => Ok(()),
        false => Err(format!(
            "no network can be made: {}",
            String::from_utf8_lossy(&isolated.stderr).trim()
        )),
    }
}

fn do_it(command: &str) {
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).status();
    assert!(status.unwrap().success(), "{command}");
}

/// The bridge, in a namespace of our own.
pub struct Net(());

impl Net {
    pub fn new() -> Self {
        do_it("ip link set lo up");
        do_it("ip link add br0 type bridge");
        do_it("ip link set br0 up");
        Self(())
    }

    /// A machine on the bridge.
    pub fn machine(&self, number: u8) -> Machine {
        // It says when it is in its namespace, and ends when this program does.
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo there; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let said = BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line);
        assert_eq!((said.unwrap(), &*line), (6, "there\n"));
        let machine = Machine {
            number,
            holder,
            place: Place::new(),
        };
        let pid = machine.holder.id();
        do_it(&format!(
            "ip link add v{number} type veth peer name eth0 netns {pid}"
        ));
        do_it(&format!("ip link set v{number} master br0 up"));
        machine.inside("ip link set lo up");
        machine.inside(&format!("ip addr add 10.0.0.{number}/24 dev eth0"));
        machine.inside("ip link set eth0 up");
        machine
    }
}

/// A member's machine.
pub struct Machine {
    number: u8,
    holder: Child,
    pub place: Place,
}

impl Machine {
    pub fn inside(&self, command: &str) {
        do_it(&format!("nsenter {} {command}", self.namespace()));
    }

    fn namespace(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.holder.id())
    }

    /// Runs the program here.
    pub fn larder(&self, args: &[&str]) -> Ended {
        run(&mut self.command(args))
    }

    /// Runs the program here, for somebody else with a store on this machine.
    pub fn larder_of(&self, place: &Place, args: &[&str]) -> Ended {
        run(&mut self.command_of(place, args))
    }

    fn command(&self, args: &[&str]) -> Command {
        self.command_of(&self.place, args)
    }

    fn command_of(&self, place: &Place, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        place.set_up(&mut command);
        command.args([&self.namespace(), env!("CARGO_BIN_EXE_larder")]);
        command.args(args);
        command
    }

    /// Starts a sync that goes on, and puts what it is told to.
    pub fn watch(&self, args: &[&str]) -> Watched {
        let watch = ["--json", "--quiet", "sync", "--watch", "--put-lines"];
        let mut child = self
            .command(&[&watch, args].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (say, said) = channel();
        std::thread::spawn(move || {
            for line in lines {
                let line = serde_json::from_str(&line.unwrap()).unwrap();
                // The test may be over.
                if say.send(line).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        Watched {
            child,
            stdin,
            said,
            heard: Vec::new(),
        }
    }

    /// Cuts its link.
    pub fn cut(&self) {
        do_it(&format!("ip link set v{} down", self.number));
    }

    /// Mends its link.
    pub fn heal(&self) {
        do_it(&format!("ip link set v{} up", self.number));
    }

    /// Lets it send 1 MB/s and no more.
    pub fn slow_down(&self) {
        self.inside(&format!("tc qdisc add dev eth0 {SLOW}"));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It ends with this program at the latest.
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

/// A sync that goes on. It is killed when it is dropped.
pub struct Watched {
    child: Child,
    stdin: Option<ChildStdin>,
    said: Receiver<Value>,
    /// All that it said, as far as it was listened to.
    pub heard: Vec<Value>,
}

impl Watched {
    /// Waits for a line like this.
    pub fn wait_for(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.said.recv_timeout(left);
            let line = line.unwrap_or_else(|error| panic!("{what}: {error}; {:?}", self.heard));
            self.heard.push(line.clone());
            if is_it(&line) {
                return line;
            }
        }
    }

    /// Listens for so long.
    pub fn listen(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(line) => self.heard.push(line),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => panic!("it ended: {:?}", self.heard),
            }
        }
    }

    /// Has it put a file, and waits until that is durable.
    pub fn put(&mut self, path: &str) {
        let line = format!("{path}\n");
        self.stdin
            .as_mut()
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
        self.wait_for("it puts a file", |line| line["path"] == path);
    }

    /// Ends it, which must succeed.
    pub fn end(mut self) {
        self.stdin = None;
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

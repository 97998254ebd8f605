//! A member of the demo's group: a store, and the process that works on it.

use std::{
    collections::BTreeMap,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use larder::StoreUrl;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::watch,
};

use super::GROUP;

/// The time within which a process must say what it is waited for.
const PATIENCE: Duration = Duration::from_secs(600);
/// The time within which a process must end.
const END: Duration = Duration::from_secs(30);

pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) url: StoreUrl,
    /// The port, which stays the same over a restart, so that the member is found again.
    port: String,
    secrets_key: PathBuf,
    running: Option<Running>,
}

struct Running {
    child: Child,
    stdin: ChildStdin,
    said: watch::Receiver<Said>,
}

/// The messages of a process so far.
#[derive(Debug, Default)]
struct Said {
    invites: Vec<String>,
    listening: bool,
    /// The numbers of devices and files that were in sync the last time.
    synced: Option<(u64, u64)>,
    /// The number of files of each other member that are here.
    here: BTreeMap<String, u64>,
    /// True if it heard that it is no longer a member.
    out: bool,
    ended: bool,
}

/// The key of all secrets of the demo.
pub(super) fn secrets_key(dir: &Path) -> PathBuf {
    dir.join("secrets.key")
}

impl Member {
    pub(super) fn new(name: &'static str, url: StoreUrl, dir: &Path) -> Result<Self> {
        // Free now, and hardly taken by somebody else in a moment.
        let socket = UdpSocket::bind("127.0.0.1:0").context("no UDP port is free")?;
        Ok(Self {
            name,
            url,
            port: socket.local_addr()?.port().to_string(),
            secrets_key: secrets_key(dir),
            running: None,
        })
    }

    /// Returns the folder of its store.
    pub(super) fn folder(&self) -> &Path {
        self.url.rest().as_ref()
    }

    pub(super) fn process(&self) -> Option<u32> {
        self.running.as_ref().and_then(|running| running.child.id())
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command
            .args(["--json", "--quiet", "--store", &self.url.to_string()])
            .args(args)
            .env("LARDER_SECRETS_KEY", &self.secrets_key)
            .env_remove("LARDER_PASSWORD")
            // Nobody reads it before the end.
            .env_remove("LARDER_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Ok(command)
    }

    /// Runs a command on its store, in a process that ends, and gives the lines of JSON that it prints.
    pub(super) async fn run(&self, args: &[&str]) -> Result<Vec<Value>> {
        let child = self
            .command(args)?
            .spawn()
            .context("cannot start a process")?;
        let ended = child.wait_with_output().await;
        let ended = ended.context("a process cannot be waited for")?;
        if !ended.status.success() {
            let error = String::from_utf8_lossy(&ended.stderr);
            bail!("{}'s process failed: {}", self.name, error.trim());
        }
        let said = String::from_utf8_lossy(&ended.stdout);
        let said = said
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>();
        said.context("a process printed what is no JSON")
    }

    /// Starts the process that meets the others, and gives invites of these kinds.
    pub(super) async fn start<const N: usize>(&mut self, kinds: [&str; N]) -> Result<[String; N]> {
        let mut args = vec!["sync", "--watch", "--loopback", "--put-lines", "--port"];
        let port = self.port.clone();
        args.push(&port);
        for kind in kinds {
            args.extend(["--invite", kind]);
        }
        self.spawn(&args).await?;
        let said = self
            .wait(|said| said.listening && said.invites.len() >= N)
            .await?;
        Ok(std::array::from_fn(|n| said[n].clone()))
    }

    /// Starts the process of a replica.
    pub(super) async fn start_replica(&mut self, invite: &str) -> Result<()> {
        let port = self.port.clone();
        self.spawn(&[
            "serve",
            "--replica",
            "--loopback",
            "--until-stdin-ends",
            "--port",
            &port,
            invite,
        ])
        .await
    }

    async fn spawn(&mut self, args: &[&str]) -> Result<()> {
        let mut child = self
            .command(args)?
            .spawn()
            .context("cannot start a process")?;
        let stdin = child.stdin.take().expect("it was asked for above");
        let stdout = child.stdout.take().expect("it was asked for above");
        let (say, said) = watch::channel(Said::default());
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                say.send_modify(|said| said.hear(&line));
            }
            say.send_modify(|said| said.ended = true);
        });
        self.running = Some(Running { child, stdin, said });
        Ok(())
    }

    async fn wait(&mut self, is_there: impl Fn(&Said) -> bool) -> Result<Vec<String>> {
        let name = self.name;
        let running = self.running()?;
        let waiting = running.said.wait_for(|said| said.ended || is_there(said));
        let said = tokio::time::timeout(PATIENCE, waiting)
            .await
            .with_context(|| format!("{name}'s process does not come that far"))?
            .context("a process cannot be heard")?;
        if is_there(&said) {
            return Ok(said.invites.clone());
        }
        drop(said);
        let mut error = String::new();
        if let Some(stderr) = running.child.stderr.as_mut() {
            stderr.read_to_string(&mut error).await?;
        }
        bail!("{name}'s process failed: {}", error.trim())
    }

    fn running(&mut self) -> Result<&mut Running> {
        let name = self.name;
        let running = self.running.as_mut();
        running.with_context(|| format!("{name}'s process does not run"))
    }

    /// Waits until it, and at least so many others, have so many files.
    pub(super) async fn wait_synced(&mut self, peers: u64, files: u64) -> Result<()> {
        let is_synced = |said: &Said| {
            said.synced
                .is_some_and(|(there, here)| there >= peers && here == files)
        };
        let waited = self.wait(is_synced).await;
        waited.map(drop)
    }

    /// Waits until it has so many files of another member.
    pub(super) async fn wait_for(&mut self, other: &str, files: u64) -> Result<()> {
        let waited = self.wait(|said| said.here.get(other) == Some(&files)).await;
        waited.map(drop)
    }

    /// Waits until it heard that it is no longer a member.
    pub(super) async fn wait_out(&mut self) -> Result<()> {
        self.wait(|said| said.out).await.map(drop)
    }

    /// Returns the names of the files that it knows of another member.
    pub(super) async fn names_of(&self, other: &str) -> Result<Vec<String>> {
        let listed = self.run(&["ls", &format!("{GROUP}/{other}")]).await?;
        let names = listed.iter().filter_map(|line| line["name"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// Writes a file for this member.
    fn write(&self, dir: &Path, what: &str) -> Result<String> {
        let path = dir.join(format!("{what} from {}.txt", self.name));
        let text = format!("{what}, says {} to the group {GROUP}\n", self.name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        let path = path.into_os_string().into_string();
        path.map_err(|_| anyhow::anyhow!("the folder's path is not Unicode"))
    }

    /// Puts a file, while its process does not run.
    pub(super) async fn note(&self, dir: &Path, what: &str) -> Result<()> {
        let path = self.write(dir, what)?;
        self.run(&["put", &path]).await.map(drop)
    }

    /// Has its process put a file.
    pub(super) async fn put_line(&mut self, dir: &Path, what: &str) -> Result<()> {
        let line = self.write(dir, what)? + "\n";
        let stdin = &mut self.running()?.stdin;
        stdin.write_all(line.as_bytes()).await?;
        Ok(stdin.flush().await?)
    }

    /// Ends its process at once, as a crash does.
    pub(super) async fn kill(&mut self) -> Result<()> {
        if let Some(mut running) = self.running.take() {
            running
                .child
                .kill()
                .await
                .context("a process cannot be killed")?;
        }
        Ok(())
    }

    /// Lets its process end.
    pub(super) async fn stop(&mut self) -> Result<()> {
        let name = self.name;
        let Some(Running {
            mut child, stdin, ..
        }) = self.running.take()
        else {
            return Ok(());
        };
        drop(stdin);
        let status = tokio::time::timeout(END, child.wait())
            .await
            .with_context(|| format!("{name}'s process does not end"))?
            .context("a process cannot be waited for")?;
        if !status.success() {
            bail!("{name}'s process failed: {status}");
        }
        Ok(())
    }
}

impl Said {
    fn hear(&mut self, line: &str) {
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            return;
        };
        if let Some(invite) = value["invite"].as_str() {
            self.invites.push(invite.to_owned());
        }
        match value["event"].as_str() {
            Some("listening") => self.listening = true,
            Some("out") => self.out = true,
            Some("updated") => {
                if let (Some(member), Some(files)) =
                    (value["member"].as_str(), value["files"].as_u64())
                {
                    self.here.insert(member.to_owned(), files);
                }
            }
            Some("synced") => self.synced = value["peers"].as_u64().zip(value["files"].as_u64()),
            _ => {}
        }
    }
}

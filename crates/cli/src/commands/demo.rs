//! `larder demo`: all of it on one folder, with two processes and no internet.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use larder::{
    Blobs, Format, Hash, StoreUrl,
    iroh::{BlobTicket, Reach},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
};

use super::{fetch::fetch_ticket, get::files_of};
use crate::{
    app::{App, data_dir},
    export::is_same,
    find::Named,
    ingest::{Ingested, default_name, ingest},
    output::{Bytes, Count, Rate, Shown, Time, Unit},
    problem::{Exit, Problem},
    walk::{Found, WalkOptions},
};

/// How long the serving process may take to say its ticket, and to end.
const CHILD_TIMEOUT: Duration = Duration::from_secs(30);
/// How many files are compared at once.
const IN_FLIGHT: usize = 8;
/// How many changed files are named.
const MAX_SHOWN: usize = 5;

/// Two new stores are made in a new folder, which stays for you to look at. Nothing else is
/// written, and nothing leaves this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder of yours
    folder: PathBuf,
    /// Where to make the stores; without it, in your data folder
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Take folders too that a CACHEDIR.TAG marks as caches, such as cargo's `target`
    #[arg(long)]
    include_caches: bool,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Done {
    folder: String,
    hash: String,
    files: u64,
    bytes: u64,
    skipped: crate::walk::Skipped,
    add_seconds: f64,
    fetch_seconds: f64,
    bytes_received: u64,
    compare_seconds: f64,
    identical: u64,
    changed_meanwhile: u64,
    stores: [String; 2],
    data: String,
}

/// The line that the serving process prints.
#[derive(Debug, Deserialize)]
struct Served {
    ticket: String,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let dir = new_folder(args.dir)?;
    let [first, second] = ["first", "second"].map(|name| StoreUrl::Redb(dir.join(name)));
    let name = default_name(&args.folder)?;
    let step = |number: u32, text: String| app.out.heading(format_args!("{number}. {text}"));

    let started = Instant::now();
    let store = app.open(&first).await?;
    let options = WalkOptions {
        include_caches: args.include_caches,
        ..WalkOptions::default()
    };
    let added = add(app, store.blobs(), &args.folder, &name, options).await?;
    let add_time = started.elapsed();
    let size = added.item.size;
    let files = added.found.len() as u64;
    step(
        1,
        format!(
            "stored {}: {} file(s), {}, in {} ({}), durable",
            Shown(&args.folder.display().to_string()),
            Count(files),
            Bytes(size),
            Time(add_time),
            Rate(size, add_time)
        ),
    )?;
    if let Some(text) = added.skipped.summary() {
        app.out.heading(format_args!("   {text}"))?;
    }
    drop(store);
    app.close_one(&first).await?;

    let mut server = Server::start(&first, &name).await?;
    step(
        2,
        format!(
            "serving it from process {} on 127.0.0.1",
            server.child.id().unwrap_or_default()
        ),
    )?;
    let store = app.open(&second).await?;
    let blobs = store.blobs();
    let ticket: BlobTicket = server
        .ticket
        .parse()
        .context("the serving process printed no ticket")?;
    let fetched = fetch_ticket(app, blobs, &ticket, &name, Reach::Loopback, CHILD_TIMEOUT).await?;
    server.stop().await?;
    step(
        3,
        format!(
            "fetched it in process {}: {}, durable",
            std::process::id(),
            fetched.speed()
        ),
    )?;

    let started = Instant::now();
    let compared = compare(app, blobs, &name, fetched.item.hash, added.found).await?;
    let compare_time = started.elapsed();
    step(
        4,
        format!(
            "compared the second store with the folder, byte for byte: {} of {} file(s) identical, \
             in {} ({})",
            Count(compared.identical),
            Count(files),
            Time(compare_time),
            Rate(size, compare_time)
        ),
    )?;
    for path in compared.changed.iter().take(MAX_SHOWN) {
        let path = path.display().to_string();
        app.out.heading(format_args!(
            "   changed on disk meanwhile: {}",
            Shown(&path)
        ))?;
    }

    let done = Done {
        folder: args.folder.display().to_string(),
        hash: fetched.item.hash.to_string(),
        files,
        bytes: size,
        skipped: added.skipped,
        add_seconds: add_time.as_secs_f64(),
        fetch_seconds: fetched.seconds,
        bytes_received: fetched.bytes_received,
        compare_seconds: compare_time.as_secs_f64(),
        identical: compared.identical,
        changed_meanwhile: compared.changed.len() as u64,
        stores: [first.to_string(), second.to_string()],
        data: dir.display().to_string(),
    };
    let program = std::env::args_os().next().unwrap_or_default();
    let program = Path::new(&program).display();
    let text = format!(
        "\nThe same hash names it in both stores: {}\n\
         Look around:  {program} --store '{store}' ls\n\
         \u{20}             {program} --store '{store}' get '{}' -o copy\n\
         Clean up:     rm -r '{}'",
        done.hash,
        Shown(&name),
        Shown(&done.data),
        store = Shown(&done.stores[1]),
    );
    app.out.result(&done, text)?;
    Ok(Exit::Done)
}

/// A folder that was not there before.
fn new_folder(parent: Option<PathBuf>) -> Result<PathBuf> {
    let parent = match parent {
        Some(dir) => dir,
        None => data_dir()?.join("demo"),
    };
    let dir = parent.join(format!("{:08x}", rand::random::<u32>()));
    std::fs::create_dir_all(&parent)
        .and_then(|()| std::fs::create_dir(&dir))
        .with_context(|| format!("cannot make the folder {}", dir.display()))?;
    // Absolute, as it is printed for later use.
    std::path::absolute(&dir).with_context(|| format!("cannot resolve {}", dir.display()))
}

async fn add(
    app: &App,
    blobs: &Blobs,
    folder: &Path,
    name: &str,
    options: WalkOptions,
) -> Result<Ingested> {
    let found =
        std::fs::metadata(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    if !found.is_dir() {
        bail!(Problem::usage(
            format!("{} is not a folder", folder.display()),
            "name a folder",
        ));
    }
    ingest(app, blobs, folder, name, options).await
}

/// The process that serves. It ends with this one, however this one ends, as its standard input
/// does.
struct Server {
    child: Child,
    ticket: String,
}

impl Server {
    async fn start(store: &StoreUrl, name: &str) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = Command::new(program)
            .args(["--json", "--quiet", "--store", &store.to_string()])
            .args(["serve", "--loopback", "--until-stdin-ends", "--", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the serving process")?;
        let stdout = child.stdout.take().expect("it was asked for above");
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(CHILD_TIMEOUT, lines.next_line())
            .await
            .context("the serving process says nothing")?
            .context("the serving process cannot be heard")?;
        let Some(line) = line else {
            let mut error = String::new();
            let mut stderr = child.stderr.take().expect("it was asked for above");
            stderr.read_to_string(&mut error).await?;
            bail!("the serving process failed: {}", error.trim());
        };
        // It goes on to say who comes and goes; nobody has to wait for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let Served { ticket } =
            serde_json::from_str(&line).context("the serving process printed no ticket")?;
        Ok(Self { child, ticket })
    }

    async fn stop(&mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = tokio::time::timeout(CHILD_TIMEOUT, self.child.wait())
            .await
            .context("the serving process does not end")?
            .context("the serving process cannot be waited for")?;
        if !status.success() {
            bail!("the serving process failed: {status}");
        }
        Ok(())
    }
}

/// What the comparison found.
#[derive(Debug, Default)]
struct Compared {
    identical: u64,
    /// Files that another program changed since they were stored.
    changed: Vec<PathBuf>,
}

/// Compares the files on disk with what was fetched, byte for byte.
async fn compare(
    app: &App,
    blobs: &Blobs,
    name: &str,
    hash: Hash,
    found: Vec<Found>,
) -> Result<Compared> {
    let root = larder::Root {
        hash,
        format: Format::HashSeq,
    };
    let named = Named {
        name: name.to_owned(),
        root,
    };
    let fetched = files_of(blobs, named).await?;
    let names = fetched.iter().map(|(name, _)| name);
    if !names.eq(found.iter().map(|file| &file.name)) {
        bail!("what was fetched has other names than what was stored");
    }
    let bar = app
        .out
        .progress(Unit::Items, Some(found.len() as u64), "comparing");
    let mut files = stream::iter(found.into_iter().zip(fetched))
        .map(|(file, (_, hash))| async move {
            let same = match is_same(blobs, hash, &file.path).await {
                Ok(same) => same,
                // It may have been deleted meanwhile.
                Err(_) if !file.path.exists() => false,
                Err(error) => return Err(error),
            };
            Ok((file, same))
        })
        .buffered(IN_FLIGHT);
    let mut compared = Compared::default();
    while let Some((file, same)) = files.try_next().await? {
        bar.inc(1);
        if same {
            compared.identical += 1;
        } else if is_as_found(&file) {
            bail!("{} differs from what was fetched", file.path.display());
        } else {
            compared.changed.push(file.path);
        }
    }
    bar.finish_and_clear();
    Ok(compared)
}

/// Whether nobody wrote to the file since it was found.
fn is_as_found(file: &Found) -> bool {
    let now: Option<(u64, SystemTime)> = std::fs::metadata(&file.path)
        .and_then(|found| Ok((found.len(), found.modified()?)))
        .ok();
    now.is_some() && now == file.modified.map(|modified| (file.size, modified))
}

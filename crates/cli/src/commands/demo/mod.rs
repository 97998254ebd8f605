//! `larder demo`: a group of three members and a blind replica, as processes on this machine.

mod compare;
mod member;
mod search;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use larder::{
    StoreUrl,
    files::{LeftOut, Observer, Walk, WalkOptions, walk},
};
use serde::Serialize;

use self::{
    compare::{Compared, compare},
    member::Member,
    search::{samples, search},
};
use crate::{
    app::{App, data_dir},
    observed::{name_of, summary},
    output::{Bytes, Count, Rate, Shown, Time},
    problem::{Exit, Problem},
};

const GROUP: &str = "demo";
/// The number of changed files that are named.
const MAX_SHOWN: usize = 5;

/// Three members and a replica share a folder, one is killed and comes back, and one is removed
///
/// Three members, each a process with a store of its own, share your folder and what they write
/// themselves; one is killed and comes back; a replica keeps everything and can read nothing. It all
/// happens in a new folder, which stays for you to look at. Nothing else is written, and nothing
/// leaves this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder of yours
    folder: PathBuf,
    /// Folder in which to make the stores; without it, in your data folder
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Include folders that a CACHEDIR.TAG marks as caches, such as cargo's `target`
    #[arg(long)]
    include_caches: bool,
}

/// The result of the demo.
#[derive(Debug, Serialize)]
struct Done {
    folder: String,
    files: u64,
    bytes: u64,
    left_out: LeftOut,
    put_seconds: f64,
    sync_seconds: f64,
    back_seconds: f64,
    compare_seconds: f64,
    /// Files of the folder that all three members have, byte for byte.
    identical: u64,
    changed_meanwhile: u64,
    /// The bytes that the replica holds, and the number of pieces of the folder that were looked
    /// for in it.
    replica_bytes: u64,
    samples: usize,
    found_in_replica: usize,
    removal_seconds: f64,
    stores: Vec<String>,
    data: String,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let name = name_of(&args.folder)?;
    let walked = look_at(&args.folder, args.include_caches).await?;
    let dir = new_folder(args.dir)?;
    check_apart(&args.folder, &dir)?;
    let step = |number: u32, text: String| app.out.heading(format_args!("{number}. {text}"));
    let [mut ann, mut bob, mut cleo, mut replica] = [
        Member::new("ann", StoreUrl::redb(dir.join("ann")), &dir)?,
        Member::new("bob", phone(&dir)?, &dir)?,
        Member::new("cleo", StoreUrl::redb(dir.join("cleo")), &dir)?,
        Member::new("replica", StoreUrl::redb(dir.join("replica")), &dir)?,
    ];

    let started = Instant::now();
    ann.run(&["group", "create", GROUP, "--as", "ann"]).await?;
    let folder = args
        .folder
        .to_str()
        .context("the folder's path is not Unicode")?;
    let mut put = vec!["put", folder, "--skip-unreadable"];
    if args.include_caches {
        put.push("--include-caches");
    }
    let put = ann.run(&put).await?;
    let files = put.first().and_then(|put| put["files"].as_u64());
    let files = files.context("ann's process does not say what it put")?;
    let put_time = started.elapsed();
    let size = walked.size();
    step(
        1,
        format!(
            "ann made a group and put {} into it: {} file(s), {}, sealed, in {} ({}), durable",
            Shown(&name),
            Count(files),
            Bytes(size),
            Time(put_time),
            Rate(size, put_time)
        ),
    )?;
    if let Some(text) = summary(&walked.left_out) {
        app.out.heading(format_args!("   {text}"))?;
    }

    let [to_bob, to_cleo, blind] = ann.start(["write", "write", "replica"]).await?;
    for (member, invite) in [(&mut bob, to_bob), (&mut cleo, to_cleo)] {
        let name = member.name;
        member
            .run(&["group", "join", &invite, "--as", name, "--loopback"])
            .await?;
        member.note(&dir, "hello").await?;
        member.start([]).await?;
    }
    replica.start_replica(&blind).await?;
    step(
        2,
        format!(
            "bob joined on a phone's store (Veilid), cleo on a desktop's (redb), each with a file of \
             their own; a replica was let in by a key that opens nothing; {}",
            processes(&[&ann, &bob, &cleo, &replica])
        ),
    )?;
    let synced = in_sync(
        &mut [&mut ann, &mut bob, &mut cleo, &mut replica],
        files + 2,
    )
    .await?;
    step(
        3,
        format!(
            "all four have all {} file(s), after {}",
            Count(files + 2),
            Time(synced)
        ),
    )?;

    cleo.kill().await?;
    cleo.note(&dir, "offline").await?;
    ann.put_line(&dir, "meanwhile").await?;
    bob.put_line(&dir, "meanwhile").await?;
    bob.wait_for("ann", files + 1).await?;
    ann.wait_for("bob", 2).await?;
    step(
        4,
        "killed cleo's process (kill -9); ann and bob went on and have each other's new files; cleo put one while \
         offline"
            .to_owned(),
    )?;
    let started = Instant::now();
    cleo.start([]).await?;
    // Those who see all others speak for the replica too, which notices late that cleo was gone.
    ann.wait_synced(3, files + 5).await?;
    bob.wait_synced(3, files + 5).await?;
    cleo.wait_synced(2, files + 5).await?;
    let back = started.elapsed();
    step(
        5,
        format!(
            "cleo came back: all four have all {} file(s), after {}",
            Count(files + 5),
            Time(back)
        ),
    )?;
    for member in [&mut ann, &mut bob, &mut cleo, &mut replica] {
        member.stop().await?;
    }

    let started = Instant::now();
    let mut compared = Compared::default();
    for member in [&ann, &bob, &cleo] {
        compared = compare(app, member, &name, &walked.files, compared).await?;
    }
    let compare_time = started.elapsed();
    step(
        6,
        format!(
            "compared what the three have with the folder and with each other, byte for byte: {} of \
             {} file(s) identical, in {}",
            Count(compared.identical(files)),
            Count(files),
            Time(compare_time)
        ),
    )?;
    for path in compared.changed.iter().take(MAX_SHOWN) {
        let path = path.display().to_string();
        app.out.heading(format_args!(
            "   changed on disk meanwhile: {}",
            Shown(&path)
        ))?;
    }

    let store = replica.folder().to_owned();
    let found = tokio::task::spawn_blocking(move || {
        let samples = samples(&walked.files);
        search(&store, &samples).map(|found| (samples.len(), found))
    });
    let (samples, found) = found.await.context("a thread of ours failed")??;
    if found.found > 0 {
        bail!(
            "the replica's store has {} piece(s) of the folder as they are",
            found.found
        );
    }
    step(
        7,
        format!(
            "the replica keeps {} of ciphertext; none of {samples} names and pieces of the folder is \
             found in it",
            Bytes(found.bytes)
        ),
    )?;

    let started = Instant::now();
    remove_bob(&dir, &mut ann, &mut bob, &mut cleo, files + 2).await?;
    let removal = started.elapsed();
    step(
        8,
        format!(
            "ann removed bob, who wrote on before he heard of it: cleo has ann's next file and not bob's, and bob does \
             not even see the name of ann's; all in {}",
            Time(removal)
        ),
    )?;

    let done = Done {
        folder: args.folder.display().to_string(),
        files,
        bytes: size,
        left_out: walked.left_out,
        put_seconds: put_time.as_secs_f64(),
        sync_seconds: synced.as_secs_f64(),
        back_seconds: back.as_secs_f64(),
        compare_seconds: compare_time.as_secs_f64(),
        identical: compared.identical(files),
        changed_meanwhile: compared.changed.len() as u64,
        replica_bytes: found.bytes,
        samples,
        found_in_replica: found.found,
        removal_seconds: removal.as_secs_f64(),
        stores: [&ann, &bob, &cleo, &replica]
            .map(|m| m.url.to_string())
            .to_vec(),
        data: dir.display().to_string(),
    };
    let program = std::env::args_os().next().unwrap_or_default();
    let program = Path::new(&program).display();
    let text = format!(
        "\nLook around:  export LARDER_SECRETS_KEY='{}'\n\
         \u{20}             {program} --store '{store}' ls {GROUP}\n\
         \u{20}             {program} --store '{store}' get '{GROUP}/ann/{}' -o copy\n\
         \u{20}             {program} --store '{blind}' ls\n\
         Clean up:     rm -r '{}'",
        member::secrets_key(&dir).display(),
        Shown(&name),
        Shown(&done.data),
        store = Shown(&done.stores[2]),
        blind = Shown(&done.stores[3]),
    );
    app.out.result(&done, text)?;
    Ok(Exit::Done)
}

/// Removes bob. Afterwards ann has so many files. What bob and ann write from then on, the other must not get.
async fn remove_bob(
    dir: &Path,
    ann: &mut Member,
    bob: &mut Member,
    cleo: &mut Member,
    of_ann: u64,
) -> Result<()> {
    ann.run(&["group", "remove", GROUP, "bob"]).await?;
    ann.note(dir, "without bob").await?;
    bob.note(dir, "still here").await?;
    ann.start([]).await?;
    cleo.start([]).await?;
    bob.start([]).await?;
    bob.wait_out().await?;
    cleo.wait_for("ann", of_ann).await?;
    for member in [&mut *ann, &mut *bob, &mut *cleo] {
        member.stop().await?;
    }
    for (member, other, news) in [(&*bob, "ann", "without bob"), (&*cleo, "bob", "still here")] {
        let names = member.names_of(other).await?;
        if names.iter().any(|name| name.contains(news)) {
            bail!(
                "{} sees {other}'s file {news:?}, after bob was removed",
                member.name
            );
        }
    }
    let names = cleo.names_of("ann").await?;
    if !names.iter().any(|name| name.contains("without bob")) {
        bail!("cleo does not see what ann wrote after bob was removed");
    }
    Ok(())
}

/// Walks the folder and returns what is in it.
async fn look_at(folder: &Path, include_caches: bool) -> Result<Walk> {
    let found =
        std::fs::metadata(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    if !found.is_dir() {
        bail!(Problem::usage(
            format!("{} is not a folder", folder.display()),
            "name a folder",
        ));
    }
    let mut options = WalkOptions::default();
    options.include_caches = include_caches;
    Ok(walk(folder, &options, &Observer::none()).await?)
}

/// The stores must not be put into themselves.
fn check_apart(folder: &Path, dir: &Path) -> Result<()> {
    let real = |path: &Path| {
        std::fs::canonicalize(path).with_context(|| format!("cannot read {}", path.display()))
    };
    if real(dir)?.starts_with(real(folder)?) {
        std::fs::remove_dir(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        bail!(Problem::usage(
            format!("the stores would lie inside {}", folder.display()),
            "choose another place for them with --dir",
        ));
    }
    Ok(())
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

/// A store as on a phone. Its key lies in its folder, as the demo must not ask for a keychain.
fn phone(dir: &Path) -> Result<StoreUrl> {
    let text = format!("veilid+insecure:{}", dir.join("bob").display());
    Ok(text.parse()?)
}

fn processes(members: &[&Member]) -> String {
    let all: Vec<_> = members
        .iter()
        .filter_map(|member| {
            member
                .process()
                .map(|id| format!("{} is {id}", member.name))
        })
        .collect();
    format!("processes: {}", all.join(", "))
}

/// Waits until each of them says that it and all others have so many files.
async fn in_sync(members: &mut [&mut Member], files: u64) -> Result<Duration> {
    let started = Instant::now();
    let peers = members.len() as u64 - 1;
    for member in members.iter_mut() {
        member.wait_synced(peers, files).await?;
    }
    Ok(started.elapsed())
}

//! `larder get`: a stored file or folder, written to disk.

use std::{collections::BTreeSet, path::Path, time::Duration};

use anyhow::Result;
use futures_util::TryStreamExt;
use larder::{
    Store,
    files::{self, Got, LeftOut, Reason, Stored},
    groups::{Member, Named, Policy, Repo},
};

use crate::{
    app::App,
    args,
    endpoint::Endpoint,
    find::{find, is_absence, looks_escaped},
    groups::{Absent, ONLINE, Place, fetch, known, member_name, place},
    observed::{failures, observe},
    output::{Bytes, Count, Output, Shown},
    problem::{Exit, Problem},
};

/// Write a stored file or folder into a folder on disk
///
/// The files of a folder go directly into DIR, a file under its name. Of a group, each member's files go into a folder
/// of the member's name. Every name is checked before anything is written: none can leave DIR. A file that cannot be
/// written is reported, and the others are written. Existing files with the same content are left alone, so that an
/// interrupted run can be repeated.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A name, NAME/path of a file in a folder, a hash, a GROUP, or GROUP/REPO with or without a /path
    #[arg(value_parser = args::name())]
    name: String,
    #[command(flatten)]
    to: args::Output,
    #[command(flatten)]
    from: From,
}

/// The options for files of a group that are not here.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct From {
    /// Do not ask other members for files whose bytes are not here
    #[arg(long)]
    offline: bool,
    /// Time to look for members that have these files
    #[arg(long, default_value = "10s", value_parser = args::duration, value_name = "TIME")]
    timeout: Duration,
    #[command(flatten)]
    endpoint: Endpoint,
}

impl From {
    /// Fetches files of groups whose bytes are not here, as far as members who can be reached have them.
    pub(super) async fn fetch(self, app: &App, store: &Store, absent: &[Absent]) -> Result<()> {
        match absent.is_empty() || self.offline {
            true => Ok(()),
            false => fetch(app, store, absent, self.endpoint, self.timeout).await,
        }
    }
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    args::check_folder(&args.to.output)?;
    let store = app.existing_store().await?;
    let blobs = store.blobs();
    let place = in_group(&store, &args.name).await?;
    let is_in_group = place.is_some();
    let files = match place {
        Some(place) => {
            let absent = absent_in(&place).await?;
            args.from.fetch(app, &store, &absent).await?;
            // The content that came may be newer than the list.
            files_in(&place).await?
        }
        None => {
            let named = find(blobs, &args.name).await?;
            files::files_of(blobs, &named).await?
        }
    };
    let got = write_out(app, &store, files, &args.to.output, args.to.how).await?;
    let origin = match is_in_group {
        true => Origin::Group {
            is_offline: args.from.offline,
        },
        false => Origin::Store,
    };
    match not_written(&app.out, &got.left_out, origin) {
        None => Ok(Exit::Done),
        Some(problem) => Err(problem.into()),
    }
}

/// Writes files out, and says how many.
pub(super) async fn write_out(
    app: &App,
    store: &Store,
    files: Vec<(String, Stored)>,
    dir: &Path,
    how: args::OutputHow,
) -> Result<Got> {
    let (bar, observer) = observe(&app.out, "writing");
    let request = how.request(dir);
    let got = files::write_out(store.blobs(), files, &request, &observer).await?;
    drop(bar);
    let is_nothing = got.files == 0 && got.already_there == 0;
    if app.out.json || got.left_out.count() == 0 || !is_nothing {
        app.out.result(&got, text(&got))?;
    }
    Ok(got)
}

/// Says how much was written.
pub(super) fn text(got: &Got) -> String {
    let (files, bytes) = (Count(got.files), Bytes(got.bytes));
    let mut text = format!("wrote {files} file(s), {bytes}, to {}", Shown(&got.folder));
    if got.already_there > 0 {
        text += &format!("; {} already there", Count(got.already_there));
    }
    text
}

/// The origin of files that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The store has them.
    Store,
    /// Members of a group have them; they are not asked for them if this is offline.
    Group { is_offline: bool },
}

/// Returns the problem that says which files were not written, and what to do about the first reason that there is.
pub(super) fn not_written(out: &Output, left_out: &LeftOut, origin: Origin) -> Option<Problem> {
    let what = failures(out, left_out, "were not written")?;
    let has = |reason| left_out.of(reason) > 0;
    let reasons = left_out.counts.keys();
    let is_portable = |reason: &&Reason| reason.is_about_portability();
    let advice = if has(Reason::NotHere) && origin == Origin::Store {
        "fetch or add it again: what is here is not fetched twice"
    } else if has(Reason::NotHere) && origin == (Origin::Group { is_offline: true }) {
        ONLINE
    } else if has(Reason::NotHere) {
        "`larder sync` fetches them from whoever has them; `larder status` says whether anybody has. Files that the \
         policy of the group leaves out come too after `larder group pin GROUP/REPO/PATH`"
    } else if has(Reason::Damaged) {
        "`larder verify --repair` marks what is damaged as missing; then fetch, add or put it again"
    } else if has(Reason::Blocked) {
        "folders and links are never replaced: choose another folder, or move them away"
    } else if has(Reason::InTheWay) {
        "choose another folder, or replace them with --overwrite"
    } else if reasons.clone().all(|reason| is_portable(&reason)) {
        "these names are safe on this system, but not on every other: --any-name accepts them"
    } else if reasons.clone().any(|reason| is_portable(&reason)) {
        "--any-name accepts the names that are safe on this system; `larder cat NAME` writes one file to a name of your \
         choice: `larder cat NAME >FILE`"
    } else {
        "`larder cat NAME` writes one file to a name of your choice: `larder cat NAME >FILE`"
    };
    Some(Problem::new(what, advice))
}

/// Says which file could not be read.
pub(super) fn not_here(path: &str, from: From) -> Problem {
    let advice = match from.offline {
        true => ONLINE,
        false => {
            "`larder sync` fetches them from whoever has them; `larder status` says whether anybody has"
        }
    };
    Problem::new(format!("the bytes of {path:?} are not here"), advice)
}

/// Returns the place that `text` names if it begins with a group. An item that the store itself has
/// under this name comes first, and needs no keys.
pub(crate) async fn in_group(store: &Store, text: &str) -> Result<Option<Place>> {
    match find(store.blobs(), text).await {
        Ok(_) => return Ok(None),
        Err(error) if is_absence(&error) => {}
        Err(error) => return Err(error),
    }
    match known(store).await? {
        Some(groups) => place(&groups, text).await,
        None => Ok(None),
    }
}

/// Returns the files of a place whose bytes are not here.
async fn absent_in(place: &Place) -> Result<Vec<Absent>> {
    let mut absent = Vec::new();
    let members = match &place.member {
        Some(member) => vec![member.clone()],
        None => place.group.members().await?,
    };
    for Member { repo, .. } in members {
        let path = place.path.as_deref().map(|path| path.trim_end_matches('/'));
        if let Some(path) = path
            && let Some(entry) = repo.entry(path).await?
        {
            if !repo.has(&entry).await? {
                absent.push(Absent::new(&repo, path));
            }
            continue;
        }
        let prefix = path.map_or(String::new(), |path| format!("{path}/"));
        let mut listed = repo.list(&prefix).await?;
        while let Some(Named { name, entry }) = listed.try_next().await? {
            if !repo.has(&entry).await? {
                absent.push(Absent::new(&repo, name.as_str()));
            }
        }
    }
    Ok(absent)
}

/// A file of a repo under its last name, or all below a folder of it; of a group, those of all repos.
async fn files_in(place: &Place) -> Result<Vec<(String, Stored)>> {
    let Some(member) = &place.member else {
        return files_of_all(place).await;
    };
    let repo = &member.repo;
    let found = files::files_in(repo, place.path.as_deref()).await?;
    match &place.path {
        _ if !found.is_empty() => Ok(found),
        Some(path) => Err(no_file(path).into()),
        None => Err(nothing_in(place, repo).await?.into()),
    }
}

/// The files of all repos of a group, each in a folder that is called like its member.
async fn files_of_all(place: &Place) -> Result<Vec<(String, Stored)>> {
    let mut all = Vec::new();
    let mut taken = BTreeSet::new();
    for Member { repo, .. } in place.group.members().await? {
        let mut folder = member_name(&place.group, repo.key()).await?;
        if !taken.insert(folder.clone()) {
            folder = format!("{folder} {}", repo.key());
        }
        let files = files::files_in(&repo, None).await?;
        let files = files.into_iter();
        all.extend(files.map(|(name, stored)| (format!("{folder}/{name}"), stored)));
    }
    match all.is_empty() {
        false => Ok(all),
        true => Err(Problem::new(
            "no file of that group is known here",
            "`larder sync` fetches what there is",
        )
        .into()),
    }
}

/// Says that a repo has no such file.
pub(super) fn no_file(path: &str) -> Problem {
    let path = path.trim_end_matches('/');
    Problem::new(
        format!("there is no file {path:?} in that repo"),
        match looks_escaped(path) {
            true => {
                "a name that is shown with \\u{…} cannot be typed so: `larder get GROUP/REPO -o DIR --any-name` writes it"
            }
            false => "`larder ls GROUP/REPO` shows its files",
        },
    )
}

/// Returns the problem that says why there is nothing to write of a whole repo.
async fn nothing_in(place: &Place, repo: &Repo) -> Result<Problem> {
    let member = member_name(&place.group, repo.key()).await?;
    let state = repo.state(&Policy::Everything).await?;
    Ok(match state.announced.is_empty() {
        true => Problem::new(
            format!("no file of {} is known here", Shown(&member)),
            "`larder sync` fetches what there is",
        ),
        false => Problem::new(
            format!("the files of {} have not come here yet", Shown(&member)),
            "`larder sync` fetches them",
        ),
    })
}

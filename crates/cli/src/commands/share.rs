//! `larder share`: a folder, for a group of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use larder::{
    Bytes, Hash, Store,
    api::{CollectionId, RecordId},
    groups::{Group, Repo},
};

use super::{group::join, put, sync::go_on};
use crate::{
    app::App,
    groups::{self, As, MemberName, Network, PutOptions},
    ingest::default_name,
    output::Shown,
    problem::{Exit, Problem},
};

/// The collection that says which group was made for which folder: a hash of the folder's path ->
/// the group's id.
const SHARES: CollectionId = CollectionId::from_static("larder-cli/shares");

/// Share a folder with a new group, and serve it
///
/// Makes a group for this folder that is called like it, puts the folder into it, prints an invite and a QR
/// code, and serves until ctrl-c. Run it again to put what has changed and to serve again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder
    folder: PathBuf,
    #[command(flatten)]
    invite: As,
    #[command(flatten)]
    member: MemberName,
    #[command(flatten)]
    how: PutOptions,
    #[command(flatten)]
    network: Network,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Exit> {
    let name = default_name(&args.folder)?;
    if !args.folder.is_dir() {
        return Err(Problem::usage(
            format!("{} is not a folder", args.folder.display()),
            "name a folder",
        )
        .into());
    }
    let store = app.store().await?;
    let (group, repo) = made(app, &store, &args.folder, &name, &args.member).await?;
    let id = group.id();
    let done = groups::put(app, &repo, &args.folder, None, &args.how).await?;
    put::say(app, &group, &args.folder, done).await?;
    drop((group, repo));

    let replicator = groups::start(app, &store, args.network).await?;
    let shared = async {
        let group = replicator.groups().group(id);
        let group = group.ok_or_else(|| Problem::new("the group is gone", "share it again"))?;
        let at = replicator.addresses();
        groups::print_invite(app, &group, args.invite.kind(), at, true).await?;
        app.out.note("serving until ctrl-c");
        go_on(app, &replicator, &[group], false).await
    };
    let ended = shared.await;
    replicator.shutdown().await;
    ended
}

/// The group that was made for this folder before; a new one where there is none. Another group of that
/// name is none of its business: its members were not invited to this folder.
async fn made(
    app: &App,
    store: &Store,
    folder: &Path,
    name: &str,
    member: &MemberName,
) -> Result<(Group, Repo)> {
    let groups = store.groups().await?;
    let real = std::fs::canonicalize(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?;
    let key = Hash::of(real.as_os_str().as_encoded_bytes());
    let key = Bytes::copy_from_slice(key.as_bytes());
    let shared = store.collections().get(SHARES, key.clone()).await?;
    let id = shared.and_then(|entry| <[u8; 32]>::try_from(&entry.value[..]).ok());
    if let Some(group) = id.and_then(|id| groups.group(RecordId(id))) {
        let repos = group.repos().await?;
        if let Some(repo) = repos.into_iter().find(Repo::is_ours) {
            if let Some(name) = member.asked()
                && repo.name().await?.as_deref() != Some(name)
            {
                repo.set_name(name).await?;
            }
            return Ok((group, repo));
        }
    }
    let own = groups::free_name(name, &join::names(&groups).await?);
    if own != name {
        app.out.note(format_args!(
            "another group is called {} already: this one is {}",
            Shown(name),
            Shown(&own)
        ));
    }
    let (group, repo) = join::made(&groups, &own, &member.get()).await?;
    join::say_backup(app)?;
    let id = Bytes::copy_from_slice(&group.id().0);
    store.collections().put(SHARES, key, id).await?;
    Ok((group, repo))
}

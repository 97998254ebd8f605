//! An engine as a genuine iroh-blobs store: every command of its protocol, answered by any engine.

mod export;
mod export_path;
mod import;
mod tags;

use std::sync::Arc;

use futures_util::StreamExt;
use iroh_blobs::api::{
    Store,
    blobs::BlobStatus,
    proto::{Command, CreateTempTagMsg, ObserveMsg, Scope},
};
use larder_store_api::{Error, Kind, Result};
use larder_store_engine::{BlobStatus as Status, Blobs, Hash};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{Duration, timeout},
};
use tracing::{error, warn};

use crate::{
    adapter::{Client, store_from_client},
    convert::{to_api_error, to_engine_hash, to_iroh_bitfield, to_iroh_hash},
    temp_tags::TempTags,
};

/// The number of commands that may wait to be looked at.
const COMMANDS: usize = 256;

/// The number of commands that end by themselves and run at once; further ones wait.
const MAX_TASKS: usize = 256;

/// The number of commands that may be open at once although the caller sets their pace (streams,
/// batches, observers). Further ones are refused, for waiting could wait for ever.
const MAX_STREAMS: usize = 4096;

/// The time for which a shutdown waits for streams of bytes to store that their callers do not end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// The effect of `Store::shutdown` on the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnShutdown {
    /// Leaves it open, for whoever else works with it.
    #[default]
    LeaveOpen,
    /// Closes it too, though not the stores below it.
    CloseEngine,
}

/// `blobs` as a store for iroh-blobs: whatever takes one takes this, and its clones are the same
/// store. Call it inside a tokio runtime, once per engine, and keep the result.
///
/// * Everything that it acknowledges is durable, as the engine's own answers are.
/// * Batches and temp tags protect from the engine's `collect`, for as long as they live.
/// * `shutdown` refuses new commands, ends reads, batches and observers, finishes what writes, and leaves the
///   engine open; see [`iroh_store_with`].
/// * Garbage is the engine's: [`Blobs::collect`] with the present time deletes all that no tag, temp tag or pin
///   keeps, and spares nothing for being new; what a callback protects elsewhere are
///   [`Roots`](larder_store_engine::Roots).
/// * `TryReference` copies, in both directions.
/// * A status that cannot be read fails the call, and is never "not found".
pub fn iroh_store(blobs: &Blobs) -> Store {
    iroh_store_with(blobs, OnShutdown::LeaveOpen)
}

/// Makes a store, as [`iroh_store`] does, with a choice of what `shutdown` does with the engine.
pub fn iroh_store_with(blobs: &Blobs, on_shutdown: OnShutdown) -> Store {
    let (tx, commands) = mpsc::channel(COMMANDS);
    let actor = Actor {
        commands,
        context: Arc::new(Context {
            blobs: blobs.clone(),
            temp_tags: TempTags::new(blobs),
        }),
        on_shutdown,
        tasks: JoinSet::new(),
        streams: JoinSet::new(),
        reads: JoinSet::new(),
        watchers: JoinSet::new(),
        idle: Vec::new(),
    };
    tokio::spawn(actor.run());
    store_from_client(Client::from(tx))
}

/// The context that every command needs.
#[derive(Debug)]
struct Context {
    blobs: Blobs,
    temp_tags: Arc<TempTags>,
}

struct Actor {
    commands: mpsc::Receiver<Command>,
    context: Arc<Context>,
    on_shutdown: OnShutdown,
    /// Commands that end by themselves.
    tasks: JoinSet<()>,
    /// Commands that store what comes, at the pace of the caller.
    streams: JoinSet<()>,
    /// Commands that read, at the pace of the caller: a shutdown ends them.
    reads: JoinSet<()>,
    /// Commands that last until the caller goes away; nobody waits for them.
    watchers: JoinSet<()>,
    /// The callers that wait until nothing runs.
    idle: Vec<irpc::channel::oneshot::Sender<()>>,
}

impl Actor {
    async fn run(mut self) {
        let shutdown = loop {
            tokio::select! {
                biased;
                Some(ended) = self.tasks.join_next() => self.ended(ended).await,
                Some(ended) = self.streams.join_next() => self.ended(ended).await,
                Some(ended) = self.reads.join_next() => self.ended(ended).await,
                Some(ended) = self.watchers.join_next() => self.ended(ended).await,
                command = self.commands.recv(), if self.tasks.len() < MAX_TASKS => match command {
                    Some(Command::Shutdown(command)) => break Some(command.tx),
                    Some(command) => self.start(command).await,
                    None => break None,
                },
            }
        };
        self.commands.close();
        self.finish(shutdown.is_some()).await;
        if shutdown.is_some()
            && self.on_shutdown == OnShutdown::CloseEngine
            && let Err(error) = self.context.blobs.close().await
        {
            error!(%error, "the engine did not close cleanly");
        }
        if let Some(tx) = shutdown {
            tx.send(()).await.ok();
        }
        self.context.temp_tags.clone().linger().await;
    }

    /// Ends what runs. A caller that asked for it gets an answer in bounded time; where all callers
    /// are gone, what still runs has its own time.
    async fn finish(&mut self, in_time: bool) {
        self.watchers.abort_all();
        if in_time {
            self.reads.abort_all();
        }
        while let Some(ended) = self.tasks.join_next().await {
            log_panic(ended);
        }
        let streams = async {
            for set in [&mut self.reads, &mut self.streams] {
                while let Some(ended) = set.join_next().await {
                    log_panic(ended);
                }
            }
        };
        if !in_time {
            streams.await;
        } else if timeout(SHUTDOWN_GRACE, streams).await.is_err() {
            warn!(
                open = self.streams.len(),
                "shut down with streams left open"
            );
            self.streams.shutdown().await;
        }
        self.tell_idle().await;
    }

    async fn ended(&mut self, ended: std::result::Result<(), JoinError>) {
        log_panic(ended);
        if self.is_idle() {
            self.tell_idle().await;
        }
    }

    fn is_idle(&self) -> bool {
        self.tasks.is_empty() && self.streams.is_empty() && self.reads.is_empty()
    }

    async fn tell_idle(&mut self) {
        for tx in self.idle.drain(..) {
            tx.send(()).await.ok();
        }
    }

    fn task(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Starts a command. Nothing here waits for a store, so that none holds up another.
    async fn start(&mut self, command: Command) {
        let context = self.context.clone();
        let open = self.streams.len() + self.reads.len() + self.watchers.len();
        let room = open < MAX_STREAMS;
        match command {
            Command::ImportBytes(cmd) => self.task(import::bytes(context, cmd)),
            Command::ImportPath(cmd) => self.task(import::path(context, cmd)),
            Command::ExportPath(cmd) => self.task(export_path::run(context, cmd)),
            Command::BlobStatus(cmd) => self.task(async move {
                match status(&context.blobs, to_engine_hash(cmd.inner.hash)).await {
                    Ok(status) => {
                        cmd.tx.send(status).await.ok();
                    }
                    // The protocol has no word for failure here: hanging up is one, and unlike
                    // "not found" it is true.
                    Err(error) => warn!(%error, "the status of a blob could not be read"),
                }
            }),
            Command::DeleteBlobs(cmd) => self.task(async move {
                let deleted = delete(&context, cmd.inner.hashes, cmd.inner.force).await;
                cmd.tx.send(deleted.map_err(to_api_error)).await.ok();
            }),
            Command::ListTags(cmd) => self.task(tags::list(context, cmd)),
            Command::SetTag(cmd) => self.task(tags::set(context, cmd)),
            Command::DeleteTags(cmd) => self.task(tags::delete(context, cmd)),
            Command::RenameTag(cmd) => self.task(tags::rename(context, cmd)),
            Command::CreateTag(cmd) => self.task(tags::create(context, cmd)),
            Command::CreateTempTag(cmd) => self.task(create_temp_tag(context, cmd)),
            Command::ListTempTags(cmd) => self.task(async move {
                match context.temp_tags.list().await {
                    Ok(tags) => {
                        cmd.tx.send(tags).await.ok();
                    }
                    Err(error) => warn!(%error, "the temp tags could not be listed"),
                }
            }),
            // Every answer is durable already; what a weaker store holds back is made so here.
            Command::SyncDb(cmd) => self.task(async move {
                let synced = context.blobs.collection_store().sync().await;
                cmd.tx.send(synced.map_err(to_api_error)).await.ok();
            }),
            // The engine protects by itself what is new while it collects.
            Command::ClearProtected(cmd) => {
                cmd.tx.send(Ok(())).await.ok();
            }
            Command::WaitIdle(cmd) => {
                self.idle.push(cmd.tx);
                if self.is_idle() {
                    self.tell_idle().await;
                }
            }
            Command::ListBlobs(cmd) if room => {
                self.reads.spawn(list(context, cmd.tx));
            }
            Command::ImportBao(cmd) if room => {
                self.streams.spawn(import::bao(context, cmd));
            }
            Command::ImportByteStream(cmd) if room => {
                self.streams.spawn(import::byte_stream(context, cmd));
            }
            Command::ExportBao(cmd) if room => {
                self.reads.spawn(export::bao(context, cmd));
            }
            Command::ExportRanges(cmd) if room => {
                self.reads.spawn(export::ranges(context, cmd));
            }
            Command::Observe(cmd) if room => {
                self.watchers.spawn(observe(context, cmd));
            }
            // The registry makes the scope, and ends it with the caller.
            Command::Batch(_) if room => self.task(async move {
                if let Err(error) = context.temp_tags.forward(command).await {
                    warn!(%error, "a batch could not be started");
                }
            }),
            command => refuse(command).await,
        }
    }
}

fn log_panic(ended: std::result::Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "a command of the store panicked");
    }
}

/// Answers a stream for which there is no room.
async fn refuse(command: Command) {
    let busy = || {
        let message = "too many streams of the store are open";
        to_api_error(Error::new(Kind::Unavailable, "store.open", message))
    };
    match command {
        Command::ListBlobs(cmd) => drop(cmd.tx.try_send(Err(busy())).await),
        Command::ImportBao(cmd) => drop(cmd.tx.send(Err(busy())).await),
        Command::ImportByteStream(cmd) => {
            let iroh_blobs::api::Error::Io(error) = busy();
            drop(cmd.tx.try_send(error.into()).await);
        }
        Command::ExportRanges(cmd) => drop(cmd.tx.try_send(busy().into()).await),
        Command::ExportBao(cmd) => {
            let iroh_blobs::api::Error::Io(error) = busy();
            drop(
                cmd.tx
                    .try_send(bao_tree::io::EncodeError::Io(error).into())
                    .await,
            );
        }
        // The others have no way to say it: they see that nobody answers.
        command => warn!(?command, "too many streams of the store are open"),
    }
}

async fn status(blobs: &Blobs, hash: Hash) -> Result<BlobStatus> {
    Ok(match blobs.status(hash).await? {
        None => BlobStatus::NotFound,
        Some(Status::Complete { size }) => BlobStatus::Complete { size },
        Some(Status::Partial { size, proven, .. }) => BlobStatus::Partial {
            size: proven.then_some(size),
        },
    })
}

/// Deletes blobs whatever tags say. Pinned blobs stay: they are passed over, or an error with
/// `force`.
async fn delete(context: &Context, hashes: Vec<iroh_blobs::Hash>, force: bool) -> Result<()> {
    if force {
        let hashes = hashes.into_iter().map(to_engine_hash).collect();
        return context.blobs.delete(hashes).await;
    }
    let held = context.temp_tags.list().await?;
    for hash in hashes {
        if held.iter().any(|tag| tag.hash == hash) {
            continue;
        }
        match context.blobs.delete(vec![to_engine_hash(hash)]).await {
            Err(error) if error.kind() == Kind::Conflict => {}
            other => other?,
        }
    }
    Ok(())
}

async fn list(
    context: Arc<Context>,
    tx: irpc::channel::mpsc::Sender<iroh_blobs::api::Result<iroh_blobs::Hash>>,
) {
    let mut blobs = context.blobs.list();
    while let Some(item) = blobs.next().await {
        let item = item
            .map(|(hash, _)| to_iroh_hash(hash))
            .map_err(to_api_error);
        if tx.send(item).await.is_err() {
            return;
        }
    }
}

/// Sends the state and every change of it, until the caller goes away.
async fn observe(context: Arc<Context>, cmd: ObserveMsg) {
    let mut states = context.blobs.observe(to_engine_hash(cmd.inner.hash));
    loop {
        let state = tokio::select! {
            state = states.next() => state,
            () = cmd.tx.closed() => return,
        };
        match state {
            Some(Ok(bitfield)) => {
                if cmd.tx.send(to_iroh_bitfield(bitfield)).await.is_err() {
                    return;
                }
            }
            Some(Err(error)) => {
                warn!(%error, "a blob can no longer be observed");
                return;
            }
            None => return,
        }
    }
}

async fn create_temp_tag(context: Arc<Context>, cmd: CreateTempTagMsg) {
    let CreateTempTagMsg { inner, tx, .. } = cmd;
    match temp_tag(&context, inner.scope, inner.value, tx.is_rpc()).await {
        Ok(tag) => {
            tx.send(tag).await.ok();
        }
        Err(error) => warn!(%error, "a temp tag could not be made"),
    }
}

/// A temp tag for a caller. One that goes to another process cannot be told when it is dropped
/// there, and so lasts as long as its scope.
async fn temp_tag(
    context: &Context,
    scope: Scope,
    value: iroh_blobs::HashAndFormat,
    remote: bool,
) -> Result<iroh_blobs::api::TempTag> {
    let mut tag = context.temp_tags.create(scope, value).await?;
    if remote {
        tag.leak();
    }
    Ok(tag)
}

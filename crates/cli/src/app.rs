//! The state that the commands share: the stores that are open, and how to print.

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result};
use larder::{Error, Kind, Store, StoreBuilder, StoreUrl, Unlock};
use tokio::sync::watch;

use crate::{
    args::{Global, in_the_way},
    backends::backends,
    output::{Output, Shown},
    problem::{Exit, Problem},
};

/// The ways to a group.
pub(crate) const MAKE_ONE: &str = "`larder share FOLDER` or `larder group create NAME` makes one, `larder group join \
                                   INVITE` joins one";

/// One run of the program.
#[derive(Debug)]
pub(crate) struct App {
    /// The output, which knows how to print.
    pub(crate) out: Output,
    url: Option<StoreUrl>,
    open: Mutex<Vec<(StoreUrl, Store)>>,
    /// The signal that asked the program to end, once one has come.
    stop: watch::Receiver<Option<Exit>>,
    /// True if the command ends by itself at a signal, to take leave of its peers.
    ends_itself: AtomicBool,
}

impl App {
    pub(crate) fn new(global: &Global, stop: watch::Receiver<Option<Exit>>) -> Self {
        Self {
            out: Output {
                json: global.json,
                quiet: global.quiet,
                verbose: global.verbose,
            },
            url: global.store.clone(),
            open: Mutex::default(),
            stop,
            ends_itself: AtomicBool::new(false),
        }
    }

    /// Says that from now on the command waits for [`signalled`](Self::signalled), and ends by itself. To be called before
    /// anything is printed that tells others that it is up.
    pub(crate) fn ends_itself(&self) {
        self.ends_itself.store(true, Ordering::Relaxed);
    }

    /// Returns when the user, or the system, wants the program to end, now or before. From the first call on, the
    /// command must end by itself then.
    pub(crate) async fn signalled(&self) -> Exit {
        self.ends_itself();
        self.stopped().await
    }

    /// Returns when the command is to be dropped because of a signal.
    pub(crate) async fn interrupted(&self) -> Exit {
        let exit = self.stopped().await;
        match self.ends_itself.load(Ordering::Relaxed) {
            true => std::future::pending().await,
            false => exit,
        }
    }

    async fn stopped(&self) -> Exit {
        let mut stop = self.stop.clone();
        let heard = stop.wait_for(Option::is_some).await;
        match heard.ok().and_then(|exit| *exit) {
            Some(exit) => exit,
            // Nobody listens to signals any more.
            None => std::future::pending().await,
        }
    }

    /// Returns the URL of the store of this run.
    pub(crate) fn url(&self) -> Result<StoreUrl> {
        match &self.url {
            Some(url) => Ok(url.clone()),
            None => Ok(StoreUrl::redb(data_dir()?.join("store"))),
        }
    }

    /// Returns the store of this run, and makes a new one if there is none.
    pub(crate) async fn store(&self) -> Result<Store> {
        self.open(&self.url()?).await
    }

    /// Returns the store of this run, which must exist: reading makes no store.
    pub(crate) async fn existing_store(&self) -> Result<Store> {
        self.open_existing(&self.url()?).await
    }

    /// Returns the store of this run, which must exist, for a command about groups.
    pub(crate) async fn store_of_groups(&self) -> Result<Store> {
        self.open_if_there(&self.url()?, MAKE_ONE).await
    }

    /// Opens a store that must exist.
    pub(crate) async fn open_existing(&self, url: &StoreUrl) -> Result<Store> {
        let advice = "`larder add PATH`, `larder share FOLDER` and `larder group join INVITE` make one; --store \
                      or LARDER_STORE names another";
        self.open_if_there(url, advice).await
    }

    async fn open_if_there(&self, url: &StoreUrl, advice: &str) -> Result<Store> {
        check_folder(url)?;
        if let Some(dir) = backends().folder(url) {
            let empty = match fs::read_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                entries => entries
                    .with_context(|| format!("cannot open the store {url}"))?
                    .next()
                    .is_none(),
            };
            if empty {
                return Err(Problem::new(format!("there is no store at {url}"), advice).into());
            }
        }
        self.open(url).await
    }

    /// Opens a store; it is closed when the run ends, however it ends.
    pub(crate) async fn open(&self, url: &StoreUrl) -> Result<Store> {
        self.open_with(url, unlock).await
    }

    /// Opens a store whose keys are unlocked in another way.
    pub(crate) async fn open_with(
        &self,
        url: &StoreUrl,
        unlock: impl Fn() -> larder::Result<Unlock> + Send + Sync + 'static,
    ) -> Result<Store> {
        check_folder(url)?;
        let builder = StoreBuilder::from_url(url.clone()).backends(backends().clone());
        let store = builder
            .unlock_with(unlock)
            .open()
            .await
            .with_context(|| format!("cannot open the store {url}"))?;
        self.stores().push((url.clone(), store.clone()));
        Ok(store)
    }

    /// Returns the store of this run, which was opened before.
    pub(crate) fn opened(&self) -> Result<Store> {
        let url = self.url()?;
        let stores = self.stores();
        let found = stores.iter().find(|(open, _)| *open == url);
        let (_, store) = found.context("the store of this run is not open")?;
        Ok(store.clone())
    }

    /// Closes one store before the run ends.
    pub(crate) async fn close_one(&self, url: &StoreUrl) -> Result<()> {
        let found = {
            let mut stores = self.stores();
            let at = stores.iter().position(|(open, _)| open == url);
            at.map(|at| stores.swap_remove(at))
        };
        match found {
            Some((url, store)) => store
                .close()
                .await
                .with_context(|| format!("cannot close the store {url}")),
            None => Ok(()),
        }
    }

    /// Closes every open store, and returns the first error.
    pub(crate) async fn close(&self) -> Result<()> {
        let stores = std::mem::take(&mut *self.stores());
        let mut result = Ok(());
        for (url, store) in stores {
            let closed = store
                .close()
                .await
                .with_context(|| format!("cannot close the store {url}"));
            result = result.and(closed);
        }
        result
    }

    fn stores(&self) -> std::sync::MutexGuard<'_, Vec<(StoreUrl, Store)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks that nothing but a folder is where a store is, or is to be made.
fn check_folder(url: &StoreUrl) -> Result<(), Problem> {
    let folder = backends().folder(url);
    match folder.as_deref().and_then(in_the_way) {
        None => Ok(()),
        Some((path, what)) => Err(Problem::new(
            format!(
                "there is no store at {url}: {} is {what}",
                Shown(&path.to_string_lossy())
            ),
            "name the folder of a store with --store redb:DIR, or a new folder",
        )),
    }
}

/// The file with the key of this user's secrets, away from what it unlocks.
const SECRETS_KEY_VARIABLE: &str = "LARDER_SECRETS_KEY";
/// A password for them instead.
const PASSWORD_VARIABLE: &str = "LARDER_PASSWORD";

/// The key that opens the secrets of a store that keeps them in a file.
#[derive(Debug, Clone)]
pub(crate) enum SecretsKey {
    /// The password in LARDER_PASSWORD.
    Password(String),
    /// The file of the key.
    File(PathBuf),
}

/// Returns the key that opens the secrets of a store that keeps them in a file.
pub(crate) fn secrets_key() -> larder::Result<SecretsKey> {
    let invalid = |message: &'static str| Error::new(Kind::Invalid, "secrets.unlock", message);
    match std::env::var(PASSWORD_VARIABLE) {
        Ok(password) if !password.is_empty() => return Ok(SecretsKey::Password(password)),
        Err(std::env::VarError::NotUnicode(_)) => {
            return Err(invalid("the password in LARDER_PASSWORD is no text"));
        }
        _ => {}
    }
    let path = match std::env::var_os(SECRETS_KEY_VARIABLE) {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => directories::ProjectDirs::from("", "", "larder")
            .ok_or_else(|| {
                invalid("this user has no home folder; set LARDER_SECRETS_KEY to a file's path")
            })?
            .config_local_dir()
            .join("secrets.key"),
    };
    Ok(SecretsKey::File(path))
}

/// Returns the way to unlock the secrets of a store that keeps them in a file.
fn unlock() -> larder::Result<Unlock> {
    match secrets_key()? {
        SecretsKey::Password(password) => Ok(Unlock::Password(password.into())),
        SecretsKey::File(path) => Unlock::key_file(&path),
    }
}

/// Returns the folder of this user's data, for runs that name no store.
pub(crate) fn data_dir() -> Result<PathBuf> {
    let dirs = directories::ProjectDirs::from("", "", "larder").ok_or_else(|| {
        Problem::new(
            "this user has no home folder",
            "name a store: --store redb:DIR",
        )
    })?;
    Ok(dirs.data_local_dir().to_owned())
}

//! A running Veilid node.

use std::{future::Future, sync::Arc, time::Duration};

use larder_store_api::{Error, Kind, Result};
use tokio::{runtime::Handle, sync::Mutex};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use veilid_core::{VeilidAPI, VeilidConfig, api_startup};

use crate::{NodeConfig, Subscription, Updates, api_error};

/// The number of times that a start is tried while the folder is in use: a node that was shut down unlocks its keyring
/// file a moment after it reported its end.
const MAX_START_ATTEMPTS: u32 = 20;
/// The pause between two checks whether a node has detached.
const DETACHING_PAUSE: Duration = Duration::from_millis(20);
/// The pause before the next start.
const START_PAUSE: Duration = Duration::from_millis(50);

/// A running Veilid node. Clones are handles to the same node.
#[derive(Debug, Clone)]
pub struct Node(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Present until this is dropped.
    api: Option<VeilidAPI>,
    /// The runtime on which the node was started; Veilid's remaining tasks are cleaned up there.
    runtime: Option<Handle>,
    updates: Updates,
    /// The running calls; shutting down waits for them.
    calls: TaskTracker,
    closing: CancellationToken,
    /// Only one call attaches or detaches at a time; later ones find it done.
    switching: Mutex<()>,
    owned: Owned,
}

impl Inner {
    fn api(&self) -> &VeilidAPI {
        self.api.as_ref().expect("only dropping takes it")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Dropping the last handle of Veilid's interface spawns a task, and would panic outside a
        // runtime.
        let _entered = self.runtime.as_ref().map(Handle::enter);
        drop(self.api.take());
    }
}

/// The owner, which shuts the node down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owned {
    ByUs,
    ByTheApp,
}

impl Node {
    /// Starts a node, offline: it stores data, but contacts nobody before it is
    /// [attached](Self::attach).
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if another node uses the folder; [`Kind::Denied`] if there is no keychain
    /// or the device key cannot be read. Nothing is erased in that case.
    pub async fn start(config: NodeConfig) -> Result<Self> {
        std::fs::create_dir_all(&config.directory)
            .map_err(|error| Error::io("node.start", &config.directory, error))?;
        Self::start_with(config.to_veilid()?).await
    }

    /// Starts a node, with all settings of Veilid.
    ///
    /// # Errors
    /// The errors of [`start`](Self::start).
    pub async fn start_with(config: VeilidConfig) -> Result<Self> {
        let updates = Updates::new();
        let directory = config.table_store.directory.clone();
        let mut attempts = 0;
        loop {
            let started = api_startup(updates.callback(), config.clone()).await;
            let error = match started {
                Ok(api) => return Ok(Self::new(api, updates, Owned::ByUs)),
                Err(error) => start_error(error).with("path", &directory),
            };
            attempts += 1;
            if error.kind() != Kind::Unavailable || attempts == MAX_START_ATTEMPTS {
                return Err(error);
            }
            tokio::time::sleep(START_PAUSE).await;
        }
    }

    /// Uses the node of an app, which passes the node's updates to `updates` and shuts the node down
    /// itself, after [`shutdown`](Self::shutdown) has returned.
    pub fn adopt(api: VeilidAPI, updates: Updates) -> Self {
        Self::new(api, updates, Owned::ByTheApp)
    }

    fn new(api: VeilidAPI, updates: Updates, owned: Owned) -> Self {
        Self(Arc::new(Inner {
            api: Some(api),
            runtime: Handle::try_current().ok(),
            updates,
            calls: TaskTracker::new(),
            closing: CancellationToken::new(),
            switching: Mutex::new(()),
            owned,
        }))
    }

    /// Returns Veilid's own interface, for everything that this crate does not cover.
    /// [`shutdown`](Self::shutdown) does not wait for calls that are made with it: see
    /// [`call`](Self::call).
    pub fn api(&self) -> &VeilidAPI {
        self.0.api()
    }

    /// Returns the sender of the node's updates.
    pub fn updates(&self) -> &Updates {
        &self.0.updates
    }

    /// Subscribes to the node's updates from now on.
    pub fn subscribe(&self) -> Subscription {
        self.0.updates.subscribe()
    }

    /// Returns a token that is cancelled when the node shuts down.
    pub fn closing(&self) -> CancellationToken {
        self.0.closing.clone()
    }

    /// Runs a call that may be cancelled: it ends with [`Kind::Closed`] when the node shuts down.
    ///
    /// # Errors
    /// [`Kind::Closed`], or the error of the call.
    pub async fn call<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let _counted = self.enter(operation)?;
        match self.0.closing.run_until_cancelled(call).await {
            Some(result) => result,
            None => Err(closed(operation)),
        }
    }

    /// Runs a call that must not be cancelled half-way, in a task of its own: it continues without its
    /// caller, and a shutdown waits for it.
    ///
    /// # Errors
    /// [`Kind::Closed`] if the node was shut down before the call began, or the error of the call.
    pub async fn finish<T: Send + 'static>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let counted = self.enter(operation)?;
        let task = tokio::spawn(async move {
            let result = call.await;
            drop(counted);
            result
        });
        task.await.unwrap_or_else(|error| {
            let message = "a call to Veilid panicked";
            Err(Error::new(Kind::Internal, operation, message).because(error))
        })
    }

    /// Delays a shutdown until the returned guard is dropped.
    ///
    /// # Errors
    /// [`Kind::Closed`] if the node was shut down.
    pub fn enter(&self, operation: &'static str) -> Result<impl Drop + Send + use<>> {
        // Counted first, so that either the shutdown sees the call or the call sees the shutdown.
        let counted = self.0.calls.token();
        match self.0.closing.is_cancelled() || self.0.api().is_shutdown() {
            true => Err(closed(operation)),
            false => Ok(counted),
        }
    }

    /// Attaches to the network unless that has happened, and waits until the node is ready.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if it is not ready within `limit`; the node keeps trying.
    pub async fn attach(&self, limit: Duration) -> Result<()> {
        const OPERATION: &str = "node.attach";
        self.call(OPERATION, async {
            let _one = self.0.switching.lock().await;
            if self.is_detached(OPERATION).await? {
                let attached = self.api().attach().await;
                attached.map_err(|error| api_error(OPERATION, error))?;
            }
            let ready = self.api().wait_for_attachment_condition(None, Some(limit));
            ready.await.map(drop).map_err(|error| {
                api_error(OPERATION, error).with("limit", format_args!("{limit:?}"))
            })
        })
        .await
    }

    async fn is_detached(&self, operation: &'static str) -> Result<bool> {
        let state = self.api().get_state().await;
        let state = state.map_err(|error| api_error(operation, error))?;
        Ok(state.attachment.state.is_detached())
    }

    /// Detaches from the network, and returns when that is done; stored data stays readable, and writes
    /// to records wait. Detaching again is not an error.
    ///
    /// # Errors
    /// [`Kind::Closed`] if the node was shut down.
    pub async fn detach(&self) -> Result<()> {
        const OPERATION: &str = "node.detach";
        self.call(OPERATION, async {
            let _one = self.0.switching.lock().await;
            if self.is_detached(OPERATION).await? {
                return Ok(());
            }
            let detached = self.api().detach().await;
            detached.map_err(|error| api_error(OPERATION, error))?;
            // Detaching has only begun.
            while !self.is_detached(OPERATION).await? {
                tokio::time::sleep(DETACHING_PAUSE).await;
            }
            Ok(())
        })
        .await
    }

    /// Ends every call, then the node. If it is called again, it waits for the same end.
    pub async fn shutdown(&self) {
        self.0.closing.cancel();
        self.0.calls.close();
        self.0.calls.wait().await;
        let _one = self.0.switching.lock().await;
        if self.0.owned == Owned::ByUs && !self.0.api().is_shutdown() {
            self.0.api().clone().shutdown().await;
        }
    }
}

fn closed(operation: &'static str) -> Error {
    Error::new(Kind::Closed, operation, "the Veilid node was shut down")
}

/// Returns the error of a node that cannot start, with advice.
fn start_error(error: veilid_core::VeilidAPIError) -> Error {
    let text = error.to_string();
    let is_one_of = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    let (kind, message) = if is_one_of(&["another veilid instance", "already locked"]) {
        (
            Kind::Unavailable,
            "another program uses this Veilid folder; stop it, or choose another folder",
        )
    } else if is_one_of(&["nitialize the protected store"]) {
        (
            Kind::Denied,
            "the system's keychain cannot be used; unlock it, or choose to keep the key in a file",
        )
    // Veilid returns this if it was told not to erase data that it cannot decrypt.
    } else if matches!(error, veilid_core::VeilidAPIError::NotInitialized)
        || is_one_of(&["evice encryption key"])
    {
        (
            Kind::Denied,
            "the key that encrypts this node cannot be used; nothing was erased. \
             Bring back its keychain entry, its key file or its password",
        )
    } else {
        return api_error("node.start", error);
    };
    Error::new(kind, "node.start", message).because(error)
}

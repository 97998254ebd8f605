//! Private groups: each member writes a repo of its own, all members have the files of all, and nobody
//! else can read, or even find, any of it.
//!
//! ```
//! use std::time::Duration;
//!
//! use larder::{
//!     Store,
//!     groups::{EndpointOptions, Invite, InviteKind, Reach, ReplicateOptions, Synced},
//! };
//!
//! # async fn example() -> larder::Result<()> {
//! let network = || EndpointOptions::new(Reach::Loopback);
//!
//! // A store on disk keeps its keys encrypted: `StoreBuilder::new("redb:/path").unlock(…)` opens it.
//! let ann = Store::open("mem:").await?;
//! let here = ann.replicate(network(), ReplicateOptions::default()).await?;
//! let group = here.groups().create_group("the hikers").await?;
//! let repo = group.create_repo("ann").await?;
//! repo.write("lake.txt", "cold!").await?; // durable, and on its way, when it returns
//! let invite = group.invite(InviteKind::Write, here.addresses()).await?.to_string();
//!
//! // On another machine.
//! let bob = Store::open("mem:").await?;
//! let there = bob.replicate(network(), ReplicateOptions::default()).await?;
//! let joined = there.groups().join(&invite.parse::<Invite>()?).await?;
//! joined.wait_for_standing().await?; // until somebody who is there lets it in
//! there.wait_synced(&joined, Synced::Here, Duration::from_secs(30)).await?;
//! for member in joined.members().await? {
//!     assert_eq!(member.name.as_deref(), Some("ann"));
//!     assert_eq!(member.repo.read_to_bytes("lake.txt").await?, "cold!");
//! }
//!
//! there.shutdown().await;
//! here.shutdown().await;
//! # bob.close().await?;
//! # ann.close().await
//! # }
//! # let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
//! # runtime.block_on(example())?;
//! # larder::Result::<()>::Ok(())
//! ```
//!
//! [`Store::groups`] alone works without any network: files that were written offline are announced when the store
//! [replicates](Store::replicate) again.

use std::sync::Arc;

use larder_store_api::Result;
use larder_store_engine::public_key;

pub use larder_net_iroh::{ALPN, EndpointOptions, IrohNetwork, Reach};
pub use larder_sync::{
    groups::{
        AppContext, Changes, Clock, Event, Events, FileChanges, FilesChanged, Group, GroupId,
        Groups, InviteOptions, LogEntry, MAX_CHANGED_FILES, Member, Missing, MissingFile,
        OpenInvite, Person, PersonDevice, Policy, RecordPut, RecordValue, Removal, Removed, Repo,
        RepoState, Snapshot, Staged, Standing, Stores, TAG_PREFIX, WriteOptions, Written,
    },
    invite::{Invite, InviteKind},
    membership::{MAX_USES, OpId, Rights},
    network,
    records::{MAX_APP_VALUE_LEN, MAX_LABEL_LEN, REPO_ROOT, RepoRoot, Route},
    replicate::{
        Aborting, Attempt, Copies, FileProgress, Freed, GroupStatus, Lack, MemberStatus, Push,
        ReplicateOptions, Replicator, RepoProgress, RepoStatus, Request, Synced, Trouble,
    },
    seal::app::MAX_APP_LEN,
    tree::{Difference, FileEntry, Name, Named, Root as TreeRoot, Tree},
};

use crate::Store;

impl Store {
    /// Returns the groups that this store is a member of, which are opened once. Their keys are among the store's
    /// [secrets](Self::secrets).
    ///
    /// # Errors
    /// The errors of [`secrets`](Self::secrets) and [`Groups::open`].
    pub async fn groups(&self) -> Result<Groups> {
        self.opened_groups(async {
            let stores = Stores {
                blobs: self.blobs().clone(),
                secrets: self.secrets().await?,
            };
            Groups::open(stores).await
        })
        .await
    }

    /// Returns the address by which peers look for this store's device while they do not know where it can be
    /// reached: that of its [identity](Self::identity).
    ///
    /// # Errors
    /// The errors of [`identity`](Self::identity).
    pub async fn address(&self) -> Result<network::Address> {
        let key = self.identity().await?;
        Ok(IrohNetwork::address_of(public_key(&key)))
    }

    /// Replicates the store's groups over an iroh endpoint of their own, until the replicator is
    /// [shut down](Replicator::shutdown). The endpoint is that of [`Store::endpoint`]: with the store's identity, and
    /// the port of last time.
    ///
    /// An app that speaks other protocols too makes an [`IrohNetwork`] of the endpoint that it has, and
    /// starts a [`Replicator`] over that; so does one with a network of another kind.
    ///
    /// # Errors
    /// The errors of [`groups`](Self::groups) and [`endpoint`](Self::endpoint).
    pub async fn replicate(
        &self,
        network: EndpointOptions,
        options: ReplicateOptions,
    ) -> Result<Replicator> {
        let groups = self.groups().await?;
        let reach = network.reach;
        let network = IrohNetwork::owning(self.endpoint(network).await?, reach);
        Ok(Replicator::start(groups, Arc::new(network), options))
    }
}

//! Finds the members that have a file, by its hash.

use std::sync::Arc;

use futures_util::future::join_all;
use larder_store_api::{Error, Kind, PublicKey, Result};
use larder_store_engine::{BlobStatus, Hash};

use super::{
    Replicator, Shared,
    fault::{Misconduct, Outcome},
    possession::{Asked, length, show},
    session::Session,
    wire::GET,
};
use crate::{
    groups::{Group, GroupId, Repo},
    tree::{
        find::{Located, find},
        is_unreadable,
    },
};

/// The most repos in which the same file is looked up: a peer may not know the tree of one of them.
const MAX_PLACES: usize = 4;

const WHO_HAS: &str = "sync.who_has";

impl Replicator {
    /// Returns the connected members that can provide a file, by the hash of its bytes or of its sealed
    /// blob. Each was asked for the end of the file and for a random piece, and sent correct data; mere
    /// claims do not count. The received data is not kept.
    ///
    /// There is no index of hashes: a lookup may read all names of the group.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if the group is not here, or no local tree of it names such a file. A replica
    /// knows only the hashes of sealed blobs.
    pub async fn who_has(&self, group: impl Into<GroupId>, hash: Hash) -> Result<Vec<PublicKey>> {
        let GroupId(group) = group.into();
        let none = |message| Error::new(Kind::NotFound, WHO_HAS, message).with("group", group);
        let found = self.0.groups.group(group);
        let group = found.ok_or_else(|| none("there is no such group here"))?;
        let places = self.0.places(&group, hash).await?;
        if places.is_empty() {
            return Err(none("no file has this hash").with("hash", hash));
        }
        let sessions = self.0.sessions.of(group.id());
        let asked = sessions.iter().map(|session| {
            let shows = self.0.shows(session, &places);
            async move { shows.await.then(|| session.link.connection.peer()) }
        });
        let mut peers: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        peers.sort_unstable();
        peers.dedup();
        Ok(peers)
    }
}

/// A place of a file.
struct Place {
    /// The repo that has the file.
    repo: Repo,
    /// The place in the repo's tree.
    at: Located,
    /// The length of the file's blob, if it is proven here.
    len: Option<u64>,
}

impl Shared {
    /// Returns one place in each repo that has the file, for a bounded number of repos.
    async fn places(&self, group: &Group, hash: Hash) -> Result<Vec<Place>> {
        let tree = match group.can_read() {
            true => Some(group.tree(WHO_HAS)?),
            false => None,
        };
        let mut places: Vec<Place> = Vec::new();
        for repo in group.repos().await? {
            if places.len() == MAX_PLACES {
                break;
            }
            let root = repo.root().await?;
            // The tree may be replaced meanwhile.
            let _pin = group.blobs().pin(root.keep()).await;
            match find(group.blobs(), tree.as_ref(), root, hash).await {
                Ok(Some(at)) => {
                    let len = match group.blobs().status(at.blob).await? {
                        Some(BlobStatus::Complete { size }) => Some(size),
                        _ => None,
                    };
                    places.push(Place { repo, at, len });
                }
                Ok(None) => {}
                // A page that its owner wrote wrongly, or that is damaged here, does not stop the search.
                Err(error) if is_unreadable(&error) => {
                    tracing::debug!(repo = %repo.key(), %error, "a tree cannot be searched");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(places)
    }

    /// Returns true if a peer proves to have a file, at one of these places.
    async fn shows(&self, session: &Arc<Session>, places: &[Place]) -> bool {
        for place in places {
            match shows_at(session, place).await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(fault) => {
                    self.blame(&session.link, &fault);
                    if fault.is_peers(Misconduct::Lies) {
                        return false;
                    }
                }
            }
        }
        false
    }
}

async fn shows_at(session: &Arc<Session>, place: &Place) -> Outcome<bool> {
    let (repo, at) = (&place.repo, &place.at);
    let len = match place.len {
        Some(len) => Some(len),
        None => length(session, repo, &at.chain, (at.offset, at.blob)).await?,
    };
    let Some(len) = len else {
        return Ok(false);
    };
    let asked = Asked {
        offset: at.offset,
        hash: at.blob,
        len,
    };
    let mut shown = [false];
    show(session, repo, &at.chain, &[asked], GET, &mut shown).await?;
    Ok(shown[0])
}

//! Announces the routes on which this device can be reached in the records of our repos, and withdraws
//! them at shutdown; after a crash they expire.

use larder_store_api::{PublicKey, Put, PutRecord, RecordStore, Result, SeqExpect, Slot};

use super::{Replicator, Shared};
use crate::{
    groups::{Group, Repo},
    network::Address,
    records::{FIRST_ROUTE, REPO_SLOTS, Route},
};

/// The most addresses of a device that are announced.
const MAX_TOLD: usize = 4;

impl Group {
    /// Returns the routes on which members announce that they can be reached, with the keys of their
    /// repos, including expired routes.
    pub async fn routes(&self) -> Result<Vec<(PublicKey, Route)>> {
        let mut routes = Vec::new();
        for repo in self.repos().await? {
            for (_, route) in routes_of(&repo).await? {
                routes.push((repo.key(), route));
            }
        }
        Ok(routes)
    }
}

/// Returns the routes in a repo's record. A value that cannot be opened counts as no route: its owner
/// wrote it with other keys.
async fn routes_of(repo: &Repo) -> Result<Vec<(Slot, Route)>> {
    let (group, slots) = (repo.group(), FIRST_ROUTE..REPO_SLOTS);
    let mut routes = Vec::new();
    // A damaged route is skipped, so that the others can still be used.
    for (slot, value) in group.intact(repo.id()).await? {
        if !slots.contains(&slot) {
            continue;
        }
        match Route::open(group.keys().locate(), repo.id(), slot, &value.value) {
            Ok(route) => routes.push((slot, route)),
            Err(error) => {
                tracing::debug!(repo = %repo.key(), %error, "a slot does not hold a valid route");
            }
        }
    }
    Ok(routes)
}

impl Replicator {
    /// Returns the device that an address belongs to, as far as this network can tell from the address.
    /// A member claims this, and nothing proves it.
    pub fn peer_of(&self, address: &str) -> Option<PublicKey> {
        self.0.peer_of(address)
    }
}

impl Shared {
    pub(super) fn peer_of(&self, address: &str) -> Option<PublicKey> {
        let address = address.parse::<Address>().ok()?;
        self.network.peer_of(&address)
    }

    async fn ours(&self) -> Result<Vec<Repo>> {
        let mut ours = Vec::new();
        for group in self.groups.groups() {
            let keys = self.index.look(group.id(), |index| {
                let repos = index.repos.iter().filter(|(_, repo)| repo.is_ours);
                repos.map(|(key, _)| *key).collect::<Vec<_>>()
            });
            for key in keys.unwrap_or_default() {
                let repo = group.repo(key).await?;
                ours.extend(repo.filter(Repo::is_ours));
            }
        }
        Ok(ours)
    }

    /// Announces our addresses in each of our repos, unless a route is announced that is not half over
    /// yet.
    pub(super) async fn announce_routes(&self) -> Result<()> {
        let addresses = self.network.addresses();
        // Wait for the index, so that fresh routes are not announced again.
        self.caught_up().await;
        let now = self.groups.0.now();
        let for_ms = i64::try_from(self.options.route_for.as_millis()).unwrap_or(i64::MAX / 2);
        let expires = now.saturating_add(for_ms);
        // One that expires later was told while a clock was ahead, and would last until that time.
        let latest = expires.saturating_add(for_ms);
        for repo in self.ours().await? {
            let mut known = self.told_routes(&repo);
            for address in addresses.iter().take(MAX_TOLD) {
                let route = Route {
                    address: address.as_str().to_owned(),
                    expires,
                };
                // The slot that already has this address; else one whose route has expired, or a free
                // one.
                let same = known
                    .iter()
                    .find(|(_, known)| known.address == route.address);
                let is_told = now.saturating_add(for_ms / 2) + 1..=latest;
                if same.is_some_and(|(_, known)| is_told.contains(&known.expires)) {
                    continue;
                }
                let slot = same.map(|(slot, _)| *slot).or_else(|| {
                    let mut slots = FIRST_ROUTE..REPO_SLOTS;
                    slots.find(|slot| {
                        let taken = known.iter().find(|(taken, _)| taken == slot);
                        taken.is_none_or(|(_, route)| !(now + 1..=latest).contains(&route.expires))
                    })
                });
                if let Some(slot) = slot {
                    put_route(&repo, slot, &route).await?;
                    known.retain(|(taken, _)| *taken != slot);
                    known.push((slot, route));
                }
            }
        }
        Ok(())
    }

    /// Returns the routes in the record of a repo of ours.
    fn told_routes(&self, repo: &Repo) -> Vec<(Slot, Route)> {
        let found = self.index.look(repo.group().id(), |index| {
            let all = (repo.key(), 0)..=(repo.key(), Slot::MAX);
            let routes = index.routes.range(all);
            let routes = routes.map(|((_, slot), route)| (*slot, route.clone()));
            routes.collect()
        });
        found.unwrap_or_default()
    }

    /// Makes the routes that we announced expire.
    pub(super) async fn withdraw_routes(&self) -> Result<()> {
        let addresses = self.network.addresses();
        for repo in self.ours().await? {
            for (slot, route) in routes_of(&repo).await? {
                let is_ours = addresses.iter().any(|a| a.as_str() == route.address);
                if is_ours && route.expires > 0 {
                    let gone = Route {
                        expires: 0,
                        ..route
                    };
                    put_route(&repo, slot, &gone).await?;
                }
            }
        }
        Ok(())
    }
}

async fn put_route(repo: &Repo, slot: Slot, route: &Route) -> Result<()> {
    let value = route.seal(repo.group().keys().locate(), repo.id(), slot)?;
    let write = PutRecord::Write {
        value,
        writer: repo.owner("sync.routes")?.clone(),
        expect: SeqExpect::Any,
    };
    if let Put::Published { .. } | Put::Queued { .. } =
        repo.group().records().put(repo.id(), slot, write).await?
    {
        repo.group().record_changed(Some(repo.key()), slot);
    }
    Ok(())
}

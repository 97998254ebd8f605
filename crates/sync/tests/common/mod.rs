//! Joining a group, for tests of what happens on one device.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use larder_store_api::{PublicKey, Result};
use larder_sync::{
    groups::{Group, Groups, Standing},
    invite::Invite,
    replicate::{ReplicateOptions, Replicator},
};
use larder_sync_sim::SimNetwork;

/// Joins a group by an invite of a device of `host`, which lets it in; then neither replicates any more.
pub async fn join(host: &Groups, guest: &Groups, invite: &Invite) -> Result<Group> {
    static NODES: AtomicU8 = AtomicU8::new(1);
    let net = SimNetwork::new(1);
    let node = || PublicKey([NODES.fetch_add(1, Ordering::SeqCst); 32]);
    let options = ReplicateOptions::default();
    let start =
        |groups: &Groups| Replicator::start(groups.clone(), net.node(node()), options.clone());
    let (there, here) = (start(host), start(guest));
    let joined = guest.join(invite).await?;
    let address = there.addresses().remove(0).parse()?;
    here.connect(&address).await?;
    let let_in = async {
        assert_eq!(joined.wait_for_standing().await?, Standing::Member);
        // A device that joins again is a member before.
        let key = invite.seed().public();
        let is_used = || {
            let invites = joined.invites();
            let found = invites.iter().find(|known| known.key == key);
            found.is_some_and(|known| known.used_by.contains(&joined.device()))
        };
        while !is_used() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Result::Ok(())
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), let_in).await;
    waited.expect("in time")?;
    here.abort().await;
    there.abort().await;
    Ok(joined)
}

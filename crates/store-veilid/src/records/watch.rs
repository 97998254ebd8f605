//! Watches records: one Veilid watch per record, shared by all listeners.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use larder_store_api::{Error, Freshness, Kind, Listing, RecordEvent, RecordId, Result, Slot};
use larder_veilid_node::{
    Event, Subscription, api_error,
    veilid_core::{Timestamp, TimestampDuration, VeilidUpdate, VeilidValueChange},
};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Instant, sleep_until},
};

use super::{
    limits,
    network::{Network, Reach},
    open::{Record, State},
    watches::{Leave, tell},
};

/// The number of records that can be watched at once: each puts load on other nodes.
const MAX_WATCHED: usize = 256;
/// The number of events that a listener may lag behind before it must resync.
const MAX_BEHIND: usize = 256;
/// The requested lifetime of a watch, in seconds. It is renewed at half of that.
const LIFETIME_SECS: u32 = 600;
/// The interval at which to look for changes that the watch did not announce.
const POLL: Duration = Duration::from_secs(30);
/// The pause before a failed watch is tried again.
const AGAIN: Duration = Duration::from_secs(2);

const OPERATION: &str = "record.watch";

/// Watches these slots for changes from now on.
pub(super) fn watch(
    network: &Arc<Network>,
    id: RecordId,
    slots: Range<Slot>,
) -> Listing<RecordEvent> {
    let receiver = subscribe(network, id);
    let closing = network.node.closing();
    Box::pin(async_stream::stream! {
        let mut receiver = match receiver {
            Ok(receiver) => receiver,
            Err(error) => {
                yield Err(error);
                return;
            }
        };
        loop {
            let next = closing.run_until_cancelled(receiver.recv()).await;
            match next {
                Some(Ok(RecordEvent::Changed { slots: mut changed, value })) => {
                    changed.retain(|slot| slots.contains(slot));
                    if !changed.is_empty() {
                        yield Ok(RecordEvent::Changed { slots: changed, value });
                    }
                }
                Some(Ok(_) | Err(RecvError::Lagged(_))) => {
                    yield Ok(RecordEvent::Resync);
                }
                None | Some(Err(RecvError::Closed)) => {
                    yield Err(Error::new(Kind::Closed, OPERATION, "the Veilid node was shut down"));
                    return;
                }
            }
        }
    })
}

fn subscribe(network: &Arc<Network>, id: RecordId) -> Result<broadcast::Receiver<RecordEvent>> {
    let counted = network.node.enter(OPERATION)?;
    let watches = &network.watches.0;
    let mut watches = watches
        .lock()
        .expect("nothing panics while it holds the lock");
    if let Some(sender) = watches.get(&id) {
        return Ok(sender.subscribe());
    }
    if watches.len() >= MAX_WATCHED {
        let message = "too many records are watched";
        return Err(Error::new(Kind::Unavailable, OPERATION, message).with("most", MAX_WATCHED));
    }
    let (sender, receiver) = broadcast::channel(MAX_BEHIND);
    watches.insert(id, sender.clone());
    drop(watches);
    let events = network.node.subscribe();
    let network = Arc::clone(network);
    let runtime = network.runtime.clone();
    runtime.spawn(async move {
        let _counted = counted;
        let closing = network.node.closing();
        let watching = Watching {
            record: network.record_as_it_is(id).await,
            network: &network,
            sender: &sender,
            seen: None,
            renew: None,
        };
        // If the node closes, the listeners see that themselves.
        closing.run_until_cancelled(watching.run(events)).await;
        network.watches.leave(id, &sender, Leave::Now);
    });
    Ok(receiver)
}

/// The task that keeps one record watched.
struct Watching<'a> {
    network: &'a Network,
    /// Holding it keeps it from being closed as idle, which would end the watch.
    record: Arc<Record>,
    sender: &'a broadcast::Sender<RecordEvent>,
    /// The sequence numbers at the last look; differences from them were missed.
    seen: Option<BTreeMap<Slot, u64>>,
    /// The time at which to renew the watch; `None` while there is no watch.
    renew: Option<Instant>,
}

impl Watching<'_> {
    /// Runs until there are no listeners.
    async fn run(mut self, mut events: Subscription) {
        let mut attachment = self.network.node.updates().attachment();
        let mut was_attached = self.network.is_attached();
        let mut poll = Instant::now();
        loop {
            if Instant::now() >= poll {
                if let Err(error) = self.tend().await {
                    tracing::debug!(record = %self.record.id, %error, "a record is not watched now");
                    self.renew = None;
                }
                let pause = if self.renew.is_some() { POLL } else { AGAIN };
                poll = Instant::now() + pause;
            }
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::Update(update)) => {
                        if let VeilidUpdate::ValueChange(change) = &*update
                            && limits::record_id(&change.key) == Some(self.record.id)
                        {
                            self.heard(change);
                            if self.renew.is_none() {
                                poll = Instant::now();
                            }
                        }
                    }
                    Some(Event::Missed(_)) => self.resync(),
                    None => return,
                },
                changed = attachment.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let is_attached = self.network.is_attached();
                    if is_attached && !was_attached {
                        self.renew = None;
                        self.resync();
                        poll = Instant::now();
                    }
                    was_attached = is_attached;
                }
                () = self.sender.closed() => {
                    if self.network.watches.leave(self.record.id, self.sender, Leave::IfUnheard) {
                        self.cancel().await;
                        return;
                    }
                }
                () = sleep_until(poll) => {}
            }
        }
    }

    fn resync(&self) {
        drop(self.sender.send(RecordEvent::Resync));
    }

    fn heard(&mut self, change: &VeilidValueChange) {
        let slots: Vec<_> = change.subkeys.iter().map(|slot| slot as Slot).collect();
        let died = slots.is_empty() || change.count == 0;
        if !slots.is_empty() {
            tell(self.sender, slots);
        }
        if died {
            self.renew = None;
            self.resync();
        }
    }

    /// Renews the watch when it is due, and checks whether it announced everything.
    async fn tend(&mut self) -> Result<()> {
        let (network, id) = (self.network, self.record.id);
        // A forgotten record must not be fetched again.
        let descriptor = network.known.get(OPERATION, id).await?;
        if !network.is_attached() {
            self.renew = None;
            return Ok(());
        }
        let slots = 0..descriptor.slots();
        let fresh = Freshness::Network;
        if self.renew.is_none_or(|renew| Instant::now() >= renew) {
            let open = network
                .open(OPERATION, &self.record, Reach::Network)
                .await?;
            if open.is_none() {
                self.renew = None;
                return Ok(());
            }
            let lifetime = TimestampDuration::new_secs(LIFETIME_SECS);
            let end = Timestamp::now().later(lifetime);
            let key = limits::record_key(id);
            let watching = network.context.watch_dht_values(key, None, Some(end), None);
            let active = watching
                .await
                .map_err(|error| api_error(OPERATION, error))?;
            let was_active = self.renew.is_some();
            let half = Duration::from_secs(u64::from(LIFETIME_SECS) / 2);
            self.renew = active.then(|| Instant::now() + half);
            if active && !was_active {
                self.resync();
            }
        }
        let found = network
            .inspect(OPERATION, &self.record, slots, fresh)
            .await?;
        let found: BTreeMap<_, _> = found.iter().map(|found| (found.slot, found.seq)).collect();
        if let Some(seen) = &self.seen {
            let changed = found
                .iter()
                .filter(|(slot, seq)| seen.get(slot) != Some(seq));
            let changed: Vec<_> = changed.map(|(slot, _)| *slot).collect();
            if !changed.is_empty() {
                tell(self.sender, changed);
            }
        }
        self.seen = Some(found);
        Ok(())
    }

    /// Cancels the watch on other nodes.
    async fn cancel(&self) {
        let state = self.record.state.read().await;
        if *state == State::Open {
            let key = limits::record_key(self.record.id);
            let cancelled = self.network.context.cancel_dht_watch(key, None).await;
            if let Err(error) = cancelled {
                tracing::debug!(record = %self.record.id, %error, "a watch ends by itself");
            }
        }
    }
}

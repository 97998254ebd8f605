//! The updates of a node, for its listeners.

use std::sync::Arc;

use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};
use veilid_core::{UpdateCallback, VeilidStateAttachment, VeilidUpdate};

/// The number of updates that a listener may lag behind before it misses some.
const MAX_BEHIND: usize = 4096;

/// An event for a listener.
#[derive(Debug, Clone)]
pub enum Event {
    /// An update, other than log lines and attachment states.
    Update(Arc<VeilidUpdate>),
    /// This many updates were missed: read the relevant state again.
    Missed(u64),
}

/// Receives a node's updates and passes them on, without ever making the node wait.
#[derive(Debug, Clone)]
pub struct Updates {
    events: broadcast::Sender<Arc<VeilidUpdate>>,
    attachment: watch::Sender<VeilidStateAttachment>,
}

impl Default for Updates {
    fn default() -> Self {
        Self::new()
    }
}

impl Updates {
    /// Creates a sender without listeners.
    pub fn new() -> Self {
        Self {
            events: broadcast::Sender::new(MAX_BEHIND),
            attachment: watch::Sender::default(),
        }
    }

    /// Passes an update on. For the callback of an app that runs its own node.
    pub fn send(&self, update: VeilidUpdate) {
        match update {
            VeilidUpdate::Log(_) => {}
            VeilidUpdate::Attachment(state) => {
                drop(self.attachment.send_replace(*state));
            }
            // Without listeners there is nobody to miss it.
            other => drop(self.events.send(Arc::new(other))),
        }
    }

    /// Returns a callback for a node.
    pub fn callback(&self) -> UpdateCallback {
        let updates = self.clone();
        Arc::new(move |update| updates.send(update))
    }

    /// Subscribes to all updates from now on.
    pub fn subscribe(&self) -> Subscription {
        Subscription(self.events.subscribe())
    }

    /// Returns the node's attachment; always the latest state.
    pub fn attachment(&self) -> watch::Receiver<VeilidStateAttachment> {
        self.attachment.subscribe()
    }
}

/// Receives a node's updates.
#[derive(Debug)]
pub struct Subscription(broadcast::Receiver<Arc<VeilidUpdate>>);

impl Subscription {
    /// Returns the next event, or `None` after the node has gone. Can be cancelled without loss.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(update) => Some(Event::Update(update)),
            Err(RecvError::Lagged(count)) => Some(Event::Missed(count)),
            Err(RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_lags_is_told_and_goes_on() {
        let updates = Updates::new();
        let (mut slow, mut fast) = (updates.subscribe(), updates.subscribe());
        for _ in 0..MAX_BEHIND + 10 {
            updates.send(VeilidUpdate::Shutdown);
            assert!(matches!(fast.next().await, Some(Event::Update(_))));
        }
        assert!(matches!(slow.next().await, Some(Event::Missed(10))));
        for _ in 0..MAX_BEHIND {
            assert!(matches!(slow.next().await, Some(Event::Update(_))));
        }
        drop(updates);
        assert!(slow.next().await.is_none());
    }
}

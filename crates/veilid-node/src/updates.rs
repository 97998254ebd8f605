//! The updates of a node, for its listeners.

use std::sync::Arc;

use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};
use veilid_core::{UpdateCallback, VeilidStateAttachment, VeilidUpdate};

/// The number of updates that a listener may be behind before it is told that it missed some.
const MAX_BEHIND: usize = 4096;

/// An event for a listener.
#[derive(Debug, Clone)]
pub enum Event {
    /// An update, other than log lines and attachment states.
    Update(Arc<VeilidUpdate>),
    /// So many updates were missed: look again at whatever matters.
    Missed(u64),
}

/// Takes what a node says and hands it on, without ever making the node wait.
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
    /// Nobody listens yet.
    pub fn new() -> Self {
        Self {
            events: broadcast::Sender::new(MAX_BEHIND),
            attachment: watch::Sender::default(),
        }
    }

    /// Hands an update on. For the callback of an app that runs its own node.
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

    /// A callback for a node.
    pub fn callback(&self) -> UpdateCallback {
        let updates = self.clone();
        Arc::new(move |update| updates.send(update))
    }

    /// Hears all that comes from now on.
    pub fn subscribe(&self) -> Subscription {
        Subscription(self.events.subscribe())
    }

    /// The node's attachment, always the latest.
    pub fn attachment(&self) -> watch::Receiver<VeilidStateAttachment> {
        self.attachment.subscribe()
    }
}

/// Hears what a node says.
#[derive(Debug)]
pub struct Subscription(broadcast::Receiver<Arc<VeilidUpdate>>);

impl Subscription {
    /// The next event, or `None` after the node has gone. Cancelling it loses nothing.
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

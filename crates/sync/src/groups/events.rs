//! Events that an app hears, and the names by which it asks for a group.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt, stream};
use larder_store_api::{PublicKey, RecordId, Slot};
use tokio::sync::broadcast::{self, error::RecvError};

#[cfg(doc)]
use super::{Groups, Policy};

/// A change, made here or received from others.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A record of a group: that of a repo, or one in which a device shares values with the group.
    Changed {
        /// The group.
        group: RecordId,
        /// The record.
        record: RecordId,
        /// The repo whose record it is; `None` for values that the group shares.
        repo: Option<PublicKey>,
        /// The repo, or the device that shares the value.
        writer: PublicKey,
        /// The slot that has another value.
        slot: Slot,
    },
    /// More of the newest tree of a repo is here: its names, or all of it that anybody could give.
    Held {
        /// The group.
        group: RecordId,
        /// The repo.
        repo: PublicKey,
    },
    /// The [policy](Policy) of this device for a group changed.
    Wants {
        /// The group.
        group: RecordId,
    },
    /// A group was created, joined or left.
    Groups,
    /// More is known of who is in a group, and with which rights. Those that follow say what is new.
    Members {
        /// The group.
        group: RecordId,
    },
    /// A device is a member from now on.
    Joined {
        /// The group.
        group: RecordId,
        /// The device.
        device: PublicKey,
    },
    /// A device is not a member any more.
    Removed {
        /// The group.
        group: RecordId,
        /// The device.
        device: PublicKey,
        /// The person whose device it was.
        owner: PublicKey,
    },
    /// This device is not a member any more; what it has stays.
    RemovedHere {
        /// The group.
        group: RecordId,
    },
    /// Something that members said is void, because of a removal that they had not heard of.
    Voided {
        /// The group.
        group: RecordId,
        /// The number of operations.
        operations: usize,
    },
    /// Keys of another epoch are here: what could not be opened before may open now.
    Rekeyed {
        /// The group.
        group: RecordId,
    },
    /// More devices were let in with an invite than it is for, by members who had not heard of each other.
    InviteOverused {
        /// The group.
        group: RecordId,
        /// The key of the invite.
        invite: PublicKey,
    },
    /// The listener fell behind and missed events: look again at what matters.
    Resync,
}

/// Changes, as they happen: a stream without an end, from [`Groups::events`].
///
/// A listener that is more than 256 events behind hears [`Event::Resync`] in the place of those that it missed.
pub struct Events(Pin<Box<dyn Stream<Item = Event> + Send + Sync>>);

impl Events {
    pub(super) fn new(events: broadcast::Receiver<Event>) -> Self {
        let next = async |mut events: broadcast::Receiver<Event>| match events.recv().await {
            Ok(event) => Some((event, events)),
            Err(RecvError::Lagged(_)) => Some((Event::Resync, events)),
            Err(RecvError::Closed) => None,
        };
        Self(Box::pin(stream::unfold(events, next)))
    }

    /// Waits for the next event; `None` once the groups are no longer open anywhere.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.next().await
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.0.as_mut().poll_next(context)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

/// Names a group: a [`Group`](super::Group), or its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub RecordId);

impl From<RecordId> for GroupId {
    fn from(id: RecordId) -> Self {
        Self(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_that_fell_behind_looks_again() {
        let sender = broadcast::Sender::new(2);
        let mut events = Events::new(sender.subscribe());
        sender.send(Event::Groups).unwrap();
        assert_eq!(events.next().await, Some(Event::Groups));
        let group = |n| Event::Wants {
            group: RecordId([n; 32]),
        };
        for n in 1..4 {
            sender.send(group(n)).unwrap();
        }
        assert_eq!(events.next().await, Some(Event::Resync));
        // The stream and its own method are the same.
        assert_eq!(StreamExt::next(&mut events).await, Some(group(2)));
        assert_eq!(events.next().await, Some(group(3)));
        drop(sender);
        assert_eq!(events.next().await, None);
    }
}

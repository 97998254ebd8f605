//! The one place where blobs and tags change what the index says.

use std::sync::Arc;

use larder_store_api::{Batch, Durability, Edit, Expect, Kind, PayloadId, Result, Revision};

use super::{
    Inner,
    entry::{BlobEntry, Indexed},
    keys::{self, key},
    payload::Draft,
    pins::{Deleting, Pin},
};
use crate::{Hash, to_end::ToEnd};

/// A batch, and what must follow once it is applied. It holds its pins until then.
#[derive(Debug, Default)]
pub(crate) struct Change {
    expect: Vec<Expect>,
    edits: Vec<Edit>,
    durability: Durability,
    /// Blobs that gain content.
    changed: Vec<Hash>,
    /// Blobs that are deleted.
    deleted: Vec<Hash>,
    /// Payloads that lose their claim.
    garbage: Vec<PayloadId>,
    /// Payloads that are claimed.
    drafts: Vec<Draft>,
    pins: Vec<Pin>,
    deleting: Option<Deleting>,
}

/// The outcome of a change.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done(Revision),
    /// An expectation did not hold, and nothing changed. The drafts are the caller's again.
    Conflict(Vec<Draft>),
}

impl Change {
    pub(crate) fn of(edits: Vec<Edit>) -> Self {
        Self {
            edits,
            ..Self::default()
        }
    }

    #[must_use]
    pub(crate) fn expecting(mut self, expect: Expect) -> Self {
        self.expect.push(expect);
        self
    }

    /// Sets the durability of the change; by default it survives the loss of power once it is made.
    pub(crate) fn durable(&mut self, durability: Durability) {
        self.durability = durability;
    }

    pub(crate) fn expect_all(&mut self, expect: &[Expect]) {
        self.expect.extend_from_slice(expect);
    }

    /// Keeps a pin until the change is made.
    pub(crate) fn keep(&mut self, pin: &Pin) {
        self.pins.push(pin.clone());
    }

    /// Keeps a pin, as [`keep`](Self::keep) does.
    #[must_use]
    pub(crate) fn keeping(mut self, pin: &Pin) -> Self {
        self.keep(pin);
        self
    }

    /// Lets whoever wants to pin one of these blobs wait until the change is made.
    #[must_use]
    pub(crate) fn deleting(mut self, deleting: Deleting) -> Self {
        self.deleting = Some(deleting);
        self
    }

    /// Puts (or, with `None`, deletes) the entry of a blob in place of `old`, with its claims.
    pub(crate) fn replace(&mut self, hash: Hash, old: Option<&Indexed>, new: Option<&BlobEntry>) {
        let (collection, key) = (keys::BLOBS, key(hash));
        self.expect.push(match old {
            Some(old) => Expect::At {
                collection: collection.clone(),
                key: key.clone(),
                revision: old.revision,
            },
            None => Expect::Absent {
                collection: collection.clone(),
                key: key.clone(),
            },
        });
        let old = old.and_then(|old| old.entry.payload());
        let claimed = new.and_then(BlobEntry::payload);
        if let Some(payload) = old.filter(|_| old != claimed) {
            self.edits.extend(keys::discard(payload));
            self.garbage.push(payload);
        }
        if let Some(payload) = claimed.filter(|_| old != claimed) {
            self.edits.push(keys::claim(payload, hash));
        }
        match new {
            Some(new) => {
                let value = new.encode();
                self.edits.push(Edit::Put {
                    collection,
                    key,
                    value,
                });
                self.changed.push(hash);
            }
            None => {
                self.edits.push(Edit::Delete { collection, key });
                self.deleted.push(hash);
            }
        }
    }

    /// The change claims this payload.
    pub(crate) fn claim(&mut self, draft: Draft) {
        self.drafts.push(draft);
    }
}

impl Inner {
    /// Makes a change, all or nothing, as durable as it asks for when it returns. Once begun it runs to its end,
    /// whatever becomes of the caller, and `close` waits for it.
    pub(crate) fn commit(self: &Arc<Self>, change: Change) -> ToEnd<Result<Outcome>> {
        let inner = self.clone();
        self.to_end(async move { inner.make(change).await })
    }

    async fn make(self: &Arc<Self>, change: Change) -> Result<Outcome> {
        let Change {
            mut expect,
            edits,
            durability,
            changed,
            deleted,
            garbage,
            mut drafts,
            pins,
            deleting,
        } = change;
        expect.extend(self.sessions.expectation());
        let batch = {
            let mut batch = Batch::of(edits);
            batch.expect = expect;
            batch.durability = durability;
            batch
        };
        drafts.iter_mut().for_each(Draft::begin_claim);
        match self.collections.commit_reserved(batch).await {
            Ok(revision) => {
                drafts.into_iter().for_each(Draft::keep);
                changed.into_iter().for_each(|hash| self.changed(hash));
                for hash in deleted {
                    // An error says that nobody observes.
                    self.changes.send(hash).ok();
                }
                drop((deleting, pins));
                self.remove_garbage(garbage).await;
                Ok(Outcome::Done(revision))
            }
            Err(error) if error.kind() == Kind::Conflict => {
                drafts.iter_mut().for_each(Draft::end_claim);
                self.check_session("blobs.commit").await?;
                Ok(Outcome::Conflict(drafts))
            }
            Err(error) => {
                for draft in drafts {
                    draft.doubt();
                }
                Err(error)
            }
        }
    }

    /// Work that, once polled, runs to its end even if its caller goes away; `close` waits for it.
    /// If that is not possible, the next start tidies up.
    pub(crate) fn to_end<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> ToEnd<T> {
        let inner = self.clone();
        ToEnd::new(async move {
            let running = inner.hold();
            let mut ending = Ending {
                inner,
                has_ended: false,
            };
            let value = work.await;
            ending.has_ended = true;
            drop((ending, running));
            value
        })
    }
}

/// Notes, where work is dropped in the middle, that something may be left behind.
struct Ending {
    inner: Arc<Inner>,
    has_ended: bool,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.has_ended {
            self.inner.sessions.leave_unclean();
        }
    }
}

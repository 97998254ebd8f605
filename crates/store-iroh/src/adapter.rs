//! The one way into iroh-blobs: its `Store` can be made only inside that crate, but two things that
//! it makes public let an outside store become one, and let us talk to a store below its API.
//!
//! If either closes, this file stops compiling, and nothing else has to change.

use iroh_blobs::{
    api::{Store, proto::Request},
    store::mem::MemStore,
};
use ref_cast::RefCast;

/// A client of iroh-blobs' store protocol, local to this process.
pub(crate) type Client = irpc::Client<Request>;

/// A store whose commands arrive at the other end of `client`.
///
/// A memory store is no more than its client once it is made, and turns into a `Store`.
pub(crate) fn store_from_client(client: Client) -> Store {
    MemStore::from_sender(client).into()
}

/// The client inside of `store`, to send it commands that its API does not offer.
///
/// A `Store` is a transparent wrapper, which iroh-blobs says with `RefCast`: a place for a client is
/// also a place for a store.
pub(crate) fn client_of(store: Store) -> Client {
    let (nobody, _) = tokio::sync::mpsc::channel(1);
    let mut client = Client::from(nobody);
    *Store::ref_cast_mut(&mut client) = store;
    client
}

#[cfg(test)]
mod tests {
    use iroh_blobs::api::proto::Command;

    use super::*;

    #[tokio::test]
    async fn commands_come_out_where_the_client_leads() {
        let (tx, mut rx) = tokio::sync::mpsc::channel(1);
        let store = store_from_client(Client::from(tx));
        let asked = tokio::spawn(async move { store.sync_db().await });
        let Some(Command::SyncDb(command)) = rx.recv().await else {
            panic!("another command than the one that was sent");
        };
        command.tx.send(Ok(())).await.expect("the caller waits");
        asked.await.expect("no panic").expect("answered");
    }

    #[tokio::test]
    async fn a_store_gives_up_its_own_client() {
        let memory = MemStore::new();
        let tag = memory.add_slice(b"larder").temp_tag().await.expect("added");
        let store = store_from_client(client_of(memory.into()));
        assert!(store.has(tag.hash()).await.expect("answered"));
    }
}

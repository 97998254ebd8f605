//! What an app calls on a group beside its files, on one device.

use std::sync::Arc;

use store_api::{Kind, Result};
use store_engine::{Blobs, Collections, MemorySecrets};
use store_testkit::MemoryStore;
use sync::{
    groups::{Group, Groups, Stores},
    invite::InviteKind,
};

async fn stores() -> Result<Stores> {
    let store = Arc::new(MemoryStore::new());
    Ok(Stores {
        blobs: Blobs::open(store.clone(), store.clone()).await?,
        collections: Collections::new(store),
        secrets: Arc::new(MemorySecrets::new()),
    })
}

async fn groups() -> Result<Groups> {
    Groups::open(stores().await?).await
}

/// The same group on a device of somebody else.
async fn joined(group: &Group, kind: InviteKind) -> Result<Group> {
    let invite = group.invite(kind, Vec::new()).await?;
    groups().await?.join(&invite).await
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> Kind {
    result.expect_err("it is refused").kind()
}

#[tokio::test]
async fn who_may_read_a_group_opens_what_another_member_sealed() -> Result<()> {
    let groups = groups().await?;
    let group = groups.create_group("family").await?;
    let sealed = group.encrypt(b"a message", b"chat")?;
    for allowed in [InviteKind::Write, InviteKind::Read] {
        let member = joined(&group, allowed).await?;
        assert_eq!(member.decrypt(&sealed, b"chat")?, "a message");
        assert_eq!(kind(member.decrypt(&sealed, b"calls")), Kind::Corrupt);
        let answer = member.encrypt(b"an answer", b"chat")?;
        assert_eq!(group.decrypt(&answer, b"chat")?, "an answer");
    }
    let replica = joined(&group, InviteKind::Replica).await?;
    assert_eq!(kind(replica.decrypt(&sealed, b"chat")), Kind::Denied);
    assert_eq!(kind(replica.encrypt(b"a message", b"chat")), Kind::Denied);
    let other = groups.create_group("friends").await?;
    assert_eq!(kind(other.decrypt(&sealed, b"chat")), Kind::Corrupt);
    assert_eq!(kind(other.decrypt(b"a message", b"chat")), Kind::Invalid);
    Ok(())
}

//! Names on the command line: what they stand for, and what garbage among them cannot do.

use futures_util::TryStreamExt;
use larder::{
    Bytes, Root,
    api::{PutRecord, RecordId, RecordStore, SecretKey, SeqExpect, Slot},
    engine::Records,
    groups::{Changes, Group, InviteKind, Name, REPO_ROOT},
};

use super::support::{Place, tree};

/// The slot of a group's name and of a repo's profile.
const NAME: Slot = 0;

/// Uses the only group of this place from inside this process.
fn with_group<T>(place: &Place, work: impl AsyncFnOnce(&Group, &Records) -> T) -> T {
    place.with_store(async |store| {
        let groups = store.groups().await.unwrap();
        work(&groups.groups().remove(0), store.records()).await
    })
}

async fn put(records: &Records, id: RecordId, slot: Slot, value: Bytes, writer: SecretKey) {
    let expect = SeqExpect::Any;
    let write = PutRecord::Write {
        value,
        writer,
        expect,
    };
    records.put(id, slot, write).await.unwrap();
}

/// The key of the first repo of ours.
async fn secret(group: &Group) -> SecretKey {
    let invite = group.invite(InviteKind::Device, Vec::new()).await.unwrap();
    invite.repos()[0].clone()
}

/// The commands that look at everything.
const LOOKS: [&[&str]; 4] = [
    &["ls"],
    &["group", "ls"],
    &["group", "members"],
    &["status"],
];

#[test]
fn what_is_no_name_stops_no_listing() {
    let place = Place::new();
    place.write("a", "A");
    place.ok(&["group", "create", "g", "--as", "me"]);
    place.ok(&["put", "a"]);
    let key = with_group(&place, async |group, records| {
        let garbage = Bytes::from_static(b"no name that anybody sealed");
        let repo = group.repos().await.unwrap().remove(0);
        put(records, repo.id(), NAME, garbage, secret(group).await).await;
        repo.key().to_string()
    });
    // A repo without a name is called by its key.
    for args in LOOKS {
        let said = place.ok(args);
        assert!(!said.is_empty(), "{args:?}");
    }
    assert_eq!(place.json(&["group", "members"])[0]["repos"][0], key);
    let path = format!("g/{}/a", &key[..10]);
    assert_eq!(place.json(&["ls", &path])[0]["name"], "a");
}

#[test]
fn sizes_that_somebody_claims_are_shown_whatever_they_are() {
    let place = Place::new();
    place.write("a", "A");
    place.ok(&["group", "create", "g", "--as", "me"]);
    place.ok(&["put", "a"]);
    // A file that claims to be larger than anything.
    with_group(&place, async |group, _| {
        let repo = group.repos().await.unwrap().remove(0);
        let mut staged = repo.stage(Bytes::from_static(b"B"), 0).await.unwrap();
        staged.entry.size = u64::MAX - 1;
        let mut changes = Changes::new();
        changes.put(Name::new("a").unwrap(), staged);
        repo.change(changes).await.unwrap();
    });
    assert_eq!(place.json(&["ls", "g/me"])[0]["size"], u64::MAX - 1);
    let said = place.fails(1, &["get", "g/me", "-o", "out"]);
    assert!(said.contains("its bytes are damaged"), "{said}");
    assert!(!place.path("out/a").exists());

    // A tree that claims to be, beside another, so that both together are more than all numbers.
    let (files, bytes) = (u64::MAX, u64::MAX);
    with_group(&place, async |group, records| {
        let repo = group.repos().await.unwrap().remove(0);
        let key = secret(group).await;
        let other = group.create_repo("other").await.unwrap();
        other.write("x", Bytes::from_static(b"more")).await.unwrap();
        let (_, mut root) = repo.known_root().await.unwrap().unwrap();
        (root.root.files, root.root.bytes) = (files, bytes);
        let keys = group.keyring().sealing().unwrap();
        let sealed = root.seal(keys.locate(), repo.id()).unwrap();
        put(records, repo.id(), REPO_ROOT, sealed, key).await;
    });
    for args in LOOKS {
        place.ok(args);
    }
    let listed = &place.json(&["ls"])[0];
    let claimed = (&listed["files"], &listed["size"]);
    assert_eq!(claimed, (&files.into(), &bytes.into()));
    let said = place.fails(1, &["group", "leave", "g"]);
    assert!(said.contains("which may be nowhere else"), "{said}");
}

#[test]
fn of_members_whose_names_overlap_none_is_guessed() {
    let place = Place::new();
    place.write("b/x", "of a");
    place.ok(&["group", "create", "g", "--as", "a"]);
    place.ok(&["put", "b"]);
    let key = with_group(&place, async |group, _| {
        let repo = group.create_repo("a/b").await.unwrap();
        repo.write("x", Bytes::from_static(b"of a/b"))
            .await
            .unwrap();
        repo.key().to_string()
    });
    for args in [
        &["ls", "g/a/b"][..],
        &["get", "g/a/b/x", "-o", "out"],
        &["rm", "g/a/b/x"],
    ] {
        let said = place.fails(2, args);
        let path = args[1].strip_prefix("g/").unwrap();
        assert!(
            said.contains(&format!("2 members of g may be meant by {path:?}")),
            "{said}"
        );
        assert!(said.contains("now: write the beginning of a key"));
    }
    // A prefix that fits only one is enough.
    assert_eq!(place.json(&["ls", "g/a"])[0]["name"], "b/x");
    place.ok(&["get", &format!("g/{}/x", &key[..10]), "-o", "out"]);
    assert_eq!(std::fs::read(place.path("out/x")).unwrap(), b"of a/b");
}

#[test]
fn names_of_the_store_itself_come_before_groups_that_are_called_alike() {
    let place = Place::new();
    place.write("theirs/only in the group", "group");
    place.write("g/me/x", "local");
    place.ok(&["group", "create", "g", "--as", "me"]);
    place.ok(&["put", "theirs"]);
    place.ok(&["add", "g"]);
    let listed = place.json(&["ls", "g"]);
    assert_eq!((listed.len(), &listed[0]["name"]), (1, &"me/x".into()));
    place.ok(&["get", "g", "-o", "out"]);
    assert_eq!(tree(&place.path("out")), tree(&place.path("g")));
    place.ok(&["get", "g/me/x", "-o", "file"]);
    assert_eq!(std::fs::read(place.path("file/x")).unwrap(), b"local");
    // A file that the folder does not have is looked up in the group.
    place.ok(&["get", "g/me/theirs", "-o", "theirs again"]);
    assert_eq!(
        tree(&place.path("theirs again")),
        tree(&place.path("theirs"))
    );

    place.ok(&["rm", "g"]);
    let listed = place.json(&["ls", "g"]);
    assert_eq!(
        (&listed[0]["name"], &listed[0]["files"]),
        (&"me".into(), &1.into())
    );
    let tags = place.with_store(async |store| {
        let tags = store.blobs().tags().list(..);
        let tags: Vec<_> = tags.try_collect().await.unwrap();
        tags.iter()
            .filter(|tag| tag.root == Root::raw(tag.root.hash))
            .count()
    });
    assert_eq!(tags, 0, "no name of the store itself is left");
}

use proptest::{collection::vec, prelude::*};

use larder_store_engine::Hash;

use super::*;
use crate::{
    keys::LocateKey,
    root::{MAX_LEVEL, Root},
    seal::value::seal_with,
};

const REPO: RecordId = RecordId([3; 32]);

pub(super) fn locate() -> LocateKey {
    LocateKey::from_bytes([1; 32], 0)
}

fn read() -> ReadKey {
    ReadKey::from_bytes([2; 32], 0)
}

pub(super) fn root() -> RepoRoot {
    let tree = Root {
        hash: Hash::from([7; 32]),
        level: 2,
        files: 1000,
        bytes: 1 << 40,
    };
    let first = RepoRoot {
        root: Root::EMPTY,
        time: 1,
        earlier: vec![],
    };
    first.next(tree, 1_700_000_000_000)
}

#[test]
fn the_layouts_are_pinned() {
    let route = Route {
        address: "mem://a".to_owned(),
        expires: 5,
    };
    let lines = [root().encode().unwrap(), route.encode().unwrap()];
    crate::golden::check_hex("records.hex", &lines.each_ref().map(|line| &line[..]));
    let profile = Profile { name: "Ada".into() };
    assert_eq!(
        serde_json::to_string(&profile).unwrap(),
        r#"{"name":"Ada"}"#
    );
}

#[test]
fn what_is_in_the_slots_is_pinned() {
    let profile = Profile { name: "Ada".into() };
    let route = Route {
        address: "mem://a".to_owned(),
        expires: 5,
    };
    let seal =
        |key: &dyn Fn(Slot, &[u8]) -> Result<Bytes>, slot, plain: &[u8]| key(slot, plain).unwrap();
    let nonce = [4; crate::seal::value::NONCE_LEN];
    let by_read = |slot, plain: &[u8]| seal_with(&read(), REPO, slot, plain, nonce);
    let by_locate = |slot, plain: &[u8]| seal_with(&locate(), REPO, slot, plain, nonce);
    let lines = [
        seal(&by_read, GROUP_NAME, b"\x01\0\0\0\0\0\0\0\x07Family"),
        seal(&by_read, REPO_PROFILE, br#"{"name":"Ada"}"#),
        seal(&by_locate, REPO_ROOT, &root().encode().unwrap()),
        seal(&by_locate, FIRST_ROUTE, &route.encode().unwrap()),
    ];
    crate::golden::check_hex("slots.hex", &lines.each_ref().map(|line| &line[..]));
    let [name, sealed_profile, sealed_root, sealed_route] = &lines;
    let named = (7, "Family".to_owned());
    assert_eq!(open_group_name(&read(), REPO, name).unwrap(), named);
    let opened = Profile::open(&read(), REPO, sealed_profile).unwrap();
    assert_eq!(opened, profile);
    let opened = RepoRoot::open(&locate(), REPO, sealed_root).unwrap();
    assert_eq!(opened, root());
    let opened = Route::open(&locate(), REPO, FIRST_ROUTE, sealed_route).unwrap();
    assert_eq!(opened, route);
}

#[test]
fn what_is_sealed_opens_in_its_slot() {
    let sealed = seal_group_name(&read(), REPO, 7, "Family").unwrap();
    let named = (7, "Family".to_owned());
    assert_eq!(open_group_name(&read(), REPO, &sealed).unwrap(), named);
    let profile = Profile { name: "Ada".into() };
    let sealed = profile.seal(&read(), REPO).unwrap();
    assert_eq!(Profile::open(&read(), REPO, &sealed).unwrap(), profile);
    let sealed = root().seal(&locate(), REPO).unwrap();
    assert_eq!(RepoRoot::open(&locate(), REPO, &sealed).unwrap(), root());
    let route = Route {
        address: "a".repeat(MAX_ADDRESS_LEN),
        expires: -1,
    };
    let sealed = route.seal(&locate(), REPO, 63).unwrap();
    assert_eq!(Route::open(&locate(), REPO, 63, &sealed).unwrap(), route);
}

#[test]
fn what_does_not_fit_is_refused() {
    let kind = |result: Result<Bytes>| result.unwrap_err().kind();
    let long = "x".repeat(MAX_LABEL_LEN + 1);
    assert_eq!(
        kind(seal_group_name(&read(), REPO, 1, &long)),
        Kind::TooLarge
    );
    let route = |address: &str| Route {
        address: address.to_owned(),
        expires: 0,
    };
    assert_eq!(kind(route("a").seal(&locate(), REPO, 1)), Kind::Invalid);
    assert_eq!(kind(route("").seal(&locate(), REPO, 2)), Kind::Invalid);
    assert_eq!(kind(route(&long).seal(&locate(), REPO, 2)), Kind::Invalid);
    let mut deep = root();
    deep.root.level = MAX_LEVEL + 1;
    assert_eq!(kind(deep.seal(&locate(), REPO)), Kind::Invalid);
    let mut empty = root();
    empty.root.files = 0;
    assert_eq!(kind(empty.seal(&locate(), REPO)), Kind::Invalid);
}

proptest! {
    #[test]
    fn decoding_anything_is_safe(bytes: Vec<u8>) {
        let versioned = [&[VERSION], &bytes[..]].concat();
        for bytes in [&bytes, &versioned] {
            if let Ok(root) = RepoRoot::decode(bytes) {
                prop_assert_eq!(&root.encode().unwrap(), bytes);
            }
            if let Ok(route) = Route::decode(bytes) {
                prop_assert_eq!(&route.encode().unwrap(), bytes);
            }
            decode_name(bytes).ok();
            Profile::decode(bytes).ok();
        }
    }

    #[test]
    fn what_is_encoded_decodes(
        hash in any::<[u8; 32]>(), level in 0..=MAX_LEVEL, files in 1..=u64::MAX, bytes: u64,
        time: i64, earlier in vec((any::<[u8; 32]>(), 0..=MAX_LEVEL, any::<i64>()), 0..=64),
        address in ".{1,200}",
    ) {
        let earlier = earlier.into_iter().map(|(hash, level, time)| Earlier {
            hash: hash.into(),
            level,
            time,
        });
        let root = RepoRoot {
            root: Root { hash: hash.into(), level, files, bytes },
            time,
            earlier: earlier.collect(),
        };
        prop_assert_eq!(&RepoRoot::decode(&root.encode().unwrap()).unwrap(), &root);
        let route = Route { address, expires: time };
        prop_assert_eq!(&Route::decode(&route.encode().unwrap()).unwrap(), &route);
    }
}

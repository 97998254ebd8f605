//! Tests of invites as texts and bytes.

use proptest::prelude::*;

use super::*;

const KEY: &str = "97d6f9a6a1b3a9b0a5dc3d3a0d4f05f4b0f3cf6e7c1bbd28b0c6f3c1f0a9e8d7";

const GROUP: RecordId = RecordId([6; 32]);

fn invite(kind: InviteKind, at: &[String]) -> Invite {
    let seed = InviteSeed::from_bytes([7; 32]);
    Invite::new(kind, GROUP, seed, at.to_vec()).unwrap()
}

fn all() -> Vec<Invite> {
    let repo = SecretKey::from_bytes([8; 32]);
    let at = vec![format!("iroh:{KEY}?ip=127.0.0.1:47930"), "mem:a".to_owned()];
    vec![
        invite(InviteKind::Write, &at)
            .with_name("the hikers")
            .unwrap(),
        invite(InviteKind::Read, &[]),
        invite(InviteKind::Replica, &at),
        invite(InviteKind::Device, &at)
            .with_repos(vec![repo])
            .unwrap(),
        invite(InviteKind::Admin, &[]).with_name("ü").unwrap(),
        invite(InviteKind::Recovery, &[]),
    ]
}

#[test]
fn texts_are_pinned_and_parse() {
    let lines: Vec<_> = all().iter().map(ToString::to_string).collect();
    crate::golden::check("invites.txt", &lines);
    for (line, invite) in lines.iter().zip(all()) {
        let parsed: Invite = line.parse().unwrap();
        assert_eq!(parsed, invite);
        assert_eq!(parsed.kind(), invite.kind());
        assert_eq!(parsed.name(), invite.name());
        // As a QR code has it, and in no other way.
        assert_eq!(line.to_uppercase().parse::<Invite>().unwrap(), invite);
        assert!(
            line.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        );
    }
    assert!(lines.iter().all(|line| line.len() < 340), "{lines:?}");
}

#[test]
fn nothing_secret_is_printed() {
    for invite in all() {
        let debug = format!("{invite:?}");
        assert!(
            !debug.contains("7, 7") && !debug.contains("0707"),
            "{debug}"
        );
        assert!(debug.contains("(…"), "{debug}");
    }
}

#[test]
fn a_mistyped_or_cut_invite_is_refused() {
    for invite in all() {
        let text = invite.to_string();
        let mut wrong = Vec::new();
        for at in 0..text.len() {
            wrong.push(text[..at].to_owned());
            wrong.push(format!("{}{}", &text[..at], &text[at + 1..]));
            for other in "abq27018ü-".chars() {
                let one = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                wrong.push(format!("{}{other}{}", &text[..at], &text[at..]));
                wrong.push(one);
            }
            if at > 0 {
                let (a, b) = (&text[at - 1..at], &text[at..=at]);
                wrong.push(format!("{}{b}{a}{}", &text[..at - 1], &text[at + 1..]));
            }
        }
        wrong.extend([format!("{text}a"), format!("{text}="), format!("{text} ")]);
        for wrong in wrong.into_iter().filter(|wrong| *wrong != text) {
            let error = wrong.parse::<Invite>().expect_err(&wrong);
            assert_eq!(error.kind(), Kind::Invalid, "{wrong}");
            let said = error.message().to_owned();
            assert!(
                said.contains("wrong") || said.contains("begins with `larder`"),
                "{wrong}: {said}"
            );
        }
    }
}

#[test]
fn bytes_that_are_no_invite_are_refused_though_their_checksum_is_right() {
    let good = all()[0].encode().to_vec();
    assert_eq!(*text_of(&good), all()[0].to_string());
    for len in 1..good.len() {
        let error = text_of(&good[..len]).parse::<Invite>().unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{len} bytes");
    }
    let change = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let error = text_of(&change(0, 1)).parse::<Invite>().unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.to_string().contains("version=1"), "{error}");
    assert_eq!(
        text_of(&[]).parse::<Invite>().unwrap_err().kind(),
        Kind::Unsupported
    );
    let name = 2 + 64;
    let long = [
        &good[..name],
        &1025_u16.to_be_bytes(),
        &[b'x'; 1025],
        &good[name + 12..],
    ]
    .concat();
    let keyed = [
        &good[..name],
        &[0, 0, 1, TEXT, 0, 69],
        b"iroh:",
        KEY.as_bytes(),
    ]
    .concat();
    let empty = [&good[..name], &[0, 0, 1, TEXT, 0, 0]].concat();
    let many = [&good[..name], &[0, 0, 17], &[TEXT, 0, 1, b'a'].repeat(17)].concat();
    for (bytes, said) in [
        (change(1, 0), "kind of the invite is not known"),
        (change(1, 7), "kind of the invite is not known"),
        (change(name + 2, 0xff), "not valid UTF-8"),
        (change(name + 13, 2), "form of an address is not known"),
        ([&good[..], &[0]].concat(), "bytes after the end"),
        (long, "name of the group is too long"),
        (keyed, "not written as invites are"),
        (empty, "1 to 1024 bytes"),
        (many, "at most 16 addresses"),
    ] {
        let error = text_of(&bytes).parse::<Invite>().unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{said}");
        assert!(error.to_string().contains(said), "{error} is not {said}");
    }
    let long = format!("{PREFIX}{}", "a".repeat(MAX_INVITE_LEN));
    let error = long.parse::<Invite>().unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge);
}

#[test]
fn the_longest_invite_parses() {
    let at = vec!["a".repeat(MAX_ADDRESS_LEN); MAX_ADDRESSES];
    let invite = invite(InviteKind::Device, &at);
    let repos = vec![SecretKey::from_bytes([8; 32]); MAX_REPOS];
    let invite = invite.with_repos(repos).unwrap();
    let invite = invite.with_name("n".repeat(MAX_LABEL_LEN)).unwrap();
    assert_eq!(invite.to_string().parse::<Invite>().unwrap(), invite);
}

#[test]
fn only_a_device_gets_repos_and_a_replica_reads_no_name() {
    let repos = |n| vec![SecretKey::from_bytes([8; 32]); n];
    let write = invite(InviteKind::Write, &[]);
    let kind = |result: Result<Invite>| result.unwrap_err().kind();
    assert_eq!(kind(write.clone().with_repos(repos(1))), Kind::Invalid);
    let device = invite(InviteKind::Device, &[]);
    assert_eq!(kind(device.with_repos(repos(MAX_REPOS + 1))), Kind::Invalid);
    let replica = invite(InviteKind::Replica, &[]);
    assert_eq!(kind(replica.with_name("g")), Kind::Invalid);
    assert_eq!(write.clone().with_name("").unwrap(), write);
    let long = write.with_name("n".repeat(MAX_LABEL_LEN + 1));
    assert_eq!(kind(long), Kind::TooLarge);
}

#[test]
fn the_keys_of_an_invite_are_pinned() {
    let seed = InviteSeed::from_bytes([7; 32]);
    let lines = [seed.public().0, seed.boxes().public().0];
    crate::golden::check_hex("invite_keys.hex", &lines.each_ref().map(|line| &line[..]));
}

proptest! {
    #[test]
    fn any_text_is_safe(text in ".*", digits in "[a-zA-Z2-7]*", bytes: Vec<u8>) {
        for text in [text, format!("{PREFIX}{digits}"), text_of(&bytes).to_string()] {
            prop_assert!(text.parse::<Invite>().is_err());
        }
    }

    #[test]
    fn an_invite_has_one_text(seed: [u8; 32], repo: [u8; 32], group: [u8; 32], kind in 1_u8..=6,
        name in ".{0,64}", key: [u8; 32], rest in ".{0,16}",
        mut at in proptest::collection::vec(".{1,64}", 0..15))
    {
        at.push(format!("iroh:{}{rest}", HEXLOWER.encode(&key)));
        let kind = InviteKind::of(kind).unwrap();
        let seed = InviteSeed::from_bytes(seed);
        let mut invite = Invite::new(kind, RecordId(group), seed, at).unwrap();
        if kind.has_name() {
            invite = invite.with_name(name).unwrap();
        }
        if kind == InviteKind::Device {
            invite = invite.with_repos(vec![SecretKey::from_bytes(repo)]).unwrap();
        }
        let text = invite.to_string();
        let parsed = text.parse::<Invite>().unwrap();
        prop_assert_eq!(parsed.to_string(), text);
        prop_assert_eq!(parsed, invite);
    }
}

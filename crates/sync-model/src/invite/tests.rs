//! Tests of invites as texts and bytes.

use proptest::prelude::*;

use super::*;

const KEY: &str = "97d6f9a6a1b3a9b0a5dc3d3a0d4f05f4b0f3cf6e7c1bbd28b0c6f3c1f0a9e8d7";

fn keys() -> GroupKeys {
    GroupKeys::write(GroupSecret::from_key(SecretKey::from_bytes([7; 32])), 3)
}

fn all() -> Vec<Invite> {
    let (write, repo) = (keys(), SecretKey::from_bytes([8; 32]));
    let read = write.to_read_only().unwrap();
    let at = vec![format!("iroh:{KEY}?ip=127.0.0.1:47930"), "mem:a".to_owned()];
    vec![
        Invite::member(write.clone(), at.clone())
            .and_then(|invite| invite.with_name("the hikers"))
            .unwrap(),
        Invite::member(read.clone(), vec![]).unwrap(),
        Invite::member(write.to_replica(), at.clone()).unwrap(),
        Invite::device(write, repo.clone(), at).unwrap(),
        Invite::device(read, repo, vec![])
            .and_then(|invite| invite.with_name("ü"))
            .unwrap(),
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
    let error = text_of(&change(0, 2)).parse::<Invite>().unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert_eq!(
        text_of(&[]).parse::<Invite>().unwrap_err().kind(),
        Kind::Unsupported
    );
    let name = 6 + 32;
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
        (change(1, 6), "kind of the invite is not known"),
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
    let read = keys().to_read_only().unwrap();
    let invite = Invite::device(read, SecretKey::from_bytes([8; 32]), at).unwrap();
    let invite = invite.with_name("n".repeat(MAX_LABEL_LEN)).unwrap();
    assert_eq!(invite.to_string().parse::<Invite>().unwrap(), invite);
}

#[test]
fn a_replica_has_no_device_and_reads_no_name() {
    let error = Invite::device(keys().to_replica(), SecretKey::from_bytes([8; 32]), vec![]);
    assert_eq!(error.unwrap_err().kind(), Kind::Invalid);
    let replica = Invite::member(keys().to_replica(), vec![]).unwrap();
    assert_eq!(replica.with_name("g").unwrap_err().kind(), Kind::Invalid);
    let read = Invite::member(keys(), vec![]).unwrap();
    assert_eq!(read.clone().with_name("").unwrap(), read);
    let long = read.with_name("n".repeat(MAX_LABEL_LEN + 1)).unwrap_err();
    assert_eq!(long.kind(), Kind::TooLarge);
}

proptest! {
    #[test]
    fn any_text_is_safe(text in ".*", digits in "[a-zA-Z2-7]*", bytes: Vec<u8>) {
        for text in [text, format!("{PREFIX}{digits}"), text_of(&bytes).to_string()] {
            prop_assert!(text.parse::<Invite>().is_err());
        }
    }

    #[test]
    fn an_invite_has_one_text(secret: [u8; 32], repo: [u8; 32], epoch: u32, level in 0..5,
        name in ".{0,64}", key: [u8; 32], rest in ".{0,16}",
        mut at in proptest::collection::vec(".{1,64}", 0..15))
    {
        at.push(format!("iroh:{}{rest}", HEXLOWER.encode(&key)));
        let write = GroupKeys::write(GroupSecret::from_key(SecretKey::from_bytes(secret)), epoch);
        let read = write.to_read_only().unwrap();
        let repo = SecretKey::from_bytes(repo);
        let invite = match level {
            0 => Invite::member(write, at).and_then(|invite| invite.with_name(name)),
            1 => Invite::member(read, at).and_then(|invite| invite.with_name(name)),
            2 => Invite::member(write.to_replica(), at),
            3 => Invite::device(write, repo, at),
            _ => Invite::device(read, repo, at),
        };
        let invite = invite.unwrap();
        let text = invite.to_string();
        let parsed = text.parse::<Invite>().unwrap();
        prop_assert_eq!(parsed.to_string(), text);
        prop_assert_eq!(parsed, invite);
    }
}

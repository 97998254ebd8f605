//! Entry points of the fuzzer for messages from peers.

use bytes::Bytes;
use larder_store_api::{PublicKey, RecordId};

use super::{
    proof::{ANSWER_LEN, Ends, Role, answer, check, hear_who},
    wire::{Answer, Get, MAX_RANGES, Message, read_frame},
};
use crate::keys::LocateKey;

/// Reads a stream of frames, each a message: a valid one must encode to the same bytes.
pub fn message(bytes: &[u8]) {
    one_message(&Bytes::copy_from_slice(bytes));
    let mut stream = bytes;
    let frames = async {
        while let Ok(Some(frame)) = read_frame(&mut stream).await {
            one_message(&frame);
        }
    };
    // Reading from a slice never waits.
    let ended = futures_util::FutureExt::now_or_never(frames);
    assert!(ended.is_some());
}

fn one_message(bytes: &Bytes) {
    if let Ok(message) = Message::decode(bytes) {
        assert_eq!(message.encode().expect("it was read"), bytes);
    }
}

/// Reads a request: a valid one stays within the limits, and survives encoding and decoding.
pub fn get(bytes: &[u8]) {
    if let Ok(get) = Get::decode(bytes) {
        let asked = get
            .ranges
            .iter()
            .map(|(_, ranges)| 1 + ranges.boundaries().len());
        assert!(asked.sum::<usize>() <= MAX_RANGES);
        let again = get.encode().expect("it was read");
        assert_eq!(Get::decode(&again).expect("it was written"), get);
    }
}

/// Reads hellos and answers: nobody can prove a group without its key.
pub fn proof(bytes: &[u8]) {
    let ends = Ends {
        binding: [1; 32],
        asker: PublicKey([2; 32]),
        answerer: PublicKey([3; 32]),
    };
    let ours = [11, 12].map(|seed| RecordId([seed; 32]));
    let held = [LocateKey::from_bytes([13; 32], 0)];
    assert!(hear_who(&ends, Role::Asker, ours[0], &held, bytes).is_err());
    if let Ok((found, answered)) = answer(&ends, ours, bytes) {
        assert!(found.is_none() && answered.len() == ANSWER_LEN);
    }
    assert!(!check(&ends, ours[0], &[4; 32], bytes));
    if let Some(&byte) = bytes.first()
        && let Ok(answer) = Answer::decode(byte)
    {
        assert_eq!(answer.encode(), byte);
    }
}

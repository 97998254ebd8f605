//! Entry points of the fuzzer for what a device remembers.

use bytes::Bytes;
use larder_store_api::Secret;

use super::{
    Policy,
    contacts::{decode_contact, encode_contact},
    local_state::{
        decode_addresses, decode_named, decode_other, decode_promised, encode_addresses,
        encode_other, encode_promised, named,
    },
    local_trees::{decode_local, decode_settled, encode_local, encode_settled},
    members::DeviceSecret,
};

/// Decodes stored facts about groups. The first byte chooses which; what is read is written as it
/// was.
pub fn kept(bytes: &[u8]) {
    let Some((&which, bytes)) = bytes.split_first() else {
        return;
    };
    match which % 9 {
        0 => {
            if let Ok(key) = decode_named(bytes) {
                assert_eq!(named(key), bytes);
            }
        }
        1 => {
            if let Ok(all) = decode_addresses(bytes) {
                assert_eq!(encode_addresses(&all), bytes);
            }
        }
        2 => {
            if let Ok(settled) = decode_settled(bytes) {
                assert_eq!(encode_settled(&settled), bytes);
            }
        }
        3 => {
            let bytes = Bytes::copy_from_slice(bytes);
            if let Ok(signed) = decode_other(&bytes) {
                assert_eq!(encode_other(&signed).expect("it was read"), bytes);
            }
        }
        5 => {
            if let Ok(contact) = decode_contact(bytes) {
                assert_eq!(encode_contact(&contact), bytes);
            }
        }
        6 => {
            if let Ok(local) = decode_local(bytes) {
                assert_eq!(encode_local(&local), bytes);
            }
        }
        7 => {
            if let Ok(until) = decode_promised(bytes) {
                assert_eq!(encode_promised(until), bytes);
            }
        }
        8 => {
            if let Ok(policy) = Policy::decode(bytes) {
                assert_eq!(policy.encode().expect("it was read"), bytes);
            }
        }
        _ => {
            let Ok(secret) = Secret::new(bytes) else {
                return;
            };
            if let Ok(device) = DeviceSecret::decode(&secret) {
                let again = device.encode().expect("it was read");
                assert_eq!(again.expose(), bytes);
            }
        }
    }
}

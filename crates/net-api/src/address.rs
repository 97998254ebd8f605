//! The address of a node, with the network that understands it.

use std::{fmt, str::FromStr};

use larder_store_api::{Error, Kind, Result};

/// The longest address, in bytes.
pub const MAX_ADDRESS_LEN: usize = 1024;

/// The longest scheme, in bytes.
pub const MAX_SCHEME_LEN: usize = 32;

const OPERATION: &str = "network.address";

/// The address of a node: `scheme:rest`. The scheme names the network that understands the rest.
///
/// A scheme is a lowercase letter, then lowercase letters, digits, `+`, `-` and `.`, at most
/// [`MAX_SCHEME_LEN`] bytes. The rest has at least one character and no control characters; the whole
/// text has at most [`MAX_ADDRESS_LEN`] bytes.
///
/// ```
/// let address: larder_net_api::Address = "iroh:ab01?ip=127.0.0.1:7".parse()?;
/// assert_eq!((address.scheme(), address.rest()), ("iroh", "ab01?ip=127.0.0.1:7"));
/// assert_eq!(address.to_string(), "iroh:ab01?ip=127.0.0.1:7");
/// # larder_store_api::Result::<()>::Ok(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    text: String,
    /// The length of the scheme; the colon follows.
    scheme: usize,
}

impl Address {
    /// Makes an address from a scheme and the rest. [`Kind::Invalid`] if they do not form a valid
    /// address.
    pub fn new(scheme: &str, rest: impl fmt::Display) -> Result<Self> {
        let address: Self = format!("{scheme}:{rest}").parse()?;
        match address.scheme == scheme.len() {
            true => Ok(address),
            false => Err(invalid("a scheme has no colon in it", scheme.len())),
        }
    }

    /// Returns the scheme: the name of the network that understands the address.
    pub fn scheme(&self) -> &str {
        &self.text[..self.scheme]
    }

    /// Returns the part after the scheme and its colon.
    pub fn rest(&self) -> &str {
        &self.text[self.scheme + 1..]
    }

    /// Returns the whole text, `scheme:rest`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the rest of an address that has one of these schemes. [`Kind::Invalid`] for any other
    /// address; the error names the schemes.
    pub fn rest_of(&self, schemes: &[&str]) -> Result<&str> {
        if schemes.contains(&self.scheme()) {
            return Ok(self.rest());
        }
        let message = "the address belongs to another network than this one";
        Err(Error::new(Kind::Invalid, OPERATION, message)
            .with("address", self)
            .with("dials", schemes.join(", ")))
    }
}

fn invalid(message: &'static str, len: usize) -> Error {
    Error::new(Kind::Invalid, OPERATION, message).with("len", len)
}

fn is_scheme(text: &str) -> bool {
    let known = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.');
    text.len() <= MAX_SCHEME_LEN
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(known)
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |message| Err(invalid(message, text.len()));
        if text.is_empty() || text.len() > MAX_ADDRESS_LEN {
            return wrong("an address has 1 to 1024 bytes");
        }
        if text.chars().any(char::is_control) {
            return wrong("an address has no control characters");
        }
        let Some((scheme, rest)) = text.split_once(':') else {
            return wrong("an address begins with the name of its network and a colon");
        };
        if !is_scheme(scheme) {
            return wrong("the part before the colon is not a valid network name");
        }
        if rest.is_empty() {
            return wrong("nothing follows the name of the network");
        }
        Ok(Self {
            text: text.to_owned(),
            scheme: scheme.len(),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for (text, scheme, rest) in [
            ("sim:1", "sim", "1"),
            ("veilid+tcp:a:b", "veilid+tcp", "a:b"),
            ("x-1.y:ü ?", "x-1.y", "ü ?"),
            ("a::", "a", ":"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.scheme(), address.rest()), (scheme, rest));
            assert_eq!(address.as_str(), text);
            assert_eq!(Address::new(scheme, rest).unwrap(), address);
        }
        let longest = format!("x:{}", "y".repeat(MAX_ADDRESS_LEN - 2));
        assert_eq!(longest.parse::<Address>().unwrap().to_string(), longest);
        let scheme = "x".repeat(MAX_SCHEME_LEN);
        assert_eq!(Address::new(&scheme, 1).unwrap().scheme(), scheme);
    }

    #[test]
    fn garbage_is_refused() {
        let long = format!("x:{}", "y".repeat(MAX_ADDRESS_LEN - 1));
        let scheme = format!("{}:1", "x".repeat(MAX_SCHEME_LEN + 1));
        for text in [
            "", ":", "sim", "sim:", ":1", "Sim:1", "1sim:1", "-s:1", "s m:1", "süm:1", "sim:\n",
            "sim:1\0", &long, &scheme,
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{text:?}");
        }
        // Otherwise an address of one network could be mistaken for one of another.
        assert!(Address::new("sim:a", 1).is_err());
        assert!(Address::new("", "sim:1").is_err());
    }

    #[test]
    fn an_address_of_another_network_names_those_that_there_are() {
        let address: Address = "sim:1".parse().unwrap();
        assert_eq!(address.rest_of(&["iroh", "sim"]).unwrap(), "1");
        assert_eq!(
            address
                .rest_of(&["iroh", "veilid"])
                .unwrap_err()
                .to_string(),
            "network.address: invalid: the address belongs to another network than this one \
             (address=sim:1, dials=iroh, veilid)"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_refused(text in ".{0,40}|[a-z]{0,3}:.{0,20}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.as_str(), &text);
                let again = Address::new(address.scheme(), address.rest());
                prop_assert_eq!(again.unwrap(), address);
            }
        }
    }
}

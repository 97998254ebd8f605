//! The text of an address.

use std::net::SocketAddr;

use iroh::{EndpointAddr, EndpointId, RelayUrl, TransportAddr};
use larder_net_api::{Address, MAX_ADDRESS_LEN};
use larder_store_api::{Error, Kind, Result};

/// The most socket addresses that an address has; of a node that has more, the others are left out.
pub const MAX_IPS: usize = 16;

/// The longest URL of a relay in an address, in bytes; a longer one is left out.
pub const MAX_RELAY_LEN: usize = 256;

/// The schemes of the addresses that the network dials; its own have the first.
pub(crate) const SCHEMES: [&str; 1] = ["iroh"];

const ID_LEN: usize = 64;

/// The longest rest of an address, in bytes.
const MAX_REST_LEN: usize = MAX_ADDRESS_LEN - SCHEMES[0].len() - 1;

/// The address of an endpoint, as far as it has room.
pub(crate) fn render(endpoint: &EndpointAddr) -> Option<Address> {
    let mut text = endpoint.id.to_string();
    let mut relays = endpoint.relay_urls().filter(|url| is_relay(url));
    // The relay goes last, and its room is kept for it.
    let relay = relays.next().map(|url| format!("relay={url}"));
    let kept = relay.as_ref().map_or(0, |relay| relay.len() + 1);
    let mut separator = '?';
    let ips = endpoint.ip_addrs().filter(|ip| is_usable(ip));
    for ip in ips.take(MAX_IPS) {
        let part = format!("{separator}ip={ip}");
        if text.len() + part.len() + kept > MAX_REST_LEN {
            break;
        }
        text.push_str(&part);
        separator = '&';
    }
    if let Some(relay) = relay {
        text.push(separator);
        text.push_str(&relay);
    }
    Address::new(SCHEMES[0], text).ok()
}

/// Reads an address. [`Kind::Invalid`] if it is malformed, or of another network.
pub(crate) fn parse(address: &Address) -> Result<EndpointAddr> {
    parse_rest(address.rest_of(&SCHEMES)?)
        .map_err(|why| Error::new(Kind::Invalid, "network.address", why).with("address", address))
}

fn parse_rest(text: &str) -> Result<EndpointAddr, &'static str> {
    let (id, mut rest) = match text.split_once('?') {
        Some((id, rest)) => (id, Some(rest)),
        None => (text, None),
    };
    let id: Option<EndpointId> = match id.len() {
        ID_LEN => id.parse().ok(),
        _ => None,
    };
    let mut endpoint = EndpointAddr::new(id.ok_or("its key is none")?);
    let mut ips = 0;
    while let Some(parts) = rest {
        // A URL may have any character in it, so that it is all that remains.
        if let Some(url) = parts.strip_prefix("relay=") {
            let relay: Option<RelayUrl> = url.parse().ok();
            let relay = relay.filter(is_relay).ok_or("its relay is none")?;
            endpoint.addrs.insert(TransportAddr::Relay(relay));
            break;
        }
        let (part, more) = match parts.split_once('&') {
            Some((part, more)) => (part, Some(more)),
            None => (parts, None),
        };
        let ip = part.strip_prefix("ip=").ok_or("it has an unknown part")?;
        let ip: Option<SocketAddr> = ip.parse().ok();
        let ip = ip.filter(is_usable).ok_or("its socket address is none")?;
        ips += 1;
        if ips > MAX_IPS {
            return Err("it has too many socket addresses");
        }
        endpoint.addrs.insert(TransportAddr::Ip(ip));
        rest = more;
    }
    Ok(endpoint)
}

fn is_usable(addr: &SocketAddr) -> bool {
    let ip = addr.ip();
    let is_broadcast = matches!(ip, std::net::IpAddr::V4(ip) if ip.is_broadcast());
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}

fn is_relay(url: &RelayUrl) -> bool {
    let known = ["https", "http"].contains(&url.scheme());
    known && url.has_host() && url.as_str().len() <= MAX_RELAY_LEN
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn id(seed: u8) -> EndpointId {
        SecretKey::from_bytes(&[seed; 32]).public()
    }

    fn node(id: EndpointId, ips: &[SocketAddr], relay: Option<&str>) -> EndpointAddr {
        let ips = ips.iter().copied().map(TransportAddr::Ip);
        let relay = relay.map(|url| TransportAddr::Relay(url.parse().unwrap()));
        EndpointAddr::from_parts(id, ips.chain(relay))
    }

    fn parse_text(text: &str) -> Result<EndpointAddr> {
        parse(&text.parse()?)
    }

    #[test]
    fn a_text_is_what_it_says() {
        let ips = [
            "127.0.0.1:1234".parse().unwrap(),
            "[::1]:9".parse().unwrap(),
        ];
        let all = node(id(1), &ips, Some("https://relay.example./?a=b&ip=c"));
        let hex = id(1).to_string();
        let text = format!(
            "iroh:{hex}?ip=127.0.0.1:1234&ip=[::1]:9&relay=https://relay.example./?a=b&ip=c"
        );
        assert_eq!(render(&all).unwrap().as_str(), text);
        assert_eq!(parse_text(&text).unwrap(), all);
        let bare = node(id(1), &[], None);
        assert_eq!(render(&bare).unwrap().as_str(), format!("iroh:{hex}"));
        let relayed = node(id(1), &[], Some("http://10.0.0.1:3340"));
        let text = format!("iroh:{hex}?relay=http://10.0.0.1:3340/");
        assert_eq!(render(&relayed).unwrap().as_str(), text);
    }

    #[test]
    fn garbage_is_refused() {
        let hex = id(1).to_string();
        assert!(parse_text(&format!("iroh:{hex}")).is_ok());
        let many = format!("iroh:{hex}?ip=1.1.1.1:1{}", "&ip=1.1.1.1:1".repeat(MAX_IPS));
        let long = format!("?relay=https://{}.example", "x".repeat(MAX_RELAY_LEN));
        let ends = [
            "?",
            "&",
            "?ip=",
            "?ip=1.2.3.4",
            "?ip=1.2.3.4:0",
            "?ip=0.0.0.0:1",
            "?ip=[ff02::1]:1",
            "?ip=255.255.255.255:1",
            "?ip=1.2.3.4:5&",
            "?ip=1.2.3.4:5&&ip=1.2.3.4:6",
            "?IP=1.2.3.4:5",
            "?relay=",
            "?relay=ftp://relay.example",
            "?relay=nothing",
            "?port=1",
            "0",
            &long,
        ];
        let garbage = ends.map(|end| format!("iroh:{hex}{end}"));
        let others = ["", "iroh:", "sim:1", "iroh:00", "IROH:", &hex, &many];
        for text in garbage.iter().map(String::as_str).chain(others) {
            assert!(parse_text(text).is_err(), "{text}");
        }
        let error = parse_text("sim:1").unwrap_err();
        assert_eq!(
            error.to_string(),
            "network.address: invalid: the address belongs to another network than this one \
             (address=sim:1, dials=iroh)"
        );
    }

    #[test]
    fn what_has_no_room_is_left_out() {
        let ips: Vec<SocketAddr> = (1..100)
            .map(|n| {
                format!("[2001:db8:1111:2222:3333:4444:5555:{n:x}]:54321")
                    .parse()
                    .unwrap()
            })
            .collect();
        let url = format!("https://{}.example/", ["x"; 30].join("."));
        let relay = Some(&*url).filter(|url| url.len() <= MAX_RELAY_LEN);
        let address = render(&node(id(2), &ips, relay)).unwrap();
        let parsed = parse(&address).unwrap();
        assert!((10..=MAX_IPS).contains(&parsed.ip_addrs().count()));
        assert_eq!(parsed.relay_urls().count(), 1);
        let long = format!("https://{}/", "x.".repeat(MAX_RELAY_LEN));
        let address = render(&node(id(2), &ips, Some(&long))).unwrap();
        assert_eq!(parse(&address).unwrap().relay_urls().count(), 0);
    }

    fn any_ip() -> impl Strategy<Value = SocketAddr> {
        any::<(std::net::IpAddr, u16)>()
            .prop_map(SocketAddr::from)
            .prop_filter("usable", is_usable)
    }

    proptest! {
        #[test]
        fn whatever_is_rendered_is_understood(
            seed: u8,
            ips in vec(any_ip(), 0..12),
            relay in proptest::option::of("https://[a-z]{1,20}\\.example/[a-z&=?]{0,20}"),
        ) {
            let all = node(id(seed), &ips, relay.as_deref());
            prop_assert_eq!(parse(&render(&all).unwrap()).unwrap(), all);
        }

        #[test]
        fn nothing_makes_the_parser_panic(text in ".{0,200}", bytes in vec(any::<u8>(), 0..200)) {
            parse_text(&text).ok();
            parse_text(&format!("iroh:{text}")).ok();
            parse_text(&format!("iroh:{}?{text}", id(3))).ok();
            parse_text(&format!("iroh:{}?ip={text}", id(3))).ok();
            parse_text(&format!("iroh:{}?relay={text}", id(3))).ok();
            parse_text(&String::from_utf8_lossy(&bytes)).ok();
        }

        #[test]
        fn a_text_that_is_understood_stays_so(
            parts in vec("ip=[0-9a-f.:\\[\\]]{1,20}|relay=[a-z:/.&]{1,20}|[&?=]", 0..4),
        ) {
            let text = format!("iroh:{}?{}", id(4), parts.join("&"));
            if let Ok(parsed) = parse_text(&text) {
                let again = render(&parsed).unwrap();
                prop_assert_eq!(parse(&again).unwrap(), parsed);
            }
        }
    }
}

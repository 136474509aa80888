//! Addresses as API objects write them.
//!
//! In: text of Services and EndpointSlices. Out: addresses and CIDRs. Objects older
//! than the API server's present rules may hold IPv4 octets with leading zeros (meant
//! as decimal) and IPv4 addresses in IPv6 clothes; both are read as what they mean.

use std::net::IpAddr;

use ipnet::IpNet;

/// The address, or nothing if it is none.
#[must_use]
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse()
        .or_else(|_| without_leading_zeros(text).parse())
        .ok()
        .map(|address: IpAddr| address.to_canonical())
}

/// The network that `address/length` is in. White space around it is let pass, as the
/// API server does.
#[must_use]
pub fn parse_net(text: &str) -> Option<IpNet> {
    let (address, length) = text.trim().split_once('/')?;
    let net = IpNet::new(parse_ip(address)?, length.parse().ok()?).ok()?;
    Some(net.trunc())
}

/// Why traffic for others cannot go to this address, if it is of a kind that means
/// something else on every machine: "a loopback address".
#[must_use]
pub fn special(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("the unspecified address")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if is_link_local(address) {
        Some("a link-local address")
    } else {
        None
    }
}

/// Whether the address means something else on every link.
#[must_use]
pub const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn without_leading_zeros(text: &str) -> String {
    let octet = |octet: &str| {
        let digits = octet.trim_start_matches('0');
        // An octet of nothing but zeros keeps one; an empty one stays wrong.
        match (octet.is_empty(), digits.is_empty()) {
            (false, true) => "0".to_owned(),
            _ => digits.to_owned(),
        }
    };
    text.split('.').map(octet).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, address) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.000.00.01", Some("10.0.0.1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("fd00::1", Some("fd00::1")),
            ("FD00:0::1", Some("fd00::1")),
            ("0.0.0.0", Some("0.0.0.0")),
            ("", None),
            (".", None),
            ("10.0.0", None),
            ("10.0..1", None),
            ("10.0.0.256", None),
            ("10.0.0.1:80", None),
            ("fe80::1%eth0", None),
            ("None", None),
        ] {
            let expected = address.map(|address| address.parse().unwrap());
            assert_eq!(parse_ip(text), expected, "{text}");
        }
    }

    #[test]
    fn networks() {
        for (text, net) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            (" 10.1.2.3/8\t", Some("10.0.0.0/8")),
            ("010.0.0.0/08", Some("10.0.0.0/8")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("fd00::1/64", Some("fd00::/64")),
            ("10.0.0.0", None),
            ("10.0.0.0/33", None),
            ("10.0.0.0/-1", None),
            ("/8", None),
        ] {
            let expected = net.map(|net| net.parse().unwrap());
            assert_eq!(parse_net(text), expected, "{text}");
        }
    }

    #[test]
    fn special_addresses() {
        for (address, why) in [
            ("0.0.0.0", Some("the unspecified address")),
            ("::", Some("the unspecified address")),
            ("127.0.0.53", Some("a loopback address")),
            ("::1", Some("a loopback address")),
            ("224.0.0.1", Some("a multicast address")),
            ("ff02::1", Some("a multicast address")),
            ("169.254.1.1", Some("a link-local address")),
            ("fe80::1", Some("a link-local address")),
            ("10.0.0.1", None),
            ("fd00::1", None),
            ("192.0.2.255", None),
        ] {
            assert_eq!(special(address.parse().unwrap()), why, "{address}");
        }
    }
}

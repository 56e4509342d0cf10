//! Which addresses on the internet are somebody else's, and which are ours or nobody's.
//!
//! A URL that a user gives us must not make this machine talk to itself, to its neighbours or to the
//! metadata service of its cloud. Sources: the IANA special-purpose registries for IPv4 and IPv6
//! (RFC 6890 and updates), and the metadata addresses that lie in public ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not fetched from, or none if it is a public one.
pub fn forbidden(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => forbidden_v4(v4),
        IpAddr::V6(v6) => forbidden_v6(v6),
    }
}

fn forbidden_v4(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address.octets() {
        [0, ..] => "unspecified",
        [10, ..] | [192, 168, ..] | [172, 16..=31, ..] => "private",
        [100, 64..=127, ..] => "shared (carrier) space",
        [127, ..] => "loopback",
        [169, 254, ..] => "link-local (metadata services live there)",
        [168, 63, 129, 16] => "a metadata service",
        [192, 0, 0, _] | [198, 18..=19, ..] | [192, 88, 99, _] => "reserved",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "for documentation",
        [224..=239, ..] => "multicast",
        [240..=255, ..] => "reserved",
        _ => return None,
    })
}

fn forbidden_v6(address: Ipv6Addr) -> Option<&'static str> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| {
        let [one, two] = high.to_be_bytes();
        let [three, four] = low.to_be_bytes();
        forbidden_v4(Ipv4Addr::new(one, two, three, four))
    };
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0) if g == 0 && h <= 1 => Some(if h == 1 { "loopback" } else { "unspecified" }),
        // IPv4 in its mapped form, its old compatible form, and behind NAT64 (RFC 6052).
        (0, 0, 0, 0, 0, 0xffff) | (0, 0, 0, 0, 0, 0) | (0x64, 0xff9b, 0, 0, 0, 0) => embedded(g, h),
        // 6to4 (RFC 3056) carries an IPv4 address; Teredo and the rest of 2001::/23 are protocols.
        (0x2002, high, low, ..) => embedded(high, low),
        (0x2001, 0..=0x1ff, ..) => Some("reserved"),
        (0x2001, 0xdb8, ..) | (0x3fff, 0..=0xfff, ..) => Some("for documentation"),
        (0x2000..=0x3fff, ..) => None,
        (0xfc00..=0xfdff, ..) => Some("private"),
        (0xfe80..=0xfebf, ..) => Some("link-local"),
        (0xfec0..=0xfeff, ..) => Some("private"),
        (0xff00..=0xffff, ..) => Some("multicast"),
        _ => Some("reserved"),
    }
}

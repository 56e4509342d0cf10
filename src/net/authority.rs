//! Host and port as they stand in a `Host` header, an `Origin`, a setting or a URL.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// A host: a name in lower case without its last dot, or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name.
    Name(String),
    /// An address in its usual notation; `127.1` and `0x7f000001` are names here, and no name has them.
    Address(IpAddr),
}

/// A host and perhaps a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, if one is written.
    pub port: Option<u16>,
}

impl Host {
    /// Parses a host without port; an IPv6 address may stand in brackets.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            return inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(|it| Self::Address(it.into()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Address(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (!name.is_empty() && name.len() <= 253 && name.bytes().all(allowed))
            .then(|| Self::Name(name.to_ascii_lowercase()))
    }

    /// `localhost` or an address of the loopback network.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => name == "localhost",
            Self::Address(address) => address.to_canonical().is_loopback(),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl Authority {
    /// Parses `host`, `host:port`, `[v6]` or `[v6]:port`; nothing else, and no user name.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Some(Self { host: Host::Address(address.into()), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && (!host.contains(':') || host.ends_with(']')) => {
                let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
                (host, Some(digits.then(|| port.parse().ok()).flatten()?))
            }
            _ => (text, None),
        };
        Some(Self { host: Host::parse(host)?, port })
    }

    /// Does an entry of a list of allowed hosts (`self`) cover this host and port? An entry without a port
    /// covers all.
    pub fn covers(&self, host: &Host, port: Option<u16>) -> bool {
        self.host == *host && self.port.is_none_or(|own| Some(own) == port)
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => write!(f, "{}", self.host),
        }
    }
}

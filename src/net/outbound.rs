//! Which hosts may be called because somebody asks for it: those that the operator has listed, and no others.
//!
//! | Entry | Covers | May lead to |
//! |---|---|---|
//! | `hooks.example.com`, `hooks.example.com:8443` | that host, at any or that port | public addresses |
//! | `*.example.com` | every host below, not `example.com` itself | public addresses |
//! | `localhost` | that host | loopback |
//! | `10.0.0.5`, `[fd00::1]:8080` | that address | itself |
//! | `10.0.0.0/8` | every address in it | itself |
//!
//! A name that resolves to an address that is not public ([`crate::address`]) is refused, unless the list also has
//! that address, or a network that it is in: whoever may name a host must not be able to choose what is reached by it.

use reqwest::Url;
use std::net::IpAddr;
use types::{ErrorKind, Fault};

use crate::{
    address::forbidden,
    authority::{Authority, Host},
};

/// Longest URL that is called, bytes.
pub const MOST_URL: usize = 2048;

/// The list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts {
    /// The setting that has it, for messages.
    setting: &'static str,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Host(Authority),
    /// All names that end with this, which begins with a dot.
    Below(String, Option<u16>),
    Network(Network),
}

impl AllowedHosts {
    /// Of a setting, whose name goes into messages.
    ///
    /// # Errors
    /// An entry is none; see [`check_entry`].
    pub fn new<T: AsRef<str>>(setting: &'static str, entries: &[T]) -> Result<Self, Fault> {
        let entries = entries.iter().map(|entry| {
            let entry = entry.as_ref().trim();
            Entry::parse(entry).ok_or_else(|| not_an_entry(entry))
        });
        Ok(Self { setting, entries: entries.collect::<Result<_, _>>()? })
    }

    /// A URL that may be called, as far as can be told without a name server.
    ///
    /// # Errors
    /// `OUTBOUND_URL_INVALID`: it is no URL, or one of a kind that is not called. `OUTBOUND_REFUSED`: its host is not
    /// listed.
    pub fn target(&self, url: &str) -> Result<Target, Fault> {
        if url.len() > MOST_URL {
            return Err(invalid(&format!("has {} bytes; {MOST_URL} are allowed", url.len())));
        }
        let url = Url::parse(url).map_err(|error| invalid(&format!("is not a URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid(&format!("has the scheme {}; use https or http", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("carries a user name or password, which are not sent"));
        }
        let host = url.host_str().and_then(Host::parse).ok_or_else(|| invalid("has no host"))?;
        let port = url.port_or_known_default();
        if self.entries.iter().any(|entry| entry.covers(&host, port)) {
            return Ok(Target { url });
        }
        let message = format!("{host} is not a host that may be called: add it to {} if it is meant", self.setting);
        Err(refused(message))
    }

    /// May a host that is listed lead to this address?
    ///
    /// # Errors
    /// `OUTBOUND_REFUSED`: the address is not public, and not listed.
    pub(crate) fn permit(&self, name: &str, address: IpAddr) -> Result<(), Fault> {
        let Some(kind) = forbidden(address) else { return Ok(()) };
        let address = address.to_canonical();
        let meant = self.entries.iter().any(|entry| match entry {
            Entry::Host(Authority { host: Host::Address(listed), port: None }) => listed.to_canonical() == address,
            Entry::Network(network) => network.contains(address),
            // What leads elsewhere on this machine is for the operator to name, too.
            Entry::Host(_) | Entry::Below(..) => false,
        });
        if meant || (name == "localhost" && address.is_loopback()) {
            return Ok(());
        }
        let setting = self.setting;
        Err(refused(format!(
            "{name} leads to {address}, which is not public ({kind}): add it to {setting} if it is meant"
        )))
    }
}

/// Where something may be sent to.
#[derive(Clone, Debug)]
pub struct Target {
    pub(crate) url: Url,
}

impl Target {
    /// Scheme, host and port: the rest may hold a secret and is not shown.
    pub fn site(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

/// Scheme, host and port of a URL, which says who has it; a text of its own for what is none.
pub fn site_of(url: &str) -> String {
    Url::parse(url).map_or_else(|_| "no URL".to_owned(), |url| url.origin().ascii_serialization())
}

/// Says what is wrong with an entry of a list of hosts that may be called.
///
/// # Errors
/// It is none of those above.
pub fn check_entry(entry: &str) -> Result<(), Fault> {
    Entry::parse(entry.trim()).map(drop).ok_or_else(|| not_an_entry(entry))
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        if let Some(network) = Network::parse(text) {
            return Some(Self::Network(network));
        }
        match text.strip_prefix("*.") {
            Some(rest) => match Authority::parse(rest)? {
                Authority { host: Host::Name(name), port } => Some(Self::Below(format!(".{name}"), port)),
                Authority { host: Host::Address(_), .. } => None,
            },
            None => Authority::parse(text).map(Self::Host),
        }
    }

    fn covers(&self, host: &Host, port: Option<u16>) -> bool {
        match (self, host) {
            (Self::Host(Authority { host: Host::Address(own), port: wanted }), Host::Address(address)) => {
                own.to_canonical() == address.to_canonical() && wanted.is_none_or(|wanted| Some(wanted) == port)
            }
            (Self::Host(listed), _) => listed.covers(host, port),
            (Self::Below(suffix, wanted), Host::Name(name)) => {
                let below = name.strip_suffix(suffix.as_str()).is_some_and(|rest| !rest.is_empty());
                below && wanted.is_none_or(|wanted| Some(wanted) == port)
            }
            (Self::Network(network), Host::Address(address)) => network.contains(*address),
            (Self::Below(..), Host::Address(_)) | (Self::Network(_), Host::Name(_)) => false,
        }
    }
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// `10.0.0.0/8`, `fd00::/8`.
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let (address, digits): (IpAddr, _) = (address.parse().ok()?, bits.bytes().all(|byte| byte.is_ascii_digit()));
        let bits: u32 = bits.parse().ok().filter(|_| digits)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(Self { address, bits })
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                differs.checked_shr(32 - self.bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                differs.checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

fn not_an_entry(entry: &str) -> Fault {
    Fault::invalid(format!(
        "{entry:?} is not a host: write host, host:port, *.example.com, an address, or a network such as 10.0.0.0/8"
    ))
}

fn invalid(detail: &str) -> Fault {
    Fault::new(ErrorKind::Invalid, "OUTBOUND_URL_INVALID", detail)
}

fn refused(message: String) -> Fault {
    Fault::new(ErrorKind::Denied, "OUTBOUND_REFUSED", message)
}

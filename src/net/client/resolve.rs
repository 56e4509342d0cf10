//! Names to addresses, every one of them checked.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};
use types::{ErrorKind, Fault};

/// Addresses that are taken of one answer.
const MOST_ADDRESSES: usize = 32;

/// Where addresses come from.
pub trait Lookup: Send + Sync + 'static {
    /// All addresses of a name.
    fn lookup(&self, name: String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;
}

/// The machine's own resolver.
pub(super) struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, name: String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.take(MOST_ADDRESSES).map(|address| address.ip()).collect())
        })
    }
}

/// May a name lead to an address?
pub(super) type Permit = Arc<dyn Fn(&str, IpAddr) -> Result<(), Fault> + Send + Sync>;

/// What the HTTP client asks. One forbidden address refuses the name: a public one beside a private one is
/// how rebinding begins.
pub(super) struct Resolver {
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) permit: Permit,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let (found, permit) = (self.lookup.lookup(name.clone()), self.permit.clone());
        Box::pin(async move {
            let unknown = |detail: &str| {
                let message = format!("the name {name} cannot be resolved: {detail}");
                Fault::new(ErrorKind::Unavailable, "FETCH_NAME_UNKNOWN", message)
            };
            let found = found.await.map_err(|error| unknown(&error.to_string()))?;
            if found.is_empty() {
                return Err(unknown("it has no address").into());
            }
            for address in &found {
                permit(&name, *address)?;
            }
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

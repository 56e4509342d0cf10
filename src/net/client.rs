//! Fetching what a user's URL names, without becoming the user's proxy into our own network.
//!
//! ```text
//!   url ─► scheme, host, port by the rules ─► names resolved once, every address checked ─► connect to those
//!    ▲                                                                                        │
//!    └────────────── 3xx, at most `max_redirects`, each checked anew, no token ◄──────────────┤
//!                                                          status, size, encoding ─► bytes ◄──┘
//! ```
//! The addresses that were checked are the ones connected to: there is no second resolution that could answer
//! otherwise. A proxy of the environment is not used, it would resolve for itself. A host of `allow_hosts` may
//! have any address; it is the operator who named it.

mod download;
mod post;
mod resolve;

pub use download::{Download, fault_of};
pub use post::Poster;
pub use resolve::Lookup;

use http::{StatusCode, header};
use reqwest::{Client, Response, Url, redirect::Policy};
use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};
use types::{ErrorKind, Fault};

use self::resolve::{Resolver, SystemLookup};
use crate::{
    address::forbidden,
    authority::{Authority, Host},
    token::Token,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What may be fetched.
#[derive(Clone, Debug)]
pub struct FetchRules {
    /// Is `http://` allowed beside `https://`?
    pub allow_http: bool,
    /// Hosts (`host` or `host:port`) that may have private addresses.
    pub allow_hosts: Vec<String>,
    /// Longest answer in bytes.
    pub max_bytes: u64,
    /// Within each such time of waiting, at least 1 KiB a second must come.
    pub idle: Duration,
    /// Longest time for everything.
    pub total: Duration,
    /// How many redirects are followed.
    pub max_redirects: u32,
}

impl Default for FetchRules {
    fn default() -> Self {
        Self {
            allow_http: false,
            allow_hosts: Vec::new(),
            max_bytes: 256 * 1024 * 1024,
            idle: Duration::from_secs(30),
            total: Duration::from_secs(600),
            max_redirects: 3,
        }
    }
}

/// Fetches by rules. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Fetcher {
    rules: Arc<FetchRules>,
    allowed: Arc<[Authority]>,
    lookup: Arc<dyn Lookup>,
    clients: Arc<Clients<Kind>>,
}

impl Fetcher {
    /// With rules.
    ///
    /// # Errors
    /// An entry of `allow_hosts` is not a host.
    pub fn new(rules: FetchRules) -> Result<Self, Fault> {
        Self::with_lookup(rules, Arc::new(SystemLookup))
    }

    pub(crate) fn with_lookup(rules: FetchRules, lookup: Arc<dyn Lookup>) -> Result<Self, Fault> {
        let mut allowed = Vec::with_capacity(rules.allow_hosts.len());
        for (index, entry) in rules.allow_hosts.iter().enumerate() {
            let detail = || format!("{entry:?} is not a host: write host or host:port, without a scheme");
            let host = Authority::parse(entry.trim())
                .ok_or_else(|| Fault::invalid_field(format!("allow_hosts[{index}]"), detail()))?;
            allowed.push(host);
        }
        Ok(Self { rules: Arc::new(rules), allowed: allowed.into(), lookup, clients: Arc::default() })
    }

    /// Begins to fetch; the bytes follow as they come. The bearer token goes to the host of `url` only, never
    /// to where it redirects.
    ///
    /// # Errors
    /// The rules forbid the URL or where it leads (`FETCH_…_REFUSED`, which names the rule and how to allow it),
    /// the server cannot be reached, does not have it, or it is too large.
    pub async fn get(&self, url: &str, bearer: Option<&Token>) -> Result<Download, Fault> {
        let end = Instant::now() + self.rules.total;
        let mut target = Url::parse(url).map_err(|error| invalid(url, &error.to_string()))?;
        let home = target.origin();
        for _ in 0..=self.rules.max_redirects {
            let token = bearer.filter(|_| target.origin() == home);
            let response = self.request(&target, token, end).await?;
            if !response.status().is_redirection() {
                return self.accept(response, &target, end);
            }
            target = next(&target, &response)?;
        }
        let message = format!("{} redirects more than {} times", shown(url), self.rules.max_redirects);
        Err(Fault::new(ErrorKind::Invalid, "FETCH_TOO_MANY_REDIRECTS", message))
    }

    async fn request(&self, target: &Url, token: Option<&Token>, end: Instant) -> Result<Response, Fault> {
        let exempt = self.check(target)?;
        let secure = target.scheme() == "https";
        let client = self.clients.get(Kind { exempt, secure }, || built(secure, self.resolver(exempt)))?;
        let mut request = client.get(target.clone()).header(header::ACCEPT, "*/*");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token.header());
        }
        let deadline = end.min(Instant::now() + self.rules.idle.max(CONNECT_TIMEOUT));
        match timeout_at(deadline, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(unreachable(target, &error)),
            Err(_) => {
                let message = format!("{} did not answer in time", site(target));
                Err(Fault::new(ErrorKind::Deadline, "FETCH_TIMEOUT", message))
            }
        }
    }

    /// Checks all of a URL that needs no name server. Tells whether its host is exempt from the address rule.
    fn check(&self, target: &Url) -> Result<bool, Fault> {
        match target.scheme() {
            "https" => {}
            "http" if self.rules.allow_http => {}
            "http" => {
                let message = format!("{} is not encrypted: use https://, or allow http", site(target));
                return Err(Fault::new(ErrorKind::Denied, "FETCH_HTTP_REFUSED", message));
            }
            other => return Err(invalid(target.as_str(), &format!("the scheme {other} is not fetched"))),
        }
        if !target.username().is_empty() || target.password().is_some() {
            return Err(invalid(target.as_str(), "it carries a user name or password, which are not sent"));
        }
        let host = target.host_str().and_then(Host::parse).ok_or_else(|| invalid(target.as_str(), "it has no host"))?;
        let port = target.port_or_known_default();
        if self.allowed.iter().any(|entry| entry.covers(&host, port)) {
            return Ok(true);
        }
        match host {
            Host::Address(address) => check_address(address, &site(target)).map(|()| false),
            Host::Name(name) if name == "localhost" || name.ends_with(".localhost") => {
                Err(refused(&site(target), "loopback"))
            }
            Host::Name(_) => Ok(false),
        }
    }

    fn resolver(&self, exempt: bool) -> Resolver {
        let permit = move |name: &str, address: IpAddr| if exempt { Ok(()) } else { check_address(address, name) };
        Resolver { lookup: self.lookup.clone(), permit: Arc::new(permit) }
    }

    fn accept(&self, response: Response, target: &Url, end: Instant) -> Result<Download, Fault> {
        if response.status() != StatusCode::OK {
            return Err(bad_status(target, response.status()));
        }
        if response.headers().get_all(header::CONTENT_ENCODING).iter().any(|value| value != "identity") {
            let message = format!("{} answers compressed although nobody asked it to", site(target));
            return Err(Fault::new(ErrorKind::Invalid, "FETCH_ENCODED", message));
        }
        let total = response.content_length();
        if total.is_some_and(|total| total > self.rules.max_bytes) {
            return Err(download::too_large(&site(target), self.rules.max_bytes));
        }
        Ok(Download::new(response, &self.rules, site(target), end))
    }
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// A client per kind of target, made when first needed: what `https` trusts is read from the machine, and a
/// machine without that can still fetch by `http`.
struct Clients<K> {
    made: Mutex<Vec<(K, Client)>>,
}

impl<K> Default for Clients<K> {
    fn default() -> Self {
        Self { made: Mutex::default() }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind {
    exempt: bool,
    secure: bool,
}

impl<K: PartialEq> Clients<K> {
    fn get(&self, kind: K, make: impl FnOnce() -> Result<Client, Fault>) -> Result<Client, Fault> {
        let mut made = self.made.lock().unwrap_or_else(|broken| broken.into_inner());
        if let Some((_, client)) = made.iter().find(|(its, _)| *its == kind) {
            return Ok(client.clone());
        }
        let client = make()?;
        made.push((kind, client.clone()));
        Ok(client)
    }
}

/// A client that goes only where its resolver lets it.
fn built(secure: bool, resolver: Resolver) -> Result<Client, Fault> {
    let mut builder = Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(4)
        .dns_resolver(Arc::new(resolver))
        .user_agent(concat!("spear/", env!("CARGO_PKG_VERSION")));
    if !secure {
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| {
        let message = format!("cannot prepare for https: {}", causes(&error));
        Fault::new(ErrorKind::Unavailable, "FETCH_TLS", message)
    })
}

fn next(from: &Url, response: &Response) -> Result<Url, Fault> {
    let bad = |detail: &str| {
        let message = format!("{} redirects {detail}", site(from));
        Fault::new(ErrorKind::Invalid, "FETCH_BAD_REDIRECT", message)
    };
    let location = response.headers().get(header::LOCATION).ok_or_else(|| bad("without saying where"))?;
    let location = location.to_str().map_err(|_| bad("to something that is not a URL"))?;
    from.join(location).map_err(|_| bad("to something that is not a URL"))
}

pub(crate) fn check_address(address: IpAddr, site: &str) -> Result<(), Fault> {
    forbidden(address).map_or(Ok(()), |reason| Err(refused(site, reason)))
}

fn refused(site: &str, reason: &str) -> Fault {
    let message = format!(
        "{site} has an address that is not fetched from: {reason}; add the host to the allowed hosts if it is meant"
    );
    Fault::new(ErrorKind::Denied, "FETCH_ADDRESS_REFUSED", message)
}

fn invalid(url: &str, detail: &str) -> Fault {
    Fault::new(ErrorKind::Invalid, "FETCH_URL_INVALID", format!("{} cannot be fetched: {detail}", shown(url)))
}

fn bad_status(target: &Url, status: StatusCode) -> Fault {
    let (kind, code) = match status.as_u16() {
        401 | 403 | 407 => (ErrorKind::Denied, "FETCH_DENIED"),
        404 | 410 => (ErrorKind::NotFound, "FETCH_NOT_FOUND"),
        429 => (ErrorKind::Exhausted, "FETCH_THROTTLED"),
        408 | 500..=599 => (ErrorKind::Unavailable, "FETCH_SERVER_FAILED"),
        _ => (ErrorKind::Invalid, "FETCH_BAD_STATUS"),
    };
    Fault::new(kind, code, format!("{} answers {status}", site(target)))
}

/// An error of the transport: ours, if the resolver refused, else what went wrong with the network.
fn unreachable(target: &Url, error: &reqwest::Error) -> Fault {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(one) = cause {
        if let Some(fault) = one.downcast_ref::<Fault>() {
            return fault.clone();
        }
        cause = one.source();
    }
    let message = format!("{} cannot be reached: {}", site(target), causes(error));
    Fault::new(ErrorKind::Unavailable, "FETCH_UNREACHABLE", message)
}

/// The innermost cause, which says what happened; the outer ones repeat the URL.
fn causes(error: &dyn std::error::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(inner) = last.source() {
        last = inner;
    }
    last.to_string()
}

/// Scheme, host and port: a path or query may hold a secret and is not shown.
fn site(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// A URL for a message: without query, and not without end.
fn shown(url: &str) -> String {
    let text: String = url.split(['?', '#']).next().unwrap_or_default().chars().take(200).collect();
    // What stands before an @ may be a password.
    match text.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, rest)) => format!("{scheme}://…@{rest}"),
            None => text,
        },
        None => text,
    }
}

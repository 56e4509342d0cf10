//! Who may come in through a listener. Asked before any route, for REST, gRPC and event streams alike.
//!
//! ```text
//!   request ─► Host allowed? ─► Origin ours? ─► health path? ─► token right? ─► routes
//!               421               403             (passes)        401 / 429
//! ```
//! - **Host** (loopback only) stops DNS rebinding: a page of `evil.example` that resolves to 127.0.0.1 still
//!   sends its own name.
//! - **Origin** stops a foreign page from acting with the reader's browser. A browser sends it with every
//!   request that changes something; where it is missing, `Sec-Fetch-Site` says the same. Other programs send
//!   neither. No answer ever carries a CORS header, so no foreign page can read anything either.
//! - **Token**: see [`Token`]. Ten wrong ones within a minute shut out their address for the rest of it.

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, RwLock},
    time::Duration,
};
use types::{ErrorKind, Fault};

use crate::{
    attempts::Attempts,
    authority::{Authority, Host},
    problem::Problem,
    token::Token,
};

/// Paths that answer without a token, so that probes work: they say nothing but alive and ready.
const HEALTH_PATHS: [&str; 5] = ["/health", "/livez", "/readyz", "/healthz", "/startupz"];
const HEALTH_SERVICE: &str = "/grpc.health.v1.Health/";

/// Who may come in through one listener. Cheap to clone; clones share their rules and their count of failed
/// attempts.
#[derive(Clone, Debug)]
pub struct Access {
    rules: Arc<RwLock<Arc<Rules>>>,
    attempts: Arc<Attempts>,
}

#[derive(Clone, Debug)]
struct Rules {
    rule: Rule,
    extra_hosts: Vec<Authority>,
}

#[derive(Clone, Debug)]
enum Rule {
    Loopback,
    Token(Token),
    Open,
}

/// What of a request decides about access.
pub(crate) struct Visit<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) peer: IpAddr,
    pub(crate) local: SocketAddr,
}

impl Access {
    /// Everybody on this machine, without a token. The request must name this machine as its host:
    /// `localhost`, a loopback address, the bound address or one of `extra_hosts` (`host` or `host:port`;
    /// see [`check_host`]), which are also allowed as origins.
    pub fn loopback<T: AsRef<str>>(extra_hosts: impl IntoIterator<Item = T>) -> Self {
        Self::of(Rule::Loopback).allow_hosts(extra_hosts)
    }

    /// Whoever presents the token. Health paths need none.
    pub fn token(token: Token) -> Self {
        Self::of(Rule::Token(token))
    }

    /// Everybody. `reason` says who wanted that and is logged.
    pub fn open(reason: &str) -> Self {
        tracing::warn!(reason, "requests are let in without a token");
        Self::of(Rule::Open)
    }

    /// More hosts, for a reverse proxy: allowed as `Host` and as `Origin`.
    pub fn allow_hosts<T: AsRef<str>>(self, hosts: impl IntoIterator<Item = T>) -> Self {
        let mut rules = Rules::clone(&self.rules());
        for host in hosts {
            match Authority::parse(host.as_ref().trim()) {
                Some(host) => rules.extra_hosts.push(host),
                None => tracing::warn!(host = host.as_ref(), "not a host, hence never allowed"),
            }
        }
        Self { rules: Arc::new(RwLock::new(Arc::new(rules))), attempts: self.attempts }
    }

    /// Takes over the rules of another, for this and all its clones: what comes in from now on is judged by them.
    pub fn replace(&self, with: &Self) {
        let rules = with.rules();
        *self.rules.write().unwrap_or_else(|broken| broken.into_inner()) = rules;
    }

    /// Is a token needed?
    pub fn needs_token(&self) -> bool {
        matches!(self.rules().rule, Rule::Token(_))
    }

    fn of(rule: Rule) -> Self {
        let rules = Rules { rule, extra_hosts: Vec::new() };
        Self { rules: Arc::new(RwLock::new(Arc::new(rules))), attempts: Arc::default() }
    }

    fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(|broken| broken.into_inner()).clone()
    }

    pub(crate) fn check(&self, visit: &Visit<'_>) -> Result<(), Problem> {
        let (rules, host) = (self.rules(), host(visit)?);
        if matches!(rules.rule, Rule::Loopback) {
            rules.check_loopback(visit, host.as_ref())?;
        }
        rules.check_origin(visit, host.as_ref())?;
        match &rules.rule {
            Rule::Token(token) if !is_health(visit.uri.path()) => self.check_token(visit, token),
            _ => Ok(()),
        }
    }

    fn check_token(&self, visit: &Visit<'_>, token: &Token) -> Result<(), Problem> {
        let mut given = visit.headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else {
            return Err(unauthenticated("this listener needs a token: Authorization: Bearer <token>", "Bearer"));
        };
        let wait = self.attempts.wait(visit.peer);
        // A proxy or an agent with an old token shares loopback with everybody; shutting the address out
        // as a whole would be a way to shut out its owner.
        if let Some(wait) = wait
            && !visit.peer.to_canonical().is_loopback()
        {
            return Err(too_many(wait));
        }
        if bearer(value).is_some_and(|given| token.matches(given)) {
            return Ok(());
        }
        if let Some(wait) = wait {
            return Err(too_many(wait));
        }
        self.attempts.count(visit.peer);
        Err(unauthenticated("the token is wrong", "Bearer error=\"invalid_token\""))
    }
}

impl Rules {
    fn check_loopback(&self, visit: &Visit<'_>, host: Option<&Authority>) -> Result<(), Problem> {
        if !visit.peer.to_canonical().is_loopback() {
            return Err(denied("LOOPBACK_ONLY", "without a token only this machine is let in"));
        }
        let allowed = host.is_some_and(|host| {
            host.host.is_loopback()
                || host.host == Host::Address(visit.local.ip())
                || self.extra_hosts.iter().any(|extra| extra.covers(&host.host, host.port))
        });
        if allowed {
            return Ok(());
        }
        let named = host.map_or_else(|| "no host".to_owned(), |host| format!("the host {host}"));
        let message = format!("the request names {named}: use localhost or 127.0.0.1, or add it to the allowed hosts");
        let fault = Fault::new(ErrorKind::Denied, "HOST_NOT_ALLOWED", message);
        Err(Problem::new(fault).status(StatusCode::MISDIRECTED_REQUEST))
    }

    fn check_origin(&self, visit: &Visit<'_>, host: Option<&Authority>) -> Result<(), Problem> {
        let mut origins = visit.headers.get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else { return check_fetch_site(visit) };
        let ours = origins.next().is_none()
            && origin.to_str().ok().and_then(Origin::parse).is_some_and(|origin| self.is_ours(visit, host, &origin));
        if ours {
            return Ok(());
        }
        Err(denied("ORIGIN_NOT_ALLOWED", "requests from pages of another origin are refused"))
    }

    fn is_ours(&self, visit: &Visit<'_>, host: Option<&Authority>, origin: &Origin) -> bool {
        let port = Some(origin.port);
        let same = host
            .is_some_and(|host| host.host == origin.host && host.port.unwrap_or(origin.default_port) == origin.port);
        // This very listener under another of its names. Other ports of this machine are other programs.
        let alias = visit.local.ip().to_canonical().is_loopback()
            && origin.host.is_loopback()
            && origin.port == visit.local.port();
        same || alias || self.extra_hosts.iter().any(|extra| extra.covers(&origin.host, port))
    }
}

/// Says what is wrong with an entry of a list of allowed hosts.
///
/// # Errors
/// It is neither `host` nor `host:port`.
pub fn check_host(entry: &str) -> Result<(), Fault> {
    match Authority::parse(entry.trim()) {
        Some(_) => Ok(()),
        None => Err(Fault::invalid(format!("{entry:?} is not a host: write host or host:port, without a scheme"))),
    }
}

/// Does a path answer without a token?
pub(crate) fn is_health(path: &str) -> bool {
    HEALTH_PATHS.contains(&path) || path.starts_with(HEALTH_SERVICE)
}

/// The host that a request names, in its target or its header; both, where both are there, must be one.
fn host(visit: &Visit<'_>) -> Result<Option<Authority>, Problem> {
    let malformed = || Problem::new(Fault::invalid("the request must name one host"));
    let mut headers = visit.headers.get_all(header::HOST).iter();
    let header = match (headers.next(), headers.next()) {
        (None, _) => None,
        (Some(value), None) if value.is_empty() => None,
        (Some(value), None) => Some(value.to_str().ok().and_then(Authority::parse).ok_or_else(malformed)?),
        (Some(_), Some(_)) => return Err(malformed()),
    };
    let target = match visit.uri.authority() {
        Some(authority) => Some(Authority::parse(authority.as_str()).ok_or_else(malformed)?),
        None => None,
    };
    match (target, header) {
        (Some(target), Some(header)) if target != header => Err(malformed()),
        (target, header) => Ok(target.or(header)),
    }
}

/// For requests without an origin: a browser still says whether a foreign page caused them. Following a link
/// to a page of ours is fine.
fn check_fetch_site(visit: &Visit<'_>) -> Result<(), Problem> {
    let is = |name: &str, wanted: &str| visit.headers.get(name).is_some_and(|value| value == wanted);
    let foreign = is("sec-fetch-site", "cross-site") || is("sec-fetch-site", "same-site");
    let link = matches!(*visit.method, Method::GET | Method::HEAD)
        && is("sec-fetch-mode", "navigate")
        && is("sec-fetch-dest", "document");
    if foreign && !link {
        return Err(denied("ORIGIN_NOT_ALLOWED", "requests from pages of another origin are refused"));
    }
    Ok(())
}

struct Origin {
    host: Host,
    port: u16,
    default_port: u16,
}

impl Origin {
    /// `http` and `https` only: `null`, `file://` and extensions are nobody's.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let authority = Authority::parse(authority)?;
        Some(Self { port: authority.port.unwrap_or(default_port), host: authority.host, default_port })
    }
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn denied(code: &'static str, message: &str) -> Problem {
    Problem::new(Fault::new(ErrorKind::Denied, code, message))
}

fn unauthenticated(message: &str, challenge: &'static str) -> Problem {
    let fault = Fault::new(ErrorKind::Unauthenticated, "UNAUTHENTICATED", message);
    Problem::new(fault).header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

fn too_many(wait: Duration) -> Problem {
    let message = "too many wrong tokens from this address: wait a minute";
    let fault = Fault::new(ErrorKind::Exhausted, "TOO_MANY_ATTEMPTS", message);
    Problem::new(fault).retry_after(wait + Duration::from_secs(1))
}

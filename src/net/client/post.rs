//! Posting what somebody asked to be told, to hosts that the operator has listed.
//!
//! The body goes to the very addresses that were checked; no redirect is followed, no proxy of the environment used,
//! no credential of ours sent. What the receiver answers beside its status is read and forgotten.

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use reqwest::Response;
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};
use types::{ErrorKind, Fault};

use super::{
    Clients, built,
    resolve::{Lookup, Resolver, SystemLookup},
    unreachable,
};
use crate::outbound::AllowedHosts;

/// Bytes of an answer that are read, so that its connection can be used again.
const MOST_ANSWER: usize = 64 << 10;

/// Posts by a list of hosts. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Poster {
    hosts: Arc<AllowedHosts>,
    lookup: Arc<dyn Lookup>,
    clients: Arc<Clients<bool>>,
}

impl Poster {
    /// To these hosts.
    pub fn new(hosts: AllowedHosts) -> Self {
        Self::with_lookup(hosts, Arc::new(SystemLookup))
    }

    /// The same with another source of addresses.
    pub fn with_lookup(hosts: AllowedHosts, lookup: Arc<dyn Lookup>) -> Self {
        Self { hosts: Arc::new(hosts), lookup, clients: Arc::default() }
    }

    /// The hosts.
    pub fn hosts(&self) -> &AllowedHosts {
        &self.hosts
    }

    /// Posts a body and answers with the status, whatever that is; within this time all is done.
    ///
    /// # Errors
    /// Those of [`AllowedHosts::target`]; the host cannot be reached, does not answer in time, or leads to an address
    /// that may not be called.
    pub async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        within: Duration,
    ) -> Result<StatusCode, Fault> {
        let end = Instant::now() + within;
        let target = self.hosts.target(url)?;
        let secure = target.url.scheme() == "https";
        let client = self.clients.get(secure, || built(secure, self.resolver()))?;
        let request = client.post(target.url.clone()).headers(headers).body(body);
        match timeout_at(end, request.send()).await {
            Ok(Ok(response)) => {
                let status = response.status();
                // Whether it ends, breaks off or takes too long: the answer is known.
                drop(timeout_at(end, forget(response)).await);
                Ok(status)
            }
            Ok(Err(error)) => Err(unreachable(&target.url, &error)),
            Err(_) => {
                let message = format!("{} did not answer within {} s", target.site(), within.as_secs_f32());
                Err(Fault::new(ErrorKind::Deadline, "OUTBOUND_TIMEOUT", message))
            }
        }
    }

    fn resolver(&self) -> Resolver {
        let hosts = self.hosts.clone();
        let permit = Arc::new(move |name: &str, address: IpAddr| hosts.permit(name, address));
        Resolver { lookup: self.lookup.clone(), permit }
    }
}

impl std::fmt::Debug for Poster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poster").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

async fn forget(response: Response) {
    let (mut bytes, mut read) = (response.bytes_stream(), 0usize);
    while let Some(Ok(chunk)) = bytes.next().await {
        read = read.saturating_add(chunk.len());
        if read > MOST_ANSWER {
            return;
        }
    }
}

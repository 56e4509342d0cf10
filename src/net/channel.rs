//! gRPC channels between parts of ours.

use std::time::Duration;
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, ClientTlsConfig, Endpoint},
};
use types::Fault;

use crate::credential::Credential;

/// A channel that connects when it is first used, reconnects by itself and presents the token. Cheap to
/// clone; clones share one connection.
pub type Channel = InterceptedService<tonic::transport::Channel, Bearer>;

/// How a channel behaves.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the answer to a call that sets no deadline of its own; none for streams.
    pub timeout: Option<Duration>,
    /// A silent connection is asked for a sign of life this often.
    pub keepalive_interval: Duration,
    /// And given up without one after this time.
    pub keepalive_timeout: Duration,
    /// For `https`: the certificate authority to trust, in PEM. No other is.
    pub authority_pem: Option<Vec<u8>>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            timeout: None,
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            authority_pem: None,
        }
    }
}

/// Adds the bearer token to every call, as it is at the time of the call.
#[derive(Clone, Debug)]
pub struct Bearer {
    credential: Credential,
}

impl Bearer {
    /// Of a token; none: nothing is added.
    pub fn new(credential: impl Into<Credential>) -> Self {
        Self { credential: credential.into() }
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = self.credential.get() {
            let text = format!("Bearer {}", token.expose());
            let mut value = MetadataValue::try_from(text).expect("a token is visible ASCII");
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

/// A channel to `host:port`, `http://host:port` or `https://host:port`. Does not connect yet; must be called
/// within a tokio runtime.
///
/// # Errors
/// The address is not one, or `https` lacks a certificate authority.
pub fn connect(addr: &str, credential: impl Into<Credential>, options: ConnectOptions) -> Result<Channel, Fault> {
    let invalid = |detail: &str| Fault::invalid(format!("{addr:?} is not the address of a gRPC server: {detail}"));
    let url = if addr.contains("://") { addr.to_owned() } else { format!("http://{addr}") };
    let uri: http::Uri = url.parse().map_err(|_| invalid("write host:port or http://host:port"))?;
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(invalid("nothing may follow the port"));
    }
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(invalid("the scheme must be http or https")),
    };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(invalid("it may not carry a user name"));
    }
    if uri.port_u16().is_none() {
        return Err(invalid("the port is missing"));
    }
    let mut endpoint = Endpoint::from(uri)
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true);
    if let Some(timeout) = options.timeout {
        endpoint = endpoint.timeout(timeout);
    }
    if secure {
        let authority = options.authority_pem.ok_or_else(|| invalid("https needs a certificate authority"))?;
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
        endpoint = endpoint.tls_config(tls).map_err(|error| invalid(&error.to_string()))?;
    }
    Ok(Channel::new(endpoint.connect_lazy(), Bearer::new(credential)))
}

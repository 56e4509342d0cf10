//! Listening sockets, bound before any other work of the process.

use std::{fmt, io, net::SocketAddr, sync::Arc};
use tokio::net::TcpListener;
use types::ErrorKind;

/// A socket that could not be bound, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {reason} (setting {setting})")]
pub struct BindError {
    /// Where.
    pub addr: SocketAddr,
    /// The setting that names the address.
    pub setting: String,
    reason: String,
    #[source]
    source: io::Error,
}

impl BindError {
    /// Kind of error.
    pub fn kind(&self) -> ErrorKind {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => ErrorKind::Conflict,
            io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            io::ErrorKind::AddrNotAvailable => ErrorKind::Invalid,
            _ => ErrorKind::Unavailable,
        }
    }
}

/// Binds sockets.
#[derive(Debug)]
pub struct Sockets;

impl Sockets {
    /// Listens on `addr`; port 0 takes a free one. `setting` is named in the error, for instance
    /// `http.addr, flag --http-addr`. Connections wait in the kernel until [`crate::serve()`] takes them.
    ///
    /// # Errors
    /// The port is in use, reserved, or the address is not one of this machine.
    pub async fn bind(name: &'static str, setting: &str, addr: SocketAddr) -> Result<Listener, BindError> {
        let failed = |source: io::Error| BindError {
            addr,
            setting: setting.to_owned(),
            reason: match source.kind() {
                io::ErrorKind::AddrInUse => "the port is in use".to_owned(),
                io::ErrorKind::PermissionDenied => format!("port {} needs privileges", addr.port()),
                io::ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
                _ => source.to_string(),
            },
            source,
        };
        let socket = TcpListener::bind(addr).await.map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        Ok(Listener { name, local, socket: Arc::new(socket) })
    }
}

/// A bound socket with a name.
pub struct Listener {
    name: &'static str,
    local: SocketAddr,
    pub(crate) socket: Arc<TcpListener>,
}

impl Listener {
    /// Where it listens; the true port, also when bound with port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Can only this machine reach it?
    pub fn is_loopback(&self) -> bool {
        self.local.ip().to_canonical().is_loopback()
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({} on {})", self.name, self.local)
    }
}

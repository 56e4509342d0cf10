//! The accept loop: takes connections within limits and hands each to a task of its own.
//!
//! ```text
//!   accept ─► listener full? wait (the kernel queues) ─► address full? close ─► connection task ─► front
//!   stopping ─► the port closes; idle connections close, HTTP/2 gets GOAWAY, requests in hand finish
//! ```
//! An `accept` that fails for want of file descriptors is tried again every 100 ms and logged once a second.

use axum::{Router, extract::DefaultBodyLimit};
use std::{
    collections::{HashMap, hash_map::Entry},
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use supervise::{Budget, OnError, Phase, Scope, Stop, TaskResult};
use telemetry::{Held, Metrics};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    access::Access,
    attempts::neighbourhood,
    connection::{self, Connections},
    figures::Figures,
    front::Front,
    listener::Listener,
};

/// The limits of one listener.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Longest wait for the first byte, for the end of a request's headers, and for the next request on a kept
    /// HTTP/1 connection.
    pub header_timeout: Duration,
    /// Longest pause within the body of a request, and the longest wait for it in all beyond a pace of 1024 bytes a
    /// second (gRPC streams excepted).
    pub body_idle: Duration,
    /// Longest time for which a peer may take no bytes of an answer.
    pub write_stall: Duration,
    /// Longest time until an answer begins, 504 after it; none: routes decide themselves.
    pub request_timeout: Option<Duration>,
    /// Connections at once; more wait in the kernel.
    pub connections: usize,
    /// Connections at once from one address (of IPv6: one /64); more are closed.
    pub connections_per_address: u32,
    /// Is loopback exempt from `connections_per_address`?
    pub loopback_exempt: bool,
    /// Longest head of a request in bytes, 431 over it; at least 8192.
    pub max_header_bytes: u32,
    /// HTTP/2 streams at once on one connection.
    pub max_streams: u32,
    /// An HTTP/2 connection is asked for a sign of life this often.
    pub keepalive_interval: Duration,
    /// And closed without one after this time.
    pub keepalive_timeout: Duration,
    /// Longest body in bytes where a route says nothing else with axum's `DefaultBodyLimit`, 413 over it.
    pub body_limit: usize,
    /// How long requests in hand may go on once the connections' scope stops.
    pub drain: Duration,
    /// The scope of the connections; none: that of the listener. A later phase lets long calls finish while
    /// nothing new comes in.
    pub connection_scope: Option<Scope>,
    /// Where the listener's figures go; none: nothing is measured.
    pub metrics: Option<Metrics>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            body_idle: Duration::from_secs(30),
            write_stall: Duration::from_secs(30),
            request_timeout: None,
            connections: 10_000,
            connections_per_address: 1024,
            loopback_exempt: true,
            max_header_bytes: 64 * 1024,
            max_streams: 256,
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            body_limit: 2 * 1024 * 1024,
            // A little less than its phase has, so that it ends by itself and is not abandoned.
            drain: Budget::default().share(Phase::Intake) * 9 / 10,
            connection_scope: None,
            metrics: None,
        }
    }
}

/// Serves HTTP/1 and HTTP/2 (REST, gRPC, event streams) on a listener until `stopping` or the scope stops.
/// Every request passes `access` before any route, and gets an id; every error is a problem (or, for gRPC, a
/// status). Returns at once: the work is done by tasks of `scope`.
pub fn serve(
    listener: Listener,
    router: Router,
    access: Access,
    options: ServeOptions,
    scope: &Scope,
    stopping: CancellationToken,
) {
    let local = listener.local_addr();
    let router = router.layer(DefaultBodyLimit::max(options.body_limit));
    let name = listener.name();
    let figures = options.metrics.as_ref().map(|metrics| Figures::new(metrics, name, options.request_timeout));
    let front = Front::new(router, access, local, &options, figures.clone());
    let connection_scope = options.connection_scope.as_ref().unwrap_or(scope).child("connection");
    let accepting = Arc::new(Accepting {
        name,
        figures,
        room: Arc::new(Semaphore::new(options.connections.clamp(1, Semaphore::MAX_PERMITS))),
        peers: Arc::new(Peers::new(&options)),
        connections: Arc::new(Connections::new(front, &options, connection_scope, stopping.clone())),
        socket: listener.socket,
    });
    tracing::debug!(listener = accepting.name, %local, "serving");
    scope.spawn(accepting.name, OnError::StopProcess, move |stop| run(accepting.clone(), stop, stopping.clone()));
}

struct Accepting {
    name: &'static str,
    figures: Option<Figures>,
    socket: Arc<TcpListener>,
    room: Arc<Semaphore>,
    peers: Arc<Peers>,
    connections: Arc<Connections>,
}

async fn run(accepting: Arc<Accepting>, stop: Stop, stopping: CancellationToken) -> TaskResult {
    tokio::select! {
        () = stop.cancelled() => {}
        () = stopping.cancelled() => {}
        () = accepting.accept_all() => {}
    }
    Ok(())
}

impl Accepting {
    async fn accept_all(&self) {
        let (mut failures, mut full) = (Throttled::default(), Throttled::default());
        loop {
            let room = self.room(&mut full).await;
            match self.socket.accept().await {
                Ok((stream, peer)) => self.take(stream, peer, room),
                // The peer's doing, and over.
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    self.not_taken("descriptors");
                    if let Some(times) = failures.due() {
                        tracing::error!(listener = self.name, %error, times, "cannot accept connections");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn room(&self, full: &mut Throttled) -> OwnedSemaphorePermit {
        if let Ok(room) = self.room.clone().try_acquire_owned() {
            return room;
        }
        if let Some(times) = full.due() {
            tracing::warn!(listener = self.name, times, "all connections are in use, new ones wait");
        }
        self.room.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    fn take(&self, stream: TcpStream, peer: SocketAddr, room: OwnedSemaphorePermit) {
        let Some(counted) = self.peers.enter(peer.ip()) else {
            self.not_taken("address");
            tracing::debug!(listener = self.name, %peer, "too many connections from one address");
            return;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "the connection is already gone");
            return;
        }
        let open = self.figures.as_ref().map(Figures::connected);
        connection::start(&self.connections, stream, peer, Admitted { _room: room, _counted: counted, _open: open });
    }

    fn not_taken(&self, reason: &str) {
        if let Some(figures) = &self.figures {
            figures.not_taken(reason);
        }
    }
}

/// A connection's place; given back when it ends.
pub(crate) struct Admitted {
    _room: OwnedSemaphorePermit,
    _counted: Counted,
    _open: Option<Held>,
}

fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Lets one in a second through and counts the others.
#[derive(Default)]
struct Throttled {
    last: Option<Instant>,
    times: u64,
}

impl Throttled {
    fn due(&mut self) -> Option<u64> {
        self.times += 1;
        let now = Instant::now();
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < Duration::from_secs(1)) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.times))
    }
}

/// Open connections per address. As large as there are connections, hence bounded.
pub(crate) struct Peers {
    open: Mutex<HashMap<IpAddr, u32>>,
    most: u32,
    loopback_exempt: bool,
}

/// One connection of an address.
pub(crate) struct Counted {
    peers: Option<(Arc<Peers>, IpAddr)>,
}

impl Peers {
    fn new(options: &ServeOptions) -> Self {
        Self { open: Mutex::default(), most: options.connections_per_address, loopback_exempt: options.loopback_exempt }
    }

    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Counted> {
        if self.loopback_exempt && address.to_canonical().is_loopback() {
            return Some(Counted { peers: None });
        }
        let key = neighbourhood(address);
        let mut open = self.lock();
        let count = open.entry(key).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Counted { peers: Some((self.clone(), key)) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.open.lock().unwrap_or_else(|broken| broken.into_inner())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some((peers, key)) = self.peers.take() else { return };
        if let Entry::Occupied(mut entry) = peers.lock().entry(key) {
            *entry.get_mut() = entry.get().saturating_sub(1);
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peers({} addresses)", self.lock().len())
    }
}

//! A TCP proxy that can freeze what goes through it: no byte and no end comes out any more, on either side.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// What is known of the connections that went through.
#[derive(Debug, Default)]
struct Counts {
    /// Connections taken.
    taken: AtomicUsize,
    /// Frozen connections that their target has closed.
    dropped: AtomicUsize,
}

/// A proxy for one target; ends with the test.
pub struct Proxy {
    pub address: SocketAddr,
    /// Connections of an older generation are frozen.
    generation: watch::Sender<usize>,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (generation, counts) = (watch::Sender::new(0), Arc::new(Counts::default()));
        let (frozen, counted) = (generation.clone(), counts.clone());
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let Ok(server) = TcpStream::connect(target).await else { continue };
                counted.taken.fetch_add(1, Ordering::SeqCst);
                let born = *frozen.borrow();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pass(from_client, to_server, (born, frozen.subscribe()), None));
                tokio::spawn(pass(from_server, to_client, (born, frozen.subscribe()), Some(counted.clone())));
            }
        });
        Self { address, generation, counts, accepting }
    }

    /// From now on, nothing passes on the connections there are; new ones work.
    pub fn freeze(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Connections taken so far.
    pub fn taken(&self) -> usize {
        self.counts.taken.load(Ordering::SeqCst)
    }

    /// Frozen connections that the target has closed.
    pub fn dropped(&self) -> usize {
        self.counts.dropped.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Passes bytes until one side ends or the connection freezes; then swallows them and keeps both sides open.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    (born, mut generation): (usize, watch::Receiver<usize>),
    counts: Option<Arc<Counts>>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let frozen = *generation.borrow() > born;
        let read = tokio::select! {
            changed = generation.changed() => {
                if changed.is_err() {
                    return;
                }
                continue;
            }
            read = from.read(&mut buffer) => read,
        };
        match read {
            Ok(length) if length > 0 => {
                if !frozen && to.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
            _ if frozen => {
                if let Some(counts) = &counts {
                    counts.dropped.fetch_add(1, Ordering::SeqCst);
                }
                // The other side never hears of it: its half stays open for as long as the proxy.
                drop(generation.wait_for(|_| false).await);
                return;
            }
            _ => return,
        }
    }
}

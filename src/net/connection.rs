//! One connection: HTTP/1 or HTTP/2, told apart by its first bytes, until it ends or is drained.

use axum::{body::Body, extract::Request};
use futures_util::FutureExt;
use hyper::rt::Executor;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use supervise::Scope;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::{
    front::Front,
    serve::{Admitted, ServeOptions},
    stream::Watched,
};

/// What the connections of a listener share.
pub(crate) struct Connections {
    front: Arc<Front>,
    builder: Builder<InScope>,
    scope: Scope,
    stopping: CancellationToken,
    greeting: Duration,
    write_stall: Duration,
    drain: Duration,
}

/// Runs the streams of HTTP/2 connections as tasks of a scope.
#[derive(Clone)]
struct InScope(Scope);

impl<F> Executor<F> for InScope
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        self.0.spawn_once("stream", future.map(|_| Ok(())));
    }
}

impl Connections {
    pub(crate) fn new(front: Front, options: &ServeOptions, scope: Scope, stopping: CancellationToken) -> Self {
        let mut builder = Builder::new(InScope(scope.clone()));
        let header_bytes = options.max_header_bytes.max(8192);
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_timeout)
            .max_buf_size(header_bytes as usize)
            .keep_alive(true);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(options.keepalive_interval)
            .keep_alive_timeout(options.keepalive_timeout)
            .max_concurrent_streams(options.max_streams)
            .max_header_list_size(header_bytes);
        Self {
            front: Arc::new(front),
            builder,
            scope,
            stopping,
            greeting: options.header_timeout,
            write_stall: options.write_stall,
            drain: options.drain,
        }
    }
}

/// Serves a connection in a task of its own.
pub(crate) fn start(connections: &Arc<Connections>, stream: TcpStream, peer: SocketAddr, admitted: Admitted) {
    let all = connections.clone();
    connections.scope.spawn_once("http", async move {
        run(&all, stream, peer, admitted).await;
        Ok(())
    });
}

async fn run(all: &Connections, stream: TcpStream, peer: SocketAddr, admitted: Admitted) {
    let io = TokioIo::new(Watched::new(stream, all.greeting, all.write_stall, admitted));
    let front = all.front.clone();
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let front = front.clone();
        // In a box, which goes as soon as the answer begins: an answer may be a stream that is open for days.
        Box::pin(async move { Ok::<_, Infallible>(front.answer(request.map(Body::new), peer).await) })
    });
    let connection = all.builder.serve_connection_with_upgrades(io, service);
    tokio::pin!(connection);
    let stop = all.scope.stop();
    tokio::select! {
        ended = connection.as_mut() => return log(peer, ended),
        () = all.stopping.cancelled() => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let cut = async {
        stop.cancelled().await;
        tokio::time::sleep(all.drain).await;
    };
    tokio::select! {
        ended = connection.as_mut() => log(peer, ended),
        () = cut => tracing::warn!(%peer, "a connection was cut: its requests did not end in time"),
    }
}

/// Peers that go away or talk nonsense are their own business.
fn log<E: std::fmt::Display>(peer: SocketAddr, ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

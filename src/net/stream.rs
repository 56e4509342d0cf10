//! A connection's bytes, watched: a peer that says nothing at first, or that does not take what it asked for,
//! is let go.
//!
//! The header timer of the HTTP library starts only once the version is known, so the first bytes need one of
//! their own: it runs until something other than the HTTP/2 preface has come, or all of the preface has.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream with a limit on the time until its first bytes and on the time for which writing may stall. Holds
/// `keep` as long as it lives, also after an upgrade.
pub(crate) struct Watched<S, K> {
    inner: S,
    greeting: Option<Pin<Box<Sleep>>>,
    seen: usize,
    stall_limit: Duration,
    stall: Option<Pin<Box<Sleep>>>,
    _keep: K,
}

impl<S, K> Watched<S, K> {
    pub(crate) fn new(inner: S, greeting: Duration, stall_limit: Duration, keep: K) -> Self {
        let greeting = Some(Box::pin(sleep(greeting)));
        Self { inner, greeting, seen: 0, stall_limit, stall: None, _keep: keep }
    }

    /// Notes what has come while the version is not known.
    fn greet(&mut self, new: &[u8]) {
        let expected = PREFACE.get(self.seen..).unwrap_or_default();
        let length = new.len().min(expected.len());
        self.seen += length;
        if new.get(..length) != expected.get(..length) || self.seen == PREFACE.len() {
            self.greeting = None;
        }
    }

    fn stalled<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stall = None;
            return result;
        }
        let limit = self.stall_limit;
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(limit)));
        match stall.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes no more bytes")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin, K: Unpin> AsyncRead for Watched<S, K> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        let Some(greeting) = &mut self.greeting else { return result };
        match result {
            Poll::Ready(Ok(())) => {
                let new = buf.filled().get(before..).unwrap_or_default();
                self.greet(new);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => match greeting.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer said nothing"))),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl<S: AsyncWrite + Unpin, K: Unpin> AsyncWrite for Watched<S, K> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.stalled(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.stalled(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.stalled(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

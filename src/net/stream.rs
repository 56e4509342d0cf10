//! A connection's bytes, watched: a peer that says nothing at first, or that does not take what it asked for,
//! is let go.
//!
//! A refusal may come while the request is still being sent. Closing then would reset the connection, and a reset
//! overtakes the answer: so writing is closed first, and what still comes is read and thrown away for a short while.
//!
//! The header timer of the HTTP library starts only once the version is known, so the first bytes need one of
//! their own: it runs until something other than the HTTP/2 preface has come, or all of the preface has.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a peer that goes on sending is listened to after the last answer.
const LINGER: Duration = Duration::from_secs(2);
/// The same for one that sends nothing; a slow network holds back what it has sent for about as long.
const LINGER_SILENT: Duration = Duration::from_millis(200);

/// The time after the last answer.
struct Closing {
    end: Pin<Box<Sleep>>,
    silent: Pin<Box<Sleep>>,
}

/// A stream with a limit on the time until its first bytes and on the time for which writing may stall. Holds
/// `keep` as long as it lives, also after an upgrade.
pub(crate) struct Watched<S, K> {
    inner: S,
    greeting: Option<Pin<Box<Sleep>>>,
    seen: usize,
    stall_limit: Duration,
    stall: Option<Pin<Box<Sleep>>>,
    closing: Option<Closing>,
    _keep: K,
}

impl<S, K> Watched<S, K> {
    pub(crate) fn new(inner: S, greeting: Duration, stall_limit: Duration, keep: K) -> Self {
        let greeting = Some(Box::pin(sleep(greeting)));
        Self { inner, greeting, seen: 0, stall_limit, stall: None, closing: None, _keep: keep }
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

impl<S: AsyncRead + AsyncWrite + Unpin, K: Unpin> AsyncWrite for Watched<S, K> {
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
        if self.closing.is_none() {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        }
        let Self { inner, closing, .. } = &mut *self;
        let fresh = || Closing { end: Box::pin(sleep(LINGER)), silent: Box::pin(sleep(LINGER_SILENT)) };
        let Closing { end, silent } = closing.get_or_insert_with(fresh);
        let mut thrown_away = [0; 8192];
        // The budget of the runtime ends this loop for a peer that never stops.
        loop {
            let mut buffer = ReadBuf::new(&mut thrown_away);
            match Pin::new(&mut *inner).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    silent.as_mut().reset(Instant::now() + LINGER_SILENT);
                }
                // It has closed, too, or is gone.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        match end.as_mut().poll(cx).is_ready() || silent.as_mut().poll(cx).is_ready() {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }
}

//! A request's body that has to keep coming: no long pauses, and no drip that would hold its place for ever.
//!
//! Only time spent waiting for the peer counts; a route that is slow to read is no fault of theirs.

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use std::{
    error::Error,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// The slowest pace, bytes a second.
const LEAST_PACE: u64 = 1024;

/// The peer sends too slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooSlow {
    /// A pause was too long.
    #[error("nothing came for {0:?}")]
    Pause(Duration),
    /// All pauses together were.
    #[error("it came at less than {LEAST_PACE} bytes a second")]
    Drip,
}

/// The rest of a body that nobody read to its end.
pub(crate) struct Rest<B>(Arc<Mutex<Option<B>>>);

impl<B: Body + Unpin> Rest<B> {
    /// Takes in what still comes, so that the peer gets to read the answer instead of a broken connection. Answers
    /// whether the end was reached: after so many bytes or so much time, it is not worth more.
    pub(crate) async fn drain(self, most: u64, patience: Duration) -> bool {
        let Some(mut body) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else { return true };
        let draining = async {
            let mut drained = 0;
            while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let Ok(frame) = frame else { return false };
                drained += frame.data_ref().map_or(0, |data| data.remaining() as u64);
                if drained > most {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(patience, draining).await.unwrap_or(false)
    }
}

/// A body with a longest pause, which is also what may be waited in all beyond a least pace.
pub(crate) struct Paced<B> {
    /// None once it has ended.
    body: Option<B>,
    rest: Arc<Mutex<Option<B>>>,
    pause: Duration,
    received: u64,
    waited: Duration,
    waiting: Option<Waiting>,
}

struct Waiting {
    since: Instant,
    limit: Pin<Box<Sleep>>,
    why: TooSlow,
}

impl<B> Paced<B> {
    /// Also hands over what is left of it when it is dropped.
    pub(crate) fn new(body: B, pause: Duration) -> (Self, Rest<B>) {
        let rest = Arc::new(Mutex::new(None));
        let left = Rest(rest.clone());
        (Self { body: Some(body), rest, pause, received: 0, waited: Duration::ZERO, waiting: None }, left)
    }

    fn wait(&self) -> Waiting {
        let since = Instant::now();
        let in_all = self.pause.saturating_add(Duration::from_secs(self.received / LEAST_PACE));
        let left = in_all.saturating_sub(self.waited);
        let (limit, why) =
            if left < self.pause { (left, TooSlow::Drip) } else { (self.pause, TooSlow::Pause(self.pause)) };
        Waiting { since, limit: Box::pin(sleep_until(since + limit)), why }
    }
}

impl<B> Drop for Paced<B> {
    fn drop(&mut self) {
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
    }
}

impl<B> Body for Paced<B>
where
    B: Body + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            if frame.is_none() {
                self.body = None;
            }
            if let Some(waiting) = self.waiting.take() {
                self.waited += waiting.since.elapsed();
            }
            if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref)) {
                self.received += data.map_or(0, |data| data.remaining() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let mut waiting = self.waiting.take().unwrap_or_else(|| self.wait());
        let over = waiting.limit.as_mut().poll(cx);
        let why = waiting.why;
        self.waiting = Some(waiting);
        over.map(|()| Some(Err(why.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use bytes::Bytes;
    use futures_util::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    const PAUSE: Duration = Duration::from_secs(30);

    /// So many pieces of so many bytes, with so much time before each; how it ended, and after how long.
    async fn received(pieces: usize, bytes: usize, before_each: Duration) -> (Result<usize, String>, Duration) {
        let pieces = stream::iter(0..pieces).then(move |_| async move {
            tokio::time::sleep(before_each).await;
            Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![0; bytes])))
        });
        let begun = Instant::now();
        let done = Paced::new(Box::pin(StreamBody::new(pieces)), PAUSE).0.collect().await;
        let length = done.map(|body| body.to_bytes().len()).map_err(|error| error.to_string());
        (length, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_cut_and_so_is_a_drip() {
        let (ended, after) = received(2, 10, Duration::from_secs(40)).await;
        assert_eq!((ended, after.as_secs()), (Err("nothing came for 30s".to_owned()), 30));
        let (ended, after) = received(1000, 1, Duration::from_secs(1)).await;
        assert_eq!(ended, Err("it came at less than 1024 bytes a second".to_owned()));
        assert!((30..32).contains(&after.as_secs()), "{after:?}");
        // Full speed first is credit for later, not for ever.
        let (ended, after) = received(100, 4096, Duration::from_secs(10)).await;
        assert!(ended.is_err() && (45..70).contains(&after.as_secs()), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_slowly_but_steadily_arrives() {
        let (ended, after) = received(120, 2048, Duration::from_secs(2)).await;
        assert_eq!((ended, after.as_secs()), (Ok(120 * 2048), 240));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_reads_does_not_count() {
        let pieces = stream::iter((0..5).map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"x")))));
        let (mut body, _) = Paced::new(StreamBody::new(pieces), PAUSE);
        for _ in 0..5 {
            tokio::time::sleep(PAUSE * 2).await;
            body.frame().await.unwrap().unwrap();
        }
        assert!(body.frame().await.is_none());
    }
}

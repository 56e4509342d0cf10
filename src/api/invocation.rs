//! One call shape for every runtime and every trigger.
//!
//! ```text
//!   trigger ── Invocation{head, body, deadline, …} ──► Invoker ──► runtime
//!           ◄── Outcome{head, body ······· end} ◄──────┘
//!                              bytes as they come │ how it ended, once the body is over
//! ```
//! A caller that sets `streaming` gets the outcome with the first bytes; any other gets it whole.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, future::BoxFuture, stream};
use std::{
    collections::BTreeMap,
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use types::{ExecutionId, ExecutionStatus, Reason, TaskId, Usage};

/// Exit code by which a command asks to be called again later (`EX_TEMPFAIL` of sysexits.h).
pub const EXIT_RETRY: i32 = 75;

/// Bytes into or out of a guest.
pub enum Body {
    /// One piece of memory.
    Full(Bytes),
    /// As they come; an error means that they broke off.
    Stream(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>),
}

impl Body {
    /// No bytes.
    pub const EMPTY: Self = Self::Full(Bytes::new());

    /// From a stream.
    pub fn stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self::Stream(stream.boxed())
    }

    /// All of it; more than `most` bytes are an error of kind `FileTooLarge`.
    ///
    /// # Errors
    /// It broke off, or is too long.
    pub async fn whole(self, most: usize) -> io::Result<Bytes> {
        let too_long = || io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {most} bytes"));
        let mut stream = match self {
            Self::Full(bytes) if bytes.len() <= most => return Ok(bytes),
            Self::Full(_) => return Err(too_long()),
            Self::Stream(stream) => stream,
        };
        let mut all = BytesMut::new();
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            if piece.len() > most - all.len() {
                return Err(too_long());
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(bytes: B) -> Self {
        Self::Full(bytes.into())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Stream(_) => f.write_str("a stream"),
        }
    }
}

impl Stream for Body {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready((!bytes.is_empty()).then(|| Ok(std::mem::take(bytes)))),
            Self::Stream(stream) => stream.as_mut().poll_next(context),
        }
    }
}

/// What comes with a body: of a request, a message, an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Method of a request; empty where there is none.
    pub method: String,
    /// What it is about: a path, a topic, a subject.
    pub subject: String,
    /// Headers in their order, repeated ones too; names in lower case.
    pub headers: Vec<(String, String)>,
    /// What the trigger adds.
    pub metadata: BTreeMap<String, String>,
}

/// A call of a function.
#[derive(Debug, Default)]
pub struct Invocation {
    /// The execution that it will be, for who must know it before the answer; none: a new one. No other may have it.
    pub execution: Option<ExecutionId>,
    /// What comes with the body.
    pub head: Head,
    /// Arguments of a command, after those that the function itself has.
    pub args: Vec<String>,
    /// Variables beside those that the function itself has; nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// Standard input of a command.
    pub body: Body,
    /// Wall-clock time the guest may take, host calls included; none: as the function's own limit says, which also
    /// bounds a longer one.
    pub deadline: Option<Duration>,
    /// Cancelled when the caller no longer wants the answer.
    pub cancel: CancellationToken,
    /// W3C trace context of the caller.
    pub traceparent: Option<String>,
    /// Hand out the body as it comes, not when the guest has ended.
    pub streaming: bool,
    /// Make a new instance for it, even where one waits.
    pub fresh: bool,
}

impl Invocation {
    /// With a body.
    pub fn new(body: impl Into<Body>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }
}

/// What comes with the body of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyHead {
    /// Status of a response, where the guest speaks HTTP.
    pub status: Option<u16>,
    /// Headers in their order, repeated ones too.
    pub headers: Vec<(String, String)>,
}

/// What the caller is to make of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disposition {
    /// Done.
    #[default]
    Ok,
    /// Not now: call again later.
    Retry,
    /// Calling again would end the same.
    Reject,
}

impl Disposition {
    /// That of a command: 0, 75, and all others.
    pub fn of_exit(code: i32) -> Self {
        match code {
            0 => Self::Ok,
            EXIT_RETRY => Self::Retry,
            _ => Self::Reject,
        }
    }

    /// As a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Retry => "retry",
            Self::Reject => "reject",
        }
    }
}

/// How a guest ended that ended by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// What it says to its caller.
    pub disposition: Disposition,
    /// Its exit code; 0 where there is no such thing.
    pub exit_code: i32,
    /// What it used.
    pub usage: Usage,
}

/// Why a guest did not end by itself, or could not begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvokeError {
    /// The wall it ran into, or whose fault it is.
    pub reason: Reason,
    /// In a sentence: what happened and, where there is one, the limit.
    pub message: String,
    /// What it had used.
    pub usage: Usage,
    /// When it is worth trying again, if that is known.
    pub retry_after: Option<Duration>,
}

impl InvokeError {
    /// An error before anything was used.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), usage: Usage::default(), retry_after: None }
    }

    /// The status of an execution that ended so.
    pub fn status(&self) -> ExecutionStatus {
        match self.reason {
            Reason::Deadline => ExecutionStatus::Timeout,
            Reason::Cancelled => ExecutionStatus::Cancelled,
            _ => ExecutionStatus::Failed,
        }
    }

    /// Is it worth calling again?
    pub fn disposition(&self) -> Disposition {
        match self.reason {
            Reason::Queue | Reason::NodeLost | Reason::NoNode | Reason::Internal => Disposition::Retry,
            _ => Disposition::Reject,
        }
    }
}

/// How a call ended, which is known when its body is over.
pub enum End {
    /// It is.
    Now(Ended),
    /// Once the guest has ended; who drops it does not stop the guest.
    Later(BoxFuture<'static, Result<Ended, InvokeError>>),
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(ended) => ended.fmt(f),
            Self::Later(_) => f.write_str("not yet"),
        }
    }
}

/// The answer to an invocation.
#[derive(Debug)]
pub struct Outcome {
    /// The execution that it was.
    pub execution: ExecutionId,
    /// What comes with the body.
    pub head: ReplyHead,
    /// Standard output of a command.
    pub body: Body,
    /// How it ended.
    pub end: End,
}

impl Outcome {
    /// All of it, in memory.
    ///
    /// # Errors
    /// How the guest was ended; [`Reason::Output`] over `most` bytes.
    pub async fn whole(self, most: usize) -> Result<(ReplyHead, Bytes, Ended), InvokeError> {
        let body = self.body.whole(most).await;
        let ended = match self.end {
            End::Now(ended) => ended,
            // It knows better than its broken body why that broke.
            End::Later(later) => later.await?,
        };
        let body = body.map_err(|error| InvokeError::new(Reason::Output, format!("the answer is {error}")))?;
        Ok((self.head, body, ended))
    }
}

/// Calls functions: the one way that every trigger and every interface goes.
#[async_trait]
pub trait Invoker: Send + Sync + 'static {
    /// Calls a function and answers within its deadline and the time it may wait in a queue.
    ///
    /// # Errors
    /// [`Reason::Queue`] with `retry_after` when it is busy; [`Reason::Task`] when there is no such function; else how
    /// the guest was ended.
    async fn invoke(&self, function: TaskId, call: Invocation) -> Result<Outcome, InvokeError>;
}

/// A stream of nothing that never ends: a body that a test leaves open.
pub fn pending() -> Body {
    Body::stream(stream::pending())
}

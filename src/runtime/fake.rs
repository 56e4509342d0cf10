//! A runtime without an engine: for tests of everything around it, and to load a registry.
//!
//! The artifact's text is the program: `echo`, `sleep <ms>`, `fail <code>`, `flood <bytes>`, `trap`, `args`.

use async_trait::async_trait;
use bytes::BytesMut;
use futures_util::StreamExt;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use types::{LogStream, Reason};

use api::{Invocation, Outcome, Usage};

use crate::{Artifact, Fingerprint, Instance, InstanceSpec, InvokeError, Limits, LogSink, Prepared, Runtime};

/// The fake runtime; registers under the kind it is given, `wasm` in most tests.
#[derive(Clone, Debug)]
pub struct Fake {
    kind: &'static str,
}

impl Fake {
    /// A fake of a kind.
    pub fn new(kind: &'static str) -> Self {
        Self { kind }
    }
}

struct FakeInstance {
    program: String,
    limits: Limits,
    logs: LogSink,
}

#[async_trait]
impl Runtime for Fake {
    fn kind(&self) -> &'static str {
        self.kind
    }

    async fn fingerprint(&self) -> Fingerprint {
        Fingerprint { available: true, version: "fake".to_owned(), details: BTreeMap::new() }
    }

    async fn prepare(&self, artifact: &Artifact, _limits: &Limits) -> Result<Prepared, InvokeError> {
        let program = tokio::fs::read_to_string(&artifact.path)
            .await
            .map_err(|error| InvokeError::new(Reason::InvalidModule, format!("not a fake program: {error}")))?;
        Ok(Prepared { artifact: artifact.clone(), inner: Arc::new(program) })
    }

    async fn start(
        &self,
        prepared: &Prepared,
        spec: &InstanceSpec,
        logs: LogSink,
    ) -> Result<Box<dyn Instance>, InvokeError> {
        let program = prepared
            .inner
            .downcast_ref::<String>()
            .ok_or_else(|| InvokeError::new(Reason::Internal, "prepared by another runtime"))?;
        Ok(Box::new(FakeInstance { program: program.clone(), limits: spec.limits.clone(), logs }))
    }
}

impl FakeInstance {
    async fn act(&self, call: &mut Invocation) -> Result<Outcome, InvokeError> {
        let (word, number) = match self.program.trim().split_once(' ') {
            Some((word, number)) => (word, number.trim().parse::<u64>().unwrap_or(0)),
            None => (self.program.trim(), 0),
        };
        let done = |result: Vec<u8>| Ok(Outcome { exit_code: 0, result: result.into(), usage: Usage::default() });
        match word {
            "echo" => {
                let mut all = BytesMut::new();
                while let Some(piece) = call.body.next().await {
                    let piece = piece.map_err(|error| InvokeError::new(Reason::Internal, error.to_string()))?;
                    all.extend_from_slice(&piece);
                }
                self.logs.write(LogStream::Stdout, &all);
                done(all.to_vec())
            }
            "args" => done(call.args.join(" ").into_bytes()),
            "sleep" => {
                tokio::time::sleep(Duration::from_millis(number)).await;
                done(b"slept".to_vec())
            }
            "fail" => Ok(Outcome { exit_code: i32::try_from(number).unwrap_or(1), ..Outcome::default() }),
            "trap" => Err(InvokeError::new(Reason::Trap, "trap: unreachable")),
            "flood" => {
                let most = self.limits.stdout_bytes;
                let size = usize::try_from(number).unwrap_or(usize::MAX);
                self.logs.write(LogStream::Stdout, &vec![b'x'; size.min(most)]);
                if size > most {
                    let message = format!("standard output is over its limit of {most} bytes");
                    return Err(InvokeError::new(Reason::Output, message));
                }
                done(vec![b'x'; size])
            }
            other => Err(InvokeError::new(Reason::InvalidModule, format!("unknown fake program {other:?}"))),
        }
    }
}

#[async_trait]
impl Instance for FakeInstance {
    async fn invoke(&mut self, mut call: Invocation) -> Result<Outcome, InvokeError> {
        let (deadline, cancel) = (call.deadline, call.cancel.clone());
        tokio::select! {
            done = self.act(&mut call) => done,
            () = tokio::time::sleep(deadline) => {
                Err(InvokeError::new(Reason::Deadline, format!("still running at its deadline of {deadline:?}")))
            }
            () = cancel.cancelled() => Err(InvokeError::new(Reason::Cancelled, "cancelled")),
        }
    }

    async fn stop(self: Box<Self>, _grace: Duration) {}
}

//! A runtime without an engine: for tests of everything around it, and to load a registry.
//!
//! The artifact's text is the program: `echo`, `sleep <ms>`, `fail <code>`, `flood <bytes>`, `trap`, `args`, `count` (its
//! calls so far), `memory` (asks for too much).

use async_trait::async_trait;
use bytes::BytesMut;
use futures_util::StreamExt;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use types::{LogStream, Reason, Usage};

use api::{Disposition, Ended, Invocation};

use crate::{
    Answer, Artifact, Fingerprint, Instance, InstanceSpec, InvokeError, Limits, Piece, Preparation, Prepared, Runtime,
    Streams,
};

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
    spec: Arc<InstanceSpec>,
    calls: u64,
    reusable: bool,
}

#[async_trait]
impl Runtime for Fake {
    fn kind(&self) -> &'static str {
        self.kind
    }

    async fn fingerprint(&self) -> Fingerprint {
        Fingerprint { available: true, version: "fake".to_owned(), details: BTreeMap::new() }
    }

    async fn prepare(&self, artifact: &Artifact, _asked: &Preparation) -> Result<Prepared, InvokeError> {
        let program = tokio::fs::read_to_string(&artifact.path)
            .await
            .map_err(|error| InvokeError::new(Reason::InvalidModule, format!("not a fake program: {error}")))?;
        Ok(Prepared { artifact: artifact.clone(), inner: Arc::new(program) })
    }

    async fn start(&self, prepared: &Prepared, spec: &Arc<InstanceSpec>) -> Result<Box<dyn Instance>, InvokeError> {
        let program = prepared
            .inner
            .downcast_ref::<String>()
            .ok_or_else(|| InvokeError::new(Reason::Internal, "prepared by another runtime"))?;
        Ok(Box::new(FakeInstance { program: program.clone(), spec: spec.clone(), calls: 0, reusable: true }))
    }
}

/// One call.
struct Act<'a> {
    limits: &'a Limits,
    streams: &'a Streams,
    result: BytesMut,
    written: usize,
}

impl Act<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), InvokeError> {
        let most = self.limits.stdout_bytes;
        let kept = bytes.get(..most.saturating_sub(self.written)).unwrap_or(bytes);
        self.written += kept.len();
        if self.streams.logs_stdout {
            self.streams.logs.write(LogStream::Stdout, kept);
        }
        match &self.streams.reply {
            Some(reply) => {
                let piece = Piece::Bytes(bytes::Bytes::copy_from_slice(kept));
                let gone = |_| InvokeError::new(Reason::Cancelled, "nobody reads the answer any more");
                reply.send(piece).await.map_err(gone)?;
            }
            None => self.result.extend_from_slice(kept),
        }
        if kept.len() < bytes.len() {
            let message = format!("standard output is over its limit of {most} bytes");
            return Err(InvokeError::new(Reason::Output, message));
        }
        Ok(())
    }

    async fn run(
        &mut self,
        program: &str,
        calls: u64,
        args: Vec<String>,
        call: &mut Invocation,
    ) -> Result<i32, InvokeError> {
        let (word, number) = match program.trim().split_once(' ') {
            Some((word, number)) => (word, number.trim().parse::<u64>().unwrap_or(0)),
            None => (program.trim(), 0),
        };
        match word {
            "echo" => {
                while let Some(piece) = call.body.next().await {
                    let broken = |error: std::io::Error| InvokeError::new(Reason::Cancelled, error.to_string());
                    self.write(&piece.map_err(broken)?).await?;
                }
            }
            "args" => self.write(args.join(" ").as_bytes()).await?,
            "count" => self.write(calls.to_string().as_bytes()).await?,
            "sleep" => {
                tokio::time::sleep(Duration::from_millis(number)).await;
                self.write(b"slept").await?;
            }
            "fail" => return Ok(i32::try_from(number).unwrap_or(1)),
            "trap" => return Err(InvokeError::new(Reason::Trap, "trap: unreachable")),
            "memory" => return Err(InvokeError::new(Reason::Memory, "it asked for more memory than its limit")),
            "flood" => {
                let size =
                    usize::try_from(number).unwrap_or(usize::MAX).min(self.limits.stdout_bytes.saturating_add(1));
                self.write(&vec![b'x'; size]).await?;
            }
            other => {
                return Err(InvokeError::new(Reason::InvalidModule, format!("unknown fake program {other:?}")));
            }
        }
        Ok(0)
    }
}

#[async_trait]
impl Instance for FakeInstance {
    async fn invoke(&mut self, mut call: Invocation, streams: Streams) -> Result<Answer, InvokeError> {
        let deadline = call.deadline.unwrap_or(self.spec.limits.wall).min(self.spec.limits.wall);
        let cancel = call.cancel.clone();
        self.calls += 1;
        self.reusable = false;
        let args: Vec<String> = self.spec.args.iter().chain(&call.args).cloned().collect();
        let mut act = Act { limits: &self.spec.limits, streams: &streams, result: BytesMut::new(), written: 0 };
        let exit_code = tokio::select! {
            done = act.run(&self.program, self.calls, args, &mut call) => done?,
            () = tokio::time::sleep(deadline) => {
                let message = format!("still running at its deadline of {deadline:?}");
                return Err(InvokeError::new(Reason::Deadline, message));
            }
            () = cancel.cancelled() => return Err(InvokeError::new(Reason::Cancelled, "cancelled")),
        };
        self.reusable = true;
        let usage = Usage { bytes_out: act.written as u64, ..Usage::default() };
        let ended = Ended { disposition: Disposition::of_exit(exit_code), exit_code, usage };
        Ok(Answer { result: act.result.freeze(), ended, ..Answer::default() })
    }

    fn reusable(&self) -> bool {
        self.reusable
    }

    fn memory_bytes(&self) -> u64 {
        0
    }

    async fn stop(self: Box<Self>, _grace: Duration) {}
}

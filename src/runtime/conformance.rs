//! What every runtime must do, as a suite that each one runs.
//!
//! A runtime says by [`Programs`] which of its artifacts behaves how; the suite calls them and looks.

use futures_util::stream;
use std::{path::Path, sync::Arc, time::Duration};
use types::{ExecutionId, Reason, SystemClock};

use api::{Body, Disposition, Invocation};

use crate::{
    Answer, Artifact, InstanceSpec, InvokeError, Limits, LogBuffer, Piece, Pool, PoolSettings, Preparation, Prepared,
    Runtime, Streams, reply,
};

/// Artifacts that behave in known ways.
pub trait Programs: Send + Sync {
    /// Copies its standard input to its standard output, and ends when that ends.
    fn echo(&self) -> Vec<u8>;
    /// Ends with that exit code.
    fn fail(&self, code: u8) -> Vec<u8>;
    /// Traps, or whatever the nearest thing is.
    fn trap(&self) -> Vec<u8>;
    /// Never end by themselves, each in another place: in a loop, in a call of the host, asleep, before it begins…
    fn endless(&self) -> Vec<(&'static str, Vec<u8>)>;
    /// Writes more to standard output than [`LIMIT_STDOUT`].
    fn flood(&self) -> Vec<u8>;
    /// Takes more memory than [`LIMIT_MEMORY`] and fails for the lack of it.
    fn hungry(&self) -> Vec<u8>;
    /// Calls itself without end.
    fn deep(&self) -> Vec<u8>;
    /// Is nothing the runtime can run.
    fn garbage(&self) -> Vec<u8>;
}

/// The limit of standard output that the suite sets.
pub const LIMIT_STDOUT: usize = 64 * 1024;
/// The limit of memory that the suite sets.
pub const LIMIT_MEMORY: u64 = 64 << 20;

/// A runtime under test, with a directory for artifacts.
pub struct Bench<'a> {
    runtime: Arc<dyn Runtime>,
    dir: &'a Path,
}

impl<'a> Bench<'a> {
    /// Of a runtime.
    pub fn new(runtime: Arc<dyn Runtime>, dir: &'a Path) -> Self {
        Self { runtime, dir }
    }

    /// Makes a program ready.
    ///
    /// # Errors
    /// The runtime's.
    pub async fn prepare(&self, name: &str, program: &[u8]) -> Result<Prepared, InvokeError> {
        let path = self.dir.join(name);
        std::fs::write(&path, program).expect("the suite can write its directory");
        let artifact = Artifact { digest: format!("suite-{name}"), path, size: program.len() as u64 };
        self.runtime.prepare(&artifact, &Preparation::from(&limits())).await
    }

    /// Calls a program once, in an instance of its own.
    ///
    /// # Errors
    /// How it was ended.
    pub async fn call(&self, name: &str, program: &[u8], call: Invocation) -> Result<Answer, InvokeError> {
        let prepared = self.prepare(name, program).await?;
        let spec = Arc::new(InstanceSpec { name: name.to_owned(), limits: limits(), ..InstanceSpec::default() });
        let mut instance = self.runtime.start(&prepared, &spec).await?;
        let answer = instance.invoke(call, streams()).await;
        instance.stop(Duration::from_secs(1)).await;
        answer
    }
}

fn limits() -> Limits {
    Limits { stdout_bytes: LIMIT_STDOUT, memory_bytes: LIMIT_MEMORY, ..Limits::default() }
}

fn streams() -> Streams {
    Streams::logged(LogBuffer::new(Arc::new(SystemClock::new()), LIMIT_STDOUT, 1).0)
}

fn short() -> Invocation {
    Invocation { deadline: Some(Duration::from_millis(200)), ..Invocation::default() }
}

/// Runs the whole suite; panics where the runtime does not conform.
///
/// # Panics
/// That is its purpose.
pub async fn run(runtime: Arc<dyn Runtime>, programs: &dyn Programs, dir: &Path) {
    let bench = Bench::new(runtime, dir);
    answers(&bench, programs).await;
    streams_both_ways(&bench, programs).await;
    walls(&bench, programs).await;
    kills(&bench, programs).await;
    side_by_side(&bench, programs).await;
    pooled(&bench, programs).await;
}

async fn answers(bench: &Bench<'_>, programs: &dyn Programs) {
    let echoed = bench.call("echo", &programs.echo(), Invocation::new("hello")).await.expect("echo ends");
    assert_eq!((&*echoed.result, echoed.ended.exit_code), (&b"hello"[..], 0), "echo returns its input");
    assert_eq!(echoed.ended.disposition, Disposition::Ok);
    for (code, disposition) in [(7, Disposition::Reject), (75, Disposition::Retry)] {
        let failed = bench.call(&format!("fail-{code}"), &programs.fail(code), Invocation::default()).await;
        let ended = failed.expect("a failing guest ends by itself").ended;
        assert_eq!((ended.exit_code, ended.disposition), (i32::from(code), disposition));
    }
    let garbage = bench.call("garbage", &programs.garbage(), Invocation::default()).await;
    assert_eq!(garbage.expect_err("garbage is refused").reason, Reason::InvalidModule);
}

async fn streams_both_ways(bench: &Bench<'_>, programs: &dyn Programs) {
    let pieces = || Body::stream(stream::iter(["a", "b", "c"].map(|piece| Ok(piece.into()))));
    let streamed = bench.call("echo", &programs.echo(), Invocation::new(pieces())).await.expect("echo ends");
    assert_eq!(streamed.result, "abc", "input arrives in order");

    // A conversation: each answer is read before the next piece is sent.
    let prepared = bench.prepare("echo", &programs.echo()).await.expect("echo can be prepared");
    let spec = Arc::new(InstanceSpec { name: "echo".to_owned(), limits: limits(), ..InstanceSpec::default() });
    let mut instance = bench.runtime.start(&prepared, &spec).await.expect("echo starts");
    let (say, said) = tokio::sync::mpsc::channel::<std::io::Result<bytes::Bytes>>(1);
    let said = stream::unfold(said, async |mut said| Some((said.recv().await?, said)));
    let (writer, mut reader) = reply();
    let streams = Streams { reply: Some(writer), ..streams() };
    let talking = async move {
        for word in ["one", "two", "three"] {
            say.send(Ok(word.into())).await.expect("the guest listens");
            let mut heard = Vec::new();
            while heard.len() < word.len() {
                match reader.next().await.expect("the guest answers") {
                    Piece::Bytes(bytes) => heard.extend_from_slice(&bytes),
                    Piece::Head(_) => {}
                }
            }
            assert_eq!(heard, word.as_bytes(), "each piece comes back before the next is sent");
        }
        drop(say);
        assert_eq!(reader.next().await, None, "the answer ends with the guest");
    };
    let call = Invocation { streaming: true, ..Invocation::new(Body::stream(said)) };
    let (answer, ()) = tokio::join!(instance.invoke(call, streams), talking);
    let answer = answer.expect("echo ends");
    assert!(answer.result.is_empty(), "what was streamed is not gathered, too");
    assert_eq!(answer.ended.usage.bytes_out, 11);
}

async fn walls(bench: &Bench<'_>, programs: &dyn Programs) {
    let trap = bench.call("trap", &programs.trap(), Invocation::default()).await.expect_err("a trap is an error");
    assert_eq!(trap.reason, Reason::Trap, "{trap}");
    let deep = bench.call("deep", &programs.deep(), Invocation::default()).await.expect_err("recursion ends");
    assert_eq!(deep.reason, Reason::Trap, "{deep}");
    let flood = bench.call("flood", &programs.flood(), Invocation::default()).await.expect_err("a flood is stopped");
    assert_eq!(flood.reason, Reason::Output, "{flood}");
    let hungry = bench.call("hungry", &programs.hungry(), Invocation::default()).await.expect_err("memory is limited");
    assert_eq!(hungry.reason, Reason::Memory, "{hungry}");
    for (place, program) in programs.endless() {
        let late = bench.call(place, &program, short()).await.expect_err("an endless guest is stopped");
        assert_eq!(late.reason, Reason::Deadline, "{place}: {late}");
    }
    // A body that never ends must not keep a guest that is over its deadline.
    let silent = Invocation { body: api::invocation::pending(), ..short() };
    let silent = bench.call("echo", &programs.echo(), silent).await.expect_err("a guest that waits is stopped");
    assert_eq!(silent.reason, Reason::Deadline, "{silent}");
}

async fn kills(bench: &Bench<'_>, programs: &dyn Programs) {
    for (place, program) in programs.endless() {
        let call = Invocation::default();
        let cancel = call.cancel.clone();
        let killing = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            cancel.cancel();
        };
        let (killed, ()) = tokio::join!(bench.call(place, &program, call), killing);
        assert_eq!(killed.expect_err("a cancelled guest is stopped").reason, Reason::Cancelled, "{place}");
    }
}

async fn side_by_side(bench: &Bench<'_>, programs: &dyn Programs) {
    let echo = programs.echo();
    let many = (0..8).map(|index| {
        let echo = &echo;
        async move {
            let text = format!("call {index}");
            let done = bench.call(&format!("echo-{index}"), echo, Invocation::new(text.clone())).await;
            assert_eq!(done.expect("parallel calls end").result, text, "calls do not mix");
        }
    });
    futures_util::future::join_all(many).await;
}

async fn pooled(bench: &Bench<'_>, programs: &dyn Programs) {
    let prepared = bench.prepare("echo", &programs.echo()).await.expect("echo can be prepared");
    let spec = InstanceSpec { name: "echo".to_owned(), limits: limits(), ..InstanceSpec::default() };
    let settings = PoolSettings { concurrency: 2, queue: 100, uses: 5, ..PoolSettings::default() };
    let pool = Pool::new(bench.runtime.clone(), prepared, spec, settings, Arc::default());
    let many = (0..40).map(|index| {
        let pool = &pool;
        async move {
            let call = Invocation::new(format!("call {index}"));
            let mut lease = pool.checkout(&call.cancel).await.expect("there is a place in time");
            let answer = lease.invoke(ExecutionId::new(), call, streams()).await.expect("echo ends");
            assert_eq!(answer.result, format!("call {index}"), "an instance that is used again begins clean");
        }
    });
    futures_util::future::join_all(many).await;
    let instances = pool.instances();
    assert!(instances.len() <= 2 && instances.iter().all(|instance| instance.uses < 5), "{instances:?}");
}
